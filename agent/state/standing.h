/* standing.h: how far each gateway of the site may be trusted, by what the verifier said of it; and who is in quarantine.  Pure.
 *
 * Each gateway judges for itself, with the verifier's key that it trusts: a result counts when that key signed it, for this member of this
 * site (raft id and signing key are those of the membership), and as long as it is valid.  A result lifts a refusal only when it came after it in
 * the log and the verifier made it at a later time: a leader cannot lift one with a result that it has kept.
 *
 * Quarantine (DECISIONS 29): who was refused, or whose result is over, does not lead and gets no new work.  The rest must be able to go on, so that a
 * wrong policy cannot stop a site: at most a minority of the members is in quarantine, those who were refused first. */
#ifndef AGENT_STANDING_H
#define AGENT_STANDING_H

#include "agent/state/verdicts.h"
#include "federation/raft/member.h"

enum standing {
    STANDING_NONE,    /* nothing was ever said of it */
    STANDING_PENDING, /* what was said is of its former self, or not signed by whom this gateway trusts */
    STANDING_TRUSTED,
    STANDING_FAILED,  /* the verifier refused what it showed */
    STANDING_EXPIRED, /* it was trusted, and that is over */
};
const char *standing_name(enum standing s); /* "none", "pending", "trusted", "failed", "expired" */

struct standing_of {
    raft_id id;
    enum standing standing;
    bool quarantined;
    raft_index since;        /* of a refusal: its entry */
    int64_t refused_ms;      /*   its log time; 0 unless STANDING_FAILED */
    enum attest_type type;   /* of the last result that holds */
    uint8_t status;          /*   enum appraise_tier */
    int64_t from_s, until_s; /*   Unix seconds; 0: there is none */
    uint64_t policy_serial;
    enum grey_error why; /* of a refusal, or of a result that does not hold; E_OK */
    char detail[EXCHANGE_DETAIL_BYTES + 1];
};

struct standings {
    uint32_t count; /* one for each member, in their order */
    struct standing_of at[LIMIT_MEMBERS];
    int64_t change_s; /* the first Unix second at which this is not so any more if nothing is said; INT64_MAX: none */
};

/* key: of the verifier; NULL: none is trusted here, so that no result holds and nobody is in quarantine. */
void standing_judge(struct table *t, const char *site, const struct raft_members *members,
                    const uint8_t key[KEYS_ED25519_PUBLIC_BYTES], int64_t now_s, struct standings *out);
const struct standing_of *standing_find(const struct standings *s, raft_id id); /* NULL: no member */

#endif
