#include "platform/compress.h"

#include <limits.h>
#include <lz4.h>

#include "include/grey/must.h"

#define EXPANSION_MAX 255u /* one byte of an LZ4 block stands for at most this many: what claims more is refused unread */

enum grey_error compress_lz4(struct bytes in, struct builder *out) {
    if (out->err != E_OK) {
        return out->err;
    }
    size_t room_bytes = out->limit_bytes - out->size;
    if (in.size < 2 || in.size > LZ4_MAX_INPUT_SIZE || room_bytes == 0) {
        return E_TOO_LARGE;
    }
    room_bytes = room_bytes < in.size - 1 ? room_bytes : in.size - 1;
    uint8_t *room = builder_room(out, room_bytes);
    if (room == NULL) {
        return out->err;
    }
    int size = LZ4_compress_default((const char *)in.data, (char *)room, (int)in.size, (int)room_bytes);
    must(size >= 0 && (size_t)size <= room_bytes);
    out->size -= room_bytes - (size_t)size; /* 0: it does not fit, and nothing is appended */
    return size == 0 ? E_TOO_LARGE : E_OK;
}

enum grey_error compress_unlz4(struct bytes block, size_t size_bytes, struct builder *out) {
    if (out->err != E_OK) {
        return out->err;
    }
    if (size_bytes == 0 || size_bytes > LZ4_MAX_INPUT_SIZE || block.size > INT_MAX || size_bytes / EXPANSION_MAX > block.size) {
        return E_CORRUPT;
    }
    uint8_t *room = builder_room(out, size_bytes);
    if (room == NULL) {
        return out->err;
    }
    int size = LZ4_decompress_safe((const char *)block.data, (char *)room, (int)block.size, (int)size_bytes);
    if (size < 0 || (size_t)size != size_bytes) {
        out->size -= size_bytes;
        return E_CORRUPT;
    }
    return E_OK;
}
