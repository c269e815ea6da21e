/* record.h: events as CBOR records: the payload of an ENTRY_EVENTS batch, and what travels to the core.  docs/FORMATS.md, "Records".
 *
 * Record: array [id, source, type, subject, time, content_type, traceparent: text; priority: uint; flags: uint (1 provisional,
 * 2 has_id); data: bytes].  Batch: array of records. */
#ifndef FEDERATION_RECORD_H
#define FEDERATION_RECORD_H

#include "include/grey/event.h"
#include "platform/codec.h"

void record_encode(const struct event *e, struct builder *out);
/* Reads one record at the reader; checks every bound of include/grey/limits.h.  e borrows from the input. */
enum grey_error record_decode(struct codec_reader *r, struct event *e);

/* record_slot: the encoding of record `slot` of a batch payload, lent.  E_NOT_FOUND, E_BAD_CBOR, E_BAD_MESSAGE. */
enum grey_error record_slot(struct bytes batch, uint32_t slot, struct bytes *record);

#endif
