/* squeeze.h: events for a thin link, in few bytes, exactly as they are.  docs/PROTOCOL.md, "Squeezed events".
 *
 * Records are taken apart into texts and those into words and numbers (federation/token.h).  Each stands in a *column*, known by the
 * JSON keys before it: there a word is likely to be one of the last few, and a number near the last one or a step away from it.  What is
 * likely costs a fraction of a bit (federation/entropy.h).  Both ends of a session learn the same from what went over it, so frames must
 * be taken in the order in which they were made, and all of them; the sum tells when one was not, and a session begins anew.
 *
 * Pure.  One object is SQUEEZE_BYTES_MAX at most and allocates nothing later. */
#ifndef FEDERATION_SQUEEZE_H
#define FEDERATION_SQUEEZE_H

#include "federation/sync.h"

#define SQUEEZE_BYTES_MAX (64u * 1024u)

struct squeeze;

struct squeeze *squeeze_new(void); /* one end, nothing learnt; NULL: out of memory */
void squeeze_free(struct squeeze *s);
void squeeze_forget(struct squeeze *s); /* as new */

/* squeeze_pack: appends the items and gaps of e, from the first on, until they are packed_bytes_max (at least one item or gap), and cuts
 * e to what is in; incarnation, epoch, channel and from_seq are not.  *sum: for squeeze_unpack.  What is packed must be sent, or the
 * next frame begins with squeeze_forget; so after an error (the builder's). */
enum grey_error squeeze_pack(struct squeeze *s, struct sync_events *e, size_t packed_bytes_max, struct builder *out, uint32_t *sum);

/* squeeze_unpack: items and gaps (room for SYNC_ITEMS_MAX and SYNC_GAPS_MAX) of a frame whose from_seq stands in e; records: emptied,
 * holds what the items lend.  What comes out is checked by nobody yet: sync_put_events, then sync_get_events.  After an error the object
 * must be forgotten.  E_CORRUPT: this was not packed by the other end of this session, or frames are missing; E_TOO_LARGE: above the
 * limit of records; E_NO_MEMORY. */
enum grey_error squeeze_unpack(struct squeeze *s, struct bytes packed, uint32_t sum, struct sync_events *e, struct sync_item *items,
                               struct sync_gap *gaps, struct builder *records);

#endif
