/* What the core keeps of gateways: if this failed, two cores would undo each other's judgement, a gateway be judged by the policy of another stage,
 * or one that was forgotten come back with its old counters. */
#include "core/policytext.h"
#include "core/store_attest.h"
#include "core/store_rollouts.h"
#include "federation/attest/inquiry.h"
#include "tests/unit/store_rig.h"

#define NOW INT64_C(1767225600000)

static struct reference policy;
static struct verifier verifier = {.name = "core", .policy = &policy};

/* What a verifier keeps of a gateway that has asked. */
static void make_kept(const char *site, const char *node, struct builder *kept) {
    struct builder body, reply;
    enum exchange_word word;
    struct fault f = {.text = ""};
    struct inquiry_order o = {.type = ATTEST_NONE, .who = {.site = bytes_str(site), .node = bytes_str(node), .raft_id = 7}};
    builder_init(&body, INQUIRY_ORDER_BYTES_MAX);
    builder_init(&reply, VERIFIER_REPLY_BYTES_MAX);
    builder_init(kept, VERIFIER_KEPT_BYTES_MAX);
    policytext_learn(&policy);
    inquiry_put_order(&body, &o);
    const struct verifier_message m = {
        .site = bytes_str(site), .node = bytes_str(node), .word = EXCHANGE_ASK, .body = builder_bytes(&body)};
    assert_int_equal(verifier_hear(&verifier, &m, bytes_of(NULL, 0), NOW, kept, &word, &reply, &f), E_OK);
    builder_free(&reply);
    builder_free(&body);
}

/* A gateway that was shut out for good would else be told again and again that it is to be trusted. */
static void a_revoked_gateway_is_not_judged(void **state) {
    (void)state;
    struct builder before, after, reply;
    enum exchange_word word;
    struct fault f = {.text = ""};
    struct verifier_facts facts;
    make_kept("s", "a", &before);
    builder_init(&after, VERIFIER_KEPT_BYTES_MAX);
    builder_init(&reply, VERIFIER_REPLY_BYTES_MAX);
    const struct verifier_message m = {.site = bytes_str("s"), .node = bytes_str("a"), .word = EXCHANGE_EVIDENCE, .revoked = true};
    assert_int_equal(verifier_hear(&verifier, &m, builder_bytes(&before), NOW + 1, &after, &word, &reply, &f), E_REVOKED);
    assert_int_equal(word, EXCHANGE_REFUSAL);
    assert_int_equal(verifier_look(builder_bytes(&after), NOW + 1, &facts), E_OK);
    assert_true(facts.state == VERIFIER_FAILED && facts.why == E_REVOKED);
    builder_free(&reply);
    builder_free(&after);
    builder_free(&before);
}

static enum store_attest_put put(struct store *s, const char *site, const char *node, int64_t revision, int64_t now_ms) {
    struct builder kept;
    struct fault f = {0};
    enum store_attest_put done;
    make_kept(site, node, &kept);
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_lock(s, &site, 1, &f), E_OK);
    assert_int_equal(store_attest_put(s, &(struct store_gateway){site, node}, revision, builder_bytes(&kept), now_ms, &done, &f),
                     E_OK);
    assert_int_equal(store_commit(s, &f), E_OK);
    builder_free(&kept);
    return done;
}

static int64_t revision_of(struct store *s, const char *site, const char *node, size_t *bytes) {
    struct builder kept;
    int64_t revision;
    struct fault f = {0};
    builder_init(&kept, VERIFIER_KEPT_BYTES_MAX);
    assert_int_equal(store_attest_get(s, &(struct store_gateway){site, node}, &kept, &revision, &f), E_OK);
    *bytes = kept.size;
    builder_free(&kept);
    return revision;
}

static enum grey_error forget(struct store *s, const char *site, const char *node) {
    struct fault f = {0};
    assert_int_equal(store_begin(s, &f), E_OK);
    enum grey_error err = store_attest_forget(s, &(struct store_gateway){site, node}, &f);
    assert_int_equal(store_commit(s, &f), E_OK);
    return err;
}

static void who_was_slower_judges_again(void **state) {
    (void)state;
    struct store *s = open_store(), *other = shared ? open_store() : s; /* another core's */
    struct builder kept;
    struct fault f = {0};
    size_t bytes;
    int64_t none;
    builder_init(&kept, VERIFIER_KEPT_BYTES_MAX);
    assert_int_equal(store_attest_get(s, &(struct store_gateway){"s", "a"}, &kept, &none, &f), E_NOT_FOUND); /* never said hello */
    site_hello(s, "s");
    assert_int_equal(revision_of(s, "s", "a", &bytes), 0);
    assert_true(bytes == 0);
    assert_int_equal(put(s, "s", "a", 0, NOW), STORE_ATTEST_DONE);
    int64_t first = revision_of(other, "s", "a", &bytes);
    assert_true(first > 0 && bytes > 0);
    assert_int_equal(put(other, "s", "a", 0, NOW), STORE_ATTEST_STALE);
    assert_int_equal(put(other, "s", "a", first, NOW), STORE_ATTEST_DONE); /* at the same time by the clock */
    assert_int_equal(put(s, "s", "a", first, NOW + 1), STORE_ATTEST_STALE);
    int64_t second = revision_of(s, "s", "a", &bytes);
    assert_true(second > first);
    assert_int_equal(put(s, "s", "a", second, NOW - 1000), STORE_ATTEST_DONE); /* by a core whose clock is behind */
    assert_true(revision_of(s, "s", "a", &bytes) > second);
    assert_int_equal(revision_of(s, "s", "b", &bytes), 0);
    if (other != s) {
        store_close(other);
    }
    builder_free(&kept);
    store_close(s);
}

static void a_forgotten_gateway_is_a_new_one(void **state) {
    (void)state;
    struct store *s = open_store();
    size_t bytes;
    site_hello(s, "s");
    assert_int_equal(forget(s, "s", "a"), E_NOT_FOUND);
    assert_int_equal(put(s, "s", "a", 0, NOW), STORE_ATTEST_DONE);
    int64_t before = revision_of(s, "s", "a", &bytes);
    assert_int_equal(forget(s, "s", "a"), E_OK);
    assert_int_equal(revision_of(s, "s", "a", &bytes), 0);
    assert_int_equal(put(s, "s", "a", before, NOW + 5), STORE_ATTEST_STALE); /* what was judged by the old */
    assert_int_equal(put(s, "s", "a", 0, NOW + 5), STORE_ATTEST_DONE);
    assert_int_equal(put(s, "s", "a", before, NOW + 6), STORE_ATTEST_STALE);
    for (unsigned i = 1; i < STORE_ATTEST_NODES_MAX + 2; i++) { /* a gateway must not fill the store with names */
        char node[16];
        (void)snprintf(node, sizeof node, "n%u", i);
        assert_int_equal(put(s, "s", node, 0, NOW), i < STORE_ATTEST_NODES_MAX ? STORE_ATTEST_DONE : STORE_ATTEST_FULL);
    }
    store_close(s);
}

static json_t *list(struct store *s, const char *site, const char *node, const char *after_site, const char *after_node,
                    uint32_t limit) {
    struct builder out;
    struct json_writer w;
    struct fault f = {0};
    uint32_t count;
    const struct store_attest_query q = {site, node, after_site, after_node, limit, NOW};
    builder_init(&out, 1000000);
    json_writer_init(&w, &out);
    assert_int_equal(store_attest_list(s, &q, &w, &count, &f), E_OK);
    json_t *all = json_read(builder_bytes(&out), &f);
    assert_int_equal(json_array_size(all), count);
    builder_free(&out);
    return all;
}

static void lists_go_through_all(void **state) {
    (void)state;
    static const char *const pairs[][2] = {{"s", "a"}, {"s", "b"}, {"t", "a"}};
    struct store *s = open_store();
    const char *site = "", *node = "";
    site_hello(s, "s");
    site_hello(s, "t");
    for (int i = 2; i >= 0; i--) {
        assert_int_equal(put(s, pairs[i][0], pairs[i][1], 0, NOW), STORE_ATTEST_DONE);
    }
    json_t *all[3];
    for (int i = 0; i < 3; i++) {
        all[i] = list(s, "", "", site, node, 1);
        const json_t *one = json_array_get(all[i], 0);
        site = json_string_value(json_object_get(one, "site"));
        node = json_string_value(json_object_get(one, "node"));
        assert_string_equal(site, pairs[i][0]);
        assert_string_equal(node, pairs[i][1]);
        assert_string_equal(json_string_value(json_object_get(one, "state")), "pending");
        assert_string_equal(json_string_value(json_object_get(one, "type")), "none");
        assert_true(json_is_null(json_object_get(one, "until")) && json_is_null(json_object_get(one, "why")));
    }
    json_t *behind = list(s, "", "", site, node, 9), *of_s = list(s, "s", "", "", "", 9), *of_b = list(s, "s", "b", "", "", 9);
    assert_int_equal(json_array_size(behind), 0);
    assert_int_equal(json_array_size(of_s), 2);
    assert_int_equal(json_array_size(of_b), 1);
    for (int i = 0; i < 3; i++) {
        json_decref(all[i]);
    }
    json_decref(behind);
    json_decref(of_s);
    json_decref(of_b);
    store_close(s);
}

/* --- the policy --------------------------------------------------------------------------------------------------------------------------- */

static uint64_t give(struct store *s, const char *text) {
    struct store_object o;
    struct fault f = {0};
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_object_put(s, OBJECT_POLICY, POLICYTEXT_NAME, "text/plain", bytes_str(text), NOW, &o, &f), E_OK);
    assert_int_equal(store_commit(s, &f), E_OK);
    return o.issue;
}

/* The site says what it holds, which a rollout waits for. */
static void hold(struct store *s, const char *site, uint64_t version, uint64_t issue) {
    struct supply_holding one = {
        .kind = OBJECT_POLICY, .name = bytes_str(POLICYTEXT_NAME), .version = version, .issue = issue, .health = SUPPLY_HEALTHY};
    struct supply_holdings h = {.incarnation = 7, .epoch = 3, .at = &one, .count = 1};
    struct fault f = {0};
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_holdings(s, site, &h, NOW, &f), E_OK);
    assert_int_equal(store_commit(s, &f), E_OK);
}

static void judged_by(struct store *s, const char *site, const char *text, uint64_t *serial) {
    struct builder content;
    struct fault f = {0};
    builder_init(&content, POLICYTEXT_BYTES_MAX);
    enum grey_error err = store_attest_policy(s, site, serial, &content, &f);
    assert_int_equal(err, text == NULL ? E_NOT_FOUND : E_OK);
    assert_true(text == NULL || bytes_equal_str(builder_bytes(&content), text));
    builder_free(&content);
}

static void a_policy_reaches_sites_in_stages_and_goes_back(void **state) {
    (void)state;
    struct store *s = open_store();
    struct fault f = {0};
    struct store_stage stage = {.label = "ring=canary", .soak_s = 600};
    const char *labels[] = {"ring=canary"};
    uint64_t first, second, serial, later;
    bool changed;
    site_hello(s, "s");
    site_hello(s, "t");
    assert_int_equal(store_attest_has_policy(s, &f), E_NOT_FOUND);
    judged_by(s, "s", NULL, &serial);
    first = give(s, "one");
    assert_int_equal(store_attest_has_policy(s, &f), E_OK);
    judged_by(s, "s", "one", &serial);
    assert_true(serial == first);
    judged_by(s, "stranger", NULL, &serial);
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_stages_put(s, OBJECT_POLICY, POLICYTEXT_NAME, &stage, 1, &f), E_OK);
    assert_int_equal(store_labels_put(s, "s", labels, 1, &f), E_OK);
    assert_int_equal(store_commit(s, &f), E_OK);
    hold(s, "s", 1, first);
    hold(s, "t", 1, first);
    second = give(s, "two");
    assert_true(second > first);
    judged_by(s, "s", "two", &serial);
    assert_true(serial == second);
    judged_by(s, "t", "one", &serial);
    assert_true(serial == first);
    hold(s, "s", 2, second);
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_labels_put(s, "s", NULL, 0, &f),
                     E_OK); /* out of the stage: what is in force there stays, serials rise */
    assert_int_equal(store_commit(s, &f), E_OK);
    judged_by(s, "s", "two", &serial);
    assert_int_equal(store_begin(s, &f), E_OK);
    assert_int_equal(store_labels_put(s, "s", labels, 1, &f), E_OK);
    assert_int_equal(store_attest_policy_failed(s, "s", first, &f), E_OK); /* what is in force no longer says nothing */
    assert_int_equal(store_rollouts_step(s, NOW + 1000, &changed, &f), E_OK);
    assert_false(changed);
    assert_int_equal(store_attest_policy_failed(s, "s", second, &f), E_OK); /* a gateway that was good fails by it */
    assert_int_equal(store_rollouts_step(s, NOW + 2000, &changed, &f), E_OK);
    assert_true(changed);
    assert_int_equal(store_commit(s, &f), E_OK);
    judged_by(s, "s", "one", &serial);
    assert_true(serial > second);
    judged_by(s, "t", "one", &later);
    assert_true(later == serial);
    store_close(s);
}

#define ON(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
#define ON_POSTGRES(test)                                                                                                          \
    { "postgres: " #test, test, set_up_postgres, NULL, NULL }

int main(void) {
    const struct CMUnitTest tests[] = {ON(who_was_slower_judges_again), ON(a_forgotten_gateway_is_a_new_one),
                                       ON(lists_go_through_all), ON(a_revoked_gateway_is_not_judged),
                                       ON(a_policy_reaches_sites_in_stages_and_goes_back)};
    const struct CMUnitTest on_postgres[] = {ON_POSTGRES(who_was_slower_judges_again),
                                             ON_POSTGRES(a_forgotten_gateway_is_a_new_one), ON_POSTGRES(lists_go_through_all),
                                             ON_POSTGRES(a_policy_reaches_sites_in_stages_and_goes_back)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    shared = true;
    return failed + cmocka_run_group_tests(on_postgres, postgres_start, postgres_stop);
}
