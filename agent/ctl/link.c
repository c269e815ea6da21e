/* Verbs about the link to the core. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/ctl/leading.h"
#include "agent/ctl/verbs.h"

static void put_handover(const json_t *handover, struct builder *out) {
    char span[RENDER_SHORT];
    double question_s = verbs_real(handover, "next_question_seconds", -1);
    if (question_s >= 0) {
        builder_addf(out, "asks its neighbours whether they reach a broker in %s\n", render_span(question_s, span));
    }
    if (verbs_text(handover, "to")[0] != 0) {
        builder_add_str(out, "gave leadership, for its link was broken, to ");
        render_text(out, bytes_str(verbs_text(handover, "to")));
        builder_add_str(out, " at ");
        render_text(out, bytes_str(verbs_text(handover, "time")));
        builder_add_byte(out, '\n');
    }
}

static void put_first_line(const json_t *link, struct builder *out) {
    char span[RENDER_SHORT], size[RENDER_SHORT];
    const char *stage = verbs_text(link, "stage"), *error = verbs_text(link, "last_error"), *proxy = verbs_text(link, "proxy");
    double next_s = verbs_real(link, "next_try_seconds", -1), since_s = verbs_real(link, "stage_seconds", 0);
    uint64_t handshake_bytes = verbs_uint(link, "handshake_bytes");
    builder_add_str(out, json_is_true(json_object_get(link, "up")) ? "" : "down: ");
    builder_addf(out, "%s for %s", stage, render_span(since_s, span));
    if (next_s >= 0) {
        builder_addf(out, ", next try in %s", render_span(next_s, span));
    }
    if (handshake_bytes > 0) {
        builder_addf(out, ", keep-alive %" PRIu64 " s, TLS session %s (handshake %s)", verbs_uint(link, "keepalive_seconds"),
                     json_is_true(json_object_get(link, "tls_resumed")) ? "resumed" : "new", render_size(handshake_bytes, size));
    }
    if (proxy[0] != 0) {
        builder_add_str(out, ", through proxy ");
        render_text(out, bytes_str(proxy));
    }
    builder_add_byte(out, '\n');
    if (json_is_true(json_object_get(link, "up"))) {
        builder_addf(out, "the core takes %s on the way, ", render_size(verbs_uint(link, "credit_bytes"), size));
        builder_addf(out, json_is_true(json_object_get(link, "end_to_end")) ? "%s are; sealed end to end\n" : "%s are\n",
                     render_size(verbs_uint(link, "unacknowledged_bytes"), size));
    }
    put_handover(json_object_get(link, "handover"), out);
    if (error[0] != 0) {
        builder_add_str(out, "last failure: ");
        render_text(out, bytes_str(error));
        builder_add_byte(out, '\n');
    }
}

static void put_endpoints(const json_t *link, struct builder *out) {
    static const char *const titles[] = {"ENDPOINT", "PRIORITY>", "IN USE", "BREAKER", "FAILURES>", "OPEN FOR", "KEEP-ALIVE>"};
    struct render_table t;
    char span[RENDER_SHORT];
    size_t i;
    const json_t *e;
    render_table_begin(&t, titles, sizeof titles / sizeof titles[0]);
    json_array_foreach(json_object_get(link, "endpoints"), i, e) {
        double open_s = verbs_real(e, "open_for_seconds", 0);
        render_cell(&t, verbs_text(e, "address"));
        render_cellf(&t, "%" PRIu64, verbs_uint(e, "priority"));
        render_cell(&t, json_is_true(json_object_get(e, "in_use")) ? "yes" : "no");
        render_cell(&t, verbs_text(e, "breaker"));
        render_cellf(&t, "%" PRIu64, verbs_uint(e, "failures"));
        render_cell(&t, open_s > 0 ? render_span(open_s, span) : NULL);
        render_cellf(&t, "%" PRIu64 " s", verbs_uint(e, "keepalive_seconds"));
    }
    render_table_end(&t, out);
}

int link_status(struct call *c) {
    json_t *federation;
    struct builder out;
    int code;
    if (verbs_get(c, CLIENT_NODE, "/v1/federation/status", &federation, &code)) {
        return code;
    }
    const json_t *link = json_object_get(federation, "link");
    const char *owner = verbs_text(federation, "owner");
    builder_init(&out, CLIENT_ANSWER_BYTES_MAX);
    if (!json_is_true(json_object_get(federation, "enabled"))) {
        builder_add_str(&out, "no core is configured here (federation.enabled)\n");
    } else if (owner[0] == 0) {
        builder_add_str(&out, "down while the site has no leader\n");
    } else if (strcmp(verbs_text(federation, "link_of"), owner) != 0) {
        builder_add_str(&out, "kept by the leader, which did not answer this node in time; ask there: node ");
        render_text(&out, bytes_str(owner));
        builder_add_byte(&out, '\n');
    } else {
        put_first_line(link, &out);
        put_handover(json_object_get(json_object_get(federation, "here"), "handover"), &out); /* of the one that was asked */
        put_endpoints(link, &out);
        cost_put_limits(federation, &out);
    }
    json_decref(federation);
    return verbs_print(&out);
}

int link_try(struct call *c) {
    struct client_request q = {.method = "POST", .path = "/v1/federation/try"};
    json_t *doc;
    struct leading leader;
    int code;
    leading_redirect(c, &leader);
    if (verbs_send(c, &q, &doc, &code)) {
        return code;
    }
    json_decref(doc);
    (void)puts("trying now; see 'greyctl link status'");
    return CTL_OK;
}
