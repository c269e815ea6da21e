/* Verbs that ask the core what gateways have shown of themselves, and say by which policy they are judged. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/ctl/input.h"
#include "agent/ctl/verbs.h"
#include "federation/object.h"
#include "include/grey/ids.h"

#define POLICY_PATH "/v1/policies/grey-attestation"
#define POLICY_BYTES_MAX (256u * 1024u)

static bool named(const char *what, const char *name) {
    if (!grey_name_valid(name, strlen(name))) {
        (void)fprintf(stderr, "greyctl: '%.80s' is no name of a %s\n", name, what);
        return false;
    }
    return true;
}

/* *out: what came, for the caller to free. */
static int call(struct call *c, const char *method, const char *path, struct bytes body, const char *type, struct http_answer *a) {
    struct client_request q = {.side = CLIENT_CORE, .method = method, .path = path, .body = body, .body_type = type};
    int code = client_call(&c->client, &q, a, &c->problem);
    return code == CTL_OK ? CTL_OK : client_complain(&c->problem);
}

static int print(const struct http_answer *a) {
    struct builder out;
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    builder_add(&out, builder_bytes(&a->body));
    return verbs_print(&out);
}

int appraised_list(struct call *c) {
    static const char *const titles[] = {"SITE", "NODE", "STATE", "TYPE", "JUDGED", "UNTIL", "WHY", "DETAIL"};
    const char *site = verbs_option(c, "site");
    char path[160] = "/v1/attestations?limit=10000";
    json_t *doc;
    int code;
    struct builder out;
    struct render_table t;
    size_t i;
    const json_t *k;
    if (site != NULL && !named("site", site)) {
        return CTL_USAGE;
    }
    if (site != NULL) {
        (void)snprintf(path, sizeof path, "/v1/attestations?limit=10000&site=%s", site);
    }
    if (verbs_get(c, CLIENT_CORE, path, &doc, &code)) {
        return code;
    }
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    render_table_begin(&t, titles, c->output == OUTPUT_WIDE ? 8 : 7);
    json_array_foreach(doc, i, k) {
        render_cell(&t, verbs_text(k, "site"));
        render_cell(&t, verbs_text(k, "node"));
        render_cell(&t, verbs_text(k, "state"));
        render_cell(&t, verbs_text(k, "type"));
        render_cell(&t, verbs_text(k, "judged"));
        render_cell(&t, verbs_text(k, "until"));
        render_cell(&t, verbs_text(k, "why"));
        if (c->output == OUTPUT_WIDE) {
            render_cell(&t, verbs_text(k, "detail"));
        }
    }
    if (json_array_size(doc) == 0) {
        builder_free(&t.cells);
        builder_add_str(&out, "no gateway has shown anything yet; 'greyctl attest policy learn' lets them begin\n");
    } else {
        render_table_end(&t, &out);
    }
    json_decref(doc);
    return verbs_print(&out);
}

static void put_line(struct builder *out, const json_t *doc, const char *title, const char *name) {
    const char *text = verbs_text(doc, name);
    if (text[0] != 0) {
        builder_addf(out, "%-14s", title);
        render_text(out, bytes_str(text));
        builder_add_byte(out, '\n');
    }
}

int appraised_show(struct call *c) {
    char path[2 * LIMIT_NAME_BYTES + 40];
    json_t *doc, *value;
    const char *number;
    int code;
    struct builder out;
    if (!named("site", c->args[0]) || !named("gateway", c->args[1])) {
        return CTL_USAGE;
    }
    (void)snprintf(path, sizeof path, "/v1/attestations/%s/%s", c->args[0], c->args[1]);
    if (verbs_get(c, CLIENT_CORE, path, &doc, &code)) {
        return code;
    }
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    put_line(&out, doc, "state", "state");
    put_line(&out, doc, "type", "type");
    put_line(&out, doc, "judged", "judged");
    put_line(&out, doc, "until", "until");
    put_line(&out, doc, "why", "why");
    put_line(&out, doc, "detail", "detail");
    put_line(&out, doc, "program", "program");
    put_line(&out, doc, "config", "config");
    if (json_object_get(doc, "policy_serial") != NULL) {
        builder_addf(&out, "%-14s%" PRIu64 "\n", "policy serial", verbs_uint(doc, "policy_serial"));
    }
    put_line(&out, doc, "firmware", "firmware");
    json_object_foreach(json_object_get(doc, "registers"), number, value) {
        builder_addf(&out, "register %-5s%s\n", number, json_is_string(value) ? json_string_value(value) : "");
    }
    json_decref(doc);
    return verbs_print(&out);
}

int appraised_forget(struct call *c) {
    char path[2 * LIMIT_NAME_BYTES + 40];
    struct http_answer a;
    if (!named("site", c->args[0]) || !named("gateway", c->args[1])) {
        return CTL_USAGE;
    }
    (void)snprintf(path, sizeof path, "/v1/attestations/%s/%s/forget", c->args[0], c->args[1]);
    int code = call(c, "POST", path, bytes_of(NULL, 0), NULL, &a);
    builder_free(&a.body);
    if (code == CTL_OK) {
        (void)printf("%s of site %s may introduce itself with another TPM\n", c->args[1], c->args[0]);
    }
    return code;
}

static int learn(struct call *c, bool begin) {
    struct http_answer a;
    struct fault f = {0};
    int code = call(c, "POST", "/v1/attestations/policy", bytes_str(begin ? "{\"learn\":true}" : "{\"learn\":false}"),
                    "application/json", &a);
    if (code == CTL_OK && c->output == OUTPUT_JSON) {
        code = print(&a);
    } else if (code == CTL_OK) {
        json_t *doc = json_read(builder_bytes(&a.body), &f);
        (void)printf(begin ? "what gateways show is taken and remembered; 'greyctl attest policy enforce' ends that\n"
                           : "%" PRIu64 " values are accepted; what gateways show beside them is refused\n",
                     verbs_uint(doc, "values"));
        json_decref(doc);
    }
    builder_free(&a.body);
    return code;
}

static int set(struct call *c) {
    struct builder text;
    struct http_answer a = {0};
    builder_init(&text, POLICY_BYTES_MAX);
    int code = CTL_USAGE;
    if (c->arg_count < 2) {
        (void)fputs("greyctl: name the file with the policy, or '-' for stdin\n", stderr);
    } else if (input_read(c->args[1], "the policy", &text)) {
        code = call(c, "PUT", POLICY_PATH, builder_bytes(&text), "application/yaml", &a);
        code = code == CTL_OK ? print(&a) : code;
        builder_free(&a.body);
    }
    builder_free(&text);
    return code;
}

int appraised_policy(struct call *c) {
    const char *what = c->args[0];
    if (strcmp(what, "set") == 0) {
        return set(c);
    }
    if (strcmp(what, "learn") == 0 || strcmp(what, "enforce") == 0) {
        return learn(c, what[0] == 'l');
    }
    if (strcmp(what, "show") != 0) {
        (void)fprintf(stderr, "greyctl: '%.40s' is not show, set, learn or enforce\n", what);
        return CTL_USAGE;
    }
    struct http_answer a;
    int code = call(c, "GET", POLICY_PATH, bytes_of(NULL, 0), NULL, &a);
    code = code == CTL_OK ? print(&a) : code;
    builder_free(&a.body);
    return code;
}
