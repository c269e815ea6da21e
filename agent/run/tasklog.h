/* tasklog.h: what runs of tasks wrote, from this gateway's launcher or, over the links, from another's.  Thread: the loop's. */
#ifndef AGENT_TASKLOG_H
#define AGENT_TASKLOG_H

#include "agent/run/executor.h"

struct tasklog;

/* Borrows both for its life; x NULL: no tasks run here. */
struct tasklog *tasklog_new(struct loop *loop, struct node *node, struct executor *x, struct fault *f);
void tasklog_free(struct tasklog *l); /* answers what waits with E_STOPPING */
/* As executor_read, of the run that gateway `where` had under this token.  E_CONNECT: it does not answer; E_NOT_HERE_YET: it runs no
 * tasks, or a version that cannot say. */
void tasklog_read(struct tasklog *l, raft_id where, uint64_t token, enum launch_stream stream, uint64_t offset, uint32_t size,
                  executor_output *done, void *context);
void tasklog_message(struct tasklog *l, raft_id from, const struct message *m); /* MESSAGE_OUTPUT_FETCH, MESSAGE_OUTPUT */

#endif
