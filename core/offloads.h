/* offloads.h: runs what sites handed over at the core's worker, a greyd of its own beside it, and tells them how it ended.
 *
 * What is to be done stands in the store; a step that is repeated after a crash, or done by two cores at once, changes nothing: the worker
 * knows a task by an id that is made of site, incarnation, task and token, and takes it once.  Calls of the worker's API wait in a thread
 * of their own.  Thread: the loop's. */
#ifndef CORE_OFFLOADS_H
#define CORE_OFFLOADS_H

#include "core/ingest.h"

struct offloads;

/* address: "http://host:port" or "unix:/path" of the worker; copied.  The rest is borrowed. */
struct offloads *offloads_new(struct loop *loop, struct worker *storage, struct ingest *ingest, const char *address,
                              struct fault *f);
void offloads_stop(struct offloads *o); /* before the storage thread is stopped; NULL is allowed */
void offloads_free(struct offloads *o); /* after it was; waits for the call of the worker that is under way */

#endif
