/* breaker.h: a circuit breaker for one endpoint.
 *
 *     closed --3 failures in a row--> open (30 to 45 s) --time--> half-open: one try --failure--> open, twice as long (10 to 15 min at most)
 *        ^------------------------------- an answer ---------------------'
 *
 * An answer alone forgives little: after it one more failure opens again, until the endpoint has been steady.  So an endpoint that
 * welcomes and drops everybody does not count as good.  Pure; time and chance are given. */
#ifndef FEDERATION_BREAKER_H
#define FEDERATION_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

#define BREAKER_FAILURES 3u
#define BREAKER_OPEN_MS 30000u
#define BREAKER_OPEN_MS_MAX 600000u

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN };

struct breaker {
    enum breaker_state state;
    uint32_t failures; /* since it was steady, BREAKER_FAILURES at most */
    uint32_t openings; /* likewise */
    uint64_t until_ms; /* OPEN: a try may begin then */
};

/* All zero is a closed breaker. */
void breaker_failed(struct breaker *b, uint64_t now_ms, uint32_t random);
void breaker_answered(struct breaker *b);
void breaker_dropped(struct breaker *b); /* it did answer, and did not last: counts, but does not open */
void breaker_steady(struct breaker *b);
bool breaker_allows(const struct breaker *b, uint64_t now_ms); /* may a try begin? */
void breaker_try(struct breaker *b, uint64_t now_ms);          /* one begins: open becomes half-open */
const char *breaker_state_name(enum breaker_state s);

#endif
