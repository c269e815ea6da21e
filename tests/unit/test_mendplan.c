/* If this failed, a gateway would take what it never had into its damaged log, wait for ever for what others hold, or throw away the last copy. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "agent/store/mendask.h"
#include "agent/store/mendplan.h"

#define LAST 40u

struct log { /* term 0: the row cannot be read */
    raft_term terms[LAST + 1];
};

static bool term_of(void *context, raft_index index, raft_term *term) {
    const struct log *l = context;
    *term = index <= LAST ? l->terms[index] : 0;
    return *term > 0;
}

/* Terms 1 (1 to 20), 3 (from 21 on); base 10, applied 15. */
static void begin(struct mendplan *p, struct log *l, raft_index lost_from, raft_index lost_to) {
    *p = (struct mendplan){0};
    for (raft_index i = 1; i <= LAST; i++) {
        l->terms[i] = i >= lost_from && i <= lost_to ? 0 : i <= 20 ? 1 : 3;
    }
    mendplan_begin(p, (struct mendplan_log){term_of, l}, (struct raft_point){.index = 10, .term = 1}, LAST,
                   (struct raft_point){.index = 15, .term = 1});
    for (raft_index i = 11; i <= LAST; i++) {
        if (l->terms[i] > 0) {
            assert_int_equal(mendplan_row(p, i, true, NULL), E_OK);
        }
    }
    assert_int_equal(mendplan_looked(p, NULL), E_OK);
}

static bool takes(struct mendplan *p, raft_index index, raft_term term, bool same) {
    struct mendplan_need need;
    assert_true(mendplan_need(p, &need));
    const struct entry e = {.index = index, .term = term};
    const struct mendplan_offer o = {.from = need.from, .to = need.to, .certain = 100, .anchor = need.anchor, .same = same};
    return mendplan_take(p, &o, &e, NULL);
}

static void what_is_proved_is_taken(void **state) {
    (void)state;
    struct mendplan p;
    struct log l;
    begin(&p, &l, 25, 27); /* all around is of term 3 */
    assert_false(takes(&p, 25, 2, false));
    assert_false(takes(&p, 24, 3, true)); /* not missing */
    assert_true(takes(&p, 25, 3, false));
    l.terms[25] = 3;
    assert_true(takes(&p, 26, 3, true));
    assert_int_equal(mendplan_missing(&p), 1);
    mendplan_end(&p);
    begin(&p, &l, 19, 22); /* which of them is of which term? */
    assert_false(takes(&p, 19, 1, false));
    assert_false(takes(&p, 19, 3, false));
    assert_true(takes(&p, 19, 1, true));
    mendplan_end(&p);
    begin(&p, &l, 12, 17); /* committed here and there up to 15 */
    struct mendplan_need need;
    assert_true(mendplan_need(&p, &need) && need.from == 12 && need.to == 17 && need.anchor == 18);
    const struct entry committed = {.index = 12, .term = 9};
    struct mendplan_offer o = {.from = 12, .to = 17, .certain = 11};
    assert_false(mendplan_take(&p, &o, &committed, NULL));
    o.certain = 100;
    assert_true(mendplan_take(&p, &o, &committed, NULL));
    const struct entry later = {.index = 16, .term = 9};
    assert_false(mendplan_take(&p, &o, &later, NULL));
    mendplan_end(&p);
}

static void another_anchor_is_tried(void **state) {
    (void)state;
    struct mendplan p;
    struct log l;
    struct mendplan_need need;
    bool asked[LAST + 1] = {false};
    begin(&p, &l, 19, 22);
    for (int i = 0; i < 100; i++) {
        assert_true(mendplan_need(&p, &need));
        assert_true(need.anchor >= 23 && need.from == 19 && need.to == 22 && need.anchor_term == 3);
        asked[need.anchor] = true;
        const struct mendplan_offer vain = {.from = need.from, .anchor = need.anchor};
        assert_true(mendplan_answered(&p, &vain, 0));
    }
    assert_true(asked[23] && asked[24] && asked[25] && asked[27] && asked[31] && asked[39]);
    const struct mendplan_offer earlier = {.from = need.from + 1, .anchor = need.anchor};
    assert_false(mendplan_answered(&p, &earlier, 0));
    assert_false(mendplan_answered(&p, &earlier, 1));
    assert_true(mendplan_need(&p, &need) && need.anchor == 23);
    mendplan_end(&p);
}

static void what_the_state_stands_for_can_be_done_without(void **state) {
    (void)state;
    struct mendplan p;
    struct log l;
    begin(&p, &l, 12, 17);
    assert_true(mendplan_may_forgo(&p));
    mendplan_forgo(&p);
    assert_int_equal(mendplan_missing(&p), 2);
    assert_false(mendplan_may_forgo(&p));
    assert_true(takes(&p, 16, 1, true));
    mendplan_end(&p);
    begin(&p, &l, 30, 31);
    assert_false(mendplan_may_forgo(&p));
    mendplan_end(&p);
}

/* Voters 1 (this one), 2, 3; learner 4. */
static void begin_asking(struct mendask *a) {
    struct raft_members members = {0};
    for (raft_id id = 1; id <= 4; id++) {
        struct raft_member m = {.id = id, .voter = id < 4};
        (void)snprintf(m.node.text, sizeof m.node.text, "gw-%u", (unsigned)id);
        assert_int_equal(raft_members_put(&members, &m), E_OK);
    }
    assert_true(mendask_begin(a, &members, 1, "gw-1", 0));
    for (raft_id id = 2; id <= 4; id++) {
        mendask_link(a, id, true);
    }
}

static void a_log_is_put_away_only_when_a_majority_is_whole(void **state) {
    (void)state;
    struct mendask a;
    begin_asking(&a);
    mendask_answered(&a, 2, true, true, 0);
    mendask_answered(&a, 4, true, true, 0); /* a learner may lack what is committed */
    mendask_answered(&a, 3, false, true, 0);
    assert_int_equal(mendask_next(&a, true, 10), MENDASK_FORGO);
    assert_int_equal(mendask_next(&a, false, 10), MENDASK_ASK);
    assert_int_equal(mendask_next(&a, false, MENDASK_PATIENCE_MS + 10), MENDASK_ASK);
    mendask_answered(&a, 3, true, true, 0);
    assert_int_equal(mendask_next(&a, false, 10), MENDASK_HOPELESS);
    mendask_answered(&a, 2, true, true, 5); /* it could help: all are asked again */
    assert_int_equal(mendask_next(&a, false, 10), MENDASK_ASK);
    mendask_answered(&a, 2, true, true, 0);
    mendask_answered(&a, 4, true, true, 0);
    mendask_answered(&a, 3, true, false, 0); /* late, to an earlier question */
    assert_int_equal(mendask_next(&a, false, 10), MENDASK_ASK);
}

static void nobody_is_waited_for_for_ever(void **state) {
    (void)state;
    struct mendask a;
    begin_asking(&a);
    mendask_link(&a, 4, false); /* and never comes back */
    mendask_answered(&a, 2, true, true, 0);
    mendask_answered(&a, 3, true, true, 0);
    assert_int_equal(mendask_next(&a, false, 10), MENDASK_ASK);
    assert_int_equal(mendask_next(&a, false, MENDASK_PATIENCE_MS), MENDASK_HOPELESS);
    begin_asking(&a);
    mendask_sent(&a, mendask_whom(&a), 0);
    assert_int_equal(mendask_next(&a, false, MENDASK_ANSWER_MS - 1), MENDASK_WAIT);
    assert_int_equal(mendask_next(&a, false, MENDASK_ANSWER_MS), MENDASK_ASK);
    raft_id first = mendask_whom(&a), second = mendask_whom(&a);
    assert_true(first != 0 && second != 0 && first != second);
    mendask_sent(&a, second, 0);
    mendask_link(&a, second, false);
    assert_int_equal(mendask_next(&a, false, 1), MENDASK_ASK);
    mendask_link(&a, 2, false);
    mendask_link(&a, 3, false);
    mendask_link(&a, 4, false);
    assert_int_equal(mendask_whom(&a), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_proved_is_taken),
        cmocka_unit_test(another_anchor_is_tried),
        cmocka_unit_test(what_the_state_stands_for_can_be_done_without),
        cmocka_unit_test(a_log_is_put_away_only_when_a_majority_is_whole),
        cmocka_unit_test(nobody_is_waited_for_for_ever),
    };
    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
