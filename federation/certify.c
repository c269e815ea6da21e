#include "federation/certify.h"

#include <string.h>

static void put_head(struct builder *out, enum message_kind kind, unsigned fields, const struct certify *c) {
    codec_put_array(out, 3u + fields);
    codec_put_uint(out, (uint64_t)kind);
    codec_put_uint(out, c->incarnation);
    codec_put_uint(out, c->epoch);
}

void certify_put_request(struct builder *out, const struct certify *c) {
    put_head(out, MESSAGE_UP_CERTIFY, 1, c);
    codec_put_bytes(out, c->pem);
}

void certify_put_certificate(struct builder *out, const struct certify *c) {
    put_head(out, MESSAGE_DOWN_CERTIFIED, 2, c);
    codec_put_text(out, c->node);
    codec_put_bytes(out, c->pem);
}

static void get_head(struct codec_reader *r, struct bytes content, enum message_kind kind, unsigned fields, struct certify *c) {
    memset(c, 0, sizeof *c);
    codec_reader_init(r, content);
    if (codec_array(r, 3u + fields) != 3u + fields && r->err == E_OK) {
        r->err = E_BAD_MESSAGE;
    }
    if (codec_uint(r, UINT16_MAX) != (uint64_t)kind && r->err == E_OK) {
        r->err = E_BAD_MESSAGE;
    }
    c->incarnation = codec_uint(r, INT64_MAX);
    c->epoch = codec_uint(r, INT64_MAX);
}

static enum grey_error end(struct codec_reader *r, bool good) {
    enum grey_error err = codec_end(r);
    return err == E_OK && !good ? E_BAD_MESSAGE : err;
}

enum grey_error certify_get_request(struct bytes content, struct certify *c) {
    struct codec_reader r;
    get_head(&r, content, MESSAGE_UP_CERTIFY, 1, c);
    c->pem = codec_bytes(&r, CERTIFY_REQUEST_BYTES_MAX);
    return end(&r, c->incarnation > 0 && c->pem.size > 0);
}

enum grey_error certify_get_certificate(struct bytes content, struct certify *c) {
    struct codec_reader r;
    get_head(&r, content, MESSAGE_DOWN_CERTIFIED, 2, c);
    c->node = codec_text(&r, LIMIT_NAME_BYTES);
    c->pem = codec_bytes(&r, CERTIFY_CERTIFICATE_BYTES_MAX);
    return end(&r, c->incarnation > 0 && c->pem.size > 0 && grey_name_valid((const char *)c->node.data, c->node.size));
}
