/* orderform.h: orders as JSON.  Pure. */
#ifndef AGENT_ORDERFORM_H
#define AGENT_ORDERFORM_H

#include "agent/work/task.h"
#include "platform/json.h"

/* What the submitter said, as members of an object that the caller has opened; who, where and how much is not among them: that is in the task. */
void orderform_write(struct json_writer *w, const struct task_order *o);
/* An order for another site that runs it once, without name and tenant: what POST /v1/tasks takes. */
void orderform_errand(struct json_writer *w, const struct task_order *o);

#endif
