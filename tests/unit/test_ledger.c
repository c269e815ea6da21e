/* Who spent the bytes: a mistake here blames the wrong feature for the bill, or leaves part of it unexplained. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "federation/ledger.h"

static void each_byte_belongs_to_somebody(void **state) {
    (void)state;
    uint64_t random = 3, wire[LEDGER_WAYS] = {0};
    struct ledger l = {0};
    for (int i = 0; i < 200000; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        enum ledger_way w = (enum ledger_way)(random >> 62 & 1);
        enum ledger_feature f = (enum ledger_feature)((random >> 40) % LEDGER_FEATURES);
        uint64_t bytes = (random >> 20) % 5000;
        switch ((random >> 33) % 5) {
        case 0:
            ledger_note(&l, w, f, bytes);
            break;
        case 1:
            ledger_direct(&l, w, f, bytes);
            wire[w] += bytes;
            break;
        case 2:
            if (bytes == 0) {
                ledger_cut(&l);
            }
            break;
        default:
            ledger_wire(&l, w, bytes, (uint64_t)i * 10);
            wire[w] += bytes;
        }
        assert_int_equal(ledger_total(&l, LEDGER_UP), wire[LEDGER_UP]);
        assert_int_equal(ledger_total(&l, LEDGER_DOWN), wire[LEDGER_DOWN]);
    }
}

static void overhead_follows_what_caused_it(void **state) {
    (void)state;
    struct ledger l = {0};
    ledger_note(&l, LEDGER_UP, LEDGER_DATA, 9000);
    ledger_note(&l, LEDGER_UP, LEDGER_EVENTS, 1000);
    ledger_wire(&l, LEDGER_UP, 11000, 5000); /* all of it has left, with a tenth of overhead */
    assert_int_equal(l.bytes[LEDGER_UP][LEDGER_DATA], 9900);
    assert_int_equal(l.bytes[LEDGER_UP][LEDGER_EVENTS], 1100);
    ledger_wire(&l, LEDGER_UP, 100, 7999); /* an acknowledgement a moment later */
    assert_int_equal(l.bytes[LEDGER_UP][LEDGER_DATA], 9990);
    assert_int_equal(l.bytes[LEDGER_UP][LEDGER_SESSION], 0);
}

static void bytes_that_nobody_sent_keep_the_session(void **state) {
    (void)state;
    struct ledger l = {0};
    ledger_note(&l, LEDGER_UP, LEDGER_DATA, 400);
    ledger_wire(&l, LEDGER_UP, 500, 0);
    for (int i = 0; i < 96; i++) {
        ledger_wire(&l, LEDGER_UP, 135, (uint64_t)(i + 1) * 900000); /* a day of keep-alives */
    }
    assert_int_equal(l.bytes[LEDGER_UP][LEDGER_DATA], 500);
    assert_int_equal(l.bytes[LEDGER_UP][LEDGER_SESSION], 96 * 135);
}

static void what_is_slow_to_leave_is_counted_when_it_does(void **state) {
    (void)state;
    struct ledger l = {0};
    ledger_note(&l, LEDGER_UP, LEDGER_DATA, 100000);
    for (int i = 0; i < 70; i++) {
        ledger_wire(&l, LEDGER_UP, 1500, (uint64_t)i * 200);
    }
    ledger_note(&l, LEDGER_UP, LEDGER_CONTROL, 300);
    ledger_wire(&l, LEDGER_UP, 400, 14000);
    assert_int_equal(l.bytes[LEDGER_UP][LEDGER_DATA], 105000);
    assert_int_equal(l.bytes[LEDGER_UP][LEDGER_CONTROL], 400);
    ledger_note(&l, LEDGER_UP, LEDGER_DATA, 50000);
    ledger_cut(&l); /* it fell with the connection */
    ledger_direct(&l, LEDGER_UP, LEDGER_HANDSHAKES, 3000);
    ledger_wire(&l, LEDGER_UP, 200, 14001);
    assert_int_equal(l.bytes[LEDGER_UP][LEDGER_SESSION], 200);
}

static void large_sums_do_not_wrap(void **state) {
    (void)state;
    struct ledger l = {0};
    ledger_note(&l, LEDGER_DOWN, LEDGER_DATA, (uint64_t)3 << 50);
    ledger_note(&l, LEDGER_DOWN, LEDGER_LOGS, (uint64_t)1 << 50);
    ledger_wire(&l, LEDGER_DOWN, (uint64_t)1 << 53, 0);
    assert_in_range(l.bytes[LEDGER_DOWN][LEDGER_DATA] >> 40, 6143, 6144);
    assert_int_equal(ledger_total(&l, LEDGER_DOWN), (uint64_t)1 << 53);
    for (int f = 0; f < LEDGER_FEATURES; f++) {
        assert_true(strlen(ledger_feature_name((enum ledger_feature)f)) > 3);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_byte_belongs_to_somebody),
        cmocka_unit_test(overhead_follows_what_caused_it),
        cmocka_unit_test(bytes_that_nobody_sent_keep_the_session),
        cmocka_unit_test(what_is_slow_to_leave_is_counted_when_it_does),
        cmocka_unit_test(large_sums_do_not_wrap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
