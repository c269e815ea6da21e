/* gather.h: one batch for the core: the outbox rows of a channel from a number on, from memory and disk, and the records they stand for.
 *
 * Reads no more than the batch needs: rows first, cut to the wished size, then each payload once.  One gathering at a time per object.
 * Thread: the loop's. */
#ifndef AGENT_GATHER_H
#define AGENT_GATHER_H

#include "agent/node/node.h"
#include "federation/sync.h"

struct gather;

/* e: lent; incarnation and epoch are the caller's to fill in.  Items and gaps cover e->from_seq..e->to_seq; e->to_seq < e->from_seq:
 * nothing could be had just now (rows on the move, no memory, an unreadable disk): try again later. */
typedef void gather_done(void *context, struct sync_events *e);

struct gather *gather_new(struct node *node, gather_done *done, void *context); /* NULL: out of memory */
/* While one is running, its job still holds it: it is freed when that ends, and done is not called. */
void gather_free(struct gather *g);
bool gather_running(const struct gather *g);
/* next_seq: the first number not given yet; bytes_max: records up to about so many bytes, at least one.  done is called once, at once
 * or on a later turn. */
void gather_begin(struct gather *g, enum event_channel c, grey_seq from, grey_seq next_seq, uint32_t bytes_max);

#endif
