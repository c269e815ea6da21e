/* If this failed, a gateway that is gone would get tasks for too long, or one on a jittery link none at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/work/phi.h"

/* Words with pauses of mean +- jitter ms; the time of the last one. */
static uint64_t speak(struct phi *p, uint64_t now_ms, unsigned count, uint64_t mean_ms, uint64_t jitter_ms) {
    for (unsigned i = 0; i < count; i++) {
        now_ms += mean_ms + (i % 2 == 0 ? jitter_ms : 0) - (i % 2 == 0 ? 0 : jitter_ms);
        phi_heard(p, now_ms);
    }
    return now_ms;
}

static void silence_makes_it_suspect_and_then_gone(void **state) {
    (void)state;
    struct phi p = {0};
    uint64_t now_ms = speak(&p, 1000, 100, 150, 10);
    assert_int_equal(phi_level(&p, now_ms + 300), PHI_WELL);
    assert_int_equal(phi_level(&p, now_ms + 150 + 520), PHI_SUSPECT);
    assert_int_equal(phi_level(&p, now_ms + 2000), PHI_SUSPECT);
    assert_int_equal(phi_level(&p, now_ms + 150 + 2260), PHI_GONE);
    phi_heard(&p, now_ms + 3000); /* back */
    assert_int_equal(phi_level(&p, now_ms + 3001), PHI_WELL);
}

static void a_jittery_link_is_given_more_time(void **state) {
    (void)state;
    struct phi p = {0};
    uint64_t now_ms = speak(&p, 1000, 400, 1500, 1400);
    assert_int_equal(phi_level(&p, now_ms + 3000), PHI_WELL);
    assert_int_equal(phi_level(&p, now_ms + 5000), PHI_SUSPECT);
    assert_int_equal(phi_level(&p, now_ms + 12000), PHI_GONE);
    now_ms = speak(&p, now_ms, 400, 150, 0); /* and less again when it is better */
    assert_int_equal(phi_level(&p, now_ms + 2500), PHI_GONE);
}

static void a_stranger_is_not_judged(void **state) {
    (void)state;
    struct phi p = {0};
    assert_int_equal(phi_level(&p, 1000000), PHI_WELL);
    uint64_t now_ms = speak(&p, 1000, PHI_SAMPLES_MIN, 100, 0); /* the first word begins the first pause */
    assert_int_equal(phi_level(&p, now_ms + 100000), PHI_WELL);
    phi_heard(&p, now_ms + 100);
    assert_int_equal(phi_level(&p, now_ms + 100000), PHI_GONE);
}

/* If this failed, an engineer would read another suspicion than the one the site acts on. */
static void the_number_says_what_the_level_does(void **state) {
    (void)state;
    struct phi p = {0};
    assert_int_equal(phi_milli(&p, 1000000), 0);
    uint64_t now_ms = speak(&p, 1000, 200, 150, 40);
    uint32_t before = 0;
    for (uint64_t silent_ms = 0; silent_ms < 20000; silent_ms++) {
        uint32_t milli = phi_milli(&p, now_ms + silent_ms);
        enum phi_level level = phi_level(&p, now_ms + silent_ms);
        assert_true(milli >= before && milli <= PHI_MILLI_MAX);
        assert_int_equal(level, milli >= PHI_DEAD_MILLI ? PHI_GONE : milli >= PHI_SUSPECT_MILLI ? PHI_SUSPECT : PHI_WELL);
        before = milli;
    }
    assert_int_equal(before, PHI_MILLI_MAX);
    assert_in_range(phi_milli(&p, now_ms + 150), 200, 400); /* one in two such silences is longer */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(silence_makes_it_suspect_and_then_gone), cmocka_unit_test(a_jittery_link_is_given_more_time),
        cmocka_unit_test(a_stranger_is_not_judged), cmocka_unit_test(the_number_says_what_the_level_does)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
