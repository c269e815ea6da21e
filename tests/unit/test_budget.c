/* What a metered link may cost: a mistake here is a bill, or an alarm that nobody pays for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "federation/budget.h"

#define MB 1000000u

static void the_day_is_spent_and_midnight_begins_a_new_one(void **state) {
    (void)state;
    struct budget_rules r = {.day_bytes = 5 * MB, .reserve_percent = 20};
    struct budget_used u = {0};
    budget_date(&u, 100, 24300);
    assert_int_equal(budget_left(&r, &u, false), 4 * MB);
    assert_int_equal(budget_left(&r, &u, true), 5 * MB);
    budget_spend(&u, 4 * MB - 1);
    assert_true(budget_allows(&r, &u, false));
    budget_spend(&u, 1);
    assert_false(budget_allows(&r, &u, false));
    assert_int_equal(budget_left(&r, &u, true), 1 * MB); /* the reserve */
    budget_spend(&u, 3 * MB);
    assert_true(budget_allows(&r, &u, true)); /* what is critical is told in any case */
    assert_int_equal(budget_left(&r, &u, true), 0);
    budget_date(&u, 101, 24300);
    assert_true(budget_allows(&r, &u, false));
    assert_int_equal(u.month_bytes, 7 * MB);
}

static void the_month_binds_when_it_is_tighter(void **state) {
    (void)state;
    struct budget_rules r = {.day_bytes = 10 * MB, .month_bytes = 100 * MB, .reserve_percent = 10};
    struct budget_used u = {0};
    for (uint32_t day = 1; day <= 30; day++) {
        budget_date(&u, day, 7);
        while (budget_allows(&r, &u, false)) {
            budget_spend(&u, MB / 10);
        }
        assert_int_equal(u.day_bytes, day <= 10 ? 9 * MB : 0);
    }
    assert_int_equal(u.month_bytes, 90 * MB);
    budget_date(&u, 31, 8);
    assert_true(budget_allows(&r, &u, false));
}

static void a_month_begins_where_the_contract_says(void **state) {
    (void)state;
    assert_int_equal(budget_month(2026, 3, 1, 1), 2026 * 12 + 3);
    assert_int_equal(budget_month(2026, 3, 14, 15), 2026 * 12 + 2);
    assert_int_equal(budget_month(2026, 3, 15, 15), 2026 * 12 + 3);
    assert_int_equal(budget_month(2026, 1, 14, 15), budget_month(2025, 12, 31, 15));
    assert_int_equal(budget_month(2026, 1, 1, 1), budget_month(2025, 12, 31, 1) + 1);
}

static void a_clock_that_is_corrected_spends_nothing_twice(void **state) {
    (void)state;
    struct budget_rules r = {.day_bytes = MB};
    struct budget_used u = {0};
    budget_date(&u, 20000, 24320);
    budget_spend(&u, 900000);
    budget_date(&u, 19999, 24319); /* it was yesterday after all */
    assert_int_equal(budget_left(&r, &u, false), 100000);
    budget_date(&u, 19999, 24319);
    assert_int_equal(budget_left(&r, &u, false), 100000);
    budget_date(&u, 20000, 24320);
    assert_int_equal(budget_left(&r, &u, false), MB);
    budget_spend(&u, UINT64_MAX);
    budget_spend(&u, UINT64_MAX);
    assert_false(budget_allows(&r, &u, false));
}

/* Leaders come and go; each knows what the log said when the last one fell.  What is lost is one step for each. */
static void leaders_go_on_where_the_log_stands(void **state) {
    (void)state;
    struct budget_rules r = {.day_bytes = 5 * MB, .month_bytes = 50 * MB, .reserve_percent = 10};
    uint64_t random = 1;
    for (int run = 0; run < 200; run++) {
        struct budget_used log = {0};
        uint64_t spent = 0, entries = 0, leaders = 1 + (uint64_t)run % 5;
        for (uint64_t leader = 0; leader < leaders; leader++) {
            struct budget_used u = {0};
            budget_learn(&u, &log);
            budget_date(&u, 500, 60);
            random = random * 6364136223846793005u + 1442695040888963407u;
            uint64_t falls_at = spent + (random >> 33) % (2 * MB);
            while (budget_allows(&r, &u, false) && (spent < falls_at || leader + 1 == leaders)) {
                uint64_t bytes = 1 + (random >> 40) % 1500;
                budget_spend(&u, bytes);
                spent += bytes;
                if (budget_tell(&r, &u, &log)) {
                    budget_learn(&log, &u);
                    entries++;
                }
            }
        }
        assert_in_range(spent, 4500000, 4500000 + (leaders - 1) * 250000 + 1500);
        assert_in_range(entries, 18, 19 + 2 * leaders); /* the log hears of steps, not of packets */
    }
}

static void an_old_figure_does_not_replace_a_new_one(void **state) {
    (void)state;
    struct budget_used u = {.day = 10, .month = 3, .day_bytes = 500, .month_bytes = 9000};
    struct budget_used before = {.day = 9, .month = 3, .day_bytes = 8000, .month_bytes = 8500};
    budget_learn(&u, &before);
    assert_true(u.day == 10 && u.day_bytes == 500 && u.month_bytes == 9000);
    struct budget_used later = {.day = 11, .month = 4, .day_bytes = 1, .month_bytes = 1};
    budget_learn(&u, &later);
    assert_true(u.day == 11 && u.day_bytes == 1 && u.month == 4 && u.month_bytes == 1);
    struct budget_rules none = {0}, one = {.month_bytes = 100};
    assert_false(budget_limited(&none));
    assert_true(budget_limited(&one));
    assert_int_equal(budget_left(&none, &u, false), UINT64_MAX);
    assert_false(budget_tell(&none, &u, &before));
    struct budget_used told = {.day = 11, .month = 3, .day_bytes = 1, .month_bytes = 90};
    u.month_bytes = 5;
    assert_true(budget_tell(&one, &u, &told)); /* a new month begins at its own first step */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_day_is_spent_and_midnight_begins_a_new_one),
        cmocka_unit_test(the_month_binds_when_it_is_tighter),
        cmocka_unit_test(a_month_begins_where_the_contract_says),
        cmocka_unit_test(a_clock_that_is_corrected_spends_nothing_twice),
        cmocka_unit_test(leaders_go_on_where_the_log_stands),
        cmocka_unit_test(an_old_figure_does_not_replace_a_new_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
