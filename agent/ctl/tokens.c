/* Verbs about tokens of the API. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/ctl/verbs.h"

/* "90d", "12h", "30m", "45s", "90" (seconds). */
static bool take_time(const char *text, uint64_t *seconds) {
    static const struct {
        char unit;
        uint64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
    char *end;
    uint64_t number = strtoull(text, &end, 10), factor = *end == 0 ? 1 : 0;
    for (size_t i = 0; i < sizeof units / sizeof units[0] && *end != 0; i++) {
        factor = end[0] == units[i].unit && end[1] == 0 ? units[i].seconds : factor;
    }
    *seconds = number * factor;
    return text[0] >= '0' && text[0] <= '9' && factor > 0 && number >= 1 && number <= 315619200u / factor;
}

int tokens_create(struct call *c) {
    const char *role = verbs_option(c, "role"), *ttl = verbs_option(c, "ttl"), *name = verbs_option(c, "name");
    uint64_t seconds = 0;
    if (role == NULL) {
        (void)fputs("greyctl: --role viewer, operator or admin is wanted\n", stderr);
        return CTL_USAGE;
    }
    if (ttl != NULL && !take_time(ttl, &seconds)) {
        (void)fprintf(stderr, "greyctl: --ttl '%.40s': expected a time such as 30m, 12h or 90d, up to ten years\n", ttl);
        return CTL_USAGE;
    }
    struct builder body, out;
    struct json_writer w;
    builder_init(&body, 4096);
    json_writer_init(&w, &body);
    json_open(&w, '{');
    json_member_str(&w, "role", role);
    if (ttl != NULL) {
        json_member_uint(&w, "ttl_seconds", seconds);
    }
    if (name != NULL) {
        json_member_str(&w, "name", name);
    }
    json_close(&w);
    struct client_request q = {
        .method = "POST", .path = "/v1/tokens", .body = builder_bytes(&body), .body_type = "application/json"};
    struct http_answer a;
    int code = client_call(&c->client, &q, &a, &c->problem);
    builder_free(&body);
    if (code != CTL_OK) {
        builder_free(&a.body);
        return client_complain(&c->problem);
    }
    builder_init(&out, 65536);
    json_t *doc = json_read(builder_bytes(&a.body), NULL);
    if (c->output == OUTPUT_JSON) {
        builder_add(&out, builder_bytes(&a.body));
    } else { /* the token alone on stdout, for TOKEN=$(greyctl token create ...) */
        builder_addf(&out, "%s\n", verbs_text(doc, "token"));
        (void)fprintf(stderr, "token %s, %s until %s; it is shown this once\n", verbs_text(doc, "id"), verbs_text(doc, "role"),
                      verbs_text(doc, "expires"));
    }
    json_decref(doc);
    builder_free(&a.body);
    return verbs_print(&out);
}

int tokens_list(struct call *c) {
    static const char *const titles[] = {"ID", "ROLE", "NAME", "CREATED", "EXPIRES", "STATE"};
    json_t *doc;
    int code;
    struct builder out;
    struct render_table t;
    size_t i;
    const json_t *e;
    if (verbs_get(c, CLIENT_NODE, "/v1/tokens", &doc, &code)) {
        return code;
    }
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    render_table_begin(&t, titles, 6);
    json_array_foreach(json_object_get(doc, "tokens"), i, e) {
        render_cell(&t, verbs_text(e, "id"));
        render_cell(&t, verbs_text(e, "role"));
        render_cell(&t, verbs_text(e, "name"));
        render_cell(&t, verbs_text(e, "created"));
        render_cell(&t, verbs_text(e, "expires"));
        render_cell(&t, json_is_true(json_object_get(e, "expired")) ? "expired" : "good");
    }
    render_table_end(&t, &out);
    json_decref(doc);
    return verbs_print(&out);
}

int tokens_revoke(struct call *c) {
    struct builder path;
    struct http_answer a;
    builder_init(&path, 1024);
    builder_add_str(&path, "/v1/tokens/");
    client_encode(&path, bytes_str(c->args[0]), true);
    builder_add_byte(&path, 0);
    if (path.err != E_OK) {
        builder_free(&path);
        (void)fputs("greyctl: that is too long for the name of a token\n", stderr);
        return CTL_USAGE;
    }
    struct client_request q = {.method = "DELETE", .path = (const char *)path.data};
    int code = client_call(&c->client, &q, &a, &c->problem);
    builder_free(&path);
    builder_free(&a.body);
    if (code != CTL_OK) {
        return client_complain(&c->problem);
    }
    struct builder out;
    builder_init(&out, 256);
    builder_addf(&out, c->output == OUTPUT_JSON ? "{\"revoked\":\"%.64s\"}\n" : "revoked %.64s: no gateway takes it any more\n",
                 c->args[0]);
    return verbs_print(&out);
}
