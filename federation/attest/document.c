#include "federation/attest/document.h"

#include <string.h>

#include "federation/attest/cose.h"
#include "platform/codec.h"

#define VERSION 1u
#define KIND "grey/instance"

enum grey_error document_sign(struct builder *out, const struct document *d, const uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES],
                              const uint8_t secret_key[KEYS_ED25519_SECRET_BYTES]) {
    struct builder b;
    builder_init(&b, ATTEST_DOCUMENT_BYTES_MAX);
    codec_put_array(&b, 7);
    codec_put_uint(&b, VERSION);
    codec_put_text(&b, d->instance);
    codec_put_text(&b, d->site);
    codec_put_text(&b, d->node);
    codec_put_bytes(&b, bytes_of(d->signing_key, sizeof d->signing_key));
    codec_put_int(&b, d->from_s);
    codec_put_int(&b, d->until_s);
    enum grey_error err = b.err != E_OK ? b.err : cose_sign(out, KIND, builder_bytes(&b), public_key, secret_key);
    builder_free(&b);
    return err;
}

enum grey_error document_judge(struct bytes in, const struct attest_identity *who,
                               const uint8_t (*public_keys)[KEYS_ED25519_PUBLIC_BYTES], uint32_t key_count, int64_t now_ms,
                               struct fault *f) {
    struct codec_reader r;
    struct bytes payload;
    struct document d;
    enum grey_error err = cose_open(in, KIND, public_keys, key_count, ATTEST_DOCUMENT_BYTES_MAX, &payload);
    if (err == E_NO_MEMORY) {
        return err;
    }
    if (err != E_OK) {
        return fault_set(f, E_ATTEST_DOCUMENT, "nobody who may has signed it");
    }
    codec_reader_init(&r, payload);
    bool well = codec_array(&r, 7) == 7 && codec_uint(&r, VERSION) == VERSION;
    d.instance = codec_text(&r, DOCUMENT_INSTANCE_BYTES);
    d.site = codec_text(&r, LIMIT_NAME_BYTES);
    d.node = codec_text(&r, LIMIT_NAME_BYTES);
    codec_fixed(&r, d.signing_key, sizeof d.signing_key);
    d.from_s = codec_int(&r);
    d.until_s = codec_int(&r);
    if (!well || codec_end(&r) != E_OK || d.instance.size == 0) {
        return fault_set(f, E_ATTEST_DOCUMENT, "it is malformed");
    }
    if (!bytes_equal(d.site, who->site) || !bytes_equal(d.node, who->node) ||
        memcmp(d.signing_key, who->signing_key, sizeof d.signing_key) != 0) {
        return fault_set(f, E_ATTEST_DOCUMENT, "it is about another gateway");
    }
    int64_t now_s = now_ms / 1000;
    if (now_s < d.from_s || now_s >= d.until_s) {
        return fault_set(f, E_ATTEST_DOCUMENT, "it is not valid now");
    }
    return E_OK;
}
