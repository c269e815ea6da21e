/* now.h: the two clocks.  Monotonic time decides; wall time is only shown, stamped and checked against a floor. */
#ifndef PLATFORM_NOW_H
#define PLATFORM_NOW_H

#include <stdbool.h>
#include <stdint.h>

uint64_t now_monotonic_ms(void); /* CLOCK_BOOTTIME: goes on during suspend */
uint64_t now_monotonic_us(void);
uint64_t now_suspended_ms(void);         /* how long this machine slept since it was switched on: rises with each suspend only */
int64_t now_wall_ms(void);               /* Unix milliseconds, never below the floor */
void now_set_floor_ms(int64_t floor_ms); /* raises the floor: build time, last persisted time, latest log time */
/* What localtime_r shows from now on: a name of the zone files ("Europe/Berlin") or a rule of POSIX ("CET-1CEST,M3.5.0,M10.5.0/3");
 * "" leaves the machine's.  Before the first thread.  False: there is no such zone here. */
bool now_set_zone(const char *zone);
/* Fills buf with "2026-02-03T10:15:30.123Z". */
void now_format(int64_t unix_ms, char buf[32]);

#endif
