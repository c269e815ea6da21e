#include "agent/work/quota.h"

#include <string.h>

#include "include/grey/must.h"

/* --- Numbers ---------------------------------------------------------------------------------------------------------------------------- */

static uint64_t part(uint64_t whole, uint32_t permille) { /* no product overflows */
    return whole / QUOTA_WHOLE * permille + whole % QUOTA_WHOLE * permille / QUOTA_WHOLE;
}

struct quota_amount quota_of(struct quota_amount whole, struct quota_share share) {
    return (struct quota_amount){part(whole.cpu_millicores, share.cpu_permille), part(whole.memory_bytes, share.memory_permille)};
}

static uint32_t ratio(uint64_t used, uint64_t of) {
    if (used == 0) {
        return 0;
    }
    if (of == 0) {
        return QUOTA_WHOLE;
    }
    while (used >= 1ull << 50 || of >= 1ull << 50) { /* only for amounts no machine has */
        used >>= 1;
        of = of >> 1 | 1;
    }
    uint64_t permille = (used * QUOTA_WHOLE + of - 1) / of;
    return permille > UINT32_MAX ? UINT32_MAX : (uint32_t)permille;
}

uint32_t quota_usage(struct quota_amount used, struct quota_amount of) {
    uint32_t cpu = ratio(used.cpu_millicores, of.cpu_millicores), memory = ratio(used.memory_bytes, of.memory_bytes);
    return cpu > memory ? cpu : memory;
}

enum quota_zone quota_zone(uint32_t usage_permille) {
    return usage_permille > QUOTA_EMERGENCY_ABOVE ? ZONE_EMERGENCY
           : usage_permille > QUOTA_RED_ABOVE     ? ZONE_RED
           : usage_permille >= QUOTA_YELLOW_FROM  ? ZONE_YELLOW
                                                  : ZONE_GREEN;
}

uint32_t quota_delay_ms(uint32_t usage_permille) {
    uint32_t usage = usage_permille < QUOTA_RED_ABOVE ? usage_permille : QUOTA_RED_ABOVE;
    return usage <= QUOTA_YELLOW_FROM ? 0 : (usage - QUOTA_YELLOW_FROM) * 10;
}

const char *quota_zone_name(enum quota_zone z) {
    static const char *const names[ZONE_COUNT] = {"green", "yellow", "red", "emergency"};
    must((unsigned)z < ZONE_COUNT);
    return names[z];
}

/* --- The tree --------------------------------------------------------------------------------------------------------------------------- */

static void name_set(struct grey_name *n, struct bytes text) {
    must(text.size <= LIMIT_NAME_BYTES);
    memset(n, 0, sizeof *n);
    if (text.size > 0) {
        memcpy(n->text, text.data, text.size);
    }
}

/* Where `name` stands or would stand. */
static uint32_t place_of(const struct quota *q, struct bytes name, bool *found) {
    uint32_t low = 0, high = q->count;
    *found = false;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        int order = bytes_compare(name, bytes_str(q->tenants[middle]->name.text));
        if (order == 0) {
            *found = true;
            return middle;
        }
        if (order < 0) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

struct quota_tenant *quota_find(const struct quota *q, struct bytes name) {
    bool found;
    uint32_t place = place_of(q, name, &found);
    return found ? q->tenants[place] : NULL;
}

struct quota_namespace *quota_namespace_find(struct quota_tenant *t, struct bytes name) {
    for (uint32_t i = 0; i < t->namespace_count; i++) { /* the first has no name and comes first: free places are never found */
        if (bytes_equal_str(name, t->namespaces[i].name.text)) {
            return &t->namespaces[i];
        }
    }
    return NULL;
}

static struct quota_namespace *free_place(struct quota_tenant *t) {
    for (uint32_t i = 1; i <= QUOTA_NAMESPACES_MAX; i++) {
        if (i >= t->namespace_count || t->namespaces[i].name.text[0] == 0) {
            return &t->namespaces[i];
        }
    }
    return NULL;
}

static struct quota_tenant *tenant_add(struct quota *q, struct bytes name) {
    bool found;
    uint32_t place = place_of(q, name, &found);
    must(!found && q->count < QUOTA_TENANTS_MAX);
    struct quota_tenant *t = mem_new(1, sizeof *t);
    if (t == NULL) {
        return NULL;
    }
    name_set(&t->name, name);
    t->burst_left_ms = q->burst_ms;
    t->namespace_count = 1;
    t->namespaces[0].share = (struct quota_share){QUOTA_WHOLE, QUOTA_WHOLE};
    memmove(&q->tenants[place + 1], &q->tenants[place], (q->count - place) * sizeof *q->tenants);
    q->tenants[place] = t;
    q->count++;
    return t;
}

enum grey_error quota_init(struct quota *q) {
    *q = (struct quota){.burst_ms = QUOTA_BURST_MS};
    return tenant_add(q, bytes_str(QUOTA_DEFAULT_TENANT)) == NULL ? E_NO_MEMORY : E_OK;
}

void quota_clear(struct quota *q) {
    for (uint32_t i = 0; i < q->count; i++) {
        mem_free(q->tenants[i]);
    }
    q->count = 0;
}

/* What the set tenants but `except` have together. */
static struct quota_share taken(const struct quota *q, const struct quota_tenant *except) {
    struct quota_share sum = {0, 0};
    for (uint32_t i = 0; i < q->count; i++) {
        if (q->tenants[i]->set && q->tenants[i] != except) {
            sum.cpu_permille += q->tenants[i]->share.cpu_permille;
            sum.memory_permille += q->tenants[i]->share.memory_permille;
        }
    }
    return sum;
}

struct quota_share quota_share_of(const struct quota *q, const struct quota_tenant *t) {
    if (t->set) {
        return t->share;
    }
    struct quota_share sum = taken(q, t);
    const uint32_t most = QUOTA_WHOLE - QUOTA_SYSTEM_PERMILLE; /* nothing is left where more is given away than there is */
    return (struct quota_share){sum.cpu_permille < most ? most - sum.cpu_permille : 0,
                                sum.memory_permille < most ? most - sum.memory_permille : 0};
}

enum grey_error quota_sum_check(const struct quota *q, struct quota_share others, struct quota_share more, uint32_t most,
                                const char *whose, struct fault *f) {
    uint32_t cpu = others.cpu_permille + more.cpu_permille, memory = others.memory_permille + more.memory_permille;
    if ((cpu <= most && memory <= most) || q->overcommit) {
        return E_OK;
    }
    bool is_cpu = cpu > most;
    uint32_t sum = is_cpu ? cpu : memory;
    return fault_set(f, E_QUOTA, "%s would have %u.%u%% of the %s together; %u.%u%% is what there is", whose, sum / 10, sum % 10,
                     is_cpu ? "processors" : "memory", most / 10, most % 10);
}

enum grey_error quota_names_check(struct bytes tenant, struct bytes name_space, struct quota_share share, struct fault *f) {
    if (!grey_name_valid((const char *)tenant.data, tenant.size) ||
        (name_space.size > 0 && !grey_name_valid((const char *)name_space.data, name_space.size))) {
        return fault_set(f, E_BAD_REQUEST, "names of tenants and namespaces are 1 to %u of A-Z a-z 0-9 . _ -", LIMIT_NAME_BYTES);
    }
    if (share.cpu_permille < 1 || share.cpu_permille > QUOTA_WHOLE || share.memory_permille < 1 ||
        share.memory_permille > QUOTA_WHOLE) {
        return fault_set(f, E_BAD_REQUEST, "shares are 0.1%% to 100%%");
    }
    return E_OK;
}

enum grey_error quota_may_set(const struct quota *q, struct bytes tenant, struct bytes name_space, struct quota_share share,
                              struct fault *f) {
    enum grey_error err = quota_names_check(tenant, name_space, share, f);
    if (err != E_OK) {
        return err;
    }
    struct quota_tenant *t = quota_find(q, tenant);
    if (name_space.size == 0) {
        if (t == NULL && q->count >= QUOTA_TENANTS_MAX) {
            return fault_set(f, E_BUSY, "the site has %u tenants, which is the most it keeps", q->count);
        }
        return quota_sum_check(q, taken(q, t), share, QUOTA_WHOLE - QUOTA_SYSTEM_PERMILLE, "all tenants", f);
    }
    if (t == NULL) {
        return fault_set(f, E_NOT_FOUND, "there is no tenant %.*s", (int)tenant.size, (const char *)tenant.data);
    }
    const struct quota_namespace *n = quota_namespace_find(t, name_space);
    if (n == NULL && free_place(t) == NULL) {
        return fault_set(f, E_BUSY, "tenant %s has %u namespaces, which is the most it may have", t->name.text,
                         QUOTA_NAMESPACES_MAX);
    }
    struct quota_share sum = {0, 0};
    for (uint32_t i = 1; i < t->namespace_count; i++) {
        if (&t->namespaces[i] != n) {
            sum.cpu_permille += t->namespaces[i].share.cpu_permille;
            sum.memory_permille += t->namespaces[i].share.memory_permille;
        }
    }
    return quota_sum_check(q, sum, share, QUOTA_WHOLE, "the tenant's namespaces", f);
}

enum grey_error quota_set(struct quota *q, struct bytes tenant, struct bytes name_space, struct quota_share share,
                          struct quota_tenant **out) {
    struct quota_tenant *t = quota_find(q, tenant);
    if (t == NULL) {
        must(name_space.size == 0);
        t = tenant_add(q, tenant);
        if (t == NULL) {
            return E_NO_MEMORY;
        }
    }
    if (name_space.size == 0) {
        t->share = share;
        t->set = true;
    } else {
        struct quota_namespace *n = quota_namespace_find(t, name_space);
        if (n == NULL) {
            n = free_place(t);
            must(n != NULL);
            if (n == &t->namespaces[t->namespace_count]) {
                t->namespace_count++;
            }
            *n = (struct quota_namespace){0};
            name_set(&n->name, name_space);
        }
        n->share = share;
    }
    t->dirty = true;
    if (out != NULL) {
        *out = t;
    }
    return E_OK;
}

enum grey_error quota_may_remove(const struct quota *q, struct bytes tenant, struct bytes name_space, struct fault *f) {
    struct quota_tenant *t = quota_find(q, tenant);
    const struct quota_namespace *n = t == NULL ? NULL : quota_namespace_find(t, name_space);
    bool is_default = bytes_equal_str(tenant, QUOTA_DEFAULT_TENANT);
    if (t == NULL || n == NULL || (name_space.size == 0 && !t->set)) {
        return fault_set(f, E_NOT_FOUND, "there is no such tenant or namespace");
    }
    uint64_t tasks = name_space.size > 0 ? n->tasks : is_default ? 0 : t->tasks;
    if (tasks > 0) {
        return fault_set(f, E_CONDITION, "%llu of its tasks have not ended or are still remembered", (unsigned long long)tasks);
    }
    return E_OK;
}

void quota_remove(struct quota *q, struct bytes tenant, struct bytes name_space) {
    bool found;
    uint32_t place = place_of(q, tenant, &found);
    must(found);
    struct quota_tenant *t = q->tenants[place];
    if (name_space.size > 0) {
        struct quota_namespace *n = quota_namespace_find(t, name_space);
        must(n != NULL && n->tasks == 0);
        *n = (struct quota_namespace){0};
        t->dirty = true;
        return;
    }
    if (bytes_equal_str(tenant, QUOTA_DEFAULT_TENANT)) {
        t->set = false;
        t->share = (struct quota_share){0, 0};
        t->dirty = true;
        return;
    }
    must(t->tasks == 0);
    memmove(&q->tenants[place], &q->tenants[place + 1], (q->count - place - 1) * sizeof *q->tenants);
    q->count--;
    mem_free(t);
}

/* --- Use ---------------------------------------------------------------------------------------------------------------------------------- */

struct quota_amount quota_limit(const struct quota *q, const struct quota_tenant *t) {
    return quota_of(q->capacity, quota_share_of(q, t));
}

struct quota_amount quota_namespace_limit(const struct quota *q, const struct quota_tenant *t, const struct quota_namespace *n) {
    return quota_of(quota_limit(q, t), n->share);
}

enum quota_answer quota_admits(const struct quota *q, const struct quota_tenant *t, const struct quota_namespace *n,
                               struct quota_amount more, bool burst) {
    struct quota_amount limit = quota_limit(q, t);
    if (n != &t->namespaces[0] && !quota_within(quota_sum(n->used, more), quota_of(limit, n->share))) {
        return QUOTA_NAMESPACE_FULL;
    }
    bool may_burst = t->burst_left_ms > 0 && (t->burst_left_ms >= q->burst_ms || !quota_within(t->used, limit));
    if (burst && may_burst) {
        limit.cpu_millicores *= QUOTA_BURST_FACTOR;
        limit.memory_bytes *= QUOTA_BURST_FACTOR;
    }
    return quota_within(quota_sum(t->used, more), limit) ? QUOTA_YES : QUOTA_TENANT_FULL;
}

bool quota_above(const struct quota *q, const struct quota_tenant *t) {
    return !quota_within(t->used, quota_limit(q, t));
}

void quota_run(struct quota *q, int64_t now_ms) {
    uint64_t passed_ms = now_ms > q->time_ms ? (uint64_t)(now_ms - q->time_ms) : 0; /* log time may be set back */
    q->time_ms = now_ms;
    for (uint32_t i = 0; i < q->count; i++) {
        struct quota_tenant *t = q->tenants[i];
        uint64_t left_ms = t->burst_left_ms < q->burst_ms ? t->burst_left_ms : q->burst_ms;
        if (quota_above(q, t)) {
            left_ms = passed_ms < left_ms ? left_ms - passed_ms : 0;
        } else {
            left_ms = passed_ms < q->burst_ms - left_ms ? left_ms + passed_ms : q->burst_ms;
        }
        t->dirty = t->dirty || left_ms != t->burst_left_ms;
        t->burst_left_ms = left_ms;
    }
}

int64_t quota_rested_ms(const struct quota *q, const struct quota_tenant *t) {
    bool coming = t->burst_left_ms < q->burst_ms && !quota_above(q, t);
    return coming ? q->time_ms + (int64_t)(q->burst_ms - t->burst_left_ms) : INT64_MAX;
}

int64_t quota_due_ms(const struct quota *q) {
    int64_t due_ms = INT64_MAX;
    for (uint32_t i = 0; i < q->count; i++) {
        const struct quota_tenant *t = q->tenants[i];
        if (t->burst_left_ms > 0 && quota_above(q, t) && q->time_ms + (int64_t)t->burst_left_ms < due_ms) {
            due_ms = q->time_ms + (int64_t)t->burst_left_ms;
        }
    }
    return due_ms;
}

void quota_charge(struct quota_tenant *t, struct quota_namespace *n, struct quota_amount a) {
    t->used = quota_sum(t->used, a);
    n->used = quota_sum(n->used, a);
}

void quota_release(struct quota_tenant *t, struct quota_namespace *n, struct quota_amount a) {
    must(quota_within(a, t->used) && quota_within(a, n->used));
    t->used.cpu_millicores -= a.cpu_millicores;
    t->used.memory_bytes -= a.memory_bytes;
    n->used.cpu_millicores -= a.cpu_millicores;
    n->used.memory_bytes -= a.memory_bytes;
}
