#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "agent/api/quotaform.h"

#define GIB (1024ull * 1024 * 1024)

/* The tree of the architecture document. */
#define TREE                                                                                                                       \
    "cluster: {cpu_percent: 100, memory_percent: 100}\n"                                                                           \
    "system_reserve: {cpu_percent: 10, memory_percent: 10}\n"                                                                      \
    "tenants:\n"                                                                                                                   \
    "  acme:\n"                                                                                                                    \
    "    cpu_percent: 30\n"                                                                                                        \
    "    memory_percent: 25\n"                                                                                                     \
    "    namespaces:\n"                                                                                                            \
    "      production: {cpu_percent: 80, memory_percent: 80}\n"                                                                    \
    "      staging: {cpu_percent: 20, memory_percent: 20}\n"                                                                       \
    "  beta: {cpu_percent: 25, memory_percent: 30}\n"

static struct quotaform form;
static struct quota quota;

static int begin(void **state) {
    (void)state;
    form = (struct quotaform){0};
    return quota_init(&quota) == E_OK ? 0 : -1;
}

static int end(void **state) {
    (void)state;
    quotaform_free(&form);
    quota_clear(&quota);
    return 0;
}

static enum grey_error load(const char *text, struct fault *f) {
    quotaform_free(&form);
    enum grey_error err = quotaform_read(&form, bytes_str(text), f);
    err = err == E_OK ? quotaform_check(&form, &quota, f) : err;
    return err == E_OK ? quotatree_set(&quota, form.shares, form.count) : err;
}

static void expect_refusal(const char *text, enum grey_error wanted, const char *line, const char *says) {
    struct fault f = {0};
    enum grey_error err = load(text, &f);
    if (err != wanted || strncmp(f.text, line, strlen(line)) != 0 || strstr(f.text, says) == NULL) {
        fail_msg("%s: %s, not %s, and not \"%s...%s\": %s", text, error_name(err), error_name(wanted), line, says, f.text);
    }
}

/* The tree that the site was planned with must be the one that is in force: staging has 6% of the processors and 5% of the memory. */
static void the_planned_tree_is_loaded_as_it_stands(void **context) {
    (void)context;
    struct fault f = {0};
    assert_int_equal(load(TREE, &f), E_OK);
    quota.capacity = (struct quota_amount){100000, 100 * GIB};
    struct quota_tenant *acme = quota_find(&quota, bytes_str("acme")), *beta = quota_find(&quota, bytes_str("beta"));
    assert_true(acme->share.cpu_permille == 300 && acme->share.memory_permille == 250);
    assert_true(beta->share.cpu_permille == 250 && beta->share.memory_permille == 300);
    struct quota_namespace *staging = quota_namespace_find(acme, bytes_str("staging"));
    struct quota_amount limit = quota_namespace_limit(&quota, acme, staging);
    assert_true(limit.cpu_millicores == 6000 && limit.memory_bytes == 5 * GIB);
    assert_int_equal(quota_admits(&quota, acme, staging, limit, true), QUOTA_YES);
    assert_int_equal(quota_admits(&quota, acme, staging, (struct quota_amount){6001, 1}, true), QUOTA_NAMESPACE_FULL);
    assert_int_equal(quota_admits(&quota, acme, staging, (struct quota_amount){1, 5 * GIB + 1}, true), QUOTA_NAMESPACE_FULL);
    assert_int_equal(load(TREE, &f), E_OK); /* again: nothing is counted twice */
}

/* A mistake in a file of a hundred tenants must be found by its line, and nothing of the file may be in force then. */
static void a_mistake_is_named_with_its_line(void **context) {
    (void)context;
    expect_refusal(TREE "  gamma: {cpu_percent: 35.1, memory_percent: 10}\n", E_QUOTA,
                   "line 11: gamma: ", "90.1% of the processors");
    assert_null(quota_find(&quota, bytes_str("acme")));
    expect_refusal(TREE "  gamma: {cpu_percent: 1, memory_percent: 36}\n", E_QUOTA, "line 11: ", "91.0% of the memory");
    expect_refusal("tenants:\n  a:\n    cpu_percent: 5\n    memory_percent: 5\n    namespaces:\n      x: {cpu_percent: 60, "
                   "memory_percent: 1}\n"
                   "      y: {cpu_percent: 41, memory_percent: 1}\n",
                   E_QUOTA, "line 7: a/y: ", "101.0%");
    expect_refusal("tenants:\n  a: {cpu_percent: 5}\n", E_BAD_REQUEST, "line 2", "memory_percent");
    expect_refusal("tenants:\n  a: {cpu_percent: 5, memory_percent: 0}\n", E_BAD_REQUEST, "line 2", "");
    expect_refusal("tenants:\n  a: {cpu_percent: 5.05, memory_percent: 1}\n", E_BAD_REQUEST, "line 2", "steps");
    expect_refusal("tenants:\n  a b: {cpu_percent: 5, memory_percent: 1}\n", E_BAD_REQUEST, "line 2: a b: ", "names");
    expect_refusal("tenants:\n  a: {cpu_percent: 5, memory_percent: 1, weight: 3}\n", E_BAD_REQUEST, "line 2", "weight");
    expect_refusal("tenants:\n  a: 5\n", E_BAD_REQUEST, "line 2", "expected");
    expect_refusal("tenants: {}\n", E_BAD_REQUEST, "line 1", "tenants");
    expect_refusal("tennants:\n  a: {cpu_percent: 5, memory_percent: 1}\n", E_BAD_REQUEST, "line 1", "tennants");
    expect_refusal("system_reserve: {cpu_percent: 5, memory_percent: 10}\ntenants: {}\n", E_BAD_REQUEST, "line 1", "10%");
    expect_refusal("tenants:\n  a: {cpu_percent: 5, memory_percent: 1}\n  a: {cpu_percent: 5, memory_percent: 1}\n", E_BAD_REQUEST,
                   "line 3", "");
    expect_refusal("", E_BAD_REQUEST, "line 1", "tenants");
    expect_refusal("tenants: [", E_BAD_REQUEST, "line ", "");
    assert_int_equal(quota.count, 1);
}

/* Two tenants that change places in one file must not be refused because one of them comes first. */
static void shares_move_between_tenants_in_one_step(void **context) {
    (void)context;
    struct fault f = {0};
    assert_int_equal(load("tenants:\n  a: {cpu_percent: 80, memory_percent: 80}\n  b: {cpu_percent: 10, memory_percent: 10}\n", &f),
                     E_OK);
    assert_int_equal(load("tenants:\n  a: {cpu_percent: 10, memory_percent: 10}\n  b: {cpu_percent: 80, memory_percent: 80}\n", &f),
                     E_OK);
    expect_refusal("tenants:\n  c: {cpu_percent: 1, memory_percent: 1}\n", E_QUOTA, "line 2: c: ", "91.0%");
    assert_int_equal(load("tenants:\n  c: {cpu_percent: 1, memory_percent: 1}\n  b: {cpu_percent: 79, memory_percent: 79}\n", &f),
                     E_OK);
    assert_int_equal(quota_find(&quota, bytes_str("c"))->share.cpu_permille, 10);
}

/* Over-commit is for those who asked for it: then shares are what each may have at most, and the default tenant has what is left, or nothing. */
static void more_than_there_is_may_be_given_where_that_is_allowed(void **context) {
    (void)context;
    struct fault f = {0};
    static const char twice[] =
        "tenants:\n  a: {cpu_percent: 90, memory_percent: 90}\n  b: {cpu_percent: 90, memory_percent: 50}\n";
    expect_refusal(twice, E_QUOTA, "line 3: b: ", "180.0%");
    quota.overcommit = true;
    assert_int_equal(load(twice, &f), E_OK);
    struct quota_share left = quota_share_of(&quota, quota_find(&quota, bytes_str(QUOTA_DEFAULT_TENANT)));
    assert_true(left.cpu_permille == 0 && left.memory_permille == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_planned_tree_is_loaded_as_it_stands, begin, end),
        cmocka_unit_test_setup_teardown(a_mistake_is_named_with_its_line, begin, end),
        cmocka_unit_test_setup_teardown(shares_move_between_tenants_in_one_step, begin, end),
        cmocka_unit_test_setup_teardown(more_than_there_is_may_be_given_where_that_is_allowed, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
