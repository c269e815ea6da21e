/* Takes inputs, hands them to the part that they concern, and collects what must be done (raft.h, core.h).
 *
 * Terms (Raft thesis 3.3): a message of a later term makes this member a follower of that term, with three exceptions that keep a
 * lost member from disturbing the others: requests for votes that stickiness ignores, pre-votes (nobody is in that term yet), and
 * granted pre-votes.  A message of a former term is not acted on; its sender is told the present term where it would else wait for
 * ever: a leader, so that it steps down although pre-vote keeps us from campaigning, and a candidate. */
#include "federation/raft/core.h"

#include <string.h>

void raft_note(struct raft *r, enum raft_note_kind kind, uint64_t a, uint64_t b) {
    if (r->note_count < RAFT_NOTES_MAX) {
        r->notes[r->note_count++] = (struct raft_note){.kind = kind, .a = a, .b = b};
    }
}

void raft_refuse(struct raft *r, const struct raft_message *m) {
    raft_note(r, RAFT_NOTE_REFUSED, m->kind, m->from);
}

struct raft_message *raft_emit(struct raft *r, enum raft_message_kind kind, raft_id to, uint64_t after_store_id) {
    uint64_t after = after_store_id > r->vote_store_id ? after_store_id : r->vote_store_id;
    struct raft_send *send = &r->sends[r->send_count];
    if (r->send_count < RAFT_SENDS_MAX) {
        r->send_count++; /* else it is lost, as any message may be */
    }
    *send = (struct raft_send){.message = {.kind = kind, .from = r->config.self, .to = to, .term = r->term},
                               .after_store_id = after > r->stored_id ? after : 0};
    return &send->message;
}

uint64_t raft_store_unit(struct raft *r) {
    r->store_used = true;
    return r->store_next;
}

/* splitmix64 */
uint64_t raft_random(struct raft *r, uint64_t bound) {
    uint64_t z = (r->random += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (z ^ (z >> 31)) % bound;
}

void raft_commit_to(struct raft *r, raft_index index) {
    must(index > r->commit && index <= entries_last(&r->log));
    raft_index before = r->commit;
    r->commit = index;
    r->verified = r->verified > index ? r->verified : index;
    change_committed(r, before);
}

/* Entries that must stay in memory: not stored or not applied. */
static raft_index raft_kept_from(const struct raft *r) {
    return r->applied < r->log.stored_index ? r->applied : r->log.stored_index;
}

/* What waits for this member's own disk and state.  Entries that wait for a majority do not count here: a leader bounds them when they
 * are proposed, and a follower that refused them for want of room could keep them from ever being committed. */
static uint64_t raft_backlog(const struct raft *r, uint64_t *bytes) {
    *bytes = entries_bytes(&r->log, r->log.stored_index) + entries_bytes(&r->log, r->applied) - entries_bytes(&r->log, r->commit);
    return entries_last(&r->log) - r->log.stored_index + r->commit - r->applied;
}

uint32_t raft_room(const struct raft *r, const struct entry *entries, uint32_t count) {
    uint64_t bytes, held = raft_backlog(r, &bytes);
    uint64_t held_max = (uint64_t)r->config.window_entries + r->config.proposed_entries_max;
    uint64_t bytes_max = (uint64_t)r->config.window_bytes + r->config.proposed_bytes_max;
    uint32_t n = 0;
    while (n < count && held < held_max) {
        bytes += blob_bytes(entries[n].payload).size;
        if (bytes > bytes_max && held > 0) {
            break;
        }
        held++, n++;
    }
    return n;
}

/* --- Start and end --------------------------------------------------------------------------------------------------------------- */

static bool raft_config_ok(const struct raft_config *c) {
    return c->self != 0 && c->heartbeat_ms > 0 && c->heartbeat_ms < c->election_timeout_ms_min &&
           c->election_timeout_ms_min <= c->election_timeout_ms_max && c->election_timeout_ms_max < (1u << 30) &&
           c->proposed_entries_max > 0 && c->inflight_messages_max > 0 && c->inflight_messages_max <= RAFT_INFLIGHT_MAX;
}

/* What the disk says must fit together (FAULTS R16): no gap between snapshot and log, none above what is applied. */
static bool raft_start_ok(const struct raft_start *s) {
    raft_index last = s->window_base.index + s->entry_count;
    raft_term term = s->window_base.term;
    int64_t time_ms = s->window_base.time_ms;
    if (s->base.index > s->window_base.index || s->window_base.index > s->applied_index || s->applied_index > last ||
        s->members_index > s->applied_index || s->base.term > s->window_base.term || (s->entry_count > 0 && s->entries == NULL) ||
        (s->members != NULL && raft_members_check(s->members) != E_OK) || (s->members == NULL && s->members_index != 0)) {
        return false;
    }
    if (s->base.index == s->window_base.index && memcmp(s->base.hash, s->window_base.hash, DIGEST_BYTES) != 0) {
        return false;
    }
    for (uint32_t i = 0; i < s->entry_count; i++) {
        const struct entry *e = &s->entries[i];
        struct raft_members members;
        if (e->index != s->window_base.index + 1 + i || e->term < term || e->term == 0 || !entry_time_follows(e, time_ms) ||
            (e->kind == ENTRY_CONFIG && raft_members_decode(blob_bytes(e->payload), &members) != E_OK)) {
            return false;
        }
        term = e->term;
        time_ms = e->time_ms;
    }
    return term <= s->term && s->term <= RAFT_NUMBER_MAX && last <= RAFT_NUMBER_MAX && (s->vote == 0 || s->term > 0);
}

static bool raft_load_start(struct raft *r, const struct raft_start *s) {
    r->term = s->term;
    r->vote = s->vote;
    r->base = s->base;
    r->applied = r->commit = r->verified = s->applied_index;
    entries_init(&r->log, &s->window_base);
    if (s->members != NULL) {
        r->settled = r->members = *s->members;
        r->settled_index = r->members_index = s->members_index;
    }
    for (uint32_t i = 0; i < s->entry_count; i++) {
        if (entries_append(&r->log, &s->entries[i], 0) != E_OK) {
            return false;
        }
    }
    entries_stored(&r->log, 0);
    change_peers(r);
    for (raft_index i = entries_last(&r->log); i > s->applied_index; i--) {
        const struct entry *e = entries_at(&r->log, i);
        if (e->kind == ENTRY_CONFIG) {
            change_take(r, e);
            break;
        }
    }
    return true;
}

struct raft *raft_new(const struct raft_config *config, const struct raft_start *start, uint64_t now_ms) {
    if (!raft_config_ok(config) || !raft_start_ok(start)) {
        return NULL;
    }
    struct raft *r = mem_new(1, sizeof *r);
    raft_index *rings = mem_new((size_t)LIMIT_MEMBERS * config->inflight_messages_max, sizeof *rings);
    if (r == NULL || rings == NULL) {
        mem_free(rings);
        mem_free(r);
        return NULL;
    }
    r->config = *config;
    r->inflight_memory = rings;
    r->now_ms = now_ms;
    r->random = config->seed ^ config->self;
    r->store_next = 1;
    for (uint32_t i = 0; i < LIMIT_MEMBERS; i++) {
        r->peers[i].inflight = rings + (size_t)i * config->inflight_messages_max;
    }
    if (!raft_load_start(r, start)) {
        raft_free(r);
        return NULL;
    }
    read_restart(r);
    vote_draw_deadline(r);
    if (start->term > 0) { /* it may have answered a leader just before it stopped, and that leader may count on it */
        r->leader_heard = true;
        r->leader_heard_ms = now_ms;
    }
    uint64_t alone[LIMIT_MEMBERS] = {0};
    for (uint32_t i = 0; i < r->members.count; i++) {
        alone[i] = r->members.at[i].id == config->self;
    }
    if (quorum_value(&r->members, alone) == 1) {
        r->election_deadline_ms = now_ms; /* nobody to wait for */
    }
    return r;
}

void raft_free(struct raft *r) {
    if (r != NULL) {
        entries_free(&r->log);
        mem_free(r->inflight_memory);
        mem_free(r);
    }
}

/* --- Inputs ---------------------------------------------------------------------------------------------------------------------- */

static void raft_on_former_term(struct raft *r, const struct raft_message *m) {
    switch (m->kind) {
    case RAFT_APPEND:
    case RAFT_HEARTBEAT:
    case RAFT_SNAPSHOT:
        follow_answer_stale(r, m);
        break;
    case RAFT_PRE_VOTE:
    case RAFT_VOTE:
        raft_emit(r, m->kind == RAFT_VOTE ? RAFT_VOTE_REPLY : RAFT_PRE_VOTE_REPLY, m->from, 0)->refused = true;
        break;
    default:
        break;
    }
}

static void raft_on_message(struct raft *r, const struct raft_message *m) {
    if (m->kind < RAFT_PRE_VOTE || m->kind >= RAFT_MESSAGE_KIND_COUNT || m->from == 0 || m->from == r->config.self ||
        m->to != r->config.self || m->term == 0 || m->term > RAFT_NUMBER_MAX || m->index > RAFT_NUMBER_MAX) {
        raft_refuse(r, m);
        return;
    }
    bool asks = m->kind == RAFT_PRE_VOTE || m->kind == RAFT_VOTE;
    bool leads = m->kind == RAFT_APPEND || m->kind == RAFT_HEARTBEAT || m->kind == RAFT_SNAPSHOT;
    if (m->term < r->term) {
        raft_on_former_term(r, m);
        return;
    }
    if (asks && vote_ignores(r, m)) {
        return;
    }
    if (m->term > r->term && m->kind != RAFT_PRE_VOTE && (m->kind != RAFT_PRE_VOTE_REPLY || m->refused)) {
        vote_follow(r, m->term, leads ? m->from : 0);
    }
    switch (m->kind) {
    case RAFT_PRE_VOTE:
    case RAFT_VOTE:
        vote_on_request(r, m);
        break;
    case RAFT_PRE_VOTE_REPLY:
    case RAFT_VOTE_REPLY:
        vote_on_reply(r, m);
        break;
    case RAFT_APPEND:
        follow_on_append(r, m);
        break;
    case RAFT_APPEND_REPLY:
        replicate_on_append_reply(r, m);
        break;
    case RAFT_HEARTBEAT:
        follow_on_heartbeat(r, m);
        break;
    case RAFT_HEARTBEAT_REPLY:
        replicate_on_heartbeat_reply(r, m);
        break;
    case RAFT_SNAPSHOT:
        follow_on_snapshot(r, m);
        break;
    case RAFT_READ_REQUEST:
        read_on_request(r, m);
        break;
    case RAFT_READ_REPLY:
        read_on_reply(r, m);
        break;
    case RAFT_TIMEOUT_NOW:
        if (r->role == RAFT_FOLLOWER && r->leader == m->from && !r->reluctant) {
            vote_campaign(r, true);
        }
        break;
    case RAFT_MESSAGE_KIND_COUNT:
        break;
    }
}

static enum grey_error raft_propose(struct raft *r, const struct raft_proposal *proposals, uint32_t count, bool is_clock) {
    if (r->role != RAFT_LEADER || r->transfer_to != 0) {
        return E_NOT_LEADER; /* surely not proposed */
    }
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < count; i++) {
        size_t size = blob_bytes(proposals[i].payload).size;
        if (size > LIMIT_PAYLOAD_BYTES || proposals[i].kind == ENTRY_CONFIG || (proposals[i].kind == ENTRY_CLOCK) != is_clock) {
            return E_BAD_MESSAGE;
        }
        bytes += size;
    }
    raft_index first = entries_last(&r->log) + 1;
    uint64_t open = first - 1 - r->commit;
    uint64_t open_bytes = entries_bytes(&r->log, r->commit);
    uint64_t backlog_bytes, backlog = raft_backlog(r, &backlog_bytes);
    if (count == 0 || first > RAFT_NUMBER_MAX) {
        return E_BAD_MESSAGE;
    }
    if (open + count > r->config.proposed_entries_max || (open_bytes + bytes > r->config.proposed_bytes_max && open > 0) ||
        backlog + count > (uint64_t)r->config.window_entries + r->config.proposed_entries_max) {
        return E_LOG_FULL;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (replicate_append(r, proposals[i].kind, proposals[i].schema, proposals[i].payload) != E_OK) {
            entries_truncate(&r->log, first);
            r->store_used = false;
            r->store_first = 0;
            return E_NO_MEMORY;
        }
    }
    r->proposed_index = first;
    return E_OK;
}

static enum grey_error raft_set_clock(struct raft *r, const struct raft_input *in) {
    int64_t time_ms = r->anchor_time_ms;
    uint64_t at_ms = r->anchor_ms;
    if (in->proposal_count != 1 || in->clock_ms < 0 || in->clock_ms > RAFT_TIME_MS_MAX) {
        return E_BAD_MESSAGE;
    }
    replicate_clock(r, in->clock_ms);
    enum grey_error err = raft_propose(r, in->proposals, 1, true);
    if (err != E_OK) {
        r->anchor_time_ms = time_ms;
        r->anchor_ms = at_ms;
    }
    return err;
}

static void raft_on_stored(struct raft *r, uint64_t store_id) {
    must(store_id < r->store_next);
    if (store_id <= r->stored_id) {
        return;
    }
    r->stored_id = store_id;
    entries_stored(&r->log, store_id);
    vote_stored(r);
    if (r->role == RAFT_LEADER) {
        replicate_commit(r);
    }
    entries_evict(&r->log, raft_kept_from(r), r->config.window_entries, r->config.window_bytes);
}

static void raft_on_applied(struct raft *r, raft_index index) {
    must(index <= r->commit);
    if (index > r->applied) {
        r->applied = index;
        entries_evict(&r->log, raft_kept_from(r), r->config.window_entries, r->config.window_bytes);
    }
}

static void raft_on_compacted(struct raft *r, const struct raft_point *point) {
    struct raft_point here;
    must(point->index <= r->applied);
    if (point->index > r->base.index) {
        must(!entries_point(&r->log, point->index, &here) || memcmp(here.hash, point->hash, DIGEST_BYTES) == 0);
        r->base = *point;
    }
}

static void raft_on_tick(struct raft *r) {
    if (r->role == RAFT_LEADER) {
        replicate_tick(r);
    } else if (r->now_ms >= r->election_deadline_ms) {
        vote_campaign(r, false);
    }
    read_tick(r);
}

static enum grey_error raft_take(struct raft *r, const struct raft_input *in) {
    switch (in->kind) {
    case RAFT_IN_TICK:
        raft_on_tick(r);
        return E_OK;
    case RAFT_IN_MESSAGE:
        raft_on_message(r, in->message);
        return E_OK;
    case RAFT_IN_PROPOSE:
        return raft_propose(r, in->proposals, in->proposal_count, false);
    case RAFT_IN_CLOCK:
        return raft_set_clock(r, in);
    case RAFT_IN_MEMBERS:
        return change_propose(r, in->members);
    case RAFT_IN_STORED:
        raft_on_stored(r, in->store_id);
        return E_OK;
    case RAFT_IN_APPLIED:
        raft_on_applied(r, in->index);
        return E_OK;
    case RAFT_IN_READ:
        return read_ask(r, in->context);
    case RAFT_IN_LOADED:
        replicate_on_loaded(r, in);
        return E_OK;
    case RAFT_IN_COMPACTED:
        raft_on_compacted(r, in->point);
        return E_OK;
    case RAFT_IN_SNAPSHOT_DONE:
        return follow_installed(r, in->point, in->members, in->index);
    case RAFT_IN_SNAPSHOT_FAILED:
        r->installing = false;
        return E_OK;
    case RAFT_IN_LINK_DOWN:
        replicate_link_down(r, in->peer);
        return E_OK;
    case RAFT_IN_HURRY:
        replicate_hurry(r, in->peer);
        return E_OK;
    case RAFT_IN_TRANSFER:
        return replicate_transfer(r, in->peer);
    case RAFT_IN_CLOCK_UNSURE:
        read_clock_misbehaved(r);
        return E_OK;
    }
    return E_BAD_MESSAGE;
}

static void raft_hand_out(struct raft *r, struct raft_output *out) {
    *out = (struct raft_output){.truncate_from = r->truncate_from,
                                .term = r->term,
                                .vote = r->vote,
                                .store_vote = r->store_vote,
                                .store_first = r->store_first > 0 ? r->store_first : 1,
                                .store_last = r->store_first > 0 ? entries_last(&r->log) : 0,
                                .rebase = r->rebase ? &r->base : NULL,
                                .rebase_members = r->rebase ? &r->members : NULL,
                                .rebase_members_index = r->rebase ? r->members_index : 0,
                                .sends = r->sends,
                                .send_count = r->send_count,
                                .commit_index = r->commit,
                                .proposed_index = r->proposed_index,
                                .reads = r->reads_out,
                                .read_count = r->reads_out_count,
                                .loads = r->loads_out,
                                .load_count = r->load_count,
                                .install = r->install_out,
                                .install_from = r->install_from,
                                .install_point = r->install_point,
                                .notes = r->notes,
                                .note_count = r->note_count};
    if (r->store_used) {
        out->store_id = r->store_next++;
    }
    must(r->log.base.index <= r->applied && r->applied <= r->commit && r->commit <= entries_last(&r->log));
}

enum grey_error raft_step(struct raft *r, const struct raft_input *in, struct raft_output *out) {
    r->now_ms = in->now_ms > r->now_ms ? in->now_ms : r->now_ms;
    r->wall_ms = in->wall_ms;
    r->store_used = r->store_vote = r->install_out = r->rebase = false;
    r->truncate_from = r->store_first = r->proposed_index = 0;
    r->send_count = r->reads_out_count = r->load_count = r->note_count = 0;
    enum grey_error err = raft_take(r, in);
    if (r->role == RAFT_LEADER) {
        replicate_flush(r);
    }
    read_flush(r);
    raft_hand_out(r, out);
    return err;
}

/* --- Questions ------------------------------------------------------------------------------------------------------------------- */

void raft_set_reluctant(struct raft *r, bool reluctant) {
    if (reluctant != r->reluctant) {
        r->reluctant = reluctant;
        vote_draw_deadline(r); /* it waits longer from now on, or no longer than others */
    }
}

uint64_t raft_deadline_ms(const struct raft *r) {
    uint64_t deadline = r->role == RAFT_LEADER ? replicate_deadline_ms(r) : r->election_deadline_ms;
    if (r->role == RAFT_LEADER && r->transfer_to != 0 && r->transfer_deadline_ms < deadline) {
        deadline = r->transfer_deadline_ms;
    }
    if (r->read_count > 0) {
        uint64_t patience_ms = r->reads[0].since_ms + 2 * (uint64_t)r->config.election_timeout_ms_max;
        deadline = patience_ms < deadline ? patience_ms : deadline;
    }
    if (r->role == RAFT_FOLLOWER && r->leader != 0 && r->reads_running > 0 && r->read_retry_ms < deadline) {
        deadline = r->read_retry_ms;
    }
    return deadline;
}

const struct entry *raft_entry(const struct raft *r, raft_index index) {
    return entries_at(&r->log, index);
}

void raft_status(const struct raft *r, struct raft_status *s) {
    struct raft_point last;
    must(entries_point(&r->log, entries_last(&r->log), &last));
    *s = (struct raft_status){.role = r->role,
                              .term = r->term,
                              .self = r->config.self,
                              .vote = r->vote,
                              .leader = r->leader,
                              .base_index = r->base.index,
                              .last_index = last.index,
                              .stored_index = r->log.stored_index,
                              .commit_index = r->commit,
                              .applied_index = r->applied,
                              .last_time_ms = last.time_ms,
                              .quorum_contact_ms = r->role == RAFT_LEADER ? replicate_quorum_ms(r) : r->leader_heard_ms,
                              .lease_until_ms = read_lease_until_ms(r),
                              .members_index = r->members_index,
                              .members = &r->members,
                              .members_committed = r->members_index <= r->commit};
    memcpy(s->last_hash, last.hash, DIGEST_BYTES);
    for (uint32_t i = 0; r->role == RAFT_LEADER && i < r->members.count; i++) {
        const struct peer *p = &r->peers[i];
        if (p->id != r->config.self) {
            s->peers[s->peer_count++] =
                (struct raft_peer_status){.id = p->id,
                                          .match_index = p->match,
                                          .next_index = p->next,
                                          .active = r->now_ms - p->heard_ms < r->config.election_timeout_ms_max,
                                          .mode = (uint8_t)p->mode};
        }
    }
}
