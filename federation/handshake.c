#include "federation/handshake.h"

#include <string.h>

#include "include/grey/limits.h"
#include "include/grey/protocol.h"
#include "platform/codec.h"

#define PROTOCOL "Grey end to end 1: NK, X25519, AES-256-GCM, SHA-256"
#define PROOF_LABEL "grey-handshake-proof" /* with its NUL: what is signed for one purpose must not pass for another */

static_assert(CIPHER_KEY_BYTES == DIGEST_SHA256_BYTES, "the chain begins with a digest");

static const uint8_t nonce[CIPHER_NONCE_BYTES]; /* zero: each of these keys seals one message */

static void say(struct handshake *h, struct bytes part) {
    digest_sha256_two(bytes_of(h->said, sizeof h->said), part, h->said);
}

/* Another secret that both have: into the chain, and what may be sealed with it now. */
static void mix(struct handshake *h, const uint8_t shared[KEYS_X25519_BYTES], uint8_t key[CIPHER_KEY_BYTES]) {
    uint8_t out[2 * CIPHER_KEY_BYTES];
    cipher_derive(bytes_of(h->chain, sizeof h->chain), bytes_of(shared, KEYS_X25519_BYTES), bytes_str(PROTOCOL), out, sizeof out);
    memcpy(h->chain, out, sizeof h->chain);
    memcpy(key, out + CIPHER_KEY_BYTES, CIPHER_KEY_BYTES);
    cipher_wipe(out, sizeof out);
}

static void begin(struct handshake *h, const char *site, const uint8_t core_public[KEYS_X25519_BYTES],
                  const uint8_t site_public[KEYS_X25519_BYTES]) {
    digest_sha256(bytes_str(PROTOCOL), h->said);
    memcpy(h->chain, h->said, sizeof h->chain);
    say(h, bytes_str(site));
    say(h, bytes_of(core_public, KEYS_X25519_BYTES));
    say(h, bytes_of(site_public, KEYS_X25519_BYTES));
}

/* Both ends, when all is said. */
static void finish(struct handshake *h, struct handshake_keys *keys) {
    uint8_t out[2 * CIPHER_KEY_BYTES];
    cipher_derive(bytes_of(h->said, sizeof h->said), bytes_of(h->chain, sizeof h->chain), bytes_str(PROTOCOL ", frames"), out,
                  sizeof out);
    memcpy(keys->up, out, sizeof keys->up);
    memcpy(keys->down, out + CIPHER_KEY_BYTES, sizeof keys->down);
    cipher_wipe(out, sizeof out);
    cipher_wipe(h, sizeof *h);
}

static void put(struct builder *out, enum message_kind kind, const uint8_t public_key[KEYS_X25519_BYTES], struct bytes box) {
    codec_put_array(out, 3);
    codec_put_uint(out, (uint64_t)kind);
    codec_put_bytes(out, bytes_of(public_key, KEYS_X25519_BYTES));
    codec_put_bytes(out, box);
}

static enum grey_error get(struct bytes content, enum message_kind kind, uint8_t public_key[KEYS_X25519_BYTES], struct bytes *box) {
    struct codec_reader r;
    codec_reader_init(&r, content);
    bool fits = codec_array(&r, 3) == 3 && codec_uint(&r, UINT8_MAX) == (uint64_t)kind;
    codec_fixed(&r, public_key, KEYS_X25519_BYTES);
    *box = codec_bytes(&r, LIMIT_FRAME_PAYLOAD_BYTES);
    enum grey_error err = codec_end(&r);
    return err != E_OK ? err : fits && box->size >= CIPHER_TAG_BYTES ? E_OK : E_BAD_MESSAGE;
}

/* Appends the box of plain, bound to what was said, and says it. */
static void seal(struct handshake *h, const uint8_t key[CIPHER_KEY_BYTES], struct bytes plain, struct builder *out) {
    uint8_t *at = builder_room(out, plain.size + CIPHER_TAG_BYTES);
    if (at != NULL) {
        out->err = cipher_seal(key, nonce, bytes_of(h->said, sizeof h->said), plain, at) ? out->err : E_NO_MEMORY;
        say(h, bytes_of(at, plain.size + CIPHER_TAG_BYTES));
    }
}

static enum grey_error unseal(struct handshake *h, const uint8_t key[CIPHER_KEY_BYTES], struct bytes box, struct builder *scratch,
                              struct bytes *plain) {
    builder_reset(scratch);
    uint8_t *at = builder_room(scratch, box.size);
    if (at == NULL) {
        return scratch->err;
    }
    if (!cipher_open(key, nonce, bytes_of(h->said, sizeof h->said), box, at)) {
        return E_SEALED;
    }
    say(h, box);
    *plain = bytes_of(at, box.size - CIPHER_TAG_BYTES);
    return E_OK;
}

/* --- the site ------------------------------------------------------------------------------------------------------------------------------- */

bool handshake_begin(struct handshake *h, const char *site, const uint8_t core_key[KEYS_ED25519_PUBLIC_BYTES],
                     const uint8_t fresh[KEYS_X25519_BYTES]) {
    uint8_t mine[KEYS_X25519_BYTES];
    *h = (struct handshake){0};
    if (!keys_x25519_of_public(core_key, h->theirs)) {
        return false;
    }
    memcpy(h->secret, fresh, sizeof h->secret);
    keys_public_x25519(fresh, mine);
    begin(h, site, h->theirs, mine);
    return true;
}

void handshake_proof(const struct handshake *h, struct bytes hello, struct bytes cert, uint8_t proof[DIGEST_SHA256_BYTES]) {
    uint8_t all[sizeof PROOF_LABEL + 3 * DIGEST_SHA256_BYTES], *at = all + sizeof PROOF_LABEL;
    memcpy(all, PROOF_LABEL, sizeof PROOF_LABEL);
    memcpy(at, h->said, DIGEST_SHA256_BYTES);
    digest_sha256(hello, at + DIGEST_SHA256_BYTES);
    digest_sha256(cert, at + 2 * DIGEST_SHA256_BYTES);
    digest_sha256(bytes_of(all, sizeof all), proof);
}

void handshake_put_hello(struct builder *out, struct handshake *h, struct bytes hello, struct bytes cert, struct bytes signature) {
    uint8_t mine[KEYS_X25519_BYTES], shared[KEYS_X25519_BYTES], key[CIPHER_KEY_BYTES];
    struct builder plain, box;
    builder_init(&plain, LIMIT_FRAME_PAYLOAD_BYTES);
    builder_init(&box, LIMIT_FRAME_PAYLOAD_BYTES);
    codec_put_array(&plain, 3);
    codec_put_bytes(&plain, hello);
    codec_put_bytes(&plain, cert);
    codec_put_bytes(&plain, signature);
    if (plain.err == E_OK && keys_agree_x25519(h->secret, h->theirs, shared)) {
        mix(h, shared, key);
        seal(h, key, builder_bytes(&plain), &box);
        keys_public_x25519(h->secret, mine);
        put(out, MESSAGE_UP_SEALED_HELLO, mine, builder_bytes(&box));
        cipher_wipe(shared, sizeof shared);
        cipher_wipe(key, sizeof key);
    }
    out->err = out->err != E_OK ? out->err : plain.err != E_OK ? plain.err : box.err;
    builder_free(&plain);
    builder_free(&box);
}

enum grey_error handshake_get_welcome(struct handshake *h, struct bytes content, struct builder *scratch, struct bytes *welcome,
                                      struct handshake_keys *keys) {
    uint8_t theirs[KEYS_X25519_BYTES], shared[KEYS_X25519_BYTES], key[CIPHER_KEY_BYTES];
    struct handshake tried = *h;
    struct bytes box;
    enum grey_error err = get(content, MESSAGE_DOWN_SEALED_WELCOME, theirs, &box);
    if (err != E_OK) {
        return err;
    }
    if (!keys_agree_x25519(h->secret, theirs, shared)) {
        return E_SEALED;
    }
    say(&tried, bytes_of(theirs, sizeof theirs));
    mix(&tried, shared, key);
    err = unseal(&tried, key, box, scratch, welcome);
    if (err == E_OK) {
        finish(&tried, keys);
        cipher_wipe(h, sizeof *h);
    }
    cipher_wipe(&tried, sizeof tried);
    cipher_wipe(shared, sizeof shared);
    cipher_wipe(key, sizeof key);
    return err;
}

/* --- the core ------------------------------------------------------------------------------------------------------------------------------- */

enum grey_error handshake_get_hello(struct handshake *h, const char *site, const uint8_t core_secret[KEYS_ED25519_SECRET_BYTES],
                                    struct bytes content, struct builder *scratch, struct handshake_hello *out) {
    uint8_t secret[KEYS_X25519_BYTES], mine[KEYS_X25519_BYTES], shared[KEYS_X25519_BYTES], key[CIPHER_KEY_BYTES];
    struct bytes box, plain = {0};
    struct codec_reader r;
    *h = (struct handshake){0};
    enum grey_error err = get(content, MESSAGE_UP_SEALED_HELLO, h->theirs, &box);
    if (err != E_OK) {
        return err;
    }
    keys_x25519_of_secret(core_secret, secret);
    keys_public_x25519(secret, mine);
    begin(h, site, mine, h->theirs);
    struct handshake first = *h; /* what the proof is about */
    if (keys_agree_x25519(secret, h->theirs, shared)) {
        mix(h, shared, key);
        err = unseal(h, key, box, scratch, &plain);
        cipher_wipe(shared, sizeof shared);
        cipher_wipe(key, sizeof key);
    } else {
        err = E_SEALED;
    }
    cipher_wipe(secret, sizeof secret);
    if (err != E_OK) {
        return err;
    }
    codec_reader_init(&r, plain);
    bool fits = codec_array(&r, 3) == 3;
    out->hello = codec_bytes(&r, LIMIT_FRAME_PAYLOAD_BYTES);
    out->cert = codec_bytes(&r, HANDSHAKE_CERT_BYTES_MAX);
    out->signature = codec_bytes(&r, HANDSHAKE_SIGNATURE_BYTES_MAX);
    err = codec_end(&r);
    if (err != E_OK || !fits) {
        return err != E_OK ? err : E_BAD_MESSAGE;
    }
    handshake_proof(&first, out->hello, out->cert, out->proof);
    return E_OK;
}

enum grey_error handshake_put_welcome(struct builder *out, struct handshake *h, const uint8_t fresh[KEYS_X25519_BYTES],
                                      struct bytes welcome, struct handshake_keys *keys) {
    uint8_t mine[KEYS_X25519_BYTES], shared[KEYS_X25519_BYTES], key[CIPHER_KEY_BYTES];
    struct builder box;
    if (!keys_agree_x25519(fresh, h->theirs, shared)) {
        return E_SEALED;
    }
    builder_init(&box, LIMIT_FRAME_PAYLOAD_BYTES);
    keys_public_x25519(fresh, mine);
    say(h, bytes_of(mine, sizeof mine));
    mix(h, shared, key);
    seal(h, key, welcome, &box);
    put(out, MESSAGE_DOWN_SEALED_WELCOME, mine, builder_bytes(&box));
    enum grey_error err = box.err != E_OK ? box.err : out->err;
    builder_free(&box);
    cipher_wipe(shared, sizeof shared);
    cipher_wipe(key, sizeof key);
    if (err == E_OK) {
        finish(h, keys);
    }
    return err;
}
