#include "federation/attest/inquiry.h"

#include <string.h>

#include "platform/codec.h"

#define VERSION 1u

void inquiry_put(struct builder *b, const struct inquiry *i) {
    codec_put_array(b, 4);
    codec_put_uint(b, VERSION);
    codec_put_bytes(b, bytes_of(i->nonce, sizeof i->nonce));
    codec_put_uint(b, i->pcr_mask);
    codec_put_bool(b, i->boot_log_known);
}

enum grey_error inquiry_get(struct bytes in, struct inquiry *out) {
    struct codec_reader r;
    struct inquiry i;
    memset(out, 0, sizeof *out);
    codec_reader_init(&r, in);
    bool well = codec_array(&r, 4) == 4 && codec_uint(&r, VERSION) == VERSION;
    codec_fixed(&r, i.nonce, sizeof i.nonce);
    i.pcr_mask = (uint32_t)codec_uint(&r, TPMWIRE_PCR_MASK);
    i.boot_log_known = codec_bool(&r);
    if (!well || codec_end(&r) != E_OK || i.pcr_mask == 0) {
        return E_ATTEST_FORMAT;
    }
    *out = i;
    return E_OK;
}

void inquiry_put_order(struct builder *b, const struct inquiry_order *o) {
    codec_put_array(b, 8);
    codec_put_uint(b, VERSION);
    codec_put_uint(b, o->type);
    attest_put_identity(b, &o->who);
    codec_put_bytes(b, o->inquiry);
}

enum grey_error inquiry_get_order(struct bytes in, struct inquiry_order *out) {
    struct codec_reader r;
    struct inquiry_order o;
    memset(out, 0, sizeof *out);
    codec_reader_init(&r, in);
    bool well = codec_array(&r, 8) == 8 && codec_uint(&r, VERSION) == VERSION;
    o.type = (enum attest_type)codec_uint(&r, ATTEST_TYPES - 1);
    well = attest_get_identity(&r, &o.who) && well;
    o.inquiry = codec_bytes(&r, INQUIRY_BYTES_MAX);
    if (!well || codec_end(&r) != E_OK) {
        return E_ATTEST_FORMAT;
    }
    *out = o;
    return E_OK;
}
