/* conn_material.h: what a TLS side shows and whom it believes, read from files as one.  For conn_material.c, which reads it, and conn_tls.c, which uses it. */
#ifndef PLATFORM_CONN_MATERIAL_H
#define PLATFORM_CONN_MATERIAL_H

#include "platform/mbed.h" /* before the headers of mbedTLS */

#include <mbedtls/x509_crl.h>
#include <mbedtls/x509_crt.h>

#include "platform/conn_core.h"

/* What was read from the files, as one; the last of conn_tls and the conns that began with it frees it.  Thread of all counting: the loop's. */
struct tls_material {
    uint32_t holders;
    mbedtls_ssl_config client, server, guests, offering; /* guests: as server, a certificate is not asked of everybody */
    /* offering: as client, with ALPN; only with protocols[0] set */
    mbedtls_x509_crt ca, own, known; /* known: members of the site for whom it vouches; version 0: none */
    mbedtls_x509_crl revoked;
    mbedtls_pk_context key;
};

struct conn_tls {
    struct tls_material *now;
    const char *protocols[2];
    char *ca_path, *cert_path, *key_path, *trust_path, *site_path, *known_path; /* copies */
    /* A key that a TPM keeps is read once: a reload is the loop's, and must not wait for the service. */
    struct keysign elsewhere; /* at a handle; not all zero: the key of all materials */
    struct builder secret;    /* of a file that the TPM opened; empty: the key is in a plain file */
    bool anybody, from_13;
};

void conn_material_drop(struct tls_material *m); /* one holder less; NULL is allowed */

#endif
