/* Roles and elections (Raft thesis 3.4, 3.6.1, 9.6).
 *
 * A member whose election time-out passes first asks whether it could win (pre-vote: no term is raised, nothing is stored), and only
 * then raises its term, votes for itself and asks for votes.  Its request leaves when its own vote is durable, and its own vote
 * counts from then on only.  A member that hears its leader ignores both kinds of request (leader stickiness), so that a member that
 * was removed, or that cannot hear the leader, disturbs nobody; a transfer of leadership overrides that.  This is also the promise
 * that a leader's lease rests on (read.c): it is kept through a later term and, from the start on, after a restart.
 *
 * Votes are granted to whoever asks, member or not by this node's own configuration: the candidate's may be newer (FAULTS 2b, 9).
 * But only the voters of a candidate's own configuration count for it. */
#include "federation/raft/core.h"

static bool vote_is_voter(const struct raft *r, const struct raft_members *m) {
    const struct raft_member *self = raft_members_find(m, r->config.self);
    return self != NULL && (self->voter || self->voter_old);
}

/* A voter of the latest configuration may, and one of the configuration before as long as the latest is not known to be committed: it
 * may be the only one whose log can win, and then has to lead until the configuration without it is committed (thesis 4.2.2). */
static bool vote_may_campaign(const struct raft *r) {
    struct raft_members before;
    const struct raft_member *self = raft_members_find(&r->members, r->config.self);
    if (r->config.witness || (self != NULL && self->witness)) {
        return false; /* it has nothing that a leader gives to others */
    }
    return vote_is_voter(r, &r->members) || (change_before(r, &before) && vote_is_voter(r, &before));
}

void vote_draw_deadline(struct raft *r) {
    uint64_t spread = (uint64_t)r->config.election_timeout_ms_max - r->config.election_timeout_ms_min + 1;
    uint64_t reluctance_ms = r->reluctant ? (uint64_t)RAFT_RELUCTANT_TIMEOUTS * r->config.election_timeout_ms_max : 0;
    r->election_deadline_ms = r->now_ms + r->config.election_timeout_ms_min + raft_random(r, spread) + reluctance_ms;
}

static void vote_set_role(struct raft *r, enum raft_role role) {
    if (r->role != role) {
        r->role = role;
        raft_note(r, RAFT_NOTE_ROLE, role, r->term);
    }
}

static void vote_set_leader(struct raft *r, raft_id leader) {
    if (r->leader != leader) {
        r->leader = leader;
        read_restart(r);
        raft_note(r, RAFT_NOTE_LEADER, leader, r->term);
    }
}

static void vote_set_term(struct raft *r, raft_term term, raft_id vote) {
    must(term > r->term || (term == r->term && r->vote == 0));
    r->term = term;
    r->vote = vote;
    r->store_vote = true;
    r->vote_store_id = raft_store_unit(r);
    r->verified = r->commit;
}

void vote_follow(struct raft *r, raft_term term, raft_id leader) {
    must(term >= r->term && leader != r->config.self);
    if (term > r->term) {
        vote_set_term(r, term, 0);
    }
    if (r->role == RAFT_LEADER) {
        replicate_end(r);
        vote_draw_deadline(r);
    }
    vote_set_role(r, RAFT_FOLLOWER);
    vote_set_leader(r, leader);
}

static void vote_clear(struct raft *r) {
    for (uint32_t i = 0; i < r->members.count; i++) {
        r->peers[i].vote = QUORUM_SILENT;
    }
}

static void vote_request(struct raft *r, enum raft_message_kind kind, raft_term term, bool transfer) {
    raft_index last = entries_last(&r->log);
    for (uint32_t i = 0; i < r->members.count; i++) {
        const struct raft_member *member = &r->members.at[i];
        if (member->id != r->config.self && (member->voter || member->voter_old)) {
            struct raft_message *m = raft_emit(r, kind, member->id, 0);
            m->term = term;
            m->index = last;
            m->log_term = entries_term(&r->log, last);
            m->transfer = transfer;
        }
    }
}

static enum quorum_result vote_tally(const struct raft *r) {
    enum quorum_vote votes[LIMIT_MEMBERS];
    for (uint32_t i = 0; i < r->members.count; i++) {
        votes[i] = r->peers[i].vote;
    }
    return quorum_tally(&r->members, votes);
}

static void vote_count(struct raft *r, raft_id from, bool refused) {
    for (uint32_t i = 0; i < r->members.count; i++) {
        if (r->members.at[i].id == from && r->peers[i].vote == QUORUM_SILENT) {
            r->peers[i].vote = refused ? QUORUM_NO : QUORUM_YES;
        }
    }
}

static void vote_campaign_for_term(struct raft *r, bool transfer) {
    vote_set_term(r, r->term + 1, r->config.self);
    vote_set_role(r, RAFT_CANDIDATE);
    vote_set_leader(r, 0);
    r->leader_heard = false;
    vote_clear(r);
    vote_draw_deadline(r);
    vote_request(r, RAFT_VOTE, r->term, transfer); /* leaves when the vote for itself is durable: raft_emit */
}

void vote_campaign(struct raft *r, bool transfer) {
    vote_draw_deadline(r);
    if (r->role == RAFT_LEADER || !vote_may_campaign(r) || r->term >= RAFT_NUMBER_MAX) {
        return;
    }
    if (transfer) {
        vote_campaign_for_term(r, true);
        return;
    }
    vote_set_role(r, RAFT_PRE_CANDIDATE);
    vote_set_leader(r, 0);
    vote_clear(r);
    vote_count(r, r->config.self, false); /* promises nothing, so it need not be durable */
    if (vote_tally(r) == QUORUM_WON) {
        vote_campaign_for_term(r, false);
    } else {
        vote_request(r, RAFT_PRE_VOTE, r->term + 1, false);
    }
}

static void vote_judge(struct raft *r) {
    enum quorum_result result = vote_tally(r);
    if (result == QUORUM_LOST) {
        vote_follow(r, r->term, 0); /* tries again after its time-out */
    } else if (result == QUORUM_WON && r->role == RAFT_PRE_CANDIDATE) {
        vote_campaign_for_term(r, false);
    } else if (result == QUORUM_WON && r->role == RAFT_CANDIDATE && r->stored_id >= r->vote_store_id) {
        vote_set_role(r, RAFT_LEADER);
        vote_set_leader(r, r->config.self);
        replicate_begin(r);
    }
}

void vote_stored(struct raft *r) {
    if (r->role == RAFT_CANDIDATE && r->stored_id >= r->vote_store_id) {
        vote_count(r, r->config.self, false);
        vote_judge(r);
    }
}

bool vote_ignores(const struct raft *r, const struct raft_message *m) {
    if (m->transfer) {
        return false;
    }
    return r->role == RAFT_LEADER || (r->leader_heard && r->now_ms - r->leader_heard_ms < r->config.election_timeout_ms_min);
}

/* Thesis 3.6.1: the later last term wins, then the longer log. */
static bool vote_log_suffices(const struct raft *r, const struct raft_message *m) {
    raft_index last = entries_last(&r->log);
    raft_term last_term = entries_term(&r->log, last);
    return m->log_term > last_term || (m->log_term == last_term && m->index >= last);
}

void vote_on_request(struct raft *r, const struct raft_message *m) {
    if (m->log_term >= m->term || (m->index == 0) != (m->log_term == 0)) { /* a candidate's log is of former terms */
        raft_refuse(r, m);
        return;
    }
    bool grant = vote_log_suffices(r, m);
    if (m->kind == RAFT_PRE_VOTE) {
        grant = grant && m->term > r->term;
        struct raft_message *reply = raft_emit(r, RAFT_PRE_VOTE_REPLY, m->from, 0);
        reply->term = grant ? m->term : r->term;
        reply->refused = !grant;
        return;
    }
    must(m->term == r->term);
    grant = grant && (r->vote == m->from || (r->vote == 0 && r->leader == 0));
    if (grant && r->vote == 0) {
        vote_set_term(r, r->term, m->from);
    }
    if (grant) {
        vote_draw_deadline(r);
    }
    raft_emit(r, RAFT_VOTE_REPLY, m->from, 0)->refused = !grant;
}

/* Two whose time-outs pass at the same moment each have their own vote in a term, and neither wins it.  To wait for a whole time-out
 * again would double the time without a leader; a heartbeat's time is long beside the round trip that made them collide. */
static void vote_hurry(struct raft *r) {
    uint64_t soon_ms = r->now_ms + 1 + raft_random(r, r->config.heartbeat_ms);
    if (soon_ms < r->election_deadline_ms) {
        r->election_deadline_ms = soon_ms;
    }
}

void vote_on_reply(struct raft *r, const struct raft_message *m) {
    bool counts = m->kind == RAFT_PRE_VOTE_REPLY ? r->role == RAFT_PRE_CANDIDATE && (m->refused || m->term == r->term + 1)
                                                 : r->role == RAFT_CANDIDATE && m->term == r->term;
    if (counts) {
        if (r->role == RAFT_CANDIDATE && m->refused) {
            vote_hurry(r);
        }
        vote_count(r, m->from, m->refused);
        vote_judge(r);
    }
}
