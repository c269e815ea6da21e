#include <inttypes.h>
#include <string.h>

#include "agent/node/node_core.h"
#include "include/grey/must.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/now.h"

/* A request moves: HELD (no leader known) -> BATCHED (here is the leader) -> PROPOSED (in the log) -> answered when applied;
 * or HELD -> FORWARDED (another node leads) -> answered by it.  A read: READING -> READ_READY -> answered when applied.
 * Whatever was certainly not proposed may be held again; what was proposed and not heard of again is E_OUTCOME_UNKNOWN. */

#define BATCH_BYTES_MAX (256u * 1024u) /* this much does not wait for company */
#define CROWD_MS 50u                   /* while more are on their way than wait, these wait so long for company */
#define BATCH_PROPOSALS_MAX 1024u
#define CHECK_MS 250u

static struct metric waiting = METRIC_GAUGE("grey_requests_waiting", "Requests of clients and other nodes not answered yet.");
static struct metric latency =
    METRIC_HISTOGRAM("grey_consensus_commit_latency_seconds", "From the arrival of a proposal to its answer.");
static struct metric unknown =
    METRIC_COUNTER("grey_requests_outcome_unknown_total", "Requests answered 504: proposed, fate unknown.");
static struct metric no_quorum = METRIC_COUNTER("grey_requests_no_quorum_total", "Requests answered 503: certainly not proposed.");
static const char *const read_ways[] = {"lease", "index"};
static struct metric read_rounds =
    METRIC_COUNTER_LABELS("grey_consensus_reads_total", "Rounds of linearizable reads, by what vouched for them.", "by", read_ways);
static struct metric turned_away =
    METRIC_COUNTER("grey_requests_turned_away_total", "Requests refused because too many were waiting.");

static void list_add(struct request_list *l, struct request *q) {
    q->next = NULL;
    q->previous = l->last;
    *(l->last == NULL ? &l->first : &l->last->next) = q;
    l->last = q;
    l->count++;
}

static void list_remove(struct request_list *l, struct request *q) {
    *(q->previous == NULL ? &l->first : &q->previous->next) = q->next;
    *(q->next == NULL ? &l->last : &q->next->previous) = q->previous;
    l->count--;
    q->next = q->previous = NULL;
}

static struct request_list *list_of(struct node *n, const struct request *q) {
    switch (q->state) {
    case REQUEST_HELD:
        return &n->requests.held;
    case REQUEST_BATCHED:
        return &n->requests.batched;
    case REQUEST_PROPOSED:
        return &n->requests.proposed;
    case REQUEST_FORWARDED:
        return &n->requests.forwarded;
    case REQUEST_READING:
    case REQUEST_READ_READY:
        return &n->requests.reading;
    }
    must_failed(__FILE__, __LINE__, "a request state");
}

static void move(struct node *n, struct request *q, enum request_state state) {
    list_remove(list_of(n, q), q);
    q->state = state;
    list_add(list_of(n, q), q);
}

static void answer(struct node *n, struct request *q, const struct node_answer *a) {
    list_remove(list_of(n, q), q);
    n->requests.count--;
    metrics_set(&waiting, 0, n->requests.count);
    if (a->err == E_OUTCOME_UNKNOWN) {
        metrics_add(&unknown, 0, 1);
    } else if (a->err == E_NO_QUORUM) {
        metrics_add(&no_quorum, 0, 1);
    } else if (a->err == E_OK && !q->is_read) {
        metrics_observe_us(&latency, now_monotonic_us() - q->received_us);
    }
    q->done(q->context, a);
    blob_unref(q->payload);
    mem_free(q);
}

static void answer_error(struct node *n, struct request *q, enum grey_error err, const char *detail) {
    struct node_answer a = {.err = err, .detail = detail};
    answer(n, q, &a);
}

static struct request *new_request(struct node *n, node_done *done, void *context) {
    struct request *q = NULL;
    const char *why = "";
    enum grey_error err = E_BUSY;
    if (n->has_failed || n->stopping) {
        err = E_STOPPING;
    } else if (n->requests.count >= REQUESTS_MAX) {
        why = "too many requests are waiting on this node";
    } else {
        q = mem_new(1, sizeof *q);
    }
    if (q == NULL) {
        metrics_add(&turned_away, 0, 1);
        struct node_answer a = {.err = err, .detail = why};
        done(context, &a);
        return NULL;
    }
    q->done = done;
    q->context = context;
    q->received_us = now_monotonic_us();
    q->deadline_ms = loop_now_ms(n->x.loop) + n->o.request_timeout_ms;
    q->state = REQUEST_HELD;
    n->requests.count++;
    metrics_set(&waiting, 0, n->requests.count);
    list_add(&n->requests.held, q);
    loop_again(n->x.loop);
    return q;
}

static void propose(struct node *n, enum entry_kind kind, struct blob *payload, bool urgent, bool may_keep, raft_term only,
                    node_done *done, void *context) {
    struct sitelog_usage usage;
    sitelog_usage(n->log, &usage);
    if (usage.disk_full && (kind == ENTRY_KV || kind == ENTRY_EVENTS)) { /* acknowledgements and clean-up go on */
        struct node_answer a = {.err = E_DISK_FULL, .detail = "this gateway's storage device is full"};
        done(context, &a);
        return;
    }
    struct request *q = new_request(n, done, context);
    if (q != NULL) {
        q->kind = kind;
        q->urgent = urgent;
        q->may_keep = may_keep;
        q->only = only;
        q->payload = blob_ref(payload);
    }
}

void node_propose(struct node *n, enum entry_kind kind, struct blob *payload, bool urgent, node_done *done, void *context) {
    propose(n, kind, payload, urgent, kind == ENTRY_EVENTS, 0, done, context);
}

void requests_propose(struct node *n, enum entry_kind kind, struct blob *payload, bool urgent, node_done *done, void *context) {
    propose(n, kind, payload, urgent, false, 0, done, context);
}

void requests_decide(struct node *n, enum entry_kind kind, struct blob *payload, bool urgent, node_done *done, void *context) {
    propose(n, kind, payload, urgent, false, n->leading ? n->leading_term : 0, done, context);
}

void node_read_barrier(struct node *n, node_done *done, void *context) {
    struct request *q = new_request(n, done, context);
    if (q != NULL) {
        q->is_read = true;
    }
}

/* --- end of a turn --------------------------------------------------------------------------------------------------------------- */

static void batch(struct node *n, struct request *q) {
    struct requests *r = &n->requests;
    if (r->batched.count == 0) {
        r->batch_since_ms = loop_now_ms(n->x.loop);
        r->batch_bytes = 0;
    }
    r->batch_bytes += blob_bytes(q->payload).size;
    move(n, q, REQUEST_BATCHED);
}

static void carry_out(struct node *n, struct request *q) {
    raft_index index;
    struct raft_status s;
    const char *detail;
    enum grey_error err = orders_run(n, blob_bytes(q->payload), &index, &detail);
    if (err == E_NOT_LEADER) {
        return; /* held until the next leader is known */
    }
    if (err != E_OK || index <= state_applied(n->state)) {
        struct node_answer a = {.err = err, .detail = detail, .index = index};
        answer(n, q, &a);
        return;
    }
    raft_status(n->raft, &s);
    q->index = index;
    q->term = s.term;
    q->deadline_ms = loop_now_ms(n->x.loop) + 2u * n->o.request_timeout_ms;
    move(n, q, REQUEST_PROPOSED);
}

static bool forward(struct node *n, struct request *q) {
    struct message m = {.kind = MESSAGE_FORWARD,
                        .u.forward = {.request = n->requests.next_number + 1,
                                      .kind = (uint16_t)q->kind,
                                      .schema = ENTRY_SCHEMA,
                                      .urgent = q->urgent,
                                      .payload = blob_bytes(q->payload)}};
    if (n->peers == NULL || !peers_send(n->peers, n->leader, &m)) {
        return false;
    }
    q->number = ++n->requests.next_number;
    q->forwarded_to = n->leader;
    q->deadline_ms = loop_now_ms(n->x.loop) + 2u * n->o.request_timeout_ms;
    move(n, q, REQUEST_FORWARDED);
    return true;
}

/* Held requests find their way once a leader is known; the order of arrival is kept. */
static void place_held(struct node *n) {
    struct requests *r = &n->requests;
    bool leads = n->role == RAFT_LEADER;
    bool reads = false;
    struct request *next;
    struct raft_status s;
    raft_status(n->raft, &s);
    for (struct request *q = r->held.first; q != NULL && (leads || n->leader != 0); q = next) {
        next = q->next;
        if (q->is_read) {
            if (!reads) {
                reads = true;
                r->next_number++;
            }
            q->number = r->next_number;
            move(n, q, REQUEST_READING);
        } else if (q->only != 0 && (!leads || q->only != s.term)) {
            answer_error(n, q, E_NOT_LEADER, "it was decided by a leader that leads no more");
        } else if (leads && q->kind == ENTRY_CONFIG) {
            carry_out(n, q);
        } else if (leads) {
            batch(n, q);
        } else if (!forward(n, q)) {
            break; /* no link to the leader yet */
        }
    }
    if (reads) {
        struct raft_input in = {.kind = RAFT_IN_READ, .context = r->next_number};
        node_watch_clock(n);
        (void)node_step(n, &in, NULL);
    }
}

static bool batch_is_due(struct node *n) {
    struct requests *r = &n->requests;
    bool urgent = false;
    for (const struct request *q = r->batched.first; q != NULL && !urgent; q = q->next) {
        urgent = q->urgent;
    }
    bool crowded = r->batched.count < r->proposed.count; /* then those on their way return soon, and bring company */
    bool worn = n->diskwear.wear.level == WEAR_OVER && n->o.commit_delay_ms < DISKWEAR_COMMIT_MS;
    uint64_t delay_ms = worn ? DISKWEAR_COMMIT_MS : n->o.commit_delay_ms;
    uint64_t patience_ms = !urgent ? delay_ms : crowded ? CROWD_MS : 0;
    uint64_t due_ms = r->batch_since_ms + patience_ms;
    if (r->batch_bytes >= BATCH_BYTES_MAX || loop_now_ms(n->x.loop) >= due_ms) {
        return true;
    }
    if (r->batch_timer.place == 0 || r->batch_timer.deadline_ms > due_ms) {
        loop_timer_set(n->x.loop, &r->batch_timer, due_ms);
    }
    return false;
}

static void propose_batch(struct node *n) {
    struct requests *r = &n->requests;
    struct raft_proposal proposals[BATCH_PROPOSALS_MAX];
    while (r->batched.count > 0 && batch_is_due(n)) {
        uint32_t count = 0;
        for (struct request *q = r->batched.first; q != NULL && count < BATCH_PROPOSALS_MAX; q = q->next) {
            proposals[count++] = (struct raft_proposal){.kind = (uint16_t)q->kind, .schema = ENTRY_SCHEMA, .payload = q->payload};
        }
        struct raft_input in = {.kind = RAFT_IN_PROPOSE, .proposals = proposals, .proposal_count = count};
        raft_index index = 0;
        enum grey_error err = node_step(n, &in, &index);
        if (err == E_LOG_FULL && count > 1 && n->requests.proposed.count == 0) {
            count = 1; /* larger than the window as one: go one by one */
            in.proposal_count = 1;
            err = node_step(n, &in, &index);
        }
        if (err == E_LOG_FULL) {
            return; /* commits will make room; the deadline watches over the rest */
        }
        if (err != E_OK) { /* leadership was lost in this very turn: nothing was proposed */
            while (r->batched.first != NULL) {
                move(n, r->batched.first, REQUEST_HELD);
            }
            return;
        }
        struct raft_status s;
        raft_status(n->raft, &s);
        for (uint32_t i = 0; i < count; i++) {
            struct request *q = r->batched.first;
            q->index = index + i;
            q->term = s.term;
            q->deadline_ms = loop_now_ms(n->x.loop) + 2u * n->o.request_timeout_ms;
            r->batch_bytes -= blob_bytes(q->payload).size < r->batch_bytes ? blob_bytes(q->payload).size : r->batch_bytes;
            move(n, q, REQUEST_PROPOSED);
        }
    }
}

/* The answer is the receipt, or why it cannot be kept. */
static void keep_held(struct node *n) {
    struct request *next;
    for (struct request *q = n->requests.held.first; q != NULL; q = next) {
        next = q->next;
        if (q->may_keep) {
            list_remove(&n->requests.held, q);
            n->requests.count--;
            metrics_set(&waiting, 0, n->requests.count);
            provisional_take(n, blob_bytes(q->payload), q->done, q->context);
            blob_unref(q->payload);
            mem_free(q);
        }
    }
}

void requests_turn(struct node *n) {
    if (n->requests.held.count > 0 && provisional_due(n)) {
        keep_held(n);
    }
    if (n->requests.held.count > 0) {
        place_held(n);
    }
    if (n->requests.batched.count > 0) {
        propose_batch(n);
    }
}

/* --- what came of them ----------------------------------------------------------------------------------------------------------- */

struct request *requests_waiting_for(struct node *n, raft_index index) {
    struct request *q = n->requests.proposed.first; /* in order of index */
    return q != NULL && q->index == index ? q : NULL;
}

void requests_answer_proposed(struct node *n, struct request *q, const struct node_answer *a) {
    if (a->err == E_NOT_LEADER) { /* another entry took its place */
        q->deadline_ms = loop_now_ms(n->x.loop) + n->o.request_timeout_ms;
        move(n, q, REQUEST_HELD);
        return;
    }
    answer(n, q, a);
}

void requests_truncated(struct node *n, raft_index from) {
    struct request *previous;
    for (struct request *q = n->requests.proposed.last; q != NULL && q->index >= from; q = previous) {
        previous = q->previous;
        move(n, q, REQUEST_HELD); /* certainly never committed: try again with the new leader */
    }
    loop_again(n->x.loop);
}

void requests_skipped(struct node *n, raft_index to) {
    while (n->requests.proposed.first != NULL && n->requests.proposed.first->index <= to) {
        answer_error(n, n->requests.proposed.first, E_OUTCOME_UNKNOWN, "the node was caught up by a snapshot meanwhile");
    }
}

/* Whoever was given them and leads no more will hardly answer; its entries may still be committed. */
static void give_up_forwarded(struct node *n, raft_id to, bool to_others, const char *why) {
    struct request *next;
    for (struct request *q = n->requests.forwarded.first; q != NULL; q = next) {
        next = q->next;
        if ((q->forwarded_to == to) != to_others) {
            answer_error(n, q, E_OUTCOME_UNKNOWN, why);
        }
    }
}

void requests_leader_changed(struct node *n) {
    if (n->role != RAFT_LEADER) {
        while (n->requests.batched.first != NULL) {
            move(n, n->requests.batched.first, REQUEST_HELD);
        }
    }
    if (n->leader != 0) {
        give_up_forwarded(n, n->leader, true, "the leader was replaced after the request was handed on");
    }
    loop_again(n->x.loop);
}

void requests_read_index(struct node *n, const struct raft_read *read) {
    struct request *next;
    if (read->err == E_OK) {
        metrics_add(&read_rounds, read->lease ? 0 : 1, 1);
    }
    for (struct request *q = n->requests.reading.first; q != NULL; q = next) {
        next = q->next;
        if (q->state != REQUEST_READING || q->number != read->context) {
            continue;
        }
        if (read->err == E_OK) {
            q->index = read->index;
            q->lease = read->lease;
            q->state = REQUEST_READ_READY;
        } else {
            move(n, q, REQUEST_HELD); /* tried again until its deadline */
        }
    }
    loop_again(n->x.loop);
}

void requests_applied(struct node *n) {
    raft_index applied = state_applied(n->state);
    struct request *next;
    for (struct request *q = n->requests.reading.first; q != NULL; q = next) {
        next = q->next;
        if (q->state == REQUEST_READ_READY && q->index <= applied) {
            struct node_answer a = {.err = E_OK, .detail = "", .index = applied, .lease = q->lease};
            answer(n, q, &a);
        }
    }
}

/* --- forwarding ------------------------------------------------------------------------------------------------------------------- */

struct forwarded { /* a request that came from another node */
    struct node *node;
    raft_id from;
    uint64_t number;
};

static void forwarded_done(void *context, const struct node_answer *a) {
    struct forwarded *f = context;
    struct message m = {.kind = MESSAGE_FORWARD_REPLY,
                        .u.forward_reply = {.request = f->number,
                                            .err = a->err,
                                            .detail = bytes_str(a->detail),
                                            .answer = a->answer,
                                            .index = a->index,
                                            .epoch = a->epoch}};
    (void)peers_send(f->node->peers, f->from, &m); /* without it the asker answers its client 504 */
    mem_free(f);
}

/* What a gateway may have another propose: what its clients and itself ask of the site, not what the site says of itself. */
static bool from_others(enum entry_kind kind) {
    return kind == ENTRY_KV || kind == ENTRY_EVENTS || kind == ENTRY_CONFIG || kind == ENTRY_EXPIRE || kind == ENTRY_TASK ||
           kind == ENTRY_QUOTA || kind == ENTRY_NODE || kind == ENTRY_OBJECT || kind == ENTRY_TOKEN || kind == ENTRY_NOTE ||
           kind == ENTRY_UPDATE;
}

void requests_forward(struct node *n, raft_id from, const struct message_forward *m) {
    struct forwarded *f = mem_new(1, sizeof *f);
    struct blob *payload = blob_copy(m->payload);
    if (f == NULL || payload == NULL) {
        mem_free(f);
        blob_unref(payload);
        return;
    }
    *f = (struct forwarded){.node = n, .from = from, .number = m->request};
    if (n->role != RAFT_LEADER) {
        struct node_answer a = {.err = E_NOT_LEADER, .detail = "leadership has moved"};
        forwarded_done(f, &a);
    } else if (m->schema != ENTRY_SCHEMA || !from_others((enum entry_kind)m->kind)) {
        struct node_answer a = {.err = E_BAD_MESSAGE, .detail = "entries of this kind are not taken from other nodes"};
        forwarded_done(f, &a);
    } else {
        requests_propose(n, (enum entry_kind)m->kind, payload, m->urgent, forwarded_done, f); /* the asker keeps events itself */
    }
    blob_unref(payload);
}

void requests_forward_reply(struct node *n, raft_id from, const struct message_forward_reply *m) {
    struct request *q = n->requests.forwarded.first;
    while (q != NULL && (q->number != m->request || q->forwarded_to != from)) {
        q = q->next;
    }
    if (q == NULL) {
        return; /* answered already, by its deadline */
    }
    if (m->err == E_NOT_LEADER) { /* certainly not proposed */
        move(n, q, REQUEST_HELD);
        if (n->leader == from) {
            q->deadline_ms = loop_now_ms(n->x.loop) + n->o.request_timeout_ms;
        }
        return;
    }
    char detail[241] = "";
    memcpy(detail, m->detail.data != NULL ? m->detail.data : (const uint8_t *)"", m->detail.size);
    struct node_answer a = {.err = m->err, .detail = detail, .index = m->index, .epoch = m->epoch, .answer = m->answer};
    answer(n, q, &a);
}

void requests_link_down(struct node *n, raft_id peer) {
    give_up_forwarded(n, peer, false, "the link to the leader broke after the request was handed on");
}

/* --- time ------------------------------------------------------------------------------------------------------------------------- */

static void expire(struct node *n, struct request_list *l, enum grey_error err, const char *detail) {
    uint64_t now_ms = loop_now_ms(n->x.loop);
    struct request *next;
    for (struct request *q = l->first; q != NULL; q = next) {
        next = q->next;
        if (now_ms >= q->deadline_ms) {
            answer_error(n, q, err, detail);
        }
    }
}

static void on_timer(void *context) {
    struct node *n = context;
    struct requests *r = &n->requests;
    loop_timer_after(n->x.loop, &r->timer, CHECK_MS);
    if (provisional_due(n)) {
        keep_held(n);
    } else if (n->leader == 0 && provisional_possible(n)) { /* events wait until they are kept here, or a leader is known */
        for (struct request *q = r->held.first; q != NULL; q = q->next) {
            q->deadline_ms = q->may_keep ? loop_now_ms(n->x.loop) + 2 * CHECK_MS : q->deadline_ms;
        }
    }
    expire(n, &r->held, E_NO_QUORUM, "no leader was found in time; nothing was proposed");
    expire(n, &r->batched, E_LOG_FULL, "the log had no room in time; nothing was proposed");
    expire(n, &r->proposed, E_OUTCOME_UNKNOWN, "no majority confirmed it in time");
    expire(n, &r->forwarded, E_OUTCOME_UNKNOWN, "the leader did not answer in time");
    expire(n, &r->reading, E_NO_QUORUM, "no majority confirmed the leader in time");
}

static void on_batch(void *context) {
    struct node *n = context;
    loop_again(n->x.loop);
}

void requests_start(struct node *n) {
    metrics_register(&waiting);
    metrics_register(&latency);
    metrics_register(&unknown);
    metrics_register(&no_quorum);
    metrics_register(&turned_away);
    metrics_register(&read_rounds);
    struct requests *r = &n->requests;
    r->timer = (struct loop_timer){.fire = on_timer, .context = n};
    r->batch_timer = (struct loop_timer){.fire = on_batch, .context = n};
    loop_timer_after(n->x.loop, &r->timer, CHECK_MS);
}

static void stop_list(struct node *n, struct request_list *l, enum grey_error err) {
    while (l->first != NULL) {
        answer_error(n, l->first, err, "this node is stopping");
    }
}

void requests_stop(struct node *n) {
    struct requests *r = &n->requests;
    loop_timer_cancel(n->x.loop, &r->timer);
    loop_timer_cancel(n->x.loop, &r->batch_timer);
    n->stopping = true;
    stop_list(n, &r->held, E_STOPPING);
    stop_list(n, &r->batched, E_STOPPING);
    stop_list(n, &r->reading, E_STOPPING);
    stop_list(n, &r->proposed, E_OUTCOME_UNKNOWN);
    stop_list(n, &r->forwarded, E_OUTCOME_UNKNOWN);
}
