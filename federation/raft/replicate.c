/* The leader's way to its followers (Raft thesis 3.5, 3.6.2, 10.2.1).
 *
 * Appends are pipelined: `next` moves on when an append is sent, not when it is answered, up to a bound of appends on the way.  What
 * was lost is found in two ways: a later append does not fit there and is refused, or a heartbeat is answered although acknowledgements
 * stay away, and then an empty append asks where the follower stands.
 *
 *     PROBE --answer--> REPLICATE --refused, link down--> PROBE          any --entries compacted--> SNAPSHOT --answer--> PROBE
 *
 * The leader writes its own disk beside the sending; its own copy counts when the storage reported it (log.stored_index), so a single
 * voter commits after its own disk write only.  Only entries of the own term are committed by counting (thesis 3.6.2). */
#include "federation/raft/core.h"

#include <string.h>

struct peer *replicate_peer(struct raft *r, raft_id id) {
    for (uint32_t i = 0; i < r->members.count; i++) {
        if (r->members.at[i].id == id && id != r->config.self) {
            return &r->peers[i];
        }
    }
    return NULL;
}

static void replicate_probe(struct peer *p) {
    p->mode = PEER_PROBE;
    p->next = p->match + 1;
    p->probe_sent = false;
    p->inflight_count = 0;
    p->commit_sent = 0;
}

static void replicate_forget_loads(struct raft *r) {
    for (uint32_t i = 0; i < LIMIT_MEMBERS; i++) {
        r->loads[i].stale = true;
    }
}

/* Log time goes on from the last entry's; a new leader may add a bounded step towards its wall clock (DECISIONS 7). */
static void replicate_set_clock(struct raft *r) {
    struct raft_point last;
    must(entries_point(&r->log, entries_last(&r->log), &last));
    int64_t wall = r->wall_ms < 0 ? 0 : r->wall_ms > RAFT_TIME_MS_MAX ? RAFT_TIME_MS_MAX : r->wall_ms;
    int64_t step = wall - last.time_ms;
    if (last.index > 0) {
        step = step > RAFT_CLOCK_STEP_MS_MAX ? RAFT_CLOCK_STEP_MS_MAX : step;
    }
    r->anchor_time_ms = last.time_ms + (step > 0 ? step : 0);
    r->anchor_ms = r->now_ms;
}

void replicate_clock(struct raft *r, int64_t clock_ms) {
    r->anchor_time_ms = clock_ms;
    r->anchor_ms = r->now_ms;
}

int64_t raft_log_time_ms(const struct raft *r, uint64_t now_ms) {
    struct raft_point last;
    must(entries_point(&r->log, entries_last(&r->log), &last));
    if (r->role != RAFT_LEADER) {
        return last.time_ms;
    }
    uint64_t elapsed = now_ms > r->anchor_ms ? now_ms - r->anchor_ms : 0;
    int64_t room = RAFT_TIME_MS_MAX - r->anchor_time_ms;
    int64_t now = r->anchor_time_ms + (elapsed > (uint64_t)room ? room : (int64_t)elapsed);
    return now > last.time_ms ? now : last.time_ms;
}

void replicate_begin(struct raft *r) {
    raft_index last = entries_last(&r->log);
    r->term_start = last + 1;
    r->transfer_to = 0;
    read_begin(r);
    for (uint32_t i = 0; i < r->members.count; i++) {
        struct peer *p = &r->peers[i];
        *p = (struct peer){.id = p->id, .inflight = p->inflight, .next = last + 1, .heard_ms = r->now_ms, .progress_ms = r->now_ms};
    }
    r->heartbeat_deadline_ms = r->now_ms + r->config.heartbeat_ms;
    replicate_set_clock(r);
    if (change_begin(r) != E_OK) {
        vote_follow(r, r->term, 0); /* no memory: let another member lead */
    }
}

void replicate_end(struct raft *r) {
    r->transfer_to = 0;
    replicate_forget_loads(r);
}

enum grey_error replicate_append(struct raft *r, uint16_t kind, uint16_t schema, struct blob *payload) {
    struct raft_point last;
    must(r->role == RAFT_LEADER && entries_point(&r->log, entries_last(&r->log), &last));
    struct entry e = {.index = last.index + 1,
                      .term = r->term,
                      .epoch = r->term, /* the epoch rises with each leader: the term does just that */
                      .time_ms = kind == ENTRY_CLOCK ? r->anchor_time_ms : raft_log_time_ms(r, r->now_ms),
                      .kind = kind,
                      .schema = schema,
                      .payload = payload};
    entry_seal(&e, last.hash);
    enum grey_error err = entries_append(&r->log, &e, raft_store_unit(r));
    if (err == E_OK && r->store_first == 0) {
        r->store_first = e.index;
    }
    if (err == E_OK && kind == ENTRY_CONFIG) {
        change_take(r, &e);
    }
    return err;
}

/* --- Sending ------------------------------------------------------------------------------------------------------------------- */

static uint64_t replicate_commit_for(const struct raft *r, const struct peer *p) {
    return p->match < r->commit ? p->match : r->commit;
}

static void replicate_send_heartbeat(struct raft *r, struct peer *p) {
    struct raft_message *m = raft_emit(r, RAFT_HEARTBEAT, p->id, 0);
    m->commit_index = p->commit_sent = replicate_commit_for(r, p);
    m->round = r->round;
}

void replicate_heartbeat(struct raft *r) {
    read_round_sent(r);
    for (uint32_t i = 0; i < r->members.count; i++) {
        if (r->members.at[i].id != r->config.self) {
            replicate_send_heartbeat(r, &r->peers[i]);
        }
    }
    r->heartbeat_deadline_ms = r->now_ms + r->config.heartbeat_ms;
}

static bool replicate_to_witness(const struct raft *r, const struct peer *p) {
    return raft_members_find(&r->members, p->id)->witness;
}

static void replicate_send_append(struct raft *r, struct peer *p, const struct raft_point *prev, const struct entry *entries,
                                  uint32_t count) {
    struct raft_message *m = raft_emit(r, RAFT_APPEND, p->id, 0);
    m->index = prev->index;
    m->log_term = prev->term;
    memcpy(m->hash, prev->hash, DIGEST_BYTES);
    m->commit_index = r->commit;
    m->entries = entries;
    m->entry_count = count;
    m->headers = replicate_to_witness(r, p);
    raft_index last = prev->index + count;
    if (r->commit > p->commit_sent) {
        p->commit_sent = r->commit < last ? r->commit : last;
    }
    if (p->mode == PEER_PROBE) {
        p->probe_sent = true;
    }
    if (count == 0) {
        return;
    }
    memcpy(m->last_hash, entries[count - 1].hash, DIGEST_BYTES);
    if (p->mode == PEER_REPLICATE) {
        must(p->inflight_count < r->config.inflight_messages_max);
        p->inflight[(p->inflight_start + p->inflight_count++) % r->config.inflight_messages_max] = last;
        p->next = last + 1;
        const struct entry *e = &entries[count - 1];
        p->prev = (struct raft_point){.index = e->index, .term = e->term, .time_ms = e->time_ms};
        memcpy(p->prev.hash, e->hash, DIGEST_BYTES);
    }
}

static void replicate_send_snapshot(struct raft *r, struct peer *p) {
    p->mode = PEER_SNAPSHOT;
    p->inflight_count = 0;
    if (r->now_ms < p->retry_ms) {
        return;
    }
    p->retry_ms = r->now_ms + r->config.snapshot_retry_ms;
    p->prev = r->base;
    bool witness = replicate_to_witness(r, p);
    if (witness) { /* needs no data, so it may have the newest point that is settled; that is in memory */
        must(entries_point(&r->log, r->commit, &p->prev));
    }
    struct raft_message *m = raft_emit(r, RAFT_SNAPSHOT, p->id, 0);
    m->point = p->prev;
    if (witness) {
        m->members = &r->settled;
        m->members_index = r->settled_index;
    }
    raft_note(r, RAFT_NOTE_SNAPSHOT_OFFERED, p->id, m->point.index);
}

/* Asks the owner for entries that are on disk only.  What others wait for is behind each such read on the same thread, and whoever reads,
 * sends, writes and applies takes part of a processor that serves clients too.  So a peer that is far behind gets small pieces, and the
 * next one only as it has written those before: it goes on as fast as it can, without a queue anywhere. */
static void replicate_load(struct raft *r, struct peer *p, raft_index from) {
    struct load *free_load = NULL;
    for (uint32_t i = 0; i < LIMIT_MEMBERS; i++) {
        if (r->loads[i].peer == p->id) {
            return; /* one at a time; a stale one is waited for as well */
        }
        if (r->loads[i].peer == 0) {
            free_load = &r->loads[i];
        }
    }
    bool busy = p->inflight_count >= RAFT_LOADED_INFLIGHT_MAX; /* its answers bring the next load */
    if (free_load == NULL || busy || r->now_ms < p->retry_ms || r->load_count == LIMIT_MEMBERS) {
        return;
    }
    *free_load = (struct load){.peer = p->id, .from = from, .last = r->log.base.index};
    uint32_t bytes_max = r->config.message_bytes_max < RAFT_LOAD_BYTES_MAX ? r->config.message_bytes_max : RAFT_LOAD_BYTES_MAX;
    r->loads_out[r->load_count++] = (struct raft_load){.peer = p->id, .from = from, .bytes_max = bytes_max};
}

/* The entry before p->next, from memory or from what was loaded last. */
static bool replicate_prev(const struct raft *r, const struct peer *p, struct raft_point *prev) {
    raft_index index = p->next - 1;
    if (entries_point(&r->log, index, prev)) {
        return true;
    }
    if (index == r->base.index || (index == p->prev.index && index > r->base.index)) {
        *prev = index == r->base.index ? r->base : p->prev;
        return true;
    }
    return false;
}

static bool replicate_may_send(const struct raft *r, const struct peer *p) {
    return p->mode == PEER_PROBE ? !p->probe_sent : p->inflight_count < r->config.inflight_messages_max;
}

/* What a peer may be sent now.  A witness gets only what a voter that holds data has on its disk, be it this leader's.  Else it could be
 * left with the longest log of all: it votes for nobody with a shorter one, and cannot lead itself, so the site would stand still.  Nor
 * does it help that a member has it which does not know yet that it was made a voter. */
static raft_index replicate_limit(const struct raft *r, const struct peer *to) {
    if (!replicate_to_witness(r, to)) {
        return entries_last(&r->log);
    }
    raft_index limit = 0;
    for (uint32_t i = 0; i < r->members.count; i++) {
        const struct raft_member *m = &r->members.at[i];
        raft_index held = m->id == r->config.self ? r->log.stored_index : r->peers[i].match;
        const struct raft_member *before = raft_members_find(&r->settled, m->id);
        bool knows = held >= r->members_index || (before != NULL && (before->voter || before->voter_old));
        if ((m->voter || m->voter_old) && !m->witness && knows && held > limit) {
            limit = held;
        }
    }
    return limit;
}

static void replicate_flush_peer(struct raft *r, struct peer *p) {
    if (p->mode == PEER_SNAPSHOT) {
        replicate_send_snapshot(r, p);
        return;
    }
    raft_index last = replicate_limit(r, p);
    for (uint32_t sent = 0; sent < RAFT_APPENDS_PER_STEP && replicate_may_send(r, p); sent++) {
        if (p->mode == PEER_REPLICATE && p->next > last) {
            break;
        }
        if (p->next <= r->log.base.index && p->next <= r->base.index) {
            p->retry_ms = 0;
            replicate_send_snapshot(r, p);
            return;
        }
        struct raft_point prev;
        if (!replicate_prev(r, p, &prev)) {
            replicate_load(r, p, p->next - 1);
            return;
        }
        if (p->next <= r->log.base.index) {
            replicate_load(r, p, p->next);
            return;
        }
        uint32_t count = 0;
        const struct entry *entries = entries_span(&r->log, p->next, r->config.message_bytes_max, &count);
        if (count > 0 && p->next + count - 1 > last) {
            count = p->next > last ? 0 : (uint32_t)(last - p->next + 1);
        }
        replicate_send_append(r, p, &prev, entries, count);
    }
}

/* A follower that has nothing on its way is told what is committed, but a moment later: while there is work the next append says it,
 * and saves a message and its answer for each commit.  A witness applies nothing: the next heartbeat will do. */
static void replicate_tell_commit(struct raft *r, struct peer *p) {
    if (p->mode != PEER_REPLICATE || p->inflight_count > 0 || replicate_to_witness(r, p) ||
        replicate_commit_for(r, p) <= p->commit_sent) {
        p->tell_ms = 0;
        p->hurried = p->hurried && p->inflight_count > 0; /* what it is to hear of may not have reached its disk yet */
    } else if (p->tell_ms == 0 && !p->hurried) {
        p->tell_ms = r->now_ms + RAFT_COMMIT_WAIT_MS;
    } else if (p->hurried || r->now_ms >= p->tell_ms) {
        p->tell_ms = 0;
        p->hurried = false;
        replicate_send_heartbeat(r, p);
    }
}

void replicate_hurry(struct raft *r, raft_id id) {
    struct peer *p = r->role == RAFT_LEADER ? replicate_peer(r, id) : NULL;
    if (p != NULL) {
        p->hurried = true;
    }
}

uint64_t replicate_deadline_ms(const struct raft *r) {
    uint64_t deadline = r->heartbeat_deadline_ms;
    for (uint32_t i = 0; i < r->members.count; i++) {
        const struct peer *p = &r->peers[i];
        deadline = p->tell_ms != 0 && p->tell_ms < deadline ? p->tell_ms : deadline;
    }
    return deadline;
}

static void replicate_flush_transfer(struct raft *r) {
    struct peer *p = replicate_peer(r, r->transfer_to);
    if (p == NULL) {
        r->transfer_to = 0;
    } else if (!r->transfer_sent && p->match == entries_last(&r->log)) {
        raft_emit(r, RAFT_TIMEOUT_NOW, p->id, 0);
        r->transfer_sent = r->lease_void = true;
    }
}

void replicate_flush(struct raft *r) {
    for (uint32_t i = 0; i < r->members.count; i++) {
        if (r->members.at[i].id != r->config.self) {
            replicate_flush_peer(r, &r->peers[i]);
            replicate_tell_commit(r, &r->peers[i]);
        }
    }
    if (r->transfer_to != 0) {
        replicate_flush_transfer(r);
    }
}

void replicate_on_loaded(struct raft *r, const struct raft_input *in) {
    struct load load = {.stale = true};
    for (uint32_t i = 0; i < LIMIT_MEMBERS; i++) {
        if (r->loads[i].peer == in->peer && in->peer != 0 && r->loads[i].from == in->load_index) {
            load = r->loads[i];
            r->loads[i].peer = 0;
        }
    }
    struct peer *p = replicate_peer(r, in->peer);
    if (load.stale || r->role != RAFT_LEADER || p == NULL || p->mode == PEER_SNAPSHOT) {
        return;
    }
    const struct entry *e = in->entries;
    uint32_t count = in->entry_count;
    while (count > 0 && e[count - 1].index > load.last) {
        count--; /* may have been replaced after it was read: memory has what is valid */
    }
    if (count == 0) {
        p->retry_ms = r->now_ms + r->config.snapshot_retry_ms; /* damaged: the owner mends it or makes a snapshot */
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        must(e[i].index == load.from + i);
    }
    if (e->index + 1 == p->next) {
        p->prev = (struct raft_point){.index = e->index, .term = e->term, .time_ms = e->time_ms};
        memcpy(p->prev.hash, e->hash, DIGEST_BYTES);
        e++, count--;
    }
    struct raft_point prev;
    raft_index last = replicate_limit(r, p);
    if (count > 0 && e->index == p->next && e->index <= last && replicate_may_send(r, p) && replicate_prev(r, p, &prev)) {
        uint64_t bytes = blob_bytes(e->payload).size;
        uint32_t n = 1;
        while (n < count && e[n].index <= last && (bytes += blob_bytes(e[n].payload).size) <= r->config.message_bytes_max) {
            n++;
        }
        replicate_send_append(r, p, &prev, e, n);
    }
}

/* --- Answers ------------------------------------------------------------------------------------------------------------------- */

static void replicate_values(const struct raft *r, bool contact, uint64_t value[LIMIT_MEMBERS]) {
    for (uint32_t i = 0; i < r->members.count; i++) {
        bool self = r->members.at[i].id == r->config.self;
        value[i] = contact ? (self ? r->now_ms : r->peers[i].heard_ms) : self ? r->log.stored_index : r->peers[i].match;
    }
}

uint64_t replicate_quorum_ms(const struct raft *r) {
    uint64_t value[LIMIT_MEMBERS];
    replicate_values(r, true, value);
    return quorum_value(&r->members, value);
}

void replicate_commit(struct raft *r) {
    uint64_t value[LIMIT_MEMBERS];
    replicate_values(r, false, value);
    raft_index index = quorum_value(&r->members, value);
    if (index > r->commit && index >= r->term_start) { /* from term_start on all entries are of this term */
        raft_commit_to(r, index);
        change_go_on(r);
    }
}

static void replicate_accepted(struct raft *r, struct peer *p, raft_index match) {
    while (p->inflight_count > 0 && p->inflight[p->inflight_start] <= match) {
        p->inflight_start = (p->inflight_start + 1) % r->config.inflight_messages_max;
        p->inflight_count--;
    }
    bool probe_answered = p->mode == PEER_PROBE && match + 1 >= p->next;
    bool rose = match > p->match;
    if (rose) {
        p->match = match;
        p->progress_ms = r->now_ms;
    }
    if (p->mode == PEER_SNAPSHOT ? rose || match >= p->prev.index : probe_answered) {
        p->mode = PEER_REPLICATE;
        p->inflight_count = 0;
        p->retry_ms = 0;
        p->next = match + 1; /* below p->match + 1 only when it lost entries that it had acknowledged: it gets them again */
    } else if (p->mode != PEER_PROBE && p->next <= p->match) {
        p->next = p->match + 1;
    }
    if (rose) {
        replicate_commit(r);
    }
}

/* Where to try next after a refusal: the greatest index that is not above the follower's hint and whose term is not above the
 * follower's term there.  So each round trip skips a whole term of either log. */
static raft_index replicate_back(const struct raft *r, raft_index hint, raft_term hint_term) {
    raft_index index = hint < entries_last(&r->log) ? hint : entries_last(&r->log);
    while (index > r->log.base.index && entries_term(&r->log, index) > hint_term) {
        index--;
    }
    return index;
}

static void replicate_refused(struct raft *r, struct peer *p, const struct raft_message *m) {
    raft_index back = replicate_back(r, m->hint_index, m->log_term);
    back = back < m->index ? back : m->index - 1;
    if (p->mode == PEER_REPLICATE && m->index > p->match) {
        replicate_probe(p);
        p->next = (back > p->match ? back : p->match) + 1;
    } else if (p->mode == PEER_PROBE && m->index + 1 == p->next) {
        p->next = (back < p->match && m->index > p->match ? p->match : back) + 1;
        p->probe_sent = false;
    }
}

void replicate_on_append_reply(struct raft *r, const struct raft_message *m) {
    struct peer *p = replicate_peer(r, m->from);
    if (r->role != RAFT_LEADER || p == NULL) {
        return;
    }
    raft_index last = entries_last(&r->log);
    if (m->index > last || (m->refused && m->hint_index > m->index)) {
        raft_refuse(r, m);
        return;
    }
    p->heard_ms = r->now_ms;
    if (m->refused && m->index == 0) {
        return; /* it told a former leader our term */
    }
    if (m->refused) {
        replicate_refused(r, p, m);
    } else {
        replicate_accepted(r, p, m->index);
    }
}

void replicate_on_heartbeat_reply(struct raft *r, const struct raft_message *m) {
    struct peer *p = replicate_peer(r, m->from);
    if (r->role != RAFT_LEADER || p == NULL) {
        return;
    }
    if (m->round > r->round) {
        raft_refuse(r, m);
        return;
    }
    p->heard_ms = r->now_ms;
    read_round_answered(r, p, m->round);
    if (p->mode == PEER_PROBE) {
        p->probe_sent = false; /* an append may have been lost */
    } else if (p->mode == PEER_REPLICATE && m->refused) {
        replicate_probe(p); /* it restarted and does not know that its log equals ours */
    } else if (p->mode == PEER_REPLICATE && p->match + 1 < p->next && r->now_ms - p->progress_ms >= r->config.heartbeat_ms) {
        struct raft_point prev;
        p->progress_ms = r->now_ms;
        if (replicate_prev(r, p, &prev)) {
            replicate_send_append(r, p, &prev, NULL, 0);
        } else {
            replicate_probe(p);
        }
    }
}

void replicate_link_down(struct raft *r, raft_id id) {
    struct peer *p = replicate_peer(r, id);
    if (r->role == RAFT_LEADER && p != NULL && p->mode != PEER_SNAPSHOT) {
        replicate_probe(p);
    }
}

/* --- Transfer of leadership (thesis 3.10) and the passing of time ------------------------------------------------------------------ */

enum grey_error replicate_transfer(struct raft *r, raft_id to) {
    if (r->role != RAFT_LEADER) {
        return E_NOT_LEADER;
    }
    const struct peer *best = NULL;
    for (uint32_t i = 0; i < r->members.count; i++) {
        const struct raft_member *member = &r->members.at[i];
        const struct peer *p = &r->peers[i];
        if (!member->voter || member->witness || member->id == r->config.self || (to != 0 && member->id != to)) {
            continue;
        }
        bool active = r->now_ms - p->heard_ms < r->config.election_timeout_ms_max;
        if (active && (best == NULL || p->match > best->match)) {
            best = p;
        }
    }
    if (best == NULL) {
        return to != 0 && replicate_peer(r, to) == NULL ? E_BAD_MESSAGE : E_NO_QUORUM;
    }
    r->transfer_to = best->id;
    r->transfer_sent = false;
    r->transfer_deadline_ms = r->now_ms + r->config.election_timeout_ms_max;
    return E_OK;
}

void replicate_tick(struct raft *r) {
    if (r->now_ms - replicate_quorum_ms(r) >= r->config.election_timeout_ms_max) {
        raft_note(r, RAFT_NOTE_QUORUM_LOST, r->term, 0);
        vote_follow(r, r->term, 0);
        return;
    }
    if (r->transfer_to != 0 && r->now_ms >= r->transfer_deadline_ms) {
        r->transfer_to = 0; /* it did not take over: go on */
    }
    if (r->now_ms >= r->heartbeat_deadline_ms) {
        replicate_heartbeat(r);
    }
    change_go_on(r);
}
