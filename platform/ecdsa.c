#include "platform/ecdsa.h"

#include <mbedtls/ecdsa.h>
#include <string.h>

#include "platform/digest.h"

/* The order of P-256 (FIPS 186-4, D.1.2.3) and its half, rounded down. */
static const uint8_t order[32] = {0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                  0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51};
static const uint8_t half[32] = {0x7f, 0xff, 0xff, 0xff, 0x80, 0x00, 0x00, 0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                 0xde, 0x73, 0x7d, 0x56, 0xd3, 0x8b, 0xcf, 0x42, 0x79, 0xdc, 0xe5, 0x61, 0x7e, 0x31, 0x92, 0xa8};

void ecdsa_lower(uint8_t signature[ECDSA_SIGNATURE_BYTES]) {
    uint8_t *s = signature + 32;
    if (memcmp(s, half, sizeof half) <= 0 || memcmp(s, order, sizeof order) >= 0) {
        return;
    }
    unsigned borrow = 0;
    for (size_t i = 32; i-- > 0;) {
        unsigned from = order[i], less = s[i] + borrow;
        borrow = less > from;
        s[i] = (uint8_t)(from - less);
    }
}

bool ecdsa_verify(struct bytes message, const uint8_t point[ECDSA_POINT_BYTES], const uint8_t signature[ECDSA_SIGNATURE_BYTES]) {
    if (memcmp(signature + 32, half, sizeof half) > 0) {
        return false;
    }
    uint8_t hash[DIGEST_SHA256_BYTES];
    digest_sha256(message, hash);
    mbedtls_ecp_group group;
    mbedtls_ecp_point q;
    mbedtls_mpi r, s;
    unsigned char whole[1 + ECDSA_POINT_BYTES] = {4}; /* uncompressed (SEC 1, 2.3.3) */
    memcpy(whole + 1, point, ECDSA_POINT_BYTES);
    mbedtls_ecp_group_init(&group);
    mbedtls_ecp_point_init(&q);
    mbedtls_mpi_init(&r);
    mbedtls_mpi_init(&s);
    bool holds = mbedtls_ecp_group_load(&group, MBEDTLS_ECP_DP_SECP256R1) == 0 &&
                 mbedtls_ecp_point_read_binary(&group, &q, whole, sizeof whole) == 0 && mbedtls_ecp_check_pubkey(&group, &q) == 0 &&
                 mbedtls_mpi_read_binary(&r, signature, 32) == 0 && mbedtls_mpi_read_binary(&s, signature + 32, 32) == 0 &&
                 mbedtls_ecdsa_verify(&group, hash, sizeof hash, &q, &r, &s) == 0;
    mbedtls_mpi_free(&s);
    mbedtls_mpi_free(&r);
    mbedtls_ecp_point_free(&q);
    mbedtls_ecp_group_free(&group);
    return holds;
}

/* INTEGER: no zeros before it but one that keeps the first bit free of the sign. */
static void put_number(const uint8_t number[32], struct builder *der) {
    size_t zeros = 0;
    while (zeros < 31 && number[zeros] == 0) {
        zeros++;
    }
    bool sign = (number[zeros] & 0x80) != 0;
    builder_add_byte(der, 0x02);
    builder_add_byte(der, (uint8_t)(32 - zeros + sign));
    if (sign) {
        builder_add_byte(der, 0);
    }
    builder_add(der, bytes_of(number + zeros, 32 - zeros));
}

void ecdsa_put_signature(const uint8_t signature[ECDSA_SIGNATURE_BYTES], struct builder *der) {
    struct builder both;
    builder_init(&both, 80);
    put_number(signature, &both);
    put_number(signature + 32, &both);
    builder_add_byte(der, 0x30);
    builder_add_byte(der, (uint8_t)both.size);
    builder_add(der, builder_bytes(&both));
    der->err = der->err != E_OK ? der->err : both.err;
    builder_free(&both);
}

/* SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING { uncompressed point } } */
void ecdsa_put_public(const uint8_t point[ECDSA_POINT_BYTES], struct builder *der) {
    static const uint8_t head[] = {0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
                                   0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04};
    builder_add(der, bytes_of(head, sizeof head));
    builder_add(der, bytes_of(point, ECDSA_POINT_BYTES));
}
