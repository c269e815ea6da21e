#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/rows_on_disk.h"

struct site {
    struct gateway g;
    struct builder payload, answer;
    struct outcome o;
};

static struct site *site_new(void) {
    struct site *s = calloc(1, sizeof *s);
    s->g = gateway_new(1 << 20);
    builder_init(&s->payload, LIMIT_PAYLOAD_BYTES);
    builder_init(&s->answer, 1024);
    return s;
}

static void site_free(struct site *s) {
    gateway_free(&s->g);
    builder_free(&s->payload);
    builder_free(&s->answer);
    free(s);
}

static enum grey_error request(struct site *s, bool is_delete, const char *key, enum kv_condition c, raft_index version,
                               const char *value) {
    payload_kv(&s->payload, is_delete, bytes_str(key), c, version, bytes_str("text/plain"), bytes_str(value));
    builder_reset(&s->answer);
    return gateway_entry(&s->g, ENTRY_KV, 1000, &s->payload, &s->o, &s->answer);
}

static void expect_answer(struct site *s, raft_index version, bool existed) {
    raft_index v;
    bool e;
    assert_true(answer_kv(builder_bytes(&s->answer), &v, &e));
    assert_int_equal(v, version);
    assert_int_equal(e, existed);
}

/* An operator who reads a key, edits it and writes it back must not overwrite a colleague's edit. */
static void conditions_hold_or_nothing_changes(void **context) {
    (void)context;
    struct site *s = site_new();
    struct kv_row row;
    assert_int_equal(request(s, false, "a", KV_IF_VERSION, 1, "x"), E_CONDITION);
    assert_int_equal(s->answer.size, 0);
    assert_string_equal(s->o.detail, "the key does not exist");
    assert_int_equal(request(s, false, "a", KV_IF_ABSENT, 0, "x"), E_OK);
    expect_answer(s, 2, false);
    assert_int_equal(request(s, false, "a", KV_IF_ABSENT, 0, "y"), E_CONDITION);
    assert_int_equal(request(s, false, "a", KV_IF_VERSION, 1, "y"), E_CONDITION);
    assert_string_equal(s->o.detail, "the key has version 2, not 1");
    assert_int_equal(state_kv(s->g.state, bytes_str("a"), &row), TABLE_FOUND);
    assert_int_equal(row.version, 2);
    assert_int_equal(request(s, false, "a", KV_IF_VERSION, 2, "three"), E_OK);
    expect_answer(s, 5, true);
    assert_int_equal(state_kv(s->g.state, bytes_str("a"), &row), TABLE_FOUND);
    assert_int_equal(row.version, 5);
    assert_int_equal(row.value_bytes, 5);
    assert_true(bytes_equal_str(row.content_type, "text/plain"));
    assert_int_equal(request(s, false, "a", KV_ALWAYS, 0, ""), E_OK);
    expect_answer(s, 6, true);
    site_free(s);
}

/* A key that is gone must say so, and its version must rise when it comes back, or caches would serve the old value. */
static void a_deleted_key_is_gone_and_versions_rise_across_it(void **context) {
    (void)context;
    struct site *s = site_new();
    struct kv_row row;
    assert_int_equal(request(s, true, "a", KV_ALWAYS, 0, ""), E_NOT_FOUND);
    assert_int_equal(request(s, true, "a", KV_IF_VERSION, 9, ""), E_CONDITION);
    assert_int_equal(request(s, false, "a", KV_ALWAYS, 0, "x"), E_OK);
    gateway_flush(&s->g);
    assert_int_equal(request(s, true, "a", KV_IF_VERSION, 1, ""), E_CONDITION);
    assert_int_equal(request(s, true, "a", KV_IF_VERSION, 3, ""), E_OK);
    expect_answer(s, 3, true);
    assert_int_equal(state_kv(s->g.state, bytes_str("a"), &row), TABLE_ABSENT);
    gateway_flush(&s->g);
    assert_int_equal(request(s, true, "a", KV_ALWAYS, 0, ""), E_NOT_FOUND);
    assert_int_equal(request(s, false, "a", KV_ALWAYS, 0, "x"), E_OK);
    expect_answer(s, 7, false);
    site_free(s);
}

/* A client bug that makes a key per reading must meet a clear answer, not a gateway without disk; deleting must help. */
static void the_number_of_keys_is_bounded(void **context) {
    (void)context;
    struct site *s = site_new();
    uint8_t full[16];
    assert_int_equal(request(s, false, "a", KV_ALWAYS, 0, "x"), E_OK);
    bytes_put_be64(full, LIMIT_KEYS);
    bytes_put_be64(full + 8, 2);
    assert_int_equal(table_put(s->g.rows, TABLE_META, bytes_str("kv"), bytes_of(full, 16), 0), E_OK);
    assert_int_equal(state_reload(s->g.state, NULL), E_OK);
    assert_int_equal(request(s, false, "b", KV_ALWAYS, 0, "x"), E_KV_FULL);
    assert_int_equal(request(s, false, "a", KV_ALWAYS, 0, "y"), E_OK);
    assert_int_equal(request(s, true, "a", KV_ALWAYS, 0, ""), E_OK);
    assert_int_equal(request(s, false, "b", KV_ALWAYS, 0, "x"), E_OK);

    bytes_put_be64(full, 2);
    bytes_put_be64(full + 8, LIMIT_KEYS_BYTES);
    assert_int_equal(table_put(s->g.rows, TABLE_META, bytes_str("kv"), bytes_of(full, 16), 0), E_OK);
    assert_int_equal(state_reload(s->g.state, NULL), E_OK);
    assert_int_equal(request(s, false, "c", KV_ALWAYS, 0, ""), E_KV_FULL);
    assert_int_equal(request(s, false, "b", KV_ALWAYS, 0, "xy"), E_KV_FULL);
    assert_int_equal(request(s, false, "b", KV_ALWAYS, 0, "y"), E_OK);
    assert_int_equal(request(s, false, "b", KV_ALWAYS, 0, ""), E_OK);
    site_free(s);
}

/* A value must come back as it was put; a payload that only looks like one must not be served. */
static void values_are_found_in_payloads(void **context) {
    (void)context;
    struct site *s = site_new();
    struct bytes type, value;
    payload_kv(&s->payload, false, bytes_str("a"), KV_ALWAYS, 0, bytes_str("text/plain"), bytes_of("\0\xff", 2));
    struct entry put = {.kind = ENTRY_KV, .payload = builder_blob(&s->payload)};
    assert_true(payload_kv_value(blob_bytes(put.payload), &type, &value));
    assert_true(bytes_equal_str(type, "text/plain"));
    assert_true(bytes_equal(value, bytes_of("\0\xff", 2)));
    assert_false(payload_kv_deletes(&put, bytes_str("a")));
    builder_reset(&s->payload);
    payload_kv(&s->payload, true, bytes_str("a"), KV_ALWAYS, 0, bytes_str("ignored"), bytes_str("ignored"));
    struct entry delete = {.kind = ENTRY_KV, .payload = builder_blob(&s->payload)};
    assert_true(payload_kv_deletes(&delete, bytes_str("a")));
    assert_false(payload_kv_deletes(&delete, bytes_str("b")));
    assert_false(payload_kv_value(blob_bytes(delete.payload), &type, &value));
    assert_int_equal(type.size + value.size, 0);
    for (size_t size = 0; size < put.payload->size; size++) {
        assert_false(payload_kv_value(bytes_of(put.payload->data, size), &type, &value));
    }
    blob_unref(put.payload);
    blob_unref(delete.payload);
    site_free(s);
}

/* What is out of bounds must not get in, even from a peer that does not check. */
static void bounds_hold_at_apply(void **context) {
    (void)context;
    struct site *s = site_new();
    static uint8_t big[LIMIT_VALUE_BYTES + 1];
    memset(big, 'k', sizeof big);
    for (size_t over = 0; over < 2; over++) {
        enum grey_error wanted = over ? E_BAD_MESSAGE : E_OK;
        payload_kv(&s->payload, false, bytes_of(big, LIMIT_KEY_BYTES + over), KV_ALWAYS, 0, bytes_str(""), bytes_str(""));
        assert_int_equal(gateway_entry(&s->g, ENTRY_KV, 0, &s->payload, &s->o, NULL), wanted);
        payload_kv(&s->payload, false, bytes_str("v"), KV_ALWAYS, 0, bytes_str(""), bytes_of(big, LIMIT_VALUE_BYTES + over));
        assert_int_equal(gateway_entry(&s->g, ENTRY_KV, 0, &s->payload, &s->o, NULL), wanted);
        payload_kv(&s->payload, false, bytes_str("t"), KV_ALWAYS, 0, bytes_of(big, LIMIT_EVENT_FIELD_BYTES + over), bytes_str(""));
        assert_int_equal(gateway_entry(&s->g, ENTRY_KV, 0, &s->payload, &s->o, NULL), wanted);
    }
    payload_kv(&s->payload, false, bytes_str(""), KV_ALWAYS, 0, bytes_str(""), bytes_str(""));
    assert_int_equal(gateway_entry(&s->g, ENTRY_KV, 0, &s->payload, &s->o, NULL), E_BAD_MESSAGE);
    assert_int_equal(gateway_entry(&s->g, ENTRY_KV, 0, NULL, &s->o, NULL), E_BAD_CBOR);
    site_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conditions_hold_or_nothing_changes),
        cmocka_unit_test(a_deleted_key_is_gone_and_versions_rise_across_it),
        cmocka_unit_test(the_number_of_keys_is_bounded),
        cmocka_unit_test(values_are_found_in_payloads),
        cmocka_unit_test(bounds_hold_at_apply),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
