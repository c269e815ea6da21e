/* csr.h: certificate signing requests (PKCS#10, RFC 2986) as gateways make them and the CA reads them.
 *
 * A request says who asks: subject CN the site, OU the gateway.  It asks for nothing else: what a certificate holds beside its names is
 * the CA's to say, and a request with extensions in it is refused rather than half obeyed.  No file, no clock.  Thread: any. */
#ifndef PLATFORM_CSR_H
#define PLATFORM_CSR_H

#include "platform/cert.h"
#include "platform/keysign.h"

#define CSR_PEM_BYTES_MAX 2048u

/* Appends the request as PEM, without a NUL.  site, node: names (include/grey/ids.h).  Signed by the key, which so proves that it is there.
 * E_CERT, E_KEY, or the builder's error. */
enum grey_error csr_make(const char *site, const char *node, const struct keysign *key, struct builder *pem, struct fault *f);

struct csr_facts {
    char site[CERT_CN_BYTES + 1], node[CERT_CN_BYTES + 1]; /* names that hold as such */
    uint8_t public_key[KEYSIGN_PUBLIC_BYTES_MAX];          /* SubjectPublicKeyInfo, DER */
    size_t public_key_size;
    uint8_t key_hash[DIGEST_SHA256_BYTES]; /* SHA-256 of it: the name of the key */
};
/* Reads a request and checks that its signature is by the key in it (proof of possession).  E_CERT: not a request, other names than one CN
 * and one OU, extensions asked for, a signature that does not hold; E_KEY: not a P-256 key. */
enum grey_error csr_read(struct bytes pem, struct csr_facts *out, struct fault *f);

#endif
