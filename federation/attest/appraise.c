#include "federation/attest/appraise.h"

#include <inttypes.h>
#include <string.h>

#include "federation/attest/document.h"
#include "platform/ecdsa.h"

#define BOOT_PCRS 0xffu /* 0 to 7: a firmware that writes a log writes all of them down */

struct case_file { /* what the checks of one appraisal hand on to each other */
    const struct appraise_question *q;
    const struct evidence *evidence;
    const struct evidence_statement *statement;
    struct appraisal *out;
    struct fault *f;
    struct tpmwire_quote quote;
    uint8_t replayed[TPMWIRE_PCR_COUNT][DIGEST_SHA256_BYTES];
    uint32_t touched;
};

/* --- what was signed -------------------------------------------------------------------------------------------------------------------- */

static enum grey_error check_key(struct case_file *c) {
    const struct attested *known = c->q->known;
    if (known == NULL) {
        return fault_set(c->f, E_ATTEST_UNPROVEN, "no attestation key of this gateway was proven");
    }
    if (memcmp(known->key.name, c->statement->key_name, sizeof known->key.name) != 0) {
        return fault_set(c->f, E_ATTEST_UNPROVEN, "the evidence names another attestation key than the proven one");
    }
    return E_OK;
}

/* What costs little comes first: the signature is looked at when all that it should cover fits. */
static enum grey_error check_quote(struct case_file *c) {
    const struct tpmwire_quote *quote = &c->quote;
    uint8_t wanted[DIGEST_SHA256_BYTES];
    enum grey_error err = tpmwire_quote(c->evidence->quote, &c->quote);
    if (err != E_OK) {
        return fault_set(c->f, err,
                         err == E_ATTEST_QUOTE ? "it lacks the mark or the form of a quote" : "it covers other banks than SHA-256");
    }
    evidence_qualify(c->evidence->statement, wanted);
    if (!bytes_equal(quote->extra, bytes_of(wanted, sizeof wanted))) {
        return fault_set(c->f, E_ATTEST_BINDING, "the quote's extraData is not that of the statement");
    }
    const struct attested *known = c->q->known;
    if (!bytes_equal(quote->signer, bytes_of(known->signer, sizeof known->signer))) {
        return fault_set(c->f, E_ATTEST_UNPROVEN, "the key that signed does not lie under the proven endorsement key");
    }
    if (!ecdsa_verify(c->evidence->quote, known->key.point, c->evidence->signature)) {
        return fault_set(c->f, E_ATTEST_SIGNATURE, "the proven attestation key did not sign this");
    }
    if (quote->pcr_mask != c->q->policy->pcr_mask || c->statement->pcr_mask != c->q->policy->pcr_mask) {
        return fault_set(c->f, E_ATTEST_SELECTION, "asked for the registers %06x, quoted are %06x, told are %06x",
                         (unsigned)c->q->policy->pcr_mask, (unsigned)quote->pcr_mask, (unsigned)c->statement->pcr_mask);
    }
    uint8_t values[TPMWIRE_PCR_COUNT][DIGEST_SHA256_BYTES];
    uint32_t count = 0;
    for (uint32_t pcr = 0; pcr < TPMWIRE_PCR_COUNT; pcr++) {
        if ((quote->pcr_mask >> pcr & 1u) != 0) {
            memcpy(values[count++], c->statement->pcr[pcr], DIGEST_SHA256_BYTES);
        }
    }
    tpmwire_pcr_digest(values, count, wanted);
    if (!bytes_equal(quote->pcr_digest, bytes_of(wanted, sizeof wanted))) {
        return fault_set(c->f, E_ATTEST_PCR, "the values of the registers do not add up to the quote's digest");
    }
    return E_OK;
}

/* Within one start of the TPM the clock only grows; a start, and a wake-up, count up.  Only TPM2_Clear takes the counters back, and with
 * them every key in the endorsement hierarchy, so that the attestation key would be a new one. */
static enum grey_error check_counters(struct case_file *c) {
    const struct attested *known = c->q->known;
    const struct tpmwire_quote *quote = &c->quote;
    if (known->seen) {
        bool same_start = quote->reset_count == known->reset_count;
        bool same_wake = same_start && quote->restart_count == known->restart_count;
        if (quote->reset_count < known->reset_count || (same_start && quote->restart_count < known->restart_count) ||
            (same_wake && quote->clock_ms < known->clock_ms)) {
            return fault_set(c->f, E_ATTEST_COUNTERS,
                             "resets %" PRIu32 ", restarts %" PRIu32 ", clock %" PRIu64 " ms; known are %" PRIu32 ", %" PRIu32
                             ", %" PRIu64 " ms",
                             quote->reset_count, quote->restart_count, quote->clock_ms, known->reset_count, known->restart_count,
                             known->clock_ms);
        }
        if (same_start && quote->firmware != known->firmware) {
            return fault_set(c->f, E_ATTEST_FIRMWARE, "it changed from %016" PRIx64 " to %016" PRIx64 " without a start",
                             known->firmware, quote->firmware);
        }
    }
    if (!reference_accepts_firmware(c->q->policy, quote->firmware)) {
        return fault_set(c->f, E_ATTEST_FIRMWARE, "version %016" PRIx64 " is none of the accepted ones", quote->firmware);
    }
    return E_OK;
}

/* --- what was measured ------------------------------------------------------------------------------------------------------------------ */

/* A value that no reference accepts: refused, or noted while the policy learns. */
static enum grey_error meet_stranger(struct case_file *c, enum reference_kind kind, uint32_t pcr,
                                     const uint8_t digest[DIGEST_SHA256_BYTES]) {
    static const char *const names[REFERENCE_KINDS] = {"value", "event", "program", "configuration"};
    struct appraisal *out = c->out;
    if (out->strange_count < APPRAISE_STRANGE_MAX) {
        struct appraise_strange *s = &out->strange[out->strange_count++];
        s->kind = kind, s->pcr = pcr;
        memcpy(s->digest, digest, DIGEST_SHA256_BYTES);
    }
    if (c->q->policy->learn) {
        return E_OK;
    }
    char text[2 * DIGEST_SHA256_BYTES + 1];
    bytes_hex(digest, DIGEST_SHA256_BYTES, text);
    return fault_set(c->f, E_ATTEST_REFERENCE, "register %u, %s %s", (unsigned)pcr, names[kind], text);
}

/* One value: as the policy names it; where it names none of this kind, as it was when it was learnt. */
static enum grey_error judge_value(struct case_file *c, enum reference_kind kind, uint32_t pcr,
                                   const uint8_t digest[DIGEST_SHA256_BYTES], const uint8_t *learnt, bool ever) {
    const struct reference *policy = c->q->policy;
    if (reference_accepts(policy, kind, pcr, digest, c->q->now_ms, ever)) {
        return E_OK;
    }
    if (!policy->learn && !reference_names(policy, kind, pcr) && learnt != NULL &&
        memcmp(learnt, digest, DIGEST_SHA256_BYTES) == 0) {
        return E_OK;
    }
    return meet_stranger(c, kind, pcr, digest);
}

static const uint8_t *learnt_pcr(const struct case_file *c, uint32_t pcr) {
    const struct attested *known = c->q->known;
    return known->seen && (known->pcr_mask >> pcr & 1u) != 0 ? known->pcr[pcr] : NULL;
}

static enum grey_error judge_events(struct case_file *c) {
    struct bootlog_reader r;
    struct bootlog_event event;
    enum grey_error err = bootlog_open(&r, c->statement->boot_log);
    while (err == E_OK && bootlog_next(&r, &event, &err)) {
        if ((c->quote.pcr_mask >> event.pcr & 1u) != 0 && event.pcr != STARTLOG_PCR &&
            reference_names(c->q->policy, REFERENCE_EVENT, event.pcr)) {
            err = judge_value(c, REFERENCE_EVENT, event.pcr, event.digest, NULL, false);
        }
    }
    return err;
}

static enum grey_error check_boot_log(struct case_file *c) {
    const struct evidence_statement *s = c->statement;
    if (s->boot_log.size == 0) {
        return c->q->policy->needs_boot_log ? fault_set(c->f, E_ATTEST_BOOT_LOG, "there is none, and the policy wants one") : E_OK;
    }
    enum grey_error err = bootlog_replay(s->boot_log, c->replayed, &c->touched);
    if (err != E_OK) {
        return fault_set(c->f, err, "it cannot be read");
    }
    for (uint32_t pcr = 0; pcr < TPMWIRE_PCR_COUNT; pcr++) {
        bool judged = ((c->touched | BOOT_PCRS) & c->quote.pcr_mask) >> pcr & 1u;
        if (judged && pcr != STARTLOG_PCR && memcmp(c->replayed[pcr], s->pcr[pcr], DIGEST_SHA256_BYTES) != 0) {
            return fault_set(c->f, E_ATTEST_BOOT_LOG, "it leads to another value of register %u", (unsigned)pcr);
        }
    }
    return judge_events(c);
}

/* The log may be left out when nothing of what it led to has changed, and neither has the policy. */
static enum grey_error check_known_boot(struct case_file *c) {
    const struct attested *known = c->q->known;
    uint32_t mask = c->quote.pcr_mask & ~(1u << STARTLOG_PCR);
    bool same = known->seen && known->policy_serial == c->q->policy->serial && known->pcr_mask == mask;
    for (uint32_t pcr = 0; pcr < TPMWIRE_PCR_COUNT && same; pcr++) {
        same = (mask >> pcr & 1u) == 0 || memcmp(known->pcr[pcr], c->statement->pcr[pcr], DIGEST_SHA256_BYTES) == 0;
    }
    return same ? E_OK
                : fault_set(c->f, E_ATTEST_BOOT_LOG, "it was left out, but the registers or the policy are others than last time");
}

static enum grey_error check_registers(struct case_file *c) {
    enum grey_error err = E_OK;
    for (uint32_t pcr = 0; pcr < TPMWIRE_PCR_COUNT && err == E_OK; pcr++) {
        bool has_log = c->statement->boot_log.size > 0 || c->statement->boot_log_known;
        bool by_events = has_log && reference_names(c->q->policy, REFERENCE_EVENT, pcr);
        if ((c->quote.pcr_mask >> pcr & 1u) != 0 && pcr != STARTLOG_PCR && !by_events) {
            err = judge_value(c, REFERENCE_REGISTER, pcr, c->statement->pcr[pcr], learnt_pcr(c, pcr), false);
        }
    }
    return err;
}

static enum grey_error check_start_log(struct case_file *c) {
    const struct attested *known = c->q->known;
    struct startlog_reader r;
    struct startlog_start start;
    uint32_t count;
    enum grey_error err;
    uint8_t value[DIGEST_SHA256_BYTES];
    memcpy(value, c->statement->boot_log_known ? known->start_base : c->replayed[STARTLOG_PCR], sizeof value);
    memcpy(c->out->next.start_base, value, sizeof value);
    if (startlog_replay(c->statement->start_log, value) != E_OK || c->statement->start_log.size == 0) {
        return fault_set(c->f, E_ATTEST_START_LOG, "it is empty, or cannot be read");
    }
    if (memcmp(value, c->statement->pcr[STARTLOG_PCR], sizeof value) != 0) {
        return fault_set(c->f, E_ATTEST_START_LOG, "it leads to another value of register %u", STARTLOG_PCR);
    }
    startlog_open(&r, c->statement->start_log);
    while (startlog_next(&r, &start, &count, &err)) {
        bool ever = r.rest.size > 0; /* the last one runs; an earlier one may have been replaced in the meantime */
        err = judge_value(c, REFERENCE_PROGRAM, STARTLOG_PCR, start.program, known->seen ? known->program : NULL, ever);
        err = err != E_OK ? err
                          : judge_value(c, REFERENCE_CONFIG, STARTLOG_PCR, start.config, known->seen ? known->config : NULL, ever);
        if (err != E_OK) {
            return err;
        }
        memcpy(c->out->next.program, start.program, sizeof start.program);
        memcpy(c->out->next.config, start.config, sizeof start.config);
    }
    return err;
}

/* --- the types ---------------------------------------------------------------------------------------------------------------------------- */

static void remember(struct case_file *c) {
    struct attested *next = &c->out->next;
    const struct attested *known = c->q->known;
    memcpy(next->endorsement, known->endorsement, sizeof next->endorsement);
    memcpy(next->signer, known->signer, sizeof next->signer);
    next->key = known->key;
    next->clock_ms = c->quote.clock_ms, next->firmware = c->quote.firmware;
    next->reset_count = c->quote.reset_count, next->restart_count = c->quote.restart_count;
    next->pcr_mask = c->quote.pcr_mask & ~(1u << STARTLOG_PCR);
    memcpy(next->pcr, c->statement->pcr, sizeof next->pcr);
    memset(next->pcr[STARTLOG_PCR], 0, DIGEST_SHA256_BYTES);
}

static enum grey_error appraise_tpm(struct case_file *c) {
    enum grey_error err = check_key(c);
    err = err != E_OK ? err : check_quote(c);
    err = err != E_OK ? err : check_counters(c);
    bool left_out = c->statement->boot_log_known;
    err = err != E_OK ? err : left_out ? check_known_boot(c) : check_boot_log(c);
    err = err != E_OK ? err : check_registers(c);
    bool has_starts = (c->q->policy->pcr_mask >> STARTLOG_PCR & 1u) != 0;
    err = err != E_OK || !has_starts ? err : check_start_log(c);
    if (err != E_OK) {
        return err;
    }
    remember(c);
    bool all_known = !c->q->policy->learn;
    c->out->identity = APPRAISE_AFFIRMING;
    c->out->hardware = c->statement->type == ATTEST_TPM2 ? APPRAISE_AFFIRMING : APPRAISE_NO_CLAIM;
    c->out->executables = all_known ? APPRAISE_BOOT_APPROVED : APPRAISE_WARNING;
    c->out->configuration = !has_starts ? APPRAISE_NO_CLAIM : all_known ? APPRAISE_AFFIRMING : APPRAISE_WARNING;
    c->out->status = all_known ? APPRAISE_AFFIRMING : APPRAISE_WARNING;
    return E_OK;
}

static enum grey_error check_signed(struct case_file *c) {
    return evidence_verify_signed(c->evidence, c->q->who.signing_key)
               ? E_OK
               : fault_set(c->f, E_ATTEST_SIGNATURE, "the gateway's signing key did not sign this");
}

static enum grey_error appraise_instance(struct case_file *c) {
    enum grey_error err = check_signed(c);
    err = err != E_OK ? err
                      : document_judge(c->statement->document, &c->q->who, c->q->document_keys, c->q->document_key_count,
                                       c->q->now_ms, c->f);
    if (err == E_OK) {
        c->out->identity = c->out->status = APPRAISE_AFFIRMING;
    }
    return err;
}

static enum grey_error appraise_none(struct case_file *c) {
    return check_signed(c);
}

enum grey_error appraise(const struct appraise_question *q, struct bytes evidence, struct appraisal *out, struct fault *f) {
    static enum grey_error (*const appraisers[ATTEST_TYPES])(struct case_file *) = {[ATTEST_NONE] = appraise_none,
                                                                                    [ATTEST_TPM2] = appraise_tpm,
                                                                                    [ATTEST_VTPM] = appraise_tpm,
                                                                                    [ATTEST_INSTANCE] = appraise_instance};
    struct evidence e;
    struct evidence_statement s;
    memset(out, 0, sizeof *out);
    enum grey_error err = evidence_get(evidence, &e);
    err = err != E_OK ? err : evidence_get_statement(e.statement, &s);
    if (err != E_OK) {
        return fault_set(f, err, "%zu bytes", evidence.size);
    }
    out->type = s.type;
    digest_sha256(evidence, out->evidence_digest);
    if ((q->policy->types >> s.type & 1u) == 0) {
        return fault_set(f, E_ATTEST_TYPE, "it is of type %s", attest_type_name(s.type));
    }
    if (q->known != NULL && q->known->type != s.type) {
        return fault_set(f, E_ATTEST_TYPE, "it is of type %s, but the gateway is known to have %s", attest_type_name(s.type),
                         attest_type_name(q->known->type));
    }
    if (q->known != NULL && q->known->seen && q->known->policy_serial > q->policy->serial) {
        return fault_set(f, E_ATTEST_POLICY, "serial %" PRIu64 ", but %" PRIu64 " was in force", q->policy->serial,
                         q->known->policy_serial);
    }
    if (memcmp(s.nonce, q->nonce, sizeof s.nonce) != 0) {
        return fault_set(f, E_ATTEST_NONCE, "its nonce is another one");
    }
    if (!attest_identity_equal(&s.who, &q->who)) {
        return fault_set(f, E_ATTEST_IDENTITY, "it is of %.*s/%.*s, raft id %" PRIu64 ", or of other keys", (int)s.who.site.size,
                         (const char *)s.who.site.data, (int)s.who.node.size, (const char *)s.who.node.data, s.who.raft_id);
    }
    struct case_file c = {.q = q, .evidence = &e, .statement = &s, .out = out, .f = f};
    out->next = (struct attested){.type = s.type, .seen = true, .policy_serial = q->policy->serial};
    err = appraisers[s.type](&c);
    return err;
}
