/* lanes.h: queues by lane, tenant and namespace, and who is served next: lanes strictly in order, tenants within a lane by deficit round
 * robin (Shreedhar and Varghese, 1995), the oldest task first within a tenant.
 *
 * Pure.  A flow is a tenant.  Its quantum is its weight times LANES_QUANTUM; what it is served is counted by the cost of its tasks.  A
 * tenant whose turn it is and whose task fits nowhere keeps its turn and its deficit; others that fit are served meanwhile out of turn.
 * All that must outlive a restart is in lane_flow.deficits and lanes.turns: the order of flows is that of their names and the order of
 * items that of their tickets. */
#ifndef AGENT_LANES_H
#define AGENT_LANES_H

#include "agent/work/quota.h"
#include "agent/work/task.h"

#define LANES_QUANTUM 4u   /* cost that one permille of weight is granted in a turn: a tenant with 25% starts a task of one core */
#define LANES_LOOKAHEAD 4u /* of each queue's head, so many are tried when the first does not fit */

struct lane_queue;

struct lane_item { /* embedded in a task */
    struct lane_item *next, *previous;
    struct lane_queue *queue; /* NULL: in none */
    uint64_t ticket;          /* order of submission, unique */
    uint64_t cost;            /* at least 1 */
};

struct lane_queue {
    struct lane_item *first, *last;
};

struct lane_flow {    /* one per tenant */
    const char *name; /* borrowed */
    uint32_t weight;  /* 1 to 1000 */
    bool dirty;       /* a deficit changed since whoever keeps rows of it looked */
    uint64_t deficits[LANE_COUNT];
    uint32_t counts[LANE_COUNT]; /* waiting */
    struct lane_queue queues[LANE_COUNT][QUOTA_NAMESPACES_MAX + 1];
};

struct lane_turn {
    struct grey_name flow; /* whose turn it is; if it is gone, the next by name */
    bool granted;          /* it was given its quantum */
};

struct lanes {
    uint32_t flow_count;
    struct lane_flow *flows[QUOTA_TENANTS_MAX]; /* by name */
    struct lane_turn turns[LANE_COUNT];
    uint32_t counts[LANE_COUNT];
};

void lanes_flow_add(struct lanes *l, struct lane_flow *f);    /* borrows f until it is removed */
void lanes_flow_remove(struct lanes *l, struct lane_flow *f); /* must be empty */
void lanes_put(struct lanes *l, struct lane_flow *f, enum task_lane lane, unsigned name_space, struct lane_item *item);
void lanes_take(struct lanes *l, struct lane_flow *f, enum task_lane lane, struct lane_item *item);
uint32_t lanes_waiting(const struct lanes *l); /* in all lanes */

struct lanes_server {
    bool (*fits)(void *context, struct lane_item *item);  /* could it start now?  Changes nothing that counts */
    void (*serve)(void *context, struct lane_item *item); /* directly after fits said yes; it has left its queue */
    void *context;
};
/* Serves one lane until nothing in it fits. */
void lanes_run(struct lanes *l, enum task_lane lane, const struct lanes_server *s);

#endif
