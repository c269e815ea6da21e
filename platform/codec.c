/* Items come from libcbor's stream decoder, which allocates nothing and keeps no state.  It is lax where we are strict, so next()
 * adds: shortest form, no indefinite lengths, no tags, floats, undefined or other simple values, UTF-8, counts that the rest of the
 * input can hold.  A map's keys are compared when the map is entered, so a reader never sees half of a bad one. */
#include "platform/codec.h"

#include <cbor.h>
#include <string.h>

#include "include/grey/limits.h"
#include "include/grey/must.h"

#define HEAD_BYTES_MAX 9u /* one byte and a 64-bit argument */

#if CBOR_MAJOR_VERSION == 0 && CBOR_MINOR_VERSION < 10
typedef size_t cbor_length; /* what the callbacks of libcbor get; on 32 bits the old ones cut it, and take() finds that */
#else
typedef uint64_t cbor_length;
#endif

enum item_kind { ITEM_REFUSED, ITEM_UINT, ITEM_NEGATIVE, ITEM_BYTES, ITEM_TEXT, ITEM_ARRAY, ITEM_MAP, ITEM_BOOL, ITEM_NULL };

struct item {
    enum item_kind kind;
    uint64_t argument; /* the number, the size of the string, the count of items or pairs */
    const uint8_t *content;
};

/* --- Writing -------------------------------------------------------------------------------------------------------------------- */

void codec_put_uint(struct builder *b, uint64_t v) {
    uint8_t head[HEAD_BYTES_MAX];
    builder_add(b, bytes_of(head, cbor_encode_uint(v, head, sizeof head)));
}

void codec_put_int(struct builder *b, int64_t v) {
    if (v >= 0) {
        codec_put_uint(b, (uint64_t)v);
        return;
    }
    uint8_t head[HEAD_BYTES_MAX];
    builder_add(b, bytes_of(head, cbor_encode_negint((uint64_t)(-1 - v), head, sizeof head)));
}

void codec_put_bool(struct builder *b, bool v) {
    uint8_t head[1];
    builder_add(b, bytes_of(head, cbor_encode_bool(v, head, sizeof head)));
}

void codec_put_null(struct builder *b) {
    uint8_t head[1];
    builder_add(b, bytes_of(head, cbor_encode_null(head, sizeof head)));
}

void codec_put_bytes(struct builder *b, struct bytes v) {
    uint8_t head[HEAD_BYTES_MAX];
    builder_add(b, bytes_of(head, cbor_encode_bytestring_start(v.size, head, sizeof head)));
    builder_add(b, v);
}

void codec_put_text(struct builder *b, struct bytes utf8) {
    if (!bytes_utf8_valid(utf8)) {
        b->err = b->err == E_OK ? E_BAD_MESSAGE : b->err;
        return;
    }
    uint8_t head[HEAD_BYTES_MAX];
    builder_add(b, bytes_of(head, cbor_encode_string_start(utf8.size, head, sizeof head)));
    builder_add(b, utf8);
}

void codec_put_array(struct builder *b, uint64_t count) {
    must(count <= SIZE_MAX);
    uint8_t head[HEAD_BYTES_MAX];
    builder_add(b, bytes_of(head, cbor_encode_array_start((size_t)count, head, sizeof head)));
}

void codec_put_map(struct builder *b, uint64_t count) {
    must(count <= SIZE_MAX);
    uint8_t head[HEAD_BYTES_MAX];
    builder_add(b, bytes_of(head, cbor_encode_map_start((size_t)count, head, sizeof head)));
}

/* --- What libcbor found --------------------------------------------------------------------------------------------------------- */

static void found(void *context, enum item_kind kind, uint64_t argument, const uint8_t *content) {
    *(struct item *)context = (struct item){.kind = kind, .argument = argument, .content = content};
}
static void found_uint8(void *context, uint8_t v) {
    found(context, ITEM_UINT, v, NULL);
}
static void found_uint16(void *context, uint16_t v) {
    found(context, ITEM_UINT, v, NULL);
}
static void found_uint32(void *context, uint32_t v) {
    found(context, ITEM_UINT, v, NULL);
}
static void found_uint64(void *context, uint64_t v) {
    found(context, ITEM_UINT, v, NULL);
}
static void found_negative8(void *context, uint8_t v) {
    found(context, ITEM_NEGATIVE, v, NULL);
}
static void found_negative16(void *context, uint16_t v) {
    found(context, ITEM_NEGATIVE, v, NULL);
}
static void found_negative32(void *context, uint32_t v) {
    found(context, ITEM_NEGATIVE, v, NULL);
}
static void found_negative64(void *context, uint64_t v) {
    found(context, ITEM_NEGATIVE, v, NULL);
}
static void found_bytes(void *context, cbor_data data, cbor_length size) {
    found(context, ITEM_BYTES, size, data);
}
static void found_text(void *context, cbor_data data, cbor_length size) {
    found(context, ITEM_TEXT, size, data);
}
static void found_array(void *context, cbor_length count) {
    found(context, ITEM_ARRAY, count, NULL);
}
static void found_map(void *context, cbor_length count) {
    found(context, ITEM_MAP, count, NULL);
}
static void found_bool(void *context, bool v) {
    found(context, ITEM_BOOL, v, NULL);
}
static void found_null(void *context) {
    found(context, ITEM_NULL, 0, NULL);
}

/* The callbacks of libcbor that do nothing leave the item at ITEM_REFUSED. */
static const struct cbor_callbacks callbacks = {
    .uint8 = found_uint8,
    .uint16 = found_uint16,
    .uint32 = found_uint32,
    .uint64 = found_uint64,
    .negint8 = found_negative8,
    .negint16 = found_negative16,
    .negint32 = found_negative32,
    .negint64 = found_negative64,
    .byte_string = found_bytes,
    .byte_string_start = cbor_null_byte_string_start_callback,
    .string = found_text,
    .string_start = cbor_null_string_start_callback,
    .array_start = found_array,
    .indef_array_start = cbor_null_indef_array_start_callback,
    .map_start = found_map,
    .indef_map_start = cbor_null_indef_map_start_callback,
    .tag = cbor_null_tag_callback,
    .float2 = cbor_null_float2_callback,
    .float4 = cbor_null_float4_callback,
    .float8 = cbor_null_float8_callback,
    .boolean = found_bool,
    .null = found_null,
    .undefined = cbor_null_undefined_callback,
    .indef_break = cbor_null_indef_break_callback,
};

/* --- Reading -------------------------------------------------------------------------------------------------------------------- */

/* Keeps the first error; nothing is left to read, so that loops over `rest` end. */
static void refuse(struct codec_reader *r, enum grey_error err) {
    if (r->err == E_OK) {
        r->err = err;
    }
    r->rest = bytes_of(NULL, 0);
}

static size_t shortest_head_bytes(uint64_t argument) {
    return argument < 24 ? 1 : argument <= UINT8_MAX ? 2 : argument <= UINT16_MAX ? 3 : argument <= UINT32_MAX ? 5 : 9;
}

/* Takes the next item (of an array or a map: its head) off r. */
static bool next(struct codec_reader *r, struct item *item) {
    *item = (struct item){.kind = ITEM_REFUSED};
    if (r->err != E_OK) {
        return false;
    }
    if (r->rest.size == 0) {
        refuse(r, E_BAD_CBOR);
        return false;
    }
    struct cbor_decoder_result result = cbor_stream_decode(r->rest.data, r->rest.size, &callbacks, item);
    if (result.status != CBOR_DECODER_FINISHED || item->kind == ITEM_REFUSED) {
        refuse(r, E_BAD_CBOR);
        return false;
    }
    must(result.read > 0 && result.read <= r->rest.size);
    bool string = item->kind == ITEM_BYTES || item->kind == ITEM_TEXT;
    bool simple = item->kind == ITEM_BOOL || item->kind == ITEM_NULL;
    size_t head_bytes = string ? result.read - (size_t)item->argument : result.read;
    r->rest.data += result.read, r->rest.size -= result.read;
    if ((!simple && head_bytes != shortest_head_bytes(item->argument)) ||
        (item->kind == ITEM_TEXT && !bytes_utf8_valid(bytes_of(item->content, (size_t)item->argument))) ||
        (item->kind == ITEM_ARRAY && item->argument > r->rest.size) ||
        (item->kind == ITEM_MAP && item->argument > r->rest.size / 2)) {
        refuse(r, E_BAD_CBOR);
        return false;
    }
    return true;
}

/* As next, for an item of this kind with an argument of at most max; another well-formed item is E_BAD_MESSAGE. */
static bool expect(struct codec_reader *r, enum item_kind kind, uint64_t max, struct item *item) {
    if (!next(r, item)) {
        return false;
    }
    if (item->kind != kind || item->argument > max) {
        refuse(r, E_BAD_MESSAGE);
        return false;
    }
    return true;
}

/* Takes `items` items with all they hold off r; of_map: they are keys and values in turn.  Keys are scalars and ascend in the order
 * of their encodings (RFC 8949, 4.2.1), so none stands twice. */
static bool pass(struct codec_reader *r, uint64_t items, bool of_map) {
    struct {
        uint64_t left;
        bool of_map;
        struct bytes last_key;
    } levels[LIMIT_CBOR_DEPTH + 1] = {{.left = items, .of_map = of_map}};
    size_t depth = 0;
    for (;;) {
        while (levels[depth].left == 0) {
            if (depth == 0) {
                return true;
            }
            depth--;
        }
        bool is_key = levels[depth].of_map && levels[depth].left % 2 == 0;
        levels[depth].left--;
        const uint8_t *start = r->rest.data;
        struct item item;
        if (!next(r, &item)) {
            return false;
        }
        bool holds_items = item.kind == ITEM_ARRAY || item.kind == ITEM_MAP;
        if (is_key) {
            struct bytes key = bytes_of(start, (size_t)(r->rest.data - start));
            if (holds_items || (levels[depth].last_key.size > 0 && bytes_compare(levels[depth].last_key, key) >= 0)) {
                refuse(r, E_BAD_CBOR);
                return false;
            }
            levels[depth].last_key = key;
        }
        if (holds_items) {
            if (depth == LIMIT_CBOR_DEPTH) {
                refuse(r, E_BAD_CBOR);
                return false;
            }
            depth++;
            levels[depth].of_map = item.kind == ITEM_MAP;
            levels[depth].left = levels[depth].of_map ? item.argument * 2 : item.argument; /* next() bounded it by the input */
            levels[depth].last_key = bytes_of(NULL, 0);
        }
    }
}

void codec_reader_init(struct codec_reader *r, struct bytes in) {
    *r = (struct codec_reader){.rest = in, .err = E_OK};
}

uint64_t codec_uint(struct codec_reader *r, uint64_t max) {
    struct item item;
    return expect(r, ITEM_UINT, max, &item) ? item.argument : 0;
}

int64_t codec_int(struct codec_reader *r) {
    struct item item;
    if (!next(r, &item)) {
        return 0;
    }
    if ((item.kind != ITEM_UINT && item.kind != ITEM_NEGATIVE) || item.argument > INT64_MAX) {
        refuse(r, E_BAD_MESSAGE);
        return 0;
    }
    return item.kind == ITEM_UINT ? (int64_t)item.argument : -1 - (int64_t)item.argument;
}

bool codec_bool(struct codec_reader *r) {
    struct item item;
    return expect(r, ITEM_BOOL, 1, &item) && item.argument != 0;
}

struct bytes codec_bytes(struct codec_reader *r, size_t size_max) {
    struct item item;
    return expect(r, ITEM_BYTES, size_max, &item) ? bytes_of(item.content, (size_t)item.argument) : bytes_of(NULL, 0);
}

struct bytes codec_text(struct codec_reader *r, size_t size_max) {
    struct item item;
    return expect(r, ITEM_TEXT, size_max, &item) ? bytes_of(item.content, (size_t)item.argument) : bytes_of(NULL, 0);
}

void codec_fixed(struct codec_reader *r, uint8_t *out, size_t size) {
    struct bytes in = codec_bytes(r, size);
    if (r->err == E_OK && in.size != size) {
        refuse(r, E_BAD_MESSAGE);
    }
    if (size == 0) {
        return;
    }
    if (r->err == E_OK) {
        memcpy(out, in.data, size);
    } else {
        memset(out, 0, size);
    }
}

uint64_t codec_array(struct codec_reader *r, uint64_t count_max) {
    struct item item;
    return expect(r, ITEM_ARRAY, count_max, &item) ? item.argument : 0;
}

uint64_t codec_map(struct codec_reader *r, uint64_t count_max) {
    struct item item;
    if (!expect(r, ITEM_MAP, count_max, &item)) {
        return 0;
    }
    struct codec_reader ahead = *r;
    if (!pass(&ahead, item.argument * 2, true)) {
        refuse(r, ahead.err);
        return 0;
    }
    return item.argument;
}

bool codec_null(struct codec_reader *r) {
    if (r->err != E_OK || r->rest.size == 0 || r->rest.data[0] != 0xf6) {
        return false;
    }
    struct item item;
    return next(r, &item);
}

struct bytes codec_skip(struct codec_reader *r) {
    const uint8_t *start = r->rest.data;
    return pass(r, 1, false) ? bytes_of(start, (size_t)(r->rest.data - start)) : bytes_of(NULL, 0);
}

enum grey_error codec_end(struct codec_reader *r) {
    if (r->err == E_OK && r->rest.size > 0) {
        refuse(r, E_BAD_CBOR);
    }
    return r->err;
}
