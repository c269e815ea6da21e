/* now.h: the two clocks.  Monotonic time decides; wall time is only shown, stamped and checked against a floor. */
#ifndef PLATFORM_NOW_H
#define PLATFORM_NOW_H

#include <stdbool.h>
#include <stdint.h>

uint64_t now_monotonic_ms(void); /* CLOCK_BOOTTIME: goes on during suspend */
uint64_t now_monotonic_us(void);
uint64_t now_suspended_ms(void); /* how long this machine slept since it was switched on: rises with each suspend only */
int64_t now_wall_ms(void);       /* Unix milliseconds, never below the floor */
/* The floor is what time it is at least: when this program was built, the last time known before the start, the time of the site.  It runs on
 * with the monotonic clock.  now_set_floor_ms only raises it; now_reset_floor_ms puts it where somebody who knows says. */
void now_set_floor_ms(int64_t floor_ms);
void now_reset_floor_ms(int64_t floor_ms);
int64_t now_floor_ms(void);
int64_t now_build_ms(void);
int64_t now_machine_ms(void); /* what the clock of this machine says, whatever it is worth */
/* From now on this machine's own clock is not believed where it is ahead of the floor either, for whether something has expired. */
void now_distrust(void);
/* Whether something that is valid from .. to (Unix milliseconds) may be taken for valid now.  With a clock that is believed: it is.  Else it has
 * not expired by the floor, and has begun by the clock; a clock below the floor says nothing of that. */
enum now_validity { NOW_VALID, NOW_EXPIRED, NOW_NOT_YET } now_valid(int64_t from_ms, int64_t to_ms);
/* What localtime_r shows from now on: a name of the zone files ("Europe/Berlin") or a rule of POSIX ("CET-1CEST,M3.5.0,M10.5.0/3");
 * "" leaves the machine's.  Before the first thread.  False: there is no such zone here. */
bool now_set_zone(const char *zone);
/* Fills buf with "2026-02-03T10:15:30.123Z". */
void now_format(int64_t unix_ms, char buf[32]);

#endif
