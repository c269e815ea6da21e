#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "federation/raft/member.h"

static struct raft_member member(raft_id id, bool voter) {
    struct raft_member m = {.id = id, .voter = voter};
    (void)snprintf(m.node.text, sizeof m.node.text, "node%u", (unsigned)id);
    (void)snprintf(m.peer_address, sizeof m.peer_address, "10.0.0.%u:7400", (unsigned)id);
    return m;
}

static struct raft_members voters(uint32_t count) {
    struct raft_members m = {0};
    for (uint32_t i = 1; i <= count; i++) {
        struct raft_member one = member(i, true);
        assert_int_equal(raft_members_put(&m, &one), E_OK);
    }
    return m;
}

/* A node would read another membership than the one agreed on. */
static void test_what_is_written_is_read(void **context) {
    (void)context;
    struct raft_members m = voters(3), back;
    struct raft_member learner = member(UINT64_MAX, false);
    m.at[0].voter_old = true;
    m.at[1].voter = false;
    m.at[1].voter_old = m.at[1].leaving = true;
    memset(learner.node.text, 'n', LIMIT_NAME_BYTES);
    memset(learner.http_address, 'a', LIMIT_ADDRESS_BYTES);
    learner.witness = true;
    assert_int_equal(raft_members_put(&m, &learner), E_OK);
    struct builder b;
    builder_init(&b, 1 << 20);
    raft_members_encode(&m, &b);
    assert_int_equal(b.err, E_OK);
    assert_int_equal(raft_members_decode(builder_bytes(&b), &back), E_OK);
    assert_int_equal(back.count, 4);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(back.at[i].id, m.at[i].id);
        assert_int_equal(back.at[i].voter, m.at[i].voter);
        assert_int_equal(back.at[i].voter_old, m.at[i].voter_old);
        assert_int_equal(back.at[i].leaving, m.at[i].leaving);
        assert_int_equal(back.at[i].witness, m.at[i].witness);
        assert_string_equal(back.at[i].node.text, m.at[i].node.text);
        assert_string_equal(back.at[i].peer_address, m.at[i].peer_address);
        assert_string_equal(back.at[i].http_address, m.at[i].http_address);
    }
    /* Every prefix, and every byte changed, is refused or gives a sound membership; nothing is read beyond the end. */
    struct bytes whole = builder_bytes(&b);
    for (size_t size = 0; size < whole.size; size++) {
        assert_int_not_equal(raft_members_decode(bytes_of(whole.data, size), &back), E_OK);
    }
    for (size_t at = 0; at < whole.size; at++) {
        for (int bit = 0; bit < 8; bit++) {
            b.data[at] ^= (uint8_t)(1 << bit);
            if (raft_members_decode(builder_bytes(&b), &back) == E_OK) {
                assert_int_equal(raft_members_check(&back), E_OK);
            }
            b.data[at] ^= (uint8_t)(1 << bit);
        }
    }
    builder_free(&b);
}

/* A faulty membership would be agreed on, and no node could ever win an election again. */
static void test_faulty_sets_are_refused(void **context) {
    (void)context;
    struct raft_members m = voters(3);
    m.at[1].id = 1;
    assert_int_equal(raft_members_check(&m), E_BAD_MESSAGE); /* an id twice */
    m = voters(3);
    m.at[0].id = 0;
    assert_int_equal(raft_members_check(&m), E_BAD_MESSAGE);
    m = voters(3);
    m.at[0].voter = m.at[1].voter = m.at[2].voter = false;
    assert_int_equal(raft_members_check(&m), E_BAD_MESSAGE); /* nobody votes */
    m = voters(LIMIT_VOTERS + 1);
    assert_int_equal(raft_members_check(&m), E_BAD_MESSAGE);
    m = voters(3);
    m.at[2].witness = true;
    assert_int_equal(raft_members_check(&m), E_OK);
    m.at[1].witness = true; /* two of three could commit what nobody holds */
    assert_int_equal(raft_members_check(&m), E_BAD_MESSAGE);
    m.at[1].voter = false;
    assert_int_equal(raft_members_check(&m), E_OK);
    m.at[0].voter_old = true;
    m.at[1].voter_old = m.at[2].voter_old = true;
    assert_int_equal(raft_members_check(&m), E_BAD_MESSAGE);
    m = voters(1);
    m.at[0].witness = true;
    assert_int_equal(raft_members_check(&m), E_BAD_MESSAGE);
    m = voters(3);
    m.at[2].leaving = true; /* and votes in the incoming set */
    assert_int_equal(raft_members_check(&m), E_BAD_MESSAGE);
    m = voters(3);
    m.at[1].node.text[0] = '/';
    assert_int_equal(raft_members_check(&m), E_BAD_MESSAGE);
    m = voters(3);
    memset(m.at[1].peer_address, 'a', sizeof m.at[1].peer_address); /* no end */
    assert_int_equal(raft_members_check(&m), E_BAD_MESSAGE);
    m.count = LIMIT_MEMBERS + 1;
    assert_int_equal(raft_members_check(&m), E_BAD_MESSAGE);
}

/* Two majorities that do not meet: two leaders commit different events (FAULTS R5, R6). */
static void test_more_than_one_voter_changes_jointly(void **context) {
    (void)context;
    struct raft_members now = voters(3), want = voters(4), next;
    assert_int_equal(raft_members_plan(&now, &want, &next), E_OK);
    assert_false(raft_members_joint(&next));
    want = voters(5);
    assert_int_equal(raft_members_plan(&now, &want, &next), E_OK);
    assert_true(raft_members_joint(&next));
    assert_true(next.at[0].voter && next.at[0].voter_old && next.at[4].voter && !next.at[4].voter_old);
    raft_members_leave_joint(&next);
    assert_false(raft_members_joint(&next));
    assert_int_equal(next.count, 5);

    /* A wiped node comes back under its name with a new id, first as a learner. */
    now = voters(3);
    struct raft_member again = member(9, false);
    again.node = now.at[2].node;
    assert_int_equal(raft_members_put(&now, &again), E_OK);
    assert_int_equal(raft_members_find_node(&now, "node3")->id, 9);
    want = now;
    raft_members_remove(&want, 3);
    want.at[2].voter = true;
    assert_int_equal(raft_members_plan(&now, &want, &next), E_OK);
    assert_true(raft_members_joint(&next));
    assert_true(raft_members_find(&next, 3)->leaving);
    assert_int_equal(raft_members_find_node(&next, "node3")->id, 9);
    raft_members_leave_joint(&next);
    assert_null(raft_members_find(&next, 3));
    assert_int_equal(next.count, 3);
    assert_null(raft_members_find_node(&next, "node7"));
}

/* An outgoing voter that should stay as a learner would be thrown out, or the other way round. */
static void test_joint_demotion_keeps_a_learner(void **context) {
    (void)context;
    struct raft_members now = voters(3), want = voters(3), next;
    want.at[0].voter = false;
    raft_members_remove(&want, 2);
    assert_int_equal(raft_members_plan(&now, &want, &next), E_OK);
    raft_members_leave_joint(&next);
    assert_int_equal(next.count, 2);
    assert_true(raft_members_find(&next, 1) != NULL && !raft_members_find(&next, 1)->voter);
    assert_true(raft_members_find(&next, 3)->voter);
}

/* The table must not be written beyond its end. */
static void test_the_set_is_bounded(void **context) {
    (void)context;
    struct raft_members m = {0};
    for (uint32_t i = LIMIT_MEMBERS; i > 0; i--) {
        struct raft_member one = member(i, i <= 3);
        assert_int_equal(raft_members_put(&m, &one), E_OK);
    }
    struct raft_member more = member(99, false);
    assert_int_equal(raft_members_put(&m, &more), E_TOO_LARGE);
    more = member(7, true);
    assert_int_equal(raft_members_put(&m, &more), E_OK); /* replaces */
    assert_int_equal(m.count, LIMIT_MEMBERS);
    raft_members_remove(&m, 99);
    raft_members_remove(&m, LIMIT_MEMBERS);
    raft_members_remove(&m, 1);
    assert_int_equal(m.count, LIMIT_MEMBERS - 2);
    assert_int_equal(m.at[0].id, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_written_is_read),
        cmocka_unit_test(test_faulty_sets_are_refused),
        cmocka_unit_test(test_more_than_one_voter_changes_jointly),
        cmocka_unit_test(test_joint_demotion_keeps_a_learner),
        cmocka_unit_test(test_the_set_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
