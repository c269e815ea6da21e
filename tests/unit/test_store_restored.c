/* A core's store that was put back to an older copy of itself.  If this failed, a token that was used would let a stranger in a second time, a board
 * that was taken off the list would come in, or sites would be given an older word on whom to trust, all without anybody being told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/store_enroll.h"
#include "core/store_objects.h"
#include "core/store_restored.h"
#include "tests/unit/store_rig.h"

#define NOW INT64_C(1767225600000)
#define HOUR INT64_C(3600000)

static const uint8_t token[DIGEST_SHA256_BYTES] = {1, 0, 2}, later_token[DIGEST_SHA256_BYTES] = {3}, ek[DIGEST_SHA256_BYTES] = {9};
static char marks[64];

static struct store *open_marked(int64_t now_ms) {
    struct fault f = {0};
    (void)snprintf(marks, sizeof marks, "%s/ca", dir);
    char command[100];
    (void)snprintf(command, sizeof command, "mkdir -p %s", marks);
    assert_int_equal(system(command), 0);
    struct store *s = store_open(where, &(struct store_options){.mark_dir = marks}, &f);
    assert_non_null(s);
    assert_int_equal(store_mark_check(s, now_ms, &f), E_OK);
    return s;
}

/* In the directory of the test. */
static void shell(const char *words) {
    char command[300];
    (void)snprintf(command, sizeof command, "cd %s && %s", dir, words);
    assert_int_equal(system(command), 0);
}

static void add_token(struct store *s, const uint8_t *hash, const char *site, int64_t now_ms) {
    struct store_token t = {.site = site, .nodes = 1, .created_ms = now_ms, .expires_ms = now_ms + HOUR};
    struct fault f = {0};
    memcpy(t.hash, hash, sizeof t.hash);
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_token_add(s, &t, &f), E_OK);
    assert_int_equal(store_commit(s, &f), E_OK);
}

static enum grey_error enroll(struct store *s, const uint8_t *hash, uint8_t key, const char *site, int64_t now_ms) {
    struct store_enroll q = {.token = hash, .key = {key}, .site = site, .node = "a", .now_ms = now_ms, .life_ms = 720 * HOUR};
    struct store_certificate c = {
        .serial = {0x40, key}, .not_after_ms = now_ms + 720 * HOUR, .pem = bytes_str("-----BEGIN-----\n")};
    struct builder had;
    struct fault f = {0};
    builder_init(&had, 4096);
    assert_int_equal(store_begin(s, &f), E_OK);
    enum grey_error err = store_enroll(s, &q, &had, &f);
    if (err == E_OK) {
        assert_int_equal(store_certificate_add(s, &q, &c, &f), E_OK);
    }
    assert_true(err == E_OK || store_enroll_refuses(err));
    assert_int_equal(store_commit(s, &f), E_OK);
    builder_free(&had);
    return err;
}

static enum grey_error invite(struct store *s, int64_t now_ms) {
    static uint8_t number;
    const uint8_t hash[DIGEST_SHA256_BYTES] = {77, ++number};
    char site[LIMIT_NAME_BYTES + 1], node[LIMIT_NAME_BYTES + 1];
    struct fault f = {0};
    assert_int_equal(store_begin(s, &f), E_OK);
    enum grey_error err = store_tpm_invite(s, ek, hash, now_ms, HOUR, site, node, &f);
    assert_int_equal(store_commit(s, &f), E_OK);
    return err;
}

static void accept(struct store *s, int64_t now_ms) {
    struct fault f = {0};
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_restored_accept(s, now_ms, &f), E_OK);
    assert_int_equal(store_holdings_outdo(s, now_ms, &f), E_OK);
    assert_int_equal(store_commit(s, &f), E_OK);
}

static bool doubted(struct store *s, const char *site) {
    struct fault f = {0};
    bool is = false;
    assert_int_equal(store_restored_doubted(s, site, &is, &f), E_OK);
    return is;
}

static void a_file_remembers_what_the_store_forgot(void **state) {
    (void)state;
    struct fault f = {0};
    struct store *s = open_marked(NOW);
    add_token(s, token, "s", NOW);
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_tpm_add(s, ek, "s", "b", NOW, &f), E_OK);
    assert_int_equal(store_commit(s, &f), E_OK);
    store_close(s);
    shell("cp core.db old.db");
    s = open_marked(NOW + 1);
    assert_int_equal(enroll(s, token, 1, "s", NOW + 1), E_OK);
    assert_int_equal(enroll(s, token, 2, "s", NOW + 1), E_TOKEN_NODE);
    store_close(s);
    s = open_marked(NOW + 2); /* a restart is no older copy */
    assert_false(doubted(s, "s") || store_restored_open());
    store_close(s);
    shell("rm -f core.db-wal core.db-shm && cp old.db core.db");
    s = open_marked(NOW + 3);
    assert_true(doubted(s, "s") && doubted(s, "any other") && store_restored_open());
    assert_int_equal(enroll(s, token, 2, "s", NOW + 3), E_STORE_RESTORED);
    assert_int_equal(invite(s, NOW + 3), E_STORE_RESTORED);
    add_token(s, later_token, "s", NOW + 4);
    assert_int_equal(enroll(s, later_token, 2, "s", NOW + 4), E_OK);
    store_close(s);
    s = open_marked(NOW +
                    5); /* still not accepted, and not found a second time: the token of before is, that of after is not in doubt */
    assert_true(doubted(s, "s") && store_restored_open());
    assert_int_equal(enroll(s, later_token, 3, "s", NOW + 5), E_TOKEN_NODE);
    accept(s, NOW + 5);
    assert_false(doubted(s, "s") || store_restored_open());
    assert_int_equal(invite(s, NOW + 6), E_OK);
    assert_int_equal(enroll(s, token, 4, "s", NOW + 6), E_STORE_RESTORED); /* for good */
    store_close(s);
    shell("rm -f core.db-wal core.db-shm && cp old.db core.db");
    s = open_marked(NOW + 7); /* and once more */
    assert_true(doubted(s, "s"));
    store_close(s);
    shell("rm -rf core.db*");
    s = open_marked(NOW + 8); /* another store knows nothing, and is no older copy */
    assert_false(doubted(s, "s"));
    store_close(s);
    accept(s = open_marked(NOW + 8), NOW + 8);
    store_close(s);
}

static void a_damaged_mark_stops_nobody(void **state) {
    (void)state;
    struct store *s = open_marked(NOW);
    add_token(s, token, "s", NOW);
    assert_int_equal(enroll(s, token, 1, "s", NOW + 1), E_OK);
    store_close(s);
    shell("for f in ca/store-*.mark; do echo nonsense >$f; done");
    s = open_marked(NOW + 2);
    assert_false(doubted(s, "s"));
    store_close(s);
    shell("grep -qx 2 ca/store-*.mark"); /* and it is written anew */
}

static enum grey_error hold(struct store *s, const char *site, enum object_kind kind, uint64_t issue, int64_t now_ms) {
    struct supply_holding one = {.kind = kind, .name = bytes_str("x"), .version = 4, .issue = issue, .health = SUPPLY_HEALTHY};
    struct supply_holdings h = {.incarnation = 7, .epoch = 3, .at = &one, .count = 1};
    struct fault f = {0};
    assert_int_equal(store_begin(s, &f), E_OK);
    enum grey_error err = store_holdings(s, site, &h, now_ms, &f);
    assert_int_equal(store_commit(s, &f), E_OK);
    return err;
}

static void put(struct store *s, enum object_kind kind, int64_t now_ms) {
    struct store_object o;
    struct fault f = {0};
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_object_put(s, kind, "x", "text/plain", bytes_str("y"), now_ms, &o, &f), E_OK);
    assert_int_equal(store_commit(s, &f), E_OK);
}

static bool count_offer(void *context, struct object_manifest *m) {
    *(unsigned *)context |= 1u << m->kind;
    return true;
}

/* Kinds of objects that the site is offered. */
static unsigned offered(struct store *s, const char *site) {
    unsigned kinds = 0;
    struct fault f = {0};
    assert_int_equal(store_offers(s, site, count_offer, &kinds, &f), E_OK);
    return kinds;
}

static void a_site_remembers_for_itself(void **state) {
    (void)state;
    struct store *s = open_store();
    site_hello(s, "s");
    site_hello(s, "other");
    add_token(s, token, "s", 1000);
    add_token(s, later_token, "other", 1000);
    put(s, OBJECT_POLICY, 1000);
    put(s, OBJECT_CONFIG, 1001);
    assert_int_equal(hold(s, "s", OBJECT_POLICY, 500, 2000), E_OK);
    assert_false(doubted(s, "s"));
    assert_int_equal(hold(s, "s", OBJECT_POLICY, 5000 + 25 * HOUR, 2000), E_OK); /* nonsense is no evidence */
    assert_false(doubted(s, "s"));
    assert_int_equal(hold(s, "s", OBJECT_POLICY, 5000, 6000), E_OK);
    assert_int_equal(hold(s, "s", OBJECT_CONFIG, 5000, 6000), E_OK);
    assert_true(doubted(s, "s") && store_restored_open());
    assert_false(doubted(s, "other"));
    assert_int_equal(offered(s, "s"), 1u << OBJECT_CONFIG); /* the older policy does not go above the newer one */
    assert_int_equal(enroll(s, token, 1, "s", 6001), E_STORE_RESTORED);
    assert_int_equal(enroll(s, later_token, 2, "other", 6001), E_OK);
    accept(s, 7000);
    assert_false(doubted(s, "s") || store_restored_open());
    assert_true((offered(s, "s") & 1u << OBJECT_POLICY) != 0);
    store_close(s);
}

static void say_hello(struct store *s, const char *site, grey_seq acked) {
    struct sync_hello h = {.incarnation = 7, .epoch = 3, .feature_level = 2, .node = bytes_str("a"), .time_ms = 5};
    grey_seq positions[CHANNEL_COUNT];
    bool rolled_back;
    struct fault f = {0};
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        h.channels[i].next_seq = acked + 1;
        h.channels[i].acked_seq = acked;
    }
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_hello(s, site, &h, 6000, positions, &rolled_back, &f), E_OK);
    assert_int_equal(store_commit(s, &f), E_OK);
    assert_int_equal(positions[0], acked);
}

static void freed_events_tell_too(void **state) {
    (void)state;
    struct store *s = open_store();
    struct builder out;
    struct json_writer w;
    struct fault f = {0};
    say_hello(s, "moved here", 9); /* this store never knew that site */
    assert_false(doubted(s, "moved here"));
    site_hello(s, "s");
    say_hello(s, "s", 9);
    assert_true(doubted(s, "s"));
    assert_false(doubted(s, "moved here"));
    builder_init(&out, 4096);
    json_writer_init(&w, &out);
    assert_int_equal(store_restored_list(s, &w, &f), E_OK);
    json_t *all = json_read(builder_bytes(&out), &f);
    const json_t *one = json_array_get(all, 0);
    assert_int_equal(json_array_size(all), 1);
    assert_string_equal(json_string_value(json_object_get(one, "site")), "s");
    assert_string_equal(json_string_value(json_object_get(one, "evidence")), "events");
    assert_int_equal(json_integer_value(json_object_get(one, "held")), 9);
    assert_true(json_is_null(json_object_get(one, "accepted")));
    json_decref(all);
    builder_free(&out);
    accept(s, 7000);
    store_close(s);
}

#define ON(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
#define ON_POSTGRES(test)                                                                                                          \
    { "postgres: " #test, test, set_up_postgres, NULL, NULL }

int main(void) {
    const struct CMUnitTest tests[] = {ON(a_file_remembers_what_the_store_forgot), ON(a_damaged_mark_stops_nobody),
                                       ON(a_site_remembers_for_itself), ON(freed_events_tell_too)};
    const struct CMUnitTest on_postgres[] = {ON_POSTGRES(a_site_remembers_for_itself), ON_POSTGRES(freed_events_tell_too)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed + cmocka_run_group_tests(on_postgres, postgres_start, postgres_stop);
}
