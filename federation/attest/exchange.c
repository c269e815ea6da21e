#include "federation/attest/exchange.h"

#include "platform/codec.h"
#include "platform/fault.h"

#define ERROR_ID_MAX 9999u

bool exchange_goes_up(enum exchange_word w) {
    return w >= EXCHANGE_ASK && w <= EXCHANGE_EVIDENCE;
}

void exchange_put_refusal(struct builder *b, enum grey_error why, struct bytes detail) {
    size_t size = detail.size;
    while (size > EXCHANGE_DETAIL_BYTES || !bytes_utf8_valid(bytes_of(detail.data, size))) {
        size--; /* at most to 0, which is valid */
    }
    codec_put_array(b, 2);
    codec_put_uint(b, (uint64_t)error_id(why));
    codec_put_text(b, bytes_of(detail.data, size));
}

enum grey_error exchange_get_refusal(struct bytes in, enum grey_error *why, struct bytes *detail) {
    struct codec_reader r;
    codec_reader_init(&r, in);
    bool well = codec_array(&r, 2) == 2;
    uint64_t id = codec_uint(&r, ERROR_ID_MAX);
    *detail = codec_text(&r, EXCHANGE_DETAIL_BYTES);
    *why = error_by_id((int)id);
    *why = *why == E_OK ? E_ATTEST_FORMAT : *why;
    return well && codec_end(&r) == E_OK ? E_OK : E_ATTEST_FORMAT;
}
