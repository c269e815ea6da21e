/* Requests of a real node, a site of one: what a leader decided is proposed in its own term only. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/node_rig.h"

/* If what a leader decided were proposed under a later one, a result would be settled, or a member forgotten, by what was known before. */
static void a_decision_counts_in_its_own_term_only(void **state) {
    (void)state;
    struct node_rig r;
    node_rig_new(&r);
    node_rig_open(&r);
    assert_int_equal(node_rig_put(&r, "key", KV_ALWAYS), E_OK);
    raft_term now = r.node->leading_term;
    raft_index applied = state_applied(r.node->state);
    r.node->leading_term = now + 1; /* as if this had been decided in another term than the one that it comes to */
    assert_int_equal(node_rig_put(&r, "key", KV_ALWAYS), E_NOT_LEADER);
    r.node->leading_term = now;
    assert_int_equal(node_rig_put(&r, "key", KV_ALWAYS), E_OK);
    assert_true(state_applied(r.node->state) > applied);
    node_rig_close(&r);
    node_rig_remove(&r);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_decision_counts_in_its_own_term_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
