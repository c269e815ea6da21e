/* throttle.h: how often a caller may call: a token bucket for each, in a table that does not grow.  Pure; time comes from the caller.
 *
 * A caller is a text (an address, a token's id), of which a hash is kept.  The table has places for THROTTLE_PLACES; a newcomer whose places
 * are all taken drives out the one of them that is nearest to a full bucket, which loses least: it is the one that would be forgotten soonest.
 * So who floods from many addresses can make others forgotten, but not blocked. */
#ifndef FEDERATION_THROTTLE_H
#define FEDERATION_THROTTLE_H

#include "platform/bytes.h"

#define THROTTLE_WAYS 8u
#define THROTTLE_SETS 64u
#define THROTTLE_PLACES (THROTTLE_WAYS * THROTTLE_SETS)

struct throttle_place {
    uint64_t caller; /* 0: empty */
    uint64_t seen_ms;
    uint64_t used_milli; /* thousandths of calls that are not forgotten yet */
};

struct throttle {
    uint64_t seed;
    uint32_t per_minute, burst; /* per_minute 0: no limit */
    struct throttle_place places[THROTTLE_SETS][THROTTLE_WAYS];
};

/* seed: random, so that nobody can choose whom to meet in the table.  burst: calls at once, 1 or more. */
void throttle_init(struct throttle *t, uint64_t seed, uint32_t per_minute, uint32_t burst);
/* Milliseconds until the caller may call again; 0: now.  Takes nothing. */
uint64_t throttle_wait_ms(const struct throttle *t, struct bytes caller, uint64_t now_ms);
/* The same, and counts one call when it may be made. */
uint64_t throttle_take(struct throttle *t, struct bytes caller, uint64_t now_ms);

#endif
