#include <stdio.h>
#include <string.h>

#include "agent/api/api_core.h"
#include "platform/now.h"

void api_link_put(struct json_writer *w, const struct uplink_facts *f) {
    json_member_str(w, "stage", f->stage == NULL ? "off" : f->stage);
    json_member_milli_if(w, "stage_seconds", f->stage != NULL && strcmp(f->stage, "off") != 0, f->stage_ms);
    json_member_milli_if(w, "next_try_seconds", f->next_try_ms >= 0 && f->stage != NULL, f->next_try_ms);
    json_member_uint(w, "keepalive_seconds", f->keepalive_s);
    json_member_bool(w, "end_to_end", f->sealed);
    json_member_bool(w, "tls_resumed", f->resumed);
    json_member_uint(w, "handshake_bytes", f->handshake_bytes);
    json_member_uint(w, "credit_bytes", f->credit_bytes);
    json_member_uint(w, "unacknowledged_bytes", f->on_way_bytes);
    json_member_str(w, "proxy", f->proxy == NULL ? "" : f->proxy);
    json_member_open(w, "handover", '{');
    json_member_uint(w, "questions", f->handover_questions);
    json_member_milli_if(w, "next_question_seconds", f->handover_ms >= 0 && f->handed_to != NULL, f->handover_ms);
    json_member_str(w, "to", f->handed_to == NULL ? "" : f->handed_to);
    json_key(w, "time");
    if (f->handed_unix_ms == 0) {
        json_none(w);
    } else {
        char text[32];
        now_format(f->handed_unix_ms, text);
        json_str(w, text);
    }
    json_close(w);
    json_member_open(w, "endpoints", '[');
    for (uint32_t i = 0; i < f->endpoint_count; i++) {
        const struct uplink_endpoint_facts *e = &f->endpoints[i];
        json_open(w, '{');
        json_member_str(w, "address", e->address);
        json_member_uint(w, "priority", e->priority);
        json_member_bool(w, "in_use", e->in_use);
        json_member_str(w, "breaker", e->breaker);
        json_member_uint(w, "failures", e->failures);
        json_member_milli(w, "open_for_seconds", e->open_ms);
        json_member_uint(w, "keepalive_seconds", e->keepalive_s);
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
        json_member_str(&a.w, "status", "trying");
        json_close(&a.w);
        api_answer_send(&a, c, 202, NULL, 0);
    }
}
