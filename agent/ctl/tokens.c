/* Verbs about tokens of the API. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/ctl/listing.h"

int tokens_create(struct call *c) {
    const char *role = verbs_option(c, "role"), *name = verbs_option(c, "name");
    uint64_t seconds = 0;
    if (role == NULL) {
        (void)fputs("greyctl: --role viewer, operator or admin is wanted\n", stderr);
        return CTL_USAGE;
    }
    if (!verbs_seconds(c, "ttl", 3653, &seconds)) {
        return CTL_USAGE;
    }
    struct builder body;
    struct json_writer w;
    json_t *doc;
    int code;
    builder_init(&body, 4096);
    json_writer_init(&w, &body);
    json_open(&w, '{');
    json_member_str(&w, "role", role);
    if (seconds > 0) {
        json_member_uint(&w, "ttl_seconds", seconds);
    }
    if (name != NULL) {
        json_member_str(&w, "name", name);
    }
    json_close(&w);
    if (verbs_send_json(c, CLIENT_NODE, "POST", "/v1/tokens", &body, &doc, &code)) {
        return code;
    }
    (void)printf("%s\n", verbs_text(doc, "token")); /* alone on stdout, for TOKEN=$(greyctl token create ...) */
    (void)fprintf(stderr, "token %s, %s until %s; it is shown this once\n", verbs_text(doc, "id"), verbs_text(doc, "role"),
                  verbs_text(doc, "expires"));
    json_decref(doc);
    return CTL_OK;
}

static void put_state(struct render_table *t, const json_t *row, const char *name, bool wide) {
    (void)wide;
    render_cell(t, json_is_true(json_object_get(row, name)) ? "expired" : "good");
}

int tokens_list(struct call *c) {
    static const struct listing_column columns[] = {LISTING("ID", "id"),           LISTING("ROLE", "role"),
                                                    LISTING("NAME", "name"),       LISTING("CREATED", "created"),
                                                    LISTING("EXPIRES", "expires"), LISTING_BY("STATE", "expired", put_state)};
    static const struct listing l = {.columns = columns, .count = sizeof columns / sizeof columns[0], .rows = "tokens"};
    return listing_get(c, CLIENT_NODE, "/v1/tokens", &l);
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
