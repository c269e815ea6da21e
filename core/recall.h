/* recall.h: sites are told where the core stands: all of them after each connect to the broker, a few at a time, and one of which something was lost
 * on the way (a hole) when that has not come after a while.  Such a site says hello again and goes on behind the core's position; one that
 * is not told finds out by itself, later.  Thread: the loop's. */
#ifndef CORE_RECALL_H
#define CORE_RECALL_H

#include "core/answers.h"
#include "core/batch.h"

struct recall;

struct recall *recall_new(struct loop *loop, struct worker *storage, struct answers *answers); /* borrowed; NULL: out of memory */
void recall_stop(struct recall *r);                                                            /* before the storage thread is */
void recall_free(struct recall *r);                                                            /* after it was.  NULL is allowed */

void recall_all(struct recall *r);   /* from the first site on */
void recall_go_on(struct recall *r); /* the broker has taken the answers */
void recall_hole(struct recall *r, const struct grey_name *site, uint64_t incarnation, grey_epoch epoch,
                 enum event_channel channel);
uint32_t recall_jobs(const struct recall *r); /* that the storage thread has */

#endif
