/* scheduler.h: the site's tasks in memory, what may happen to them, and one deterministic step that decides.
 *
 * Pure.  Same orders, reports and times in the same order give the same decisions on every node and every architecture: integers only,
 * and no time but that of entries, cut to SCHEDULER_EPOCH_MS.  What must outlive a restart is in `dirty` tasks, nodes, tenants and in
 * struct scheduler_saved; work.c keeps rows of it.
 *
 * Instants of tasks are in scheduler time: log time plus `skew_ms`, which takes out what corrections of the site's clock put in, so that
 * no correction times a task out or starts a burst of retries. */
#ifndef AGENT_SCHEDULER_H
#define AGENT_SCHEDULER_H

#include "agent/work/dag.h"
#include "agent/work/due.h"
#include "agent/work/lanes.h"
#include "agent/work/placement.h"
#include "agent/work/quotatree.h"

#define SCHEDULER_EPOCH_MS 100
#define SCHEDULER_TASKS_MAX 20000u      /* that have not ended: some 10 MB */
#define SCHEDULER_ENDED_MAX 1000u       /* that have ended and are still remembered, the youngest */
#define SCHEDULER_CONCURRENT_MAX 1000u  /* default of tasks that have a node at a time */
#define SCHEDULER_RESERVE_MS 5000       /* a task that waited so long for room only has a node kept free for it */
#define SCHEDULER_STEAL_MS 2000         /* a task that was not begun so long after it was assigned may go to an idle node */
#define SCHEDULER_SCHEDULE_ID_BYTES 48u /* id of a scheduled task: its runs add a dot and the minute */

struct task {
    struct lane_item item; /* first: an item is its task; in a queue, or among the ended, by (ended_ms, ticket) */
    struct due_item due;
    struct dag_vertex *vertex;                    /* has the id */
    struct task *next_on_node, *previous_on_node; /* newest token first */
    struct task *next_dirty;
    struct quota_tenant *tenant;
    struct placement_node *node; /* holds room there until the node says that it stopped; then NULL */
    struct placement_node *kept; /* waiting: room is kept for it there */
    raft_id last_node;           /* where it is or was, 0: nowhere yet */
    raft_id taken_from;          /* the idle node took it from this one; 0: no */
    uint64_t token;              /* fencing token of the last assignment, unique, rising; 0: none yet */
    raft_index order_index;      /* entry whose payload holds the order */
    uint8_t order_hash[8];
    int64_t submitted_ms, ready_ms, started_ms, ended_ms; /* 0: not yet */
    union {
        int64_t firing_ms;         /* of a schedule, which is never assigned: its next firing, in log time; -1: there is none */
        raft_index assigned_index; /* of others: the entry of the last assignment; 0: none, or nobody keeps proofs */
    };
    uint64_t memory_bytes;
    uint32_t cpu_millicores, timeout_s;
    int32_t exit_status;
    uint32_t
        running_after; /* so many entries after the assignment its node said that it runs; 0: it did not, or nobody keeps proofs */
    uint16_t max_retries, failures, preemptions; /* failures and preemptions stop at the most they hold */
    uint16_t text_bytes;
    uint8_t space; /* place of its namespace in its tenant */
    uint8_t state, lane, restart, delivery;
    uint8_t reason; /* why it is in this state */
    uint8_t stop;   /* enum task_reason: its node shall stop it; REASON_NONE: no */
    bool is_schedule : 1, is_dirty : 1, is_gone : 1, is_doomed : 1;
    bool may_leave : 1; /* its order lets it run beside the core */
    bool is_kept : 1;   /* ISOLATION_KEEP: it may outlive the contact of its node with the site */
    uint8_t *text;      /* NULL: any node will do; else CBOR: array of the preferred node and the selectors */
};

static inline struct quota_namespace *task_space(const struct task *t) {
    return &t->tenant->namespaces[t->space];
}

struct scheduler_saved {
    uint64_t tokens, tickets;
    int64_t skew_ms;
    uint32_t queue_max, concurrent_max;
    uint32_t proof_s; /* proofs are kept so long; 0: none are taken */
    bool offloads;    /* what may leave goes to the core when it could run */
};

/* A task that was stopped because its node measured more than tasks may use.  For whoever tells of it; no part of the state. */
#define SCHEDULER_ALARMS 64u
struct scheduler_alarm {
    struct grey_name task, tenant, node;
    uint64_t token; /* of the run that is stopped */
    uint8_t lane;
    uint32_t cpu_permille, memory_permille; /* as its node measured them */
    int64_t time_ms;                        /* scheduler time */
};

struct scheduler {
    struct scheduler_saved saved;
    int64_t now_ms;   /* scheduler time of the entry being applied, cut to the epoch */
    raft_index index; /* of that entry */
    struct dag *dag;
    struct quota quota;
    struct lanes lanes;
    struct placement placement;
    struct due due;
    struct task *dirty_first, *dirty_last;
    struct lane_item *ended_first, *ended_last;
    struct task *doomed;                         /* linked by next_on_node, for they have no node */
    uint32_t live, ended, held_count, schedules; /* live: not ended; schedules: of those */
    bool tenants_removed;                        /* since whoever keeps rows of them looked */
    uint32_t away;                               /* tasks that are with the core */
    uint64_t refused;                            /* orders that a quota or a zone turned away since the start; not state */
    struct quota_amount held, held_firm, usable; /* firm: without lane 4 */
    uint32_t measured_cpu_permille, measured_memory_permille;
    struct task *blocked;                            /* while deciding */
    struct placement_node *chosen;                   /* while deciding */
    struct scheduler_alarm alarms[SCHEDULER_ALARMS]; /* the youngest: number i at i % SCHEDULER_ALARMS */
    uint64_t alarm_count;                            /* since it was made */
};

struct scheduler *scheduler_new(void); /* NULL: no memory */
void scheduler_free(struct scheduler *s);

/* --- what entries say; each checks first and refuses with nothing changed, but after E_NO_MEMORY s must be made anew from its rows --------- */

void scheduler_begin(struct scheduler *s, raft_index index, int64_t log_time_ms); /* before each of the others */
void scheduler_clock(struct scheduler *s, int64_t leap_ms);                       /* log time was corrected by so much */

enum grey_error scheduler_cancel(struct scheduler *s, struct bytes id,
                                 struct fault *f); /* E_NOT_FOUND; E_CONDITION: it has ended */

enum task_report { REPORT_RUNNING, REPORT_COMPLETED, REPORT_FAILED, REPORT_STOPPED, REPORT_COUNT };
/* What a node says of a task it was given.  E_NOT_FOUND; E_CONDITION: the token is not in force. */
enum grey_error scheduler_report(struct scheduler *s, struct bytes id, uint64_t token, enum task_report report,
                                 enum task_reason reason, int32_t exit_status, struct fault *f);
/* A task that is with the core (assigned, without a node) ended there, or REPORT_STOPPED: comes back to be run here, also when it
 * runs at most once, for such a one is not recalled (task.c refuses OFFLOAD_LOCAL): the core has refused it, and never began it.  E_NOT_FOUND;
 * E_CONDITION: it is not there under this token. */
enum grey_error scheduler_returned(struct scheduler *s, struct bytes id, uint64_t token, enum task_report report,
                                   int32_t exit_status, struct fault *f);
bool scheduler_is_away(const struct task *t); /* it is with the core */

/* --- what there is: capacity.c ------------------------------------------------------------------------------------------------- */

struct node_facts {
    raft_id id;
    struct bytes name;
    bool gone; /* is no member any more; the rest does not count */
    enum node_condition condition;
    struct quota_amount capacity;
    uint32_t measured_cpu_permille, measured_memory_permille;
    struct task_texts labels;
};
enum grey_error capacity_node(struct scheduler *s, const struct node_facts *facts, struct fault *f);
enum grey_error capacity_tenant(struct scheduler *s, struct bytes tenant, struct bytes name_space, struct quota_share share,
                                struct fault *f);
enum grey_error capacity_tenant_remove(struct scheduler *s, struct bytes tenant, struct bytes name_space, struct fault *f);
/* All of the shares or none; errors of quotatree_may_set. */
enum grey_error capacity_tree(struct scheduler *s, const struct quotatree_share *shares, uint32_t count, struct fault *f);
struct capacity_limits {
    uint32_t queue_max, concurrent_max;
    uint64_t burst_ms;
    uint32_t proof_s;          /* from FEATURE_LEVEL_PROOFS on */
    bool overcommit, offloads; /* from FEATURE_LEVEL_OFFLOAD on; offloads: what may leave goes to the core */
};
void capacity_limits(struct scheduler *s, const struct capacity_limits *l);

/* --- orders: submit.c ------------------------------------------------------------------------------------------------------------ */

enum submit_answer { SUBMIT_TAKEN, SUBMIT_DUPLICATE };
/* order was checked.  firing_ms: of a schedule.  E_ID_REUSED, E_NOT_FOUND, E_QUOTA, E_TOO_LARGE, E_THROTTLED, E_BUSY, E_CONDITION, E_CYCLE */
enum grey_error submit_task(struct scheduler *s, const struct task_order *order, raft_index order_index,
                            const uint8_t order_hash[8], int64_t firing_ms, enum submit_answer *answer, struct fault *f);
/* Makes the runs of a schedule that was due at due_ms, and sets when it is due next.  E_NOT_FOUND; E_CONDITION: it is due at another
 * time, so another leader was first; then nothing happens. */
enum grey_error submit_firing(struct scheduler *s, struct bytes id, int64_t due_ms, const int64_t *firings, size_t count,
                              int64_t next_ms, struct fault *f);

/* --- deciding: dispatch.c ------------------------------------------------------------------------------------------------------------------- */

/* After each entry: timers that are due, bursts that are over, emergencies, and places for those who wait. */
void dispatch_step(struct scheduler *s);
/* When the next step is due without any other entry, in log time; INT64_MAX: never.  The leader proposes an epoch then. */
int64_t dispatch_due_ms(struct scheduler *s);
uint32_t dispatch_usage(const struct scheduler *s, enum task_lane lane); /* permille, as it counts for a task of this lane */

/* --- for dispatch.c, submit.c and work.c ---------------------------------------------------------------------------------------------------------------- */

struct task *scheduler_find(const struct scheduler *s, struct bytes id);      /* NULL: none */
struct task *scheduler_next(const struct scheduler *s, const struct task *t); /* all tasks, in no order; after NULL the first */
struct quota_amount scheduler_need(const struct task *t);
void scheduler_wish(const struct task *t, struct placement_wish *w, struct task_texts *selectors); /* selectors: room for them */
void scheduler_assign(struct scheduler *s, struct task *t, struct placement_node *n);
void scheduler_move(struct scheduler *s, struct task *t, struct placement_node *to); /* under a new token */
void scheduler_keep(struct scheduler *s, struct task *t, struct placement_node *n);  /* n NULL: keep no room */
void scheduler_stop(struct scheduler *s, struct task *t, enum task_reason why);      /* tell its node to stop it */
void scheduler_time(struct scheduler *s, struct task *t);                            /* what was due for it is here */
void scheduler_changed(struct scheduler *s, struct task *t);                         /* its row is to be written */
/* Puts t, whose fields are those of its order, among the tasks, to wait for `on`.  Takes t; E_NO_MEMORY frees it. */
enum grey_error scheduler_add(struct scheduler *s, struct task *t, struct bytes id, const struct bytes *on, size_t count);
void scheduler_forget_old(struct scheduler *s);
enum grey_error
scheduler_weigh(struct scheduler *s);       /* every tenant has its queues, with the weight that its share gives; E_NO_MEMORY */
void capacity_measure(struct scheduler *s); /* sums over nodes, after one changed */
void scheduler_lose(struct scheduler *s, struct task *t); /* its node is lost, or gone */
void scheduler_offload(struct scheduler *s, bool on);     /* from now on what may leave goes to the core, what waits as well */
bool scheduler_may_stop(const struct task *t,
                        enum task_lane lowest); /* it runs, is not being stopped, and may be run again or is of lane 4 */

/* Loading, when nodes and tenants are there: takes t, whose own fields are set (due.at_ms 0: nothing is due); the rest comes from l. */
struct task_loading {
    struct bytes id;
    struct task_texts unmet;
    raft_id node, kept;
    unsigned name_space;
};
enum grey_error scheduler_load(struct scheduler *s, struct task *t, const struct task_loading *l);
void scheduler_drop(struct scheduler *s, struct task *t); /* frees a task that is_gone, once its row is deleted */

#endif
