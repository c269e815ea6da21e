/* If the wrong gateway were called odd, a healthy one would be fenced and the damaged one would go on answering. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "agent/state/agreement.h"

static void say(struct agreement *a, raft_index index, raft_id id, uint8_t what) {
    uint8_t hash[DIGEST_BYTES];
    memset(hash, what, sizeof hash);
    agreement_note(a, index, id, hash);
}

static enum agreement_verdict judge(const struct agreement *a, raft_index index, uint32_t holders, raft_id *odd) {
    raft_id ids[LIMIT_MEMBERS];
    uint32_t count;
    enum agreement_verdict v = agreement_judge(a, index, holders, ids, &count);
    *odd = count == 1 ? ids[0] : count;
    return v;
}

static void the_odd_one_is_found(void **state) {
    (void)state;
    struct agreement a = {0};
    raft_id odd;
    say(&a, 1000, 11, 7);
    assert_int_equal(judge(&a, 1000, 3, &odd), AGREEMENT_OPEN);
    say(&a, 1000, 12, 8);
    assert_int_equal(judge(&a, 1000, 3, &odd), AGREEMENT_OPEN); /* the third decides */
    say(&a, 1000, 13, 8);
    assert_int_equal(judge(&a, 1000, 3, &odd), AGREEMENT_ODD);
    assert_int_equal(odd, 11);
    say(&a, 1000, 11, 8); /* the first word counts */
    assert_int_equal(judge(&a, 1000, 3, &odd), AGREEMENT_ODD);
    say(&a, 2000, 11, 9);
    say(&a, 2000, 12, 9);
    say(&a, 2000, 13, 9);
    assert_int_equal(judge(&a, 2000, 3, &odd), AGREEMENT_OPEN);
    assert_int_equal(judge(&a, 3000, 3, &odd), AGREEMENT_OPEN);
}

static void without_a_majority_nobody_is_odd(void **state) {
    (void)state;
    struct agreement a = {0};
    raft_id odd;
    say(&a, 1000, 1, 1);
    say(&a, 1000, 2, 2);
    assert_int_equal(judge(&a, 1000, 2, &odd), AGREEMENT_SPLIT);
    assert_int_equal(odd, 0);
    say(&a, 1000, 3, 3);
    assert_int_equal(judge(&a, 1000, 3, &odd), AGREEMENT_SPLIT);
    assert_int_equal(judge(&a, 1000, 5, &odd), AGREEMENT_OPEN); /* two may still join one of them */
}

static void old_points_give_way(void **state) {
    (void)state;
    struct agreement a = {0};
    raft_id odd;
    for (raft_index i = 1; i <= 50; i++) {
        say(&a, i * 1000, 1, 1);
    }
    say(&a, 1000, 2, 2);
    say(&a, 1000, 3, 2);
    assert_int_equal(judge(&a, 1000, 3, &odd), AGREEMENT_OPEN);
    say(&a, 50000, 2, 2);
    say(&a, 50000, 3, 2);
    assert_int_equal(judge(&a, 50000, 3, &odd), AGREEMENT_ODD);
    assert_int_equal(odd, 1);
    say(&a, 0, 1, 1);
    assert_int_equal(judge(&a, 0, 1, &odd), AGREEMENT_OPEN);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_odd_one_is_found), cmocka_unit_test(without_a_majority_nobody_is_odd),
                                       cmocka_unit_test(old_points_give_way)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
