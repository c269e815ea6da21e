/* appraise.h: judges evidence.  One pure function over bytes for each type, behind one door: the same input gives the same verdict, on
 * the core, in tests and in a fuzzer.  docs/ATTESTATION.md says which check answers which threat. */
#ifndef FEDERATION_ATTEST_APPRAISE_H
#define FEDERATION_ATTEST_APPRAISE_H

#include "federation/attest/attested.h"
#include "federation/attest/reference.h"
#include "platform/fault.h"

#define APPRAISE_STRANGE_MAX 32u

/* Everything is borrowed.  A nonce is 32 random bytes, asked once and answered once; the caller forgets it with the first answer. */
struct appraise_question {
    struct attest_identity who; /* of whom it was asked: as the site's members say */
    uint8_t nonce[ATTEST_NONCE_BYTES];
    const struct reference *policy;
    const struct attested *known;                              /* NULL: no attestation key of this gateway was proven */
    const uint8_t (*document_keys)[KEYS_ED25519_PUBLIC_BYTES]; /* who may sign documents of instances */
    uint32_t document_key_count;
    int64_t now_ms; /* the verifier's clock, Unix milliseconds */
};

/* What is claimed about a gateway in a result, in the words of EAR and AR4SI: 0 says nothing, 2 to 31 affirms, 32 to 95 warns. */
enum appraise_tier {
    APPRAISE_NO_CLAIM = 0,
    APPRAISE_AFFIRMING = 2,
    APPRAISE_BOOT_APPROVED = 3, /* of executables: genuine and approved up to the start of the agent */
    APPRAISE_WARNING = 32
};

/* A measured value that no reference accepts. */
struct appraise_strange {
    enum reference_kind kind;
    uint32_t pcr;
    uint8_t digest[DIGEST_SHA256_BYTES];
};

struct appraisal {
    enum attest_type type;
    uint8_t status;                                         /* enum appraise_tier: the worst that is claimed */
    uint8_t identity, configuration, executables, hardware; /* enum appraise_tier */
    uint8_t evidence_digest[DIGEST_SHA256_BYTES];
    struct attested next; /* to be kept in place of what was known; valid on success only */
    uint32_t strange_count;
    struct appraise_strange strange[APPRAISE_STRANGE_MAX]; /* on refusal too, so that an operator sees what to announce */
};

/* appraise: E_OK: the gateway is what the policy wants, with out->status saying how far.  E_NO_MEMORY, or one of the E_ATTEST errors,
 * each for one way to fail; f gets what was expected and found. */
enum grey_error appraise(const struct appraise_question *q, struct bytes evidence, struct appraisal *out, struct fault *f);

#endif
