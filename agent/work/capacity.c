/* What the site has for tasks, and who may use how much of it: nodes, tenants, limits. */
#include <string.h>

#include "agent/work/scheduler.h"
#include "include/grey/must.h"

void capacity_measure(struct scheduler *s) {
    s->usable = (struct quota_amount){0, 0};
    s->quota.capacity = (struct quota_amount){0, 0};
    uint64_t cpu = 0, memory = 0;
    for (uint32_t i = 0; i < s->placement.count; i++) {
        const struct placement_node *n = s->placement.nodes[i];
        if (n->condition != NODE_LOST) {
            struct quota_amount usable = placement_usable(n);
            s->quota.capacity = quota_sum(s->quota.capacity, n->capacity);
            s->usable = quota_sum(s->usable, usable);
            cpu += usable.cpu_millicores * n->measured_cpu_permille;
            memory += (usable.memory_bytes >> 10) * n->measured_memory_permille;
        }
    }
    s->measured_cpu_permille = (uint32_t)(cpu / (s->usable.cpu_millicores | 1));
    s->measured_memory_permille = (uint32_t)(memory / (s->usable.memory_bytes >> 10 | 1));
}

static void empty_node(struct scheduler *s, struct placement_node *n) {
    while (n->tasks != NULL) {
        scheduler_lose(s, n->tasks);
    }
}

static void keep_nothing_on(struct scheduler *s, const struct placement_node *n) {
    for (uint32_t i = 0; i < s->lanes.flow_count; i++) {
        for (unsigned lane = 0; lane < LANE_COUNT; lane++) {
            for (unsigned k = 0; k <= QUOTA_NAMESPACES_MAX; k++) {
                for (struct lane_item *item = s->lanes.flows[i]->queues[lane][k].first; item != NULL; item = item->next) {
                    struct task *t = (struct task *)item;
                    if (t->kept == n) {
                        scheduler_keep(s, t, NULL);
                    }
                }
            }
        }
    }
}

enum grey_error capacity_node(struct scheduler *s, const struct node_facts *facts, struct fault *f) {
    struct placement_node *n = placement_find(&s->placement, facts->id);
    if (facts->gone) {
        if (n == NULL) {
            return fault_set(f, E_NOT_FOUND, "the scheduler knows no such node");
        }
        empty_node(s, n);
        keep_nothing_on(s, n);
        n->condition = NODE_LOST; /* work.c deletes its row and then n */
        n->gone = n->dirty = true;
        capacity_measure(s);
        return E_OK;
    }
    if (n == NULL && s->placement.count >= LIMIT_MEMBERS) {
        return fault_set(f, E_BUSY, "the scheduler keeps %u nodes", s->placement.count);
    }
    n = n != NULL ? n : placement_add(&s->placement, facts->id, facts->name);
    if (n == NULL) {
        return fault_set(f, E_NO_MEMORY, "adding a node");
    }
    n->dirty = n->reported = true;
    n->condition = facts->condition;
    n->capacity = facts->capacity;
    n->measured_cpu_permille = facts->measured_cpu_permille;
    n->measured_memory_permille = facts->measured_memory_permille;
    n->label_count = facts->labels.count < PLACEMENT_LABELS_MAX ? facts->labels.count : PLACEMENT_LABELS_MAX;
    memset(n->labels, 0, sizeof n->labels);
    for (uint32_t i = 0; i < n->label_count; i++) {
        must(facts->labels.at[i].size <= PLACEMENT_LABEL_BYTES);
        memcpy(n->labels[i], facts->labels.at[i].data, facts->labels.at[i].size);
    }
    if (n->condition == NODE_LOST) {
        empty_node(s, n);
    }
    if (n->condition != NODE_READY) {
        keep_nothing_on(s, n);
    }
    capacity_measure(s);
    return E_OK;
}

enum grey_error capacity_tenant(struct scheduler *s, struct bytes tenant, struct bytes name_space, struct quota_share share,
                                struct fault *f) {
    enum grey_error err = quota_may_set(&s->quota, tenant, name_space, share, f);
    if (err != E_OK) {
        return err;
    }
    err = quota_set(&s->quota, tenant, name_space, share, NULL);
    err = err == E_OK ? scheduler_weigh(s) : err;
    return err == E_OK ? E_OK : fault_set(f, err, "adding a tenant");
}

enum grey_error capacity_tenant_remove(struct scheduler *s, struct bytes tenant, struct bytes name_space, struct fault *f) {
    enum grey_error err = quota_may_remove(&s->quota, tenant, name_space, f);
    if (err != E_OK) {
        return err;
    }
    struct quota_tenant *t = quota_find(&s->quota, tenant);
    if (name_space.size == 0 && !bytes_equal_str(tenant, QUOTA_DEFAULT_TENANT)) {
        lanes_flow_remove(&s->lanes, t->owner);
        mem_free(t->owner);
        t->owner = NULL;
    }
    quota_remove(&s->quota, tenant, name_space);
    s->tenants_removed = true;
    return scheduler_weigh(s);
}

enum grey_error capacity_tree(struct scheduler *s, const struct quotatree_share *shares, uint32_t count, struct fault *f) {
    uint32_t which;
    enum grey_error err = quotatree_may_set(&s->quota, shares, count, &which, f);
    if (err != E_OK) {
        return err;
    }
    err = quotatree_set(&s->quota, shares, count);
    err = err == E_OK ? scheduler_weigh(s) : err;
    return err == E_OK ? E_OK : fault_set(f, err, "adding tenants");
}

void capacity_limits(struct scheduler *s, const struct capacity_limits *l) {
    s->saved.proof_s = l->proof_s;
    s->saved.queue_max = l->queue_max;
    s->saved.concurrent_max = l->concurrent_max;
    s->quota.burst_ms = l->burst_ms;
    s->quota.overcommit = l->overcommit;
    quota_run(&s->quota, s->now_ms);
    if (s->saved.offloads != l->offloads) {
        scheduler_offload(s, l->offloads);
    }
}
