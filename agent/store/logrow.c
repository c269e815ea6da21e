#include "agent/store/logrow.h"

#include <inttypes.h>
#include <string.h>

#include "platform/digest.h"

static uint8_t *put_varint(uint8_t *p, uint64_t v) {
    while (v >= 0x80) {
        *p++ = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    *p++ = (uint8_t)v;
    return p;
}

static bool get_varint(struct bytes *in, uint64_t max, uint64_t *v) {
    *v = 0;
    for (unsigned shift = 0; shift < 64 && in->size > 0; shift += 7) {
        uint8_t byte = in->data[0];
        in->data++, in->size--;
        *v |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            return *v <= max;
        }
    }
    return false;
}

size_t logrow_head_write(const struct entry *e, uint8_t out[LOGROW_HEAD_BYTES_MAX]) {
    uint8_t *p = put_varint(out, e->term);
    p = put_varint(p, e->epoch);
    p = put_varint(p, (uint64_t)e->time_ms);
    p = put_varint(p, e->kind);
    p = put_varint(p, e->schema);
    memcpy(p, e->digest, DIGEST_BYTES);
    p += DIGEST_BYTES;
    if (e->stripped_bytes > 0) {
        p = put_varint(p, e->stripped_bytes);
    }
    return (size_t)(p - out);
}

bool logrow_head_read(struct bytes in, struct entry *e) {
    uint64_t time_ms, kind, version, stripped = 0;
    bool ok = get_varint(&in, UINT64_MAX, &e->term) && get_varint(&in, UINT64_MAX, &e->epoch) &&
              get_varint(&in, UINT64_MAX, &time_ms) && get_varint(&in, UINT16_MAX, &kind) &&
              get_varint(&in, UINT16_MAX, &version) && in.size >= DIGEST_BYTES;
    if (ok) {
        e->time_ms = (int64_t)time_ms;
        e->kind = (uint16_t)kind;
        e->schema = (uint16_t)version;
        memcpy(e->digest, in.data, DIGEST_BYTES);
        in = bytes_of(in.data + DIGEST_BYTES, in.size - DIGEST_BYTES);
        ok = in.size == 0 || (get_varint(&in, UINT32_MAX, &stripped) && in.size == 0 && stripped > 0);
        e->stripped_bytes = (uint32_t)stripped;
    }
    return ok;
}

bool logrow_payload_holds(const struct entry *e, struct bytes data) {
    uint8_t digest[DIGEST_BYTES];
    if (e->stripped_bytes > 0) {
        return data.size == 0;
    }
    digest_sha256(data, digest);
    return memcmp(digest, e->digest, DIGEST_BYTES) == 0;
}

enum grey_error logrow_read(raft_index index, struct bytes head, struct bytes data, struct entry *e, struct fault *f) {
    *e = (struct entry){.index = index};
    if (!logrow_head_read(head, e)) {
        return fault_set(f, E_CORRUPT, "log.db: the head of entry %" PRIu64 " is damaged", index);
    }
    if (!logrow_payload_holds(e, data)) {
        return fault_set(f, E_CORRUPT, "log.db: the payload of entry %" PRIu64 " is damaged", index);
    }
    if (data.size > 0 && (e->payload = blob_copy(data)) == NULL) {
        return fault_set(f, E_NO_MEMORY, "reading entry %" PRIu64, index);
    }
    return E_OK;
}
