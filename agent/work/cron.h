/* cron.h: five-field schedules: when is the next firing, and what to do about those that were missed.
 *
 * Pure; whole minutes, Gregorian calendar, of UTC or of a zone (zone.h).  The leader computes firings and proposes them: the state knows only
 * instants, in UTC.  Where the clock on the wall leaps forward, a time that it leaps over is made up for at the leap, once; where it is
 * put back, a time that comes twice counts the first time.  Schedules of every hour (* or 0-23) go by elapsed time instead: they fire in
 * the hour that comes twice, and lose nothing to one that does not come.  Fields: minute 0-59, hour 0-23, day 1-31, month 1-12 or jan-dec, weekday 0-7 or sun-sat (0 and 7: Sunday); each a list of
 * numbers, ranges a-b, and steps: *, a-b or a with /n.  When day and weekday are both restricted a time fits if either does, as in cron(8).
 * Also @hourly @daily @midnight @weekly @monthly @yearly @annually. */
#ifndef AGENT_CRON_H
#define AGENT_CRON_H

#include "agent/work/task.h"
#include "agent/work/zone.h"

struct cron {
    uint64_t minutes; /* bit n: fits n */
    uint32_t hours, days, months, weekdays;
    bool day_or_weekday; /* both are restricted */
    struct zone zone;    /* cron_parse: UTC */
};

enum grey_error cron_parse(struct bytes text, struct cron *out, struct fault *f); /* E_BAD_REQUEST with the field */
/* The same of an order, in its zone. */
enum grey_error cron_of(const struct task_order *o, struct cron *out, struct fault *f);
/* cron_next: the first firing after after_ms (Unix milliseconds), on the minute.  -1 when there is none within CRON_HORIZON_YEARS. */
#define CRON_HORIZON_YEARS 400 /* the calendar repeats after that */
int64_t cron_next(const struct cron *c, int64_t after_ms);

/* cron_due: which firings are to be made now?  due_ms: the first that was not made; it is at most now_ms.  Fills out (room for
 * TASK_MISSED_MAX) with instants in order, sets *next_ms to the first firing after now_ms (-1: none) and returns their number.  The firing
 * of the current minute is always made; older ones were missed: skip drops them, run-once makes one for all of them (none if the current
 * minute has its own), run-all makes the youngest missed_max.  A clock that leapt a year costs a bounded walk. */
#define CRON_ON_TIME_MS 60000
size_t cron_due(const struct cron *c, int64_t due_ms, int64_t now_ms, enum task_missed missed, uint32_t missed_max, int64_t *out,
                int64_t *next_ms);

#endif
