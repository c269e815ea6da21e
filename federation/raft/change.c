/* Membership (Raft thesis 4).
 *
 * A configuration counts from the moment it stands in the log, and gives way with its entry.  At most one is uncommitted at a time,
 * and none is proposed before an entry of the own term is committed (the hole of the single-server change, FAULTS 2b, 6).  So going
 * back is simple: `settled` is the latest committed one, and what lies above the commit index is in memory.
 *
 * A change of more than one voter goes through a joint configuration; when that is committed the leader proposes what follows.  A
 * leader that is no longer a voter leads until the configuration without it is committed, does not count itself, and then makes room. */
#include "federation/raft/core.h"

#include <string.h>

void change_peers(struct raft *r) {
    struct peer old[LIMIT_MEMBERS];
    bool taken[LIMIT_MEMBERS] = {false};
    raft_index *rings[LIMIT_MEMBERS];
    uint32_t free_rings = 0;
    memcpy(old, r->peers, sizeof old);
    for (uint32_t i = 0; i < LIMIT_MEMBERS; i++) {
        taken[i] = old[i].id != 0 && raft_members_find(&r->members, old[i].id) != NULL;
        if (!taken[i]) {
            rings[free_rings++] = old[i].inflight;
        }
    }
    for (uint32_t i = 0; i < LIMIT_MEMBERS; i++) {
        raft_id id = i < r->members.count ? r->members.at[i].id : 0;
        const struct peer *before = NULL;
        for (uint32_t j = 0; j < LIMIT_MEMBERS && id != 0; j++) {
            before = old[j].id == id ? &old[j] : before;
        }
        if (before != NULL) {
            r->peers[i] = *before;
        } else {
            must(free_rings > 0);
            r->peers[i] = (struct peer){.id = id,
                                        .inflight = rings[--free_rings],
                                        .next = entries_last(&r->log) + 1,
                                        .heard_ms = r->now_ms,
                                        .progress_ms = r->now_ms};
        }
    }
}

static void change_set(struct raft *r, const struct raft_members *members, raft_index index) {
    if (&r->members != members) {
        r->members = *members;
    }
    r->members_index = index;
    change_peers(r);
    raft_note(r, RAFT_NOTE_MEMBERS, index, 0);
}

void change_take(struct raft *r, const struct entry *e) {
    enum grey_error err = raft_members_decode(blob_bytes(e->payload), &r->members);
    must(err == E_OK); /* checked before it was appended */
    change_set(r, &r->members, e->index);
}

/* The latest configuration in (above, until]; NULL when there is none.  `above` is not below what is applied, so all is in memory. */
static const struct entry *change_latest(const struct raft *r, raft_index above, raft_index until) {
    for (raft_index i = until; i > above; i--) {
        const struct entry *e = entries_at(&r->log, i);
        must(e != NULL);
        if (e->kind == ENTRY_CONFIG) {
            return e;
        }
    }
    return NULL;
}

void change_truncated(struct raft *r, raft_index from) {
    if (r->members_index < from) {
        return;
    }
    const struct entry *e = change_latest(r, r->commit, from - 1);
    if (e != NULL) {
        change_take(r, e);
    } else {
        change_set(r, &r->settled, r->settled_index);
    }
}

bool change_before(const struct raft *r, struct raft_members *before) {
    if (r->members_index <= r->commit) {
        return false;
    }
    const struct entry *e = change_latest(r, r->commit, r->members_index - 1);
    *before = r->settled;
    must(e == NULL || raft_members_decode(blob_bytes(e->payload), before) == E_OK);
    return true;
}

void change_committed(struct raft *r, raft_index before) {
    if (r->members_index <= r->settled_index) {
        return;
    }
    if (r->members_index <= r->commit) {
        r->settled = r->members;
        r->settled_index = r->members_index;
        return;
    }
    const struct entry *e = change_latest(r, before, r->commit);
    if (e != NULL) {
        enum grey_error err = raft_members_decode(blob_bytes(e->payload), &r->settled);
        must(err == E_OK);
        r->settled_index = e->index;
    }
}

void change_install(struct raft *r, const struct raft_members *members, raft_index index) {
    r->settled = *members;
    r->settled_index = index;
    change_set(r, members, index);
}

static enum grey_error change_append(struct raft *r, const struct raft_members *members) {
    struct builder b;
    builder_init(&b, LIMIT_PAYLOAD_BYTES);
    raft_members_encode(members, &b);
    struct blob *payload = builder_blob(&b);
    builder_free(&b);
    enum grey_error err = payload == NULL ? E_NO_MEMORY : replicate_append(r, ENTRY_CONFIG, ENTRY_SCHEMA, payload);
    blob_unref(payload);
    return err;
}

/* A group that begins says in its first entry who belongs to it, so that the log tells a new member everything. */
enum grey_error change_begin(struct raft *r) {
    return r->members_index == 0 ? change_append(r, &r->members) : replicate_append(r, ENTRY_NOOP, ENTRY_SCHEMA, NULL);
}

static bool change_same(const struct raft_members *a, const struct raft_members *b) {
    bool same = a->count == b->count;
    for (uint32_t i = 0; same && i < a->count; i++) {
        const struct raft_member *x = &a->at[i], *y = &b->at[i];
        same = x->id == y->id && x->voter == y->voter && x->voter_old == y->voter_old && x->witness == y->witness &&
               x->leaving == y->leaving && strcmp(x->node.text, y->node.text) == 0 &&
               strcmp(x->peer_address, y->peer_address) == 0 && strcmp(x->http_address, y->http_address) == 0;
    }
    return same;
}

enum grey_error change_propose(struct raft *r, const struct raft_members *want) {
    struct raft_members next;
    if (r->role != RAFT_LEADER) {
        return E_NOT_LEADER;
    }
    enum grey_error err = raft_members_plan(&r->members, want, &next);
    if (err != E_OK) {
        return err;
    }
    if (raft_members_joint(&r->members) || r->members_index > r->commit || r->commit < r->term_start || r->transfer_to != 0) {
        return E_MEMBER_CHANGE_PENDING;
    }
    if (change_same(&next, &r->members)) {
        r->proposed_index = r->members_index;
        return E_OK;
    }
    err = change_append(r, &next);
    if (err == E_OK) {
        r->proposed_index = r->members_index;
        replicate_commit(r); /* with fewer voters more may be committed */
    }
    return err;
}

void change_go_on(struct raft *r) {
    if (r->role != RAFT_LEADER || r->members_index > r->commit || r->commit < r->term_start) {
        return;
    }
    if (raft_members_joint(&r->members)) {
        struct raft_members next = r->members;
        raft_members_leave_joint(&next);
        (void)change_append(r, &next); /* without memory it is tried again at the next tick */
        return;
    }
    const struct raft_member *self = raft_members_find(&r->members, r->config.self);
    if (self == NULL || !self->voter) {
        /* Thesis 4.2.2.  The others learn what is committed, and the best of them need not wait for its time-out. */
        replicate_flush(r);
        replicate_heartbeat(r);
        if (replicate_transfer(r, 0) == E_OK) {
            replicate_flush(r);
        }
        vote_follow(r, r->term, 0);
    }
}
