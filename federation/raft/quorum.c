/* A set of n voters decides with n / 2 + 1 of them; the value that so many have reached is the (n / 2 + 1)-th greatest.  At most
 * LIMIT_MEMBERS numbers: insertion sort. */
#include "federation/raft/quorum.h"

static bool quorum_in_set(const struct raft_member *member, bool old) {
    return old ? member->voter_old : member->voter;
}

/* False when the set is empty. */
static bool quorum_value_of(const struct raft_members *m, bool old, const uint64_t value[LIMIT_MEMBERS], uint64_t *reached) {
    uint64_t sorted[LIMIT_MEMBERS]; /* descending */
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->count; i++) {
        if (!quorum_in_set(&m->at[i], old)) {
            continue;
        }
        uint32_t at = n++;
        while (at > 0 && sorted[at - 1] < value[i]) {
            sorted[at] = sorted[at - 1];
            at--;
        }
        sorted[at] = value[i];
    }
    if (n == 0) {
        return false;
    }
    *reached = sorted[n / 2];
    return true;
}

uint64_t quorum_value(const struct raft_members *m, const uint64_t value[LIMIT_MEMBERS]) {
    uint64_t incoming = 0, outgoing = 0;
    if (!quorum_value_of(m, false, value, &incoming)) {
        return 0;
    }
    return quorum_value_of(m, true, value, &outgoing) && outgoing < incoming ? outgoing : incoming;
}

static enum quorum_result quorum_tally_of(const struct raft_members *m, bool old, const enum quorum_vote vote[LIMIT_MEMBERS]) {
    uint32_t n = 0, yes = 0, no = 0;
    for (uint32_t i = 0; i < m->count; i++) {
        if (quorum_in_set(&m->at[i], old)) {
            n++;
            yes += vote[i] == QUORUM_YES;
            no += vote[i] == QUORUM_NO;
        }
    }
    if (n == 0) {
        return old ? QUORUM_WON : QUORUM_LOST; /* no outgoing set: nothing to ask.  No voters: nobody can win */
    }
    uint32_t majority = n / 2 + 1;
    return yes >= majority ? QUORUM_WON : n - no < majority ? QUORUM_LOST : QUORUM_PENDING;
}

enum quorum_result quorum_tally(const struct raft_members *m, const enum quorum_vote vote[LIMIT_MEMBERS]) {
    enum quorum_result incoming = quorum_tally_of(m, false, vote), outgoing = quorum_tally_of(m, true, vote);
    if (incoming == QUORUM_LOST || outgoing == QUORUM_LOST) {
        return QUORUM_LOST;
    }
    return incoming == QUORUM_WON && outgoing == QUORUM_WON ? QUORUM_WON : QUORUM_PENDING;
}
