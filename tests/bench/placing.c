/* placing.c: what the scheduler does by itself: 10,000 tasks of 100 tenants wait, then three nodes take them.  One line of JSON:
 * decisions per second of the pure core in one step, decisions per second when each comes of an entry that is applied whole (rows and
 * state hash included), and memory per waiting task, in the scheduler and in its row. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/work/work.h"
#include "tests/unit/rows_on_disk.h"

#include "platform/now.h"

#define TASKS 10000u
#define TENANTS 100u
#define NODES 3u
#define ENTRIES 5000u

struct world {
    struct gateway g;
    struct builder payload;
    int64_t now_ms;
};

static void entry(struct world *w, enum entry_kind kind) {
    struct outcome o;
    must(gateway_entry(&w->g, kind, w->now_ms, &w->payload, &o, NULL) == E_OK);
}

static void nodes(struct world *w, enum node_condition condition) {
    static const char *const names[NODES] = {"1", "2", "3"};
    for (unsigned i = 0; i < NODES; i++) {
        struct node_facts facts = {
            .id = i + 1, .name = bytes_str(names[i]), .condition = condition, .capacity = {1000000, 1ull << 40}};
        payload_node(&w->payload, &facts);
        entry(w, ENTRY_NODE);
    }
}

static void submit(struct world *w, unsigned number) {
    char id[16], tenant[16];
    (void)snprintf(id, sizeof id, "task-%06u", number);
    (void)snprintf(tenant, sizeof tenant, "tenant%u", number % TENANTS);
    struct task_order o = {.id = bytes_str(id),
                           .tenant = bytes_str(tenant),
                           .lane = (enum task_lane)(number / TENANTS % LANE_COUNT),
                           .cpu_millicores = 50 + number % 100,
                           .memory_bytes = 64u << 20,
                           .missed_max = 1};
    o.command.count = 1;
    o.command.at[0] = bytes_str("/bin/true");
    payload_task_submit(&w->payload, &o, -1);
    entry(w, ENTRY_TASK);
}

int main(void) {
    struct world w = {.g = gateway_new(64u << 20), .now_ms = 1770000000000};
    builder_init(&w.payload, LIMIT_PAYLOAD_BYTES);
    nodes(&w, NODE_DRAINING);
    for (unsigned i = 0; i < TENANTS; i++) {
        char tenant[16];
        (void)snprintf(tenant, sizeof tenant, "tenant%u", i);
        payload_quota_set(&w.payload, bytes_str(tenant), bytes_of(NULL, 0), (struct quota_share){9, 9});
        entry(&w, ENTRY_QUOTA);
    }
    payload_quota_limits(&w.payload, &(struct capacity_limits){.queue_max = SCHEDULER_TASKS_MAX,
                                                               .concurrent_max = SCHEDULER_TASKS_MAX,
                                                               .burst_ms = QUOTA_BURST_MS,
                                                               .proof_s = 3600});
    entry(&w, ENTRY_QUOTA);
    size_t before = mallinfo2().uordblks;
    for (unsigned i = 0; i < TASKS; i++) {
        submit(&w, i);
    }
    double task_bytes = (double)(mallinfo2().uordblks - before) / TASKS;

    struct scheduler *s = state_scheduler(w.g.state);
    for (uint32_t i = 0; i < s->placement.count; i++) {
        s->placement.nodes[i]->condition = NODE_READY;
    }
    uint64_t tokens = s->saved.tokens, begin_us = now_monotonic_us();
    dispatch_step(s); /* the pure core alone; its rows come with the next entry */
    double step_s = (double)(now_monotonic_us() - begin_us) / 1e6;
    uint64_t placed = s->saved.tokens - tokens;
    must(placed == TASKS);

    begin_us = now_monotonic_us();
    for (unsigned i = 0; i < ENTRIES; i++) { /* one ends, one comes and has its place */
        char id[16];
        (void)snprintf(id, sizeof id, "task-%06u", i);
        payload_task_report(&w.payload, bytes_str(id), scheduler_find(s, bytes_str(id))->token, REPORT_COMPLETED, REASON_NONE, 0,
                            bytes_of(NULL, 0));
        entry(&w, ENTRY_TASK);
        w.now_ms++;
        submit(&w, TASKS + i);
    }
    double entries_s = (double)(now_monotonic_us() - begin_us) / 1e6;
    (void)printf("{\"decisions_per_s\": %.0f, \"entries_per_s\": %.0f, \"bytes_per_task\": %.0f}\n", (double)placed / step_s,
                 2.0 * ENTRIES / entries_s, task_bytes);
    builder_free(&w.payload);
    gateway_free(&w.g);
    return 0;
}
