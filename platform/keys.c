#include "platform/keys.h"

#include <errno.h>
#include <mbedtls/ecp.h>
#include <mbedtls/error.h>
#include <mbedtls/pk.h>
#include <mbedtls/platform_util.h>
#include <sodium.h>
#include <string.h>
#include <sys/random.h>

#include "include/grey/must.h"

void keys_random(void *out, size_t size) {
    uint8_t *at = out;
    while (size > 0) {
        ssize_t got = getrandom(at, size, 0);
        must(got > 0 || errno == EINTR); /* the pool is ready once the machine has booted */
        if (got > 0) {
            at += got;
            size -= (size_t)got;
        }
    }
}

void keys_wipe(void *at, size_t size) {
    sodium_memzero(at, size);
}

int keys_rng(void *context, unsigned char *out, size_t size) {
    (void)context;
    keys_random(out, size);
    return 0;
}

static int make_p256(mbedtls_pk_context *key) {
    int code = mbedtls_pk_setup(key, mbedtls_pk_info_from_type(MBEDTLS_PK_ECKEY));
    return code != 0 ? code : mbedtls_ecp_gen_key(MBEDTLS_ECP_DP_SECP256R1, mbedtls_pk_ec(*key), keys_rng, NULL);
}

static enum grey_error new_p256(bool der, struct builder *out, struct fault *f) {
    unsigned char text[512];
    char reason[128];
    mbedtls_pk_context key;
    mbedtls_pk_init(&key);
    int code = make_p256(&key);
    code = code != 0 ? code
           : der     ? mbedtls_pk_write_key_der(&key, text, sizeof text)
                     : mbedtls_pk_write_key_pem(&key, text, sizeof text);
    mbedtls_pk_free(&key);
    if (code > 0) { /* DER is at the end of the room */
        builder_add(out, bytes_of(text + sizeof text - code, (size_t)code));
    } else if (code == 0) {
        builder_add_str(out, (const char *)text);
    }
    mbedtls_platform_zeroize(text, sizeof text);
    if (code < 0) {
        mbedtls_strerror(code, reason, sizeof reason);
        return fault_set(f, E_KEY, "new P-256 key: %s", reason);
    }
    return out->err == E_OK ? E_OK : fault_set(f, out->err, "new P-256 key: no room for its text");
}

enum grey_error keys_new_p256(struct builder *pem, struct fault *f) {
    return new_p256(false, pem, f);
}

enum grey_error keys_new_p256_der(struct builder *der, struct fault *f) {
    return new_p256(true, der, f);
}

/* Costs a lock once it has been done; every door begins here, so that no caller has to know. */
static void start_sodium(void) {
    must(sodium_init() >= 0);
}

void keys_new_ed25519(uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES], uint8_t secret_key[KEYS_ED25519_SECRET_BYTES]) {
    start_sodium();
    must(crypto_sign_keypair(public_key, secret_key) == 0);
}

void keys_sign_ed25519(struct bytes message, const uint8_t secret_key[KEYS_ED25519_SECRET_BYTES],
                       uint8_t signature[KEYS_ED25519_SIGNATURE_BYTES]) {
    start_sodium();
    must(crypto_sign_detached(signature, NULL, message.data, message.size, secret_key) == 0);
}

bool keys_verify_ed25519(struct bytes message, const uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES],
                         const uint8_t signature[KEYS_ED25519_SIGNATURE_BYTES]) {
    start_sodium();
    return crypto_sign_verify_detached(signature, message.data, message.size, public_key) == 0;
}

void keys_public_x25519(const uint8_t secret[KEYS_X25519_BYTES], uint8_t public_key[KEYS_X25519_BYTES]) {
    start_sodium();
    must(crypto_scalarmult_base(public_key, secret) == 0);
}

bool keys_agree_x25519(const uint8_t secret[KEYS_X25519_BYTES], const uint8_t other[KEYS_X25519_BYTES],
                       uint8_t shared[KEYS_X25519_BYTES]) {
    start_sodium();
    return crypto_scalarmult(shared, secret, other) == 0;
}

bool keys_x25519_of_public(const uint8_t ed25519[KEYS_ED25519_PUBLIC_BYTES], uint8_t public_key[KEYS_X25519_BYTES]) {
    start_sodium();
    return crypto_sign_ed25519_pk_to_curve25519(public_key, ed25519) == 0;
}

void keys_x25519_of_secret(const uint8_t ed25519[KEYS_ED25519_SECRET_BYTES], uint8_t secret[KEYS_X25519_BYTES]) {
    start_sodium();
    must(crypto_sign_ed25519_sk_to_curve25519(secret, ed25519) == 0);
}
