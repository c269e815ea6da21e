/* cert.h: X.509 certificates, issued and read (mbedTLS; RFC 5280).  No file, no clock: PEM text and times come from the caller.
 * Certificates are P-256 with ECDSA-SHA256, and small, because they cross thin links. */
#ifndef PLATFORM_CERT_H
#define PLATFORM_CERT_H

#include "platform/bytes.h"
#include "platform/fault.h"

#define CERT_NAMES_MAX 8u

enum cert_name_kind { CERT_NAME_URI, CERT_NAME_DNS, CERT_NAME_IP };
struct cert_name {
    enum cert_name_kind kind;
    const char *text; /* IP: as people write it */
};

struct cert_request {
    const char *subject;    /* "CN=edge-factory-001"; characters of grey_name and '.', '-', ' ' */
    const char *key_pem;    /* the subject's key; its public half goes in */
    const char *issuer_pem; /* NULL with issuer_key_pem NULL: self-signed, a CA */
    const char *issuer_key_pem;
    struct cert_name names[CERT_NAMES_MAX]; /* subject alternative names */
    uint32_t name_count;
    bool server, client;               /* extended key usages */
    int64_t not_before_s, not_after_s; /* Unix seconds */
};

/* Appends the certificate as PEM.  E_CERT, E_KEY with the reason. */
enum grey_error cert_issue(const struct cert_request *q, struct builder *pem, struct fault *f);

struct cert_facts {
    char subject_cn[65], uri[192];
    int64_t not_before_s, not_after_s;
    uint8_t fingerprint[32]; /* SHA-256 of the DER */
};
enum grey_error cert_read(const char *pem, struct cert_facts *out, struct fault *f);

#endif
