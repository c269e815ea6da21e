/* Any bytes: what codec_skip takes is written again item by item, and must come out the same: there is one encoding of each value.
 * The readers by type must be safe on all of it, and none may take what codec_skip refuses. */
#include "include/grey/limits.h"
#include "include/grey/must.h"
#include "platform/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads the next item by type, as its first byte says, and writes it to out.  Depth is bounded: codec_skip took it before. */
static void copy_item(struct codec_reader *r, struct builder *out) {
    must(r->rest.size > 0);
    switch (r->rest.data[0] >> 5) {
    case 0:
        codec_put_uint(out, codec_uint(r, UINT64_MAX));
        break;
    case 1:
        codec_put_int(out, codec_int(r));
        break;
    case 2:
        codec_put_bytes(out, codec_bytes(r, SIZE_MAX));
        break;
    case 3:
        codec_put_text(out, codec_text(r, SIZE_MAX));
        break;
    case 4: {
        uint64_t count = codec_array(r, UINT64_MAX);
        codec_put_array(out, count);
        for (uint64_t i = 0; i < count && r->err == E_OK; i++) {
            copy_item(r, out);
        }
        break;
    }
    case 5: {
        uint64_t count = codec_map(r, UINT64_MAX);
        codec_put_map(out, count);
        for (uint64_t i = 0; i < 2 * count && r->err == E_OK; i++) {
            copy_item(r, out);
        }
        break;
    }
    default:
        if (codec_null(r)) {
            codec_put_null(out);
        } else {
            codec_put_bool(out, codec_bool(r));
        }
        break;
    }
}

static void read_wildly(struct bytes in) {
    struct codec_reader r;
    uint8_t fixed[32];
    codec_reader_init(&r, in);
    for (size_t i = 0; r.rest.size > 0; i++) {
        switch (in.data[i % in.size] % 9) {
        case 0:
            must(codec_uint(&r, 1000) <= 1000);
            break;
        case 1:
            (void)codec_int(&r);
            break;
        case 2:
            must(codec_bytes(&r, 64).size <= 64);
            break;
        case 3:
            must(codec_text(&r, 64).size <= 64);
            break;
        case 4:
            codec_fixed(&r, fixed, sizeof fixed);
            break;
        case 5:
            must(codec_array(&r, 100) <= 100);
            break;
        case 6:
            must(codec_map(&r, 100) <= 100);
            break;
        case 7:
            (void)(codec_null(&r) || codec_bool(&r));
            break;
        default:
            must(codec_skip(&r).size <= in.size);
            break;
        }
    }
    (void)codec_end(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) {
        return 0;
    }
    struct bytes in = bytes_of(data, size);
    read_wildly(in);

    struct codec_reader r;
    codec_reader_init(&r, in);
    struct bytes item = codec_skip(&r);
    if (r.err != E_OK) {
        must(r.err == E_BAD_CBOR && item.size == 0);
        return 0;
    }
    must(item.data == data && item.size > 0 && item.size + r.rest.size == size);
    struct builder out;
    builder_init(&out, size);
    codec_reader_init(&r, item);
    copy_item(&r, &out);
    /* The one thing that codec_skip takes and no type can hold: a negative number below -2^63. */
    must(codec_end(&r) == E_OK || r.err == E_BAD_MESSAGE);
    must(r.err != E_OK || (out.err == E_OK && bytes_equal(builder_bytes(&out), item)));
    builder_free(&out);
    return 0;
}
