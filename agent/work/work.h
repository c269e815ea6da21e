/* work.h: the site's tasks, tenants and nodes as part of its state: entries in, rows out.  Internal to the state, but for the payloads
 * and what is marked as questions.
 *
 * Pure.  The scheduler lives in memory and is made from rows at the start.  It is changed while an entry is applied, before the rows are
 * committed: when the commit fails, work_spoil says so, and the next use makes it anew from the rows. */
#ifndef AGENT_WORK_H
#define AGENT_WORK_H

#include "agent/table/table.h"
#include "agent/work/scheduler.h"
#include "include/grey/entry.h"

struct work;

struct work *work_new(struct table *t); /* NULL: no memory.  Borrows t */
void work_free(struct work *w);
enum grey_error work_load(struct work *w, struct fault *f); /* E_CORRUPT, E_NO_MEMORY */
void work_spoil(struct work *w);

/* Applies an ENTRY_TASK, ENTRY_QUOTA or ENTRY_NODE at log time now_ms.  A refusal leaves nothing to undo. */
enum grey_error work_apply(struct work *w, const struct entry *e, int64_t now_ms, struct builder *changes, struct builder *answer,
                           struct fault *f);
/* An ENTRY_CLOCK sets log time from before_ms to after_ms. */
enum grey_error work_clock(struct work *w, int64_t before_ms, int64_t after_ms, struct builder *changes, struct fault *f);

/* --- questions -------------------------------------------------------------------------------------------------------------------------------- */

/* The scheduler as it is, for reading; lent until the next entry.  NULL: no memory to make it. */
struct scheduler *work_scheduler(struct work *w);

#define WORK_PROOFS_MAX 4000u /* some 0.7 MB of rows; above, the oldest leave before their time */
struct work_proof {
    raft_index index;           /* of the entry that holds it: the end of the run */
    struct bytes task;          /* borrows from the row */
    int64_t time_ms;            /* log time */
    uint8_t hash[DIGEST_BYTES]; /* of the entry */
};
bool work_proof_row(struct bytes key, struct bytes value, struct work_proof *p); /* a row of TABLE_PROOF; false: damaged */

struct work_output {            /* what a task wrote beside the core */
    raft_index index;           /* of the entry that has the end of it (payload_task_output) */
    uint64_t token;             /* of that run */
    uint8_t hash[DIGEST_BYTES]; /* SHA-256 of all of it */
    uint64_t bytes;
};
bool work_output(struct table *t, struct bytes id, struct work_output *out); /* false: there is none */

/* --- payloads (docs/FORMATS.md) ---------------------------------------------------------------------------------------------------------------- */

#define WORK_FIRINGS_MAX TASK_MISSED_MAX

void payload_task_submit(struct builder *out, const struct task_order *o, int64_t firing_ms); /* firing_ms -1: it has no schedule */
/* The same from FEATURE_LEVEL_OFFLOAD on: an order that names no node prefers this one, the gateway that took it.  The order is the same whoever
 * takes it. */
void payload_task_submit_near(struct builder *out, const struct task_order *o, int64_t firing_ms, struct bytes near);
void payload_task_cancel(struct builder *out, struct bytes id);
struct bytes payload_task_cancelled(struct bytes payload); /* whom it cancels; borrows; empty: it cancels none */
void payload_task_report(struct builder *out, struct bytes id, uint64_t token, enum task_report report, enum task_reason reason,
                         int32_t exit_status, struct bytes proof);  /* proof: may be empty */
bool payload_task_proof(struct bytes payload, struct bytes *proof); /* of a report that has one; borrows from payload */
void payload_task_fire(struct builder *out, struct bytes id, int64_t due_ms, const int64_t *firings, size_t count, int64_t next_ms);
void payload_task_epoch(struct builder *out); /* a step that is due */
#define WORK_OUTPUT_BYTES_MAX (16u * 1024u)
/* A task that was with the core, from FEATURE_LEVEL_OFFLOAD on: how it ended there, or REPORT_STOPPED: it is run here. */
struct work_return {
    struct bytes id;
    uint64_t token;
    enum task_report report;
    int32_t exit_status;
    struct bytes output_hash; /* SHA-256 of its standard output; empty: there is none */
    uint64_t output_bytes;
    struct bytes output; /* the end of it, at most WORK_OUTPUT_BYTES_MAX */
};
void payload_task_return(struct builder *out, const struct work_return *w);
struct bytes payload_task_output(struct bytes payload); /* borrows; empty: it has none */
void payload_quota_set(struct builder *out, struct bytes tenant, struct bytes name_space, struct quota_share share);
void payload_quota_remove(struct builder *out, struct bytes tenant, struct bytes name_space);
void payload_quota_tree(struct builder *out, const struct quotatree_share *shares,
                        uint32_t count); /* from FEATURE_LEVEL_OFFLOAD on */
void payload_quota_limits(struct builder *out, const struct capacity_limits *l);
void payload_node(struct builder *out, const struct node_facts *facts);
/* The order in the payload of entry task.order_index.  Borrows from payload. */
struct bytes payload_task_order_bytes(struct bytes payload); /* its encoding, of one that can be read */
enum grey_error payload_task_order(struct bytes payload, struct task_order *o, struct fault *f);

/* Answer to a submit or a cancel: the task was here before; its state now. */
bool answer_task(struct bytes answer, bool *duplicate, enum task_state *state);

#endif
