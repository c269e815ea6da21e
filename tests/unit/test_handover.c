/* When a leader without an uplink hands over: if it failed, a site would stay silent though a neighbour has a good line, or leadership would wander, or
 * questions would cost a metered link what they should save. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "federation/handover.h"

#define AFTER 300000u

/* Steps each second; how often it asked until `to`. */
static unsigned run(struct handover *h, uint64_t from, uint64_t to, uint64_t *last) {
    unsigned count = 0;
    for (uint64_t t = from; t < to; t += 1000) {
        if (handover_step(h, t, (uint32_t)t * 2654435761u)) {
            count++;
            *last = t;
        }
    }
    return count;
}

static void it_asks_when_its_link_is_broken_for_long(void **state) {
    (void)state;
    struct handover h;
    uint64_t at = 0;
    handover_init(&h, AFTER);
    assert_int_equal(handover_wake_ms(&h), UINT64_MAX);
    handover_lead(&h, 1000);
    handover_link(&h, true, 1000, 0);
    assert_int_equal(run(&h, 1000, 10 * AFTER, &at), 0);
    handover_link(&h, false, 10 * AFTER, 7);
    assert_int_equal(run(&h, 10 * AFTER, 11 * AFTER, &at), 0);
    assert_int_equal(run(&h, 11 * AFTER, 11 * AFTER + AFTER / 2 + 2000, &at), 1);
    assert_false(handover_answered(&h, h.number, false, at + 10));
    assert_false(handover_answered(&h, h.number - 1, true, at + 10));
    assert_true(handover_answered(&h, h.number, true, at + 20));
    assert_false(handover_answered(&h, h.number, true, at + 30)); /* one gets it */
}

static void a_link_that_comes_back_ends_it(void **state) {
    (void)state;
    struct handover h;
    uint64_t at = 0;
    handover_init(&h, AFTER);
    handover_lead(&h, 0);
    handover_link(&h, false, 0, 0);
    assert_int_equal(run(&h, 0, AFTER * 3 / 2, &at), 1);
    handover_link(&h, true, at + 5, 0);
    assert_false(handover_answered(&h, h.number, true, at + 10));
    assert_int_equal(run(&h, at + 10, 100 * (uint64_t)AFTER, &at), 0);
    handover_link(&h, false, 100 * (uint64_t)AFTER, 0);
    assert_int_equal(handover_wake_ms(&h), 101 * (uint64_t)AFTER); /* patience as at first */
    handover_follow(&h);
    assert_int_equal(handover_wake_ms(&h), UINT64_MAX);
}

static void late_answers_count_for_nothing(void **state) {
    (void)state;
    struct handover h;
    uint64_t at = 0;
    handover_init(&h, AFTER);
    handover_lead(&h, 0);
    handover_link(&h, false, 0, 0);
    assert_int_equal(run(&h, 0, AFTER * 2, &at), 1);
    assert_false(handover_answered(&h, h.number, true, at + HANDOVER_ANSWER_MS));
}

/* A week in which nobody reaches anything. */
static void it_asks_rarely_when_all_are_cut_off(void **state) {
    (void)state;
    struct handover h;
    uint64_t at = 0;
    handover_init(&h, AFTER);
    handover_lead(&h, 0);
    handover_link(&h, false, 0, 0);
    unsigned first_day = run(&h, 0, 86400000, &at), week = first_day + run(&h, 86400000, 7 * 86400000ull, &at);
    assert_in_range(first_day, 6, 12);
    assert_in_range(week, 26, 50);
}

/* Two gateways whose lines answer a look and carry no link: a gateway leads at most three times an hour. */
static void leadership_does_not_wander(void **state) {
    (void)state;
    struct handover h[2];
    uint64_t at = 0;
    unsigned moves = 0, leader = 0;
    handover_init(&h[0], 10000);
    handover_init(&h[1], 10000);
    handover_lead(&h[0], 0);
    handover_link(&h[0], false, 0, 0);
    for (uint64_t t = 0; t < 3600000; t += 100) {
        if (handover_step(&h[leader], t, (uint32_t)t) && handover_answered(&h[leader], h[leader].number, true, t)) {
            handover_follow(&h[leader]);
            leader = 1 - leader;
            handover_lead(&h[leader], t);
            handover_link(&h[leader], false, t, 0);
            moves++;
            at = t;
        }
    }
    assert_in_range(moves, 2, 5);
    assert_true(handover_wake_ms(&h[leader]) >= 3600000);
    assert_true(run(&h[leader], 3600000, 3600000 + HANDOVER_HOUR_MS, &at) > 0); /* and afterwards again */
}

static void who_is_asked_looks_now_and_then(void **state) {
    (void)state;
    struct handover h;
    handover_init(&h, AFTER);
    assert_int_equal(handover_asked(&h, 5), HANDOVER_LOOK);
    assert_int_equal(handover_asked(&h, 6), HANDOVER_LOOKING);
    handover_looked(&h, true, 1000);
    assert_int_equal(handover_asked(&h, 1001), HANDOVER_SAW);
    assert_int_equal(handover_asked(&h, 1000 + AFTER / 2), HANDOVER_LOOK);
    handover_looked(&h, false, 1000 + AFTER);
    assert_int_equal(handover_asked(&h, 1001 + AFTER), HANDOVER_SAW_NOT);
}

static void it_can_be_switched_off(void **state) {
    (void)state;
    struct handover h;
    uint64_t at = 0;
    handover_init(&h, 0);
    handover_lead(&h, 0);
    handover_link(&h, false, 0, 9);
    assert_int_equal(run(&h, 0, 86400000, &at), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_asks_when_its_link_is_broken_for_long),
        cmocka_unit_test(a_link_that_comes_back_ends_it),
        cmocka_unit_test(late_answers_count_for_nothing),
        cmocka_unit_test(it_asks_rarely_when_all_are_cut_off),
        cmocka_unit_test(leadership_does_not_wander),
        cmocka_unit_test(who_is_asked_looks_now_and_then),
        cmocka_unit_test(it_can_be_switched_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
