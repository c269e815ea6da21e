#include "agent/identity/prove.h"

#include <string.h>

#include "platform/ecdsa.h"

#define TRIES 5u

enum grey_error prove_introduce(struct tpm *t, uint32_t handle, enum attest_type type, const struct attest_identity *who,
                                struct builder *out, struct fault *f) {
    struct builder certificate, key;
    bool made;
    builder_init(&certificate, EKCERT_BYTES_MAX);
    builder_init(&key, TPM_PUBLIC_BYTES_MAX);
    enum grey_error err = tpm_read_endorsement(t, &certificate, f);
    err = err != E_OK ? err : tpm_key(t, handle, &key, &made, f);
    if (err == E_OK) {
        const struct introduction i = {
            .type = type, .who = *who, .endorsement = builder_bytes(&certificate), .key = builder_bytes(&key)};
        introduce_put(out, &i);
        err = out->err == E_OK ? E_OK : fault_set(f, out->err, "introduction: no room");
    }
    builder_free(&key);
    builder_free(&certificate);
    return err;
}

/* *same: are the values that the statement tells those that the quote covers? */
static enum grey_error quote(struct tpm *t, uint32_t handle, const struct evidence_statement *s, struct builder *out, bool *same,
                             struct fault *f) {
    struct builder statement, attest, signature;
    struct evidence e;
    struct tpmwire_quote read;
    uint8_t qualify[DIGEST_SHA256_BYTES], values[TPMWIRE_PCR_COUNT][DIGEST_SHA256_BYTES], digest[DIGEST_SHA256_BYTES];
    uint32_t count = 0;
    *same = false;
    builder_init(&statement, ATTEST_STATEMENT_BYTES_MAX);
    builder_init(&attest, TPMWIRE_QUOTE_BYTES_MAX);
    builder_init(&signature, TPM_PUBLIC_BYTES_MAX);
    evidence_put_statement(&statement, s);
    enum grey_error err = statement.err == E_OK ? E_OK : fault_set(f, statement.err, "statement: no room");
    e.statement = builder_bytes(&statement);
    evidence_qualify(e.statement, qualify);
    err = err != E_OK ? err : tpm_quote(t, handle, s->pcr_mask, qualify, &attest, &signature, f);
    if (err == E_OK) {
        e.quote = builder_bytes(&attest);
        err = tpmwire_signature(builder_bytes(&signature), e.signature);
        err = err != E_OK ? err : tpmwire_quote(e.quote, &read);
        err = err == E_OK ? E_OK
                          : fault_set(f, E_TPM, "its quote cannot be read: is the key at 0x%08x one for ECDSA?", (unsigned)handle);
    }
    if (err == E_OK) {
        ecdsa_lower(e.signature);
        for (uint32_t pcr = 0; pcr < TPMWIRE_PCR_COUNT; pcr++) {
            if ((s->pcr_mask >> pcr & 1u) != 0) {
                memcpy(values[count++], s->pcr[pcr], DIGEST_SHA256_BYTES);
            }
        }
        tpmwire_pcr_digest(values, count, digest);
        *same = bytes_equal(read.pcr_digest, bytes_of(digest, sizeof digest));
        if (*same) {
            evidence_put(out, &e);
            err = out->err == E_OK ? E_OK : fault_set(f, out->err, "evidence: no room");
        }
    }
    builder_free(&signature);
    builder_free(&attest);
    builder_free(&statement);
    return err;
}

enum grey_error prove_evidence(struct tpm *t, uint32_t handle, const struct prove_question *q, struct builder *out,
                               struct fault *f) {
    struct evidence_statement s = {.type = q->type,
                                   .who = q->who,
                                   .made_ms = q->now_ms,
                                   .pcr_mask = q->pcr_mask,
                                   .boot_log_known = q->boot_log_known,
                                   .boot_log = q->boot_log,
                                   .start_log = q->start_log};
    struct tpmwire_key key;
    struct builder area;
    bool made = false, same = false;
    memcpy(s.nonce, q->nonce, sizeof s.nonce);
    builder_init(&area, TPM_PUBLIC_BYTES_MAX);
    enum grey_error err = tpm_key(t, handle, &area, &made, f);
    if (err == E_OK && tpmwire_key(builder_bytes(&area), &key) != E_OK) {
        err = fault_set(f, E_ATTEST_KEY, "the key at 0x%08x is none for attestation", (unsigned)handle);
    }
    builder_free(&area);
    if (err != E_OK) {
        return err;
    }
    memcpy(s.key_name, key.name, sizeof s.key_name);
    for (uint32_t tries = 0; tries < TRIES && !same && err == E_OK; tries++) {
        err = tpm_read_pcrs(t, q->pcr_mask, s.pcr, f);
        err = err != E_OK ? err : quote(t, handle, &s, out, &same, f);
    }
    return err != E_OK || same ? err : fault_set(f, E_TPM, "its registers change all the time");
}
