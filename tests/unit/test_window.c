/* Hours at which the link has another limit: a mistake here sends bulk through the metered modem in the middle of the shift. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "federation/window.h"

/* 2026-03-02 is a Monday. */
static struct window_time at(unsigned hour, unsigned minute, unsigned day) {
    return (struct window_time){
        .minute = (uint8_t)minute, .hour = (uint8_t)hour, .day = (uint8_t)day, .month = 3, .weekday = (uint8_t)((day - 1) % 7)};
}

static struct window parsed(const char *text) {
    struct window w;
    struct fault f = {0};
    if (window_parse(&w, bytes_str(text), &f) != E_OK) {
        fail_msg("%s: %s", text, f.text);
    }
    return w;
}

static void a_working_day_is_limited_and_the_night_is_not(void **state) {
    (void)state;
    struct window windows[] = {parsed("* 8-17 * * mon-fri limit_mbps=0.5"),
                               parsed("*  22-23,0-5 * * *\tlimit_mbps=20 down_limit_mbps=2"),
                               parsed("30-59/15 12 * * 1-5 forbid=data,events")};
    static const struct {
        unsigned hour, minute, day;
        uint64_t up, down;
        bool no_data;
    } rows[] = {
        {7, 59, 2, 1250000, 0, false},      {8, 0, 2, 62500, 0, false},    {17, 59, 6, 62500, 0, false},
        {18, 0, 6, 1250000, 0, false},      {10, 0, 7, 1250000, 0, false}, {22, 0, 7, 2500000, 250000, false},
        {5, 59, 3, 2500000, 250000, false}, {6, 0, 3, 1250000, 0, false},  {12, 29, 3, 62500, 0, false},
        {12, 30, 3, 62500, 0, true},        {12, 31, 3, 62500, 0, false},  {12, 45, 3, 62500, 0, true},
        {12, 45, 8, 1250000, 0, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct window_time t = at(rows[i].hour, rows[i].minute, rows[i].day);
        struct window_rule rule = {.up_bytes_per_s = 1250000};
        window_apply(windows, 3, &t, &rule);
        assert_int_equal(rule.up_bytes_per_s, rows[i].up);
        assert_int_equal(rule.down_bytes_per_s, rows[i].down);
        assert_int_equal(rule.forbids[CHANNEL_DATA], rows[i].no_data);
        assert_int_equal(rule.forbids[CHANNEL_EVENTS], rows[i].no_data);
        assert_false(rule.forbids[CHANNEL_CONTROL]);
    }
}

static void the_later_line_wins(void **state) {
    (void)state;
    struct window windows[] = {parsed("* * * * * limit_mbps=1 forbid=data"), parsed("* * 2 * * limit_mbps=0")};
    struct window_time t = at(0, 0, 2);
    struct window_rule rule = {.up_bytes_per_s = 5000};
    window_apply(windows, 2, &t, &rule);
    assert_int_equal(rule.up_bytes_per_s, 0);
    assert_true(rule.forbids[CHANNEL_DATA]); /* what one forbids no other allows */
}

/* Every field, by counting the minutes of a month that match, against a count by hand. */
static void fields_mean_what_cron_means(void **state) {
    (void)state;
    static const struct {
        const char *fields;
        uint32_t minutes; /* of March 2026 */
    } rows[] = {
        {"* * * * *", 31 * 1440}, {"0 * * * *", 31 * 24}, {"*/15 * * * *", 31 * 96}, {"5-20/5 3 * * *", 31 * 4},
        {"50/5 0 * * *", 31 * 2}, {"0 0 1,15,31 * *", 3}, {"0 0 * mar *", 31},       {"0 0 * 1-2,apr-dec *", 0},
        {"0 0 * * sun", 5},       {"0 0 * * 0", 5},       {"0 0 * * 7", 5},          {"0 0 * * sat-7", 9},
        {"0 0 * * 1", 5},         {"0 0 13 * fri", 4},    {"0 0 13,2 * fri", 5},     {"0 0 */2 * fri", 2},
        {"59 23 31 3 *", 1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[WINDOW_TEXT_BYTES];
        (void)snprintf(text, sizeof text, "%s forbid=data", rows[i].fields);
        struct window w = parsed(text);
        uint32_t minutes = 0;
        for (unsigned m = 0; m < 31 * 1440; m++) {
            struct window_time t = at(m / 60 % 24, m % 60, m / 1440 + 1);
            minutes += window_open(&w, &t);
        }
        if (minutes != rows[i].minutes) {
            fail_msg("%s: %u minutes", rows[i].fields, (unsigned)minutes);
        }
    }
}

static void what_cannot_be_meant_is_refused_with_words(void **state) {
    (void)state;
    static const char *const rows[][2] = {
        {"", "expected minute, hour"},
        {"* * * *", "expected minute, hour"},
        {"* * * * *", "not what holds then"},
        {"60 * * * * forbid=data", "'60' is no minute (0 to 59"},
        {"* 24 * * * forbid=data", "is no hour"},
        {"* * 0 * * forbid=data", "is no day of the month"},
        {"* * * foo * forbid=data", "is no month"},
        {"* * * * 8 forbid=data", "is no day of the week"},
        {"5-3 * * * * forbid=data", "is no minute"},
        {"1, * * * * forbid=data", "is no minute"},
        {",1 * * * * forbid=data", "is no minute"},
        {"*/0 * * * * forbid=data", "is no minute"},
        {"*/ * * * * forbid=data", "is no minute"},
        {"1- * * * * forbid=data", "is no minute"},
        {"-1 * * * * forbid=data", "is no minute"},
        {"001 * * * * forbid=data", "is no minute"},
        {"* * * * * forbid=control", "cannot be forbidden"},
        {"* * * * * forbid=bulk", "wants data, events"},
        {"* * * * * forbid=", "wants data, events"},
        {"* * * * * limit=1", "expected limit_mbps="},
        {"* * * * * limit_mbps=0.01", "0.016 or more"},
        {"* * * * * limit_mbps=1.2345", "three decimals"},
        {"* * * * * limit_mbps=", "three decimals"},
        {"* * * * * limit_mbps=100001", "three decimals"},
        {"* * * * * down_limit_mbps=-1", "three decimals"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct window w;
        struct fault f = {0};
        assert_int_equal(window_parse(&w, bytes_str(rows[i][0]), &f), E_CONFIG);
        if (strstr(f.text, rows[i][1]) == NULL) {
            fail_msg("%s: %s", rows[i][0], f.text);
        }
    }
}

static void limits_are_read_exactly(void **state) {
    (void)state;
    uint64_t v;
    assert_true(window_parse_mbps(bytes_str("0.016"), &v) && v == 2000);
    assert_true(window_parse_mbps(bytes_str("10"), &v) && v == 1250000);
    assert_true(window_parse_mbps(bytes_str("0.5"), &v) && v == 62500);
    assert_true(window_parse_mbps(bytes_str("0"), &v) && v == 0);
    assert_true(window_parse_mbps(bytes_str("100000"), &v) && v == 12500000000u);
    assert_false(window_parse_mbps(bytes_str("."), &v));
    assert_false(window_parse_mbps(bytes_str("1.2.3"), &v));
    assert_false(window_parse_mbps(bytes_str("99999999999999999999999"), &v));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_working_day_is_limited_and_the_night_is_not),
        cmocka_unit_test(the_later_line_wins),
        cmocka_unit_test(fields_mean_what_cron_means),
        cmocka_unit_test(what_cannot_be_meant_is_refused_with_words),
        cmocka_unit_test(limits_are_read_exactly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
