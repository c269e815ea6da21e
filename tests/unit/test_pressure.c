/* If this failed, a gateway that cannot keep up would go on getting tasks, or tasks would wander between gateways for ever. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/run/pressure.h"

static struct pressure p;
static struct pressure_sample s;
static uint64_t now_ms;

static int setup(void **state) {
    (void)state;
    p = (struct pressure)PRESSURE_DEFAULT;
    s = (struct pressure_sample){.all_ticks = 1000, .memory_available_permille = 500};
    now_ms = 1000;
    return 0;
}

/* So many seconds with so much load; is it hot at the end? */
static bool pass(unsigned seconds, unsigned busy_permille) {
    bool hot = p.hot;
    for (unsigned i = 0; i < seconds; i += 5) {
        now_ms += 5000;
        s.all_ticks += 1000;
        s.busy_ticks += busy_permille;
        hot = pressure_judge(&p, &s, now_ms);
    }
    return hot;
}

static void five_busy_minutes_make_it_hot(void **state) {
    (void)state;
    assert_false(pass(60, 100));
    assert_false(pass(240, 1000)); /* four minutes are a job, not a hot spot */
    assert_false(pass(30, 0));     /* a pause begins the time anew */
    assert_false(pass(240, 1000));
    assert_true(pass(240, 1000));
    assert_true(pass(20, 300)); /* not cool at once */
    assert_true(pass(300, 800));
    assert_false(pass(300, 300));
    assert_false(pass(600, 840));
}

static void memory_that_is_short_makes_it_hot(void **state) {
    (void)state;
    s.memory_available_permille = 90;
    assert_false(pass(25, 100));
    assert_true(pass(15, 100));
    s.memory_available_permille = 120; /* more, but not enough to take tasks back */
    assert_true(pass(120, 100));
    s.memory_available_permille = 400;
    assert_true(pass(30, 100));
    assert_false(pass(60, 100));
    s.stall_permille = 300;
    assert_true(pass(60, 100));
}

static void this_machine_tells(void **state) {
    (void)state;
    assert_true(pressure_read(&s));
    assert_true(s.all_ticks > 0 && s.busy_ticks <= s.all_ticks && s.memory_available_permille <= 1000);
    s.all_ticks = s.busy_ticks = 0; /* counters that go back (another boot) harm nothing */
    assert_false(pass(5, 0));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup(five_busy_minutes_make_it_hot, setup),
                                       cmocka_unit_test_setup(memory_that_is_short_makes_it_hot, setup),
                                       cmocka_unit_test_setup(this_machine_tells, setup)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
