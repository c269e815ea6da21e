/* tpmwire.h: the four TPM 2.0 structures that attestation needs, read from bytes.  Pure; allocates nothing.
 *
 * An own reader and not Tss2_MU: these structures have one acceptable form here (quote; ECDSA P-256 with SHA-256), so a reader that
 * knows only that form is smaller than the checks that a general one would need afterwards, and the core needs no TPM library.
 * Each function takes the whole input: a byte too few or too many is refused.  Source: TPM 2.0 Library, part 2, sections 10-12. */
#ifndef FEDERATION_ATTEST_TPMWIRE_H
#define FEDERATION_ATTEST_TPMWIRE_H

#include "platform/bytes.h"
#include "platform/digest.h"

#define TPMWIRE_NAME_BYTES 34u        /* TPM_ALG_SHA256, digest of the public area */
#define TPMWIRE_SIGNATURE_BYTES 64u   /* r and s, 32 bytes each */
#define TPMWIRE_QUOTE_BYTES_MAX 512u  /* TPMS_ATTEST; ours are of 145 bytes */
#define TPMWIRE_PUBLIC_BYTES_MAX 512u /* TPMT_PUBLIC; an attestation key's is of 88 bytes */
#define TPMWIRE_PCR_COUNT 24u
#define TPMWIRE_PCR_MASK 0xffffffu

/* What TPM2_Quote signs.  Slices borrow from the input. */
struct tpmwire_quote {
    struct bytes signer;
    struct bytes extra; /* what the caller of TPM2_Quote gave */
    uint64_t clock_ms;
    uint32_t reset_count, restart_count;
    bool safe; /* no higher clock value was ever reported */
    uint64_t firmware;
    uint32_t pcr_mask; /* of the SHA-256 bank */
    struct bytes pcr_digest;
};

/* tpmwire_quote: E_ATTEST_QUOTE: this is no quote that a TPM made (magic, type, form).  E_ATTEST_SELECTION: one over other banks than
 * SHA-256 alone. */
enum grey_error tpmwire_quote(struct bytes in, struct tpmwire_quote *out);

/* The public part of an attestation key. */
struct tpmwire_key {
    uint8_t name[TPMWIRE_NAME_BYTES]; /* by which the TPM knows it */
    uint8_t point[64];                /* x and y */
};

/* tpmwire_key: in is a TPMT_PUBLIC.  E_ATTEST_KEY unless it is a P-256 key that signs nothing but what its TPM made (restricted, sign,
 * not decrypt), with ECDSA and SHA-256, was made inside and cannot leave (fixedTPM, fixedParent, sensitiveDataOrigin). */
enum grey_error tpmwire_key(struct bytes in, struct tpmwire_key *out);

/* tpmwire_signature: in is a TPMT_SIGNATURE with ECDSA and SHA-256; r and s filled up to 32 bytes each.  E_BAD_MESSAGE. */
enum grey_error tpmwire_signature(struct bytes in, uint8_t out[TPMWIRE_SIGNATURE_BYTES]);

/* tpmwire_pcr_digest: what a quote over these values holds: SHA-256 over count values in ascending order of their registers. */
void tpmwire_pcr_digest(const uint8_t (*values)[DIGEST_SHA256_BYTES], uint32_t count, uint8_t out[DIGEST_SHA256_BYTES]);

uint32_t tpmwire_pcr_count(uint32_t mask);

#endif
