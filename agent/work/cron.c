#include "agent/work/cron.h"

#include <string.h>

#include "agent/work/scan.h"
#include "include/grey/must.h"

#define MINUTE_MS 60000ll
#define DAY_MINUTES 1440ll

struct field {
    const char *name;
    unsigned low, high;
    const char *words; /* three letters each, the first stands for `low` */
};

static const struct field fields[5] = {
    {"minute", 0, 59, NULL},
    {"hour", 0, 23, NULL},
    {"day", 1, 31, NULL},
    {"month", 1, 12, "janfebmaraprmayjunjulaugsepoctnovdec"},
    {"weekday", 0, 7, "sunmontuewedthufrisat"},
};

static const struct {
    const char *name, *means;
} nicknames[] = {
    {"@hourly", "0 * * * *"},  {"@daily", "0 0 * * *"},  {"@midnight", "0 0 * * *"}, {"@weekly", "0 0 * * 0"},
    {"@monthly", "0 0 1 * *"}, {"@yearly", "0 0 1 1 *"}, {"@annually", "0 0 1 1 *"},
};

/* --- Reading -------------------------------------------------------------------------------------------------------------------------- */

static bool take_value(struct scan *c, const struct field *f, unsigned *out) {
    if (f->words != NULL && c->end - c->at >= 3) {
        char word[3];
        for (int i = 0; i < 3; i++) {
            word[i] = (char)(c->at[i] >= 'A' && c->at[i] <= 'Z' ? c->at[i] + ('a' - 'A') : c->at[i]);
        }
        for (unsigned i = 0; i < strlen(f->words) / 3; i++) {
            if (memcmp(word, f->words + (size_t)3 * i, 3) == 0) {
                c->at += 3;
                *out = f->low + i;
                return true;
            }
        }
    }
    return scan_number(c, out) && *out >= f->low && *out <= f->high;
}

/* One of a list: star or range, with its step.  *all: it restricts nothing. */
static bool take_item(struct scan *c, const struct field *f, uint64_t *bits, bool *all) {
    unsigned low = f->low, high = f->high, step = 1;
    bool star = scan_byte(c, '*'), range = star;
    if (!star) {
        if (!take_value(c, f, &low)) {
            return false;
        }
        high = low;
        range = scan_byte(c, '-');
        if (range && (!take_value(c, f, &high) || high < low)) {
            return false;
        }
    }
    if (scan_byte(c, '/')) {
        if (!scan_number(c, &step) || step == 0) {
            return false;
        }
        high = range ? high : f->high;
    }
    *all = star && step == 1;
    for (unsigned v = low; v <= high; v += step) {
        *bits |= 1ull << v;
    }
    return true;
}

static bool take_field(struct scan *c, const struct field *f, uint64_t *bits, bool *all) {
    *bits = 0;
    *all = false;
    do {
        bool item_all;
        if (!take_item(c, f, bits, &item_all)) {
            return false;
        }
        *all = *all || item_all;
    } while (scan_byte(c, ','));
    return c->at == c->end || *c->at == ' ' || *c->at == '\t';
}

enum grey_error cron_parse(struct bytes text, struct cron *out, struct fault *f) {
    *out = (struct cron){0};
    for (size_t i = 0; i < sizeof nicknames / sizeof *nicknames; i++) {
        if (bytes_equal_str(text, nicknames[i].name)) {
            text = bytes_str(nicknames[i].means);
            break;
        }
    }
    if (text.size == 0) {
        return fault_set(f, E_BAD_REQUEST, "schedule: empty");
    }
    struct scan c = {text.data, text.data + text.size};
    uint64_t bits[5];
    bool all[5];
    for (size_t i = 0; i < 5; i++) {
        while (scan_byte(&c, ' ') || scan_byte(&c, '\t')) {
        }
        if (c.at == c.end || !take_field(&c, &fields[i], &bits[i], &all[i])) {
            *out = (struct cron){0};
            return fault_set(f, E_BAD_REQUEST, "schedule: the %s is missing or is not a list of %u to %u", fields[i].name,
                             fields[i].low, fields[i].high);
        }
    }
    while (scan_byte(&c, ' ') || scan_byte(&c, '\t')) {
    }
    if (c.at != c.end) {
        return fault_set(f, E_BAD_REQUEST, "schedule: more than the five fields minute, hour, day, month, weekday");
    }
    out->zone = zone_utc;
    out->minutes = bits[0];
    out->hours = (uint32_t)bits[1];
    out->days = (uint32_t)bits[2];
    out->months = (uint32_t)bits[3];
    out->weekdays = (uint32_t)((bits[4] | bits[4] >> 7) & 0x7f);
    out->day_or_weekday = !all[2] && !all[4];
    if (all[2] && !all[4]) {
        out->days = 0; /* the weekday alone decides */
    } else if (all[4]) {
        out->weekdays = 0;
    }
    return E_OK;
}

enum grey_error cron_of(const struct task_order *o, struct cron *out, struct fault *f) {
    enum grey_error err = cron_parse(o->schedule, out, f);
    return err == E_OK && o->zone_rule.size > 0 ? zone_parse(o->zone_rule, &out->zone, f) : err;
}

/* --- Time ----------------------------------------------------------------------------------------------------------------------------- */

static bool day_fits(const struct cron *c, const struct zone_date *d, int64_t day) {
    unsigned weekday = zone_weekday(day);
    bool by_day = (c->days >> d->day & 1) != 0, by_weekday = (c->weekdays >> weekday & 1) != 0;
    return by_day || by_weekday; /* the one that is not restricted has no bits */
}

/* The first minute of a day at or after `from` that fits; -1: none. */
static int64_t minute_from(const struct cron *c, int64_t from) {
    for (int64_t hour = from / 60; hour < 24; hour++, from = hour * 60) {
        if ((c->hours >> hour & 1) != 0) {
            for (int64_t minute = from % 60; minute < 60; minute++) {
                if ((c->minutes >> minute & 1) != 0) {
                    return hour * 60 + minute;
                }
            }
        }
    }
    return -1;
}

static int64_t floor_div(int64_t a, int64_t b) {
    return a / b - (a % b < 0);
}

/* As if there were neither zones nor changes: in local time, from local time. */
static int64_t next_local(const struct cron *c, int64_t after_ms) {
    int64_t minute = floor_div(after_ms, MINUTE_MS) + 1;
    int64_t day = floor_div(minute, DAY_MINUTES);
    int64_t from = minute - day * DAY_MINUTES;
    struct zone_date d = zone_date_of(day);
    int64_t last_year = d.year + CRON_HORIZON_YEARS;
    while (d.year <= last_year) {
        if ((c->months >> d.month & 1) == 0) { /* the rest of a month at a time */
            day += zone_days_in(d.year, d.month) - d.day + 1;
            from = 0;
            d.day = 1;
            d.month = d.month % 12 + 1;
            d.year += d.month == 1;
            continue;
        }
        int64_t found = day_fits(c, &d, day) ? minute_from(c, from) : -1;
        if (found >= 0) {
            return (day * DAY_MINUTES + found) * MINUTE_MS;
        }
        day++;
        from = 0;
        if (++d.day > zone_days_in(d.year, d.month)) {
            d.day = 1;
            d.month = d.month % 12 + 1;
            d.year += d.month == 1;
        }
    }
    return -1;
}

#define EVERY_HOUR 0xffffffu

int64_t cron_next(const struct cron *c, int64_t after_ms) {
    must(after_ms <= INT64_MAX / 2 && after_ms >= INT64_MIN / 2);
    int64_t from_ms = after_ms, skip_ms = 0; /* skip_ms: what the clock shows a second time */
    if (c->hours != EVERY_HOUR) {            /* is after_ms within that? */
        int64_t back_ms = after_ms - DAY_MINUTES * MINUTE_MS, change_ms = zone_next_change_ms(&c->zone, back_ms);
        int64_t before_ms = zone_offset_s(&c->zone, back_ms) * 1000ll, now_ms = zone_offset_s(&c->zone, after_ms) * 1000ll;
        if (change_ms <= after_ms && now_ms < before_ms && change_ms + before_ms - now_ms > after_ms) {
            skip_ms = change_ms + before_ms - now_ms - after_ms - 1;
        }
    }
    for (;;) {
        int64_t offset_ms = zone_offset_s(&c->zone, from_ms) * 1000ll, change_ms = zone_next_change_ms(&c->zone, from_ms);
        int64_t found_ms = next_local(c, from_ms + skip_ms + offset_ms);
        if (found_ms == -1) { /* no instant: those are whole minutes */
            return -1;
        }
        if (found_ms - offset_ms < change_ms) {
            return found_ms - offset_ms;
        }
        int64_t leap_ms = zone_offset_s(&c->zone, change_ms) * 1000ll - offset_ms;
        if (leap_ms > 0 && c->hours != EVERY_HOUR && found_ms < change_ms + offset_ms + leap_ms) {
            return change_ms; /* the clock leaps over it */
        }
        skip_ms = leap_ms < 0 && c->hours != EVERY_HOUR ? -leap_ms - 1 : -1; /* -1: the change itself may be one */
        from_ms = change_ms;
    }
}

size_t cron_due(const struct cron *c, int64_t due_ms, int64_t now_ms, enum task_missed missed, uint32_t missed_max, int64_t *out,
                int64_t *next_ms) {
    must(missed_max >= 1 && missed_max <= TASK_MISSED_MAX);
    size_t count = 0;
    *next_ms = cron_next(c, now_ms);
    if (due_ms > now_ms) {
        *next_ms = due_ms;
        return 0;
    }
    int64_t on_time_ms = cron_next(c, now_ms - CRON_ON_TIME_MS); /* of the current minute, or in the future */
    bool on_time = on_time_ms >= 0 && on_time_ms <= now_ms;
    if (missed == MISSED_SKIP || (missed == MISSED_RUN_ONCE && on_time)) {
        out[0] = on_time_ms;
        return on_time ? 1 : 0;
    }
    if (missed == MISSED_RUN_ONCE) {
        out[0] = due_ms;
        return 1;
    }
    /* The youngest missed_max and the one on time.  Look back in steps that double until enough are seen, then walk forward. */
    size_t wanted = missed_max;
    int64_t back_ms = MINUTE_MS * (int64_t)wanted, from_ms;
    do {
        from_ms = now_ms - due_ms > back_ms ? now_ms - back_ms : due_ms - 1;
        count = 0;
        for (int64_t at_ms = cron_next(c, from_ms); at_ms >= 0 && at_ms <= now_ms; at_ms = cron_next(c, at_ms)) {
            if (count == wanted) {
                memmove(out, out + 1, --count * sizeof *out);
            }
            out[count++] = at_ms;
        }
        back_ms *= 2;
    } while (count < wanted && from_ms >= due_ms);
    return count;
}
