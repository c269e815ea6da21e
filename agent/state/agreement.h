/* agreement.h: do all gateways hold the same state?  Every AGREEMENT_EVERY entries each tells its hash of it; who differs from the
 * majority is odd.  Pure. */
#ifndef AGENT_AGREEMENT_H
#define AGENT_AGREEMENT_H

#include "include/grey/entry.h"
#include "include/grey/limits.h"

#define AGREEMENT_EVERY 1000u
#define AGREEMENT_POINTS 8u /* of the latest indexes */

struct agreement {
    struct agreement_point {
        raft_index index; /* 0: free */
        uint32_t count;
        struct {
            raft_id id;
            uint8_t hash[DIGEST_BYTES];
        } said[LIMIT_MEMBERS];
    } points[AGREEMENT_POINTS];
};

/* A member says what it has at index.  The first word of each counts; an index older than all that are kept is passed over. */
void agreement_note(struct agreement *a, raft_index index, raft_id id, const uint8_t hash[DIGEST_BYTES]);

enum agreement_verdict {
    AGREEMENT_OPEN,  /* nothing is wrong as far as was heard */
    AGREEMENT_ODD,   /* a majority of `holders` has one hash, and these members another */
    AGREEMENT_SPLIT, /* they differ, and no majority can come any more */
};
/* holders: how many members hold the state; odd: LIMIT_MEMBERS ids. */
enum agreement_verdict agreement_judge(const struct agreement *a, raft_index index, uint32_t holders, raft_id *odd,
                                       uint32_t *odd_count);

#endif
