#include "agent/work/zone.h"

#include "agent/work/scan.h"

#define HOUR_S 3600
#define DAY_S (24 * HOUR_S)
#define TIME_HOURS_MAX 167u        /* RFC 8536: of a change */
#define OFFSET_HOURS_MAX 24u       /* POSIX: of a zone */
#define CHANGE_TIME_S (2 * HOUR_S) /* where a rule names none */

const struct zone zone_utc = {0};

/* --- The calendar ---------------------------------------------------------------------------------------------------------------------- */

static int64_t floor_div(int64_t a, int64_t b) {
    return a / b - (a % b < 0);
}

/* Years begin in March, so that the leap day is the last of its year. */
struct zone_date zone_date_of(int64_t days) {
    days += 719468;
    int64_t era = floor_div(days, 146097);
    unsigned of_era = (unsigned)(days - era * 146097);
    unsigned year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    unsigned of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    unsigned month = (5 * of_year + 2) / 153;
    struct zone_date d = {.day = of_year - (153 * month + 2) / 5 + 1, .month = month < 10 ? month + 3 : month - 9};
    d.year = (int64_t)year_of_era + era * 400 + (d.month <= 2);
    return d;
}

static int64_t days_of(int64_t year, unsigned month, unsigned day) {
    year -= month <= 2;
    int64_t era = floor_div(year, 400);
    unsigned of_era = (unsigned)(year - era * 400);
    unsigned of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    return era * 146097 + (int64_t)(of_era * 365 + of_era / 4 - of_era / 100 + of_year) - 719468;
}

static bool is_leap(int64_t year) {
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

unsigned zone_days_in(int64_t year, unsigned month) {
    static const uint8_t days[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return days[month - 1] + (unsigned)(month == 2 && is_leap(year));
}

unsigned zone_weekday(int64_t days) {
    return (unsigned)(((days + 4) % 7 + 7) % 7); /* 1970-01-01 was a Thursday */
}

/* --- Reading --------------------------------------------------------------------------------------------------------------------------- */

static bool take_number(struct scan *c, unsigned low, unsigned high, unsigned *out) {
    return scan_number(c, out) && *out >= low && *out <= high;
}

/* Three letters or more, or anything of letters, digits and signs in angle brackets.  Which does not matter. */
static bool take_name(struct scan *c) {
    bool bracket = scan_byte(c, '<');
    const uint8_t *start = c->at;
    while (c->at < c->end) {
        uint8_t letter = *c->at | 0x20;
        bool alpha = letter >= 'a' && letter <= 'z', more = (*c->at >= '0' && *c->at <= '9') || *c->at == '+' || *c->at == '-';
        if (!alpha && !(bracket && more)) {
            break;
        }
        c->at++;
    }
    return c->at - start >= 3 && (!bracket || scan_byte(c, '>'));
}

/* [+-]hh[:mm[:ss]] */
static bool take_time(struct scan *c, unsigned hours_max, int32_t *seconds) {
    unsigned part[3] = {0, 0, 0};
    bool minus = scan_byte(c, '-');
    if (!minus) {
        (void)scan_byte(c, '+');
    }
    bool well = take_number(c, 0, hours_max, &part[0]);
    for (int i = 1; i < 3 && well && scan_byte(c, ':'); i++) {
        well = take_number(c, 0, 59, &part[i]);
    }
    *seconds = (int32_t)(part[0] * HOUR_S + part[1] * 60 + part[2]) * (minus ? -1 : 1);
    return well;
}

static bool take_change(struct scan *c, struct zone_change *out) {
    unsigned number[3] = {0, 0, 0};
    *out = (struct zone_change){.time_s = CHANGE_TIME_S};
    bool well = scan_byte(c, ',');
    if (well && scan_byte(c, 'M')) {
        well = take_number(c, 1, 12, &number[0]) && scan_byte(c, '.') && take_number(c, 1, 5, &number[1]) && scan_byte(c, '.') &&
               take_number(c, 0, 6, &number[2]);
        out->form = CHANGE_WEEKDAY;
        out->month = (uint8_t)number[0];
        out->week = (uint8_t)number[1];
        out->day = (uint16_t)number[2];
    } else if (well) {
        out->form = scan_byte(c, 'J') ? CHANGE_DAY : CHANGE_LEAP_DAY;
        well = take_number(c, out->form == CHANGE_DAY, 365, &number[0]);
        out->day = (uint16_t)number[0];
    }
    return well && (!scan_byte(c, '/') || take_time(c, TIME_HOURS_MAX, &out->time_s));
}

static bool take_zone(struct scan *c, struct zone *z) {
    int32_t west_s;
    if (!take_name(c) || !take_time(c, OFFSET_HOURS_MAX, &west_s)) {
        return false;
    }
    z->standard_s = z->summer_s = -west_s;
    if (c->at == c->end) {
        return true;
    }
    z->has_summer = true;
    z->summer_s = z->standard_s + HOUR_S;
    if (!take_name(c)) {
        return false;
    }
    if (c->at < c->end && *c->at != ',') {
        if (!take_time(c, OFFSET_HOURS_MAX, &west_s)) {
            return false;
        }
        z->summer_s = -west_s;
    }
    return take_change(c, &z->begin) && take_change(c, &z->end) && c->at == c->end;
}

enum grey_error zone_parse(struct bytes rule, struct zone *out, struct fault *f) {
    struct scan c = {rule.data, rule.data + rule.size};
    *out = zone_utc;
    if (rule.size == 0 || rule.size > ZONE_RULE_BYTES_MAX || !take_zone(&c, out)) {
        *out = zone_utc;
        return fault_set(f, E_BAD_REQUEST, "\"%.*s\" is no rule of a time zone such as CET-1CEST,M3.5.0,M10.5.0/3",
                         (int)(rule.size < ZONE_RULE_BYTES_MAX ? rule.size : ZONE_RULE_BYTES_MAX), (const char *)rule.data);
    }
    return E_OK;
}

/* --- Instants ------------------------------------------------------------------------------------------------------------------------------ */

static int64_t day_of_change(const struct zone_change *c, int64_t year) {
    if (c->form == CHANGE_WEEKDAY) {
        int64_t first = days_of(year, c->month, 1);
        unsigned day = (c->day + 7 - zone_weekday(first)) % 7 + 7u * (c->week - 1u);
        return first + day - (day >= zone_days_in(year, c->month) ? 7 : 0);
    }
    int64_t first = days_of(year, 1, 1);
    if (c->form == CHANGE_LEAP_DAY) {
        return first + c->day;
    }
    return first + c->day - 1 + (is_leap(year) && c->day >= 60);
}

/* Of this year, in UTC. */
static int64_t change_s(const struct zone *z, bool begins, int64_t year) {
    const struct zone_change *c = begins ? &z->begin : &z->end;
    return day_of_change(c, year) * DAY_S + c->time_s - (begins ? z->standard_s : z->summer_s);
}

static int64_t year_of(int64_t s) {
    return zone_date_of(floor_div(s, DAY_S)).year;
}

int32_t zone_offset_s(const struct zone *z, int64_t utc_ms) {
    if (!z->has_summer) {
        return z->standard_s;
    }
    int64_t now_s = floor_div(utc_ms, 1000), year = year_of(now_s), last_s = INT64_MIN;
    bool summer = false;
    for (int64_t y = year - 1; y <= year + 1; y++) { /* a change may be some days beyond its year */
        for (int begins = 0; begins < 2; begins++) {
            int64_t at_s = change_s(z, begins, y);
            if (at_s <= now_s && (at_s > last_s || (at_s == last_s && begins))) { /* RFC 8536: summer all year ends as it begins */
                last_s = at_s;
                summer = begins;
            }
        }
    }
    return summer ? z->summer_s : z->standard_s;
}

int64_t zone_next_change_ms(const struct zone *z, int64_t after_ms) {
    if (!z->has_summer || z->summer_s == z->standard_s) {
        return INT64_MAX;
    }
    int32_t offset_s = zone_offset_s(z, after_ms);
    int64_t year = year_of(floor_div(after_ms, 1000)), first_ms = INT64_MAX;
    for (int64_t y = year - 1; y <= year + 1; y++) {
        for (int begins = 0; begins < 2; begins++) {
            int64_t at_ms = change_s(z, begins, y) * 1000;
            if (at_ms > after_ms && at_ms < first_ms && zone_offset_s(z, at_ms) != offset_s) {
                first_ms = at_ms;
            }
        }
    }
    return first_ms;
}
