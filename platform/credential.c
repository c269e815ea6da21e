/* seed, 32 random bytes, goes to the endorsement key by RSA-OAEP with label "IDENTITY".  From it come (KDFa, SP 800-108 in counter mode)
 * a key for AES-128 and one for HMAC:
 *
 *   encrypted = AES-128-CFB(KDFa(seed, "STORAGE", name), iv 0, size u16 ‖ secret)
 *   blob      = 0020 ‖ HMAC-SHA256(KDFa(seed, "INTEGRITY"), encrypted ‖ name) ‖ encrypted */
#include "platform/credential.h"

#include <mbedtls/aes.h>
#include <mbedtls/platform_util.h>
#include <mbedtls/rsa.h>
#include <mbedtls/version.h>
#include <string.h>

#include "include/grey/must.h"
#include "platform/digest.h"

#define HASH_BYTES 32u
#define SEED_BYTES 32u

static void hmac(const uint8_t key[HASH_BYTES], struct bytes message, uint8_t out[HASH_BYTES]) {
    digest_hmac(bytes_of(key, HASH_BYTES), &message, 1, out);
}

/* KDFa (part 1, 11.4.10.2): HMAC(seed, 1 u32 ‖ label with its NUL ‖ context ‖ bits u32); one round, so at most 256 bits. */
static void derive(const uint8_t seed[SEED_BYTES], struct bytes label, struct bytes context, uint32_t bits,
                   uint8_t out[HASH_BYTES]) {
    uint8_t message[4 + 16 + CREDENTIAL_NAME_BYTES + 4];
    must(label.size <= 16 && context.size <= CREDENTIAL_NAME_BYTES);
    uint8_t *at = message;
    bytes_put_be32(at, 1);
    memcpy(at += 4, label.data, label.size);
    at += label.size;
    if (context.size > 0) {
        memcpy(at, context.data, context.size);
        at += context.size;
    }
    bytes_put_be32(at, bits);
    hmac(seed, bytes_of(message, (size_t)(at + 4 - message)), out);
}

/* The randomness that OAEP asks for: what the caller gave, once. */
static int given(void *context, unsigned char *out, size_t size) {
    struct bytes *left = context;
    if (size > left->size) {
        return MBEDTLS_ERR_RSA_RNG_FAILED;
    }
    memcpy(out, left->data, size);
    *left = bytes_of(left->data + size, left->size - size);
    return 0;
}

static enum grey_error encrypt_seed(const struct ekcert *ek, const uint8_t seed[SEED_BYTES], struct bytes random,
                                    uint8_t out[CREDENTIAL_SEED_BYTES]) {
    mbedtls_rsa_context rsa;
    uint8_t e[4];
    bytes_put_be32(e, ek->exponent);
#if MBEDTLS_VERSION_MAJOR >= 3
    mbedtls_rsa_init(&rsa);
    int code = mbedtls_rsa_set_padding(&rsa, MBEDTLS_RSA_PKCS_V21, MBEDTLS_MD_SHA256);
#else
    mbedtls_rsa_init(&rsa, MBEDTLS_RSA_PKCS_V21, MBEDTLS_MD_SHA256);
    int code = 0;
#endif
    code = code != 0 ? code : mbedtls_rsa_import_raw(&rsa, ek->modulus, sizeof ek->modulus, NULL, 0, NULL, 0, NULL, 0, e, sizeof e);
    code = code != 0 ? code : mbedtls_rsa_complete(&rsa);
    code = code != 0 ? code : mbedtls_rsa_check_pubkey(&rsa);
    static const unsigned char label[] = "IDENTITY"; /* its NUL counts */
    if (code == 0) {
#if MBEDTLS_VERSION_MAJOR >= 3
        code = mbedtls_rsa_rsaes_oaep_encrypt(&rsa, given, &random, label, sizeof label, SEED_BYTES, seed, out);
#else
        code = mbedtls_rsa_rsaes_oaep_encrypt(&rsa, given, &random, MBEDTLS_RSA_PUBLIC, label, sizeof label, SEED_BYTES, seed, out);
#endif
    }
    mbedtls_rsa_free(&rsa);
    return code == 0 ? E_OK : E_ATTEST_EK;
}

enum grey_error credential_make(const struct ekcert *ek, const uint8_t name[CREDENTIAL_NAME_BYTES],
                                const uint8_t secret[CREDENTIAL_SECRET_BYTES], const uint8_t random[CREDENTIAL_RANDOM_BYTES],
                                struct credential *out) {
    uint8_t key[HASH_BYTES], iv[16] = {0}, plain[2 + CREDENTIAL_SECRET_BYTES], covered[sizeof plain + CREDENTIAL_NAME_BYTES];
    struct bytes who = bytes_of(name, CREDENTIAL_NAME_BYTES);
    mbedtls_aes_context aes;
    size_t offset = 0;
    memset(out, 0, sizeof *out);
    enum grey_error err = encrypt_seed(ek, random, bytes_of(random + SEED_BYTES, CREDENTIAL_RANDOM_BYTES - SEED_BYTES), out->seed);
    if (err != E_OK) {
        return err;
    }
    bytes_put_be16(plain, CREDENTIAL_SECRET_BYTES);
    memcpy(plain + 2, secret, CREDENTIAL_SECRET_BYTES);
    derive(random, bytes_of("STORAGE", sizeof "STORAGE"), who, 128, key);
    mbedtls_aes_init(&aes);
    must(mbedtls_aes_setkey_enc(&aes, key, 128) == 0 &&
         mbedtls_aes_crypt_cfb128(&aes, MBEDTLS_AES_ENCRYPT, sizeof plain, &offset, iv, plain, covered) == 0);
    mbedtls_aes_free(&aes);
    memcpy(covered + sizeof plain, name, CREDENTIAL_NAME_BYTES);
    derive(random, bytes_of("INTEGRITY", sizeof "INTEGRITY"), bytes_of(NULL, 0), 256, key);
    bytes_put_be16(out->blob, HASH_BYTES);
    hmac(key, bytes_of(covered, sizeof covered), out->blob + 2);
    memcpy(out->blob + 2 + HASH_BYTES, covered, sizeof plain);
    mbedtls_platform_zeroize(key, sizeof key);
    mbedtls_platform_zeroize(plain, sizeof plain);
    return E_OK;
}

/* TPMT_PUBLIC of template L-1 up to the modulus: RSA, SHA-256, its attributes, policy PolicySecret(endorsement), AES-128-CFB, no scheme, 2048
 * bits, exponent by default. */
static const uint8_t endorsement_head[] = {0x00, 0x01, 0x00, 0x0b, 0x00, 0x03, 0x00, 0xb2, 0x00, 0x20, 0x83, 0x71, 0x97, 0x67, 0x44,
                                           0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24, 0xfd, 0x52, 0xd7, 0x6e,
                                           0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa, 0x00, 0x06, 0x00,
                                           0x80, 0x00, 0x43, 0x00, 0x10, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00};

static void name_of(struct bytes a, struct bytes b, uint8_t out[CREDENTIAL_NAME_BYTES]) {
    bytes_put_be16(out, 0x000b);
    digest_sha256_two(a, b, out + 2);
}

void credential_qualify(const struct ekcert *ek, const uint8_t name[CREDENTIAL_NAME_BYTES], uint8_t out[CREDENTIAL_NAME_BYTES]) {
    static const uint8_t hierarchy[] = {0x40, 0x00, 0x00, 0x0b}; /* TPM_RH_ENDORSEMENT */
    uint8_t own[CREDENTIAL_NAME_BYTES], parent[CREDENTIAL_NAME_BYTES];
    name_of(bytes_of(endorsement_head, sizeof endorsement_head), bytes_of(ek->modulus, sizeof ek->modulus), own);
    name_of(bytes_of(hierarchy, sizeof hierarchy), bytes_of(own, sizeof own), parent);
    name_of(bytes_of(parent, sizeof parent), bytes_of(name, CREDENTIAL_NAME_BYTES), out);
}

bool credential_equal(const uint8_t a[CREDENTIAL_SECRET_BYTES], const uint8_t b[CREDENTIAL_SECRET_BYTES]) {
    unsigned differs = 0;
    for (size_t i = 0; i < CREDENTIAL_SECRET_BYTES; i++) {
        differs |= (unsigned)(a[i] ^ b[i]);
    }
    return differs == 0;
}
