/* cipher.h: authenticated encryption and derivation of keys: AES-256-GCM (NIST SP 800-38D), HKDF-SHA256 (RFC 5869).  Of mbedTLS, which has them
 * on every processor.  Draws nothing at random, keeps nothing.  Thread: any. */
#ifndef PLATFORM_CIPHER_H
#define PLATFORM_CIPHER_H

#include "platform/bytes.h"

#define CIPHER_KEY_BYTES 32u
#define CIPHER_NONCE_BYTES 12u
#define CIPHER_TAG_BYTES 16u

/* Writes plain.size bytes and the tag to `out`, which may not overlap plain.  A nonce must never be used twice with one key.  False: no memory; `out`
 * is wiped. */
bool cipher_seal(const uint8_t key[CIPHER_KEY_BYTES], const uint8_t nonce[CIPHER_NONCE_BYTES], struct bytes also_bound,
                 struct bytes plain, uint8_t *out);
/* sealed: with its tag.  Writes sealed.size - CIPHER_TAG_BYTES bytes to `out`.  False: not what was sealed, under that key, nonce and with those
 * bound bytes, or no memory to tell; `out` is then wiped. */
bool cipher_open(const uint8_t key[CIPHER_KEY_BYTES], const uint8_t nonce[CIPHER_NONCE_BYTES], struct bytes also_bound,
                 struct bytes sealed, uint8_t *out);

/* Fills out_size bytes, at most 255 * 32. */
void cipher_derive(struct bytes salt, struct bytes secret, struct bytes info, uint8_t *out, size_t out_size);

void cipher_wipe(void *secret, size_t size); /* which no compiler leaves out */

#endif
