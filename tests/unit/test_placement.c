#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "agent/work/due.h"
#include "agent/work/placement.h"

#define GIB (1024ull * 1024 * 1024)

static struct placement_node *add(struct placement *p, raft_id id, const char *name, uint64_t cores, uint64_t gib) {
    struct placement_node *n = placement_add(p, id, bytes_str(name));
    n->capacity = (struct quota_amount){cores * 1000, gib * GIB};
    return n;
}

static const char *pick(const struct placement *p, const struct placement_wish *w) {
    const struct placement_node *n = placement_pick(p, w);
    return n == NULL ? "" : n->name.text;
}

/* Three equal gateways must be filled evenly, and in the same order wherever it is decided: raft ids are random, names are not. */
static void the_emptiest_is_taken_and_names_break_ties(void **context) {
    (void)context;
    struct placement p = {0};
    struct placement_node *c = add(&p, 1, "c", 10, 10), *a = add(&p, 9, "a", 10, 10), *b = add(&p, 5, "b", 10, 10);
    struct placement_wish w = {.need = {1000, GIB}, .lane = LANE_NORMAL};
    assert_string_equal(pick(&p, &w), "a");
    a->held = w.need;
    assert_string_equal(pick(&p, &w), "b");
    b->held = w.need;
    assert_string_equal(pick(&p, &w), "c");
    c->held = w.need;
    assert_string_equal(pick(&p, &w), "a");
    c->held = (struct quota_amount){0, 8 * GIB}; /* the scarcer of the two counts */
    a->held = b->held = (struct quota_amount){5000, 0};
    assert_string_equal(pick(&p, &w), "a");
    w.prefers = bytes_str("c");
    assert_string_equal(pick(&p, &w), "c");
    c->held.memory_bytes = 9 * GIB; /* it prefers, and takes another when there is no room */
    assert_string_equal(pick(&p, &w), "a");
    a->condition = NODE_DRAINING;
    b->condition = NODE_LOST;
    assert_string_equal(pick(&p, &w), "");
    a->task_count = b->task_count = c->task_count = 0;
    placement_remove(&p, a);
    assert_null(placement_find(&p, 9));
    assert_ptr_equal(placement_find(&p, 5), b);
    placement_clear(&p);
}

/* A tenth of each gateway is the system's; what is kept for others of a lane as high is not free, what is being stopped may serve it. */
static void room_is_what_nobody_else_was_promised(void **context) {
    (void)context;
    struct placement p = {0};
    struct placement_node *n = add(&p, 1, "n", 10, 10);
    struct placement_wish w = {.need = {9000, GIB}, .lane = LANE_NORMAL};
    assert_string_equal(pick(&p, &w), "n");
    w.need.cpu_millicores = 9001;
    assert_string_equal(pick(&p, &w), "");
    assert_false(placement_suits(n, &w));
    w.need.cpu_millicores = 6000;
    n->kept[LANE_HIGH] = (struct quota_amount){4000, 0};
    assert_string_equal(pick(&p, &w), "");
    w.lane = LANE_CRITICAL;
    assert_string_equal(pick(&p, &w), "n"); /* a higher lane is not held back by what is kept for a lower one */
    w.lane = LANE_NORMAL;
    n->held = n->stopping = (struct quota_amount){3000, 0};
    assert_string_equal(pick(&p, &w), ""); /* 9 - 3 held - 1 of what is kept beyond what stops */
    w.need.cpu_millicores = 5000;
    assert_string_equal(pick(&p, &w), "n");
    w = (struct placement_wish){.need = {4000, 0}, .lane = LANE_HIGH, .kept_on = n};
    assert_int_equal(placement_free(n, &w).cpu_millicores, 6000); /* its own room is not in its way */
    placement_clear(&p);
}

/* A task for the gateway with the camera must not run on another. */
static void selectors_ask_for_labels(void **context) {
    (void)context;
    struct placement p = {0};
    struct placement_node *n = add(&p, 2, "b", 10, 10);
    (void)add(&p, 1, "a", 10, 10);
    struct task_texts s = {.count = 2, .at = {bytes_str("camera=yes"), bytes_str("line=3")}};
    struct placement_wish w = {.need = {1, 1}, .lane = LANE_LOW, .selectors = &s};
    assert_string_equal(pick(&p, &w), "");
    n->label_count = 1;
    (void)snprintf(n->labels[0], sizeof n->labels[0], "camera=yes");
    assert_string_equal(pick(&p, &w), "");
    n->label_count = 2;
    (void)snprintf(n->labels[1], sizeof n->labels[1], "line=3");
    assert_string_equal(pick(&p, &w), "b");
    placement_clear(&p);
}

/* A retry that is forgotten by the heap never comes. */
static void what_is_due_comes_in_order(void **context) {
    (void)context;
    enum { ITEMS = 200 };
    struct due d = {0};
    struct due_item items[ITEMS] = {{0}};
    uint64_t seed = 42, in = 0;
    assert_int_equal(due_reserve(&d, ITEMS), E_OK);
    assert_null(due_first(&d));
    for (unsigned i = 0; i < ITEMS; i++) {
        items[i].ticket = i;
    }
    for (unsigned step = 0; step < 20000; step++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        struct due_item *x = &items[(seed >> 33) % ITEMS];
        bool was_in = x->place != 0;
        if (seed >> 62 == 0) {
            due_clear(&d, x);
            in -= was_in;
        } else {
            due_set(&d, x, (int64_t)(seed >> 40) % 500);
            in += !was_in;
        }
        assert_int_equal(d.count, in);
        const struct due_item *first = due_first(&d), *right = NULL;
        for (unsigned i = 0; i < ITEMS; i++) {
            if (items[i].place != 0 && (right == NULL || items[i].at_ms < right->at_ms ||
                                        (items[i].at_ms == right->at_ms && items[i].ticket < right->ticket))) {
                right = &items[i];
            }
        }
        assert_ptr_equal(first, right);
    }
    due_free(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_emptiest_is_taken_and_names_break_ties),
        cmocka_unit_test(room_is_what_nobody_else_was_promised),
        cmocka_unit_test(selectors_ask_for_labels),
        cmocka_unit_test(what_is_due_comes_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
