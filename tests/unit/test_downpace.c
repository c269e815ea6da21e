/* What comes down keeps to what the site allows: a mistake here fills the modem of a site from the core's side, or silences the core. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/downpace.h"

#define S 1000000u

static void a_site_gets_what_it_allows(void **state) {
    (void)state;
    struct downpace *d = downpace_new();
    uint64_t now_us = 1, carried = 0, span_us = 60 * (uint64_t)S;
    assert_true(downpace_set(d, "thin", 2000, now_us));
    while (now_us < span_us) {
        uint64_t wait_us = downpace_wait_us(d, "thin", 100, now_us);
        if (wait_us == 0) {
            carried += 100 + 100 + 60 + 60; /* with what stands around it, and the acknowledgement */
        }
        now_us += wait_us;
        assert_in_range(wait_us, 0, S);
    }
    assert_in_range(carried, 60 * 2000 * 9 / 10, 60 * 2000 + 1500);
    assert_int_equal(downpace_wait_us(d, "thick", 1000000, now_us), 0); /* said nothing */
    downpace_free(d);
}

static void what_answers_the_site_counts(void **state) {
    (void)state;
    struct downpace *d = downpace_new();
    uint64_t now_us = 1;
    assert_true(downpace_set(d, "thin", 2000, now_us));
    assert_int_equal(downpace_wait_us(d, "thin", 100, now_us), 0);
    for (int i = 0; i < 50; i++) {
        downpace_heard(d, "thin", 28000, now_us); /* an acknowledgement of the broker, ten of the network */
    }
    assert_in_range(downpace_wait_us(d, "thin", 100, now_us), 15 * (uint64_t)S, 20 * (uint64_t)S);
    downpace_heard(d, "other", 28000, now_us);
    assert_int_equal(downpace_wait_us(d, "other", 100, now_us), 0);
    downpace_free(d);
}

static void a_large_message_goes_and_is_paid_for(void **state) {
    (void)state;
    struct downpace *d = downpace_new();
    assert_true(downpace_set(d, "thin", 2000, 1));
    assert_int_equal(downpace_wait_us(d, "thin", 20000, 1), 0);
    assert_in_range(downpace_wait_us(d, "thin", 100, 1), 9 * (uint64_t)S, 12 * (uint64_t)S);
    downpace_free(d);
}

static void many_sites_come_and_go(void **state) {
    (void)state;
    struct downpace *d = downpace_new();
    char site[32];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 5000; i++) {
            (void)snprintf(site, sizeof site, "site-%d", round * 2500 + i);
            assert_true(downpace_set(d, site, 4000 + (uint64_t)i, 1));
        }
        assert_int_equal(downpace_count(d), 5000);
        for (int i = 0; i < 2500; i++) { /* half of them lift their limit */
            (void)snprintf(site, sizeof site, "site-%d", round * 2500 + i);
            assert_true(downpace_set(d, site, 0, 2));
            assert_int_equal(downpace_wait_us(d, site, 1000000, 2), 0);
            assert_int_equal(downpace_wait_us(d, site, 1000000, 2), 0);
        }
        assert_int_equal(downpace_count(d), 2500);
    }
    assert_true(downpace_set(d, "unheard-of", 0, 3));
    assert_int_equal(downpace_count(d), 2500);
    downpace_free(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_site_gets_what_it_allows),
        cmocka_unit_test(what_answers_the_site_counts),
        cmocka_unit_test(a_large_message_goes_and_is_paid_for),
        cmocka_unit_test(many_sites_come_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
