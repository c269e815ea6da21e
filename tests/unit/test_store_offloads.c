/* Tasks of sites in the core's store: if this failed, a task would be lost with a core, run after the site has taken it back, or its end be
 * told under another one's name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/store_offloads.h"
#include "tests/unit/store_rig.h"

static size_t due(struct store *s, int64_t now_ms, struct store_offload *out) {
    struct fault f = {0};
    size_t count;
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_offloads_due(s, now_ms, 500, out, 8, &count, &f), E_OK);
    assert_int_equal(store_commit(s, &f), E_OK);
    return count;
}

static void put(struct store *s, const struct store_offload *o) {
    struct fault f = {0};
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_offload_put(s, o, &f), E_OK);
    assert_int_equal(store_commit(s, &f), E_OK);
}

static void drop(struct store_offload *o, size_t count) {
    for (size_t i = 0; i < count; i++) {
        blob_unref(o[i].errand);
        blob_unref(o[i].output);
    }
}

static void a_task_is_kept_until_it_is_settled(void **state) {
    (void)state;
    struct store *s = open_store();
    struct store_offload o[8];
    site_hello(s, "plant");
    site_hello(s, "other");
    site_says(s, "plant", 1, OFFLOAD_GIVEN, "press/5", "{\"command\":[\"a\"]}");
    site_says(s, "plant", 1, OFFLOAD_GIVEN, "press/5", "{\"command\":[\"a\"]}"); /* the frame again */
    site_says(s, "other", 1, OFFLOAD_GIVEN, "press/5", "{\"command\":[\"b\"]}");
    site_says(s, "plant", 2, OFFLOAD_GIVEN, "nonsense", "{}");
    site_says(s, "plant", 3, "test.count", "press/6", "{}");
    assert_int_equal(due(s, 2000, o), 2);
    size_t mine = strcmp(o[0].site.text, "plant") == 0 ? 0 : 1;
    assert_true(strcmp(o[mine].task.text, "press") == 0 && o[mine].token == 5 && o[mine].incarnation == 7 && o[mine].epoch == 3);
    assert_true(o[mine].state == STORE_OFFLOAD_GIVEN && o[mine].output == NULL);
    assert_true(bytes_equal_str(blob_bytes(o[mine].errand), "{\"command\":[\"a\"]}"));
    struct store_offload ended = o[mine];
    ended.state = STORE_OFFLOAD_ENDED;
    ended.end = OFFLOAD_FAILED;
    ended.exit_status = -4;
    ended.output_bytes = 70000;
    ended.output = blob_copy(bytes_str("last words"));
    memset(ended.output_hash, 9, sizeof ended.output_hash);
    put(s, &ended);
    blob_unref(ended.output);
    drop(o, 2);

    assert_int_equal(due(s, 2100, o), 0); /* they were looked at just now */
    assert_int_equal(due(s, 3000, o), 2);
    mine = strcmp(o[0].site.text, "plant") == 0 ? 0 : 1;
    assert_true(o[mine].state == STORE_OFFLOAD_ENDED && o[mine].end == OFFLOAD_FAILED && o[mine].exit_status == -4);
    assert_true(o[mine].output_bytes == 70000 && o[mine].output_hash[31] == 9 &&
                bytes_equal_str(blob_bytes(o[mine].output), "last words"));
    assert_int_equal(o[1 - mine].state, STORE_OFFLOAD_GIVEN);
    drop(o, 2);

    site_says(s, "plant", 4, OFFLOAD_SETTLED, "press/5", "");
    assert_int_equal(due(s, 3100, o), 1); /* at once, so that the worker stops */
    assert_int_equal(o[0].state, STORE_OFFLOAD_SETTLED);
    put(s, &o[0]);
    drop(o, 1);
    site_says(s, "plant", 5, OFFLOAD_SETTLED, "press/5", "");
    assert_int_equal(due(s, 9000, o), 1); /* the other site's */
    assert_string_equal(o[0].site.text, "other");
    drop(o, 1);
    store_close(s);
}

/* A task that the worker took must stay taken over a restart of the core, or it would be given a second time. */
static void what_was_accepted_stays_so_until_it_ends(void **state) {
    (void)state;
    struct store *s = open_store();
    struct store_offload o[8];
    site_hello(s, "plant");
    site_says(s, "plant", 1, OFFLOAD_GIVEN, "press/5", "{}");
    assert_int_equal(due(s, 2000, o), 1);
    o[0].state = STORE_OFFLOAD_ACCEPTED;
    put(s, &o[0]);
    drop(o, 1);
    site_says(s, "plant", 2, OFFLOAD_GIVEN, "press/5", "{}"); /* another event of the same */
    store_close(s);
    s = open_store();
    assert_int_equal(due(s, 3000, o), 1);
    assert_int_equal(o[0].state, STORE_OFFLOAD_ACCEPTED);
    o[0].state = STORE_OFFLOAD_ENDED;
    o[0].end = OFFLOAD_FAILED;
    put(s, &o[0]);
    o[0].state = STORE_OFFLOAD_ACCEPTED; /* said late, by another core */
    put(s, &o[0]);
    drop(o, 1);
    assert_int_equal(due(s, 4000, o), 1);
    assert_true(o[0].state == STORE_OFFLOAD_ENDED && o[0].end == OFFLOAD_FAILED && o[0].output == NULL);
    site_says(s, "plant", 3, OFFLOAD_SETTLED, "press/5", "");
    o[0].state = STORE_OFFLOAD_ACCEPTED;
    put(s, &o[0]);
    drop(o, 1);
    assert_int_equal(due(s, 5000, o), 1);
    assert_int_equal(o[0].state, STORE_OFFLOAD_SETTLED);
    drop(o, 1);
    store_close(s);
}

#define ON(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
#define ON_POSTGRES(test)                                                                                                          \
    { "postgres: " #test, test, set_up_postgres, NULL, NULL }

int main(void) {
    const struct CMUnitTest tests[] = {ON(a_task_is_kept_until_it_is_settled), ON(what_was_accepted_stays_so_until_it_ends)};
    const struct CMUnitTest on_postgres[] = {ON_POSTGRES(a_task_is_kept_until_it_is_settled),
                                             ON_POSTGRES(what_was_accepted_stays_so_until_it_ends)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed + cmocka_run_group_tests(on_postgres, postgres_start, postgres_stop);
}
