/* verdict.h: the result of an appraisal: signed by the verifier, short-lived, checked by the other gateways without asking anybody.  Pure.
 *
 * An EAT attestation result (EAR, draft-ietf-rats-ear): a CWT in COSE_Sign1.  docs/FORMATS.md, "Attestation result". */
#ifndef FEDERATION_ATTEST_VERDICT_H
#define FEDERATION_ATTEST_VERDICT_H

#include "federation/attest/appraise.h"

#define VERDICT_BYTES_MAX 1024u
#define VERDICT_CLOCKS_APART_S 300 /* a verifier's clock may be ahead of the reader's by this much */

struct verdict {           /* slices borrow from the message */
    struct bytes verifier; /* its name, 1 to LIMIT_NAME_BYTES */
    struct attest_identity who;
    int64_t from_s, until_s; /* Unix seconds */
    enum attest_type type;
    uint8_t status, identity, configuration, executables, hardware; /* enum appraise_tier */
    struct bytes policy;                                            /* its name */
    uint64_t policy_serial;
    uint8_t evidence_digest[DIGEST_SHA256_BYTES];
};

/* verdict_of: what an accepted appraisal comes to.  Borrows from all of them. */
struct verdict verdict_of(struct bytes verifier, const struct appraise_question *q, const struct appraisal *a);

/* verdict_sign: appends the message.  The builder's error. */
enum grey_error verdict_sign(struct builder *out, const struct verdict *v, const uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES],
                             const uint8_t secret_key[KEYS_ED25519_SECRET_BYTES]);

/* verdict_open: E_ATTEST_RESULT: not of this form, not signed by one of the keys, not valid yet, or valid for longer than is allowed.
 * E_ATTEST_EXPIRED: *out is filled.  now_s: the reader's clock; a gateway that does not trust its own gives the last time it knows. */
enum grey_error verdict_open(struct bytes in, const uint8_t (*public_keys)[KEYS_ED25519_PUBLIC_BYTES], uint32_t key_count,
                             int64_t now_s, struct verdict *out, struct fault *f);

#endif
