/* GET /v1/federation/status, POST /v1/federation/try: the link to the core.  The leader keeps it, so another gateway asks that one. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/api/api_core.h"
#include "platform/now.h"

#define ASKS_MAX 64u
#define ASK_MS 2000u /* then this gateway tells what it knows itself */

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

/* --- what the one who keeps it knows ------------------------------------------------------------------------------------------------------- */

static void put_ledger(struct json_writer *w, const struct ledger *l) {
    static const char *const ways[LEDGER_WAYS] = {"up", "down"};
    json_open(w, '{');
    for (int way = 0; way < LEDGER_WAYS; way++) {
        json_member_open(w, ways[way], '{');
        for (int f = 0; f < LEDGER_FEATURES; f++) {
            json_member_uint(w, ledger_feature_name((enum ledger_feature)f), l->bytes[way][f]);
        }
        json_member_uint(w, "total", ledger_total(l, (enum ledger_way)way));
        json_close(w);
    }
    json_close(w);
}

static void put_budget(struct json_writer *w, const char *name, uint64_t bytes, uint64_t used) {
    json_member_open(w, name, '{');
    json_key(w, "bytes"); /* 0: none */
    json_uint(w, bytes);
    json_member_uint(w, "used_bytes", used);
    json_close(w);
}

/* What the link may carry and cost, and what it did.  The figures of the ledger are this gateway's own, of the time it has led. */
static void put_cost(struct json_writer *w, const struct uplink_facts *facts) {
    json_member_open(w, "bandwidth", '{');
    json_key(w, "limit_bytes_per_second"); /* 0: none */
    json_uint(w, facts->rule->up_bytes_per_s);
    json_member_uint(w, "down_limit_bytes_per_second", facts->rule->down_bytes_per_s);
    json_member_open(w, "held", '[');
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        if (facts->held[c]) {
            json_str(w, event_channel_name((enum event_channel)c));
        }
    }
    json_close(w);
    json_close(w);
    json_member_open(w, "budget", '{');
    put_budget(w, "day", facts->bandwidth->budget.day_bytes, facts->used->day_bytes);
    put_budget(w, "month", facts->bandwidth->budget.month_bytes, facts->used->month_bytes);
    json_member_uint(w, "reserve_percent", facts->bandwidth->budget.reserve_percent);
    json_close(w);
    json_key(w, "ledger");
    put_ledger(w, facts->ledger);
}

/* The members of the answer that only the one who keeps the link knows. */
static void put_own(const struct api *api, struct json_writer *w) {
    struct uplink_facts facts = {0};
    if (api->o.uplink != NULL) {
        uplink_facts(api->o.uplink, &facts);
    }
    json_member_open(w, "link", '{');
    json_member_bool(w, "up", facts.up);
    json_member_str(w, "endpoint", facts.endpoint == NULL ? "" : facts.endpoint);
    json_member_milli_if(w, "last_contact_seconds", facts.last_contact_unix_ms != 0, now_wall_ms() - facts.last_contact_unix_ms);
    json_member_uint(w, "sent_bytes", facts.sent_bytes);
    json_member_uint(w, "received_bytes", facts.received_bytes);
    json_member_str(w, "last_error", facts.last_error);
    api_link_put(w, &facts);
    json_close(w);
    if (api->o.uplink != NULL) {
        put_cost(w, &facts);
    }
}

/* The same as it came in `told`. */
static void put_told(struct json_writer *w, struct bytes told) {
    static const char *const names[] = {"link", "bandwidth", "budget", "ledger"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        struct bytes value = json_raw_member(told, names[i]);
        if (value.size > 0) {
            json_key(w, names[i]);
            json_raw(w, value);
        }
    }
}

/* --- the answer ---------------------------------------------------------------------------------------------------------------------------- */

/* told: what the gateway `of` says of its link; empty: this one tells of its own. */
static void answer(struct api_call *c, const char *of, struct bytes told) {
    struct api *api = c->api;
    struct api_answer a;
    api_answer_begin(&a);
    json_open(&a.w, '{');
    json_member_bool(&a.w, "enabled", api->o.uplink != NULL);
    json_member_str(&a.w, "owner", node_leader_name(api->o.node));
    json_member_str(&a.w, "link_of", told.size > 0 ? of : node_name(api->o.node));
    if (told.size > 0) {
        put_told(&a.w, told);
        struct uplink_facts here;
        uplink_facts(api->o.uplink, &here);
        json_member_open(&a.w, "here", '{');
        api_link_put(&a.w, &here);
        json_close(&a.w);
    } else {
        put_own(api, &a.w);
    }
    json_member_open(&a.w, "channels", '{');
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        struct channel_facts f;
        state_channel(node_state(api->o.node), (enum event_channel)i, &f);
        json_member_open(&a.w, event_channel_name((enum event_channel)i), '{');
        json_member_uint(&a.w, "acked_seq", f.acked_seq);
        json_member_uint(&a.w, "pending", f.pending_count);
        json_close(&a.w);
    }
    json_close(&a.w);
    json_key(&a.w, "incarnation");
    struct site_facts site;
    char text[24] = "";
    if (state_site(node_state(api->o.node), &site)) {
        (void)snprintf(text, sizeof text, "%016" PRIx64, site.incarnation);
    }
    json_str(&a.w, text);
    json_member_open(&a.w, "attestation", '{');
    api_attest_put(api, &a.w);
    json_close(&a.w);
    json_close(&a.w);
    api_answer_send(&a, c, 200, NULL, 0);
}

/* --- asking the leader --------------------------------------------------------------------------------------------------------------------- */

struct api_link_ask {
    struct api_link_ask *next;
    struct api_call *c;
    uint64_t number, until_ms;
    struct grey_name of;
    raft_id to;
};

static struct api_call *take_out(struct api *a, struct api_link_ask **at) {
    struct api_link_ask *q = *at;
    struct api_call *c = q->c;
    *at = q->next;
    a->link_ask_count--;
    mem_free(q);
    return c;
}

static bool ask(struct api_call *c) {
    struct api *a = c->api;
    struct raft_status s;
    struct peers *peers = node_peers(a->o.node);
    node_raft_status(a->o.node, &s);
    const struct raft_member *leader = node_member(a->o.node, s.leader);
    if (a->o.uplink == NULL || peers == NULL || leader == NULL || s.leader == s.self || a->link_ask_count >= ASKS_MAX ||
        peers_feature_level(peers, s.leader) < FEATURE_LEVEL_LINK) {
        return false;
    }
    struct message m = {.kind = MESSAGE_LINK_ASK, .u.link = {.number = a->link_ask_number + 1}};
    struct api_link_ask *q = mem_new(1, sizeof *q);
    if (q == NULL || !peers_send(peers, s.leader, &m)) {
        mem_free(q);
        return false;
    }
    *q = (struct api_link_ask){.next = a->link_asks,
                               .c = c,
                               .number = ++a->link_ask_number,
                               .until_ms = loop_now_ms(a->o.loop) + ASK_MS,
                               .of = leader->node,
                               .to = s.leader};
    a->link_asks = q;
    a->link_ask_count++;
    if (a->link_timer.place == 0) {
        loop_timer_after(a->o.loop, &a->link_timer, ASK_MS);
    }
    return true;
}

void api_link_timer(void *context) {
    struct api *a = context;
    struct api_link_ask **at = &a->link_asks;
    uint64_t now_ms = loop_now_ms(a->o.loop), next_ms = 0;
    while (*at != NULL) {
        if ((*at)->until_ms <= now_ms) {
            answer(take_out(a, at), "", bytes_of(NULL, 0));
        } else { /* towards the oldest */
            next_ms = (*at)->until_ms;
            at = &(*at)->next;
        }
    }
    if (next_ms > 0) {
        loop_timer_set(a->o.loop, &a->link_timer, next_ms);
    }
}

void api_link_free(struct api *a) {
    while (a->link_asks != NULL) {
        mem_free(take_out(a, &a->link_asks));
    }
    loop_timer_cancel(a->o.loop, &a->link_timer);
}

static void tell(struct api *a, raft_id to, uint64_t number) {
    struct raft_status s;
    struct builder text;
    struct json_writer w;
    node_raft_status(a->o.node, &s);
    builder_init(&text, MESSAGE_LINK_BYTES_MAX);
    json_writer_init(&w, &text);
    if (s.role == RAFT_LEADER && a->o.uplink != NULL) {
        json_open(&w, '{');
        put_own(a, &w);
        json_close(&w);
    }
    struct message m = {.kind = MESSAGE_LINK,
                        .u.link = {.number = number, .json = text.err == E_OK ? builder_bytes(&text) : bytes_of(NULL, 0)}};
    (void)peers_send(node_peers(a->o.node), to, &m); /* without it the asker waits ASK_MS */
    builder_free(&text);
}

void api_heard(struct api *a, raft_id from, const struct message *m) {
    if (m->kind == MESSAGE_LINK_ASK) {
        tell(a, from, m->u.link.number);
        return;
    }
    for (struct api_link_ask **at = &a->link_asks; *at != NULL; at = &(*at)->next) {
        if ((*at)->number == m->u.link.number && (*at)->to == from) {
            struct grey_name of = (*at)->of;
            json_t *doc = json_read(m->u.link.json, NULL); /* another's word: it must not break the answer */
            bool told = json_is_object(doc);
            json_decref(doc);
            answer(take_out(a, at), of.text, told ? m->u.link.json : bytes_of(NULL, 0));
            return;
        }
    }
}

void api_federation_status(struct api_call *c) {
    if (!ask(c)) {
        answer(c, "", bytes_of(NULL, 0));
    }
}
