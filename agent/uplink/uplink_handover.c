/* The driver of federation/handover.h: asks neighbours, looks for them, and orders what is decided. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/uplink/uplink_core.h"
#include "federation/origin.h"
#include "platform/keys.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/now.h"

#define LOOK_MS 30000u

static struct metric asked = METRIC_COUNTER("grey_federation_handover_questions_total",
                                            "Times that this gateway, leading without an uplink, asked its neighbours for theirs.");
static struct metric looks = METRIC_COUNTER("grey_federation_handover_looks_total",
                                            "Times that this gateway looked whether it reaches a broker, for a neighbour.");
static struct metric handed =
    METRIC_COUNTER("grey_federation_handovers_total", "Times that this gateway handed leadership on for its uplink.");

void uplink_handover_register(void) {
    struct metric *const all[] = {&asked, &looks, &handed};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        metrics_register(all[i]);
    }
}

static uint32_t chance(void) {
    uint32_t random;
    keys_random(&random, sizeof random);
    return random;
}

static void plan(struct uplink *u) {
    uint64_t wake_ms = handover_wake_ms(&u->handover.policy);
    if (wake_ms == UINT64_MAX) {
        loop_timer_cancel(u->x.loop, &u->handover.timer);
    } else {
        loop_timer_set(u->x.loop, &u->handover.timer, wake_ms);
    }
}

/* --- the leader ------------------------------------------------------------------------------------------------------------------------- */

static bool may_lead(const struct raft_member *m, raft_id self) {
    return m->id != self && m->voter && !m->witness;
}

static void on_timer(void *context) {
    struct uplink *u = context;
    struct peers *peers = node_peers(u->node);
    struct raft_status s;
    uint32_t count = 0;
    node_raft_status(u->node, &s);
    if (handover_step(&u->handover.policy, loop_now_ms(u->x.loop), chance()) && peers != NULL && s.role == RAFT_LEADER) {
        struct message m = {.kind = MESSAGE_REACH_ASK, .u.reach = {.number = u->handover.policy.number}};
        for (uint32_t i = 0; i < s.members->count; i++) {
            const struct raft_member *to = &s.members->at[i];
            count += may_lead(to, s.self) && peers_feature_level(peers, to->id) >= FEATURE_LEVEL_HANDOVER &&
                     peers_send(peers, to->id, &m);
        }
        metrics_add(&asked, 0, 1);
        log_info("uplink", "handover",
                 "no broker has answered this gateway for long: asked %" PRIu32 " neighbours whether they reach one", count);
    }
    plan(u);
}

static void ordered(void *context, const struct node_answer *a) {
    (void)context;
    if (a->err != E_OK) {
        log_warn("uplink", "handover", "error=GREY-%d %s: %s", error_id(a->err), error_sentence(a->err), a->detail);
    }
}

/* For the audit trail: nobody ordered it. */
static void note(struct uplink *u, const char *to) {
    struct site_facts site;
    char text[LIMIT_NAME_BYTES + 48];
    struct builder b;
    if (!state_site(uplink_state(u), &site) || site.feature_level < FEATURE_LEVEL_ORIGIN) {
        return;
    }
    (void)snprintf(text, sizeof text, "leadership to %s, which reaches a broker", to);
    builder_init(&b, 1024);
    origin_put(
        &b,
        &(struct origin){.who = bytes_str("uplink"), .role = ROLE_ADMIN, .address = bytes_str("local"), .node = bytes_str(u->name)},
        false);
    codec_put_array(&b, 2);
    codec_put_text(&b, bytes_str("HANDOVER"));
    codec_put_text(&b, bytes_str(text));
    struct blob *payload = builder_blob(&b);
    builder_free(&b);
    if (payload != NULL) {
        node_propose(u->node, ENTRY_NOTE, payload, true, ordered, NULL);
        blob_unref(payload);
    }
}

static void hand_over(struct uplink *u, const struct raft_member *to) {
    struct node_order o = {.transfer = true, .to = to->node};
    metrics_add(&handed, 0, 1);
    (void)snprintf(u->handover.to, sizeof u->handover.to, "%s", to->node.text);
    u->handover.handed_ms = now_wall_ms();
    log_warn("uplink", "handover", "to=%s, which reaches a broker; this gateway has reached none for %" PRIu64 " s", to->node.text,
             (loop_now_ms(u->x.loop) - u->handover.policy.broken_ms) / 1000);
    note(u, to->node.text);
    node_order(u->node, &o, ordered, NULL);
}

/* --- who is asked ------------------------------------------------------------------------------------------------------------------------- */

static void say(struct uplink *u, raft_id to, uint64_t number, bool reaches) {
    struct message m = {.kind = MESSAGE_REACH, .u.reach = {.number = number, .reaches = reaches}};
    if (node_peers(u->node) != NULL) {
        (void)peers_send(node_peers(u->node), to, &m); /* without room it is asked again */
    }
}

static void look(struct uplink *u);

static void looked(void *context, bool good, const char *why) {
    struct uplink *u = context;
    log_info("uplink", "handover", "looked for a neighbour: endpoint=%s good=%s %s", u->endpoints[u->handover.endpoint].address,
             good ? "yes" : "no", why);
    if (!good && ++u->handover.endpoint < u->o.endpoint_count) {
        loop_timer_after(u->x.loop, &u->handover.look_timer, 0); /* the next one, not from within this one's end */
        return;
    }
    handover_looked(&u->handover.policy, good, loop_now_ms(u->x.loop));
    say(u, u->handover.asker, u->handover.number, good);
}

static void look(struct uplink *u) {
    struct uplink_endpoint *e = &u->endpoints[u->handover.endpoint];
    struct conn_options o = {.tls = u->o.tls,
                             .open_timeout_ms = LOOK_MS / u->o.endpoint_count,
                             .proxy = uplink_link_proxy(u),
                             .offer = uplink_link_offers(u, e)};
    probe_begin(&u->handover.probe, &u->x, e->address, &o, looked, u);
}

static void on_look_timer(void *context) {
    look(context);
}

void uplink_heard(struct uplink *u, raft_id from, const struct message *m) {
    struct raft_status s;
    node_raft_status(u->node, &s);
    const struct raft_member *who = raft_members_find(s.members, from);
    uint64_t now_ms = loop_now_ms(u->x.loop);
    if (who == NULL || u->stopped) {
        return;
    }
    if (m->kind == MESSAGE_REACH) {
        if (u->leads && may_lead(who, s.self) &&
            handover_answered(&u->handover.policy, m->u.reach.number, m->u.reach.reaches, now_ms)) {
            hand_over(u, who);
        }
        return;
    }
    if (s.leader != from || u->leads || u->o.handover_s == 0) {
        return; /* only who leads is answered */
    }
    enum handover_look what = handover_asked(&u->handover.policy, now_ms);
    u->handover.asker = from;
    u->handover.number = m->u.reach.number;
    if (what == HANDOVER_LOOK) {
        metrics_add(&looks, 0, 1);
        u->handover.endpoint = 0;
        loop_timer_after(u->x.loop, &u->handover.look_timer, 0);
    } else if (what != HANDOVER_LOOKING) {
        say(u, from, m->u.reach.number, what == HANDOVER_SAW);
    }
}

/* --- life ----------------------------------------------------------------------------------------------------------------------------------- */

void uplink_handover_begin(struct uplink *u) {
    handover_init(&u->handover.policy, u->o.handover_s * 1000);
    u->handover.timer = (struct loop_timer){.fire = on_timer, .context = u};
    u->handover.look_timer = (struct loop_timer){.fire = on_look_timer, .context = u};
}

void uplink_handover_lead(struct uplink *u) {
    handover_lead(&u->handover.policy, loop_now_ms(u->x.loop));
    uplink_handover_link(u);
}

void uplink_handover_link(struct uplink *u) {
    handover_link(&u->handover.policy, u->reconnect.stage >= RECONNECT_HELLO, loop_now_ms(u->x.loop), chance());
    plan(u);
}

void uplink_handover_follow(struct uplink *u) {
    handover_follow(&u->handover.policy);
    loop_timer_cancel(u->x.loop, &u->handover.timer);
}

void uplink_handover_end(struct uplink *u) {
    uplink_handover_follow(u);
    loop_timer_cancel(u->x.loop, &u->handover.look_timer);
    probe_end(&u->handover.probe);
}
