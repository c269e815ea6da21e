/* segment.h: rows of waiting events, and the segments their lists are cut into.  Internal to the state.
 *
 * Segments are rows of TABLE_SEGMENT and so always in memory: what is acknowledged or lost can be counted without reading the rows
 * that it deletes.  A segment spans at most SEGMENT_SPAN numbers of its channel and holds SEGMENT_BYTES, or one event.  It knows exactly
 * which numbers it holds (lists share the numbers of their channel, so each has holes), but of their sizes only the sum: when a part of
 * it is acknowledged, the sum is cut in proportion. */
#ifndef AGENT_SEGMENT_H
#define AGENT_SEGMENT_H

#include "agent/state/state.h"

#define SEGMENT_SPAN 4096u
#define SEGMENT_BYTES (256u * 1024u)
#define SEGMENT_KEY_BYTES 9u
#define SEGMENT_BITS_BYTES (SEGMENT_SPAN / 8u)

struct segment {
    grey_seq first, last;
    uint32_t count, bytes;
    int64_t first_ms, last_ms;
    uint8_t bits[SEGMENT_BITS_BYTES]; /* bit i: number first + i is in it */
};

bool segment_decode(struct bytes key, struct bytes value, struct segment *s);
void segment_put(struct builder *changes, unsigned list, const struct segment *s);
/* The first segment of the list that begins at `from` or behind. */
bool segment_next(struct table *t, unsigned list, grey_seq from, struct segment *s);
void segment_add(struct segment *s, grey_seq seq, uint32_t bytes,
                 int64_t time_ms); /* seq: above all in it; one without events begins anew */
/* Takes all numbers up to `seq` (at least the first, below the last) out; bytes and first time become estimates. */
void segment_cut(struct segment *s, grey_seq seq);
uint32_t segment_runs(const struct segment *s); /* of consecutive numbers that it holds */

void segment_row_put(struct builder *changes, const struct outbox_row *row); /* of TABLE_OUTBOX */
/* Deletes the rows of the list with numbers below end, of TABLE_OUTBOX or TABLE_SEGMENT. */
void segment_delete_below(struct builder *changes, enum table_id id, unsigned list, grey_seq end);

/* Gap rows, of TABLE_GAP: a segment that was lost.  They stand under the *last* number, so that those acknowledged are one range of keys,
 * and the first one at or behind a number is found by a scan from it. */
void segment_gap_put(struct builder *changes, enum event_channel c, enum gap_reason reason, const struct segment *s);
bool segment_gap_decode(struct bytes key, struct bytes value, struct segment *s, enum gap_reason *reason); /* times: 0 */
bool segment_holds(const struct segment *s, grey_seq seq);
/* What of its bytes falls to the events numbered from..to: in proportion, such that the parts of any division add up to the whole. */
uint64_t segment_share(const struct segment *s, grey_seq from, grey_seq to);

#endif
