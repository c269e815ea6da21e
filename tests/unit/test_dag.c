#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "agent/work/dag.h"

static uint64_t seed = 0x2545f4914f6cdd1du;

static uint64_t draw(uint64_t below) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

static int here; /* an owner */

static bool nothing_met(const struct dag_vertex *v) {
    (void)v;
    return false;
}

static enum grey_error add(struct dag *d, const char *id, const char *on_a, const char *on_b, struct fault *f) {
    struct bytes on[2];
    size_t count = 0;
    struct dag_vertex *v;
    if (on_a != NULL) {
        on[count++] = bytes_str(on_a);
    }
    if (on_b != NULL) {
        on[count++] = bytes_str(on_b);
    }
    enum grey_error err = dag_check(d, bytes_str(id), on, count, f);
    return err != E_OK ? err : dag_add(d, bytes_str(id), on, count, &here, nothing_met, &v);
}

/* An operator who closes a circle of tasks must be told which, or all of them wait for ever. */
static void a_cycle_is_refused_and_named(void **context) {
    (void)context;
    struct dag *d = dag_new();
    struct fault f = {0};
    assert_int_equal(add(d, "a", "a", NULL, &f), E_CYCLE);
    assert_string_equal(f.text, "a waits for itself");
    assert_int_equal(add(d, "a", "b", NULL, &f), E_OK); /* b is not here yet */
    assert_int_equal(add(d, "b", "c", "x", &f), E_OK);
    assert_int_equal(add(d, "c", "a", NULL, &f), E_CYCLE);
    assert_string_equal(f.text, "c waits for a waits for b waits for c");
    assert_int_equal(add(d, "c", "x", NULL, &f), E_OK); /* the refusal left nothing behind */
    assert_int_equal(add(d, "x", "c", NULL, &f), E_CYCLE);
    assert_string_equal(f.text, "x waits for c waits for x");
    assert_int_equal(dag_count(d), 3);
    dag_free(d);
    d = dag_new();
    for (unsigned i = 0; i < 30; i++) {
        char id[8], on[8];
        (void)snprintf(id, sizeof id, "t%02u", i);
        (void)snprintf(on, sizeof on, "t%02u", i + 1);
        assert_int_equal(add(d, id, on, NULL, &f), E_OK);
    }
    assert_int_equal(add(d, "t30", "t00", NULL, &f), E_CYCLE); /* a long one fits its message */
    assert_non_null(strstr(f.text, "t30 waits for t00 waits for t01"));
    assert_non_null(strstr(f.text, "more"));
    assert_non_null(strstr(f.text, "waits for t29 waits for t30"));
    dag_free(d);
}

static void note_ready(void *context, struct dag_vertex *w) {
    char *text = context;
    if (w->unmet == 0) {
        (void)strcat(text, w->id);
    }
}

/* A step must start when the last of what it waits for has ended, and not before. */
static void who_waits_is_told_when_the_last_has_ended(void **context) {
    (void)context;
    struct dag *d = dag_new();
    char ready[64] = "";
    assert_int_equal(add(d, "z", "a", NULL, NULL), E_OK);
    assert_int_equal(add(d, "m", "b", "a", NULL), E_OK);
    assert_int_equal(add(d, "b", NULL, NULL, NULL), E_OK);
    assert_int_equal(add(d, "a", NULL, NULL, NULL), E_OK);
    assert_string_equal(dag_waits_for(dag_find(d, bytes_str("m")), 0), "a");
    assert_string_equal(dag_waits_for(dag_find(d, bytes_str("m")), 1), "b");
    dag_finish(d, dag_find(d, bytes_str("a")), note_ready, ready);
    assert_string_equal(ready, "z");
    dag_finish(d, dag_find(d, bytes_str("b")), note_ready, ready);
    assert_string_equal(ready, "zm");
    dag_remove(d, dag_find(d, bytes_str("a")));
    assert_null(dag_find(d, bytes_str("a")));
    assert_int_equal(dag_count(d), 3);
    dag_free(d);
}

#define IDS 24u

static bool reaches(bool edge[IDS][IDS], unsigned from, unsigned to) {
    bool seen[IDS] = {false};
    unsigned todo[IDS], count = 0;
    todo[count++] = from;
    seen[from] = true;
    while (count > 0) {
        unsigned at = todo[--count];
        for (unsigned k = 0; k < IDS; k++) {
            if (edge[at][k] && k == to) {
                return true;
            }
            if (edge[at][k] && !seen[k]) {
                seen[k] = true;
                todo[count++] = k;
            }
        }
    }
    return false;
}

/* A cycle that slips through is a set of tasks that never run; one that is seen where none is refuses honest work. */
static void cycles_are_found_exactly_where_a_plain_search_finds_them(void **context) {
    (void)context;
    unsigned refused = 0, taken = 0;
    for (unsigned round = 0; round < 300; round++) {
        struct dag *d = dag_new();
        bool edge[IDS][IDS] = {{false}}, added[IDS] = {false};
        for (unsigned step = 0; step < 60; step++) {
            unsigned v = (unsigned)draw(IDS), count = (unsigned)draw(4);
            char id[4], names[4][4];
            struct bytes on[4];
            (void)snprintf(id, sizeof id, "%u", v);
            if (added[v]) {
                if (draw(3) == 0) { /* it ends and is forgotten */
                    char text[256] = "";
                    struct dag_vertex *x = dag_find(d, bytes_str(id));
                    dag_finish(d, x, note_ready, text);
                    dag_remove(d, x);
                    added[v] = false;
                    for (unsigned k = 0; k < IDS; k++) {
                        edge[v][k] = edge[k][v] = false;
                    }
                }
                continue;
            }
            bool would[IDS] = {false};
            for (unsigned i = 0; i < count; i++) {
                unsigned to = (unsigned)draw(IDS);
                would[to] = true;
            }
            bool cycle = would[v];
            count = 0;
            for (unsigned k = 0; k < IDS && count < 4; k++) {
                if (would[k]) {
                    (void)snprintf(names[count], sizeof names[count], "%u", k);
                    on[count] = bytes_str(names[count]);
                    count++;
                    cycle = cycle || reaches(edge, k, v);
                }
            }
            struct fault f = {0};
            enum grey_error err = dag_check(d, bytes_str(id), on, count, &f);
            assert_int_equal(err, cycle ? E_CYCLE : E_OK);
            refused += cycle;
            if (!cycle) {
                struct dag_vertex *x;
                assert_int_equal(dag_add(d, bytes_str(id), on, count, &here, nothing_met, &x), E_OK);
                added[v] = true;
                taken++;
                for (unsigned k = 0; k < IDS; k++) {
                    edge[v][k] = would[k];
                }
                assert_int_equal(x->unmet, count);
            }
        }
        dag_free(d);
    }
    assert_true(refused > 200 && taken > 2000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cycle_is_refused_and_named),
        cmocka_unit_test(who_waits_is_told_when_the_last_has_ended),
        cmocka_unit_test(cycles_are_found_exactly_where_a_plain_search_finds_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
