/* The laws of FAULTS section 3, seen from outside the members.
 *
 * L1  one leader per term, one vote per member and term.
 * L2  equal index and term means equal hash; the hash covers all before it, so equal prefix.
 * L3  what a leader reports committed stays as it is, and is in the log of every later leader.
 * L4  every member applies the same entry at the same index.  (The state is a function of the entries.)
 * L5  what a message promises is on the sender's disk when it leaves; what is committed is on a majority's disks.
 * L6  in world.c: a read sees all that any client knew when it began.
 * L13 each entry has the fencing epoch of the leader that proposed it, which is its term: with L1 no two are in force.
 * L14 terms, commit and applied indexes never go back; terms not across restarts either. */
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "include/grey/must.h"

struct fact { /* an entry that some member once held */
    raft_index index;
    raft_term term;
    uint8_t hash[DIGEST_BYTES];
};

enum { VALUE_REFUSED = 1, VALUE_COMMITTED = 2 };

struct check {
    struct fact *facts; /* open addressing by (index, term); term 0: free */
    uint32_t fact_count, fact_capacity;
    uint8_t (*chain)[DIGEST_BYTES]; /* by index: committed */
    raft_term *chain_terms;         /* of the entry */
    raft_term *commit_terms;        /* of the leader that committed it first */
    int64_t *times_ms;              /* of the entry */
    uint64_t *commit_us;            /* when it was committed first */
    uint64_t *sums;                 /* the state after it */
    raft_index committed;
    uint32_t chain_capacity;
    uint8_t *values; /* of clients: VALUE_* */
    uint32_t value_capacity;
    raft_id *leaders; /* by term */
    uint32_t leader_capacity;
};

static void *check_grow(void *p, uint32_t *capacity, uint64_t index, size_t size) {
    uint32_t before = *capacity;
    if (index < before) {
        return p;
    }
    uint32_t after = before == 0 ? 64 : before;
    while (after <= index) {
        after *= 2;
    }
    p = realloc(p, after * size);
    must(p != NULL);
    memset((uint8_t *)p + before * size, 0, (after - before) * size);
    *capacity = after;
    return p;
}

struct check *check_new(void) {
    struct check *c = calloc(1, sizeof *c);
    must(c != NULL);
    c->fact_capacity = 1024;
    c->facts = calloc(c->fact_capacity, sizeof *c->facts);
    must(c->facts != NULL);
    return c;
}

void check_free(struct check *c) {
    free(c->facts);
    free(c->chain);
    free(c->chain_terms);
    free(c->commit_terms);
    free(c->times_ms);
    free(c->commit_us);
    free(c->sums);
    free(c->values);
    free(c->leaders);
    free(c);
}

raft_index check_committed(const struct world *w) {
    return w->check->committed;
}

static struct fact *check_fact(struct check *c, raft_index index, raft_term term) {
    uint64_t at = (index * UINT64_C(0x9e3779b97f4a7c15) ^ term * UINT64_C(0xc2b2ae3d27d4eb4f)) >> 20;
    for (;; at++) {
        struct fact *f = &c->facts[at & (c->fact_capacity - 1)];
        if (f->term == 0 || (f->index == index && f->term == term)) {
            return f;
        }
    }
}

static void check_held(struct world *w, const struct node *n, const struct entry *e) {
    struct check *c = w->check;
    if (c->fact_count * 2 > c->fact_capacity) {
        struct fact *old = c->facts;
        uint32_t before = c->fact_capacity;
        c->fact_capacity *= 2;
        c->facts = calloc(c->fact_capacity, sizeof *c->facts);
        must(c->facts != NULL);
        for (uint32_t i = 0; i < before; i++) {
            if (old[i].term != 0) {
                *check_fact(c, old[i].index, old[i].term) = old[i];
            }
        }
        free(old);
    }
    struct fact *f = check_fact(c, e->index, e->term);
    if (f->term == 0) {
        f->index = e->index;
        f->term = e->term;
        memcpy(f->hash, e->hash, DIGEST_BYTES);
        c->fact_count++;
    } else if (memcmp(f->hash, e->hash, DIGEST_BYTES) != 0) {
        world_fail(w, "L2: node %" PRIu64 " holds another entry %" PRIu64 " of term %" PRIu64, n->id, e->index, e->term);
    }
}

/* Counted here by itself: the members' own counting is what is tested. */
static bool check_majority(const struct raft_members *m, bool old, const bool yes[LIMIT_MEMBERS]) {
    uint32_t n = 0, count = 0;
    for (uint32_t i = 0; i < m->count; i++) {
        if (old ? m->at[i].voter_old : m->at[i].voter) {
            n++;
            count += yes[i];
        }
    }
    return n == 0 ? old : 2 * count > n;
}

static bool check_majorities(const struct raft_members *m, const bool yes[LIMIT_MEMBERS]) {
    return check_majority(m, false, yes) && check_majority(m, true, yes);
}

/* Nobody may win while a former leader could still answer a read by its lease. */
static void check_no_lease(struct world *w, const struct node *n, raft_term term) {
    for (uint32_t i = 0; i < w->node_count; i++) {
        struct raft_status s;
        if (!w->nodes[i].up || &w->nodes[i] == n) {
            continue;
        }
        raft_status(w->nodes[i].raft, &s);
        if (s.role == RAFT_LEADER && s.term < term && s.lease_until_ms > world_clock_ms(w, &w->nodes[i])) {
            world_fail(w, "L6: node %" PRIu64 " leads term %" PRIu64 " while node %" PRIu64 " holds the lease of term %" PRIu64,
                       n->id, term, s.self, s.term);
        }
    }
}

static void check_leader(struct world *w, const struct node *n, const struct raft_status *s) {
    struct check *c = w->check;
    c->leaders = check_grow(c->leaders, &c->leader_capacity, s->term, sizeof *c->leaders);
    if (c->leaders[s->term] != 0 && c->leaders[s->term] != n->id) {
        world_fail(w, "L1: nodes %" PRIu64 " and %" PRIu64 " lead term %" PRIu64, c->leaders[s->term], n->id, s->term);
    }
    c->leaders[s->term] = n->id;
    if (n->witness) {
        world_fail(w, "node %" PRIu64 " leads term %" PRIu64 ", and is a witness", n->id, s->term);
    }
    if (n->disk.term < s->term || n->disk.vote != n->id) {
        world_fail(w, "L5: node %" PRIu64 " leads term %" PRIu64 ", its own vote is not on its disk", n->id, s->term);
    }
    bool granted[LIMIT_MEMBERS];
    for (uint32_t i = 0; i < s->members->count; i++) {
        const struct node *m = world_node(w, s->members->at[i].id);
        granted[i] = m == n || (m != NULL && s->term < m->voted_capacity && m->voted[s->term] == n->id);
    }
    if (!check_majorities(s->members, granted)) {
        world_fail(w, "L1: node %" PRIu64 " leads term %" PRIu64 " without the votes of a majority", n->id, s->term);
    }
    raft_index must_have = c->committed;
    while (must_have > 0 && c->commit_terms[must_have] >= s->term) {
        must_have--; /* committed by a later leader: this one won late and does not know it yet */
    }
    const struct entry *e = raft_entry(n->raft, must_have);
    if (s->last_index < must_have || (e != NULL && memcmp(e->hash, c->chain[must_have], DIGEST_BYTES) != 0)) {
        world_fail(w, "L3: node %" PRIu64 " leads term %" PRIu64 " without the committed entry %" PRIu64, n->id, s->term,
                   must_have);
    }
    check_no_lease(w, n, s->term);
}

/* DECISIONS 7: log time moves as real time does, but for one step of 60 s at most when the leader changes. */
static void check_time(struct world *w, raft_index index, const struct entry *e) {
    const struct check *c = w->check;
    if (index == 1) {
        return;
    }
    int64_t steps = (int64_t)(e->term - c->chain_terms[index - 1]), lived_ms = (int64_t)(w->now_us / 1000) + 1000;
    lived_ms += 20000 * (int64_t)w->counts[COUNT_CLOCK_JUMP];
    if (e->time_ms < c->times_ms[index - 1] ||
        e->time_ms > c->times_ms[index - 1] + steps * 60000 + lived_ms + lived_ms * world_drift_ppm / 1000000) {
        world_fail(w, "log time goes from %" PRId64 " to %" PRId64 " ms at entry %" PRIu64, c->times_ms[index - 1], e->time_ms,
                   index);
    }
}

/* What a client proposed is done once, and not at all when it was told so. */
static void check_value(struct world *w, const struct entry *e) {
    struct check *c = w->check;
    if (e->kind != ENTRY_KV || blob_bytes(e->payload).size < 8) {
        return;
    }
    uint64_t value = bytes_get_be64(e->payload->data);
    c->values = check_grow(c->values, &c->value_capacity, value, sizeof *c->values);
    if (c->values[value] != 0) {
        world_fail(w, "L4: value %" PRIu64 " is committed as %" PRIu64 ", but was %s", value, e->index,
                   c->values[value] & VALUE_COMMITTED ? "committed before" : "refused");
    }
    c->values[value] |= VALUE_COMMITTED;
}

void check_refused(struct world *w, uint64_t value) {
    struct check *c = w->check;
    c->values = check_grow(c->values, &c->value_capacity, value, sizeof *c->values);
    c->values[value] |= VALUE_REFUSED;
}

uint64_t check_sum(const struct world *w, raft_index index) {
    return index <= w->check->committed && index > 0 ? w->check->sums[index] : 0;
}

/* A leader says that all up to here is committed: it must be on the disks of a majority now. */
static void check_commit(struct world *w, const struct node *n, const struct raft_status *s) {
    struct check *c = w->check;
    bool durable[LIMIT_MEMBERS];
    bool held = false; /* with its payload */
    for (uint32_t i = 0; i < s->members->count; i++) {
        const struct node *m = world_node(w, s->members->at[i].id);
        const struct disk *d = world_disk(m);
        const struct entry *e = disk_entry(d, s->commit_index), *mine = raft_entry(n->raft, s->commit_index);
        durable[i] = m->wiped || d->base.index >= s->commit_index ||
                     (e != NULL && mine != NULL && memcmp(e->hash, mine->hash, DIGEST_BYTES) == 0);
        held |= durable[i] && !m->witness;
    }
    if (!held) {
        world_fail(w, "L5: node %" PRIu64 " commits %" PRIu64 ", and only witnesses have it on their disks", n->id,
                   s->commit_index);
    }
    if (!check_majorities(s->members, durable)) {
        world_fail(w, "L5: node %" PRIu64 " commits %" PRIu64 ", which is not on the disks of a majority", n->id, s->commit_index);
    }
    while (c->committed < s->commit_index) {
        raft_index index = c->committed + 1;
        const struct entry *e = raft_entry(n->raft, index);
        if (e == NULL) {
            world_fail(w, "node %" PRIu64 ": entry %" PRIu64 " is committed and not in memory", n->id, index);
            return;
        }
        uint32_t before = c->chain_capacity, capacity = before, capacity_too = before;
        c->chain = check_grow(c->chain, &c->chain_capacity, index, sizeof *c->chain);
        c->chain_terms = check_grow(c->chain_terms, &capacity, index, sizeof *c->chain_terms);
        c->commit_terms = check_grow(c->commit_terms, &capacity_too, index, sizeof *c->commit_terms);
        capacity = before;
        c->times_ms = check_grow(c->times_ms, &capacity, index, sizeof *c->times_ms);
        capacity = before;
        c->commit_us = check_grow(c->commit_us, &capacity, index, sizeof *c->commit_us);
        capacity = before;
        c->sums = check_grow(c->sums, &capacity, index, sizeof *c->sums);
        c->sums[index] = world_sum(c->sums[index - 1], e);
        c->times_ms[index] = e->time_ms;
        c->commit_us[index] = w->now_us;
        if (e->epoch != e->term) { /* the order of leaders is that of epochs: none but the leader of a term has its epoch */
            world_fail(w, "L13: entry %" PRIu64 " of term %" PRIu64 " has epoch %" PRIu64, index, e->term, e->epoch);
        }
        check_time(w, index, e);
        check_value(w, e);
        memcpy(c->chain[index], e->hash, DIGEST_BYTES);
        c->commit_terms[index] = s->term;
        c->chain_terms[index] = e->term;
        c->committed = index;
        w->counts[COUNT_COMMITTED]++;
    }
}

/* What a leader knows of a follower never goes back within its term. */
static void check_matches(struct world *w, struct node *n, const struct raft_status *s) {
    bool same = n->role_seen == RAFT_LEADER && n->term_seen == s->term;
    for (uint32_t i = 0; i < s->peer_count; i++) {
        const struct raft_peer_status *p = &s->peers[i];
        if (same && n->match_of[i] == p->id && p->match_index < n->match_seen[i]) {
            world_fail(w, "L14: leader %" PRIu64 " knew %" PRIu64 " to be at %" PRIu64 ", now at %" PRIu64, n->id, p->id,
                       n->match_seen[i], p->match_index);
        }
        n->match_of[i] = p->id;
        n->match_seen[i] = p->match_index;
    }
    for (uint32_t i = s->peer_count; i < LIMIT_MEMBERS; i++) {
        n->match_of[i] = 0;
    }
}

void check_tick(struct world *w, struct node *n) {
    if (!n->up || w->violation != NULL) {
        return;
    }
    struct raft_status s;
    raft_status(n->raft, &s);
    uint64_t now_ms = n->tick_now_ms;
    if (s.role == RAFT_LEADER && now_ms - s.quorum_contact_ms > 2 * (uint64_t)w->config.election_timeout_ms_max) {
        world_fail(w, "L9: node %" PRIu64 " leads without a majority for %" PRIu64 " ms", n->id, now_ms - s.quorum_contact_ms);
    }
}

void check_step(struct world *w, struct node *n, const struct raft_output *out) {
    struct raft_status s;
    raft_status(n->raft, &s);
    if (s.term < n->term_seen || s.commit_index < n->commit_seen || s.term < n->disk.term) {
        world_fail(w, "L14: node %" PRIu64 " goes back: term %" PRIu64 " after %" PRIu64 ", commit %" PRIu64 " after %" PRIu64,
                   n->id, s.term, n->term_seen, s.commit_index, n->commit_seen);
    }
    if (out->commit_index != s.commit_index || s.commit_index > s.last_index || s.stored_index > s.last_index) {
        world_fail(w, "node %" PRIu64 ": commit %" PRIu64 ", stored %" PRIu64 ", last %" PRIu64, n->id, s.commit_index,
                   s.stored_index, s.last_index);
    }
    if (out->truncate_from > 0 && out->truncate_from <= n->commit_seen) {
        world_fail(w, "L3: node %" PRIu64 " cuts %" PRIu64 ", committed is %" PRIu64, n->id, out->truncate_from, n->commit_seen);
    }
    for (raft_index i = out->store_first; i <= out->store_last; i++) {
        const struct entry *e = raft_entry(n->raft, i);
        if (e != NULL) {
            check_held(w, n, e);
        }
    }
    if (s.role == RAFT_LEADER && n->role_seen != RAFT_LEADER) {
        check_leader(w, n, &s);
    }
    if (s.commit_index > w->check->committed) {
        /* a leader that left with this commit is a follower by now */
        struct check *c = w->check;
        bool led = s.role == RAFT_LEADER || (n->role_seen == RAFT_LEADER && s.term == n->term_seen);
        if (!led) {
            world_fail(w, "L3: follower %" PRIu64 " commits %" PRIu64 ", leaders %" PRIu64, n->id, s.commit_index, c->committed);
        } else {
            check_commit(w, n, &s);
        }
    }
    if (s.role == RAFT_LEADER) {
        check_matches(w, n, &s);
    }
    n->role_seen = s.role;
    n->term_seen = s.term;
    n->commit_seen = s.commit_index;
}

void check_release(struct world *w, struct node *n, const struct raft_message *m) {
    const struct disk *d = &n->disk;
    if (m->kind == RAFT_PRE_VOTE || (m->kind == RAFT_PRE_VOTE_REPLY && !m->refused)) {
        return;
    }
    if (d->term < m->term) {
        world_fail(w, "L5: node %" PRIu64 " says term %" PRIu64 " in message %d, its disk has %" PRIu64, n->id, m->term,
                   (int)m->kind, d->term);
    }
    if ((m->kind == RAFT_VOTE_REPLY && !m->refused) || m->kind == RAFT_VOTE) {
        raft_id candidate = m->kind == RAFT_VOTE ? n->id : m->to;
        n->voted = check_grow(n->voted, &n->voted_capacity, m->term, sizeof *n->voted);
        if (n->voted[m->term] != 0 && n->voted[m->term] != candidate) {
            world_fail(w, "L1: node %" PRIu64 " votes for %" PRIu64 " and %" PRIu64 " in term %" PRIu64, n->id, n->voted[m->term],
                       candidate, m->term);
        }
        n->voted[m->term] = candidate;
        if (d->term == m->term && d->vote != candidate) {
            world_fail(w, "L5: node %" PRIu64 " votes for %" PRIu64 ", its disk says %" PRIu64, n->id, candidate, d->vote);
        }
    }
    if (m->kind == RAFT_APPEND_REPLY && !m->refused && d->term == m->term && disk_last(d) < m->index) {
        world_fail(w, "L5: node %" PRIu64 " acknowledges %" PRIu64 ", its disk ends at %" PRIu64, n->id, m->index, disk_last(d));
    }
}

void check_apply(struct world *w, struct node *n, const struct entry *e) {
    struct check *c = w->check;
    if (e->index != n->applied + 1) {
        world_fail(w, "L4: node %" PRIu64 " applies %" PRIu64 " after %" PRIu64, n->id, e->index, n->applied);
    }
    n->sum = world_sum(n->sum, e);
    if (e->index <= c->committed && c->sums[e->index] != n->sum) {
        world_fail(w, "L4: the state of node %" PRIu64 " differs at %" PRIu64, n->id, e->index);
    }
    if (e->index > c->committed || memcmp(c->chain[e->index], e->hash, DIGEST_BYTES) != 0) {
        world_fail(w, "L4: node %" PRIu64 " applies another entry %" PRIu64 " (term %" PRIu64 ", committed was term %" PRIu64 ")",
                   n->id, e->index, e->term, e->index <= c->committed ? c->chain_terms[e->index] : 0);
    }
}

void check_restart(struct world *w, struct node *n) {
    if (n->disk.base.index > w->check->committed ||
        (n->disk.base.index > 0 && memcmp(w->check->chain[n->disk.base.index], n->disk.base.hash, DIGEST_BYTES) != 0)) {
        world_fail(w, "L3: node %" PRIu64 " starts from a snapshot that was never committed", n->id);
    }
    n->term_seen = n->disk.term;
    n->commit_seen = n->disk.applied;
    n->role_seen = RAFT_FOLLOWER;
}

void check_mended(struct world *w, const struct node *n) {
    const struct disk *d = &n->disk, *was = &n->sound;
    if (d->term != was->term || d->vote != was->vote) {
        world_fail(w,
                   "L14: node %" PRIu64 " voted for %" PRIu64 " in term %" PRIu64 ", mended its log says %" PRIu64 " in %" PRIu64,
                   n->id, was->vote, was->term, d->vote, d->term);
    }
    if (disk_last(d) != disk_last(was) || d->base.index < was->base.index ||
        d->base.index > (was->applied > was->base.index ? was->applied : was->base.index)) {
        world_fail(w, "L3: the log of node %" PRIu64 " was %" PRIu64 "..%" PRIu64 ", mended it is %" PRIu64 "..%" PRIu64, n->id,
                   was->base.index, disk_last(was), d->base.index, disk_last(d));
    }
    for (raft_index i = d->base.index + 1; i <= disk_last(d) && w->violation == NULL; i++) {
        const struct entry *e = disk_entry(d, i), *before = disk_entry(was, i);
        if (memcmp(e->hash, before->hash, DIGEST_BYTES) != 0 || memcmp(e->digest, before->digest, DIGEST_BYTES) != 0) {
            world_fail(w, "L3: entry %" PRIu64 " of node %" PRIu64 " is another one since its log was mended", i, n->id);
        }
    }
}
