/* stretch.h: what became of the numbers of a channel that have no row any more: which gap tells the core of them.  Pure.
 *
 * Rows of TABLE_GAP are added as a scan from (channel, from) finds them, in the order of their keys; then stretch_gap answers.  Rows
 * overlap (each holds numbers of one list), so a number is known to be in none only if all that begin before it were added; one that
 * is not found is to be asked for again. */
#ifndef AGENT_STRETCH_H
#define AGENT_STRETCH_H

#include "agent/state/segment.h"
#include "federation/sync.h"

#define STRETCH_ROWS_MAX 256u /* kept: those that begin first */

struct stretch_row {
    struct segment segment;
    enum gap_reason reason;
};

struct stretch {
    grey_seq from, seen; /* seen: last number of the last row added */
    struct stretch_row *rows;
    uint32_t count, room;
};

void stretch_begin(struct stretch *c, grey_seq from); /* numbers below are of no interest */
void stretch_free(struct stretch *c);
enum grey_error stretch_add(struct stretch *c, struct bytes key, struct bytes value); /* E_CORRUPT, E_NO_MEMORY */
/* No row behind those that were added tells more of from..to, or there is no room for it and a part of that is known. */
bool stretch_enough(const struct stretch *c, grey_seq to);
/* The gap that begins at `first` (at least from), as far as one reason goes and up to `last`.  False: `first` is in no row added. */
bool stretch_gap(const struct stretch *c, grey_seq first, grey_seq last, struct sync_gap *out);

/* The next frame: what follows each other without a hole from `from` on.  rows: ascending, all there are up to `known`, at most
 * SYNC_ITEMS_MAX; record gives the record of one, or false: it cannot be had now, and the frame ends before it.  items, gaps: room for
 * row_count and SYNC_GAPS_MAX.  e->to_seq < e->from_seq: there is nothing yet. */
typedef bool stretch_record(void *context, uint32_t row, struct bytes *record);
void stretch_events(const struct stretch *c, const struct outbox_row *rows, uint32_t row_count, grey_seq known,
                    stretch_record *record, void *context, struct sync_item *items, struct sync_gap *gaps, struct sync_events *e);

#endif
