/* A follower's side of replication (Raft thesis 3.5).
 *
 * An append says where it begins (index, term and chain hash of the entry before) and what the chain hash is after its last entry.
 * Everything is checked before anything changes: what stands in the log already is compared, never cut off because a late or repeated
 * append ends earlier; only an entry of another term makes the rest give way, and never one that is committed.
 *
 * `verified` is the prefix that this term's leader has shown to equal its own log.  The commit index never goes above it, whatever a
 * message says.  After a restart it is the commit index; a heartbeat with a higher one is then answered "refused", which makes the
 * leader send an append. */
#include "federation/raft/core.h"

#include <string.h>

/* What one append means for this log. */
struct follow_plan {
    raft_index fresh;    /* first entry to append; above the message's last: none */
    bool truncate;       /* forget from `fresh` on before */
    raft_index diverged; /* > 0: same index and term here, another hash */
};

static bool follow_hear(struct raft *r, const struct raft_message *m) {
    if (r->role == RAFT_LEADER || (r->leader != 0 && r->leader != m->from)) {
        raft_refuse(r, m); /* two leaders in one term: cannot be */
        return false;
    }
    if (r->role != RAFT_FOLLOWER || r->leader == 0) {
        vote_follow(r, r->term, m->from);
    }
    r->leader_heard = true;
    r->leader_heard_ms = r->now_ms;
    vote_draw_deadline(r);
    return true;
}

void follow_answer_stale(struct raft *r, const struct raft_message *m) {
    struct raft_message *reply = raft_emit(r, RAFT_APPEND_REPLY, m->from, 0);
    reply->refused =
        true; /* of no index: our term in it makes the former leader step down, so that a leader of our term can be found */
}

static void follow_acknowledge(struct raft *r, raft_index match) {
    match = match < r->commit ? r->commit : match;
    uint64_t store_id = entries_store_id(&r->log, match);
    raft_emit(r, RAFT_APPEND_REPLY, r->leader, store_id > 0 ? store_id : r->base_store_id)->index = match;
}

static void follow_learn_commit(struct raft *r, raft_index commit) {
    commit = commit < r->verified ? commit : r->verified;
    if (commit > r->commit && !r->installing) {
        raft_commit_to(r, commit);
    }
}

/* All that can be said about the message alone. */
static bool follow_well_formed(const struct raft *r, const struct raft_message *m) {
    if (m->log_term > m->term || (m->index == 0) != (m->log_term == 0) || m->entry_count > RAFT_NUMBER_MAX - m->index ||
        (m->entry_count > 0 && m->entries == NULL)) {
        return false;
    }
    raft_term term = m->log_term;
    int64_t time_ms = 0;
    for (uint32_t i = 0; i < m->entry_count; i++) {
        const struct entry *e = &m->entries[i];
        if (e->index != m->index + 1 + i || e->term < term || e->term == 0 || e->term > m->term ||
            !entry_time_follows(e, time_ms) || blob_bytes(e->payload).size > LIMIT_PAYLOAD_BYTES) {
            return false;
        }
        if (e->stripped_bytes > 0 &&
            (!r->config.witness || e->kind == ENTRY_CONFIG || e->payload != NULL || e->stripped_bytes > LIMIT_PAYLOAD_BYTES)) {
            return false;
        }
        struct raft_members members;
        if (e->kind == ENTRY_CONFIG && raft_members_decode(blob_bytes(e->payload), &members) != E_OK) {
            return false;
        }
        term = e->term;
        time_ms = e->time_ms;
    }
    return true;
}

/* Compares with what is here.  False: the chain does not end in last_hash. */
static bool follow_compare(const struct raft *r, const struct raft_message *m, struct follow_plan *plan) {
    raft_index last = entries_last(&r->log);
    uint8_t hash[DIGEST_BYTES];
    memcpy(hash, m->hash, DIGEST_BYTES);
    *plan = (struct follow_plan){.fresh = last + 1};
    for (uint32_t i = 0; i < m->entry_count; i++) {
        struct entry e = m->entries[i];
        struct raft_point here;
        entry_seal(&e, hash);
        memcpy(hash, e.hash, DIGEST_BYTES);
        if (plan->truncate || plan->diverged != 0 || !entries_point(&r->log, e.index, &here)) {
            continue;
        }
        if (here.term != e.term) {
            plan->truncate = true;
            plan->fresh = e.index;
        } else if (memcmp(here.hash, e.hash, DIGEST_BYTES) != 0) {
            plan->diverged = e.index;
        }
    }
    return m->entry_count == 0 || memcmp(hash, m->last_hash, DIGEST_BYTES) == 0;
}

static void follow_truncate(struct raft *r, raft_index from) {
    must(from > r->commit && r->store_first == 0);
    raft_note(r, RAFT_NOTE_TRUNCATED, from, entries_last(&r->log));
    entries_truncate(&r->log, from);
    (void)raft_store_unit(r);
    r->truncate_from = from;
    r->verified = r->verified < from ? r->verified : from - 1;
    change_truncated(r, from);
}

/* Appends m's entries from `fresh` on, at most count.  False: the chain does not end in last_hash, or no memory; nothing changed. */
static bool follow_extend(struct raft *r, const struct raft_message *m, raft_index fresh, uint32_t count, bool checked) {
    struct raft_point prev;
    must(fresh == entries_last(&r->log) + 1 && entries_point(&r->log, fresh - 1, &prev));
    const struct entry *from = &m->entries[fresh - m->index - 1];
    raft_index last_config = 0;
    uint32_t n = 0;
    while (n < count) {
        struct entry e = from[n];
        entry_seal(&e, prev.hash);
        if (r->config.witness) {
            entry_strip(&e);
        }
        if (entries_append(&r->log, &e, r->store_next) != E_OK) {
            break;
        }
        memcpy(prev.hash, e.hash, DIGEST_BYTES);
        last_config = e.kind == ENTRY_CONFIG ? e.index : last_config;
        n++;
    }
    if (n < count || (!checked && memcmp(prev.hash, m->last_hash, DIGEST_BYTES) != 0)) {
        entries_truncate(&r->log, fresh);
        return false;
    }
    (void)raft_store_unit(r);
    r->store_first = fresh;
    if (last_config != 0) {
        change_take(r, entries_at(&r->log, last_config));
    }
    return true;
}

static void follow_refuse(struct raft *r, const struct raft_message *m, raft_index hint) {
    while (hint > r->commit && entries_term(&r->log, hint) > m->log_term) {
        hint--; /* no entry of a later term can be in the leader's log before m->index */
    }
    struct raft_message *reply = raft_emit(r, RAFT_APPEND_REPLY, m->from, 0);
    reply->refused = true;
    reply->index = m->index;
    reply->hint_index = hint;
    reply->log_term = entries_term(&r->log, hint);
}

void follow_on_append(struct raft *r, const struct raft_message *m) {
    if (!follow_well_formed(r, m)) {
        raft_refuse(r, m);
        return;
    }
    if (!follow_hear(r, m) || r->installing) {
        return;
    }
    raft_index last = entries_last(&r->log), end = m->index + m->entry_count;
    if (m->index > last) {
        follow_refuse(r, m, last);
        return;
    }
    struct raft_point prev;
    if (entries_point(&r->log, m->index, &prev)) {
        if (prev.term != m->log_term && m->index > r->commit) {
            follow_refuse(r, m, m->index - 1);
            return;
        }
        if (prev.term != m->log_term || memcmp(prev.hash, m->hash, DIGEST_BYTES) != 0) {
            raft_note(r, RAFT_NOTE_DIVERGED, m->index, m->from);
            return;
        }
        if (m->entry_count > 0 && !entry_time_follows(&m->entries[0], prev.time_ms)) {
            raft_refuse(r, m);
            return;
        }
    }
    /* An append that just goes on where the log ends is hashed once, while it is appended; any other is first compared. */
    struct follow_plan plan = {.fresh = last + 1};
    uint32_t room = raft_room(r, m->entries, m->entry_count);
    bool checked = m->index < last || room < m->entry_count;
    if (checked) {
        if (!follow_compare(r, m, &plan)) {
            raft_refuse(r, m);
            return;
        }
        if (plan.diverged != 0 || (plan.truncate && plan.fresh <= r->commit)) {
            raft_note(r, RAFT_NOTE_DIVERGED, plan.diverged != 0 ? plan.diverged : plan.fresh, m->from);
            return;
        }
        if (plan.truncate) {
            follow_truncate(r, plan.fresh);
        }
    }
    raft_index match = end;
    if (plan.fresh <= end) {
        uint32_t want = (uint32_t)(end - plan.fresh + 1);
        const struct entry *entries = &m->entries[plan.fresh - m->index - 1];
        uint32_t count = raft_room(r, entries, want);
        if (count == 0) {
            return; /* no memory until more is stored and applied: silence slows the leader down to one append per heartbeat */
        }
        if (!follow_extend(r, m, plan.fresh, count, checked)) {
            raft_refuse(r, m);
            return;
        }
        match = plan.fresh - 1 + count;
    }
    r->verified = match > r->verified ? match : r->verified;
    follow_learn_commit(r, m->commit_index);
    follow_acknowledge(r, match);
}

void follow_on_heartbeat(struct raft *r, const struct raft_message *m) {
    if (!follow_hear(r, m)) {
        return;
    }
    struct raft_message *reply = raft_emit(r, RAFT_HEARTBEAT_REPLY, m->from, 0);
    reply->round = m->round;
    reply->refused = m->commit_index > r->verified && !r->installing;
    follow_learn_commit(r, m->commit_index);
}

/* A witness needs no state: the point and the membership there are all that a snapshot means to it. */
static void follow_rebase(struct raft *r, const struct raft_message *m) {
    if (entries_last(&r->log) > m->point.index) {
        raft_note(r, RAFT_NOTE_TRUNCATED, m->point.index + 1, entries_last(&r->log));
    }
    r->base = m->point;
    entries_reset(&r->log, &m->point);
    r->commit = r->applied = r->verified = m->point.index;
    r->base_store_id = raft_store_unit(r);
    r->rebase = true;
    change_install(r, m->members, m->members_index);
    follow_acknowledge(r, m->point.index);
}

void follow_on_snapshot(struct raft *r, const struct raft_message *m) {
    const struct raft_point *point = &m->point;
    if (point->index == 0 || point->index > RAFT_NUMBER_MAX || point->term == 0 || point->term > m->term || point->time_ms < 0 ||
        point->time_ms > RAFT_TIME_MS_MAX || (m->members != NULL) != r->config.witness ||
        (m->members != NULL && (m->members_index > point->index || raft_members_check(m->members) != E_OK))) {
        raft_refuse(r, m);
        return;
    }
    if (!follow_hear(r, m)) {
        return;
    }
    struct raft_point here;
    if (entries_point(&r->log, point->index, &here) && here.term == point->term) {
        if (memcmp(here.hash, point->hash, DIGEST_BYTES) != 0) {
            raft_note(r, RAFT_NOTE_DIVERGED, point->index, m->from);
            return;
        }
        r->verified = point->index > r->verified ? point->index : r->verified; /* a snapshot's point is committed */
        follow_learn_commit(r, point->index);
    }
    if (point->index <= r->commit) {
        follow_acknowledge(r, r->commit); /* nothing to fetch: committed entries are in every leader's log */
        return;
    }
    if (r->config.witness) {
        follow_rebase(r, m);
    } else if (!r->installing) {
        r->installing = r->install_out = true;
        r->install_point = *point;
        r->install_from = m->from;
    }
}

enum grey_error follow_installed(struct raft *r, const struct raft_point *point, const struct raft_members *members,
                                 raft_index members_index) {
    if (!r->installing || point->index < r->install_point.index || point->index <= r->commit || point->term > r->term ||
        members_index > point->index || raft_members_check(members) != E_OK ||
        (point->index == r->install_point.index && memcmp(point->hash, r->install_point.hash, DIGEST_BYTES) != 0)) {
        return E_BAD_MESSAGE;
    }
    r->installing = false;
    r->base = *point;
    struct raft_point here;
    if (entries_point(&r->log, point->index, &here) && memcmp(here.hash, point->hash, DIGEST_BYTES) == 0) {
        raft_commit_to(r, point->index); /* a later snapshot than the one offered, and the log goes up to it */
        r->applied = point->index;
    } else {
        if (entries_last(&r->log) > point->index) {
            raft_note(r, RAFT_NOTE_TRUNCATED, point->index + 1, entries_last(&r->log));
            (void)raft_store_unit(r);
            r->truncate_from = point->index + 1;
        }
        entries_reset(&r->log, point);
        r->commit = r->applied = r->verified = point->index;
        change_install(r, members, members_index);
    }
    if (r->leader != 0 && r->role == RAFT_FOLLOWER) {
        follow_acknowledge(r, point->index);
    }
    return E_OK;
}
