/* workrow.h: rows of tasks, tenants, nodes, and of what else the scheduler must remember (docs/FORMATS.md).  Pure; internal to work.c. */
#ifndef AGENT_WORKROW_H
#define AGENT_WORKROW_H

#include "agent/table/table.h"
#include "agent/work/scheduler.h"

/* Limits that are on or off, in the row of the state and in entries. */
enum { FLAG_OVERCOMMIT = 1, FLAG_OFFLOADS = 2, FLAGS_ALL = 3 };
#define WORK_BURST_MS_MAX (24u * 3600u * 1000u)
#define WORK_PROOF_S_MAX (10u * 366u * 24u * 3600u)
#define WORK_MEASURED_MAX 100000u /* permille: a hundred times what tasks may use */

struct bytes workrow_meta_key(void);
/* Appends what differs from the rows in t, in an order that follows from names and tickets; forgets tasks and nodes that are gone. */
void workrow_put_all(struct scheduler *s, struct table *t, struct builder *changes);
enum grey_error workrow_load_all(struct scheduler *s, struct table *t,
                                 struct fault *f); /* into a new one.  E_CORRUPT, E_NO_MEMORY */

#endif
