/* outbox.h: events that wait for the core, in lists; numbers, bounds, acknowledgements, gaps.  Internal to the state.
 *
 * A list holds the events of one priority and class of times to live (agent/state/bounds.h) as rows (list, seq), cut into segments
 * (agent/state/segment.h).  Counts are exact; bytes may be off by less than one segment in each list, and are exact whenever everything is
 * acknowledged.  Batches enter through agent/state/arrivals.h; what gives way is in agent/state/loss.h. */
#ifndef AGENT_OUTBOX_H
#define AGENT_OUTBOX_H

#include "agent/state/bounds.h"
#include "agent/state/state.h"

struct outbox_channel {
    grey_seq next_seq, acked_seq;
    uint64_t gap_ranges, gap_events, gap_bytes;
    uint64_t expired_events, expired_bytes;
};

struct outbox_list {
    uint64_t count, bytes;
    grey_seq tail_first; /* first number of the last segment; 0: the list is empty */
    grey_seq lost_below; /* behind the last one lost; 0: nothing was */
};

struct outbox {
    struct outbox_channel channels[CHANNEL_COUNT];
    struct outbox_list lists[STATE_LISTS];
    struct bounds bounds;
    struct budget_used usage;             /* of the link to the core */
    uint32_t segment_span, segment_bytes; /* SEGMENT_*, but in tests */
};

enum grey_error outbox_load(struct outbox *b, struct table *t, struct fault *f); /* E_CORRUPT */

/* Each of these appends to changes and changes *b, or refuses and leaves what it began to the caller to throw away. */
enum grey_error outbox_ack(struct outbox *b, struct table *t, uint64_t incarnation, struct bytes payload, struct builder *changes,
                           struct fault *f);
enum grey_error outbox_limits(struct outbox *b, struct bytes payload, struct builder *changes, struct fault *f);

static inline unsigned outbox_list_of(enum event_priority p, unsigned class) {
    return class * PRIORITY_COUNT + (unsigned)p;
}
static inline enum event_priority outbox_priority_of(unsigned list) {
    return (enum event_priority)(list % PRIORITY_COUNT);
}
int64_t outbox_time_to_live_ms(const struct outbox *b, unsigned list); /* 0: for ever */
int64_t outbox_expiry_ms(const struct outbox *b, struct table *t);     /* state_expiry_ms */
void outbox_channel_save(const struct outbox *b, enum event_channel c, struct builder *changes);
void outbox_lost_save(const struct outbox *b, unsigned list, struct builder *changes);
void outbox_channel_facts(const struct outbox *b, struct table *t, enum event_channel c, struct channel_facts *out);

#endif
