/* Committed entries become state: rows that one needs are fetched first, its answer goes to whoever waits for it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/node/node_core.h"
#include "include/grey/must.h"
#include "platform/keys.h"
#include "platform/log.h"
#include "platform/metrics.h"

static struct metric commits = METRIC_COUNTER("grey_consensus_commits_total", "Entries committed and applied by this node.");
static struct metric applied_gauge = METRIC_GAUGE("grey_consensus_applied_index", "Last applied log index.");

void apply_start(void) {
    metrics_register(&commits);
    metrics_register(&applied_gauge);
}

struct missing {
    struct node *node;
    struct builder wants;
    uint32_t count;
};

static void check_row(void *context, enum table_id id, struct bytes key) {
    struct missing *m = context;
    struct bytes value;
    if (table_get(m->node->table, id, key, &value) == TABLE_UNKNOWN) {
        sitelog_want(&m->wants, id, key);
        m->count++;
    }
}

static void fetched(void *context, const struct node_answer *a) {
    struct node *n = context;
    n->fetching = false;
    if (a->err != E_OK) {
        node_fail(n, a->err, "rows that an entry needs cannot be read");
    }
    loop_again(n->x.loop);
}

static void own_done(void *context, const struct node_answer *a) {
    (void)context;
    if (a->err != E_OK && a->err != E_NOT_LEADER) {
        log_warn("node", "own-proposal", "error=GREY-%d %s: %s", error_id(a->err), error_sentence(a->err), a->detail);
    }
}

static void propose_own(struct node *n, enum entry_kind kind, void (*fill)(struct node *n, struct builder *out)) {
    struct builder b;
    builder_init(&b, 4096);
    fill(n, &b);
    struct blob *payload = builder_blob(&b);
    builder_free(&b);
    if (payload != NULL) {
        requests_decide(n, kind, payload, true, own_done, n);
        blob_unref(payload);
    }
}

static void fill_site(struct node *n, struct builder *out) {
    struct site_facts f = {.site = n->site, .cluster_id = n->cluster_id, .feature_level = FEATURE_LEVEL};
    keys_random(&f.incarnation, sizeof f.incarnation);
    f.incarnation = f.incarnation >> 1 | 1; /* fits a signed 64-bit number in other people's tools, and is not 0 */
    payload_site(out, &f);
}

/* The leader's first duties. */
static void leading_begins(struct node *n, raft_term term, grey_epoch epoch) {
    struct site_facts site;
    n->leading = true;
    n->leading_term = term;
    if (!state_site(n->state, &site)) {
        propose_own(n, ENTRY_SITE, fill_site);
    }
    ageing_leading(n);
    n->events->leading(n->context, true, epoch);
}

static bool apply_one(struct node *n, const struct entry *e) {
    struct missing m = {.node = n};
    builder_init(&m.wants, 1024u * 1024u);
    state_wants(e, check_row, &m);
    if (m.count > 0) {
        n->fetching = true;
        node_fetch_rows(n, &m.wants, fetched, n);
        return false;
    }
    builder_free(&m.wants);
    struct request *q = requests_waiting_for(n, e->index);
    bool ours = q != NULL && q->term == e->term;
    struct builder answer;
    builder_init(&answer, 64u * 1024u);
    struct outcome o = {0};
    enum grey_error err = state_apply(n->state, e, &o, ours ? &answer : NULL);
    if (err != E_OK) {
        builder_free(&answer);
        char text[120];
        (void)snprintf(text, sizeof text, "applying entry %" PRIu64 " of kind %u", e->index, e->kind);
        node_fail(n, err, text);
        return false;
    }
    metrics_add(&commits, 0, 1);
    statehash_applied(n);
    n->upkeep.applied_bytes += blob_bytes(e->payload).size;
    n->applied_point = (struct raft_point){.index = e->index, .term = e->term, .time_ms = e->time_ms};
    memcpy(n->applied_point.hash, e->hash, DIGEST_BYTES);
    if (e->kind == ENTRY_CONFIG) {
        struct raft_members members;
        if (raft_members_decode(blob_bytes(e->payload), &members) == E_OK) {
            node_set_members(n, &members, e->index);
        }
    }
    if (n->events->applied != NULL) {
        n->events->applied(n->context, e);
    }
    foreman_applied(n, e);
    quarantine_applied(n, e);
    clockset_applied(n, e);
    raft_index index = e->index;
    bool may_lead = n->role == RAFT_LEADER && !n->leading;
    raft_term term = e->term;
    grey_epoch epoch = e->epoch;
    if (q != NULL) { /* another entry at its place: this proposal is certainly lost */
        bool told = o.err != E_OK || answer.err == E_OK;
        struct node_answer a = {.err = !ours  ? E_NOT_LEADER
                                       : told ? o.err
                                              : E_OUTCOME_UNKNOWN,
                                .detail = told ? o.detail : "it is done, and no memory was left to say what came of it",
                                .index = index,
                                .epoch = epoch,
                                .answer = builder_bytes(&answer)};
        requests_answer_proposed(n, q, &a);
    }
    builder_free(&answer);
    if (may_lead) { /* the first entry of the own term is applied, and so all before it */
        struct raft_status s;
        raft_status(n->raft, &s);
        if (s.term == term) {
            leading_begins(n, term, epoch);
        }
    }
    return true;
}

void apply_turn(struct node *n) {
    if (n->o.witness) {
        witness_apply(n);
        sealing_applied(n);
        return;
    }
    uint32_t count = 0;
    while (!n->fetching && !n->installing && !n->has_failed && state_applied(n->state) < n->commit_index &&
           count < APPLY_PER_TURN) {
        const struct entry *e = raft_entry(n->raft, state_applied(n->state) + 1);
        must(e != NULL); /* the core keeps what is not applied */
        if (!apply_one(n, e)) {
            break;
        }
        count++;
    }
    if (count > 0) {
        metrics_set(&applied_gauge, 0, (int64_t)state_applied(n->state));
        sealing_applied(n);
        struct raft_input in = {.kind = RAFT_IN_APPLIED, .index = state_applied(n->state)};
        (void)node_step(n, &in, NULL);
        foreman_turn(n);
        if (n->requests.batched.count > 0) { /* the log had no room for them; now it may */
            loop_again(n->x.loop);
        }
    }
    requests_applied(n);
}
