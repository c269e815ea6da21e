#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "platform/now.h"

/* If dates were shown wrong, nobody could match our log with another machine's. */
static void dates_agree_with_the_c_library(void **state) {
    (void)state;
    for (int64_t s = -62135596800; s < 253402300800; s += 86400 * 13 + 4567) { /* years 1 to 9999 */
        char wanted[96], got[32];
        time_t t = (time_t)s;
        struct tm tm;
        assert_non_null(gmtime_r(&t, &tm));
        (void)snprintf(wanted, sizeof wanted, "%04d-%02d-%02dT%02d:%02d:%02d.007Z", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday,
                       tm.tm_hour, tm.tm_min, tm.tm_sec);
        now_format(s * 1000 + 7, got);
        assert_string_equal(got, wanted);
    }
}

/* If a wild time from a peer broke the format, a log line would overrun its room. */
static void wild_times_are_shown_as_the_nearest_date(void **state) {
    (void)state;
    char text[32];
    now_format(1770113730123, text);
    assert_string_equal(text, "2026-02-03T10:15:30.123Z");
    now_format(-1, text);
    assert_string_equal(text, "1969-12-31T23:59:59.999Z");
    now_format(INT64_MAX, text);
    assert_string_equal(text, "9999-12-31T23:59:59.999Z");
    now_format(INT64_MIN, text);
    assert_string_equal(text, "0000-01-01T00:00:00.000Z");
}

/* If the floor did not hold, a gateway that boots in 1970 would find all certificates not yet valid. */
static void wall_time_keeps_to_its_floor_and_the_floor_never_sinks(void **state) {
    (void)state;
    int64_t wall_ms = now_wall_ms();
    now_set_floor_ms(wall_ms - 1000000);
    assert_true(now_wall_ms() < wall_ms + 60000);
    int64_t ahead_ms = wall_ms + 3600000;
    now_set_floor_ms(ahead_ms);
    assert_true(now_wall_ms() >= ahead_ms && now_wall_ms() < ahead_ms + 60000); /* it runs on */
    now_set_floor_ms(wall_ms);
    assert_true(now_wall_ms() >= ahead_ms);
    now_reset_floor_ms(wall_ms - 1000000);
    assert_true(now_wall_ms() < wall_ms + 60000);
    assert_true(now_build_ms() > 1700000000000 && now_build_ms() <= wall_ms);
}

/* If this failed, a gateway without a battery clock would refuse every certificate, or one with a wrong clock would take old ones. */
static void certificates_under_a_wrong_clock(void **state) {
    (void)state;
    const int64_t hour_ms = 3600000, wall_ms = now_wall_ms();
    now_reset_floor_ms(0);
    assert_int_equal(now_valid(wall_ms - hour_ms, wall_ms + hour_ms), NOW_VALID);
    assert_int_equal(now_valid(wall_ms - 2 * hour_ms, wall_ms - hour_ms), NOW_EXPIRED);
    assert_int_equal(now_valid(wall_ms + hour_ms, wall_ms + 2 * hour_ms), NOW_NOT_YET);
    now_set_floor_ms(wall_ms + 10 * hour_ms); /* the clock is behind what is known */
    assert_int_equal(now_valid(wall_ms - hour_ms, wall_ms + hour_ms), NOW_EXPIRED);
    assert_int_equal(now_valid(wall_ms - hour_ms, wall_ms + 11 * hour_ms), NOW_VALID);
    assert_int_equal(now_valid(wall_ms + 20 * hour_ms, wall_ms + 30 * hour_ms), NOW_VALID);
    now_reset_floor_ms(wall_ms - 10 * hour_ms); /* it is ahead of what is known: expiry goes by what is known */
    now_distrust();
    assert_int_equal(now_valid(wall_ms - 20 * hour_ms, wall_ms - hour_ms), NOW_VALID);
    assert_int_equal(now_valid(wall_ms - 20 * hour_ms, wall_ms - 11 * hour_ms), NOW_EXPIRED);
    assert_int_equal(now_valid(wall_ms + hour_ms, wall_ms + 2 * hour_ms), NOW_NOT_YET);
    now_set_floor_ms(wall_ms); /* the site's time is heard */
    assert_int_equal(now_valid(wall_ms - 20 * hour_ms, wall_ms - hour_ms), NOW_EXPIRED);
}

/* If monotonic time went back, leases and elections would be decided wrongly. */
static void monotonic_time_does_not_go_back(void **state) {
    (void)state;
    uint64_t before_us = now_monotonic_us();
    for (int i = 0; i < 1000; i++) {
        uint64_t now_us = now_monotonic_us();
        assert_true(now_us >= before_us);
        before_us = now_us;
    }
    assert_true(now_monotonic_ms() >= before_us / 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dates_agree_with_the_c_library),
        cmocka_unit_test(wild_times_are_shown_as_the_nearest_date),
        cmocka_unit_test(wall_time_keeps_to_its_floor_and_the_floor_never_sinks),
        cmocka_unit_test(certificates_under_a_wrong_clock),
        cmocka_unit_test(monotonic_time_does_not_go_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
