/* downpace.h: what comes down to a site keeps to the rate that its hello announced (DECISIONS 25).
 *
 * Counted is what the site's link carries because of us, computed: our messages as the broker hands them on, and what the broker and the
 * network answer to the site's own.  Sites that announced nothing cost nothing here.  Thread: the loop's. */
#ifndef CORE_DOWNPACE_H
#define CORE_DOWNPACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct downpace;

struct downpace *downpace_new(void); /* NULL: out of memory */
void downpace_free(struct downpace *d);
/* The site's hello says so; 0: no limit.  False: out of memory, or too many sites with limits; this one is not paced then. */
bool downpace_set(struct downpace *d, const char *site, uint64_t bytes_per_s, uint64_t now_us);
/* A message of so many bytes came from the site. */
void downpace_heard(struct downpace *d, const char *site, size_t bytes, uint64_t now_us);
/* A message of so many bytes may go to the site now: 0, and it is debited; else not before so many microseconds. */
uint64_t downpace_wait_us(struct downpace *d, const char *site, size_t bytes, uint64_t now_us);
size_t downpace_count(const struct downpace *d); /* sites with a limit */

#endif
