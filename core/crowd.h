/* crowd.h: how many sites speak to this core, and so how much each may have on the way.
 *
 * What sites have sent and the core has not stored waits in the broker, which drops what is too much; each drop is sent again, over links
 * that may be thin.  So the frames on the way are a budget for all sites together: with few sites each has more than it can use, with a
 * thousand that come back at once each has two, and the next is sent when one is stored.  Pure; time is given. */
#ifndef CORE_CROWD_H
#define CORE_CROWD_H

#include <stdint.h>

#define CROWD_FRAMES 2048u    /* on the way to one core, all sites together; brokers queue 1,000 to 10,000 messages */
#define CROWD_WINDOW_FULL 16u /* what a site takes by itself (agent/greyd.c): from here on nothing need be said */
#define CROWD_SPAN_MS 10000u  /* who has spoken within one to two of these is counted */
#define CROWD_CELLS 32768u /* names fall into cells; more sites than a quarter of them are counted too low, but then each has 1 */

struct crowd {
    uint64_t cells[CROWD_CELLS / 64]; /* a bit each */
    uint32_t count, before;           /* of this span, and of the one before */
    uint64_t span;
};

void crowd_saw(struct crowd *c, const char *site, uint64_t now_ms);
uint32_t crowd_window(const struct crowd *c); /* frames of each channel, 1 to CROWD_WINDOW_FULL */

#endif
