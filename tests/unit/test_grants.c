/* If this failed, gateways of a site would differ in which tokens they take, or a revoked one would go on opening doors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "agent/state/grants.h"
#include "federation/origin.h"
#include "tests/unit/rows_on_disk.h"

#define HOUR_MS 3600000

static struct gateway g;
static struct builder payload;
static struct outcome outcome;

static struct bearer make(uint32_t number, int64_t expires_ms) {
    uint8_t seed[BEARER_SEED_BYTES] = {0};
    char text[BEARER_BYTES + 1];
    struct bearer b = {.role = ROLE_OPERATOR, .created_ms = 1, .expires_ms = expires_ms, .name = "line 3"};
    bytes_put_be32(seed, number);
    bearer_make(seed, text, &b);
    return b;
}

static enum grey_error grant(const struct bearer *b, int64_t time_ms) {
    struct origin o = {.who = bytes_str("user 0"), .role = ROLE_ADMIN, .address = bytes_str("local"), .node = bytes_str("1")};
    origin_put(&payload, &o, true);
    payload_grant(&payload, b);
    return gateway_entry(&g, ENTRY_TOKEN, time_ms, &payload, &outcome, NULL);
}

static enum grey_error revoke_id(const char *id, int64_t time_ms) {
    payload_revoke(&payload, bytes_str(id));
    return gateway_entry(&g, ENTRY_TOKEN, time_ms, &payload, &outcome, NULL);
}

static uint32_t count_all(void) {
    struct bearer b;
    uint32_t count = 0;
    for (const char *after = ""; grants_next(g.rows, after, &b); after = b.id) {
        count++;
    }
    return count;
}

static int begin(void **state) {
    (void)state;
    g = gateway_new(1 << 20);
    builder_init(&payload, LIMIT_PAYLOAD_BYTES);
    return 0;
}

static int end(void **state) {
    (void)state;
    gateway_free(&g);
    builder_free(&payload);
    return 0;
}

static void granted_found_and_revoked(void **state) {
    (void)state;
    struct bearer b = make(7, HOUR_MS), found;
    assert_int_equal(grant(&b, 1000), E_OK);
    assert_true(grants_find(g.rows, b.id, &found));
    assert_memory_equal(found.hash, b.hash, sizeof b.hash);
    assert_string_equal(found.name, "line 3");
    assert_int_equal(found.role, ROLE_OPERATOR);
    assert_int_equal(found.expires_ms, HOUR_MS);
    assert_int_equal(grant(&b, 1001), E_ID_REUSED);
    assert_int_equal(revoke_id("00000000", 1002), E_NOT_FOUND);
    assert_int_equal(revoke_id(b.id, 1003), E_OK);
    assert_false(grants_find(g.rows, b.id, &found));
    assert_int_equal(revoke_id(b.id, 1004), E_NOT_FOUND);
}

static void expired_ones_make_room(void **state) {
    (void)state;
    struct bearer b;
    for (uint32_t i = 0; i < GRANTS_MAX; i++) {
        b = make(i, i < 10 ? HOUR_MS : 2 * HOUR_MS);
        assert_int_equal(grant(&b, 1000), E_OK);
    }
    b = make(1000, 3 * HOUR_MS);
    assert_int_equal(grant(&b, 1000), E_QUOTA);
    assert_int_equal(count_all(), GRANTS_MAX);
    assert_int_equal(grant(&b, HOUR_MS), E_OK); /* ten have expired by the entry's time */
    assert_int_equal(count_all(), GRANTS_MAX - 9);
    b = make(1001, HOUR_MS);
    assert_int_equal(grant(&b, HOUR_MS), E_BAD_MESSAGE); /* it would never be good */
}

static void what_is_no_token_changes_nothing(void **state) {
    (void)state;
    struct bearer good = make(1, HOUR_MS), b = good;
    b.role = ROLE_NONE;
    assert_int_equal(grant(&b, 1000), E_BAD_MESSAGE);
    b = good;
    memcpy(b.id, "1234567", 8);
    assert_int_equal(grant(&b, 1000), E_BAD_MESSAGE);
    payload_grant(&payload, &good);
    builder_add_byte(&payload, 0);
    assert_int_equal(gateway_entry(&g, ENTRY_TOKEN, 1000, &payload, &outcome, NULL), E_BAD_MESSAGE);
    assert_int_equal(count_all(), 0);
}

/* A key that a client wrote with who he is reads as one without. */
static void origin_before_a_key(void **state) {
    (void)state;
    struct origin o = {.who = bytes_str("anyone"), .role = ROLE_ADMIN, .address = bytes_str("127.0.0.1"), .node = bytes_str("1")};
    struct bytes type, value;
    struct kv_row row;
    origin_put(&payload, &o, true);
    payload_kv(&payload, false, bytes_str("k"), KV_ALWAYS, 0, bytes_str("text/plain"), bytes_str("v"));
    assert_true(payload_kv_value(builder_bytes(&payload), &type, &value));
    assert_true(bytes_equal_str(value, "v"));
    assert_int_equal(gateway_entry(&g, ENTRY_KV, 1000, &payload, &outcome, NULL), E_OK);
    assert_int_equal(state_kv(g.state, bytes_str("k"), &row), TABLE_FOUND);
    assert_int_equal(row.value_bytes, 1);
    assert_int_equal(gateway_entry(&g, ENTRY_NOTE, 1000, NULL, &outcome, NULL),
                     E_OK); /* a note changes nothing, whatever it says */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(granted_found_and_revoked, begin, end),
        cmocka_unit_test_setup_teardown(expired_ones_make_room, begin, end),
        cmocka_unit_test_setup_teardown(what_is_no_token_changes_nothing, begin, end),
        cmocka_unit_test_setup_teardown(origin_before_a_key, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
