/* cose.h: COSE_Sign1 (RFC 9052) with Ed25519, in one form: for attestation results, policies and documents.  Pure.
 *
 * The protected header names algorithm, key and kind of what is signed, so that nothing signed as one kind passes for another. */
#ifndef FEDERATION_ATTEST_COSE_H
#define FEDERATION_ATTEST_COSE_H

#include "platform/keys.h"

#define COSE_OVERHEAD_BYTES 160u
#define COSE_KIND_BYTES 64u

/* cose_sign: appends the message to out.  kind: a constant of at most COSE_KIND_BYTES.  The builder's error, if any. */
enum grey_error cose_sign(struct builder *out, const char *kind, struct bytes payload,
                          const uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES], const uint8_t secret_key[KEYS_ED25519_SECRET_BYTES]);

/* cose_open: *payload borrows from in when one of the count keys signed it as this kind; else E_BAD_MESSAGE (not of this form) or E_SEAL
 * (another key or kind, or changed). */
enum grey_error cose_open(struct bytes in, const char *kind, const uint8_t (*public_keys)[KEYS_ED25519_PUBLIC_BYTES],
                          uint32_t count, size_t payload_max, struct bytes *payload);

#endif
