/* evidence.h: what a gateway says of itself when the verifier asks, and how it proves it.  Pure.
 *
 * Evidence is a *statement* (who, for which question, measured what) and a proof over all of it.  With a TPM the proof is a quote whose
 * extraData is SHA-256 over the statement, so that not one byte beside the quote can be changed either; without, a signature of the
 * gateway's signing key.  docs/FORMATS.md, "Attestation", and docs/ATTESTATION.md. */
#ifndef FEDERATION_ATTEST_EVIDENCE_H
#define FEDERATION_ATTEST_EVIDENCE_H

#include "federation/attest/bootlog.h"
#include "federation/attest/startlog.h"
#include "include/grey/limits.h"
#include "platform/keys.h"

#define ATTEST_NONCE_BYTES 32u
#define ATTEST_DOCUMENT_BYTES_MAX 4096u
#define ATTEST_STATEMENT_BYTES_MAX (BOOTLOG_BYTES_MAX + STARTLOG_BYTES_MAX + ATTEST_DOCUMENT_BYTES_MAX + 2048u)
#define ATTEST_EVIDENCE_BYTES_MAX (ATTEST_STATEMENT_BYTES_MAX + TPMWIRE_QUOTE_BYTES_MAX + 128u)

enum attest_type {
    ATTEST_NONE,     /* a signature of the gateway's key and nothing about what runs there; for development */
    ATTEST_TPM2,     /* a TPM 2.0 chip */
    ATTEST_VTPM,     /* the same evidence of a virtual one: proven under other roots, and says nothing of hardware */
    ATTEST_INSTANCE, /* a document that somebody trusted signed about this instance */
    ATTEST_TYPES
};
const char *attest_type_name(enum attest_type type); /* "none", "tpm2", "vtpm", "instance-identity" */

/* Who is meant.  In a statement the slices borrow from the evidence. */
struct attest_identity {
    struct bytes site, node; /* UTF-8, 1 to LIMIT_NAME_BYTES */
    uint64_t raft_id;
    uint8_t signing_key[KEYS_ED25519_PUBLIC_BYTES];
    uint8_t tls_key[DIGEST_SHA256_BYTES]; /* SHA-256 of its SubjectPublicKeyInfo */
};
bool attest_identity_equal(const struct attest_identity *a, const struct attest_identity *b);
/* Its five fields, as they stand in all messages about attestation. */
void attest_put_identity(struct builder *b, const struct attest_identity *who);
struct codec_reader;
bool attest_get_identity(struct codec_reader *r, struct attest_identity *out); /* false: r->err is set, or a name is empty */

struct evidence_statement {
    enum attest_type type;
    struct attest_identity who;
    uint8_t nonce[ATTEST_NONCE_BYTES];
    int64_t made_ms; /* by the gateway's own clock: for people */
    /* with a TPM */
    uint8_t key_name[TPMWIRE_NAME_BYTES];
    uint32_t pcr_mask;
    uint8_t pcr[TPMWIRE_PCR_COUNT][DIGEST_SHA256_BYTES]; /* zeros outside the mask */
    bool boot_log_known;                                 /* left out: the verifier has judged these values before */
    struct bytes boot_log;                               /* empty: the machine keeps none */
    struct bytes start_log;
    /* of an instance */
    struct bytes document;
};

struct evidence {
    struct bytes statement; /* encoded */
    struct bytes quote;     /* TPMS_ATTEST; empty without a TPM */
    uint8_t
        signature[64]; /* by the attestation key over the quote, lower form (platform/ecdsa.h); or by the signing key, see below */
};

void evidence_put_statement(struct builder *b, const struct evidence_statement *s);
/* E_ATTEST_FORMAT for everything that evidence_put_statement would not write. */
enum grey_error evidence_get_statement(struct bytes in, struct evidence_statement *out);

void evidence_put(struct builder *b, const struct evidence *e);
enum grey_error evidence_get(struct bytes in, struct evidence *out); /* E_ATTEST_FORMAT */

/* evidence_qualify: what the TPM is given to put into the quote; SHA-256 of "grey-evidence-1" with its NUL, then the statement. */
void evidence_qualify(struct bytes statement, uint8_t out[DIGEST_SHA256_BYTES]);

/* Without a TPM: the signing key's word over what evidence_qualify gives. */
void evidence_sign(struct bytes statement, const uint8_t secret_key[KEYS_ED25519_SECRET_BYTES], uint8_t signature[64]);
bool evidence_verify_signed(const struct evidence *e, const uint8_t signing_key[KEYS_ED25519_PUBLIC_BYTES]);

#endif
