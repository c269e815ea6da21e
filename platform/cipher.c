#include "platform/cipher.h"

#include <mbedtls/gcm.h>
#include <mbedtls/hkdf.h>
#include <mbedtls/md.h>
#include <mbedtls/platform_util.h>

#include "include/grey/must.h"

static void with_key(mbedtls_gcm_context *gcm, const uint8_t key[CIPHER_KEY_BYTES]) {
    mbedtls_gcm_init(gcm);
    must(mbedtls_gcm_setkey(gcm, MBEDTLS_CIPHER_ID_AES, key, CIPHER_KEY_BYTES * 8) == 0);
}

void cipher_seal(const uint8_t key[CIPHER_KEY_BYTES], const uint8_t nonce[CIPHER_NONCE_BYTES], struct bytes also_bound,
                 struct bytes plain, uint8_t *out) {
    mbedtls_gcm_context gcm;
    with_key(&gcm, key);
    must(mbedtls_gcm_crypt_and_tag(&gcm, MBEDTLS_GCM_ENCRYPT, plain.size, nonce, CIPHER_NONCE_BYTES, also_bound.data,
                                   also_bound.size, plain.data, out, CIPHER_TAG_BYTES, out + plain.size) == 0);
    mbedtls_gcm_free(&gcm);
}

bool cipher_open(const uint8_t key[CIPHER_KEY_BYTES], const uint8_t nonce[CIPHER_NONCE_BYTES], struct bytes also_bound,
                 struct bytes sealed, uint8_t *out) {
    if (sealed.size < CIPHER_TAG_BYTES) {
        return false;
    }
    mbedtls_gcm_context gcm;
    size_t size = sealed.size - CIPHER_TAG_BYTES;
    with_key(&gcm, key);
    int code = mbedtls_gcm_auth_decrypt(&gcm, size, nonce, CIPHER_NONCE_BYTES, also_bound.data, also_bound.size, sealed.data + size,
                                        CIPHER_TAG_BYTES, sealed.data, out);
    mbedtls_gcm_free(&gcm);
    if (code != 0) {
        cipher_wipe(out, size);
    }
    return code == 0;
}

void cipher_derive(struct bytes salt, struct bytes secret, struct bytes info, uint8_t *out, size_t out_size) {
    must(mbedtls_hkdf(mbedtls_md_info_from_type(MBEDTLS_MD_SHA256), salt.data, salt.size, secret.data, secret.size, info.data,
                      info.size, out, out_size) == 0);
}

void cipher_wipe(void *secret, size_t size) {
    mbedtls_platform_zeroize(secret, size);
}
