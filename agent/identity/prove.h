/* prove.h: the gateway's side of attestation: what a verifier's question is answered with, by a TPM.  For grey-tpm; thread: its only one. */
#ifndef AGENT_PROVE_H
#define AGENT_PROVE_H

#include "federation/attest/introduce.h"
#include "platform/tpm.h"

/* prove_introduce: appends an introduction; makes the attestation key when there is none. */
enum grey_error prove_introduce(struct tpm *t, uint32_t handle, enum attest_type type, const struct attest_identity *who,
                                struct builder *out, struct fault *f);

/* What is asked, and what this machine has to show. */
struct prove_question {
    enum attest_type type; /* ATTEST_TPM2 or ATTEST_VTPM */
    struct attest_identity who;
    uint8_t nonce[ATTEST_NONCE_BYTES];
    uint32_t pcr_mask;
    bool boot_log_known;              /* the verifier does not want it again */
    struct bytes boot_log, start_log; /* as on disk */
    int64_t now_ms;
};

/* prove_evidence: appends the evidence.  A register that is extended meanwhile makes it start over, a few times. */
enum grey_error prove_evidence(struct tpm *t, uint32_t handle, const struct prove_question *q, struct builder *out,
                               struct fault *f);

#endif
