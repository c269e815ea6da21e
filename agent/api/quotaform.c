#include "agent/api/quotaform.h"

#include <stdio.h>
#include <string.h>

#define CPU "cpu_percent"
#define MEMORY "memory_percent"
#define SPACES "namespaces"

static bool key_is(const struct yaml_node *n, const char *key) {
    return bytes_equal_str(n->key, key);
}

/* Percent with at most one place behind the point, as permille. */
static enum grey_error take_percent(const struct yaml_node *n, uint32_t *permille, struct fault *f) {
    double percent;
    enum grey_error err = yaml_number(n, 0.1, 100, &percent, f);
    if (err != E_OK) {
        return err;
    }
    *permille = (uint32_t)(percent * 10 + 0.5);
    double back = (double)*permille / 10 - percent;
    return back < 1e-9 && back > -1e-9 ? E_OK : yaml_fault(n, f, "a share is 0.1 to 100, in steps of 0.1");
}

/* At the key: its value may begin lines below. */
static enum grey_error unknown_key(const struct yaml_node *n, const char *known, struct fault *f) {
    return fault_set(f, E_CONFIG, "line %u, column %u: '%.60s' does not belong here; expected %s", n->key_line, n->key_column,
                     (const char *)n->key.data, known);
}

/* Both percentages of a mapping; spaces, where it may have some. */
static enum grey_error take_share(const struct yaml_node *n, struct quota_share *share, const struct yaml_node **spaces,
                                  struct fault *f) {
    *share = (struct quota_share){0, 0};
    if (n->kind != YAML_MAPPING) {
        return yaml_fault(n, f, "expected " CPU " and " MEMORY);
    }
    for (const struct yaml_node *m = n->first; m != NULL; m = m->next) {
        enum grey_error err = E_OK;
        if (key_is(m, CPU)) {
            err = take_percent(m, &share->cpu_permille, f);
        } else if (key_is(m, MEMORY)) {
            err = take_percent(m, &share->memory_permille, f);
        } else if (spaces != NULL && key_is(m, SPACES) && m->kind == YAML_MAPPING) {
            *spaces = m;
        } else {
            err = unknown_key(m, spaces != NULL ? CPU ", " MEMORY " and a mapping " SPACES : CPU " and " MEMORY, f);
        }
        if (err != E_OK) {
            return err;
        }
    }
    return share->cpu_permille > 0 && share->memory_permille > 0 ? E_OK : yaml_fault(n, f, "say both " CPU " and " MEMORY);
}

static enum grey_error add(struct quotaform *form, const struct yaml_node *n, struct bytes tenant, struct bytes name_space,
                           const struct yaml_node **spaces, struct fault *f) {
    if (form->count == QUOTATREE_SHARES_MAX) {
        return yaml_fault(n, f, "more than %u shares", QUOTATREE_SHARES_MAX);
    }
    struct quotatree_share *s = &form->shares[form->count];
    form->lines[form->count++] = n->key_line;
    *s = (struct quotatree_share){.tenant = tenant, .name_space = name_space};
    return take_share(n, &s->share, spaces, f);
}

static enum grey_error take_tenants(struct quotaform *form, const struct yaml_node *tenants, struct fault *f) {
    if (tenants->kind != YAML_MAPPING || tenants->first == NULL) {
        return yaml_fault(tenants, f, "tenants: expected a mapping of names");
    }
    for (const struct yaml_node *t = tenants->first; t != NULL; t = t->next) {
        const struct yaml_node *spaces = NULL;
        enum grey_error err = add(form, t, t->key, bytes_of(NULL, 0), &spaces, f);
        for (const struct yaml_node *n = spaces == NULL ? NULL : spaces->first; n != NULL && err == E_OK; n = n->next) {
            err = n->key.size == 0 ? yaml_fault(n, f, "a namespace has a name") : add(form, n, t->key, n->key, NULL, f);
        }
        if (err != E_OK) {
            return err;
        }
    }
    return E_OK;
}

/* What the site has, and what the system keeps of it: people write it down; nobody can change it. */
static enum grey_error take_fixed(const struct yaml_node *n, uint32_t permille, struct fault *f) {
    struct quota_share share;
    enum grey_error err = take_share(n, &share, NULL, f);
    if (err == E_OK && (share.cpu_permille != permille || share.memory_permille != permille)) {
        return yaml_fault(n, f, "%.20s is %u%% of both", (const char *)n->key.data, permille / 10);
    }
    return err;
}

static enum grey_error take_all(struct quotaform *form, const struct yaml_node *root, struct fault *f) {
    if (root == NULL || root->kind != YAML_MAPPING) {
        return fault_set(f, E_CONFIG, "line 1: expected tenants: with their shares");
    }
    bool any = false;
    for (const struct yaml_node *n = root->first; n != NULL; n = n->next) {
        enum grey_error err;
        if (key_is(n, "tenants")) {
            any = true;
            err = take_tenants(form, n, f);
        } else if (key_is(n, "cluster")) {
            err = take_fixed(n, QUOTA_WHOLE, f);
        } else if (key_is(n, "system_reserve")) {
            err = take_fixed(n, QUOTA_SYSTEM_PERMILLE, f);
        } else {
            err = unknown_key(n, "tenants, cluster, system_reserve", f);
        }
        if (err != E_OK) {
            return err;
        }
    }
    return any ? E_OK : yaml_fault(root, f, "there is no tenants:");
}

enum grey_error quotaform_read(struct quotaform *form, struct bytes text, struct fault *f) {
    struct fault inner = {0};
    form->count = 0;
    form->document = yaml_read(text, &inner);
    enum grey_error err = form->document == NULL ? inner.code : take_all(form, yaml_root(form->document), &inner);
    return err == E_OK ? E_OK : fault_set(f, err == E_CONFIG ? E_BAD_REQUEST : err, "%s", inner.text);
}

enum grey_error quotaform_check(const struct quotaform *form, const struct quota *q, struct fault *f) {
    uint32_t which;
    struct fault inner = {0};
    enum grey_error err = quotatree_may_set(q, form->shares, form->count, &which, &inner);
    if (err == E_OK) {
        return E_OK;
    }
    const struct quotatree_share *s = &form->shares[which < form->count ? which : 0];
    return fault_set(f, err, "line %u: %.64s%s%.64s: %s", form->lines[which < form->count ? which : 0],
                     (const char *)s->tenant.data, s->name_space.size > 0 ? "/" : "",
                     s->name_space.size > 0 ? (const char *)s->name_space.data : "", inner.text);
}

void quotaform_free(struct quotaform *form) {
    yaml_doc_free(form->document);
    form->document = NULL;
}
