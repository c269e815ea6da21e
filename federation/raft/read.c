/* ReadIndex (Raft thesis 6.4): a read may be served from the state at index i when i was the commit index at a moment after the read
 * began at which this member was surely the leader.
 *
 * The leader notes its commit index, but only once an entry of its own term is committed (before, it may be behind what a former
 * leader answered), starts a numbered round of heartbeats, and when a majority has answered that round in this term the reads that
 * waited when it began are answered.  Reads that come meanwhile wait for the next round, so reads cost two messages per round and
 * follower however many they are.
 *
 * A follower does the same with a request to its leader in place of the round.  A request has a number that begins at a random place,
 * and reads are never added to a request that was sent: a late or repeated answer can only be to a question asked after all its reads
 * began.  Reads that did not get an answer begin anew when role or leader changes; after two election time-outs they fail.
 *
 * The lease (thesis 6.4.1) spares the round.  A member that heard its leader at h, by its own clock, votes for nobody before
 * h + election_timeout_ms_min (vote_ignores).  So when a majority answered a round that was sent at s, no other leader can be elected
 * before s + election_timeout_ms_min, as the slowest of their clocks counts it; and until
 *
 *     s + election_timeout_ms_min * (100 - clock_drift_percent) / 100 - RAFT_LEASE_MARGIN_MS
 *
 * as this member's clock counts it, this member is the only one that can have committed anything.  That is sound while no two clocks
 * run apart by more than clock_drift_percent, and rests on these rules:
 *   - s is the time of sending, never that of the answer; and reads ask a clock that was read after they came.
 *   - A member that starts again does not know whom it heard: it waits one election time-out before it votes (raft_new).
 *   - A later term seen in a message does not release a member from its promise (vote_follow).
 *   - An ordered transfer overrides the promise, so a leader that sent TIMEOUT_NOW has no lease for the rest of its term: the order
 *     may arrive at any time, long after the transfer was given up.
 *   - A leader that is not a voter of its own latest configuration has none: the others may go on without hearing it.
 *   - As with rounds, an entry of the own term must be committed.
 *   - A clock that misbehaved (RAFT_IN_CLOCK_UNSURE) makes an end of it for a while, and makes this member wait before it votes. */
#include "federation/raft/core.h"

#include <string.h>

static void read_remove(struct raft *r, uint32_t at) {
    r->reads_local -= r->reads[at].peer == 0;
    r->reads_running -= at < r->reads_running;
    memmove(&r->reads[at], &r->reads[at + 1], (r->read_count - at - 1) * sizeof r->reads[0]);
    r->read_count--;
}

static void read_answer(struct raft *r, const struct read_wait *w, raft_index index, enum grey_error err, bool lease) {
    if (w->peer == 0) {
        must(r->reads_out_count < RAFT_READS_MAX);
        r->reads_out[r->reads_out_count++] = (struct raft_read){.context = w->context, .index = index, .err = err, .lease = lease};
    } else if (err == E_OK) {
        struct raft_message *m = raft_emit(r, RAFT_READ_REPLY, w->peer, 0);
        m->round = w->context;
        m->index = index;
    }
}

/* Answers the reads under way. */
static void read_finish(struct raft *r, raft_index index, bool lease) {
    for (uint32_t i = 0; i < r->reads_running; i++) {
        r->reads_local -= r->reads[i].peer == 0;
        read_answer(r, &r->reads[i], index, E_OK, lease);
    }
    r->read_count -= r->reads_running;
    memmove(&r->reads[0], &r->reads[r->reads_running], r->read_count * sizeof r->reads[0]);
    r->reads_running = 0;
}

static void read_add(struct raft *r, uint64_t context, raft_id peer) {
    must(r->read_count < RAFT_READS_MAX + RAFT_REMOTE_READS_MAX);
    r->reads[r->read_count++] = (struct read_wait){.context = context, .peer = peer, .since_ms = r->now_ms};
    r->reads_local += peer == 0;
}

enum grey_error read_ask(struct raft *r, uint64_t context) {
    if (r->reads_local >= RAFT_READS_MAX) {
        return E_BUSY;
    }
    read_add(r, context, 0);
    return E_OK;
}

void read_on_request(struct raft *r, const struct raft_message *m) {
    if (r->role != RAFT_LEADER || r->read_count - r->reads_local >= RAFT_REMOTE_READS_MAX) {
        return; /* the follower asks again */
    }
    struct peer *p = replicate_peer(r, m->from);
    if (p != NULL) {
        p->tell_ms = r->now_ms; /* its reads wait for the commits that the answer will name */
    }
    uint32_t of_peer = 0;
    for (uint32_t i = 0; i < r->read_count; i++) {
        if (r->reads[i].peer == m->from) {
            if (r->reads[i].context == m->round) {
                return;
            }
            of_peer++;
        }
    }
    if (of_peer < RAFT_REMOTE_READS_MAX / LIMIT_MEMBERS) {
        read_add(r, m->round, m->from);
    }
}

void read_on_reply(struct raft *r, const struct raft_message *m) {
    if (r->role != RAFT_FOLLOWER || m->from != r->leader || r->reads_running == 0 || m->round != r->round || m->refused) {
        return;
    }
    if (m->index > RAFT_NUMBER_MAX) {
        raft_refuse(r, m);
        return;
    }
    read_finish(r, m->index, false);
}

static bool read_round_done(const struct raft *r, uint64_t round) {
    uint64_t value[LIMIT_MEMBERS];
    for (uint32_t i = 0; i < r->members.count; i++) {
        value[i] = r->members.at[i].id == r->config.self ? round : r->peers[i].round;
    }
    return quorum_value(&r->members, value) >= round;
}

/* --- The lease ------------------------------------------------------------------------------------------------------------------- */

void read_begin(struct raft *r) {
    r->round = 0;
    r->round_sent_ms[0] = r->now_ms;
    r->lease_void = false;
}

void read_round_sent(struct raft *r) {
    r->round++;
    r->round_sent_ms[r->round % RAFT_ROUNDS_KEPT] = r->now_ms;
}

void read_round_answered(struct raft *r, struct peer *p, uint64_t round) {
    must(round <= r->round);
    if (round >= p->round) {
        p->round = round;
        p->round_ms = r->round - round < RAFT_ROUNDS_KEPT ? r->round_sent_ms[round % RAFT_ROUNDS_KEPT] : p->round_ms;
    }
}

void read_clock_misbehaved(struct raft *r) {
    r->lease_barred_until_ms = r->now_ms + RAFT_LEASE_PAUSE_MS;
    r->leader_heard = true;
    r->leader_heard_ms = r->now_ms;
    vote_draw_deadline(r); /* nor for itself: its own time-out may have been the jump */
}

uint64_t read_lease_until_ms(const struct raft *r) {
    uint64_t value[LIMIT_MEMBERS];
    const struct raft_member *self = raft_members_find(&r->members, r->config.self);
    if (!r->config.lease_reads || r->config.clock_drift_percent > 99 || r->role != RAFT_LEADER || r->lease_void ||
        r->now_ms < r->lease_barred_until_ms || r->commit < r->term_start || self == NULL || !self->voter) {
        return 0;
    }
    for (uint32_t i = 0; i < r->members.count; i++) {
        value[i] = r->members.at[i].id == r->config.self ? r->now_ms : r->peers[i].round_ms;
    }
    uint64_t sent_ms = quorum_value(&r->members, value);
    uint64_t length_ms = (uint64_t)r->config.election_timeout_ms_min * (100 - r->config.clock_drift_percent) / 100;
    if (sent_ms == 0 || length_ms <= RAFT_LEASE_MARGIN_MS || r->now_ms - sent_ms >= length_ms - RAFT_LEASE_MARGIN_MS) {
        return 0;
    }
    return sent_ms + length_ms - RAFT_LEASE_MARGIN_MS;
}

/* --- Rounds and requests ----------------------------------------------------------------------------------------------------------- */

static void read_send_request(struct raft *r) {
    raft_emit(r, RAFT_READ_REQUEST, r->leader, 0)->round = r->round;
    r->read_retry_ms = r->now_ms + r->config.heartbeat_ms;
}

void read_flush(struct raft *r) {
    if (r->role != RAFT_LEADER) {
        if (r->role == RAFT_FOLLOWER && r->leader != 0 && r->reads_running == 0 && r->read_count > 0) {
            r->round++;
            r->reads_running = r->read_count;
            read_send_request(r);
        }
        return;
    }
    if (r->reads_running > 0 && read_round_done(r, r->read_round)) {
        read_finish(r, r->round_index, false);
    }
    if (r->read_count > 0 && read_lease_until_ms(r) > 0) {
        r->reads_running = r->read_count;
        read_finish(r, r->commit, true);
    }
    if (r->reads_running == 0 && r->read_count > 0 && r->commit >= r->term_start) {
        r->round_index = r->commit;
        r->reads_running = r->read_count;
        r->read_round = r->round + 1;
        if (read_round_done(r, r->read_round)) { /* the only voter */
            read_finish(r, r->round_index, false);
        } else {
            replicate_heartbeat(r);
        }
    }
}

void read_tick(struct raft *r) {
    uint64_t patience_ms = 2 * (uint64_t)r->config.election_timeout_ms_max;
    while (r->read_count > 0 && r->now_ms - r->reads[0].since_ms >= patience_ms && r->reads_out_count < RAFT_READS_MAX) {
        struct read_wait w = r->reads[0];
        read_remove(r, 0);
        read_answer(r, &w, 0, r->leader == 0 ? E_NOT_LEADER : E_NO_QUORUM, false);
    }
    if (r->role == RAFT_FOLLOWER && r->leader != 0 && r->reads_running > 0 && r->now_ms >= r->read_retry_ms) {
        read_send_request(r);
    }
}

void read_restart(struct raft *r) {
    r->reads_running = 0;
    for (uint32_t i = r->read_count; i > 0; i--) {
        if (r->reads[i - 1].peer != 0) {
            read_remove(r, i - 1); /* a follower asks the next leader by itself */
        }
    }
    if (r->role != RAFT_LEADER) {
        r->round = raft_random(r, UINT64_MAX / 2);
    }
}
