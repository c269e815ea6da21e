#include "federation/backoff.h"

void backoff_reset(struct backoff *b) {
    b->tries = 0;
}

uint32_t backoff_next_ms(struct backoff *b, uint32_t random) {
    uint64_t bound = b->first_ms;
    for (uint32_t i = 0; i < b->tries && bound < b->max_ms; i++) {
        bound *= 2;
    }
    bound = bound > b->max_ms ? b->max_ms : bound;
    b->tries += b->tries < UINT32_MAX;
    return bound <= BACKOFF_MS_FLOOR ? BACKOFF_MS_FLOOR
                                     : BACKOFF_MS_FLOOR + (uint32_t)(random * (bound - BACKOFF_MS_FLOOR + 1) >> 32);
}
