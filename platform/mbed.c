#include "platform/mbed.h"

#include <mbedtls/asn1write.h>
#include <mbedtls/ecdsa.h>
#include <mbedtls/ecp.h>
#include <mbedtls/error.h>
#include <mbedtls/oid.h>
#include <mbedtls/version.h>
#include <string.h>

#include "include/grey/must.h"
#include "platform/keys.h"

#define SEQUENCE (MBEDTLS_ASN1_CONSTRUCTED | MBEDTLS_ASN1_SEQUENCE)

#if MBEDTLS_VERSION_MAJOR >=                                                                                                       \
    3 /* --- 3.6 ------------------------------------------------------------------------------------------------ */

#include <mbedtls/platform.h>
#include <psa/crypto.h>

int mbed_parse_key(mbedtls_pk_context *key, struct bytes text) {
    return mbedtls_pk_parse_key(key, text.data, text.size, NULL, 0, keys_rng, NULL);
}

int mbed_parse_key_file(mbedtls_pk_context *key, const char *path) {
    return mbedtls_pk_parse_keyfile(key, path, NULL, keys_rng, NULL);
}

int mbed_check_pair(mbedtls_pk_context *public_half, mbedtls_pk_context *key) {
    return mbedtls_pk_check_pair(public_half, key, keys_rng, NULL);
}

int mbed_sign(mbedtls_pk_context *key, const uint8_t hash[DIGEST_SHA256_BYTES], unsigned char *room, size_t room_size,
              size_t *size) {
    return mbedtls_pk_sign(key, MBEDTLS_MD_SHA256, hash, DIGEST_SHA256_BYTES, room, room_size, size, keys_rng, NULL);
}

bool mbed_can_sign_elsewhere(void) {
    return false; /* mbedtls_pk_info_t is private there */
}

int mbed_sign_elsewhere(mbedtls_pk_context *key, const struct keysign *k) {
    (void)key, (void)k;
    return MBEDTLS_ERR_PK_FEATURE_UNAVAILABLE;
}

bool mbed_has_tls13(void) {
    return true;
}

static const int suites[] = {MBEDTLS_TLS1_3_CHACHA20_POLY1305_SHA256,
                             MBEDTLS_TLS1_3_AES_256_GCM_SHA384,
                             MBEDTLS_TLS1_3_AES_128_GCM_SHA256,
                             MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
                             MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
                             MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
                             0};

static int limit(mbedtls_ssl_config *c, int endpoint, bool from_13) {
    static const uint16_t groups[] = {MBEDTLS_SSL_IANA_TLS_GROUP_X25519, MBEDTLS_SSL_IANA_TLS_GROUP_SECP256R1,
                                      MBEDTLS_SSL_IANA_TLS_GROUP_NONE};
    if (psa_crypto_init() != PSA_SUCCESS) { /* TLS 1.3 reckons with it; again is harmless */
        return MBEDTLS_ERR_SSL_INTERNAL_ERROR;
    }
    mbedtls_ssl_conf_min_tls_version(c, from_13 ? MBEDTLS_SSL_VERSION_TLS1_3 : MBEDTLS_SSL_VERSION_TLS1_2);
    mbedtls_ssl_conf_groups(c, groups);
    mbedtls_ssl_conf_tls13_key_exchange_modes(c, MBEDTLS_SSL_TLS1_3_KEY_EXCHANGE_MODE_EPHEMERAL_ALL);
    if (endpoint == MBEDTLS_SSL_IS_CLIENT) {
        mbedtls_ssl_conf_tls13_enable_signal_new_session_tickets(c, MBEDTLS_SSL_TLS1_3_SIGNAL_NEW_SESSION_TICKETS_ENABLED);
    }
    return 0;
}

bool mbed_is_ticket(int code) {
    return code == MBEDTLS_ERR_SSL_RECEIVED_NEW_SESSION_TICKET;
}

bool mbed_read_again(const mbedtls_ssl_context *ssl, int code) {
    return mbed_is_ticket(code) || (code == MBEDTLS_ERR_SSL_WANT_READ && mbedtls_ssl_check_pending(ssl) != 0);
}

bool mbed_tickets_follow(const mbedtls_ssl_context *ssl) {
    return mbedtls_ssl_get_version_number(ssl) == MBEDTLS_SSL_VERSION_TLS1_3;
}

/* The certificate would be copied into the next connection, as if it had been shown there. */
void mbed_trim_session(mbedtls_ssl_session *session) {
    if (session->tls_version == MBEDTLS_SSL_VERSION_TLS1_3 && session->peer_cert != NULL) {
        mbedtls_x509_crt_free(session->peer_cert);
        mbedtls_free(session->peer_cert);
        session->peer_cert = NULL;
    }
}

/* TLS 1.3: who takes a ticket shows no certificate again. */
bool mbed_resumed(const mbedtls_ssl_context *ssl, const mbedtls_ssl_session *fresh, const mbedtls_ssl_session *offered) {
    return mbedtls_ssl_get_version_number(ssl) == MBEDTLS_SSL_VERSION_TLS1_3
               ? mbedtls_ssl_get_peer_cert(ssl) == NULL
               : memcmp(fresh->master, offered->master, sizeof fresh->master) == 0;
}

bool mbed_is_old_tls(int code) {
    return code == MBEDTLS_ERR_SSL_BAD_PROTOCOL_VERSION || code == MBEDTLS_ERR_SSL_HANDSHAKE_FAILURE;
}

#else /* --- 2.28 ------------------------------------------------------------------------------------------------------------------------------ */

#include <mbedtls/pk_internal.h>

int mbed_parse_key(mbedtls_pk_context *key, struct bytes text) {
    return mbedtls_pk_parse_key(key, text.data, text.size, NULL, 0);
}

int mbed_parse_key_file(mbedtls_pk_context *key, const char *path) {
    return mbedtls_pk_parse_keyfile(key, path, NULL);
}

int mbed_sign(mbedtls_pk_context *key, const uint8_t hash[DIGEST_SHA256_BYTES], unsigned char *room, size_t room_size,
              size_t *size) {
    must(room_size >= MBEDTLS_PK_SIGNATURE_MAX_SIZE);
    return mbedtls_pk_sign(key, MBEDTLS_MD_SHA256, hash, DIGEST_SHA256_BYTES, room, size, keys_rng, NULL);
}

/* A key whose private half is elsewhere.  The pair comes first: mbedTLS takes what is behind a key of type ECKEY for one. */
struct elsewhere {
    mbedtls_ecp_keypair pair; /* its public half only */
    const struct keysign *k;
};

static size_t elsewhere_bits(const void *key) {
    return ((const struct elsewhere *)key)->pair.grp.pbits;
}

static int elsewhere_can_do(mbedtls_pk_type_t type) {
    return type == MBEDTLS_PK_ECKEY || type == MBEDTLS_PK_ECDSA;
}

static int elsewhere_sign(void *key, mbedtls_md_type_t md, const unsigned char *hash, size_t hash_size, unsigned char *signature,
                          size_t *size, int (*rng)(void *, unsigned char *, size_t), void *rng_context) {
    (void)md, (void)rng, (void)rng_context;
    const struct keysign *k = ((struct elsewhere *)key)->k;
    struct builder der;
    struct fault f;
    if (hash_size < DIGEST_SHA256_BYTES) {
        return MBEDTLS_ERR_PK_FEATURE_UNAVAILABLE;
    } /* of a longer one (suites with SHA-384) ECDSA takes the leftmost bits, as many as the curve has (FIPS 186-4, 6.4) */
    builder_init(&der, KEYSIGN_SIGNATURE_BYTES_MAX);
    int code = k->sign(k->key, hash, &der, &f) == E_OK ? 0 : MBED_ERR_KEY_AWAY;
    if (code == 0) {
        memcpy(signature, der.data, der.size); /* mbedTLS gives room for MBEDTLS_PK_SIGNATURE_MAX_SIZE */
        *size = der.size;
    }
    builder_free(&der);
    return code;
}

static void *elsewhere_new(void) {
    struct elsewhere *e = mem_new(1, sizeof *e);
    if (e != NULL) {
        mbedtls_ecp_keypair_init(&e->pair);
    }
    return e;
}

static void elsewhere_free(void *key) {
    mbedtls_ecp_keypair_free(&((struct elsewhere *)key)->pair);
    mem_free(key);
}

static const mbedtls_pk_info_t elsewhere_info = {.type = MBEDTLS_PK_ECKEY,
                                                 .name = "EC, signs elsewhere",
                                                 .get_bitlen = elsewhere_bits,
                                                 .can_do = elsewhere_can_do,
                                                 .sign_func = elsewhere_sign,
                                                 .ctx_alloc_func = elsewhere_new,
                                                 .ctx_free_func = elsewhere_free};

bool mbed_can_sign_elsewhere(void) {
    return true;
}

/* mbedTLS itself compares keys of its own kinds only. */
int mbed_check_pair(mbedtls_pk_context *public_half, mbedtls_pk_context *key) {
    if (key->pk_info != &elsewhere_info) {
        return mbedtls_pk_check_pair(public_half, key);
    }
    return mbed_is_p256(public_half) &&
                   mbedtls_ecp_point_cmp(&mbedtls_pk_ec(*public_half)->Q, &((const struct elsewhere *)key->pk_ctx)->pair.Q) == 0
               ? 0
               : MBEDTLS_ERR_ECP_BAD_INPUT_DATA;
}

int mbed_sign_elsewhere(mbedtls_pk_context *key, const struct keysign *k) {
    struct builder der;
    struct fault f;
    mbedtls_pk_context public_half;
    builder_init(&der, KEYSIGN_PUBLIC_BYTES_MAX);
    mbedtls_pk_init(&public_half);
    int code = k->public_key(k->key, &der, &f) == E_OK ? 0 : MBED_ERR_KEY_AWAY;
    code = code != 0 ? code : mbedtls_pk_parse_public_key(&public_half, der.data, der.size);
    code = code != 0 || mbed_is_p256(&public_half) ? code : MBEDTLS_ERR_PK_UNKNOWN_NAMED_CURVE;
    code = code != 0 ? code : mbedtls_pk_setup(key, &elsewhere_info);
    if (code == 0) {
        struct elsewhere *e = key->pk_ctx;
        e->k = k;
        code = mbedtls_ecp_group_copy(&e->pair.grp, &mbedtls_pk_ec(public_half)->grp);
        code = code != 0 ? code : mbedtls_ecp_copy(&e->pair.Q, &mbedtls_pk_ec(public_half)->Q);
    }
    mbedtls_pk_free(&public_half);
    builder_free(&der);
    return code;
}

bool mbed_has_tls13(void) {
    return false;
}

static const int suites[] = {MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
                             MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, 0};

static int limit(mbedtls_ssl_config *c, int endpoint, bool from_13) {
    static const mbedtls_ecp_group_id curves[] = {MBEDTLS_ECP_DP_CURVE25519, MBEDTLS_ECP_DP_SECP256R1, MBEDTLS_ECP_DP_NONE};
    (void)endpoint;
    if (from_13) {
        return MBEDTLS_ERR_SSL_BAD_HS_PROTOCOL_VERSION;
    }
    mbedtls_ssl_conf_min_version(c, MBEDTLS_SSL_MAJOR_VERSION_3, MBEDTLS_SSL_MINOR_VERSION_3);
    mbedtls_ssl_conf_curves(c, curves);
    return 0;
}

bool mbed_is_ticket(int code) {
    (void)code;
    return false; /* they come within the handshake */
}

bool mbed_read_again(const mbedtls_ssl_context *ssl, int code) {
    (void)ssl, (void)code;
    return false;
}

bool mbed_tickets_follow(const mbedtls_ssl_context *ssl) {
    (void)ssl;
    return false;
}

void mbed_trim_session(mbedtls_ssl_session *session) {
    (void)session;
}

/* A resumed session has the master secret of the one before. */
bool mbed_resumed(const mbedtls_ssl_context *ssl, const mbedtls_ssl_session *fresh, const mbedtls_ssl_session *offered) {
    (void)ssl;
    return memcmp(fresh->master, offered->master, sizeof fresh->master) == 0;
}

bool mbed_is_old_tls(int code) {
    return code == MBEDTLS_ERR_SSL_BAD_HS_PROTOCOL_VERSION || code == MBEDTLS_ERR_SSL_NO_CIPHER_CHOSEN;
}

#endif

/* --- alike in both --------------------------------------------------------------------------------------------------------------------------- */

bool mbed_is_p256(const mbedtls_pk_context *key) {
    return mbedtls_pk_can_do(key, MBEDTLS_PK_ECKEY) && mbedtls_pk_ec(*key)->grp.id == MBEDTLS_ECP_DP_SECP256R1;
}

int mbed_configure(mbedtls_ssl_config *c, int endpoint, bool from_13) {
    int code = mbedtls_ssl_config_defaults(c, endpoint, MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT);
    code = code != 0 ? code : limit(c, endpoint, from_13);
    mbedtls_ssl_conf_ciphersuites(c, suites);
    mbedtls_ssl_conf_renegotiation(c, MBEDTLS_SSL_RENEGOTIATION_DISABLED);
    mbedtls_ssl_conf_session_tickets(c, endpoint == MBEDTLS_SSL_IS_CLIENT ? MBEDTLS_SSL_SESSION_TICKETS_ENABLED
                                                                          : MBEDTLS_SSL_SESSION_TICKETS_DISABLED);
    mbedtls_ssl_conf_rng(c, keys_rng, NULL); /* no generator state is shared between threads */
    return code;
}

static int plus(int sum, int wrote) {
    return sum < 0 ? sum : wrote < 0 ? wrote : sum + wrote;
}

int mbed_write_algorithm(unsigned char **at, unsigned char *room) {
    int sum = mbedtls_asn1_write_oid(at, room, MBEDTLS_OID_ECDSA_SHA256, MBEDTLS_OID_SIZE(MBEDTLS_OID_ECDSA_SHA256));
    sum = plus(sum, sum < 0 ? sum : mbedtls_asn1_write_len(at, room, (size_t)sum));
    return plus(sum, sum < 0 ? sum : mbedtls_asn1_write_tag(at, room, SEQUENCE));
}

int mbed_write_signature(unsigned char **at, unsigned char *room, struct bytes der) {
    int sum = mbedtls_asn1_write_bitstring(at, room, der.data, der.size * 8);
    return plus(sum, sum < 0 ? sum : mbed_write_algorithm(at, room));
}
