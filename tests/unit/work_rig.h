/* work_rig.h: a site with nodes, tenants and tasks, for tests: entries are applied one after the other at a time that the test sets. */
#ifndef TESTS_UNIT_WORK_RIG_H
#define TESTS_UNIT_WORK_RIG_H

#include "agent/work/work.h"
#include "tests/unit/rows_on_disk.h"

#define GIB (1024ull * 1024 * 1024)
#define MIB (1024ull * 1024)
#define START_MS 1770000000000ll

struct rig {
    struct gateway g;
    struct builder payload, answer;
    struct outcome o;
    int64_t now_ms;
};

static inline struct rig *rig_new(void) {
    struct rig *r = calloc(1, sizeof *r);
    r->g = gateway_new(1 << 20);
    r->now_ms = START_MS;
    builder_init(&r->payload, LIMIT_PAYLOAD_BYTES);
    builder_init(&r->answer, 1024);
    return r;
}

static inline void rig_free(struct rig *r) {
    gateway_free(&r->g);
    builder_free(&r->payload);
    builder_free(&r->answer);
    free(r);
}

static inline enum grey_error rig_entry(struct rig *r, enum entry_kind kind) {
    builder_reset(&r->answer);
    return gateway_entry(&r->g, kind, r->now_ms, &r->payload, &r->o, &r->answer);
}

static inline void rig_restart(struct rig *r) {
    gateway_flush(&r->g);
    gateway_stop(&r->g);
    gateway_start(&r->g);
}

static inline struct scheduler *rig_scheduler(struct rig *r) {
    struct scheduler *s = state_scheduler(r->g.state);
    must(s != NULL);
    return s;
}

/* A node with so many cores and GiB in all; tasks may use nine tenths. */
static inline struct node_facts rig_node_facts(raft_id id, const char *name, uint64_t cores, uint64_t gib) {
    return (struct node_facts){.id = id, .name = bytes_str(name), .capacity = {cores * 1000, gib * GIB}};
}

static inline enum grey_error rig_node(struct rig *r, const struct node_facts *facts) {
    payload_node(&r->payload, facts);
    return rig_entry(r, ENTRY_NODE);
}

static inline enum grey_error rig_tenant(struct rig *r, const char *tenant, const char *name_space, uint32_t cpu, uint32_t memory) {
    payload_quota_set(&r->payload, bytes_str(tenant), bytes_str(name_space), (struct quota_share){cpu, memory});
    return rig_entry(r, ENTRY_QUOTA);
}

/* An order for one process of one core and 1 MiB; the caller changes what the test is about. */
static inline struct task_order rig_order(const char *id, const char *tenant, enum task_lane lane) {
    struct task_order o = {.id = bytes_str(id),
                           .tenant = bytes_str(tenant),
                           .lane = lane,
                           .cpu_millicores = 1000,
                           .memory_bytes = MIB,
                           .missed_max = 1};
    o.command.count = 1;
    o.command.at[0] = bytes_str("/bin/true");
    return o;
}

static inline enum grey_error rig_submit(struct rig *r, const struct task_order *o) {
    payload_task_submit(&r->payload, o, -1);
    return rig_entry(r, ENTRY_TASK);
}

static inline enum grey_error rig_simple(struct rig *r, const char *id, enum task_lane lane) {
    struct task_order o = rig_order(id, "default", lane);
    return rig_submit(r, &o);
}

static inline enum grey_error rig_cancel(struct rig *r, const char *id) {
    payload_task_cancel(&r->payload, bytes_str(id));
    return rig_entry(r, ENTRY_TASK);
}

static inline struct task *rig_task(struct rig *r, const char *id) {
    return scheduler_find(rig_scheduler(r), bytes_str(id));
}

static inline enum task_state rig_state(struct rig *r, const char *id) {
    struct task *t = rig_task(r, id);
    must(t != NULL);
    return (enum task_state)t->state;
}

static inline const char *rig_place(struct rig *r, const char *id) {
    const struct task *t = rig_task(r, id);
    return t == NULL || t->node == NULL ? "" : t->node->name.text;
}

static inline enum grey_error rig_report_token(struct rig *r, const char *id, uint64_t token, enum task_report what,
                                               enum task_reason why) {
    payload_task_report(&r->payload, bytes_str(id), token, what, why, what == REPORT_FAILED ? 1 : 0, bytes_of(NULL, 0));
    return rig_entry(r, ENTRY_TASK);
}

static inline enum grey_error rig_report(struct rig *r, const char *id, enum task_report what) {
    return rig_report_token(r, id, rig_task(r, id)->token, what, what == REPORT_FAILED ? REASON_EXIT : REASON_NONE);
}

/* A step at now_ms + ms. */
static inline void rig_pass(struct rig *r, int64_t ms) {
    r->now_ms += ms;
    payload_task_epoch(&r->payload);
    must(rig_entry(r, ENTRY_TASK) == E_OK);
}

#endif
