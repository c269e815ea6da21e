/* Bytes towards the core, held to the limit: a mistake here overruns a thin link, runs up a bill, or stops the uplink for ever. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "federation/shaper.h"

#define S 1000000u
#define SECONDS 20u
#define MOMENTS_MAX 200000u

static const struct shaper_path ETHERNET = {.segment_bytes = 1448, .header_bytes = 52};
static const uint64_t limits[] = {2000, 4000, 8000, 20000, 59999, 60001, 125000, 1250000, 12500000};
#define LIMITS (sizeof limits / sizeof limits[0])

static uint64_t random_state;
static uint32_t draw(uint32_t below) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % below;
}

/* All that left, to look back at any second of it. */
static struct { uint64_t at_us, bytes; } moments[MOMENTS_MAX];
static uint32_t moment_count;
static uint64_t left_bytes;

static void left(uint64_t now_us, uint64_t bytes) {
    assert_in_range(moment_count, 0, MOMENTS_MAX - 1);
    moments[moment_count].at_us = now_us;
    moments[moment_count++].bytes = bytes;
    left_bytes += bytes;
}

static uint64_t most_in(uint64_t span_us) {
    uint64_t sum = 0, most = 0;
    for (uint32_t i = 0, first = 0; i < moment_count; i++) {
        sum += moments[i].bytes;
        while (moments[first].at_us + span_us < moments[i].at_us) { /* both ends belong to it */
            sum -= moments[first++].bytes;
        }
        most = sum > most ? sum : most;
    }
    return most;
}

static void no_second_carries_more_than_the_limit_and_a_packet(void **state) {
    (void)state;
    for (uint32_t seed = 1; seed <= 20; seed++) {
        for (size_t l = 0; l < LIMITS; l++) {
            struct shaper s;
            uint64_t now_us = 77, debts = 0;
            random_state = seed * 100 + l;
            moment_count = 0;
            shaper_init(&s, limits[l], now_us);
            while (now_us < SECONDS * S && moment_count < MOMENTS_MAX - 8) {
                size_t wanted = 1 + draw(draw(3) == 0 ? 40000 : 300);
                size_t granted = shaper_grant(&s, &ETHERNET, now_us, wanted);
                if (granted > 0 && draw(10) == 0) { /* the socket takes only part of it */
                    size_t written = draw((uint32_t)granted + 1);
                    shaper_give_back(&s, &ETHERNET, granted, written);
                    granted = written;
                }
                if (granted > 0) {
                    left(now_us, shaper_wire_bytes(&ETHERNET, granted));
                }
                debts = s.tokens_us < 0 ? (uint64_t)-s.tokens_us / S + 1 : 0;
                if (draw(20) == 0 && debts + 72 <= shaper_reserve_bytes(&s)) {
                    shaper_debit(&s, now_us, 72);
                    left(now_us, 72);
                }
                now_us += draw(50) == 0 ? draw(3 * S)
                          : granted > 0 ? draw(200)
                                        : shaper_wait_us(&s, &ETHERNET, wanted) + draw(3000);
            }
            uint64_t most = most_in(S);
            assert_in_range(most, 1, limits[l] + SHAPER_MTU_BYTES);
            assert_in_range(most_in(10 * (uint64_t)S), 1, 10 * limits[l] + SHAPER_MTU_BYTES);
        }
    }
}

static void a_backlog_uses_the_link_without_long_pauses(void **state) {
    (void)state;
    for (size_t l = 0; l < LIMITS; l++) {
        struct shaper s;
        uint64_t now_us = 0, pause_us = 0, last_us = 0;
        moment_count = 0;
        left_bytes = 0;
        shaper_init(&s, limits[l], now_us);
        while (now_us < SECONDS * S) {
            size_t granted = shaper_grant(&s, &ETHERNET, now_us, 8192);
            if (granted > 0) {
                left(now_us, shaper_wire_bytes(&ETHERNET, granted));
                pause_us = now_us - last_us > pause_us ? now_us - last_us : pause_us;
                last_us = now_us;
            } else { /* as the loop does: timers of whole milliseconds, a little late */
                now_us += shaper_wait_us(&s, &ETHERNET, 8192) / 1000 * 1000 + 2000;
            }
        }
        uint64_t per_mille = left_bytes * 1000 / (limits[l] * SECONDS);
        uint64_t packet_us = (uint64_t)SHAPER_MTU_BYTES * S / limits[l];
        print_message("%8u bytes/s: %u per mille used, longest pause %u us\n", (unsigned)limits[l], (unsigned)per_mille,
                      (unsigned)pause_us);
        assert_in_range(per_mille, 950, 1000 + SHAPER_MTU_BYTES * 1000 / (limits[l] * SECONDS) + 1);
        assert_in_range(pause_us, 0, packet_us > 50000 ? packet_us + 3000 : 50000);
    }
}

static void whatever_is_wanted_goes_in_the_end(void **state) {
    (void)state;
    static const struct shaper_path paths[] = {{1448, 52}, {1428, 72}, {536, 40}, {65483, 52}, {1, 40}, {0, 0}};
    for (size_t l = 0; l < LIMITS; l++) {
        for (size_t p = 0; p < sizeof paths / sizeof paths[0]; p++) {
            struct shaper s;
            uint64_t now_us = 5;
            shaper_init(&s, limits[l], now_us);
            for (size_t wanted = 100000; wanted > 0;) {
                size_t granted = shaper_grant(&s, &paths[p], now_us, wanted);
                if (granted == 0) {
                    uint64_t wait_us = shaper_wait_us(&s, &paths[p], wanted);
                    assert_in_range(wait_us, 1, 2 * S);
                    now_us += wait_us;
                    granted = shaper_grant(&s, &paths[p], now_us, wanted);
                    assert_in_range(granted, 1, wanted); /* the time it named is enough */
                }
                wanted -= granted;
            }
        }
    }
}

static void packets_in_the_middle_are_full(void **state) {
    (void)state;
    struct shaper s;
    uint64_t now_us = 0;
    shaper_init(&s, 8000, now_us);
    size_t granted = shaper_grant(&s, &ETHERNET, now_us, 5000);
    assert_in_range(granted, 1000, s.burst_bytes - ETHERNET.header_bytes);
    assert_int_equal(shaper_grant(&s, &ETHERNET, now_us += 50000, 5000), 0); /* 400 bytes: not worth a header */
    assert_int_equal(shaper_grant(&s, &ETHERNET, now_us, 300), 300);         /* but all of a small message */
    shaper_init(&s, 12500000, now_us);
    granted = shaper_grant(&s, &ETHERNET, now_us, 1000000);
    assert_int_equal(granted % ETHERNET.segment_bytes, 0);
    assert_in_range(granted, 200000, 312500);
}

static void debts_are_paid_back(void **state) {
    (void)state;
    struct shaper s;
    shaper_init(&s, 8000, 0);
    shaper_debit(&s, 0, s.burst_bytes + 16000); /* retransmissions: two seconds' worth more than there was */
    assert_int_equal(shaper_grant(&s, &ETHERNET, 0, 100), 0);
    uint64_t wait_us = shaper_wait_us(&s, &ETHERNET, 100);
    assert_in_range(wait_us, 2 * S + 152 * 125, 2 * S + 153 * 125); /* 125 us a byte */
    assert_int_equal(shaper_grant(&s, &ETHERNET, wait_us - 200, 100), 0);
    assert_int_equal(shaper_grant(&s, &ETHERNET, wait_us, 100), 100);
    shaper_debit(&s, wait_us, UINT64_MAX); /* nonsense stays within a minute */
    assert_in_range(shaper_wait_us(&s, &ETHERNET, 1), 59 * (uint64_t)S, 62 * (uint64_t)S);
}

static void ten_seconds_hold_with_loss(void **state) {
    (void)state;
    for (size_t l = 0; l < LIMITS; l++) {
        struct shaper s;
        uint64_t now_us = 0, resent = 0, seen_us = 0;
        random_state = 7 + l;
        moment_count = 0;
        shaper_init(&s, limits[l], now_us);
        while (now_us < 40 * (uint64_t)S) {
            size_t granted = shaper_grant(&s, &ETHERNET, now_us, 30000);
            if (granted > 0) {
                left(now_us, shaper_wire_bytes(&ETHERNET, granted));
                for (size_t k = 0; k < granted; k += ETHERNET.segment_bytes) {
                    if (draw(20) == 0) { /* 5% of the packets go twice, which is found 100 ms later */
                        left(now_us, 1500);
                        resent += 1500;
                    }
                }
            } else {
                now_us += shaper_wait_us(&s, &ETHERNET, 30000) + 1000;
            }
            if (now_us >= seen_us + 100000) {
                shaper_debit_resent(&s, now_us, resent);
                resent = 0;
                seen_us = now_us;
            }
        }
        assert_in_range(most_in(10 * (uint64_t)S), limits[l] * 9,
                        limits[l] * 102 / 10 + (limits[l] < 8000 ? SHAPER_MTU_BYTES : 0)); /* below, one packet is more than 2% */
    }
}

/* Only a link that has a limit and loses nothing is one whose TCP need not look for its rate. */
static void a_loss_is_remembered_for_a_minute(void **state) {
    (void)state;
    struct shaper s;
    shaper_init(&s, 8000, 0);
    assert_false(shaper_calm(&s, 0)); /* who knows? */
    for (int i = 0; i < 32; i++) {
        assert_false(shaper_calm(&s, 0));
        shaper_debit(&s, (uint64_t)i * S, 0);
        assert_int_equal(shaper_grant(&s, &ETHERNET, (uint64_t)i * S, 1024), 1024);
    }
    assert_true(shaper_calm(&s, 0));
    shaper_debit(&s, S, 3000);
    shaper_debit_resent(&s, S, 0); /* nothing was */
    assert_true(shaper_calm(&s, S));
    shaper_debit_resent(&s, 2 * (uint64_t)S, 1500);
    shaper_debit_resent(&s, 5 * (uint64_t)S, 1500);
    shaper_set_limit(&s, 16000, 6 * (uint64_t)S);
    assert_false(shaper_calm(&s, 5 * (uint64_t)S));
    assert_false(shaper_calm(&s, 65 * (uint64_t)S - 1));
    assert_false(shaper_calm(&s, 65 * (uint64_t)S)); /* nothing has left since */
    for (int i = 65; i < 97; i++) {
        assert_int_equal(shaper_grant(&s, &ETHERNET, (uint64_t)i * S, 1024), 1024);
    }
    assert_true(shaper_calm(&s, 65 * (uint64_t)S));
    assert_false(shaper_calm(&s, 65 * (uint64_t)S - 1));
    shaper_set_limit(&s, 0, 66 * (uint64_t)S);
    assert_false(shaper_calm(&s, 200 * (uint64_t)S));
}

/* The network holds packets back now and then, and lets them go together: what left the bucket before leaves the machine later. */
static void a_stalled_network_makes_no_burst(void **state) {
    (void)state;
    for (size_t l = 0; l < LIMITS; l++) {
        struct shaper s;
        uint64_t now_us = 0, held = 0, held_until_us = 0, stalls = 0;
        random_state = 11 + l;
        moment_count = 0;
        shaper_init(&s, limits[l], now_us);
        while (now_us < SECONDS * S && moment_count < MOMENTS_MAX - 8) {
            if (held > 0 && now_us >= held_until_us) {
                left(held_until_us, held);
                held = 0;
            }
            if (held > 0) { /* the gate looks every 5 ms whether the socket has sent all */
                shaper_stall(&s, now_us);
                now_us += 5000;
                continue;
            }
            size_t granted = shaper_grant(&s, &ETHERNET, now_us, 30000);
            if (granted > 0 && draw(5) == 0) {
                held = shaper_wire_bytes(&ETHERNET, granted);
                held_until_us = now_us + draw(S);
                stalls++;
            } else if (granted > 0) {
                left(now_us, shaper_wire_bytes(&ETHERNET, granted));
            } else {
                now_us += shaper_wait_us(&s, &ETHERNET, 30000) + 500;
            }
        }
        assert_true(stalls > 0);
        assert_in_range(most_in(S), 1, limits[l] + SHAPER_MTU_BYTES + limits[l] / 200); /* 5 ms: between two looks */
    }
}

static void the_limit_changes_while_it_runs(void **state) {
    (void)state;
    struct shaper s;
    uint64_t now_us = 0;
    shaper_init(&s, 0, now_us);
    assert_int_equal(shaper_grant(&s, &ETHERNET, now_us, 1u << 30), 1u << 30);
    shaper_debit(&s, now_us, 1u << 30);
    shaper_set_limit(&s, 1250000, now_us);
    assert_in_range(shaper_grant(&s, &ETHERNET, now_us, 1u << 20), 20000, 31250); /* nothing of before counts */
    shaper_set_limit(&s, 8000, now_us);
    (void)shaper_grant(&s, &ETHERNET, now_us += 10 * S, 1 << 20);
    moment_count = 0;
    for (; now_us < 30 * (uint64_t)S; now_us += 1000) {
        size_t granted = shaper_grant(&s, &ETHERNET, now_us, 1 << 20);
        if (granted > 0) {
            left(now_us, shaper_wire_bytes(&ETHERNET, granted));
        }
    }
    assert_in_range(most_in(S), 6000, 8000 + SHAPER_MTU_BYTES);
    shaper_set_limit(&s, 1, now_us);
    assert_int_equal(s.limit_bytes_per_s, SHAPER_LIMIT_BYTES_PER_S_MIN);
    shaper_set_limit(&s, 0, now_us);
    assert_int_equal(shaper_grant(&s, &ETHERNET, now_us, 12345), 12345);
    assert_int_equal(shaper_wait_us(&s, &ETHERNET, 12345), 0);
}

static void time_that_goes_back_gives_nothing(void **state) {
    (void)state;
    struct shaper s;
    shaper_init(&s, 8000, 5 * S);
    shaper_debit(&s, 5 * S, s.burst_bytes);
    assert_int_equal(shaper_grant(&s, &ETHERNET, 1 * S, 100), 0);
    assert_int_equal(shaper_grant(&s, &ETHERNET, 5 * S, 100), 0); /* nor a second time for the same seconds */
    assert_int_equal(shaper_grant(&s, &ETHERNET, 5 * S + 19000, 100), 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_second_carries_more_than_the_limit_and_a_packet),
        cmocka_unit_test(a_backlog_uses_the_link_without_long_pauses),
        cmocka_unit_test(whatever_is_wanted_goes_in_the_end),
        cmocka_unit_test(packets_in_the_middle_are_full),
        cmocka_unit_test(debts_are_paid_back),
        cmocka_unit_test(ten_seconds_hold_with_loss),
        cmocka_unit_test(a_loss_is_remembered_for_a_minute),
        cmocka_unit_test(a_stalled_network_makes_no_burst),
        cmocka_unit_test(the_limit_changes_while_it_runs),
        cmocka_unit_test(time_that_goes_back_gives_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
