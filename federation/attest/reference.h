/* reference.h: the policy by which evidence is judged: what is asked for, and which measured values are good.  Pure.
 *
 * A value is accepted within its window, so the next version can be announced before it is rolled out, and the old one may stay good for
 * a while.  docs/FORMATS.md, "Attestation policy". */
#ifndef FEDERATION_ATTEST_REFERENCE_H
#define FEDERATION_ATTEST_REFERENCE_H

#include "federation/attest/evidence.h"

/* The name of the core's policy by which gateways are judged, among the policies that it gives to sites. */
#define REFERENCE_OBJECT_NAME "grey-attestation"

#define REFERENCE_VALUES_MAX 1024u
#define REFERENCE_FIRMWARES_MAX 16u
#define REFERENCE_BYTES_MAX (96u * 1024u)
#define REFERENCE_VALIDITY_S_MIN 60u
#define REFERENCE_VALIDITY_S_MAX (192u * 3600u) /* DECISIONS 26: a result spans a week without the core */

enum reference_kind {
    REFERENCE_REGISTER, /* the value of a register */
    REFERENCE_EVENT,    /* the digest of one event of the boot log in a register: with these, the order of events does not matter */
    REFERENCE_PROGRAM,  /* SHA-256 of greyd */
    REFERENCE_CONFIG,   /* SHA-256 of its configuration */
    REFERENCE_KINDS
};

struct reference_value {
    enum reference_kind kind;
    uint32_t pcr; /* STARTLOG_PCR for program and configuration */
    uint8_t digest[DIGEST_SHA256_BYTES];
    int64_t from_ms, until_ms; /* Unix milliseconds; until -1: no end */
};

struct reference {
    struct bytes name; /* 1 to LIMIT_NAME_BYTES.  Borrows */
    uint64_t serial;   /* grows with each change */
    bool learn;        /* values that are not accepted are taken and noted; the result warns of it */
    bool needs_boot_log;
    uint32_t types;    /* mask of 1 << enum attest_type */
    uint32_t pcr_mask; /* what a quote covers, exactly */
    uint32_t validity_s;
    uint32_t firmware_count, value_count;
    uint64_t firmwares[REFERENCE_FIRMWARES_MAX]; /* of the TPM; none named: any, but it changes only with a start */
    struct reference_value values[REFERENCE_VALUES_MAX];
};

void reference_put(struct builder *b, const struct reference *p);
/* reference_get: E_ATTEST_POLICY.  A policy with TPM types asks for at least one register. */
enum grey_error reference_get(struct bytes in, struct reference *out);

/* reference_names: is any value of this kind named for the register, whatever its window? */
bool reference_names(const struct reference *p, enum reference_kind kind, uint32_t pcr);
/* reference_accepts: is this one?  ever: its end does not count. */
bool reference_accepts(const struct reference *p, enum reference_kind kind, uint32_t pcr, const uint8_t digest[DIGEST_SHA256_BYTES],
                       int64_t now_ms, bool ever);
bool reference_accepts_firmware(const struct reference *p, uint64_t firmware);

#endif
