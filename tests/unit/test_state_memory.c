#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "platform/bytes.h"

/* The table of this program gets its memory from here: the n-th call fails. */
static unsigned long calls_left;

static void *scarce_new(size_t count, size_t size) {
    return calls_left > 0 && --calls_left == 0 ? NULL : mem_new(count, size);
}

#define mem_new scarce_new
#include "agent/table/keyrange.c"
#include "agent/table/table.c"
#undef mem_new

#include "agent/work/work.h"
#include "tests/unit/rows_on_disk.h"

static void fill_batch(struct builder *p) {
    codec_put_array(p, 3);
    static const char *const ids[] = {"a", "b", "a"};
    for (size_t i = 0; i < 3; i++) {
        struct event e = {.id = bytes_str(ids[i]), .source = bytes_str("s"), .type = bytes_str("t"), .has_id = true};
        record_encode(&e, p);
    }
}

static void fill_big_batch(struct builder *p) {
    static uint8_t zeros[1000];
    codec_put_array(p, 1);
    struct event e = {.id = bytes_str("c"), .source = bytes_str("s"), .type = bytes_str("t"), .priority = PRIORITY_HIGH};
    e.data = bytes_of(zeros, sizeof zeros);
    record_encode(&e, p);
}

static void fill_limits(struct builder *p) {
    gateway_limits(p, 1400);
}

static void fill_put(struct builder *p) {
    payload_kv(p, false, bytes_str("k"), KV_ALWAYS, 0, bytes_str("t"), bytes_str("v"));
}

static void fill_delete(struct builder *p) {
    payload_kv(p, true, bytes_str("k"), KV_ALWAYS, 0, bytes_str(""), bytes_str(""));
}

static void fill_ack(struct builder *p) {
    payload_ack(p, 0, CHANNEL_CONTROL, 2);
}

static void fill_node(struct builder *p) {
    struct node_facts facts = {.id = 1, .name = bytes_str("n"), .capacity = {8000, 1u << 30}};
    payload_node(p, &facts);
}

static void fill_task(struct builder *p) {
    struct task_order o = {.id = bytes_str("t"),
                           .tenant = bytes_str("default"),
                           .cpu_millicores = 1,
                           .memory_bytes = TASK_MEMORY_BYTES_MIN,
                           .missed_max = 1};
    o.command.count = 1;
    o.command.at[0] = bytes_str("true");
    payload_task_submit(p, &o, -1);
}

static void fill_report(struct builder *p) {
    payload_task_report(p, bytes_str("t"), 1, REPORT_COMPLETED, REASON_NONE, 0, bytes_of(NULL, 0));
}

/* A gateway short of memory may be slow, but half an entry would part its state from the others' for ever. */
static void an_entry_is_applied_whole_or_not_at_all(void **context) {
    (void)context;
    static const struct {
        enum entry_kind kind;
        void (*fill)(struct builder *p);
    } steps[] = {{ENTRY_LIMITS, fill_limits},    {ENTRY_EVENTS, fill_batch},     {ENTRY_KV, fill_put},
                 {ENTRY_EVENTS, fill_big_batch}, {ENTRY_EVENTS, fill_big_batch}, {ENTRY_KV, fill_delete},
                 {ENTRY_ACK, fill_ack},          {ENTRY_KV, fill_put},           {ENTRY_NODE, fill_node},
                 {ENTRY_TASK, fill_task},        {ENTRY_TASK, fill_report}};
    struct gateway rich = gateway_new(1 << 20), poor = gateway_new(1 << 20);
    struct builder p, before, after;
    unsigned refused = 0;
    builder_init(&p, 1 << 16);
    builder_init(&before, 1 << 20);
    builder_init(&after, 1 << 20);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        struct outcome o;
        builder_reset(&p);
        steps[i].fill(&p);
        struct entry e = {.index = i + 1, .kind = (uint16_t)steps[i].kind, .schema = ENTRY_SCHEMA, .payload = builder_blob(&p)};
        must(gateway_apply(&rich, &e, &o, NULL) == E_OK && o.err == E_OK);
        state_wants(&e, gateway_load, &poor);
        gateway_dump(&poor, &before);
        enum grey_error err = E_NO_MEMORY;
        for (unsigned long n = 1; err != E_OK; n++) {
            uint8_t hashes[2][DIGEST_BYTES];
            state_hash(poor.state, hashes[0]);
            calls_left = n;
            err = state_apply(poor.state, &e, &o, NULL);
            calls_left = 0;
            if (err != E_OK) {
                assert_int_equal(err, E_NO_MEMORY);
                assert_int_equal(state_applied(poor.state), i);
                state_hash(poor.state, hashes[1]);
                assert_memory_equal(hashes[0], hashes[1], DIGEST_BYTES);
                gateway_dump(&poor, &after);
                assert_true(bytes_equal(builder_bytes(&before), builder_bytes(&after)));
                refused++;
            }
        }
        blob_unref(e.payload);
        calls_left = 1;
        struct table_flush f;
        assert_int_equal(table_flush_begin(poor.rows, &f), E_NO_MEMORY);
        calls_left = 0;
        gateway_flush(&poor);
        gateway_dump(&poor, &before);
        gateway_dump(&rich, &after);
        assert_true(bytes_equal(builder_bytes(&before), builder_bytes(&after)));
    }
    assert_true(refused > 30);
    assert_int_equal(state_lost_below(rich.state, PRIORITY_HIGH), 2);
    builder_free(&p);
    builder_free(&before);
    builder_free(&after);
    gateway_free(&rich);
    gateway_free(&poor);
}

/* Single changes and loads without memory leave the rows as they were. */
static void a_row_is_changed_whole_or_not_at_all(void **context) {
    (void)context;
    struct table *t = table_new(1 << 20);
    struct bytes v;
    calls_left = 1;
    assert_int_equal(table_put(t, TABLE_KV, bytes_str("a"), bytes_str("1"), 0), E_NO_MEMORY);
    calls_left = 1;
    assert_int_equal(table_load(t, TABLE_KV, bytes_str("a"), true, bytes_str("1"), 0), E_NO_MEMORY);
    assert_int_equal(table_get(t, TABLE_KV, bytes_str("a"), &v), TABLE_UNKNOWN);
    assert_int_equal(table_put(t, TABLE_KV, bytes_str("a"), bytes_str("1"), 0), E_OK);
    calls_left = 1;
    assert_int_equal(table_delete(t, TABLE_KV, bytes_str("a")), E_NO_MEMORY);
    calls_left = 1;
    assert_int_equal(table_delete_range(t, TABLE_KV, bytes_str("a"), bytes_str("b")), E_NO_MEMORY);
    assert_int_equal(table_get(t, TABLE_KV, bytes_str("a"), &v), TABLE_FOUND);
    calls_left = 1;
    assert_null(table_new(1));
    calls_left = 0;
    table_free(t);
    table_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_entry_is_applied_whole_or_not_at_all),
        cmocka_unit_test(a_row_is_changed_whole_or_not_at_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
