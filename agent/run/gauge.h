/* gauge.h: what the tasks of this gateway use, as their control groups say, and whether the machine is a hot spot; every five seconds,
 * told to the node.  Thread: the loop's. */
#ifndef AGENT_GAUGE_H
#define AGENT_GAUGE_H

#include "agent/node/node.h"
#include "agent/run/launcher.h"
#include "agent/work/placement.h"

struct gauge;
struct gauge_options {
    struct loop *loop;
    struct node *node;         /* borrowed, and so is the launcher */
    struct launcher *launcher; /* asked; its answers come by gauge_take */
    struct quota_amount usable;
    uint32_t hot_permille; /* processors busy above this for so long: a hot spot */
    uint64_t hot_ms;
};
struct gauge *gauge_new(const struct gauge_options *o); /* NULL: no memory */
void gauge_free(struct gauge *g);
void gauge_take(struct gauge *g, const struct launch_message *use); /* a LAUNCH_USE */

#endif
