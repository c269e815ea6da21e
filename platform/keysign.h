/* keysign.h: a P-256 private key wherever it lies: a hash goes in, a signature comes out, the key stays where it is.
 *
 * Whoever signs requests, certificates, their lists or handshakes knows this form only, so a key in a file and one in a TPM are the same to
 * them.  Thread: any, one call at a time for one key. */
#ifndef PLATFORM_KEYSIGN_H
#define PLATFORM_KEYSIGN_H

#include "platform/bytes.h"
#include "platform/digest.h"
#include "platform/fault.h"

#define KEYSIGN_PUBLIC_BYTES_MAX 128u   /* SubjectPublicKeyInfo of P-256, DER: 91 */
#define KEYSIGN_SIGNATURE_BYTES_MAX 80u /* ECDSA-Sig-Value, DER: at most 72 */

struct keysign {
    /* Appends the SubjectPublicKeyInfo (RFC 5280) as DER.  E_KEY. */
    enum grey_error (*public_key)(void *key, struct builder *der, struct fault *f);
    /* Appends ECDSA-Sig-Value (RFC 3279) over the hash as DER.  E_KEY. */
    enum grey_error (*sign)(void *key, const uint8_t hash[DIGEST_SHA256_BYTES], struct builder *der, struct fault *f);
    void (*release)(void *key); /* wipes what can be wiped */
    void *key;
};

/* A key in memory: PEM text (RFC 5915 or PKCS#8) with its NUL, or DER.  E_KEY: none, or not P-256.  By name: platform/keyring.h. */
enum grey_error keysign_open(struct bytes text, struct keysign *out, struct fault *f);
enum grey_error keysign_open_pem(const char *pem, struct keysign *out, struct fault *f);
void keysign_close(struct keysign *k); /* one that was never opened, all zero, is allowed */

#endif
