/* batch.h: the storage thread: all writes that wait become one transaction, reads run after it.
 *
 * A transaction that failed for a reason that passes (a lost connection, a deadlock with another core) is done again before anybody hears
 * of it; after some tries it is told to all its writes.  Sites are locked in the order of their names, which is the same in all cores. */
#ifndef CORE_BATCH_H
#define CORE_BATCH_H

#include "core/store.h"
#include "platform/worker.h"

#define BATCH_JOBS_MAX 1024u

/* A job of the storage thread: writes go into the common transaction, reads run after it. */
struct storage_job {
    struct worker_job job;
    bool is_write;
    const char *site; /* of a write: whose it is, NULL: nobody's */
    /* Runs on the storage thread.  A write that returns an error other than those of its own input rolls everything back, and may run
     * again: it leaves nothing behind but its results, which it sets anew. */
    void (*run)(struct storage_job *job, struct store *store);
    enum grey_error err; /* E_OK, or why it failed; a failed commit is told to all writes */
    struct fault fault;
};

/* Batch function for worker_new; context: the store. */
struct worker_job *batch_run(void *store, struct worker_job *list);
void batch_register(void); /* metrics */

#endif
