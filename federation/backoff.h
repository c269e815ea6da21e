/* backoff.h: how long to wait before the next try: random below a bound that doubles.
 *
 * When a broker dies, all its sites see it in the same moment.  So the whole wait is drawn, not a part of it: a thousand sites come back
 * evenly over the bound instead of in waves.  Pure; chance is given. */
#ifndef FEDERATION_BACKOFF_H
#define FEDERATION_BACKOFF_H

#include <stdint.h>

#define BACKOFF_MS_FLOOR 100u /* no wait is shorter */

struct backoff {
    uint32_t first_ms, max_ms; /* bound of the first wait, and of all */
    uint32_t tries;
};

void backoff_reset(struct backoff *b);
uint32_t backoff_next_ms(struct backoff *b, uint32_t random); /* random: 32 bits of chance */

#endif
