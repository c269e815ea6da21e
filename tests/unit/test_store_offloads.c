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
#include "federation/record.h"
#include "tests/unit/store_rig.h"

static void hello(struct store *s, const char *site) {
    struct sync_hello h = {.incarnation = 7, .epoch = 3, .feature_level = 2, .node = bytes_str("a"), .time_ms = 5};
    grey_seq positions[CHANNEL_COUNT];
    bool rolled_back;
    struct fault f = {0};
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        h.channels[i].next_seq = 1;
    }
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_hello(s, site, &h, 1000, positions, &rolled_back, &f), E_OK);
    assert_int_equal(store_commit(s, &f), E_OK);
}

/* As it comes with a frame. */
static void say(struct store *s, const char *site, grey_seq seq, const char *type, const char *subject, const char *data) {
    struct event e = {.id = bytes_str("x"),
                      .source = bytes_str("grey://plant"),
                      .type = bytes_str(type),
                      .subject = bytes_str(subject),
                      .data = bytes_str(data),
                      .priority = PRIORITY_NORMAL};
    struct builder record;
    struct fault f = {0};
    struct store_taken taken;
    builder_init(&record, 4096);
    record_encode(&e, &record);
    struct sync_item item = {.seq = seq, .index = seq, .time_ms = 5, .record = builder_bytes(&record)};
    struct sync_events frame = {
        .incarnation = 7, .epoch = 3, .channel = CHANNEL_DATA, .from_seq = seq, .to_seq = seq, .items = &item, .item_count = 1};
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_events(s, site, &frame, 1000, &taken, &f), E_OK);
    assert_int_equal(store_commit(s, &f), E_OK);
}

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
    hello(s, "plant");
    hello(s, "other");
    say(s, "plant", 1, OFFLOAD_GIVEN, "press/5", "{\"command\":[\"a\"]}");
    say(s, "plant", 1, OFFLOAD_GIVEN, "press/5", "{\"command\":[\"a\"]}"); /* the frame again */
    say(s, "other", 1, OFFLOAD_GIVEN, "press/5", "{\"command\":[\"b\"]}");
    say(s, "plant", 2, OFFLOAD_GIVEN, "nonsense", "{}");
    say(s, "plant", 3, "test.count", "press/6", "{}");
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

    say(s, "plant", 4, OFFLOAD_SETTLED, "press/5", "");
    assert_int_equal(due(s, 3100, o), 1); /* at once, so that the worker stops */
    assert_int_equal(o[0].state, STORE_OFFLOAD_SETTLED);
    put(s, &o[0]);
    drop(o, 1);
    say(s, "plant", 5, OFFLOAD_SETTLED, "press/5", "");
    assert_int_equal(due(s, 9000, o), 1); /* the other site's */
    assert_string_equal(o[0].site.text, "other");
    drop(o, 1);
    store_close(s);
}

#define ON(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
#define ON_POSTGRES(test)                                                                                                          \
    { "postgres: " #test, test, set_up_postgres, NULL, NULL }

int main(void) {
    const struct CMUnitTest tests[] = {ON(a_task_is_kept_until_it_is_settled)};
    const struct CMUnitTest on_postgres[] = {ON_POSTGRES(a_task_is_kept_until_it_is_settled)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed + cmocka_run_group_tests(on_postgres, postgres_start, postgres_stop);
}
