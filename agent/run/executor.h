/* executor.h: makes true on this machine what the scheduler decided: compares the site's assignments to this gateway with what its
 * launcher runs, starts what lacks, stops what is not wanted any more, and reports how each run goes, under its fencing token.
 *
 * Assignments are state, so nothing is remembered here that could be lost: after a restart the launcher's list is compared anew.  A run is
 * begun only when this gateway has applied all that was committed when it connected, once per token (the launcher's mark on disk), and
 * one that may not outlive the contact with the site only under a lease.  Thread: the loop's. */
#ifndef AGENT_EXECUTOR_H
#define AGENT_EXECUTOR_H

#include "agent/node/node.h"
#include "agent/run/launcher.h"
#include "agent/work/placement.h"

struct executor;

struct executor_options {
    struct loop *loop;
    struct node *node; /* borrowed */
    const char *launcher_socket, *data_dir;
    struct quota_amount usable; /* what tasks may use here */
    uint32_t hot_permille;      /* agent/run/gauge.h */
    uint64_t hot_ms;
};

struct executor *executor_new(const struct executor_options *o, struct fault *f);
void executor_free(
    struct executor *x); /* after the node, which answers what it was asked; runs go on, those under a lease until it ends */
void executor_applied(struct executor *x, const struct entry *e); /* the site's state changed */

/* What a run wrote: from offset, or from the oldest byte that is kept.  done is called once, on a later turn; data is lent.
 * E_CONNECT: the launcher does not answer. */
typedef void executor_output(void *context, enum grey_error err, struct bytes data, uint64_t offset, uint64_t end_offset);
void executor_read(struct executor *x, uint64_t token, enum launch_stream stream, uint64_t offset, uint32_t size,
                   executor_output *done, void *context);

#endif
