/* frame.h: Grey Protocol v2 frames, written and read.  All numbers big-endian; layout in include/grey/protocol.h and docs/PROTOCOL.md.
 * The CRC-32 (IEEE) covers header and payload. */
#ifndef FEDERATION_FRAME_H
#define FEDERATION_FRAME_H

#include "include/grey/protocol.h"
#include "platform/bytes.h"

#define FRAME_HEAD_BYTES (FRAME_HEADER_BYTES - 4u)

struct frame {
    uint16_t flags;
    uint64_t message_id; /* unique and rising per connection */
    uint64_t time_ns;    /* Unix nanoseconds at the sender; shown, never trusted */
    struct bytes payload;
};

enum frame_status { FRAME_READY, FRAME_PARTIAL, FRAME_BAD };

/* frame_read: one frame at the head of in (borrowed).  FRAME_READY: *f points into in, *used_bytes is what to skip.  FRAME_PARTIAL: at
 * least *need_bytes more.  FRAME_BAD: *why says which rule (E_BAD_FRAME, E_BAD_VERSION, E_BAD_CRC, E_TOO_LARGE); close the link. */
enum frame_status frame_read(struct bytes in, struct frame *f, size_t *used_bytes, size_t *need_bytes, enum grey_error *why);

/* frame_write: appends the frame.  E_TOO_LARGE above LIMIT_FRAME_PAYLOAD_BYTES. */
void frame_write(struct builder *out, uint16_t flags, uint64_t message_id, uint64_t time_ns, struct bytes payload);

/* In two steps, for who makes the payload in its place: frame_room appends the head and lends f->payload.size bytes to fill in (f->payload.data is not
 * read; NULL when there is no room, or that is too large), until frame_close appends the checksum; nothing else is appended between. */
uint8_t *frame_room(struct builder *out, const struct frame *f);
void frame_close(struct builder *out, const struct frame *f);
void frame_head(const struct frame *f, uint8_t head[FRAME_HEAD_BYTES]); /* all before the payload */

/* frame_content: the payload, decompressed into scratch when the flag says so; *content borrows from f or scratch.
 * E_CORRUPT, E_TOO_LARGE (checked before anything is allocated), E_BAD_FRAME for flags that are not known or not yet possible. */
enum grey_error frame_content(const struct frame *f, struct builder *scratch, struct bytes *content);

#endif
