#include "platform/bytes.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "include/grey/must.h"

struct bytes bytes_str(const char *text) {
    return text == NULL ? bytes_of(NULL, 0) : bytes_of(text, strlen(text));
}

bool bytes_equal(struct bytes a, struct bytes b) {
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

bool bytes_equal_str(struct bytes a, const char *text) {
    return bytes_equal(a, bytes_str(text));
}

int bytes_compare(struct bytes a, struct bytes b) {
    size_t size = a.size < b.size ? a.size : b.size;
    int order = size == 0 ? 0 : memcmp(a.data, b.data, size);
    if (order != 0) {
        return order;
    }
    return a.size < b.size ? -1 : a.size > b.size;
}

size_t bytes_utf8_size(struct bytes b) {
    if (b.size == 0 || b.data[0] < 0x80) {
        return b.size == 0 ? 0 : 1;
    }
    /* RFC 3629, section 4: the lead byte gives the size; the second byte's range shuts out long forms, surrogates and > U+10FFFF. */
    uint8_t lead = b.data[0];
    size_t size = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || size > b.size) {
        return 0;
    }
    uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (b.data[1] < low || b.data[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < size; i++) {
        if ((b.data[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return size;
}

bool bytes_utf8_valid(struct bytes b) {
    while (b.size > 0) {
        size_t size = bytes_utf8_size(b);
        if (size == 0) {
            return false;
        }
        b.data += size, b.size -= size;
    }
    return true;
}

void *mem_new(size_t count, size_t size) {
    return calloc(count, size); /* calloc checks the product */
}

void mem_free(void *p) {
    free(p);
}

void *mem_grow(void *p, size_t count, size_t size) {
    must(count > 0 && size > 0);
    return reallocarray(p, count, size);
}

struct blob *blob_new(size_t size) {
    if (size > UINT32_MAX - sizeof(struct blob)) {
        return NULL;
    }
    struct blob *b = malloc(sizeof *b + size);
    if (b != NULL) {
        atomic_init(&b->refs, 1);
        b->size = (uint32_t)size;
    }
    return b;
}

struct blob *blob_copy(struct bytes bytes) {
    struct blob *b = blob_new(bytes.size);
    if (b != NULL && bytes.size > 0) {
        memcpy(b->data, bytes.data, bytes.size);
    }
    return b;
}

struct blob *blob_ref(struct blob *b) {
    if (b != NULL) {
        uint32_t before = atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
        must(before > 0 && before < UINT32_MAX);
    }
    return b;
}

void blob_unref(struct blob *b) {
    if (b == NULL) {
        return;
    }
    uint32_t before = atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel);
    must(before > 0);
    if (before == 1) {
        free(b);
    }
}

struct bytes blob_bytes(const struct blob *b) {
    return b == NULL ? bytes_of(NULL, 0) : bytes_of(b->data, b->size);
}

void builder_init(struct builder *b, size_t limit_bytes) {
    *b = (struct builder){.limit_bytes = limit_bytes};
}

void builder_free(struct builder *b) {
    free(b->data);
    *b = (struct builder){.limit_bytes = b->limit_bytes};
}

void builder_reset(struct builder *b) {
    b->size = 0;
    b->err = E_OK;
}

uint8_t *builder_room(struct builder *b, size_t size) {
    if (b->err != E_OK) {
        return NULL;
    }
    must(b->size <= b->limit_bytes);
    if (size > b->limit_bytes - b->size) {
        b->err = E_TOO_LARGE;
        return NULL;
    }
    if (size > b->capacity - b->size) {
        size_t capacity = b->capacity < 64 ? 64 : b->capacity;
        while (capacity - b->size < size) {
            capacity = capacity > b->limit_bytes / 2 ? b->limit_bytes : capacity * 2;
        }
        uint8_t *data = realloc(b->data, capacity);
        if (data == NULL) {
            b->err = E_NO_MEMORY;
            return NULL;
        }
        b->data = data;
        b->capacity = capacity;
    }
    uint8_t *room = b->data + b->size;
    b->size += size;
    return room;
}

void builder_add(struct builder *b, struct bytes part) {
    if (part.size == 0) {
        return;
    }
    uint8_t *room = builder_room(b, part.size);
    if (room != NULL) {
        memcpy(room, part.data, part.size);
    }
}

void builder_add_byte(struct builder *b, uint8_t byte) {
    builder_add(b, bytes_of(&byte, 1));
}

void builder_add_str(struct builder *b, const char *text) {
    builder_add(b, bytes_str(text));
}

void bytes_hex(const uint8_t *bytes, size_t size, char *out) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < size; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * size] = 0;
}

static int hex_digit(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool bytes_unhex(const char *text, size_t size, uint8_t *out) {
    for (size_t i = 0; i < size; i++) {
        int high = hex_digit(text[2 * i]), low = high < 0 ? -1 : hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

void builder_add_base64(struct builder *b, struct bytes v) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < v.size; i += 3) {
        size_t have = v.size - i < 3 ? v.size - i : 3;
        uint32_t group =
            (uint32_t)v.data[i] << 16 | (have > 1 ? (uint32_t)v.data[i + 1] << 8 : 0) | (have > 2 ? v.data[i + 2] : 0u);
        uint8_t four[4] = {(uint8_t)digits[group >> 18], (uint8_t)digits[group >> 12 & 63],
                           have > 1 ? (uint8_t)digits[group >> 6 & 63] : '=', have > 2 ? (uint8_t)digits[group & 63] : '='};
        builder_add(b, bytes_of(four, sizeof four));
    }
}

void builder_addf(struct builder *b, const char *format, ...) {
    char text[512];
    va_list args;
    va_start(args, format);
    int size = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    must(size >= 0);
    if ((size_t)size < sizeof text) {
        builder_add(b, bytes_of(text, (size_t)size));
        return;
    }
    uint8_t *room = builder_room(b, (size_t)size + 1); /* vsnprintf writes a NUL, which is then given back */
    if (room != NULL) {
        va_start(args, format);
        (void)vsnprintf((char *)room, (size_t)size + 1, format, args);
        va_end(args);
        b->size--;
    }
}

struct bytes builder_bytes(const struct builder *b) {
    return bytes_of(b->data, b->size);
}

struct blob *builder_blob(struct builder *b) {
    return b->err != E_OK ? NULL : blob_copy(builder_bytes(b));
}
