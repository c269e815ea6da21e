/* arrivals.h: a batch of events enters the queue: repeats are found, room is made, numbers are given.  Internal to the state. */
#ifndef AGENT_ARRIVALS_H
#define AGENT_ARRIVALS_H

#include "agent/state/dedup.h"
#include "agent/state/outbox.h"

void arrivals_wants(struct bytes payload, void (*want)(void *context, enum table_id id, struct bytes key), void *context);
/* As outbox_ack does.  answer: NULL, or what the batch came to is appended (state.h, answer_events). */
enum grey_error arrivals_apply(struct outbox *b, struct dedup *d, struct table *t, const struct entry *e, int64_t now_ms,
                               struct builder *changes, struct builder *answer, struct fault *f);

#endif
