/* zone.h: a time zone as a rule, so that all gateways see the same hours: the TZ string of POSIX.1-2017 (8.3), with the wider times of
 * RFC 8536 (3.3.1), such as "CET-1CEST,M3.5.0,M10.5.0/3".
 *
 * Pure: no files and no tables.  The gateway that takes an order finds the rule of a named zone (platform/zonefile.h) and the order carries
 * it, so a later change of that machine's tables changes nothing.  A rule says how it goes on for ever; it knows nothing of earlier laws. */
#ifndef AGENT_ZONE_H
#define AGENT_ZONE_H

#include "platform/bytes.h"
#include "platform/fault.h"

#define ZONE_RULE_BYTES_MAX 64u

/* When summer time begins or ends, each year. */
struct zone_change {
    enum { CHANGE_WEEKDAY, CHANGE_DAY, CHANGE_LEAP_DAY } form; /* Mm.w.d; Jn: 29 February is never counted; n: it is, from 0 */
    uint16_t day;                                              /* CHANGE_WEEKDAY: 0 to 6 from Sunday */
    uint8_t month, week;                                       /* CHANGE_WEEKDAY: 1-12; 1-5, 5: the last one */
    int32_t time_s;                                            /* wall clock before the change, -167 h to 167 h */
};

struct zone {
    int32_t standard_s, summer_s; /* to be added to UTC */
    bool has_summer;
    struct zone_change begin, end;
};

extern const struct zone zone_utc;

enum grey_error zone_parse(struct bytes rule, struct zone *out, struct fault *f); /* E_BAD_REQUEST */

int32_t zone_offset_s(const struct zone *z, int64_t utc_ms); /* to be added to UTC at this instant */
int64_t zone_next_change_ms(const struct zone *z,
                            int64_t after_ms); /* the first instant after after_ms with another offset; INT64_MAX: none */

/* --- the calendar, for cron.c too ---------------------------------------------------------------------------------------------------------------- */

struct zone_date {
    int64_t year;
    unsigned month, day;
};
struct zone_date zone_date_of(int64_t days); /* since 1970-01-01 */
unsigned zone_days_in(int64_t year, unsigned month);
unsigned zone_weekday(int64_t days); /* 0: Sunday */

#endif
