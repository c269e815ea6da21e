/* What other gateways say: told apart, and handed to whom it concerns. */
#include <inttypes.h>
#include <string.h>

#include "agent/node/node_core.h"
#include "platform/log.h"
#include "platform/metrics.h"

static struct metric refused_orders =
    METRIC_COUNTER("grey_consensus_refused_orders_total", "Orders of leaders that were replaced already.");

void inbox_start(void) {
    metrics_register(&refused_orders);
}

static void peer_up(void *context, raft_id id, uint64_t start_count) {
    struct node *n = context;
    diskwatch_met(n, id, start_count);
    membership_link_up(n, id);
    sealing_link_up(n, id);
    loop_again(n->x.loop);
}

static void peer_down(void *context, raft_id id) {
    struct node *n = context;
    struct raft_input in = {.kind = RAFT_IN_LINK_DOWN, .peer = id};
    (void)node_step(n, &in, NULL);
    requests_link_down(n, id);
}

static void cluster_seen(void *context, uint64_t cluster_id) {
    membership_cluster_seen(context, cluster_id);
}

/* Only the leader of the time may order a gateway to stop or to go: one that was replaced and does not know is refused. */
static bool of_the_past(struct node *n, raft_id from, const struct message_join_reply *r) {
    struct raft_status s;
    raft_status(n->raft, &s);
    bool is_order = r->err == E_STATE_DIFFERS || r->err == E_STALE_MEMBER;
    if (!is_order || r->epoch >= s.term) {
        return false;
    }
    const struct raft_member *m = node_member(n, from);
    metrics_add(&refused_orders, 0, 1);
    log_warn("node", "refuse", "an order of %s (%s) carries epoch %" PRIu64 ", the site is in epoch %" PRIu64,
             m == NULL ? "a stranger" : m->node.text, error_name(r->err), r->epoch, s.term);
    return true;
}

static void peer_message(void *context, raft_id from, const struct message *m) {
    struct node *n = context;
    switch (m->kind) {
    case MESSAGE_RAFT: {
        if (diskwatch_refuses(n, from, &m->u.raft)) {
            return;
        }
        struct raft_input in = {.kind = RAFT_IN_MESSAGE, .message = &m->u.raft};
        (void)node_step(n, &in, NULL);
        foreman_heard(n, from);
        membership_stranger(n, from);
        return;
    }
    case MESSAGE_FORWARD:
        requests_forward(n, from, &m->u.forward);
        return;
    case MESSAGE_FORWARD_REPLY:
        requests_forward_reply(n, from, &m->u.forward_reply);
        return;
    case MESSAGE_JOIN:
        membership_join(n, from, &m->u.join);
        return;
    case MESSAGE_STATE_HASH:
        statehash_message(n, from, &m->u.state_hash);
        return;
    case MESSAGE_SEAL:
        sealing_message(n, from, &m->u.seal);
        return;
    case MESSAGE_CLOCK:
        clockset_message(n, from, &m->u.clock);
        return;
    case MESSAGE_JOIN_REPLY:
        if (m->u.join_reply.err == E_ROLLED_BACK) { /* whoever remembers may say so */
            diskwatch_told(n, from, &m->u.join_reply);
        } else if (of_the_past(n, from, &m->u.join_reply)) {
            return;
        } else if (m->u.join_reply.err == E_STATE_DIFFERS) {
            char detail[121] = "";
            memcpy(detail, m->u.join_reply.detail.data, m->u.join_reply.detail.size < 120 ? m->u.join_reply.detail.size : 120);
            statehash_told(n, from, detail);
        } else {
            membership_join_reply(n, &m->u.join_reply);
        }
        return;
    case MESSAGE_SNAPSHOT_FETCH:
        catchup_fetch(n, from, &m->u.snapshot_fetch);
        return;
    case MESSAGE_SNAPSHOT_CHUNK:
        catchup_chunk(n, from, &m->u.snapshot_chunk);
        return;
    case MESSAGE_PAYLOAD_FETCH:
        catchup_payload_fetch(n, from, &m->u.payload_fetch);
        return;
    case MESSAGE_PAYLOADS:
        catchup_payloads(n, from, &m->u.payloads);
        return;
    case MESSAGE_OUTPUT_FETCH:
    case MESSAGE_OUTPUT:
    case MESSAGE_REACH_ASK:
    case MESSAGE_REACH:
    case MESSAGE_LINK_ASK:
    case MESSAGE_LINK:
    case MESSAGE_ATTEST:
        if (node_member(n, from) != NULL && n->events->asked != NULL) {
            n->events->asked(n->context, from, m);
        }
        return;
    case MESSAGE_MEND_FETCH:
        catchup_mend_fetch(n, from, &m->u.mend_fetch);
        return;
    default:
        return;
    }
}

const struct peers_events inbox_events = {.up = peer_up, .down = peer_down, .message = peer_message, .cluster_seen = cluster_seen};
