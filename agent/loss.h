/* loss.h: which waiting events give way when the queue is full.  Internal to the state. */
#ifndef AGENT_LOSS_H
#define AGENT_LOSS_H

#include "agent/outbox.h"

struct loss {
    uint64_t held_bytes;           /* in all lists, and of the events of this entry so far */
    grey_seq next[PRIORITY_COUNT]; /* where the list begins after what was evicted; 0: nothing was */
};

void loss_begin(struct loss *l, const struct outbox *b);
/* Makes room for an event: lower priorities leave first, the oldest segment first, down to the event's own and never critical ones.
 * False: it finds none; what was evicted for it is the caller's to throw away. */
bool loss_make_room(struct loss *l, struct outbox *b, struct table *t, enum event_priority p, uint32_t bytes);
void loss_end(const struct loss *l, const struct outbox *b, struct builder *changes); /* what left becomes row changes */

#endif
