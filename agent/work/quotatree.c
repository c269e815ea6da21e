#include "agent/work/quotatree.h"

#include <string.h>

#include "include/grey/must.h"

struct names {
    const struct quotatree_share *shares;
    uint32_t count;
};

static const struct quotatree_share *find(const struct names *n, struct bytes tenant, struct bytes name_space) {
    for (uint32_t i = 0; i < n->count; i++) {
        if (bytes_equal(n->shares[i].tenant, tenant) && bytes_equal(n->shares[i].name_space, name_space)) {
            return &n->shares[i];
        }
    }
    return NULL;
}

/* What stays as it is: of the tenants, or of one tenant's namespaces. */
static struct quota_share unnamed_tenants(const struct quota *q, const struct names *n, uint32_t *count) {
    struct quota_share sum = {0, 0};
    *count = q->count;
    for (uint32_t i = 0; i < q->count; i++) {
        const struct quota_tenant *t = q->tenants[i];
        if (t->set && find(n, bytes_str(t->name.text), bytes_of(NULL, 0)) == NULL) {
            sum.cpu_permille += t->share.cpu_permille;
            sum.memory_permille += t->share.memory_permille;
        }
    }
    return sum;
}

static struct quota_share unnamed_namespaces(const struct quota *q, const struct names *n, struct bytes tenant, uint32_t *count) {
    struct quota_share sum = {0, 0};
    const struct quota_tenant *t = quota_find(q, tenant);
    *count = 0;
    for (uint32_t i = 1; t != NULL && i < t->namespace_count; i++) {
        const struct quota_namespace *s = &t->namespaces[i];
        if (s->name.text[0] != 0) {
            (*count)++;
        }
        if (s->name.text[0] != 0 && find(n, tenant, bytes_str(s->name.text)) == NULL) {
            sum.cpu_permille += s->share.cpu_permille;
            sum.memory_permille += s->share.memory_permille;
        }
    }
    return sum;
}

static enum grey_error tenants_check(const struct quota *q, const struct names *n, uint32_t *which, struct fault *f) {
    uint32_t count;
    struct quota_share sum = unnamed_tenants(q, n, &count);
    for (uint32_t i = 0; i < n->count; i++) {
        const struct quotatree_share *s = &n->shares[i];
        *which = i;
        if (s->name_space.size > 0) {
            continue;
        }
        count += quota_find(q, s->tenant) == NULL;
        if (count > QUOTA_TENANTS_MAX) {
            return fault_set(f, E_BUSY, "a site has at most %u tenants", QUOTA_TENANTS_MAX);
        }
        enum grey_error err =
            quota_sum_check(q, sum, s->share, QUOTA_WHOLE - QUOTA_SYSTEM_PERMILLE, "all tenants up to this one", f);
        if (err != E_OK) {
            return err;
        }
        sum.cpu_permille += s->share.cpu_permille;
        sum.memory_permille += s->share.memory_permille;
    }
    return E_OK;
}

/* The namespaces of the tenant of share `first`, its first one. */
static enum grey_error namespaces_check(const struct quota *q, const struct names *n, uint32_t first, uint32_t *which,
                                        struct fault *f) {
    uint32_t count;
    struct bytes tenant = n->shares[first].tenant;
    struct quota_share sum = unnamed_namespaces(q, n, tenant, &count);
    struct quota_tenant *t = quota_find(q, tenant);
    for (uint32_t i = first; i < n->count; i++) {
        const struct quotatree_share *s = &n->shares[i];
        if (s->name_space.size == 0 || !bytes_equal(s->tenant, tenant)) {
            continue;
        }
        *which = i;
        count += t == NULL || quota_namespace_find(t, s->name_space) == NULL;
        if (count > QUOTA_NAMESPACES_MAX) {
            return fault_set(f, E_BUSY, "a tenant has at most %u namespaces", QUOTA_NAMESPACES_MAX);
        }
        enum grey_error err = quota_sum_check(q, sum, s->share, QUOTA_WHOLE, "the tenant's namespaces up to this one", f);
        if (err != E_OK) {
            return err;
        }
        sum.cpu_permille += s->share.cpu_permille;
        sum.memory_permille += s->share.memory_permille;
    }
    return E_OK;
}

enum grey_error quotatree_may_set(const struct quota *q, const struct quotatree_share *shares, uint32_t count, uint32_t *which,
                                  struct fault *f) {
    struct names n = {shares, count}, before = {shares, 0};
    for (*which = 0; *which < count; (*which)++, before.count++) {
        const struct quotatree_share *s = &shares[*which];
        enum grey_error err = quota_names_check(s->tenant, s->name_space, s->share, f);
        if (err == E_OK && find(&before, s->tenant, s->name_space) != NULL) {
            err = fault_set(f, E_BAD_REQUEST, "%.*s is named twice", (int)s->tenant.size, (const char *)s->tenant.data);
        }
        if (err == E_OK && s->name_space.size > 0 && quota_find(q, s->tenant) == NULL &&
            find(&n, s->tenant, bytes_of(NULL, 0)) == NULL) {
            err = fault_set(f, E_NOT_FOUND, "there is no tenant %.*s", (int)s->tenant.size, (const char *)s->tenant.data);
        }
        if (err != E_OK) {
            return err;
        }
    }
    enum grey_error err = tenants_check(q, &n, which, f);
    for (uint32_t i = 0; i < count && err == E_OK; i++) {
        bool seen = false;
        for (uint32_t k = 0; k < i; k++) {
            seen = seen || (shares[k].name_space.size > 0 && bytes_equal(shares[k].tenant, shares[i].tenant));
        }
        if (shares[i].name_space.size > 0 && !seen) {
            err = namespaces_check(q, &n, i, which, f);
        }
    }
    return err;
}

enum grey_error quotatree_set(struct quota *q, const struct quotatree_share *shares, uint32_t count) {
    for (unsigned spaces = 0; spaces < 2; spaces++) { /* tenants first */
        for (uint32_t i = 0; i < count; i++) {
            if ((shares[i].name_space.size > 0) == (spaces > 0) &&
                quota_set(q, shares[i].tenant, shares[i].name_space, shares[i].share, NULL) != E_OK) {
                return E_NO_MEMORY;
            }
        }
    }
    return E_OK;
}
