/* keys.h: random numbers and key pairs.  P-256 (mbedTLS) for TLS and certificates; Ed25519 (libsodium) for signing entries and proofs.
 * Thread: any. */
#ifndef PLATFORM_KEYS_H
#define PLATFORM_KEYS_H

#include "platform/bytes.h"
#include "platform/fault.h"

#define KEYS_ED25519_PUBLIC_BYTES 32u
#define KEYS_ED25519_SECRET_BYTES 64u
#define KEYS_ED25519_SIGNATURE_BYTES 64u
#define KEYS_X25519_BYTES 32u

void keys_random(void *out, size_t size); /* from the kernel; cannot fail */
void keys_wipe(void *at, size_t size);    /* zeros that no compiler leaves out */
/* keys_rng: the same in the form that mbedTLS wants; context is not used. */
int keys_rng(void *context, unsigned char *out, size_t size);

/* A new P-256 private key as PEM (RFC 5915), appended without a NUL; the caller wipes it.  E_KEY, or the builder's error. */
enum grey_error keys_new_p256(struct builder *pem, struct fault *f);
enum grey_error keys_new_p256_der(struct builder *der, struct fault *f); /* the same as DER: 121 bytes */

void keys_new_ed25519(uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES], uint8_t secret_key[KEYS_ED25519_SECRET_BYTES]);
void keys_sign_ed25519(struct bytes message, const uint8_t secret_key[KEYS_ED25519_SECRET_BYTES],
                       uint8_t signature[KEYS_ED25519_SIGNATURE_BYTES]); /* RFC 8032 */
/* False for any other message, key or signature, also for keys of small order and signatures that are not canonical. */
bool keys_verify_ed25519(struct bytes message, const uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES],
                         const uint8_t signature[KEYS_ED25519_SIGNATURE_BYTES]);

/* Agreement on a secret (X25519, RFC 7748). */
void keys_public_x25519(const uint8_t secret[KEYS_X25519_BYTES], uint8_t public_key[KEYS_X25519_BYTES]);
/* False: the other's key is one of the few with which every secret gives the same. */
bool keys_agree_x25519(const uint8_t secret[KEYS_X25519_BYTES], const uint8_t other[KEYS_X25519_BYTES],
                       uint8_t shared[KEYS_X25519_BYTES]);
/* The keys for that which belong to Ed25519 ones.  False: no point of the curve, or one of small order. */
bool keys_x25519_of_public(const uint8_t ed25519[KEYS_ED25519_PUBLIC_BYTES], uint8_t public_key[KEYS_X25519_BYTES]);
void keys_x25519_of_secret(const uint8_t ed25519[KEYS_ED25519_SECRET_BYTES], uint8_t secret[KEYS_X25519_BYTES]);

#endif
