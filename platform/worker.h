/* worker.h: one thread with a bounded queue; results come back on the loop.
 *
 * Jobs are embedded in their owners.  `work` runs on the worker's thread, in order; `done` on the loop's thread, in the same order.
 * A worker with a batch function gets all jobs that are queued as one list (linked by `next`) and does their work itself, e.g. in
 * one transaction, from the first on; it returns those that it left for the next call (NULL: none), which gets them before what came
 * meanwhile.  `done` is called for those that were worked, without waiting for the others.  The owner leaves a job alone between submit and done. */
#ifndef PLATFORM_WORKER_H
#define PLATFORM_WORKER_H

#include "platform/loop.h"

struct worker;

struct worker_job {
    void (*work)(struct worker_job *job); /* unused with a batch function */
    void (*done)(struct worker_job *job);
    struct worker_job *next; /* owned by the worker until done */
};

/* batch: NULL or the function for lists; context is handed to it.  name: at most 15 characters. */
struct worker *worker_new(struct loop *l, const char *name, uint32_t queue_max,
                          struct worker_job *(*batch)(void *context, struct worker_job *list), void *context, struct fault *f);
enum grey_error worker_submit(struct worker *w, struct worker_job *job); /* E_BUSY when queue_max jobs wait or run */
/* In two steps: the job is queued, but a thread that sleeps sleeps on until worker_wake.  For what should leave before a processor is
 * shared with the worker; to wake a thread takes some ten microseconds. */
enum grey_error worker_queue(struct worker *w, struct worker_job *job);
void worker_wake(struct worker *w);
uint32_t worker_queued(const struct worker *w);
/* How long no job has ended while some wait or run; 0: none does.  The loop's thread. */
uint64_t worker_waits_ms(const struct worker *w);
/* Finishes all jobs, calls their done functions, ends the thread, frees w.  Call on the loop's thread, not from a
 * done function of w itself. */
void worker_stop(struct worker *w);

#endif
