#include "federation/frame.h"

#include <string.h>

#include "include/grey/limits.h"
#include "include/grey/must.h"
#include "platform/compress.h"
#include "platform/digest.h"

/* offset  0 magic "GREY"   4 version u16   6 flags u16   8 message id u64   16 time stamp ns u64   24 payload length u32
 *        28 payload        28 + length CRC-32 over all before it.  Big-endian. */
#define AT_VERSION 4u
#define AT_FLAGS 6u
#define AT_MESSAGE_ID 8u
#define AT_TIME 16u
#define AT_LENGTH 24u
#define AT_PAYLOAD 28u
#define CRC_BYTES 4u

static_assert(AT_PAYLOAD == FRAME_HEAD_BYTES && AT_PAYLOAD + CRC_BYTES == FRAME_OVERHEAD_BYTES,
              "header and checksum are the overhead of a frame");

enum frame_status frame_read(struct bytes in, struct frame *f, size_t *used_bytes, size_t *need_bytes, enum grey_error *why) {
    size_t seen = in.size < AT_VERSION ? in.size : AT_VERSION;
    if (seen > 0 && memcmp(in.data, FRAME_MAGIC, seen) != 0) { /* found at the first wrong byte */
        *why = E_BAD_FRAME;
        return FRAME_BAD;
    }
    if (in.size < AT_PAYLOAD) {
        *need_bytes = FRAME_OVERHEAD_BYTES - in.size;
        return FRAME_PARTIAL;
    }
    if (bytes_get_be16(in.data + AT_VERSION) != FRAME_VERSION) {
        *why = E_BAD_VERSION;
        return FRAME_BAD;
    }
    uint32_t length = bytes_get_be32(in.data + AT_LENGTH);
    if (length > LIMIT_FRAME_PAYLOAD_BYTES) {
        *why = E_TOO_LARGE;
        return FRAME_BAD;
    }
    size_t total = FRAME_OVERHEAD_BYTES + (size_t)length;
    if (in.size < total) {
        *need_bytes = total - in.size;
        return FRAME_PARTIAL;
    }
    if (digest_crc32(0, bytes_of(in.data, total - CRC_BYTES)) != bytes_get_be32(in.data + total - CRC_BYTES)) {
        *why = E_BAD_CRC;
        return FRAME_BAD;
    }
    *f = (struct frame){.flags = bytes_get_be16(in.data + AT_FLAGS),
                        .message_id = bytes_get_be64(in.data + AT_MESSAGE_ID),
                        .time_ns = bytes_get_be64(in.data + AT_TIME),
                        .payload = bytes_of(in.data + AT_PAYLOAD, length)};
    *used_bytes = total;
    return FRAME_READY;
}

void frame_head(const struct frame *f, uint8_t head[FRAME_HEAD_BYTES]) {
    memcpy(head, FRAME_MAGIC, AT_VERSION); // NOLINT(bugprone-not-null-terminated-result): four letters, no string
    bytes_put_be16(head + AT_VERSION, FRAME_VERSION);
    bytes_put_be16(head + AT_FLAGS, f->flags);
    bytes_put_be64(head + AT_MESSAGE_ID, f->message_id);
    bytes_put_be64(head + AT_TIME, f->time_ns);
    bytes_put_be32(head + AT_LENGTH, (uint32_t)f->payload.size);
}

uint8_t *frame_room(struct builder *out, const struct frame *f) {
    if (f->payload.size > LIMIT_FRAME_PAYLOAD_BYTES) {
        out->err = out->err != E_OK ? out->err : E_TOO_LARGE;
        return NULL;
    }
    uint8_t *at = builder_room(out, FRAME_OVERHEAD_BYTES + f->payload.size);
    if (at == NULL) {
        return NULL;
    }
    frame_head(f, at);
    return at + AT_PAYLOAD;
}

void frame_close(struct builder *out, const struct frame *f) {
    size_t total = FRAME_OVERHEAD_BYTES + f->payload.size;
    must(out->size >= total);
    uint8_t *at = out->data + out->size - total;
    bytes_put_be32(at + total - CRC_BYTES, digest_crc32(0, bytes_of(at, total - CRC_BYTES)));
}

void frame_write(struct builder *out, uint16_t flags, uint64_t message_id, uint64_t time_ns, struct bytes payload) {
    struct frame f = {.flags = flags, .message_id = message_id, .time_ns = time_ns, .payload = payload};
    uint8_t *at = frame_room(out, &f);
    if (at == NULL) {
        return;
    }
    if (payload.size > 0) {
        memcpy(at, payload.data, payload.size);
    }
    frame_close(out, &f);
}

enum grey_error frame_content(const struct frame *f, struct builder *scratch, struct bytes *content) {
    *content = bytes_of(NULL, 0);
    if ((f->flags & ~FRAME_FLAGS_KNOWN) != 0 || (f->flags & FRAME_FLAG_ENCRYPTED) != 0) {
        return E_BAD_FRAME;
    }
    if ((f->flags & FRAME_FLAG_COMPRESSED) == 0) {
        *content = f->payload;
        return E_OK;
    }
    if (f->payload.size < 4) {
        return E_BAD_FRAME;
    }
    uint32_t size = bytes_get_be32(f->payload.data);
    if (size > LIMIT_FRAME_PAYLOAD_BYTES) { /* before anything is allocated for it */
        return E_TOO_LARGE;
    }
    builder_reset(scratch);
    enum grey_error err = compress_unlz4(bytes_of(f->payload.data + 4, f->payload.size - 4), size, scratch);
    if (err == E_OK) {
        *content = builder_bytes(scratch);
    }
    return err;
}
