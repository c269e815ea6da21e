/* As leader: gathers what updating_next decides on, and makes entries of it. */
#include <inttypes.h>
#include <string.h>

#include "agent/run/updater_core.h"
#include "platform/log.h"

static bool is_healthy(const struct updater *u, const struct raft_status *s, raft_id id) {
    if (id == s->self) {
        return node_has_quorum(u->node);
    }
    for (uint32_t i = 0; i < s->peer_count; i++) {
        const struct raft_peer_status *p = &s->peers[i];
        if (p->id == id) {
            return p->active && p->mode == 1 && p->match_index + UPDATER_LAG >= s->last_index && node_fenced(u->node) != id;
        }
    }
    return false;
}

static bool other_turn(const struct updater *u, struct bytes name, int64_t now_ms) {
    struct bytes key = {0};
    struct holding h;
    while (holding_next(updater_rows(u), key, &key, &h)) {
        struct updating row;
        if (h.force.kind == OBJECT_UPDATE && !bytes_equal(h.force.name, name) &&
            updating_find(updater_rows(u), h.force.name, &row) && row.turn != 0 && now_ms < row.until_ms) {
            return true;
        }
    }
    return false;
}

static void ordered(void *context, const struct node_answer *a) {
    struct updater *u = context;
    u->pending--;
    u->ordering = false;
    if (a->err != E_OK) {
        log_limited(LOG_WARN, "updater", "hand_over", "error=GREY-%d %s", error_id(a->err), a->detail);
    }
    updater_release(u);
}

static void hand_over(struct updater *u, raft_id to) {
    const struct raft_member *m = node_member(u->node, to);
    struct node_order o = {.transfer = true};
    if (m == NULL || u->ordering) {
        return;
    }
    o.to = m->node;
    u->ordering = true;
    u->pending++;
    log_info("updater", "hand_over", "to=%s, so that this gateway can be updated", m->node.text);
    node_order(u->node, &o, ordered, u);
}

static void say(struct updater *u, const struct holding *h, enum supply_health health) {
    struct builder b;
    builder_init(&b, 512);
    payload_health(&b, OBJECT_UPDATE, h->force.name, h->force.issue, health);
    log_at(health == SUPPLY_FAILED ? LOG_ERROR : LOG_INFO, "updater", "done", "name=%.*s version=%" PRIu64 " health=%s",
           (int)h->force.name.size, h->force.name.data, h->force.version, supply_health_name(health));
    updater_propose(u, ENTRY_OBJECT, &b);
}

static void give_turn(struct updater *u, const struct holding *h, raft_id node, int64_t now_ms) {
    const struct raft_member *m = node_member(u->node, node);
    struct builder b;
    builder_init(&b, 256);
    payload_update_turn(&b, h->force.name, h->force.issue, node, now_ms + (int64_t)u->o.turn_s * 1000);
    log_info("updater", "give_turn", "name=%.*s version=%" PRIu64 " node=%s", (int)h->force.name.size, h->force.name.data,
             h->force.version, m == NULL ? "?" : m->node.text);
    updater_propose(u, ENTRY_UPDATE, &b);
}

static void act(struct updater *u, const struct holding *h, const struct updating_decision *d, int64_t now_ms) {
    struct updating_report silent = {
        .node = d->node, .phase = UPDATING_FAILED, .why = (uint32_t)error_id(E_UPDATE_SILENT), .since_ms = now_ms};
    struct updating_report other = {.node = d->node, .phase = UPDATING_OTHER, .since_ms = now_ms};
    switch (d->step) {
    case UPDATING_WAIT:
        break;
    case UPDATING_TURN:
        give_turn(u, h, d->node, now_ms);
        break;
    case UPDATING_EXPIRE:
        updater_report(u, h->force.name, h->force.issue, &silent);
        break;
    case UPDATING_FORGET:
        updater_report(u, h->force.name, h->force.issue, &other);
        break;
    case UPDATING_HAND_OVER:
        hand_over(u, d->node);
        break;
    case UPDATING_SAY_HEALTHY:
        say(u, h, SUPPLY_HEALTHY);
        break;
    case UPDATING_SAY_FAILED:
        say(u, h, SUPPLY_FAILED);
        break;
    }
}

bool captain_look(struct updater *u, const struct holding *h) {
    struct raft_status s;
    struct updating row = {0};
    int64_t now_ms = node_site_time_ms(u->node);
    node_raft_status(u->node, &s);
    if (s.role != RAFT_LEADER || u->proposing) {
        return u->proposing;
    }
    (void)updating_find(updater_rows(u), h->force.name, &row);
    struct updating_view v = {.u = &row,
                              .issue = h->force.issue,
                              .said = h->health,
                              .leader = s.self,
                              .steady = s.members_committed && !raft_members_joint(s.members),
                              .other_turn = other_turn(u, h->force.name, now_ms),
                              .now_ms = now_ms};
    for (uint32_t i = 0; i < s.members->count; i++) {
        const struct raft_member *m = &s.members->at[i];
        v.peers[v.peer_count++] =
            (struct updating_peer){.id = m->id, .voter = m->voter, .witness = m->witness, .healthy = is_healthy(u, &s, m->id)};
    }
    struct updating_decision d = updating_next(&v);
    act(u, h, &d, now_ms);
    return h->health == SUPPLY_UNKNOWN;
}
