/* window.h: hours at which the link to the core has another limit, or carries only what is urgent.
 *
 * One line of text is one window, as in a crontab: five fields (minute, hour, day of the month, month, day of the week), then what
 * holds during every minute that they match:
 *     * 8-17 * * mon-fri limit_mbps=0.5
 *     * 0-5 * * * limit_mbps=10 down_limit_mbps=2
 *     * 8-17 * * mon-fri forbid=data,events
 * Fields know *, numbers, names of months and days (jan, mon), ranges, lists and steps; 0 and 7 are Sunday.  As with cron, when both
 * days are restricted it is enough that one matches.  Pure: what the clock on the wall shows is given; time zones are the caller's. */
#ifndef FEDERATION_WINDOW_H
#define FEDERATION_WINDOW_H

#include "include/grey/event.h"
#include "platform/bytes.h"
#include "platform/fault.h"

#define WINDOWS_MAX 16u
#define WINDOW_TEXT_BYTES 120u

struct window_time {
    uint8_t minute, hour, day, month, weekday; /* 0-59, 0-23, 1-31, 1-12, 0-6 from Sunday */
};

struct window {
    uint64_t minutes;
    uint32_t hours, days;
    uint16_t months;
    uint8_t weekdays;
    bool every_day, every_weekday;
    bool sets_up, sets_down;
    uint64_t up_bytes_per_s, down_bytes_per_s; /* 0: no limit */
    bool forbids[CHANNEL_COUNT];
};

struct window_rule { /* what holds at a time */
    uint64_t up_bytes_per_s, down_bytes_per_s;
    bool forbids[CHANNEL_COUNT];
};

/* E_CONFIG with what is wrong.  The channel control cannot be forbidden: it carries what is critical. */
enum grey_error window_parse(struct window *w, struct bytes text, struct fault *f);
bool window_open(const struct window *w, const struct window_time *t);
/* rule: what holds without windows, changed by those that are open: of two that set a limit the later line wins; each may forbid. */
void window_apply(const struct window *windows, uint32_t count, const struct window_time *t, struct window_rule *rule);

/* "0.016" (10^6 bit/s, three decimals at most) in bytes per second; false: no such number, or between 0 and 0.016. */
bool window_parse_mbps(struct bytes text, uint64_t *bytes_per_s);

#endif
