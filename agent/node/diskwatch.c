/* A disk that forgot (DECISIONS 12), and a disk that is too slow to lead with.
 *
 * Each gateway remembers the start counter of each raft id that it met, in memory.  One that comes back with a lower counter runs on an
 * older copy of its disk; so does one that refuses an entry which it acknowledged to this leader.  It is told, nothing of it is taken
 * any more, and it goes the way of a damaged log (agent/store/setaside.h).  Not found: an older copy of which no peer that is up remembers more -
 * all others restarted meanwhile, or the copy was taken during the same run and nothing was acknowledged to the leader of today. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/node/node_core.h"
#include "platform/log.h"
#include "platform/metrics.h"

#define TELL_MS 1000u
#define HAND_OVER_MS 2000u /* a leader whose disk does not finish a store for so long gives leadership away ... */
#define HAND_OVER_AGAIN_MS 10000u
#define SLOW_MS 10000u /* ... and this long is worth an error in the log */

static struct metric rolled_back = METRIC_COUNTER("grey_storage_rolled_back_peers_total", "Gateways found on an older disk.");
static struct metric slow_stores = METRIC_COUNTER("grey_storage_slow_stores_total", "Stores that took longer than 10 s.");
static struct metric handed_over =
    METRIC_COUNTER("grey_storage_handovers_total", "Times that leadership was given away because the disk did not answer.");

void diskwatch_start(void) {
    metrics_register(&rolled_back);
    metrics_register(&slow_stores);
    metrics_register(&handed_over);
}

/* --- older copies ---------------------------------------------------------------------------------------------------------------- */
static struct acquaintance *met(struct node *n, raft_id id) {
    for (uint32_t i = 0; i < n->diskwatch.met_count; i++) {
        if (n->diskwatch.met[i].id == id) {
            return &n->diskwatch.met[i];
        }
    }
    return NULL;
}

static void tell(struct node *n, struct acquaintance *a) {
    uint64_t now_ms = loop_now_ms(n->x.loop);
    if (now_ms < a->told_ms + TELL_MS) {
        return;
    }
    a->told_ms = now_ms;
    struct message m = {.kind = MESSAGE_JOIN_REPLY, .u.join_reply = {.err = E_ROLLED_BACK, .detail = bytes_str(a->why)}};
    (void)peers_send(n->peers, a->id, &m);
}

static void distrust(struct node *n, struct acquaintance *a) {
    const struct raft_member *m = node_member(n, a->id);
    a->rolled_back = true;
    metrics_add(&rolled_back, 0, 1);
    log_error("diskwatch", "rolled-back", "error=GREY-%d node=%s id=%016" PRIx64 " %s", error_id(E_ROLLED_BACK),
              m == NULL ? "?" : m->node.text, a->id, a->why);
    tell(n, a);
}

void diskwatch_met(struct node *n, raft_id id, uint64_t start_count) {
    struct acquaintance *a = met(n, id);
    if (a == NULL) { /* the oldest gives way: there are never so many members */
        struct diskwatch *w = &n->diskwatch;
        a = &w->met[w->met_next];
        w->met_next = (w->met_next + 1) % ACQUAINTANCES;
        w->met_count += w->met_count < ACQUAINTANCES;
        *a = (struct acquaintance){.id = id, .start_count = start_count};
    } else if (a->rolled_back) {
        tell(n, a);
    } else if (start_count < a->start_count) {
        (void)snprintf(a->why, sizeof a->why, "it started %" PRIu64 " times, %s remembers %" PRIu64, start_count, n->name.text,
                       a->start_count);
        distrust(n, a);
    } else {
        a->start_count = start_count;
    }
}

/* A refusal below what it acknowledged to us: links keep order, and both logs are equal up to there. */
static bool lost_acknowledged(struct node *n, const struct raft_message *m, raft_index *match) {
    struct raft_status s;
    if (m->kind != RAFT_APPEND_REPLY || !m->refused || m->index == 0 || n->role != RAFT_LEADER) {
        return false;
    }
    raft_status(n->raft, &s);
    for (uint32_t i = 0; i < s.peer_count; i++) {
        if (s.peers[i].id == m->from) {
            *match = s.peers[i].match_index;
            return m->term == s.term && m->hint_index < *match && s.members_committed;
        }
    }
    return false;
}

bool diskwatch_refuses(struct node *n, raft_id from, const struct raft_message *m) {
    struct acquaintance *a = met(n, from);
    raft_index match = 0;
    if (a == NULL) {
        return false;
    }
    if (!a->rolled_back && lost_acknowledged(n, m, &match)) {
        (void)snprintf(a->why, sizeof a->why, "its log ends at %" PRIu64 " or before, it acknowledged %" PRIu64 " to %s",
                       m->hint_index, match, n->name.text);
        distrust(n, a);
    }
    if (a->rolled_back) {
        tell(n, a);
    }
    return a->rolled_back;
}

void diskwatch_told(struct node *n, raft_id from, const struct message_join_reply *r) {
    struct fault f = {0};
    char why[200];
    const struct raft_member *m = node_member(n, from);
    if (m == NULL || n->has_failed) { /* only a member of the site may say so */
        return;
    }
    (void)snprintf(why, sizeof why, "node %s says of this gateway's disk: %.*s", m->node.text,
                   (int)(r->detail.size < 120 ? r->detail.size : 120), (const char *)r->detail.data);
    if (sitelog_mark(n->log, SITELOG_DAMAGE_HISTORY, why, &f) != E_OK) {
        log_error("diskwatch", "mark", "%s", f.text);
    }
    node_fail(n, E_ROLLED_BACK, why); /* started again it joins anew */
}

/* --- slow disks ------------------------------------------------------------------------------------------------------------------- */
void diskwatch_duty(struct node *n) {
    struct diskwatch *w = &n->diskwatch;
    struct sitelog_usage usage;
    uint64_t now_ms = loop_now_ms(n->x.loop);
    sitelog_usage(n->log, &usage);
    if (usage.store_waits_ms < HAND_OVER_MS) {
        w->slow_said = false;
        return;
    }
    if (usage.store_waits_ms >= SLOW_MS && !w->slow_said) {
        w->slow_said = true;
        metrics_add(&slow_stores, 0, 1);
        log_error("diskwatch", "slow", "error=GREY-%d the disk has not finished a store for %" PRIu64 " ms", error_id(E_IO),
                  usage.store_waits_ms);
    }
    struct raft_status s;
    raft_status(n->raft, &s);
    if (s.role == RAFT_LEADER && s.peer_count > 0 && (w->handed_ms == 0 || now_ms >= w->handed_ms + HAND_OVER_AGAIN_MS)) {
        w->handed_ms = now_ms;
        metrics_add(&handed_over, 0, 1);
        log_warn("diskwatch", "hand-over", "the disk has not finished a store for %" PRIu64 " ms: leadership is given away",
                 usage.store_waits_ms);
        struct raft_input in = {.kind = RAFT_IN_TRANSFER, .peer = quarantine_successor(n)};
        (void)node_step(n, &in, NULL);
    }
}
