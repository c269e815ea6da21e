#include <inttypes.h>
#include <string.h>

#include "agent/node/node_core.h"
#include "include/grey/must.h"
#include "platform/log.h"

/* A witness votes and acknowledges headers; there is no state to apply them to.  What is committed is passed over, but for memberships;
 * position and membership are flushed, and the log is then cut behind the last WITNESS_KEPT_ENTRIES, so that disk and memory stay
 * small however long the site runs. */

#define CUT_AT_ENTRIES (2u * WITNESS_KEPT_ENTRIES)
#define RETRY_MS 1000u

void witness_start(struct node *n, const struct raft_start *start) {
    n->witness.applied = start->applied_index;
    n->witness.flushed = start->applied_index;
    n->witness.flushed_members = start->members_index;
    n->witness.base = start->base.index;
}

static void step_over(struct node *n, const struct entry *e) {
    if (e->kind == ENTRY_CONFIG) {
        struct raft_members members;
        if (raft_members_decode(blob_bytes(e->payload), &members) == E_OK) {
            node_set_members(n, &members, e->index);
        }
    }
}

void witness_apply(struct node *n) {
    struct witness *w = &n->witness;
    if (w->applied >= n->commit_index || n->has_failed) {
        return;
    }
    while (w->applied < n->commit_index) {
        const struct entry *e = raft_entry(n->raft, ++w->applied);
        must(e != NULL); /* the core keeps what is not applied */
        step_over(n, e);
    }
    struct raft_input in = {.kind = RAFT_IN_APPLIED, .index = w->applied};
    (void)node_step(n, &in, NULL);
}

void witness_rebased(struct node *n, const struct raft_output *out) {
    log_info("witness", "rebase", "index=%" PRIu64 " from=%" PRIu64, out->rebase->index, n->witness.applied);
    node_set_members(n, out->rebase_members, out->rebase_members_index);
    n->witness.applied = n->witness.flushed = n->witness.base = out->rebase->index;
    n->witness.flushed_members = out->rebase_members_index;
}

static bool point_at(const struct node *n, raft_index index, struct raft_point *point) {
    const struct entry *e = raft_entry(n->raft, index);
    if (e != NULL) {
        *point = (struct raft_point){.index = index, .term = e->term, .time_ms = e->time_ms};
        memcpy(point->hash, e->hash, DIGEST_BYTES);
    }
    return e != NULL;
}

static void cut(void *context, struct sitelog_compact *job) {
    struct node *n = context;
    n->witness.busy = false;
    if (job->err != E_OK && job->err != E_STOPPING) {
        log_error("witness", "cut", "index=%" PRIu64 " error=GREY-%d %s: %s", job->point.index, error_id(job->err),
                  error_sentence(job->err), job->fault.text);
    }
}

/* The core forgets first, so that it never asks for what the disk is about to drop. */
static void cut_log(struct node *n, const struct raft_point *flushed) {
    struct witness *w = &n->witness;
    struct raft_point point = *flushed; /* stands in when what lies before it has left memory already */
    if (flushed->index > WITNESS_KEPT_ENTRIES) {
        (void)point_at(n, flushed->index - WITNESS_KEPT_ENTRIES, &point);
    }
    if (flushed->index <= w->base + CUT_AT_ENTRIES || point.index <= w->base) {
        return;
    }
    struct raft_input in = {.kind = RAFT_IN_COMPACTED, .point = &point};
    if (node_step(n, &in, NULL) != E_OK) {
        return;
    }
    w->base = point.index;
    memset(&w->compact, 0, sizeof w->compact);
    w->compact.point = point;
    w->compact.done = cut;
    w->compact.context = n;
    w->busy = sitelog_compact(n->log, &w->compact) == E_OK;
}

static void flushed(void *context, struct sitelog_flush *job) {
    struct node *n = context;
    struct witness *w = &n->witness;
    w->busy = false;
    blob_unref(job->members);
    job->members = NULL;
    if (job->err == E_DISK_FULL) { /* tried again: the log has it all */
        log_limited(LOG_ERROR, "witness", "flush", "error=GREY-%d %s: %s", error_id(job->err), error_sentence(job->err),
                    job->fault.text);
        w->retry_ms = loop_now_ms(n->x.loop) + RETRY_MS;
    } else if (job->err != E_OK) {
        node_fail(n, job->err, job->fault.text);
    } else if (job->applied.index > w->flushed) { /* else a new base came meanwhile */
        w->flushed = job->applied.index;
        w->flushed_members = job->members_index;
        cut_log(n, &job->applied);
    }
    loop_again(n->x.loop);
}

void witness_turn(struct node *n) {
    struct witness *w = &n->witness;
    bool due = n->members_index > w->flushed_members || w->applied > w->base + CUT_AT_ENTRIES;
    if (!due || w->busy || w->applied <= w->flushed || n->has_failed || loop_now_ms(n->x.loop) < w->retry_ms) {
        return;
    }
    struct sitelog_flush *job = &w->flush;
    memset(job, 0, sizeof *job);
    if (!point_at(n, w->applied, &job->applied)) {
        return; /* a new base: it was stored with its membership */
    }
    job->members = blob_ref(n->members_blob);
    job->members_index = n->members_index;
    job->done = flushed;
    job->context = n;
    w->busy = true;
    if (sitelog_flush(n->log, job) != E_OK) {
        w->busy = false;
        blob_unref(job->members);
        job->members = NULL;
    }
}
