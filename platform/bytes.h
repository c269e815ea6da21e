/* bytes.h: slices, shared blobs, bounded builders, and the one door to the allocator for pure modules.
 *
 * Ownership words used in all headers: a function *borrows* (reads during the call; the default), *copies*, *takes* (frees later,
 * only on success) or *lends* (result valid until the event named).  Thread: everything here is free of shared state; a blob's
 * count is atomic, so blobs may cross threads. */
#ifndef PLATFORM_BYTES_H
#define PLATFORM_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "include/grey/error.h"
#include "include/grey/slice.h"

static inline struct bytes bytes_of(const void *data, size_t size) {
    return (struct bytes){.data = data, .size = size};
}
struct bytes bytes_str(const char *text); /* borrows the text without its NUL; NULL gives an empty slice */
bool bytes_equal(struct bytes a, struct bytes b);
bool bytes_equal_str(struct bytes a, const char *text);
int bytes_compare(struct bytes a, struct bytes b); /* as memcmp, a prefix sorts first */

/* The size, 1 to 4, of the UTF-8 character at the head of b; 0 when b is empty or does not begin with a well-formed one (RFC 3629). */
size_t bytes_utf8_size(struct bytes b);
bool bytes_utf8_valid(struct bytes b);

/* Big-endian numbers at unaligned places. */
static inline void bytes_put_be16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)(v >> 8), p[1] = (uint8_t)v;
}
static inline void bytes_put_be32(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)(v >> 24), p[1] = (uint8_t)(v >> 16), p[2] = (uint8_t)(v >> 8), p[3] = (uint8_t)v;
}
static inline void bytes_put_be64(uint8_t *p, uint64_t v) {
    bytes_put_be32(p, (uint32_t)(v >> 32)), bytes_put_be32(p + 4, (uint32_t)v);
}
static inline uint16_t bytes_get_be16(const uint8_t *p) {
    return (uint16_t)((unsigned)p[0] << 8 | p[1]);
}
static inline uint32_t bytes_get_be32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
static inline uint64_t bytes_get_be64(const uint8_t *p) {
    return (uint64_t)bytes_get_be32(p) << 32 | bytes_get_be32(p + 4);
}

/* Hexadecimal digits, lower case.  out: 2 * size of them and a NUL. */
void bytes_hex(const uint8_t *bytes, size_t size, char *out);
bool bytes_unhex(const char *text, size_t size, uint8_t *out); /* size: bytes in out; text: at least twice as long, or false */

/* mem_new: count * size zeroed bytes, NULL when the product overflows or memory is out.  The caller owns them; mem_free takes them. */
void *mem_new(size_t count, size_t size);
void mem_free(void *p);
/* mem_grow: p (from mem_new or NULL) with room for count elements; the new room is not zeroed.  NULL leaves p as it was. */
void *mem_grow(void *p, size_t count, size_t size);

/* A blob is shared bytes that do not change once a second holder exists. */
struct blob {
    _Atomic uint32_t refs;
    uint32_t size;
    uint8_t data[];
};
struct blob *blob_new(size_t size); /* one reference, content undefined; NULL when out of memory or size above UINT32_MAX */
struct blob *blob_copy(struct bytes b);
struct blob *blob_ref(struct blob *b);         /* NULL is allowed and returned */
void blob_unref(struct blob *b);               /* NULL is allowed */
struct bytes blob_bytes(const struct blob *b); /* NULL gives an empty slice */

/* A builder grows to limit_bytes and then refuses.  Its error is sticky: append freely, check `err` once at the end. */
struct builder {
    uint8_t *data;
    size_t size, capacity, limit_bytes;
    enum grey_error err; /* E_OK, E_TOO_LARGE or E_NO_MEMORY */
};
void builder_init(struct builder *b, size_t limit_bytes);
void builder_free(struct builder *b);
void builder_reset(struct builder *b); /* empties, keeps the memory, clears the error */
void builder_add(struct builder *b, struct bytes part);
void builder_add_byte(struct builder *b, uint8_t byte);
void builder_add_str(struct builder *b, const char *text);
void builder_add_base64(struct builder *b, struct bytes v); /* RFC 4648, 4, padded, one line */
void builder_addf(struct builder *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
uint8_t *builder_room(struct builder *b,
                      size_t size); /* lends `size` appended bytes to fill in, until the next call; NULL on error */
struct bytes builder_bytes(const struct builder *b); /* lends until the next call that changes b */
struct blob *builder_blob(struct builder *b);        /* a copy as a blob; NULL when err is set or memory is out */

#endif
