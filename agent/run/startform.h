/* startform.h: a task's order as the launcher is told it.  Pure. */
#ifndef AGENT_STARTFORM_H
#define AGENT_STARTFORM_H

#include "agent/launch/launchwire.h"
#include "agent/work/task.h"

struct startform {
    struct launch_message start; /* LAUNCH_START; borrows from the order and from texts */
    char texts[2][16];           /* of its probe */
};

/* Orders that stand in logs since former versions may ask for what no launcher takes.  REASON_NONE: it may be asked. */
enum task_reason startform_refuses(const struct task_order *o);
/* Fills in what the order says; whose run it is and what it holds of the site is the caller's. */
void startform_fill(struct startform *s, const struct task_order *o);

#endif
