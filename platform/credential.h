/* credential.h: TPM2_MakeCredential without a TPM: a secret that only the TPM with this endorsement key gives back, and only when the
 * named key is loaded in it.  Thread: any.
 *
 * Source: TPM 2.0 Library, part 1, section 24 (credential protection) and B.10.4 (RSA); endorsement key of the default template, so
 * name algorithm SHA-256 and AES-128-CFB. */
#ifndef PLATFORM_CREDENTIAL_H
#define PLATFORM_CREDENTIAL_H

#include "platform/ekcert.h"

#define CREDENTIAL_SECRET_BYTES 32u
#define CREDENTIAL_NAME_BYTES 34u
#define CREDENTIAL_BLOB_BYTES (2u + 32u + 2u + CREDENTIAL_SECRET_BYTES) /* TPM2B_ID_OBJECT without its size: HMAC, secret */
#define CREDENTIAL_SEED_BYTES EKCERT_MODULUS_BYTES                      /* TPM2B_ENCRYPTED_SECRET without its size */
#define CREDENTIAL_RANDOM_BYTES 64u

struct credential {
    uint8_t blob[CREDENTIAL_BLOB_BYTES];
    uint8_t seed[CREDENTIAL_SEED_BYTES];
};

/* credential_make: name: of the key that must be loaded beside.  random: used once and for nothing else; the same input gives the same
 * credential.  E_ATTEST_EK when the endorsement key cannot encrypt. */
enum grey_error credential_make(const struct ekcert *ek, const uint8_t name[CREDENTIAL_NAME_BYTES],
                                const uint8_t secret[CREDENTIAL_SECRET_BYTES], const uint8_t random[CREDENTIAL_RANDOM_BYTES],
                                struct credential *out);

/* credential_qualify: the qualified name of a key that lies directly under that endorsement key: what a quote by it bears.  Source: part 1,
 * section 16, and template L-1. */
void credential_qualify(const struct ekcert *ek, const uint8_t name[CREDENTIAL_NAME_BYTES], uint8_t out[CREDENTIAL_NAME_BYTES]);

/* credential_equal: in a time that does not depend on what differs. */
bool credential_equal(const uint8_t a[CREDENTIAL_SECRET_BYTES], const uint8_t b[CREDENTIAL_SECRET_BYTES]);

#endif
