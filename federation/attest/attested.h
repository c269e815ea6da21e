/* attested.h: what the verifier remembers of a gateway from one appraisal to the next.  Pure.
 *
 * It is made when the attestation key was proven (introduce.h) and replaced after each accepted appraisal.  Whoever keeps it guards
 * against going back: clock and counters of the TPM, and the policy's serial, may only grow. */
#ifndef FEDERATION_ATTEST_ATTESTED_H
#define FEDERATION_ATTEST_ATTESTED_H

#include "federation/attest/evidence.h"

#define ATTESTED_BYTES_MAX 2048u

struct attested {
    enum attest_type type;
    uint8_t endorsement[DIGEST_SHA256_BYTES]; /* SHA-256 of the endorsement certificate */
    struct tpmwire_key key;                   /* zeros without a TPM */
    uint8_t signer[TPMWIRE_NAME_BYTES];       /* the qualified name of the key: that it lies under the endorsement key */
    bool seen;                                /* what follows is of an accepted appraisal */
    uint64_t clock_ms, firmware, policy_serial;
    uint32_t reset_count, restart_count;
    uint32_t pcr_mask;
    uint8_t pcr[TPMWIRE_PCR_COUNT][DIGEST_SHA256_BYTES];               /* without the log of starts' */
    uint8_t start_base[DIGEST_SHA256_BYTES];                           /* where the boot left STARTLOG_PCR */
    uint8_t program[DIGEST_SHA256_BYTES], config[DIGEST_SHA256_BYTES]; /* of the last start */
};

void attested_put(struct builder *b, const struct attested *a);
enum grey_error attested_get(struct bytes in, struct attested *out); /* E_ATTEST_FORMAT */

#endif
