/* placement.h: the nodes of the site as the scheduler sees them, and where a task goes.
 *
 * Pure.  A task fits a node that takes work, has all labels it asks for, and has room: what the node has, less the system's part, less
 * what tasks hold, less what is kept for others of its lane or a higher one.  Of those it fits, a task goes to the one it prefers, else
 * to the one that is left with the largest share free, else to the first by name. */
#ifndef AGENT_PLACEMENT_H
#define AGENT_PLACEMENT_H

#include "agent/work/quota.h"
#include "agent/work/task.h"

#define PLACEMENT_LABELS_MAX 16u
#define PLACEMENT_LABEL_BYTES (2 * LIMIT_NAME_BYTES + 1)

enum node_condition {
    NODE_READY,    /* takes work */
    NODE_DRAINING, /* keeps what it has and takes no more */
    NODE_LOST,     /* its lease is over: what it had runs elsewhere */
    NODE_HOT,      /* its machine cannot keep up: takes no more, and what it has moves away where there is room */
    NODE_SUSPECT, /* in quarantine: its leader hears it no more; keeps what it has, takes no more until it has been well for a while */
    NODE_CONDITION_COUNT
};

struct placement_node {
    raft_id id;
    struct grey_name name;
    enum node_condition condition;
    bool dirty;    /* changed since whoever keeps rows of it looked */
    bool gone;     /* is to be removed */
    bool reported; /* its measurements are new and wait for the next step */
    struct quota_amount capacity;
    uint32_t measured_cpu_permille, measured_memory_permille; /* of what tasks may use there, as the node measures its tasks */
    uint32_t label_count;
    char labels[PLACEMENT_LABELS_MAX][PLACEMENT_LABEL_BYTES + 1]; /* key=value */
    struct quota_amount held;                                     /* by tasks placed here, also those that are being stopped */
    struct quota_amount kept[LANE_COUNT];                         /* for tasks that wait for room here */
    struct quota_amount stopping; /* what of it those hold that are being stopped: kept room may come from there */
    uint32_t task_count;
    void *tasks; /* the scheduler's */
};

struct placement {
    uint32_t count;
    struct placement_node *nodes[LIMIT_MEMBERS]; /* by name, then id */
};

struct placement_wish {
    struct quota_amount need;
    enum task_lane lane;
    const struct task_texts *selectors;   /* NULL: none */
    struct bytes prefers;                 /* name; may be empty */
    const struct placement_node *kept_on; /* where room is kept for this task; NULL: nowhere */
};

struct placement_node *placement_find(const struct placement *p, raft_id id);
/* Makes a node; NULL: no memory, or there are LIMIT_MEMBERS. */
struct placement_node *placement_add(struct placement *p, raft_id id, struct bytes name);
void placement_remove(struct placement *p, struct placement_node *n); /* frees it; it must hold nothing */
void placement_clear(struct placement *p);

struct quota_amount placement_usable(const struct placement_node *n); /* its capacity less the system's part */
struct quota_amount placement_free(const struct placement_node *n,
                                   const struct placement_wish *w);                   /* for this task; zero if overdrawn */
bool placement_suits(const struct placement_node *n, const struct placement_wish *w); /* would fit were it empty */
struct placement_node *placement_pick(const struct placement *p, const struct placement_wish *w); /* NULL: fits nowhere now */

#endif
