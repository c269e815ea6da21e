/* The keep-alive that is learned: a mistake here loses the site's link for a quarter of an hour again and again, or pays for pings that
 * nobody needs on a metered line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "federation/keepalive.h"

/* A link that is idle for ever, through a middlebox that forgets connections after forget_s (0: never).  Each lost connection is noticed
 * stall_s after its ping, and a new one stands mend_s later.  Returns how many were lost in that time. */
static uint32_t idle_for(struct keepalive *k, uint64_t *now_ms, uint64_t duration_s, uint32_t forget_s, uint32_t mend_s,
                         uint32_t *pings) {
    uint32_t lost = 0;
    uint64_t end_ms = *now_ms + duration_s * 1000;
    keepalive_begin(k, *now_ms);
    uint32_t interval_s = k->interval_s;
    while (*now_ms < end_ms) {
        *now_ms += interval_s * 1000ull;
        ++*pings;
        keepalive_spoke(k, *now_ms);
        if (forget_s == 0 || interval_s < forget_s) {
            *now_ms += 80;
            keepalive_heard(k, *now_ms);
            continue;
        }
        *now_ms += 30000;
        keepalive_end(k, *now_ms, true);
        lost++;
        *now_ms += mend_s * 1000ull;
        interval_s = keepalive_ask_s(k, *now_ms);
        keepalive_begin(k, *now_ms);
        assert_int_equal(interval_s, k->interval_s); /* what CONNECT said is what is counted */
    }
    keepalive_end(k, *now_ms, false);
    return lost;
}

/* If this fails, an idle site on an open path pings more often than it must, and costs more than 32 KiB a day. */
static void an_open_path_is_pinged_every_quarter_hour(void **state) {
    (void)state;
    struct keepalive k;
    uint64_t now_ms = 5000;
    uint32_t pings = 0;
    keepalive_init(&k, 900);
    assert_int_equal(idle_for(&k, &now_ms, 86400, 0, 1, &pings), 0);
    assert_in_range(pings, 95, 97);
    assert_int_equal(k.interval_s, 900);
}

/* If this fails, a site behind a carrier's NAT is unreachable most of the time, for ever. */
static void a_forgetful_middlebox_is_found(void **state) {
    (void)state;
    static const uint32_t forget_s[] = {31, 60, 120, 300, 600, 899};
    for (size_t i = 0; i < sizeof forget_s / sizeof forget_s[0]; i++) {
        struct keepalive k;
        uint64_t now_ms = 5000;
        uint32_t pings = 0;
        keepalive_init(&k, 900);
        assert_in_range(idle_for(&k, &now_ms, 86400, forget_s[i], 2, &pings), 1, 5); /* 900, 450, 225, 112, 56 */
        assert_in_range(k.interval_s, forget_s[i] / 2 < KEEPALIVE_S_MIN ? KEEPALIVE_S_MIN : forget_s[i] / 2 - 1, forget_s[i] - 1);
    }
}

/* If this fails, each outage of the line makes the site chattier, until its idle day costs ten times what was promised. */
static void an_outage_teaches_nothing(void **state) {
    (void)state;
    struct keepalive k;
    uint64_t now_ms = 5000;
    uint32_t pings = 0;
    keepalive_init(&k, 900);
    for (int i = 0; i < 20; i++) {
        (void)idle_for(&k, &now_ms, 1800, 0, 1, &pings);
        keepalive_begin(&k, now_ms);
        now_ms += 900000;
        keepalive_spoke(&k, now_ms); /* into the void */
        now_ms += 30000;
        keepalive_end(&k, now_ms, true);
        now_ms += 240000; /* four minutes without a line */
        keepalive_begin(&k, now_ms);
        assert_int_equal(k.interval_s, 900);
    }
}

/* If this fails, a broker that restarts, or a busy link that breaks, is taken for a forgetful middlebox. */
static void an_end_that_nobody_asked_for_teaches_nothing(void **state) {
    (void)state;
    struct keepalive k;
    keepalive_init(&k, 900);
    keepalive_begin(&k, 1000);
    keepalive_end(&k, 800000, true); /* closed by the broker after a silence */
    keepalive_begin(&k, 801000);
    assert_int_equal(k.interval_s, 900);
    keepalive_spoke(&k, 1601000);
    keepalive_end(&k, 1601050, false); /* leadership moved on */
    keepalive_begin(&k, 1602000);
    assert_int_equal(k.interval_s, 900);
    keepalive_end(&k, 1602000, false);
    keepalive_begin(&k, 801000);
    keepalive_spoke(&k, 802000); /* 1 s after the last byte, and again without an answer */
    keepalive_spoke(&k, 830000);
    keepalive_end(&k, 840000, true);
    keepalive_begin(&k, 841000);
    assert_int_equal(k.interval_s, 900);
}

/* If this fails, a site whose NAT was replaced by a better one pays for the old one's pings for ever. */
static void a_better_path_is_used_again(void **state) {
    (void)state;
    struct keepalive k;
    uint64_t now_ms = 5000;
    uint32_t pings = 0;
    keepalive_init(&k, 900);
    (void)idle_for(&k, &now_ms, 86400, 100, 2, &pings);
    assert_in_range(k.interval_s, 50, 99);
    for (int i = 0; i < 40; i++) { /* a new connection a day, as leaders and modems change */
        assert_int_equal(idle_for(&k, &now_ms, 86400, 0, 2, &pings), 0);
    }
    assert_int_equal(k.interval_s, 900);
}

/* If this fails, growing back from a learned time loses the link each time, against what is known. */
static void growing_stops_below_what_failed(void **state) {
    (void)state;
    struct keepalive k;
    uint64_t now_ms = 5000;
    uint32_t pings = 0, lost = 0;
    keepalive_init(&k, 900);
    (void)idle_for(&k, &now_ms, 43200, 300, 2, &pings);
    for (int i = 0; i < 5; i++) {
        lost += idle_for(&k, &now_ms, 86400, 300, 2, &pings);
    }
    assert_in_range(lost, 0, 3);  /* each tells a little more */
    for (int i = 0; i < 6; i++) { /* then no more */
        lost = idle_for(&k, &now_ms, 86400 / 6, 300, 2, &pings);
        assert_int_equal(lost, 0);
    }
    assert_in_range(k.interval_s, 200, 299);
}

static void a_configured_time_below_the_floor_is_kept(void **state) {
    (void)state;
    struct keepalive k;
    keepalive_init(&k, 5);
    keepalive_begin(&k, 1000);
    keepalive_spoke(&k, 21000);
    keepalive_end(&k, 22000, true);
    keepalive_begin(&k, 23000);
    assert_int_equal(k.interval_s, 5);
}

/* What a process learned is what the next one begins with. */
static void it_survives_a_restart(void **state) {
    (void)state;
    struct keepalive k, next;
    struct keepalive_learned l, again;
    uint64_t now_ms = 1000000;
    uint32_t pings = 0;
    keepalive_init(&k, 900);
    assert_true(idle_for(&k, &now_ms, 86400, 300, 2, &pings) > 0);
    keepalive_keep(&k, now_ms, &l);
    assert_in_range(l.interval_s, KEEPALIVE_S_MIN, 299);
    keepalive_init(&next, 900);
    keepalive_restore(&next, &l, 500); /* a machine that was switched on just now */
    assert_int_equal(keepalive_ask_s(&next, 600), l.interval_s);
    keepalive_keep(&next, 500, &again);
    assert_memory_equal(&l, &again, sizeof l);
    uint64_t later_ms = 600;
    assert_int_equal(idle_for(&next, &later_ms, 3 * 3600, 300, 2, &pings), 0);

    keepalive_init(&next, 60); /* configured shorter meanwhile */
    keepalive_restore(&next, &l, 500);
    assert_int_equal(keepalive_ask_s(&next, 500), 60);
    l.fatal_age_s = 8 * 86400; /* the gateway was away for longer than that counts */
    keepalive_init(&next, 900);
    keepalive_restore(&next, &l, 500);
    assert_int_equal(keepalive_ask_s(&next, 500), 900);
}

static void what_cannot_be_right_is_not_taken(void **state) {
    (void)state;
    static const struct keepalive_learned wrong[] = {{.interval_s = 0},
                                                     {.interval_s = 100, .fatal_s = 1},
                                                     {.interval_s = 100, .good_s = 500, .fatal_s = 400},
                                                     {.interval_s = UINT32_MAX, .good_s = UINT32_MAX}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct keepalive k;
        keepalive_init(&k, 900);
        keepalive_restore(&k, &wrong[i], 77);
        assert_int_equal(keepalive_ask_s(&k, 100), 900);
        assert_true(k.good_s == 0 && k.fatal_s == 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_open_path_is_pinged_every_quarter_hour),
        cmocka_unit_test(a_forgetful_middlebox_is_found),
        cmocka_unit_test(an_outage_teaches_nothing),
        cmocka_unit_test(an_end_that_nobody_asked_for_teaches_nothing),
        cmocka_unit_test(a_better_path_is_used_again),
        cmocka_unit_test(growing_stops_below_what_failed),
        cmocka_unit_test(a_configured_time_below_the_floor_is_kept),
        cmocka_unit_test(it_survives_a_restart),
        cmocka_unit_test(what_cannot_be_right_is_not_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
