/* Verbs that ask the core what gateways have shown of themselves, and say by which policy they are judged. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/ctl/input.h"
#include "agent/ctl/listing.h"
#include "federation/object.h"
#include "include/grey/ids.h"

#define POLICY_PATH "/v1/policies/grey-attestation"
#define POLICY_BYTES_MAX (256u * 1024u)

int appraised_list(struct call *c) {
    static const struct listing_column columns[] = {
        LISTING("SITE", "site"),     LISTING("NODE", "node"),   LISTING("STATE", "state"), LISTING("TYPE", "type"),
        LISTING("JUDGED", "judged"), LISTING("UNTIL", "until"), LISTING("WHY", "why"),     LISTING_WIDE("DETAIL", "detail")};
    static const struct listing l = {.columns = columns,
                                     .count = sizeof columns / sizeof columns[0],
                                     .none = "no gateway has shown anything yet; 'greyctl attest policy learn' lets them begin\n"};
    const char *site = verbs_option(c, "site");
    char path[160];
    if (site != NULL && !verbs_named("site", site)) {
        return CTL_USAGE;
    }
    (void)snprintf(path, sizeof path, "/v1/attestations?limit=10000%s%s", site != NULL ? "&site=" : "", site != NULL ? site : "");
    return listing_get(c, CLIENT_CORE, path, &l);
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
    if (!verbs_named("site", c->args[0]) || !verbs_named("gateway", c->args[1])) {
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
    json_t *doc;
    int code;
    if (!verbs_named("site", c->args[0]) || !verbs_named("gateway", c->args[1])) {
        return CTL_USAGE;
    }
    (void)snprintf(path, sizeof path, "/v1/attestations/%s/%s/forget", c->args[0], c->args[1]);
    struct client_request q = {.side = CLIENT_CORE, .method = "POST", .path = path};
    if (verbs_send(c, &q, &doc, &code)) {
        return code;
    }
    (void)printf("%s of site %s may introduce itself with another TPM\n", c->args[1], c->args[0]);
    json_decref(doc);
    return CTL_OK;
}

static int learn(struct call *c, bool begin) {
    struct client_request q = {.side = CLIENT_CORE,
                               .method = "POST",
                               .path = "/v1/attestations/policy",
                               .body = bytes_str(begin ? "{\"learn\":true}" : "{\"learn\":false}"),
                               .body_type = "application/json"};
    json_t *doc;
    int code;
    if (verbs_send(c, &q, &doc, &code)) {
        return code;
    }
    (void)printf(begin ? "what gateways show is taken and remembered; 'greyctl attest policy enforce' ends that\n"
                       : "%" PRIu64 " values are accepted; what gateways show beside them is refused\n",
                 verbs_uint(doc, "values"));
    json_decref(doc);
    return CTL_OK;
}

static int set(struct call *c) {
    struct builder text;
    builder_init(&text, POLICY_BYTES_MAX);
    int code = CTL_USAGE;
    if (c->arg_count < 2) {
        (void)fputs("greyctl: name the file with the policy, or '-' for stdin\n", stderr);
    } else if (input_read(c->args[1], "the policy", &text)) {
        code = verbs_relay(c, "PUT", POLICY_PATH, builder_bytes(&text), "application/yaml");
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
    return verbs_relay(c, "GET", POLICY_PATH, bytes_of(NULL, 0), NULL);
}
