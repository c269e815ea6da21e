#include "platform/cipher.h"

#include <mbedtls/gcm.h>
#include <mbedtls/platform_util.h>
#include <string.h>

#include "include/grey/must.h"
#include "platform/digest.h"

/* False: no memory for the rounds' keys. */
static bool with_key(mbedtls_gcm_context *gcm, const uint8_t key[CIPHER_KEY_BYTES]) {
    mbedtls_gcm_init(gcm);
    return mbedtls_gcm_setkey(gcm, MBEDTLS_CIPHER_ID_AES, key, CIPHER_KEY_BYTES * 8) == 0;
}

bool cipher_seal(const uint8_t key[CIPHER_KEY_BYTES], const uint8_t nonce[CIPHER_NONCE_BYTES], struct bytes also_bound,
                 struct bytes plain, uint8_t *out) {
    mbedtls_gcm_context gcm;
    bool ready = with_key(&gcm, key);
    if (ready) {
        must(mbedtls_gcm_crypt_and_tag(&gcm, MBEDTLS_GCM_ENCRYPT, plain.size, nonce, CIPHER_NONCE_BYTES, also_bound.data,
                                       also_bound.size, plain.data, out, CIPHER_TAG_BYTES, out + plain.size) == 0);
    } else {
        cipher_wipe(out, plain.size + CIPHER_TAG_BYTES);
    }
    mbedtls_gcm_free(&gcm);
    return ready;
}

bool cipher_open(const uint8_t key[CIPHER_KEY_BYTES], const uint8_t nonce[CIPHER_NONCE_BYTES], struct bytes also_bound,
                 struct bytes sealed, uint8_t *out) {
    if (sealed.size < CIPHER_TAG_BYTES) {
        return false;
    }
    mbedtls_gcm_context gcm;
    size_t size = sealed.size - CIPHER_TAG_BYTES;
    bool opened =
        with_key(&gcm, key) && mbedtls_gcm_auth_decrypt(&gcm, size, nonce, CIPHER_NONCE_BYTES, also_bound.data, also_bound.size,
                                                        sealed.data + size, CIPHER_TAG_BYTES, sealed.data, out) == 0;
    mbedtls_gcm_free(&gcm);
    if (!opened) {
        cipher_wipe(out, size);
    }
    return opened;
}

/* Of our own HMAC: mbedTLS's asks for memory, and whoever derives a key has no answer to that. */
void cipher_derive(struct bytes salt, struct bytes secret, struct bytes info, uint8_t *out, size_t out_size) {
    uint8_t extracted[DIGEST_SHA256_BYTES], block[DIGEST_SHA256_BYTES], number = 0;
    must(out_size <= (size_t)255 * DIGEST_SHA256_BYTES);
    digest_hmac(salt, &secret, 1, extracted);
    for (size_t at = 0; at < out_size; at += sizeof block) {
        struct bytes parts[] = {bytes_of(block, number == 0 ? 0 : sizeof block), info, bytes_of(&number, 1)};
        number++;
        digest_hmac(bytes_of(extracted, sizeof extracted), parts, 3, block);
        memcpy(out + at, block, out_size - at < sizeof block ? out_size - at : sizeof block);
    }
    cipher_wipe(extracted, sizeof extracted);
    cipher_wipe(block, sizeof block);
}

void cipher_wipe(void *secret, size_t size) {
    mbedtls_platform_zeroize(secret, size);
}
