/* Verbs about attestation, as a gateway of the site sees it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/ctl/verbs.h"

static void put_why(const json_t *why, const char *who, struct builder *out) {
    if (!json_is_object(why)) {
        return;
    }
    builder_add_byte(out, '\n');
    render_text(out, bytes_str(who));
    builder_addf(out, ": GREY-%" PRIu64 " ", verbs_uint(why, "error"));
    render_text(out, bytes_str(verbs_text(why, "sentence")));
    builder_add_str(out, ": ");
    render_text(out, bytes_str(verbs_text(why, "detail")));
    builder_add_str(out, "\n  -> ");
    render_text(out, bytes_str(verbs_text(why, "remedy")));
    builder_add_byte(out, '\n');
}

static void put_member(struct render_table *t, const json_t *m) {
    bool judged = json_is_string(json_object_get(m, "type"));
    bool expired = strcmp(verbs_text(m, "standing"), "expired") == 0;
    render_cell(t, verbs_text(m, "id"));
    render_cell(t, expired ? "expired" : verbs_text(m, "attestation"));
    render_cell(t, json_is_true(json_object_get(m, "quarantined")) ? "yes" : "no");
    render_cell(t, json_is_true(json_object_get(m, "votes")) ? "yes" : "no");
    render_cell(t, judged ? verbs_text(m, "type") : NULL);
    if (judged) {
        render_cellf(t, "%" PRIu64, verbs_uint(m, "policy_serial"));
    } else {
        render_cell(t, NULL);
    }
    render_cell(t, judged ? verbs_text(m, "from") : NULL);
    render_cell(t, judged ? verbs_text(m, "until") : NULL);
}

int proven_status(struct call *c) {
    static const char *const titles[] = {"NODE", "ATTESTATION", "QUARANTINE", "VOTES", "TYPE", "POLICY>", "SINCE", "UNTIL"};
    json_t *doc;
    struct render_table t;
    struct builder out;
    size_t i;
    const json_t *m;
    int code;
    if (verbs_get(c, CLIENT_NODE, "/v1/attestation", &doc, &code)) {
        return code;
    }
    const json_t *members = json_object_get(doc, "members");
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    render_table_begin(&t, titles, sizeof titles / sizeof titles[0]);
    json_array_foreach(members, i, m) {
        put_member(&t, m);
    }
    render_table_end(&t, &out);
    json_array_foreach(members, i, m) {
        put_why(json_object_get(m, "why"), verbs_text(m, "id"), &out);
    }
    put_why(json_object_get(json_object_get(doc, "self"), "why"), "this gateway, last", &out);
    if (!json_is_true(json_object_get(doc, "enabled"))) {
        builder_add_str(&out, "\nattestation is off at this gateway (attestation.enabled)\n");
    }
    json_decref(doc);
    return verbs_print(&out);
}

int proven_now(struct call *c) {
    struct client_request q = {.method = "POST", .path = "/v1/attestation"};
    json_t *doc;
    int code;
    if (verbs_send(c, &q, &doc, &code)) {
        return code;
    }
    json_decref(doc);
    (void)puts("all gateways that can are attested now; see 'greyctl attest status'");
    return CTL_OK;
}
