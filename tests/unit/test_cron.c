#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "agent/work/cron.h"

#define MINUTE_MS 60000ll
#define DAY_MS (24ll * 3600 * 1000)

static uint64_t seed = 88172645463325252u;

static uint64_t draw(uint64_t below) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

static int64_t instant(const char *text) {
    struct tm t = {0};
    assert_non_null(strptime(text, "%Y-%m-%d %H:%M:%S", &t));
    return (int64_t)timegm(&t) * 1000;
}

static void expect_next(const char *schedule, const char *after, const char *wanted) {
    struct cron c;
    struct fault f = {0};
    if (cron_parse(bytes_str(schedule), &c, &f) != E_OK) {
        fail_msg("%s: %s", schedule, f.text);
    }
    int64_t next = cron_next(&c, instant(after)), right = wanted == NULL ? -1 : instant(wanted);
    if (next != right) {
        fail_msg("%s after %s: %lld, not %lld", schedule, after, (long long)next, (long long)right);
    }
}

/* A nightly backup that runs a day early, or never again after February, is found when it is needed. */
static void known_schedules_fire_when_the_manual_says(void **context) {
    (void)context;
    expect_next("* * * * *", "2026-02-03 10:15:30", "2026-02-03 10:16:00");
    expect_next("* * * * *", "2026-02-03 10:15:00", "2026-02-03 10:16:00");
    expect_next("30 2 * * *", "2026-02-28 02:30:00", "2026-03-01 02:30:00");
    expect_next("0 0 29 2 *", "2026-01-01 00:00:00", "2028-02-29 00:00:00");
    expect_next("0 0 29 2 *", "2096-03-01 00:00:00", "2104-02-29 00:00:00"); /* 2100 has none */
    expect_next("0 0 31 * *", "2026-04-01 00:00:00", "2026-05-31 00:00:00");
    expect_next("0 0 30 2 *", "2026-04-01 00:00:00", NULL);
    expect_next("*/15 9-17 * * mon-fri", "2026-02-06 17:45:00", "2026-02-09 09:00:00"); /* from Friday to Monday */
    expect_next("0 12 13 * fri", "2026-02-01 00:00:00", "2026-02-06 12:00:00");         /* day or weekday */
    expect_next("0 12 13 * fri", "2026-02-06 12:00:00", "2026-02-13 12:00:00");
    expect_next("0 12 * * 7", "2026-02-02 00:00:00", "2026-02-08 12:00:00");
    expect_next("0 12 * * SUN", "2026-02-02 00:00:00", "2026-02-08 12:00:00");
    expect_next("5/20 0 1 Jan *", "2026-01-01 00:05:00", "2026-01-01 00:25:00");
    expect_next("@daily", "2026-12-31 23:59:59", "2027-01-01 00:00:00");
    expect_next("@yearly", "2026-01-01 00:00:00", "2027-01-01 00:00:00");
    expect_next("0 0 1 1 *", "1960-06-01 00:00:00", "1961-01-01 00:00:00");
}

/* A typing error must be told at once, not by a schedule that never fires. */
static void what_is_no_schedule_is_refused_with_its_field(void **context) {
    (void)context;
    static const char *const bad[] = {
        "",           "* * * *",      "* * * * * *", "60 * * * *",  "* 24 * * *",  "* * 0 * *",    "* * 32 * *",
        "* * * 13 *", "* * * * 8",    "a * * * *",   "*/0 * * * *", "5-1 * * * *", "1,,2 * * * *", "1- * * * *",
        "*x * * * *", "1000 * * * *", "@never",      "* * * foo *", "-1 * * * *",  "1/ * * * *"};
    struct cron c;
    struct fault f;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (cron_parse(bytes_str(bad[i]), &c, &f) != E_BAD_REQUEST) {
            fail_msg("\"%s\" was taken", bad[i]);
        }
    }
    (void)cron_parse(bytes_str("0 25 * * *"), &c, &f);
    assert_non_null(strstr(f.text, "hour"));
}

/* The oracle: try every minute, with the C library's calendar. */
static int64_t slow_next(const bool fields[5][61], bool day_free, bool weekday_free, int64_t after_ms, int64_t end_ms) {
    for (int64_t at = (after_ms / MINUTE_MS + 1) * MINUTE_MS; at < end_ms; at += MINUTE_MS) {
        time_t s = (time_t)(at / 1000);
        struct tm t;
        (void)gmtime_r(&s, &t);
        bool day = fields[2][t.tm_mday], weekday = fields[4][t.tm_wday];
        bool date = day_free && weekday_free ? true : day_free ? weekday : weekday_free ? day : day || weekday;
        if (fields[0][t.tm_min] && fields[1][t.tm_hour] && fields[3][t.tm_mon + 1] && date) {
            return at;
        }
    }
    return -1;
}

static void random_field(char *out, size_t room, bool *set, unsigned low, unsigned high, bool *is_free) {
    *is_free = draw(2) == 0;
    if (*is_free) {
        (void)snprintf(out, room, "*");
        for (unsigned v = low; v <= high; v++) {
            set[v] = true;
        }
        return;
    }
    size_t size = 0;
    for (unsigned items = 1 + (unsigned)draw(3); items > 0; items--) {
        unsigned a = low + (unsigned)draw(high - low + 1), b = a + (unsigned)draw(high - a + 1), step = 1 + (unsigned)draw(7);
        unsigned form = (unsigned)draw(3);
        const char *comma = size > 0 ? "," : "";
        if (form == 0) {
            size += (size_t)snprintf(out + size, room - size, "%s%u", comma, a);
            b = a;
        } else if (form == 1) {
            size += (size_t)snprintf(out + size, room - size, "%s%u-%u", comma, a, b);
            step = 1;
        } else {
            size += (size_t)snprintf(out + size, room - size, "%s%u-%u/%u", comma, a, b, step);
        }
        for (unsigned v = a; v <= b; v += step) {
            set[v] = true;
        }
    }
}

/* If calendar arithmetic were wrong for some month or leap year, some site's schedule would be too. */
static void firings_agree_with_trying_every_minute(void **context) {
    (void)context;
    unsigned fired = 0;
    for (unsigned round = 0; round < 400; round++) {
        static const unsigned low[5] = {0, 0, 1, 1, 0}, high[5] = {59, 23, 31, 12, 6};
        bool set[5][61] = {{false}}, is_free[5];
        char field[5][64], text[400];
        for (unsigned i = 0; i < 5; i++) {
            random_field(field[i], sizeof field[i], set[i], low[i], high[i], &is_free[i]);
        }
        (void)snprintf(text, sizeof text, "%s %s %s %s %s", field[0], field[1], field[2], field[3], field[4]);
        struct cron c;
        struct fault f = {0};
        if (cron_parse(bytes_str(text), &c, &f) != E_OK) {
            fail_msg("%s: %s", text, f.text);
        }
        int64_t after = instant("2023-12-01 00:00:00") + (int64_t)draw(1500) * DAY_MS + (int64_t)draw((uint64_t)DAY_MS);
        for (unsigned k = 0; k < 3; k++) {
            int64_t end = after + 40 * DAY_MS;
            int64_t right = slow_next((const bool(*)[61])set, is_free[2], is_free[4], after, end), next = cron_next(&c, after);
            if (right >= 0 ? next != right : next >= 0 && next < end) {
                fail_msg("%s after %lld: %lld, not %lld", text, (long long)after, (long long)next, (long long)right);
            }
            fired += right >= 0;
            after = right >= 0 ? right : end;
        }
    }
    assert_true(fired > 300);
}

/* After a weekend without power a site must not run 2,880 backups, nor forget the one that its operator asked for. */
static void missed_firings_follow_their_policy(void **context) {
    (void)context;
    struct cron c;
    int64_t out[TASK_MISSED_MAX], next;
    assert_int_equal(cron_parse(bytes_str("0 * * * *"), &c, NULL), E_OK);
    int64_t due = instant("2026-02-03 10:00:00");
    /* on time, a little late: made by every policy */
    for (enum task_missed m = MISSED_SKIP; m < MISSED_COUNT; m++) {
        assert_int_equal(cron_due(&c, due, due + 2000, m, 5, out, &next), 1);
        assert_int_equal(out[0], due);
        assert_int_equal(next, instant("2026-02-03 11:00:00"));
    }
    /* not due yet: the clock went back */
    assert_int_equal(cron_due(&c, due, due - DAY_MS, MISSED_RUN_ALL, 5, out, &next), 0);
    assert_int_equal(next, due);
    /* two days later, at half past */
    int64_t now = instant("2026-02-05 10:30:00");
    assert_int_equal(cron_due(&c, due, now, MISSED_SKIP, 5, out, &next), 0);
    assert_int_equal(next, instant("2026-02-05 11:00:00"));
    assert_int_equal(cron_due(&c, due, now, MISSED_RUN_ONCE, 5, out, &next), 1);
    assert_int_equal(out[0], due);
    assert_int_equal(cron_due(&c, due, now, MISSED_RUN_ALL, 5, out, &next), 5);
    assert_int_equal(out[0], instant("2026-02-05 06:00:00"));
    assert_int_equal(out[4], instant("2026-02-05 10:00:00"));
    /* all of them, when they are few */
    now = instant("2026-02-03 12:30:00");
    assert_int_equal(cron_due(&c, due, now, MISSED_RUN_ALL, 100, out, &next), 3);
    assert_int_equal(out[0], due);
    /* on the hour: run-once makes one, not two */
    now = instant("2026-02-05 11:00:01");
    assert_int_equal(cron_due(&c, due, now, MISSED_RUN_ONCE, 5, out, &next), 1);
    assert_int_equal(out[0], instant("2026-02-05 11:00:00"));
    assert_int_equal(cron_due(&c, due, now, MISSED_SKIP, 5, out, &next), 1);
    /* a clock that leapt ten years costs no more than a moment, also for what fires each minute of one month */
    assert_int_equal(cron_parse(bytes_str("* * * 1 *"), &c, NULL), E_OK);
    now = instant("2036-12-01 00:00:00");
    assert_int_equal(cron_due(&c, instant("2026-01-01 00:00:00"), now, MISSED_RUN_ALL, 100, out, &next), 100);
    assert_int_equal(out[99], instant("2036-01-31 23:59:00"));
    assert_int_equal(out[0], instant("2036-01-31 22:20:00"));
    assert_int_equal(next, instant("2037-01-01 00:00:00"));
}

/* --- Zones ----------------------------------------------------------------------------------------------------------------------------- */

#define BERLIN "CET-1CEST,M3.5.0,M10.5.0/3"
#define NEW_YORK "EST5EDT,M3.2.0,M11.1.0"
#define LORD_HOWE "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0" /* half an hour */

static void expect_zoned(const char *schedule, const char *rule, const char *after, const char *const *wanted) {
    struct cron c;
    struct fault f = {0};
    struct task_order o = {.schedule = bytes_str(schedule), .zone_rule = bytes_str(rule)};
    if (cron_of(&o, &c, &f) != E_OK) {
        fail_msg("%s in %s: %s", schedule, rule, f.text);
    }
    int64_t at_ms = instant(after);
    for (int i = 0; wanted[i] != NULL; i++) {
        at_ms = cron_next(&c, at_ms);
        if (at_ms != instant(wanted[i])) {
            fail_msg("%s in %s: %lld, not %s", schedule, rule, (long long)at_ms, wanted[i]);
        }
    }
}

/* The nightly backup of a factory must run at its 02:30, once each night, in the two nights of the year on which the clock is changed too. */
static void schedules_keep_to_the_clock_on_the_wall(void **context) {
    (void)context;
    expect_zoned("30 2 * * *", BERLIN, "2026-03-28 00:00:00", /* at 01:00 UTC of the 29th, 02:00 becomes 03:00 */
                 (const char *[]){"2026-03-28 01:30:00", "2026-03-29 01:00:00", "2026-03-30 00:30:00", NULL});
    expect_zoned("0,30 2 * * *", BERLIN, "2026-03-28 12:00:00",
                 (const char *[]){"2026-03-29 01:00:00", "2026-03-30 00:00:00", NULL});
    expect_zoned("0 3 * * *", BERLIN, "2026-03-28 12:00:00", (const char *[]){"2026-03-29 01:00:00", "2026-03-30 01:00:00", NULL});
    expect_zoned("30 2 * * *", BERLIN, "2026-10-24 12:00:00", /* at 01:00 UTC of the 25th, 03:00 becomes 02:00 */
                 (const char *[]){"2026-10-25 00:30:00", "2026-10-26 01:30:00", NULL});
    expect_zoned("0 3 * * *", BERLIN, "2026-10-24 12:00:00", (const char *[]){"2026-10-25 02:00:00", "2026-10-26 02:00:00", NULL});
    expect_zoned("30 2 * * *", BERLIN, "2026-10-25 01:10:00",
                 (const char *[]){"2026-10-26 01:30:00", NULL}); /* asked within the second hour */
    expect_zoned("30 * * * *", BERLIN, "2026-10-25 00:00:00",    /* every hour that passes, also the one that comes twice */
                 (const char *[]){"2026-10-25 00:30:00", "2026-10-25 01:30:00", "2026-10-25 02:30:00", NULL});
    expect_zoned("30 * * * *", BERLIN, "2026-03-29 00:00:00",
                 (const char *[]){"2026-03-29 00:30:00", "2026-03-29 01:30:00", "2026-03-29 02:30:00", NULL});
    expect_zoned("30 1 * * *", NEW_YORK, "2026-10-31 12:00:00",
                 (const char *[]){"2026-11-01 05:30:00", "2026-11-02 06:30:00", NULL});
    expect_zoned("30 2 8 3 *", NEW_YORK, "2026-01-01 00:00:00",
                 (const char *[]){"2026-03-08 07:00:00", "2027-03-08 07:30:00", NULL});
    expect_zoned("10 2 * * *", LORD_HOWE, "2026-10-02 16:00:00",
                 (const char *[]){"2026-10-03 15:30:00", "2026-10-04 15:10:00", NULL});
    expect_zoned("45 1 * * *", LORD_HOWE, "2026-04-04 00:00:00",
                 (const char *[]){"2026-04-04 14:45:00", "2026-04-05 15:15:00", NULL});
    expect_zoned("0 0 * * mon", "NPT-5:45", "2026-02-01 00:00:00",
                 (const char *[]){"2026-02-01 18:15:00", "2026-02-08 18:15:00", NULL});
    expect_zoned("0 0 30 2 *", BERLIN, "2026-02-01 00:00:00", (const char *[]){NULL});
}

/* If a rule meant another hour here than on the machines around it, every schedule of a zone would be off by that for half a year.  The C
 * library reads the same rules. */
static void rules_mean_what_they_mean_elsewhere(void **context) {
    (void)context;
    static const char *const rules[] = {BERLIN,
                                        NEW_YORK,
                                        LORD_HOWE,
                                        "UTC0",
                                        "NPT-5:45",
                                        "IST-2IDT,M3.4.4/26,M10.5.0",
                                        "EET-2EEST,M3.5.0/0,M10.5.0/0",
                                        "AEST-10AEDT,M10.1.0,M4.1.0/3",
                                        "<-02>2<-01>,M3.5.0/-1,M10.5.0/0",
                                        "ABC3DEF,J60/2,J300/2",
                                        "ABC3DEF,59/2,299",
                                        "<-04>4<-03>,M9.1.6/24,M4.1.6/24"};
    for (size_t k = 0; k < sizeof rules / sizeof *rules; k++) {
        struct zone z;
        struct fault f = {0};
        assert_int_equal(zone_parse(bytes_str(rules[k]), &z, &f), E_OK);
        (void)setenv("TZ", rules[k], 1);
        tzset();
        for (int i = 0; i < 4000; i++) {
            time_t at = (time_t)(1700000000 + (int64_t)draw(30ull * 365 * 86400));
            struct tm t;
            (void)localtime_r(&at, &t);
            if (zone_offset_s(&z, (int64_t)at * 1000) != t.tm_gmtoff) {
                fail_msg("%s at %lld: %d, not %ld", rules[k], (long long)at, zone_offset_s(&z, (int64_t)at * 1000), t.tm_gmtoff);
            }
            int64_t change_ms = zone_next_change_ms(&z, (int64_t)at * 1000);
            if (change_ms != INT64_MAX) {
                assert_true(change_ms > (int64_t)at * 1000 && change_ms - (int64_t)at * 1000 < 367 * DAY_MS);
                assert_int_equal(zone_offset_s(&z, change_ms - 1), t.tm_gmtoff);
                assert_int_not_equal(zone_offset_s(&z, change_ms), t.tm_gmtoff);
            }
        }
    }
    (void)unsetenv("TZ");
    tzset();
    static const char *const bad[] = {"",
                                      "Europe/Berlin",
                                      "CET",
                                      "C1",
                                      "CET-1CEST",
                                      "CET-1CEST,M3.5.0",
                                      "CET-1CEST,M13.5.0,M10.5.0",
                                      "CET-1CEST,M3.6.0,M10.5.0",
                                      "CET-1CEST,M3.5.7,M10.5.0",
                                      "CET-25",
                                      "CET-1CEST,M3.5.0,M10.5.0/168",
                                      "CET-1CEST,M3.5.0,M10.5.0x",
                                      "<CET-1",
                                      "CET-1CEST,J0,J366"};
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
        struct zone z;
        struct fault f = {0};
        if (zone_parse(bytes_str(bad[k]), &z, &f) != E_BAD_REQUEST) {
            fail_msg("%s is taken for a rule", bad[k]);
        }
    }
}

/* A schedule in a zone must neither lose nor repeat a day, whatever the rule. */
static void each_day_has_its_firing(void **context) {
    (void)context;
    static const char *const rules[] = {BERLIN, NEW_YORK, LORD_HOWE, "AEST-10AEDT,M10.1.0,M4.1.0/3"};
    for (size_t k = 0; k < sizeof rules / sizeof *rules; k++) {
        for (int i = 0; i < 60; i++) {
            char schedule[32];
            struct cron c;
            struct fault f = {0};
            (void)snprintf(schedule, sizeof schedule, "%u %u * * *", (unsigned)draw(60), (unsigned)draw(24));
            struct task_order o = {.schedule = bytes_str(schedule), .zone_rule = bytes_str(rules[k])};
            assert_int_equal(cron_of(&o, &c, &f), E_OK);
            int64_t at_ms = cron_next(&c, instant("2026-01-01 00:00:00")), last_day = -1;
            for (int day = 0; day < 730; day++, at_ms = cron_next(&c, at_ms)) {
                int64_t local_day = (at_ms + zone_offset_s(&c.zone, at_ms) * 1000ll) / DAY_MS;
                if (last_day >= 0 && local_day != last_day + 1) {
                    fail_msg("%s in %s: from day %lld to %lld", schedule, rules[k], (long long)last_day, (long long)local_day);
                }
                last_day = local_day;
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_schedules_fire_when_the_manual_says),
        cmocka_unit_test(what_is_no_schedule_is_refused_with_its_field),
        cmocka_unit_test(firings_agree_with_trying_every_minute),
        cmocka_unit_test(missed_firings_follow_their_policy),
        cmocka_unit_test(schedules_keep_to_the_clock_on_the_wall),
        cmocka_unit_test(rules_mean_what_they_mean_elsewhere),
        cmocka_unit_test(each_day_has_its_firing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
