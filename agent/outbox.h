/* outbox.h: events that wait for the core, by priority; numbers, bounds, acknowledgements, gaps.  Internal to the state.
 *
 * Each priority is a list of rows (priority, seq).  The list is cut into segments, whose summaries are rows of TABLE_SEGMENT and so
 * always in memory: what is acknowledged or evicted can be counted without reading the rows it deletes.  A segment spans less than
 * OUTBOX_SEGMENT_SPAN numbers of its channel and holds OUTBOX_SEGMENT_BYTES, or one event.  It knows exactly which numbers it holds
 * (normal and low share the data channel, so a list may have holes), but of their sizes only the sum: when a part of it is
 * acknowledged, the sum is cut in proportion.  Counts are exact; bytes may be off by less than one segment in each list, and are
 * exact whenever everything is acknowledged. */
#ifndef AGENT_OUTBOX_H
#define AGENT_OUTBOX_H

#include "agent/dedup.h"
#include "agent/state.h"

#define OUTBOX_SEGMENT_SPAN 4096u
#define OUTBOX_SEGMENT_BYTES (256u * 1024u)
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
    struct budget_used usage;             /* of the link to the core */
    uint32_t segment_span, segment_bytes; /* OUTBOX_SEGMENT_*, but in tests */
};

enum grey_error outbox_load(struct outbox *b, struct table *t, struct fault *f); /* E_CORRUPT */
void outbox_wants(struct bytes payload, void (*want)(void *context, enum table_id id, struct bytes key), void *context);

/* Each of these appends to changes and changes *b and *d, or refuses and leaves what it began to the caller to throw away. */
enum grey_error outbox_events(struct outbox *b, struct dedup *d, struct table *t, const struct entry *e, int64_t now_ms,
                              struct builder *changes, struct builder *answer, struct fault *f);
enum grey_error outbox_ack(struct outbox *b, struct table *t, uint64_t incarnation, struct bytes payload, struct builder *changes,
                           struct fault *f);
enum grey_error outbox_limits(struct outbox *b, struct bytes payload, struct builder *changes, struct fault *f);

void outbox_channel_facts(const struct outbox *b, struct table *t, enum event_channel c, struct channel_facts *out);

#endif
