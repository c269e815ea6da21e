/* Words about configs and data: if site and core read them differently, a site would fetch what it has, or be taken to have what it lacks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "federation/supply.h"

static void golden_bytes(void **state) {
    (void)state;
    static const uint8_t holdings[] = {0x84, 0x18, 69, 7, 3, 0x81, 0x85, 2, 0x61, 'n', 5, 9, 1};
    static const uint8_t offer[] = {0x85, 0x18, 84, 7, 3, 0x42, 'm', 's', 0x41, 'c'};
    static const uint8_t chunk[] = {0x84, 0x18, 85, 7, 3, 0x43, 'a', 'b', 'c'};
    struct supply_holding one = {.kind = OBJECT_POLICY, .name = bytes_str("n"), .version = 5, .issue = 9, .health = SUPPLY_HEALTHY};
    struct supply_holdings h = {.incarnation = 7, .epoch = 3, .at = &one, .count = 1}, h2;
    struct supply_offer o = {.incarnation = 7, .epoch = 3, .manifest = bytes_str("ms"), .content = bytes_str("c")}, o2;
    struct supply_chunk c = {.incarnation = 7, .epoch = 3, .content = bytes_str("abc")}, c2;
    struct supply_pull p = {.incarnation = 7, .epoch = 3, .count = 2}, p2;
    struct supply_holding at[SUPPLY_HOLDINGS_MAX];
    struct builder b;
    builder_init(&b, 1000);
#define EXPECT(put, expected)                                                                                                      \
    builder_reset(&b);                                                                                                             \
    put;                                                                                                                           \
    assert_int_equal(b.size, sizeof expected);                                                                                     \
    assert_memory_equal(b.data, expected, sizeof expected)
    EXPECT(supply_put_holdings(&b, &h), holdings);
    assert_int_equal(supply_get_holdings(builder_bytes(&b), &h2, at), E_OK);
    assert_int_equal(h2.count, 1);
    assert_int_equal(at[0].kind, OBJECT_POLICY);
    assert_int_equal(at[0].version, 5);
    assert_int_equal(at[0].issue, 9);
    assert_int_equal(at[0].health, SUPPLY_HEALTHY);
    EXPECT(supply_put_offer(&b, &o), offer);
    assert_int_equal(supply_get_offer(builder_bytes(&b), &o2), E_OK);
    assert_true(bytes_equal(o2.manifest, o.manifest) && bytes_equal(o2.content, o.content) && o2.incarnation == 7 && o2.epoch == 3);
    EXPECT(supply_put_chunk(&b, &c), chunk);
    assert_int_equal(supply_get_chunk(builder_bytes(&b), &c2), E_OK);
    assert_true(bytes_equal(c2.content, c.content));
    memset(p.hashes[0], 1, OBJECT_HASH_BYTES), memset(p.hashes[1], 2, OBJECT_HASH_BYTES);
    builder_reset(&b);
    supply_put_pull(&b, &p);
    assert_int_equal(supply_get_pull(builder_bytes(&b), &p2), E_OK);
    assert_int_equal(p2.count, 2);
    assert_memory_equal(p2.hashes, p.hashes, 2 * OBJECT_HASH_BYTES);
    /* nothing passes for another kind, nothing short passes */
    assert_int_not_equal(supply_get_chunk(builder_bytes(&b), &c2), E_OK);
    for (size_t cut = 0; cut < b.size; cut++) {
        assert_int_not_equal(supply_get_pull(bytes_of(b.data, cut), &p2), E_OK);
        assert_int_equal(p2.count, 0);
    }
    for (size_t cut = 0; cut < sizeof holdings; cut++) {
        assert_int_not_equal(supply_get_holdings(bytes_of(holdings, cut), &h2, at), E_OK);
        assert_int_equal(h2.count, 0);
    }
    builder_free(&b);
}

static void bounds_hold(void **state) {
    (void)state;
    static const uint8_t no_issue[] = {0x84, 0x18, 69, 7, 3, 0x81, 0x85, 2, 0x61, 'n', 5, 0, 1};
    static const uint8_t no_kind[] = {0x84, 0x18, 69, 7, 3, 0x81, 0x85, 0, 0x61, 'n', 5, 9, 1};
    static const uint8_t bad_name[] = {0x84, 0x18, 69, 7, 3, 0x81, 0x85, 2, 0x61, '/', 5, 9, 1};
    static const uint8_t bad_health[] = {0x84, 0x18, 69, 7, 3, 0x81, 0x85, 2, 0x61, 'n', 5, 9, 3};
    static const uint8_t no_incarnation[] = {0x84, 0x18, 69, 0, 3, 0x80};
    static const uint8_t no_pull[] = {0x84, 0x18, 70, 7, 3, 0x80}, no_chunk[] = {0x84, 0x18, 85, 7, 3, 0x40};
    struct supply_holding at[SUPPLY_HOLDINGS_MAX];
    struct supply_holdings h;
    struct supply_pull p;
    struct supply_chunk c;
    assert_int_equal(supply_get_holdings(bytes_of(no_issue, sizeof no_issue), &h, at), E_BAD_MESSAGE);
    assert_int_equal(supply_get_holdings(bytes_of(no_kind, sizeof no_kind), &h, at), E_BAD_MESSAGE);
    assert_int_equal(supply_get_holdings(bytes_of(bad_name, sizeof bad_name), &h, at), E_BAD_MESSAGE);
    assert_int_equal(supply_get_holdings(bytes_of(bad_health, sizeof bad_health), &h, at), E_BAD_MESSAGE);
    assert_int_equal(supply_get_holdings(bytes_of(no_incarnation, sizeof no_incarnation), &h, at), E_BAD_MESSAGE);
    assert_int_equal(supply_get_pull(bytes_of(no_pull, sizeof no_pull), &p), E_BAD_MESSAGE);
    assert_int_equal(supply_get_chunk(bytes_of(no_chunk, sizeof no_chunk), &c), E_BAD_MESSAGE);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(golden_bytes), cmocka_unit_test(bounds_hold)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
