#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/node/node_core.h"
#include "platform/log.h"
#include "platform/metrics.h"

/* Every AGREEMENT_EVERY applied entries each gateway tells the leader its hash of the state; no entry is made for that.  A gateway that
 * differs from the majority is told: it stops, sets its data aside and is given the state anew (diskwatch.c goes the same way).  A leader
 * that is the odd one does that with itself; without it the others elect another. */

static struct metric differing = METRIC_COUNTER("grey_consensus_state_differs_total", "Times that a gateway's state differed.");

void statehash_start(void) {
    metrics_register(&differing);
}

void statehash_told(struct node *n, raft_id from, const char *detail) {
    struct fault f = {0};
    char why[240];
    const struct raft_member *m = node_member(n, from);
    if (m == NULL || n->has_failed) {
        return;
    }
    (void)snprintf(why, sizeof why, "%s: %.140s", m->node.text, detail);
    if (sitelog_mark(n->log, SITELOG_DAMAGE_HISTORY, why, &f) != E_OK) {
        log_error("statehash", "mark", "%s", f.text);
    }
    node_fail(n, E_STATE_DIFFERS, why); /* started again it joins anew */
}

static void fence(struct node *n, raft_id odd, raft_index index) {
    char why[120];
    const struct raft_member *m = node_member(n, odd);
    metrics_add(&differing, 0, 1);
    (void)snprintf(why, sizeof why, "the state at index %" PRIu64 " is another one than that of the majority", index);
    log_error("statehash", "differs", "error=GREY-%d node=%s %s", error_id(E_STATE_DIFFERS), m == NULL ? "?" : m->node.text, why);
    if (odd == n->self) {
        statehash_told(n, n->self, why);
        return;
    }
    n->fenced = odd;
    struct message reply = {.kind = MESSAGE_JOIN_REPLY,
                            .u.join_reply = {.err = E_STATE_DIFFERS, .epoch = n->leading_term, .detail = bytes_str(why)}};
    (void)peers_send(n->peers, odd, &reply);
}

static void judge(struct node *n, raft_index index) {
    struct raft_status s;
    raft_id odd[LIMIT_MEMBERS];
    uint32_t holders = 0, count;
    raft_status(n->raft, &s);
    for (uint32_t i = 0; i < s.members->count; i++) {
        holders += s.members->at[i].voter && !s.members->at[i].witness;
    }
    enum agreement_verdict v = agreement_judge(&n->agreement, index, holders, odd, &count);
    if (v == AGREEMENT_SPLIT) {
        metrics_add(&differing, 0, 1);
        log_error("statehash", "split",
                  "error=GREY-%d the gateways differ at index %" PRIu64
                  " and there is no majority: compare state_hash in GET /v1/raft/status of all",
                  error_id(E_STATE_DIFFERS), index);
    }
    for (uint32_t i = 0; i < count && !n->has_failed; i++) {
        const struct raft_member *m = raft_members_find(s.members, odd[i]);
        if (m != NULL && m->voter) {
            fence(n, odd[i], index);
        }
    }
}

void statehash_applied(struct node *n) {
    raft_index index = state_applied(n->state);
    if (index % AGREEMENT_EVERY != 0 || n->peers == NULL) {
        return;
    }
    uint8_t hash[DIGEST_BYTES];
    state_hash(n->state, hash);
    agreement_note(&n->agreement, index, n->self, hash);
    if (n->role == RAFT_LEADER) {
        judge(n, index);
    } else if (n->leader != 0) {
        struct message m = {.kind = MESSAGE_STATE_HASH, .u.state_hash = {.index = index}};
        memcpy(m.u.state_hash.hash, hash, sizeof hash);
        (void)peers_send(n->peers, n->leader, &m);
    }
}

void statehash_message(struct node *n, raft_id from, const struct message_state_hash *m) {
    const struct raft_member *member = node_member(n, from);
    if (member == NULL || !member->voter) {
        return;
    }
    agreement_note(&n->agreement, m->index, from, m->hash);
    if (n->role == RAFT_LEADER) {
        judge(n, m->index);
    }
}
