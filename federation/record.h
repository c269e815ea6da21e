/* record.h: events as CBOR records: the payload of an ENTRY_EVENTS batch, and what travels to the core.  docs/FORMATS.md, "Records".
 *
 * Record: array [id, source, type, subject, time, content_type, traceparent: text; priority: uint; flags: uint (1 provisional,
 * 2 has_id); data: bytes].  Batch: array of records (codec_put_array, then record_encode for each).
 * Bounds: each text LIMIT_EVENT_FIELD_BYTES, data LIMIT_EVENT_BYTES; id, source and type are not empty. */
#ifndef FEDERATION_RECORD_H
#define FEDERATION_RECORD_H

#include "include/grey/event.h"
#include "platform/codec.h"

void record_encode(const struct event *e, struct builder *out);
/* Reads one record at the reader and checks its bounds.  e borrows from the input; it is all zero on error.  Returns the reader's
 * error: E_BAD_CBOR, or E_BAD_MESSAGE for a field that is missing, of another type or out of bounds. */
enum grey_error record_decode(struct codec_reader *r, struct event *e);

/* record_slot: the encoding of record `slot` (from 0) of a batch payload, lent; what follows it is not looked at, and its fields are
 * not checked (record_decode does).  E_NOT_FOUND: the batch has fewer records; E_BAD_CBOR, E_BAD_MESSAGE. */
enum grey_error record_slot(struct bytes batch, uint32_t slot, struct bytes *record);

#endif
