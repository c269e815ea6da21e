/* Rollouts: if this failed, a version that breaks sites would go on to more of them, or a good one would stop half-way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/rollout.h"

static void it_goes_on_only_when_all_have_settled(void **state) {
    (void)state;
    struct rollout r = {.state = ROLLOUT_RUNNING, .stage_count = 2, .soak_s = 10, .since_ms = 1000};
    struct rollout_tally t = {.reached = 3, .settled = 2};
    assert_int_equal(rollout_next(&r, &t, 100000), ROLLOUT_WAIT);
    t.settled = 3;
    assert_int_equal(rollout_next(&r, &t, 10999), ROLLOUT_WAIT);
    assert_int_equal(rollout_next(&r, &t, 11000), ROLLOUT_ON);
    r.stage = 1;
    assert_int_equal(rollout_next(&r, &t, 11000), ROLLOUT_ALL);
    t = (struct rollout_tally){0}; /* a stage that no site is in */
    assert_int_equal(rollout_next(&r, &t, 10999), ROLLOUT_WAIT);
    assert_int_equal(rollout_next(&r, &t, 11000), ROLLOUT_ALL);
}

static void one_that_fails_takes_all_back(void **state) {
    (void)state;
    struct rollout r = {.state = ROLLOUT_RUNNING, .stage_count = 2, .soak_s = 10, .since_ms = 1000};
    struct rollout_tally t = {.reached = 3, .settled = 2, .failed = 1};
    assert_int_equal(rollout_next(&r, &t, 1000), ROLLOUT_REVERT);
    r.state = ROLLOUT_BACK;
    assert_int_equal(rollout_next(&r, &t, 1000), ROLLOUT_WAIT);
    r.state = ROLLOUT_DONE; /* all have it: nothing is decided any more */
    assert_int_equal(rollout_next(&r, &t, 1000), ROLLOUT_WAIT);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(it_goes_on_only_when_all_have_settled),
                                       cmocka_unit_test(one_that_fails_takes_all_back)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
