/* Tokens and certificates in the core's store: if this failed, a token would let in one too many, a gateway would pay twice for a lost answer, or
 * somebody who was shut out would come back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/store_enroll.h"
#include "tests/unit/store_rig.h"

#define NOW INT64_C(1767225600000)
#define HOUR INT64_C(3600000)
#define LIFE (720 * HOUR)

static const uint8_t token[DIGEST_SHA256_BYTES] = {1, 0, 2}, other_token[DIGEST_SHA256_BYTES] = {3};

static void add_token(struct store *s, const uint8_t *hash, const char *site, uint32_t nodes) {
    struct store_token t = {.site = site, .nodes = nodes, .created_ms = NOW, .expires_ms = NOW + HOUR};
    struct fault f = {0};
    memcpy(t.hash, hash, sizeof t.hash);
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_token_add(s, &t, &f), E_OK);
    assert_int_equal(store_commit(s, &f), E_OK);
}

/* One gateway asks, and gets what it may have.  again: whether it was given what it had. */
static enum grey_error enroll(struct store *s, const uint8_t *hash, uint8_t key, const char *site, const char *node, int64_t now_ms,
                              bool *again) {
    struct store_enroll q = {.token = hash, .key = {key, 0, 7}, .site = site, .node = node, .now_ms = now_ms, .life_ms = LIFE};
    struct store_certificate c = {.not_after_ms = now_ms + LIFE, .pem = bytes_str("-----BEGIN-----\n")};
    static uint8_t count;
    struct builder had;
    struct fault f = {0};
    builder_init(&had, 4096);
    assert_int_equal(store_begin(s, &f), E_OK);
    enum grey_error err = store_enroll(s, &q, &had, &f);
    *again = err == E_OK && had.size > 0;
    if (err == E_OK && had.size == 0) {
        c.serial[0] = 0x40;
        c.serial[15] = ++count;
        assert_int_equal(store_certificate_add(s, &q, &c, &f), E_OK);
    }
    assert_true(err == E_OK || (store_enroll_refuses(err) && f.text[0] != 0));
    assert_int_equal(store_commit(s, &f), E_OK);
    builder_free(&had);
    return err;
}

static size_t revoked(struct store *s, int64_t now_ms) {
    struct crl_entry entries[16];
    size_t count;
    struct fault f = {0};
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_revoked(s, now_ms, entries, 16, &count, &f), E_OK);
    assert_int_equal(store_commit(s, &f), E_OK);
    return count;
}

static bool is_revoked(struct store *s, const char *node) {
    struct fault f = {0};
    bool is;
    assert_int_equal(store_is_revoked(s, "s", node, &is, &f), E_OK);
    return is;
}

static enum grey_error shut_out(struct store *s, const char *site, const char *node, uint32_t *count) {
    struct fault f = {0};
    assert_int_equal(store_begin(s, &f), E_OK);
    enum grey_error err = store_revoke(s, site, node, NOW + HOUR, count, &f);
    assert_int_equal(store_commit(s, &f), E_OK);
    return err;
}

static void a_token_lets_in_as_many_as_it_says(void **state) {
    (void)state;
    struct store *s = open_store();
    bool again;
    add_token(s, token, "s", 2);
    assert_int_equal(enroll(s, token, 1, "s", "a", NOW, &again), E_OK);
    assert_false(again);
    assert_int_equal(enroll(s, token, 1, "s", "a", NOW + 1, &again), E_OK); /* the answer was lost */
    assert_true(again);
    assert_int_equal(enroll(s, token, 2, "s", "a", NOW, &again), E_TOKEN_NODE);
    assert_int_equal(enroll(s, token, 2, "other", "b", NOW, &again), E_TOKEN_SITE);
    assert_int_equal(enroll(s, other_token, 2, "s", "b", NOW, &again), E_TOKEN_UNKNOWN);
    assert_int_equal(enroll(s, token, 2, "s", "b", NOW + HOUR, &again), E_TOKEN_EXPIRED);
    assert_int_equal(enroll(s, token, 2, "s", "b", NOW + HOUR - 1, &again), E_OK);
    assert_int_equal(enroll(s, token, 3, "s", "c", NOW, &again), E_TOKEN_USED);
    assert_int_equal(enroll(s, token, 1, "s", "a", NOW + 2 * HOUR, &again), E_OK); /* who is in may ask when it is over */
    assert_true(again);
    assert_int_equal(enroll(s, token, 1, "s", "z", NOW, &again), E_TOKEN_NODE); /* not under another name */
    assert_int_equal(revoked(s, NOW), 0);
    store_close(s);
}

static void an_ended_token_lets_nobody_in(void **state) {
    (void)state;
    struct store *s = open_store();
    struct fault f = {0};
    bool again;
    add_token(s, token, "s", 2);
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_token_end(s, "01000201", NOW, &f), E_NOT_FOUND);
    assert_int_equal(store_token_end(s, "01000200", NOW, &f), E_OK);
    assert_int_equal(store_commit(s, &f), E_OK);
    assert_int_equal(enroll(s, token, 1, "s", "a", NOW, &again), E_TOKEN_EXPIRED);
    store_close(s);
}

static void a_known_key_renews_and_nobody_else(void **state) {
    (void)state;
    struct store *s = open_store();
    bool again;
    add_token(s, token, "s", 1);
    assert_int_equal(enroll(s, NULL, 1, "s", "a", NOW, &again), E_TOKEN_UNKNOWN);
    assert_int_equal(enroll(s, token, 1, "s", "a", NOW, &again), E_OK);
    assert_int_equal(enroll(s, NULL, 1, "s", "a", NOW + LIFE / 5, &again), E_OK);
    assert_true(again); /* too young for a new one */
    assert_int_equal(enroll(s, NULL, 1, "s", "a", NOW + LIFE / 3, &again), E_OK);
    assert_false(again);
    assert_int_equal(enroll(s, NULL, 1, "s", "b", NOW + LIFE / 3, &again), E_TOKEN_NODE);
    assert_int_equal(enroll(s, NULL, 1, "t", "a", NOW + LIFE / 3, &again), E_TOKEN_NODE);
    assert_int_equal(enroll(s, NULL, 1, "s", "a", NOW + LIFE / 3 + LIFE + 24 * HOUR, &again), E_OK); /* it had lapsed */
    assert_false(again);
    assert_int_equal(enroll(s, NULL, 1, "s", "a", NOW + 3 * LIFE + 24 * HOUR * STORE_ENROLL_LAPSED_DAYS, &again), E_TOKEN_EXPIRED);
    assert_int_equal(revoked(s, NOW), 0);
    store_close(s);
}

static void what_is_revoked_stays_so(void **state) {
    (void)state;
    struct store *s = open_store();
    uint32_t count;
    bool again;
    add_token(s, token, "s", 3);
    add_token(s, other_token, "s", 3);
    assert_int_equal(enroll(s, token, 1, "s", "a", NOW, &again), E_OK);
    assert_int_equal(enroll(s, token, 2, "s", "b", NOW, &again), E_OK);
    assert_int_equal(enroll(s, NULL, 1, "s", "a", NOW + LIFE / 2, &again), E_OK);
    assert_false(is_revoked(s, "a") || is_revoked(s, "x"));
    assert_int_equal(shut_out(s, "s", "x", &count), E_NOT_FOUND);
    assert_int_equal(shut_out(s, "s", "a", &count), E_OK);
    assert_int_equal(count, 2);
    assert_int_equal(shut_out(s, "s", "a", &count), E_OK); /* once more changes nothing */
    assert_int_equal(count, 0);
    assert_true(is_revoked(s, "a") && !is_revoked(s, "b"));
    assert_int_equal(revoked(s, NOW), 2);
    assert_int_equal(revoked(s, NOW + LIFE), 1); /* what is over by itself need not be named */
    assert_int_equal(revoked(s, NOW + 2 * LIFE), 0);
    assert_int_equal(enroll(s, NULL, 1, "s", "a", NOW, &again), E_REVOKED);
    assert_int_equal(enroll(s, token, 1, "s", "a", NOW, &again), E_REVOKED);
    assert_int_equal(enroll(s, other_token, 1, "s", "a", NOW, &again), E_REVOKED);
    assert_int_equal(enroll(s, other_token, 3, "s", "b", NOW, &again), E_OK); /* a new key for the name of another */
    assert_int_equal(revoked(s, NOW), 3);
    assert_false(is_revoked(s, "b")); /* its former key is */
    assert_int_equal(enroll(s, NULL, 2, "s", "b", NOW, &again), E_REVOKED);
    assert_int_equal(shut_out(s, "s", "", &count), E_OK);
    assert_int_equal(count, 1);
    store_close(s);
}

/* A registered board gets one token at a time, for its name alone, and only while it is registered. */
static void a_registered_tpm_comes_in_under_its_name(void **state) {
    (void)state;
    static const uint8_t board[DIGEST_SHA256_BYTES] = {7, 0, 1}, other[DIGEST_SHA256_BYTES] = {8};
    struct store *s = open_store();
    char site[LIMIT_NAME_BYTES + 1], node[LIMIT_NAME_BYTES + 1];
    uint8_t found[DIGEST_SHA256_BYTES];
    struct fault f = {0};
    bool again;
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_tpm_invite(s, board, token, NOW, HOUR, site, node, &f), E_TOKEN_UNKNOWN);
    assert_int_equal(store_tpm_add(s, board, "s", "a", NOW, &f), E_OK);
    assert_int_equal(store_tpm_add(s, other, "s", "b", NOW, &f), E_OK);
    assert_int_equal(store_tpm_invite(s, board, other_token, NOW, HOUR, site, node, &f), E_OK);
    assert_string_equal(site, "s");
    assert_string_equal(node, "a");
    assert_int_equal(store_tpm_invite(s, board, token, NOW, HOUR, site, node, &f), E_OK);
    assert_int_equal(store_commit(s, &f), E_OK);
    assert_int_equal(enroll(s, other_token, 1, "s", "a", NOW, &again), E_TOKEN_UNKNOWN); /* the one before is gone */
    assert_int_equal(enroll(s, token, 1, "s", "b", NOW, &again), E_TOKEN_SITE);
    assert_int_equal(enroll(s, token, 1, "t", "a", NOW, &again), E_TOKEN_SITE);
    assert_int_equal(enroll(s, token, 1, "s", "a", NOW + HOUR, &again), E_TOKEN_EXPIRED);
    assert_int_equal(enroll(s, token, 1, "s", "a", NOW, &again), E_OK);
    assert_int_equal(enroll(s, token, 2, "s", "a", NOW, &again), E_TOKEN_NODE);
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_tpm_add(s, board, "s", "b", NOW, &f), E_OK); /* moved: the other is not registered any more */
    assert_int_equal(store_tpm_of(s, "s", "b", found, &f), E_OK);
    assert_memory_equal(found, board, sizeof found);
    assert_int_equal(store_tpm_of(s, "s", "a", found, &f), E_NOT_FOUND);
    assert_int_equal(store_tpm_remove(s, other, &f), E_NOT_FOUND);
    assert_int_equal(store_tpm_remove(s, board, &f), E_OK);
    assert_int_equal(store_tpm_invite(s, board, other_token, NOW, HOUR, site, node, &f), E_TOKEN_UNKNOWN);
    assert_int_equal(store_commit(s, &f), E_OK);
    store_close(s);
}

static void lists_say_what_there_is(void **state) {
    (void)state;
    struct store *s = open_store();
    struct builder out;
    struct json_writer w;
    struct fault f = {0};
    bool again;
    add_token(s, token, "s", 3);
    assert_int_equal(enroll(s, token, 1, "s", "a", NOW, &again), E_OK);
    assert_int_equal(enroll(s, NULL, 1, "s", "a", NOW + LIFE / 2, &again), E_OK);
    builder_init(&out, 65536);
    json_writer_init(&w, &out);
    json_open(&w, '[');
    assert_int_equal(store_token_list(s, NOW, &w, &f), E_OK);
    assert_int_equal(store_certificate_list(s, "s", &w, &f), E_OK);
    assert_int_equal(store_certificate_list(s, "t", &w, &f), E_OK);
    assert_int_equal(store_certificate_list(s, "", &w, &f), E_OK);
    json_close(&w);
    json_t *all = json_read(builder_bytes(&out), &f);
    const json_t *one = json_array_get(json_array_get(all, 0), 0), *newest = json_array_get(json_array_get(all, 1), 0);
    assert_string_equal(json_string_value(json_object_get(one, "id")), "01000200");
    assert_int_equal(json_integer_value(json_object_get(one, "used")), 1);
    assert_int_equal(json_array_size(json_array_get(all, 1)), 1);
    assert_string_equal(json_string_value(json_object_get(newest, "issued")), "2026-01-16T00:00:00.000Z");
    assert_true(json_is_null(json_object_get(newest, "revoked")));
    assert_int_equal(json_array_size(json_array_get(all, 2)), 0);
    assert_int_equal(json_array_size(json_array_get(all, 3)), 1);
    json_decref(all);
    builder_free(&out);
    store_close(s);
}

#define ON(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
#define ON_POSTGRES(test)                                                                                                          \
    { "postgres: " #test, test, set_up_postgres, NULL, NULL }

int main(void) {
    const struct CMUnitTest tests[] = {
        ON(a_token_lets_in_as_many_as_it_says), ON(an_ended_token_lets_nobody_in), ON(a_known_key_renews_and_nobody_else),
        ON(what_is_revoked_stays_so),           ON(lists_say_what_there_is),       ON(a_registered_tpm_comes_in_under_its_name)};
    const struct CMUnitTest on_postgres[] = {ON_POSTGRES(a_token_lets_in_as_many_as_it_says),
                                             ON_POSTGRES(an_ended_token_lets_nobody_in),
                                             ON_POSTGRES(a_known_key_renews_and_nobody_else),
                                             ON_POSTGRES(what_is_revoked_stays_so),
                                             ON_POSTGRES(lists_say_what_there_is),
                                             ON_POSTGRES(a_registered_tpm_comes_in_under_its_name)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed + cmocka_run_group_tests(on_postgres, postgres_start, postgres_stop);
}
