/* What a site holds from the core: if this failed, a site could run on half a config, go back to an old one, fetch over a thin link what it
 * has, or lose what was in force. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "agent/state/holding.h"
#include "tests/unit/work_rig.h"

#define SITE "plant-7"
#define CHUNK OBJECT_CHUNK_BYTES_MIN

static uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES], secret_key[KEYS_ED25519_SECRET_BYTES];

static struct rig *site_new(void) {
    struct rig *r = rig_new();
    struct site_facts f = {.cluster_id = 5, .incarnation = 9, .feature_level = FEATURE_LEVEL};
    memcpy(f.site.text, SITE, sizeof SITE);
    payload_site(&r->payload, &f);
    assert_int_equal(rig_entry(r, ENTRY_SITE), E_OK);
    return r;
}

static enum grey_error offer_to(struct rig *r, const char *site, const char *name, uint64_t version, uint64_t issue,
                                struct bytes content, bool is_inline) {
    struct builder hashes, manifest;
    builder_init(&hashes, 1 << 20);
    builder_init(&manifest, 1 << 20);
    object_cut(content, CHUNK, &hashes);
    struct object_manifest m = {.kind = OBJECT_CONFIG,
                                .name = bytes_str(name),
                                .site = bytes_str(site),
                                .version = version,
                                .issue = issue,
                                .size = content.size,
                                .chunk_bytes = CHUNK,
                                .hashes = builder_bytes(&hashes)};
    object_sign(&m, secret_key, &manifest);
    payload_offer(&r->payload, builder_bytes(&manifest), is_inline ? content : bytes_of(NULL, 0));
    builder_free(&hashes);
    builder_free(&manifest);
    return rig_entry(r, ENTRY_OBJECT);
}

static enum grey_error offer(struct rig *r, const char *name, uint64_t version, uint64_t issue, struct bytes content) {
    return offer_to(r, SITE, name, version, issue, content, false);
}

static enum grey_error chunk(struct rig *r, struct bytes content) {
    payload_chunk(&r->payload, content);
    return rig_entry(r, ENTRY_OBJECT);
}

static struct holding look(struct rig *r, const char *name) {
    struct holding h = {0};
    assert_true(holding_find(state_table(r->g.state), OBJECT_CONFIG, bytes_str(name), &h));
    return h;
}

/* Every chunk here is one that somebody names, and what is in force is complete. */
static uint32_t check(struct rig *r) {
    struct table *t = state_table(r->g.state);
    struct bytes key, from = bytes_of(NULL, 0), value;
    raft_index ref;
    uint32_t chunks = 0;
    uint8_t after[OBJECT_HASH_BYTES + 1];
    while (table_next(t, TABLE_CHUNK, from, &key, &value, &ref)) {
        bool named = false;
        struct holding h;
        uint8_t at[80];
        struct bytes row = bytes_of(NULL, 0);
        while (holding_next(t, row, &row, &h)) {
            for (uint32_t i = 0; i < object_chunk_count(&h.force); i++) {
                named = named || bytes_equal(object_hash(&h.force, i), key);
            }
            for (uint32_t i = 0; i < object_chunk_count(&h.coming); i++) {
                named = named || bytes_equal(object_hash(&h.coming, i), key);
            }
            assert_int_equal(holding_missing(t, &h.force, 0), object_chunk_count(&h.force));
            assert_true(h.coming.version == 0 || holding_missing(t, &h.coming, 0) < object_chunk_count(&h.coming));
            memcpy(at, row.data, row.size);
            row.data = at;
        }
        assert_true(named);
        assert_int_equal(holding_chunk(t, key), ref);
        assert_true(ref > 0);
        chunks++;
        memcpy(after, key.data, key.size);
        after[key.size] = 0;
        from = bytes_of(after, key.size + 1);
    }
    return chunks;
}

static void a_small_one_comes_at_once(void **state) {
    (void)state;
    struct rig *r = site_new();
    assert_int_equal(offer_to(r, SITE, "app", 1, 10, bytes_str("rate: 5"), true), E_OK);
    struct holding h = look(r, "app");
    assert_int_equal(h.force.version, 1);
    assert_int_equal(h.coming.version, 0);
    assert_int_equal(h.since_ms, r->now_ms);
    assert_int_equal(holding_chunk(state_table(r->g.state), h.force.hashes), state_applied(r->g.state));
    /* content that is not the one named does not come in with it */
    struct builder hashes, manifest;
    builder_init(&hashes, 100);
    builder_init(&manifest, 4096);
    object_cut(bytes_str("rate: 6"), CHUNK, &hashes);
    struct object_manifest m = {.kind = OBJECT_CONFIG,
                                .name = bytes_str("app"),
                                .site = bytes_str(SITE),
                                .version = 2,
                                .issue = 11,
                                .size = 7,
                                .chunk_bytes = CHUNK,
                                .hashes = builder_bytes(&hashes)};
    object_sign(&m, secret_key, &manifest);
    payload_offer(&r->payload, builder_bytes(&manifest), bytes_str("rate: 9"));
    assert_int_equal(rig_entry(r, ENTRY_OBJECT), E_BAD_MESSAGE);
    assert_int_equal(look(r, "app").force.version, 1);
    assert_int_equal(offer_to(r, SITE, "none", 1, 12, bytes_of(NULL, 0), false), E_OK); /* nothing is complete at once */
    assert_int_equal(look(r, "none").force.version, 1);
    builder_free(&hashes);
    builder_free(&manifest);
    assert_int_equal(check(r), 1);
    rig_free(r);
}

static void only_what_differs_is_wanted_and_the_old_stays_until_then(void **state) {
    (void)state;
    static uint8_t big[5 * CHUNK - 7];
    for (size_t i = 0; i < sizeof big; i++) {
        big[i] = (uint8_t)(i / CHUNK * 31 + i % 251);
    }
    struct rig *r = site_new();
    struct bytes all = bytes_of(big, sizeof big);
    assert_int_equal(offer(r, "map", 1, 10, all), E_OK);
    for (uint32_t i = 0; i < 5; i++) {
        struct holding h = look(r, "map");
        assert_int_equal(h.force.version, 0);
        assert_int_equal(holding_missing(state_table(r->g.state), &h.coming, 0), i);
        assert_int_equal(chunk(r, bytes_of(big + i * CHUNK, object_size_of(&h.coming, i))), E_OK);
        rig_restart(r);
    }
    assert_int_equal(look(r, "map").force.version, 1);
    assert_int_equal(check(r), 5);
    uint8_t old[CHUNK];
    memcpy(old, big + 2 * CHUNK, CHUNK);
    big[2 * CHUNK + 100] ^= 1;
    assert_int_equal(offer(r, "map", 2, 11, all), E_OK);
    struct holding h = look(r, "map");
    assert_int_equal(h.force.version, 1);
    assert_int_equal(holding_missing(state_table(r->g.state), &h.coming, 0), 2);
    assert_int_equal(holding_missing(state_table(r->g.state), &h.coming, 3), 5);
    r->now_ms += 1000;
    assert_int_equal(chunk(r, bytes_of(big + 2 * CHUNK, CHUNK)), E_OK);
    assert_int_equal(look(r, "map").force.version, 2);
    assert_int_equal(look(r, "map").since_ms, r->now_ms);
    assert_int_equal(check(r), 5);
    /* back again: a newer issue of the older version */
    big[2 * CHUNK + 100] ^= 1;
    assert_int_equal(offer(r, "map", 1, 12, all), E_OK);
    assert_int_equal(look(r, "map").force.version, 2);
    assert_int_equal(chunk(r, bytes_of(old, CHUNK)), E_OK);
    assert_int_equal(look(r, "map").force.version, 1);
    assert_int_equal(look(r, "map").force.issue, 12);
    assert_int_equal(check(r), 5);
    rig_free(r);
}

static void what_is_not_meant_or_not_newer_is_refused(void **state) {
    (void)state;
    struct rig *r = site_new();
    static uint8_t two[2 * CHUNK];
    two[0] = 1;
    assert_int_equal(offer_to(r, SITE, "app", 7, 10, bytes_str("x"), true), E_OK);
    assert_int_equal(offer_to(r, SITE, "app", 6, 9, bytes_str("y"), true), E_CONDITION);
    assert_int_equal(offer_to(r, SITE, "app", 8, 10, bytes_str("y"), true), E_CONDITION);
    assert_int_equal(offer_to(r, "plant-8", "app", 8, 11, bytes_str("y"), true), E_WRONG_SITE);
    assert_int_equal(offer(r, "app", 8, 11, bytes_of(two, sizeof two)), E_OK);
    assert_int_equal(offer(r, "app", 8, 11, bytes_of(two, sizeof two)), E_CONDITION); /* it is coming already */
    assert_int_equal(chunk(r, bytes_str("nobody wants this")), E_NOT_FOUND);
    assert_int_equal(chunk(r, bytes_of(two, CHUNK)), E_OK);
    assert_int_equal(chunk(r, bytes_of(two, CHUNK)), E_NOT_FOUND); /* again */
    assert_int_equal(look(r, "app").force.version, 7);
    payload_health(&r->payload, OBJECT_CONFIG, bytes_str("app"), 11, SUPPLY_FAILED); /* not in force yet */
    assert_int_equal(rig_entry(r, ENTRY_OBJECT), E_CONDITION);
    payload_health(&r->payload, OBJECT_CONFIG, bytes_str("app"), 10, SUPPLY_FAILED);
    assert_int_equal(rig_entry(r, ENTRY_OBJECT), E_OK);
    assert_int_equal(look(r, "app").health, SUPPLY_FAILED);
    payload_health(&r->payload, OBJECT_CONFIG, bytes_str("other"), 10, SUPPLY_FAILED);
    assert_int_equal(rig_entry(r, ENTRY_OBJECT), E_CONDITION);
    assert_int_equal(chunk(r, bytes_of(two + CHUNK, CHUNK)), E_OK); /* the same bytes as zeroes elsewhere would be */
    assert_int_equal(look(r, "app").force.version, 8);
    assert_int_equal(look(r, "app").health, SUPPLY_UNKNOWN); /* of another version */
    builder_add_str(&r->payload, "junk");
    assert_int_equal(rig_entry(r, ENTRY_OBJECT), E_BAD_CBOR);
    check(r);
    rig_free(r);
}

static void there_are_bounds(void **state) {
    (void)state;
    struct rig *r = site_new();
    char name[16];
    for (uint32_t i = 0; i < LIMIT_OBJECTS; i++) {
        (void)snprintf(name, sizeof name, "c%u", i);
        assert_int_equal(offer_to(r, SITE, name, 1, 1, bytes_str(name), true), E_OK);
    }
    assert_int_equal(offer_to(r, SITE, "more", 1, 1, bytes_str("x"), true), E_KV_FULL);
    uint8_t *large = calloc(OBJECT_CHUNKS_MAX, CHUNK);
    for (uint32_t i = 0; i < 3; i++) {
        (void)snprintf(name, sizeof name, "c%u", i);
        assert_int_equal(offer(r, name, 2, 2, bytes_of(large, (size_t)OBJECT_CHUNKS_MAX * CHUNK)), E_OK);
    }
    assert_int_equal(offer(r, "c3", 2, 2, bytes_of(large, (size_t)OBJECT_CHUNKS_MAX * CHUNK)), E_KV_FULL);
    assert_int_equal(look(r, "c3").force.version, 1);
    assert_int_equal(chunk(r, bytes_of(large, CHUNK)), E_OK); /* all their chunks are this one */
    for (uint32_t i = 0; i < 3; i++) {
        (void)snprintf(name, sizeof name, "c%u", i);
        assert_int_equal(look(r, name).force.version, 2);
    }
    assert_int_equal(check(r), LIMIT_OBJECTS - 3 + 1);
    free(large);
    rig_free(r);
}

/* Offers and chunks in any order, objects that share chunks, restarts: the same rows on all gateways, and none too many. */
static void whatever_comes_the_rows_are_whole(void **state) {
    (void)state;
    struct rig *a = site_new(), *b = site_new();
    static uint8_t pool[6][CHUNK];
    uint32_t x = 12345;
    for (uint8_t i = 0; i < 6; i++) {
        memset(pool[i], i + 1, CHUNK);
    }
    uint64_t issue = 1;
    for (int step = 0; step < 3000; step++) {
        x = x * 1664525u + 1013904223u;
        uint32_t what = x >> 24, count = (x >> 8) % 5;
        uint8_t content[4 * CHUNK];
        enum grey_error one, two;
        if (what < 60) {
            for (uint32_t i = 0; i < count; i++) {
                memcpy(content + i * CHUNK, pool[(x >> (i * 3)) % 6], CHUNK);
            }
            const char *name = what % 3 == 0 ? "p" : what % 3 == 1 ? "q" : "r";
            issue += what % 5 > 0;
            one = offer(a, name, 1 + what, issue, bytes_of(content, count * CHUNK));
            two = offer(b, name, 1 + what, issue, bytes_of(content, count * CHUNK));
        } else {
            one = chunk(a, bytes_of(pool[x % 6], CHUNK));
            two = chunk(b, bytes_of(pool[x % 6], CHUNK));
        }
        assert_int_equal(one, two);
        if (what % 16 == 0) {
            rig_restart(a);
        }
        (void)check(a);
        uint8_t ha[DIGEST_BYTES], hb[DIGEST_BYTES];
        state_hash(a->g.state, ha);
        state_hash(b->g.state, hb);
        assert_memory_equal(ha, hb, sizeof ha);
    }
    rig_free(a);
    rig_free(b);
}

int main(void) {
    keys_new_ed25519(public_key, secret_key);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_small_one_comes_at_once),
        cmocka_unit_test(only_what_differs_is_wanted_and_the_old_stays_until_then),
        cmocka_unit_test(what_is_not_meant_or_not_newer_is_refused),
        cmocka_unit_test(there_are_bounds),
        cmocka_unit_test(whatever_comes_the_rows_are_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
