#include "federation/attest/cose.h"

#include <string.h>

#include "include/grey/must.h"
#include "platform/codec.h"
#include "platform/digest.h"

#define HEADER_ALGORITHM 1u
#define HEADER_KEY 4u
#define HEADER_TYPE 16u /* RFC 9596 */
#define ALGORITHM_EDDSA (-8)
#define KEY_ID_BYTES 8u
#define HEADER_BYTES_MAX 96u

static void put_header(struct builder *b, const char *kind, const uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES]) {
    uint8_t id[DIGEST_SHA256_BYTES];
    digest_sha256(bytes_of(public_key, KEYS_ED25519_PUBLIC_BYTES), id);
    codec_put_map(b, 3);
    codec_put_uint(b, HEADER_ALGORITHM);
    codec_put_int(b, ALGORITHM_EDDSA);
    codec_put_uint(b, HEADER_KEY);
    codec_put_bytes(b, bytes_of(id, KEY_ID_BYTES));
    codec_put_uint(b, HEADER_TYPE);
    codec_put_text(b, bytes_str(kind));
}

/* Sig_structure of RFC 9052, 4.4. */
static void put_signed(struct builder *b, struct bytes header, struct bytes payload) {
    codec_put_array(b, 4);
    codec_put_text(b, bytes_str("Signature1"));
    codec_put_bytes(b, header);
    codec_put_bytes(b, bytes_of(NULL, 0));
    codec_put_bytes(b, payload);
}

enum grey_error cose_sign(struct builder *out, const char *kind, struct bytes payload,
                          const uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES],
                          const uint8_t secret_key[KEYS_ED25519_SECRET_BYTES]) {
    struct builder header, message;
    uint8_t signature[KEYS_ED25519_SIGNATURE_BYTES];
    must(strlen(kind) <= COSE_KIND_BYTES);
    builder_init(&header, HEADER_BYTES_MAX);
    builder_init(&message, payload.size + COSE_OVERHEAD_BYTES);
    put_header(&header, kind, public_key);
    put_signed(&message, builder_bytes(&header), payload);
    enum grey_error err = header.err != E_OK ? header.err : message.err;
    if (err == E_OK) {
        keys_sign_ed25519(builder_bytes(&message), secret_key, signature);
        codec_put_array(out, 4);
        codec_put_bytes(out, builder_bytes(&header));
        codec_put_map(out, 0);
        codec_put_bytes(out, payload);
        codec_put_bytes(out, bytes_of(signature, sizeof signature));
        err = out->err;
    }
    builder_free(&message);
    builder_free(&header);
    return err;
}

static enum grey_error check(struct bytes header, struct bytes payload, const uint8_t signature[KEYS_ED25519_SIGNATURE_BYTES],
                             const char *kind, const uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES]) {
    struct builder wanted, message;
    builder_init(&wanted, HEADER_BYTES_MAX);
    builder_init(&message, payload.size + COSE_OVERHEAD_BYTES);
    put_header(&wanted, kind, public_key);
    put_signed(&message, header, payload);
    enum grey_error err = wanted.err != E_OK ? wanted.err : message.err;
    if (err == E_OK &&
        (!bytes_equal(header, builder_bytes(&wanted)) || !keys_verify_ed25519(builder_bytes(&message), public_key, signature))) {
        err = E_SEAL;
    }
    builder_free(&message);
    builder_free(&wanted);
    return err;
}

enum grey_error cose_open(struct bytes in, const char *kind, const uint8_t (*public_keys)[KEYS_ED25519_PUBLIC_BYTES],
                          uint32_t count, size_t payload_max, struct bytes *payload) {
    struct codec_reader r;
    uint8_t signature[KEYS_ED25519_SIGNATURE_BYTES];
    *payload = bytes_of(NULL, 0);
    codec_reader_init(&r, in);
    bool well = codec_array(&r, 4) == 4;
    struct bytes header = codec_bytes(&r, HEADER_BYTES_MAX);
    (void)codec_map(&r, 0);
    struct bytes inside = codec_bytes(&r, payload_max);
    codec_fixed(&r, signature, sizeof signature);
    if (!well || codec_end(&r) != E_OK) {
        return E_BAD_MESSAGE;
    }
    enum grey_error err = E_SEAL;
    for (uint32_t i = 0; i < count && err == E_SEAL; i++) {
        err = check(header, inside, signature, kind, public_keys[i]);
    }
    if (err == E_OK) {
        *payload = inside;
    }
    return err;
}
