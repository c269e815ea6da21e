/* ecdsa.h: ECDSA on P-256 with SHA-256, raw: signatures are r and s of 32 bytes each, points are x and y.  Thread: any.
 *
 * Of each signature (r, s) there is a second form (r, n - s), which anybody can make.  Here only the one with the lower s passes, so
 * that what is signed has one encoding and a changed byte never goes unseen. */
#ifndef PLATFORM_ECDSA_H
#define PLATFORM_ECDSA_H

#include "platform/bytes.h"

#define ECDSA_POINT_BYTES 64u
#define ECDSA_SIGNATURE_BYTES 64u
#define ECDSA_SECRET_BYTES 32u

/* ecdsa_lower: the form with the lower s of the same signature. */
void ecdsa_lower(uint8_t signature[ECDSA_SIGNATURE_BYTES]);

/* ecdsa_verify: over SHA-256 of message.  False as well for a point that is not on the curve, and for the form with the higher s. */
bool ecdsa_verify(struct bytes message, const uint8_t point[ECDSA_POINT_BYTES], const uint8_t signature[ECDSA_SIGNATURE_BYTES]);

/* The forms of certificates: appends ECDSA-Sig-Value (RFC 3279), and SubjectPublicKeyInfo (RFC 5480), as DER. */
void ecdsa_put_signature(const uint8_t signature[ECDSA_SIGNATURE_BYTES], struct builder *der);
void ecdsa_put_public(const uint8_t point[ECDSA_POINT_BYTES], struct builder *der);

#endif
