/* outbox.h: events that wait for the core, by priority; numbers, bounds, acknowledgements, gaps.  Internal to the state.
 *
 * Each priority is a list of rows (priority, seq), cut into segments (agent/segment.h).  Counts are exact; bytes may be off by less than
 * one segment in each list, and are exact whenever everything is acknowledged.  Batches enter through agent/arrivals.h; what gives way is
 * in agent/loss.h. */
#ifndef AGENT_OUTBOX_H
#define AGENT_OUTBOX_H

#include "agent/state.h"

#define OUTBOX_BYTES_MAX_DEFAULT (1024ull * 1024 * 1024)

struct outbox_channel {
    grey_seq next_seq, acked_seq;
    uint64_t gap_ranges, gap_events;
};

struct outbox_list { /* one per priority */
    uint64_t count, bytes;
    grey_seq tail_first;    /* first number of the last segment; 0: the list is empty */
    grey_seq evicted_below; /* 0: nothing was evicted */
};

struct outbox {
    struct outbox_channel channels[CHANNEL_COUNT];
    struct outbox_list lists[PRIORITY_COUNT];
    uint64_t bytes_max;
    uint32_t segment_span, segment_bytes; /* SEGMENT_*, but in tests */
};

enum grey_error outbox_load(struct outbox *b, struct table *t, struct fault *f); /* E_CORRUPT */
/* Each of these appends to changes and changes *b, or refuses and leaves what it began to the caller to throw away. */
enum grey_error outbox_ack(struct outbox *b, struct table *t, uint64_t incarnation, struct bytes payload, struct builder *changes,
                           struct fault *f);
enum grey_error outbox_limits(struct outbox *b, struct bytes payload, struct builder *changes, struct fault *f);

void outbox_channel_save(const struct outbox *b, enum event_channel c, struct builder *changes);
void outbox_evicted_save(const struct outbox *b, enum event_priority p, struct builder *changes);
void outbox_channel_facts(const struct outbox *b, struct table *t, enum event_channel c, struct channel_facts *out);

#endif
