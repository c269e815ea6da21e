#include <stdio.h>
#include <string.h>

#include "agent/api/api_core.h"
#include "platform/now.h"

void api_link_put(struct json_writer *w, const struct uplink_facts *f) {
    json_key(w, "stage");
    json_str(w, f->stage == NULL ? "off" : f->stage);
    json_key(w, "stage_seconds");
    if (f->stage == NULL || strcmp(f->stage, "off") == 0) {
        json_none(w);
    } else {
        json_milli(w, f->stage_ms);
    }
    json_key(w, "next_try_seconds");
    if (f->next_try_ms < 0 || f->stage == NULL) {
        json_none(w);
    } else {
        json_milli(w, f->next_try_ms);
    }
    json_key(w, "keepalive_seconds");
    json_uint(w, f->keepalive_s);
    json_key(w, "end_to_end");
    json_bool(w, f->sealed);
    json_key(w, "tls_resumed");
    json_bool(w, f->resumed);
    json_key(w, "handshake_bytes");
    json_uint(w, f->handshake_bytes);
    json_key(w, "credit_bytes");
    json_uint(w, f->credit_bytes);
    json_key(w, "unacknowledged_bytes");
    json_uint(w, f->on_way_bytes);
    json_key(w, "proxy");
    json_str(w, f->proxy == NULL ? "" : f->proxy);
    json_key(w, "handover");
    json_open(w, '{');
    json_key(w, "questions");
    json_uint(w, f->handover_questions);
    json_key(w, "next_question_seconds");
    if (f->handover_ms < 0 || f->handed_to == NULL) {
        json_none(w);
    } else {
        json_milli(w, f->handover_ms);
    }
    json_key(w, "to");
    json_str(w, f->handed_to == NULL ? "" : f->handed_to);
    json_key(w, "time");
    if (f->handed_unix_ms == 0) {
        json_none(w);
    } else {
        char text[32];
        now_format(f->handed_unix_ms, text);
        json_str(w, text);
    }
    json_close(w);
    json_key(w, "endpoints");
    json_open(w, '[');
    for (uint32_t i = 0; i < f->endpoint_count; i++) {
        const struct uplink_endpoint_facts *e = &f->endpoints[i];
        json_open(w, '{');
        json_key(w, "address");
        json_str(w, e->address);
        json_key(w, "priority");
        json_uint(w, e->priority);
        json_key(w, "in_use");
        json_bool(w, e->in_use);
        json_key(w, "breaker");
        json_str(w, e->breaker);
        json_key(w, "failures");
        json_uint(w, e->failures);
        json_key(w, "open_for_seconds");
        json_milli(w, e->open_ms);
        json_key(w, "keepalive_seconds");
        json_uint(w, e->keepalive_s);
        json_close(w);
    }
    json_close(w);
}

void api_link_try(struct api_call *c) {
    struct api *api = c->api;
    if (api->o.uplink == NULL) {
        api_call_error(c, E_NOT_FOUND, "no core is configured here (federation.enabled)");
    } else if (!uplink_hurry(api->o.uplink)) {
        char detail[LIMIT_NAME_BYTES + 64];
        const char *leader = node_leader_name(api->o.node);
        (void)snprintf(detail, sizeof detail, "the link is kept by the leader%s%s: ask there", leader[0] != 0 ? ", node " : "",
                       leader);
        api_call_error(c, E_NOT_LEADER, detail);
    } else {
        struct api_answer a;
        api_answer_begin(&a);
        json_open(&a.w, '{');
        json_key(&a.w, "status");
        json_str(&a.w, "trying");
        json_close(&a.w);
        api_answer_send(&a, c, 202, NULL, 0);
    }
}
