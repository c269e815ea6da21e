/* cert.h: X.509 certificates, issued and read (mbedTLS; RFC 5280).  No file, no clock: PEM text and times come from the caller.
 * Certificates are P-256 with ECDSA-SHA256, and small, because they cross thin links. */
#ifndef PLATFORM_CERT_H
#define PLATFORM_CERT_H

#include "platform/bytes.h"
#include "platform/fault.h"
#include "platform/keysign.h"

#define CERT_NAMES_MAX 8u
#define CERT_SERIAL_BYTES 16u /* of those that we issue */
#define CERT_CN_BYTES 64u     /* ub-common-name of RFC 5280 */

enum cert_name_kind { CERT_NAME_URI, CERT_NAME_DNS, CERT_NAME_IP };
struct cert_name {
    enum cert_name_kind kind;
    const char *text; /* printable ASCII without blanks; IP: as people write it */
};

/* What the holder may be to others; the bits of a certificate are what its CA says. */
enum cert_role { CERT_ROLE_GATEWAY = 1, CERT_ROLE_CORE = 2, CERT_ROLE_BROKER = 4 };
#define CERT_ROLE_PREFIX "urn:grey:role:"

struct cert_request {
    const char *subject; /* "CN=edge-factory-001": 1 to CERT_CN_BYTES of printable ASCII without , + \ " < > ; # */
    const char *key_pem; /* the subject's private key, P-256; its public half goes in */
    struct bytes
        public_key; /* instead of it (key_pem NULL): SubjectPublicKeyInfo, DER, of a request that was checked (platform/csr.h) */
    const char *issuer_pem; /* NULL with issuer_key_pem and issuer_key NULL: self-signed, a CA */
    const char *issuer_key_pem;
    const struct keysign *issuer_key;       /* instead of it: a key that may lie elsewhere, in a TPM */
    struct cert_name names[CERT_NAMES_MAX]; /* subject alternative names */
    uint32_t name_count;
    bool server, client;               /* extended key usages */
    bool authority;                    /* with an issuer: may issue certificates and lists itself */
    uint32_t depth;                    /* of an authority: so many further ones may stand below it */
    const char *within;                /* of an authority: only subjects CN= this below it, and no lists; NULL: it is not bounded */
    uint32_t roles;                    /* bits of cert_role, each a URI "urn:grey:role:..." behind the names */
    int64_t not_before_s, not_after_s; /* Unix seconds, years 2000 to 9999 */
};

/* Appends the certificate as PEM, without a NUL; its serial number is 126 random bits in 16 bytes.  Borrows all of q.  E_CERT, E_KEY with the
 * reason (also: the issuer is no CA, its key is another's), what issuer_key said, or the builder's error.  With a key in a TPM it blocks.  Thread: any. */
enum grey_error cert_issue(const struct cert_request *q, struct builder *pem, struct fault *f);

struct cert_facts {
    char subject_cn[CERT_CN_BYTES + 1]; /* the last one, as conn_peer_name; "" when there is none */
    char uri[192];                      /* the first of the subject alternative names; "" when there is none */
    int64_t not_before_s, not_after_s;
    uint8_t fingerprint[32];           /* SHA-256 of the DER */
    uint8_t key_hash[32];              /* SHA-256 of its SubjectPublicKeyInfo: the name of the key */
    uint8_t serial[CERT_SERIAL_BYTES]; /* the last bytes of it, zeros before a shorter one */
    uint32_t roles;
    bool authority;
    uint32_t depth; /* of an authority: so many further ones may stand below it; UINT32_MAX: any number */
};
/* The first certificate of a PEM text.  Judges nothing: neither signature nor dates.  Bytes that are no printable ASCII read as '?'.
 * E_CERT: not a certificate, or a name too long to be ours.  Thread: any. */
enum grey_error cert_read(const char *pem, struct cert_facts *out, struct fault *f);
/* The role that a URI of a certificate says; 0: none that is known. */
uint32_t cert_role_of(struct bytes uri);
/* The first certificate of pem is signed by way of the authorities behind it, or of those in ca_pem, and is valid now, by the system's clock.  E_CERT. */
enum grey_error cert_verify(const char *pem, const char *ca_pem, struct fault *f);
/* The first certificate of a PEM text as DER, and back.  E_CERT, or the builder's error. */
enum grey_error cert_to_der(const char *pem, struct builder *der, struct fault *f);
enum grey_error cert_from_der(struct bytes der, struct builder *pem,
                              struct fault *f); /* with a NUL behind it; der is not looked into */
/* The holder of the first certificate's key has signed this hash (ECDSA, RFC 3279).  E_CERT; E_KEY: not so. */
enum grey_error cert_has_signed(const char *pem, const uint8_t hash[32], struct bytes signature, struct fault *f);
/* Appends the certificate of the self-signed authority in a PEM text whose fingerprint this is, as PEM.  E_CERT: it is not there. */
enum grey_error cert_find_root(const char *pem, const uint8_t fingerprint[32], struct builder *root, struct fault *f);

#endif
