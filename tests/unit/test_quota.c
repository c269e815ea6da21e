#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "agent/work/quota.h"

#define GIB (1024ull * 1024 * 1024)

static struct quota_share share(uint32_t cpu, uint32_t memory) {
    return (struct quota_share){cpu, memory};
}

static enum grey_error set(struct quota *q, const char *tenant, const char *name_space, struct quota_share s, struct fault *f) {
    enum grey_error err = quota_may_set(q, bytes_str(tenant), bytes_str(name_space), s, f);
    return err != E_OK ? err : quota_set(q, bytes_str(tenant), bytes_str(name_space), s, NULL);
}

/* The tree of the architecture document: cluster 100%, system 10%; Acme 30/25, production 80%, staging 20% of it; Beta 25/30. */
static void load_tree(struct quota *q) {
    struct fault f = {0};
    assert_int_equal(quota_init(q), E_OK);
    q->capacity = (struct quota_amount){100000, 100 * GIB};
    assert_int_equal(set(q, "acme", "", share(300, 250), &f), E_OK);
    assert_int_equal(set(q, "acme", "production", share(800, 800), &f), E_OK);
    assert_int_equal(set(q, "acme", "staging", share(200, 200), &f), E_OK);
    assert_int_equal(set(q, "beta", "", share(250, 300), &f), E_OK);
}

/* If a staging area could take what production needs, quotas would be a promise only. */
static void a_namespace_stays_within_its_part_of_its_tenant(void **context) {
    (void)context;
    struct quota q;
    load_tree(&q);
    struct quota_tenant *acme = quota_find(&q, bytes_str("acme"));
    struct quota_namespace *staging = quota_namespace_find(acme, bytes_str("staging"));
    struct quota_amount limit = quota_namespace_limit(&q, acme, staging);
    assert_int_equal(limit.cpu_millicores, 6000);  /* 6% */
    assert_int_equal(limit.memory_bytes, 5 * GIB); /* 5% */
    assert_int_equal(quota_admits(&q, acme, staging, limit, true), QUOTA_YES);
    assert_int_equal(quota_admits(&q, acme, staging, (struct quota_amount){6001, 0}, true), QUOTA_NAMESPACE_FULL);
    assert_int_equal(quota_admits(&q, acme, staging, (struct quota_amount){0, 5 * GIB + 1}, true), QUOTA_NAMESPACE_FULL);
    quota_charge(acme, staging, limit);
    assert_int_equal(quota_admits(&q, acme, staging, (struct quota_amount){1, 0}, true), QUOTA_NAMESPACE_FULL);
    quota_clear(&q);
}

/* Promising more than there is would show only on the day when all tenants are busy. */
static void shares_above_what_there_is_are_refused_with_the_sum(void **context) {
    (void)context;
    struct quota q;
    struct fault f = {0};
    load_tree(&q);
    assert_int_equal(set(&q, "gamma", "", share(351, 100), &f), E_QUOTA);
    assert_string_equal(f.text, "all tenants would have 90.1% of the processors together; 90.0% is what there is");
    assert_int_equal(set(&q, "gamma", "", share(100, 351), &f), E_QUOTA);
    assert_non_null(strstr(f.text, "memory"));
    assert_null(quota_find(&q, bytes_str("gamma")));
    assert_int_equal(set(&q, "gamma", "", share(350, 350), &f), E_OK);
    assert_int_equal(set(&q, "acme", "test", share(1, 1), &f), E_QUOTA);
    assert_int_equal(set(&q, "acme", "", share(301, 250), &f), E_QUOTA); /* a larger share of one that is there */
    assert_int_equal(set(&q, "acme", "", share(300, 250), &f), E_OK);    /* its own does not count twice */
    assert_int_equal(set(&q, "nobody", "x", share(1, 1), &f), E_NOT_FOUND);
    assert_int_equal(set(&q, "a b", "", share(1, 1), &f), E_BAD_REQUEST);
    assert_int_equal(set(&q, "delta", "", share(0, 1), &f), E_BAD_REQUEST);
    quota_clear(&q);
}

/* Who sends a task without any tenant set up must not be refused. */
static void the_default_tenant_has_what_the_others_leave(void **context) {
    (void)context;
    struct quota q;
    load_tree(&q);
    struct quota_tenant *t = quota_find(&q, bytes_str("default"));
    assert_non_null(t);
    assert_int_equal(quota_share_of(&q, t).cpu_permille, 350);
    assert_int_equal(quota_share_of(&q, t).memory_permille, 350);
    quota_clear(&q);
}

/* A namespace that goes must not take the numbers of its neighbours along. */
static void namespaces_come_and_go_in_place(void **context) {
    (void)context;
    struct quota q;
    struct fault f = {0};
    load_tree(&q);
    struct quota_tenant *acme = quota_find(&q, bytes_str("acme"));
    struct quota_namespace *staging = quota_namespace_find(acme, bytes_str("staging"));
    assert_int_equal(quota_may_remove(&q, bytes_str("acme"), bytes_str("production"), &f), E_OK);
    quota_remove(&q, bytes_str("acme"), bytes_str("production"));
    assert_ptr_equal(quota_namespace_find(acme, bytes_str("staging")), staging);
    assert_null(quota_namespace_find(acme, bytes_str("production")));
    assert_ptr_equal(quota_namespace_find(acme, bytes_str("")), &acme->namespaces[0]);
    for (unsigned i = 0; i < QUOTA_NAMESPACES_MAX - 1; i++) {
        char name[16];
        (void)snprintf(name, sizeof name, "n%u", i);
        assert_int_equal(set(&q, "acme", name, share(1, 1), &f), E_OK);
    }
    assert_int_equal(set(&q, "acme", "more", share(1, 1), &f), E_BUSY);
    acme->tasks = 1;
    assert_int_equal(quota_may_remove(&q, bytes_str("acme"), bytes_str(""), &f), E_CONDITION);
    acme->tasks = 0;
    assert_int_equal(quota_may_remove(&q, bytes_str("acme"), bytes_str(""), &f), E_OK);
    quota_remove(&q, bytes_str("acme"), bytes_str(""));
    assert_null(quota_find(&q, bytes_str("acme")));
    assert_int_equal(quota_may_remove(&q, bytes_str("default"), bytes_str(""), &f), E_NOT_FOUND);
    quota_clear(&q);
}

/* The numbers of the design, at their edges: below 70% no throttling; 80% one second; 90% two seconds; above 90% red; above 100%. */
static void zones_and_delays_are_those_of_the_design(void **context) {
    (void)context;
    static const struct {
        uint32_t usage;
        enum quota_zone zone;
        uint32_t delay_ms;
    } rows[] = {{0, ZONE_GREEN, 0},      {690, ZONE_GREEN, 0},         {699, ZONE_GREEN, 0},        {700, ZONE_YELLOW, 0},
                {710, ZONE_YELLOW, 100}, {800, ZONE_YELLOW, 1000},     {900, ZONE_YELLOW, 2000},    {901, ZONE_RED, 2000},
                {1000, ZONE_RED, 2000},  {1001, ZONE_EMERGENCY, 2000}, {5000, ZONE_EMERGENCY, 2000}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(quota_zone(rows[i].usage), rows[i].zone);
        assert_int_equal(quota_delay_ms(rows[i].usage), rows[i].delay_ms);
    }
    assert_int_equal(quota_usage((struct quota_amount){0, 0}, (struct quota_amount){0, 0}), 0);
    assert_int_equal(quota_usage((struct quota_amount){1, 0}, (struct quota_amount){0, 0}), 1000);
    assert_int_equal(quota_usage((struct quota_amount){800, GIB}, (struct quota_amount){1000, 10 * GIB}), 800);
    assert_int_equal(quota_usage((struct quota_amount){801, 0}, (struct quota_amount){100000, 1}), 9); /* rounded up */
    assert_int_equal(quota_usage((struct quota_amount){0, UINT64_MAX / 2}, (struct quota_amount){0, UINT64_MAX / 2}), 1000);
}

/* A tenant may use an idle site for a minute, not for ever. */
static void a_burst_lasts_its_time_and_comes_back(void **context) {
    (void)context;
    struct quota q;
    load_tree(&q);
    quota_run(&q, 1000);
    struct quota_tenant *acme = quota_find(&q, bytes_str("acme"));
    struct quota_namespace *none = &acme->namespaces[0];
    struct quota_amount one = {30000, 0}, two = {60000, 0};
    assert_int_equal(quota_admits(&q, acme, none, two, true), QUOTA_YES);
    assert_int_equal(quota_admits(&q, acme, none, (struct quota_amount){60001, 0}, true), QUOTA_TENANT_FULL);
    assert_int_equal(quota_admits(&q, acme, none, (struct quota_amount){30001, 0}, false), QUOTA_TENANT_FULL);
    quota_charge(acme, none, two);
    assert_true(quota_above(&q, acme));
    assert_int_equal(quota_due_ms(&q), 61000);
    quota_run(&q, 60999);
    assert_int_equal(acme->burst_left_ms, 1);
    quota_run(&q, 61000);
    assert_int_equal(acme->burst_left_ms, 0);
    assert_int_equal(quota_due_ms(&q), INT64_MAX);
    quota_release(acme, none, one);
    assert_false(quota_above(&q, acme)); /* at its share is not above it */
    assert_int_equal(quota_admits(&q, acme, none, (struct quota_amount){1, 0}, true), QUOTA_TENANT_FULL);
    quota_run(&q, 71000);
    assert_int_equal(acme->burst_left_ms, 10000);
    assert_int_equal(quota_admits(&q, acme, none, one, true), QUOTA_TENANT_FULL); /* not rested yet */
    assert_int_equal(quota_rested_ms(&q, acme), 121000);
    quota_run(&q, 121000);
    assert_int_equal(quota_rested_ms(&q, acme), INT64_MAX);
    assert_int_equal(quota_admits(&q, acme, none, one, true), QUOTA_YES);
    quota_run(&q, 500000);
    assert_int_equal(acme->burst_left_ms, QUOTA_BURST_MS);
    /* a clock that goes back changes nothing */
    quota_run(&q, 400000);
    assert_int_equal(acme->burst_left_ms, QUOTA_BURST_MS);
    quota_clear(&q);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_namespace_stays_within_its_part_of_its_tenant),
        cmocka_unit_test(shares_above_what_there_is_are_refused_with_the_sum),
        cmocka_unit_test(the_default_tenant_has_what_the_others_leave),
        cmocka_unit_test(namespaces_come_and_go_in_place),
        cmocka_unit_test(zones_and_delays_are_those_of_the_design),
        cmocka_unit_test(a_burst_lasts_its_time_and_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
