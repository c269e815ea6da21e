/* loss.h: which waiting events are given up, and what is kept of them: gap rows, which tell the core.  Internal to the state.
 *
 * A full queue gives up segments: of the lowest priority first, the oldest first, but not what is guaranteed to a priority
 * (bounds.h) for others than critical events.  Critical ones are never given up, neither for room nor for their age. */
#ifndef AGENT_LOSS_H
#define AGENT_LOSS_H

#include "agent/state/outbox.h"

#define LOSS_SEGMENTS_MAX 2048u /* given up by one entry: bounds the changes that it makes */

struct loss {
    uint64_t held_bytes;        /* in all lists, and of the events of this entry so far */
    grey_seq next[STATE_LISTS]; /* where the list begins after what was given up; 0: nothing was */
    uint32_t segments;
};

void loss_begin(struct loss *l, const struct outbox *b);
/* Makes room for an event.  False: there is none to be had; what was given up for it is the caller's to throw away. */
bool loss_make_room(struct loss *l, struct outbox *b, struct table *t, enum event_priority p, uint32_t bytes,
                    struct builder *changes);
/* Gives up segments whose last event has lived for its time, up to LOSS_SEGMENTS_MAX of them. */
void loss_expire(struct loss *l, struct outbox *b, struct table *t, int64_t now_ms, struct builder *changes);
void loss_end(const struct loss *l, const struct outbox *b, struct builder *changes); /* what left becomes row changes */

#endif
