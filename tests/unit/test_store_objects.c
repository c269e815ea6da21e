/* What the core gives to sites, in its store: if this failed, a site would be offered what it has, nothing at all, or bytes that were never
 * put there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/store_rollouts.h"
#include "tests/unit/store_rig.h"

static struct store_object put(struct store *s, const char *name, struct bytes content, int64_t now_ms) {
    struct store_object o;
    struct fault f = {0};
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_object_put(s, OBJECT_CONFIG, name, "text/plain", content, now_ms, &o, &f), E_OK);
    assert_int_equal(store_commit(s, &f), E_OK);
    return o;
}

static enum grey_error say(struct store *s, const char *site, grey_epoch epoch, const char *name, uint64_t version, uint64_t issue,
                           int64_t now_ms) {
    struct supply_holding one = {
        .kind = OBJECT_CONFIG, .name = bytes_str(name), .version = version, .issue = issue, .health = SUPPLY_HEALTHY};
    struct supply_holdings h = {.incarnation = 7, .epoch = epoch, .at = &one, .count = version > 0};
    struct fault f = {0};
    assert_int_equal(store_begin(s, &f), E_OK);
    enum grey_error err = store_holdings(s, site, &h, now_ms, &f);
    assert_int_equal(store_commit(s, &f), E_OK);
    return err;
}

struct seen {
    uint32_t count;
    uint64_t version, issue, size;
    uint32_t chunks, enough;
};

static bool see(void *context, struct object_manifest *m) {
    struct seen *x = context;
    x->version = m->version;
    x->issue = m->issue;
    x->size = m->size;
    x->chunks = object_chunk_count(m);
    assert_true(bytes_equal_str(m->content_type, "text/plain"));
    return ++x->count != x->enough;
}

static struct seen offers(struct store *s, const char *site) {
    struct seen x = {0};
    struct fault f = {0};
    assert_int_equal(store_offers(s, site, see, &x, &f), E_OK);
    return x;
}

static void a_site_is_offered_what_it_lacks(void **state) {
    (void)state;
    struct store *s = open_store();
    site_hello(s, "plant");
    assert_int_equal(offers(s, "plant").count, 0);
    struct store_object one = put(s, "app", bytes_str("rate: 5"), 1000);
    assert_int_equal(one.version, 1);
    assert_int_equal(one.issue, 1000);
    assert_int_equal(put(s, "app", bytes_str("rate: 5"), 1100).version, 1); /* the same */
    struct store_object two = put(s, "app", bytes_str("rate: 6"), 900);     /* the clock was set back */
    assert_int_equal(two.version, 2);
    assert_true(two.issue > one.issue);
    struct seen x = offers(s, "plant");
    assert_int_equal(x.count, 1);
    assert_int_equal(x.version, 2);
    assert_int_equal(x.issue, two.issue);
    assert_int_equal(x.chunks, 1);
    assert_int_equal(say(s, "plant", 3, "app", 1, one.issue, 2000), E_OK);
    assert_int_equal(offers(s, "plant").count, 1);
    assert_int_equal(say(s, "plant", 3, "app", 2, two.issue, 2000), E_OK);
    assert_int_equal(offers(s, "plant").count, 0);
    assert_int_equal(say(s, "plant", 2, "app", 1, one.issue, 2000), E_STALE_MEMBER);
    assert_int_equal(say(s, "stranger", 3, "app", 1, one.issue, 2000), E_NOT_FOUND);
    assert_int_equal(offers(s, "plant").count, 0);
    assert_int_equal(put(s, "b", bytes_str("x"), 5000).version, 1);
    assert_int_equal(put(s, "c", bytes_str("x"), 5000).version, 1);
    x = (struct seen){.enough = 1};
    struct fault f = {0};
    assert_int_equal(store_offers(s, "plant", see, &x, &f), E_OK);
    assert_int_equal(x.count, 1);
    assert_int_equal(offers(s, "plant").count, 2);
    store_close(s);
}

/* If this failed, a core restored from a backup would never get a config to its sites again: all it says is older than what they have. */
static void a_restored_core_speaks_up_again(void **state) {
    (void)state;
    struct store *s = open_store();
    site_hello(s, "plant");
    struct store_object one = put(s, "app", bytes_str("rate: 5"), 1000);
    assert_int_equal(say(s, "plant", 3, "app", 4, 5000, 6000), E_OK);
    struct seen x = offers(s, "plant");
    assert_int_equal(x.count, 1);
    assert_int_equal(x.version, one.version);
    assert_true(x.issue > 5000);
    assert_int_equal(say(s, "plant", 3, "app", 4, 6000 + 25 * 3600 * 1000, 6000), E_OK); /* nonsense: nobody else hears of it */
    site_hello(s, "other");
    assert_int_equal(say(s, "other", 3, "app", 0, 0, 6000), E_OK);
    assert_int_equal(offers(s, "other").issue, x.issue);
    store_close(s);
}

static void what_was_put_comes_back(void **state) {
    (void)state;
    struct store *s = open_store();
    static uint8_t big[300000];
    struct builder out;
    struct store_object o;
    struct fault f = {0};
    for (size_t i = 0; i < sizeof big; i++) {
        big[i] = (uint8_t)(i * i >> 7);
    }
    (void)put(s, "map", bytes_of(big, sizeof big), 1000);
    big[5] ^= 1;
    (void)put(s, "map", bytes_of(big, sizeof big), 1001);
    builder_init(&out, 1000000);
    assert_int_equal(store_object_get(s, OBJECT_CONFIG, "map", 0, &o, &out, &f), E_OK);
    assert_int_equal(o.version, 2);
    assert_string_equal(o.content_type, "text/plain");
    assert_true(bytes_equal(builder_bytes(&out), bytes_of(big, sizeof big)));
    builder_reset(&out);
    assert_int_equal(store_object_get(s, OBJECT_CONFIG, "map", 1, &o, &out, &f), E_OK);
    assert_int_equal(out.data[5], big[5] ^ 1);
    builder_reset(&out);
    assert_int_equal(store_object_get(s, OBJECT_CONFIG, "map", 3, &o, &out, &f), E_NOT_FOUND);
    assert_int_equal(store_object_get(s, OBJECT_POLICY, "map", 0, &o, &out, &f), E_NOT_FOUND);
    uint8_t hash[OBJECT_HASH_BYTES];
    digest_sha256(bytes_of(big, OBJECT_CHUNK_BYTES_MIN), hash);
    assert_int_equal(store_chunk(s, bytes_of(hash, sizeof hash), &out, &f), E_OK);
    assert_true(bytes_equal(builder_bytes(&out), bytes_of(big, OBJECT_CHUNK_BYTES_MIN)));
    hash[0] ^= 1;
    assert_int_equal(store_chunk(s, bytes_of(hash, sizeof hash), &out, &f), E_NOT_FOUND);
    builder_free(&out);
    store_close(s);
}

static void lists_tell_who_has_what(void **state) {
    (void)state;
    struct store *s = open_store();
    struct builder b;
    struct json_writer w;
    struct fault f = {0};
    struct store_stand stands[2];
    size_t count;
    site_hello(s, "north");
    site_hello(s, "plant");
    site_hello(s, "silent"); /* takes no objects */
    struct store_object one = put(s, "app", bytes_str("x"), 1000);
    assert_int_equal(say(s, "plant", 3, "app", 1, one.issue, 2000), E_OK);
    assert_int_equal(say(s, "north", 3, "app", 0, 0, 2000), E_OK);
    assert_int_equal(store_supplied(s, "", stands, 2, &count, &f), E_OK);
    assert_int_equal(count, 2);
    assert_string_equal(stands[0].site.text, "north");
    assert_int_equal(stands[1].at.incarnation, 7);
    assert_int_equal(stands[1].at.epoch, 3);
    assert_int_equal(store_supplied(s, "plant", stands, 2, &count, &f), E_OK);
    assert_int_equal(count, 0);
    builder_init(&b, 10000);
    json_writer_init(&w, &b);
    assert_int_equal(store_object_list(s, OBJECT_CONFIG, &w, &f), E_OK);
    json_t *list = json_read(builder_bytes(&b), &f);
    assert_int_equal(json_array_size(list), 1);
    assert_int_equal(json_integer_value(json_object_get(json_array_get(list, 0), "sites_in_force")), 1);
    json_decref(list);
    builder_reset(&b);
    json_writer_init(&w, &b);
    assert_int_equal(store_site_objects(s, "plant", &w, &f), E_OK);
    list = json_read(builder_bytes(&b), &f);
    assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "health")), "healthy");
    json_decref(list);
    builder_free(&b);
    store_close(s);
}

static void label(struct store *s, const char *site, const char *word, enum grey_error expected) {
    struct fault f = {0};
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_labels_put(s, site, &word, 1, &f), expected);
    assert_int_equal(store_commit(s, &f), E_OK);
}

static bool step(struct store *s, int64_t now_ms) {
    struct fault f = {0};
    bool changed;
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_rollouts_step(s, now_ms, &changed, &f), E_OK);
    assert_int_equal(store_commit(s, &f), E_OK);
    return changed;
}

static void plan(struct store *s) {
    static const struct store_stage stages[] = {{"ring=canary", 60}, {"ring=early", 60}};
    struct fault f = {0};
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_stages_put(s, OBJECT_CONFIG, "app", stages, 2, &f), E_OK);
    assert_int_equal(store_commit(s, &f), E_OK);
}

static const char *state_of(struct store *s, int64_t now_ms) {
    static char word[32];
    struct builder b;
    struct json_writer w;
    struct fault f = {0};
    builder_init(&b, 10000);
    json_writer_init(&w, &b);
    assert_int_equal(store_rollout_get(s, OBJECT_CONFIG, "app", now_ms, &w, &f), E_OK);
    json_t *answer = json_read(builder_bytes(&b), &f);
    assert_int_equal(json_array_size(json_object_get(answer, "stages")), 2);
    (void)snprintf(word, sizeof word, "%s %d", json_string_value(json_object_get(answer, "state")),
                   (int)json_integer_value(json_object_get(answer, "stage")));
    json_decref(answer);
    builder_free(&b);
    return word;
}

/* If this failed, a bad config would be at all sites before anybody saw what it does at the first. */
static void a_version_goes_from_stage_to_stage(void **state) {
    (void)state;
    struct store *s = open_store();
    static const char *const names[] = {"a", "b", "c"};
    struct store_object one = put(s, "app", bytes_str("1"), 1000);
    for (int i = 0; i < 3; i++) {
        site_hello(s, names[i]);
        assert_int_equal(say(s, names[i], 3, "app", 1, one.issue, 1000), E_OK);
    }
    label(s, "a", "ring=canary", E_OK);
    label(s, "b", "ring=early", E_OK);
    label(s, "nobody", "ring=early", E_NOT_FOUND);
    plan(s);
    struct store_object two = put(s, "app", bytes_str("2"), 100000);
    assert_int_equal(offers(s, "a").version, 2);
    assert_int_equal(offers(s, "b").count + offers(s, "c").count, 0);
    assert_false(step(s, 170000)); /* it is not there yet */
    assert_int_equal(say(s, "a", 3, "app", 2, two.issue, 170000), E_OK);
    assert_false(step(s, 229999));
    assert_true(step(s, 230000));
    assert_string_equal(state_of(s, 230000), "running 1");
    assert_int_equal(offers(s, "b").version, 2);
    assert_int_equal(offers(s, "c").count, 0);
    assert_int_equal(say(s, "b", 3, "app", 2, two.issue, 240000), E_OK);
    assert_false(step(s, 290000));
    assert_true(step(s, 300000));
    assert_string_equal(state_of(s, 300000), "done 1");
    assert_int_equal(offers(s, "c").version, 2);
    assert_false(step(s, 400000));
    store_close(s);
}

static void say_failed(struct store *s, const char *site, uint64_t version, uint64_t issue, int64_t now_ms) {
    struct supply_holding h = {
        .kind = OBJECT_CONFIG, .name = bytes_str("app"), .version = version, .issue = issue, .health = SUPPLY_FAILED};
    struct fault f = {0};
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_holdings(s, site, &(struct supply_holdings){7, 3, &h, 1}, now_ms, &f), E_OK);
    assert_int_equal(store_commit(s, &f), E_OK);
}

/* If this failed, sites would stay on a version that broke the first of them. */
static void what_fails_goes_back(void **state) {
    (void)state;
    struct store *s = open_store();
    struct store_object one = put(s, "app", bytes_str("1"), 1000);
    site_hello(s, "a");
    site_hello(s, "c");
    assert_int_equal(say(s, "a", 3, "app", 1, one.issue, 1000), E_OK);
    assert_int_equal(say(s, "c", 3, "app", 1, one.issue, 1000), E_OK);
    label(s, "a", "ring=canary", E_OK);
    plan(s);
    struct store_object two = put(s, "app", bytes_str("2"), 100000);
    say_failed(s, "a", 2, two.issue, 110000);
    assert_true(step(s, 111000));
    assert_string_equal(state_of(s, 111000), "rolled-back 0");
    struct seen x = offers(s, "a");
    assert_int_equal(x.version, 1);
    assert_true(x.issue > two.issue);
    assert_int_equal(say(s, "a", 3, "app", 1, x.issue, 112000), E_OK);
    assert_int_equal(offers(s, "a").count, 0);
    /* the next one starts from what was good */
    struct store_object three = put(s, "app", bytes_str("3"), 200000);
    assert_int_equal(offers(s, "a").version, 3);
    assert_int_equal(offers(s, "c").version, 1); /* the version before, newly issued */
    say_failed(s, "a", 3, three.issue, 210000);
    assert_true(step(s, 211000));
    assert_int_equal(offers(s, "a").version, 1);
    store_close(s);
}

#define ON(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
#define ON_POSTGRES(test)                                                                                                          \
    { "postgres: " #test, test, set_up_postgres, NULL, NULL }

int main(void) {
    const struct CMUnitTest tests[] = {ON(a_site_is_offered_what_it_lacks),
                                       ON(a_restored_core_speaks_up_again),
                                       ON(a_version_goes_from_stage_to_stage),
                                       ON(what_fails_goes_back),
                                       ON(what_was_put_comes_back),
                                       ON(lists_tell_who_has_what)};
    const struct CMUnitTest on_postgres[] = {ON_POSTGRES(a_site_is_offered_what_it_lacks),
                                             ON_POSTGRES(a_restored_core_speaks_up_again),
                                             ON_POSTGRES(a_version_goes_from_stage_to_stage),
                                             ON_POSTGRES(what_fails_goes_back),
                                             ON_POSTGRES(what_was_put_comes_back),
                                             ON_POSTGRES(lists_tell_who_has_what)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed + cmocka_run_group_tests(on_postgres, postgres_start, postgres_stop);
}
