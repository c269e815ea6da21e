#include "platform/now.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "include/grey/must.h"

#define NOW_SLACK_MS 60000 /* clocks of a site may differ by so much (agent/node/clockset.c) */

/* Of the floor: what to add to the monotonic clock.  INT64_MIN / 2: there is none. */
static _Atomic int64_t floor_offset_ms = INT64_MIN / 2;
static _Atomic bool distrusted;

uint64_t now_monotonic_us(void) {
    struct timespec t;
    must(clock_gettime(CLOCK_BOOTTIME, &t) == 0);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

uint64_t now_monotonic_ms(void) {
    return now_monotonic_us() / 1000u;
}

/* The difference of two clocks that cannot be read at one moment: taken again when the reading was interrupted. */
uint64_t now_suspended_ms(void) {
    uint64_t before_us, awake_us, after_us;
    unsigned tries = 8;
    do {
        struct timespec t;
        before_us = now_monotonic_us();
        must(clock_gettime(CLOCK_MONOTONIC, &t) == 0);
        awake_us = (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
        after_us = now_monotonic_us();
    } while (after_us - before_us > 200 && --tries > 0);
    return before_us > awake_us ? (before_us - awake_us) / 1000u : 0;
}

int64_t now_machine_ms(void) {
    struct timespec t;
    must(clock_gettime(CLOCK_REALTIME, &t) == 0);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int64_t now_floor_ms(void) {
    return atomic_load_explicit(&floor_offset_ms, memory_order_relaxed) + (int64_t)now_monotonic_ms();
}

int64_t now_wall_ms(void) {
    int64_t wall_ms = now_machine_ms(), lowest_ms = now_floor_ms();
    return wall_ms < lowest_ms ? lowest_ms : wall_ms;
}

int64_t now_build_ms(void) {
    return (int64_t)GREY_BUILD_S * 1000;
}

void now_set_floor_ms(int64_t floor) {
    int64_t offset_ms = floor - (int64_t)now_monotonic_ms();
    int64_t before = atomic_load_explicit(&floor_offset_ms, memory_order_relaxed);
    while (before < offset_ms && !atomic_compare_exchange_weak(&floor_offset_ms, &before, offset_ms)) {
    }
}

void now_reset_floor_ms(int64_t floor) {
    atomic_store_explicit(&floor_offset_ms, floor - (int64_t)now_monotonic_ms(), memory_order_relaxed);
}

void now_distrust(void) {
    atomic_store_explicit(&distrusted, true, memory_order_relaxed);
}

enum now_validity now_valid(int64_t from_ms, int64_t to_ms) {
    int64_t wall_ms = now_machine_ms(), lowest_ms = now_floor_ms();
    bool behind = wall_ms < lowest_ms - NOW_SLACK_MS;
    int64_t latest_ms = wall_ms > lowest_ms ? wall_ms : lowest_ms;
    if (to_ms < (atomic_load_explicit(&distrusted, memory_order_relaxed) ? lowest_ms : latest_ms)) {
        return NOW_EXPIRED;
    }
    return !behind && from_ms > latest_ms ? NOW_NOT_YET : NOW_VALID;
}

bool now_set_zone(const char *zone) {
    char path[128];
    bool rule = strpbrk(zone, "0123456789,") != NULL && strchr(zone, '/') == NULL;
    if (zone[0] != 0) {
        int size = snprintf(path, sizeof path, "/usr/share/zoneinfo/%s", zone);
        bool named =
            size > 0 && (size_t)size < sizeof path && strstr(zone, "..") == NULL && zone[0] != '/' && access(path, R_OK) == 0;
        if ((!named && !rule) || setenv("TZ", zone, 1) != 0) {
            return false;
        }
    }
    tzset();
    return true;
}

void now_format(int64_t unix_ms, char buf[32]) {
    int64_t days = unix_ms / 86400000, of_day_ms = unix_ms % 86400000;
    if (of_day_ms < 0) {
        days--, of_day_ms += 86400000;
    }
    /* Years of four digits only; a time beyond them is shown as the nearest one. */
    const int64_t first_day = -719528, last_day = 2932896; /* 0000-01-01, 9999-12-31 */
    if (days < first_day) {
        days = first_day, of_day_ms = 0;
    } else if (days > last_day) {
        days = last_day, of_day_ms = 86399999;
    }
    /* Howard Hinnant, "chrono-compatible low-level date algorithms": years that begin in March, eras of 400 of them. */
    int64_t shifted = days + 719468;
    int64_t era = (shifted >= 0 ? shifted : shifted - 146096) / 146097;
    unsigned of_era = (unsigned)(shifted - era * 146097);
    unsigned year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    unsigned of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    unsigned march_month = (5 * of_year + 2) / 153;
    unsigned day = of_year - (153 * march_month + 2) / 5 + 1;
    unsigned month = march_month < 10 ? march_month + 3 : march_month - 9;
    unsigned year = (unsigned)(era * 400 + year_of_era) + (month <= 2);
    unsigned ms = (unsigned)of_day_ms;
    int size = snprintf(buf, 32, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ", year % 10000, month, day, ms / 3600000, ms / 60000 % 60,
                        ms / 1000 % 60, ms % 1000);
    must(size == 24);
}
