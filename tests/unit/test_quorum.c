#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "federation/raft/quorum.h"

static uint64_t seed = 42;

static uint64_t draw(uint64_t below) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

static struct raft_members random_members(void) {
    struct raft_members m = {.count = (uint32_t)draw(10)};
    bool joint = draw(2);
    for (uint32_t i = 0; i < m.count; i++) {
        m.at[i].id = i + 1;
        m.at[i].voter = draw(3) > 0;
        m.at[i].voter_old = joint && draw(3) > 0;
    }
    return m;
}

/* The naive second version: is v reached by more than half of the set? */
static bool reached(const struct raft_members *m, bool old, const uint64_t *value, uint64_t v, bool *empty) {
    uint32_t n = 0, with = 0;
    for (uint32_t i = 0; i < m->count; i++) {
        if (old ? m->at[i].voter_old : m->at[i].voter) {
            n++;
            with += value[i] >= v;
        }
    }
    *empty = n == 0;
    return with * 2 > n;
}

static uint64_t naive_value(const struct raft_members *m, const uint64_t *value) {
    for (uint64_t v = 12; v > 0; v--) {
        bool no_voters, no_old;
        bool incoming = reached(m, false, value, v, &no_voters), outgoing = reached(m, true, value, v, &no_old);
        if (!no_voters && incoming && (outgoing || no_old)) {
            return v;
        }
    }
    return 0;
}

/* An entry would count as committed that a majority does not hold: an acknowledged event would be lost with one gateway. */
static void test_value_equals_the_naive_one(void **context) {
    (void)context;
    for (int round = 0; round < 200000; round++) {
        struct raft_members m = random_members();
        uint64_t value[LIMIT_MEMBERS] = {0};
        for (uint32_t i = 0; i < m.count; i++) {
            value[i] = draw(12);
        }
        assert_int_equal(quorum_value(&m, value), naive_value(&m, value));
    }
}

/* Two gateways would lead at once, or none ever. */
static void test_tally_equals_the_naive_one(void **context) {
    (void)context;
    for (int round = 0; round < 200000; round++) {
        struct raft_members m = random_members();
        enum quorum_vote vote[LIMIT_MEMBERS] = {0};
        uint64_t yes[LIMIT_MEMBERS] = {0}, maybe[LIMIT_MEMBERS] = {0};
        for (uint32_t i = 0; i < m.count; i++) {
            vote[i] = (enum quorum_vote)draw(3);
            yes[i] = vote[i] == QUORUM_YES;
            maybe[i] = vote[i] != QUORUM_NO;
        }
        enum quorum_result want = naive_value(&m, yes) ? QUORUM_WON : naive_value(&m, maybe) ? QUORUM_PENDING : QUORUM_LOST;
        assert_int_equal(quorum_tally(&m, vote), want);
    }
}

/* Majorities of any two neighbouring configurations must meet, else a membership change splits the site (thesis 4.3). */
static void test_neighbouring_majorities_meet(void **context) {
    (void)context;
    for (uint32_t old_set = 1; old_set < 32; old_set++) {
        for (uint32_t new_set = 1; new_set < 32; new_set++) {
            struct raft_members before = {.count = 5}, joint = {.count = 5};
            for (uint32_t i = 0; i < 5; i++) {
                before.at[i] = (struct raft_member){.id = i + 1, .voter = old_set >> i & 1};
                joint.at[i] = (struct raft_member){.id = i + 1, .voter = new_set >> i & 1, .voter_old = old_set >> i & 1};
            }
            for (uint32_t side = 0; side < 32; side++) { /* who says yes to the one, the others to the other */
                uint64_t one[LIMIT_MEMBERS] = {0}, other[LIMIT_MEMBERS] = {0};
                for (uint32_t i = 0; i < 5; i++) {
                    one[i] = side >> i & 1;
                    other[i] = !one[i];
                }
                assert_false(quorum_value(&before, one) && quorum_value(&joint, other));
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_value_equals_the_naive_one),
        cmocka_unit_test(test_tally_equals_the_naive_one),
        cmocka_unit_test(test_neighbouring_majorities_meet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
