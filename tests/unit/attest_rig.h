/* attest_rig.h: a gateway whose TPM is a few lines of code here, so that evidence can be made, and forged, by the thousand; and the file in
 * which every judged case is told to the second, independent verifier (tests/system/test_attest_oracle.py). */
#ifndef TESTS_ATTEST_RIG_H
#define TESTS_ATTEST_RIG_H

#include <inttypes.h>
#include <mbedtls/ecdsa.h>
#include <stdio.h>
#include <stdlib.h>

#include "federation/attest/verdict.h"
#include "platform/ecdsa.h"

#define RIG_NOW_MS INT64_C(1900000000000)
#define RIG_MASK 0x40ffu /* 0 to 7, and the log of starts in 14 */
#define RIG_FIRMWARE 0x2019102300163636u

/* --- the file of cases ------------------------------------------------------------------------------------------------------------------ */

static FILE *rig_cases; /* NULL: none wanted */

static inline void rig_open_cases(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "--cases") == 0) {
        rig_cases = fopen(argv[2], "w");
        assert_non_null(rig_cases);
    }
}

static inline void rig_hex(const char *key, struct bytes b) {
    (void)fprintf(rig_cases, "\"%s\":\"", key);
    for (size_t i = 0; i < b.size; i++) {
        (void)fprintf(rig_cases, "%02x", b.data[i]);
    }
    (void)fputs("\",", rig_cases);
}

/* Judges and, if wanted, writes down.  A question is written when it is another one than before. */
static inline enum grey_error rig_judge(const struct appraise_question *q, struct bytes evidence, struct appraisal *out) {
    static struct builder policy, known, before;
    struct fault f = {.text = ""};
    enum grey_error err = appraise(q, evidence, out, &f);
    if (rig_cases == NULL) {
        return err;
    }
    builder_init(&policy, REFERENCE_BYTES_MAX);
    builder_init(&known, ATTESTED_BYTES_MAX);
    reference_put(&policy, q->policy);
    if (q->known != NULL) {
        attested_put(&known, q->known);
    }
    struct builder all;
    builder_init(&all, REFERENCE_BYTES_MAX + ATTESTED_BYTES_MAX + 512);
    builder_add(&all, builder_bytes(&policy));
    builder_add(&all, builder_bytes(&known));
    builder_add(&all, q->who.site);
    builder_add(&all, q->who.node);
    builder_add(&all, bytes_of(&q->who.raft_id, sizeof q->who.raft_id));
    builder_add(&all, bytes_of(q->who.signing_key, sizeof q->who.signing_key));
    builder_add(&all, bytes_of(q->who.tls_key, sizeof q->who.tls_key));
    builder_add(&all, bytes_of(q->nonce, sizeof q->nonce));
    builder_add(&all, bytes_of(&q->now_ms, sizeof q->now_ms));
    if (!bytes_equal(builder_bytes(&all), builder_bytes(&before))) {
        (void)fputs("{", rig_cases);
        rig_hex("policy", builder_bytes(&policy));
        rig_hex("known", builder_bytes(&known));
        rig_hex("site", q->who.site);
        rig_hex("node", q->who.node);
        rig_hex("signing_key", bytes_of(q->who.signing_key, sizeof q->who.signing_key));
        rig_hex("tls_key", bytes_of(q->who.tls_key, sizeof q->who.tls_key));
        rig_hex("nonce", bytes_of(q->nonce, sizeof q->nonce));
        (void)fprintf(rig_cases, "\"raft_id\":%" PRIu64 ",\"now_ms\":%" PRId64 "}\n", q->who.raft_id, q->now_ms);
        builder_free(&before);
        before = all;
    } else {
        builder_free(&all);
    }
    (void)fputs("{", rig_cases);
    rig_hex("evidence", evidence);
    (void)fprintf(rig_cases, "\"verdict\":\"%s\"}\n", err == E_OK ? "E_OK" : error_name(err));
    builder_free(&known);
    builder_free(&policy);
    return err;
}

/* --- the gateway ------------------------------------------------------------------------------------------------------------------------- */

struct rig {
    mbedtls_ecp_group group;
    mbedtls_mpi secret;
    struct attested proven;
    struct reference policy;
    struct evidence_statement statement; /* genuine */
    struct tpmwire_quote quote;          /* but for extra and digest */
    struct builder boot_log, start_log;
};

static inline void rig_put(struct builder *b, uint64_t v, size_t size, bool little) {
    for (size_t i = 0; i < size; i++) {
        builder_add_byte(b, (uint8_t)(v >> 8 * (little ? i : size - 1 - i)));
    }
}

static inline void rig_boot_event(struct builder *b, uint32_t pcr, uint32_t type, uint8_t digest, const char *data) {
    uint8_t sha256[32];
    rig_put(b, pcr, 4, true);
    rig_put(b, type, 4, true);
    rig_put(b, 2, 4, true);
    rig_put(b, 0x0004, 2, true); /* SHA-1: nobody looks at it */
    memset(builder_room(b, 20), digest, 20);
    rig_put(b, 0x000b, 2, true);
    memset(sha256, type == 3 ? 0 : digest, sizeof sha256);
    builder_add(b, bytes_of(sha256, sizeof sha256));
    rig_put(b, strlen(data), 4, true);
    builder_add_str(b, data);
}

static inline void rig_boot(struct rig *r) {
    static const uint8_t locality[] = "StartupLocality\0\3";
    struct builder *b = &r->boot_log;
    builder_init(b, BOOTLOG_BYTES_MAX);
    rig_put(b, 0, 4, true);
    rig_put(b, 3, 4, true);
    memset(builder_room(b, 20), 0, 20);
    rig_put(b, 16 + 8 + 4 + 8 + 1, 4, true);
    builder_add(b, bytes_of("Spec ID Event03", 16));
    rig_put(b, 0x0000000000020002u, 8, false);
    rig_put(b, 2, 4, true);
    rig_put(b, 0x0004, 2, true), rig_put(b, 20, 2, true);
    rig_put(b, 0x000b, 2, true), rig_put(b, 32, 2, true);
    rig_put(b, 0, 1, true);
    rig_boot_event(b, 0, 3, 0, "");
    b->size -= 4;
    rig_put(b, 17, 4, true);
    builder_add(b, bytes_of(locality, 17));
    for (uint32_t pcr = 0; pcr < 8; pcr++) {
        rig_boot_event(b, pcr, 1, (uint8_t)(0x10 + pcr), "firmware");
        rig_boot_event(b, pcr, 4, 0, "separator");
    }
}

static inline void rig_start(struct rig *r, const char *version, uint8_t program) {
    struct startlog_start start = {.version = bytes_str(version)};
    struct builder longer;
    memset(start.program, program, sizeof start.program);
    memset(start.config, 0x44, sizeof start.config);
    builder_init(&longer, STARTLOG_BYTES_MAX);
    assert_int_equal(startlog_add(builder_bytes(&r->start_log), &start, &longer), E_OK);
    builder_free(&r->start_log);
    r->start_log = longer;
    r->statement.start_log = builder_bytes(&r->start_log);
    uint8_t digest[32];
    startlog_measure(&start, digest);
    bootlog_extend(r->statement.pcr[STARTLOG_PCR], digest);
}

static inline void rig_accept(struct rig *r, enum reference_kind kind, uint32_t pcr, const uint8_t digest[32]) {
    struct reference_value *v = &r->policy.values[r->policy.value_count++];
    *v = (struct reference_value){.kind = kind, .pcr = pcr, .until_ms = -1};
    memcpy(v->digest, digest, 32);
}

static inline struct attest_identity rig_who(void) {
    struct attest_identity out = {.site = bytes_str("plant-7"), .node = bytes_str("node1"), .raft_id = 77};
    memset(out.signing_key, 0x11, sizeof out.signing_key);
    memset(out.tls_key, 0x22, sizeof out.tls_key);
    return out;
}

static inline void rig_init(struct rig *r) {
    mbedtls_ecp_point q;
    unsigned char point[65];
    size_t size;
    uint32_t touched;
    uint8_t digest[32];
    memset(r, 0, sizeof *r);
    mbedtls_ecp_group_init(&r->group);
    mbedtls_mpi_init(&r->secret);
    mbedtls_ecp_point_init(&q);
    assert_int_equal(mbedtls_ecp_group_load(&r->group, MBEDTLS_ECP_DP_SECP256R1), 0);
    assert_int_equal(mbedtls_ecp_gen_keypair(&r->group, &r->secret, &q, keys_rng, NULL), 0);
    assert_int_equal(mbedtls_ecp_point_write_binary(&r->group, &q, MBEDTLS_ECP_PF_UNCOMPRESSED, &size, point, sizeof point), 0);
    mbedtls_ecp_point_free(&q);
    r->proven.type = ATTEST_TPM2;
    memset(r->proven.endorsement, 0xee, sizeof r->proven.endorsement);
    memcpy(r->proven.key.point, point + 1, 64);
    memset(r->proven.key.name, 0xab, sizeof r->proven.key.name);
    memset(r->proven.signer, 0xcd, sizeof r->proven.signer);
    r->policy = (struct reference){.name = bytes_str("lab"),
                                   .serial = 5,
                                   .needs_boot_log = true,
                                   .types = 1u << ATTEST_TPM2,
                                   .pcr_mask = RIG_MASK,
                                   .validity_s = 3600,
                                   .firmware_count = 1,
                                   .firmwares = {RIG_FIRMWARE}};
    r->statement = (struct evidence_statement){.type = ATTEST_TPM2, .who = rig_who(), .made_ms = 1, .pcr_mask = RIG_MASK};
    memset(r->statement.nonce, 0x5a, sizeof r->statement.nonce);
    memcpy(r->statement.key_name, r->proven.key.name, sizeof r->statement.key_name);
    rig_boot(r);
    r->statement.boot_log = builder_bytes(&r->boot_log);
    assert_int_equal(bootlog_replay(r->statement.boot_log, r->statement.pcr, &touched), E_OK);
    assert_int_equal(touched, 0xff);
    for (uint32_t pcr = 0; pcr < TPMWIRE_PCR_COUNT; pcr++) {
        if (pcr < 8) {
            rig_accept(r, REFERENCE_REGISTER, pcr, r->statement.pcr[pcr]);
        } else {
            memset(r->statement.pcr[pcr], 0, 32);
        }
    }
    rig_start(r, "0.1.0", 0x33);
    memset(digest, 0x33, sizeof digest);
    rig_accept(r, REFERENCE_PROGRAM, STARTLOG_PCR, digest);
    memset(digest, 0x44, sizeof digest);
    rig_accept(r, REFERENCE_CONFIG, STARTLOG_PCR, digest);
    r->quote = (struct tpmwire_quote){
        .clock_ms = 1000000, .reset_count = 7, .restart_count = 3, .safe = true, .firmware = RIG_FIRMWARE, .pcr_mask = RIG_MASK};
    r->quote.signer = bytes_of(r->proven.signer, sizeof r->proven.signer);
}

static inline void rig_free(struct rig *r) {
    builder_free(&r->boot_log);
    builder_free(&r->start_log);
    mbedtls_mpi_free(&r->secret);
    mbedtls_ecp_group_free(&r->group);
}

static inline struct appraise_question rig_question(const struct rig *r) {
    struct appraise_question q = {.who = rig_who(), .policy = &r->policy, .known = &r->proven, .now_ms = RIG_NOW_MS};
    memset(q.nonce, 0x5a, sizeof q.nonce);
    return q;
}

/* As the TPM does it.  ECDSA's random number is of no interest here. */
static inline void rig_sign(struct rig *r, struct bytes message, uint8_t signature[64]) {
    mbedtls_mpi a, b;
    uint8_t hash[32];
    digest_sha256(message, hash);
    mbedtls_mpi_init(&a);
    mbedtls_mpi_init(&b);
    assert_int_equal(mbedtls_ecdsa_sign(&r->group, &a, &b, &r->secret, hash, sizeof hash, keys_rng, NULL), 0);
    assert_int_equal(mbedtls_mpi_write_binary(&a, signature, 32), 0);
    assert_int_equal(mbedtls_mpi_write_binary(&b, signature + 32, 32), 0);
    mbedtls_mpi_free(&b);
    mbedtls_mpi_free(&a);
    ecdsa_lower(signature);
}

/* TPMS_ATTEST over this statement. */
static inline void rig_put_quote(const struct rig *r, const struct evidence_statement *s, struct bytes statement,
                                 struct builder *out) {
    uint8_t values[TPMWIRE_PCR_COUNT][32], digest[32];
    uint32_t count = 0;
    const struct tpmwire_quote *q = &r->quote;
    rig_put(out, 0xff544347u, 4, false);
    rig_put(out, 0x8018u, 2, false);
    rig_put(out, q->signer.size, 2, false);
    builder_add(out, q->signer);
    evidence_qualify(statement, digest);
    rig_put(out, 32, 2, false);
    builder_add(out, bytes_of(digest, 32));
    rig_put(out, q->clock_ms, 8, false);
    rig_put(out, q->reset_count, 4, false);
    rig_put(out, q->restart_count, 4, false);
    rig_put(out, q->safe, 1, false);
    rig_put(out, q->firmware, 8, false);
    rig_put(out, 1, 4, false);
    rig_put(out, 0x000b, 2, false);
    rig_put(out, 3, 1, false);
    rig_put(out, q->pcr_mask, 3, true);
    for (uint32_t pcr = 0; pcr < TPMWIRE_PCR_COUNT; pcr++) {
        if ((q->pcr_mask >> pcr & 1u) != 0) {
            memcpy(values[count++], s->pcr[pcr], 32);
        }
    }
    tpmwire_pcr_digest(values, count, digest);
    rig_put(out, 32, 2, false);
    builder_add(out, bytes_of(digest, 32));
}

/* The whole evidence for a statement, as the gateway's TPM would vouch for it; out is emptied first. */
static inline void rig_attest(struct rig *r, const struct evidence_statement *s, struct builder *out) {
    struct builder statement, quote;
    struct evidence e;
    builder_init(&statement, ATTEST_STATEMENT_BYTES_MAX);
    builder_init(&quote, TPMWIRE_QUOTE_BYTES_MAX);
    evidence_put_statement(&statement, s);
    rig_put_quote(r, s, builder_bytes(&statement), &quote);
    e.statement = builder_bytes(&statement);
    e.quote = builder_bytes(&quote);
    rig_sign(r, e.quote, e.signature);
    builder_reset(out);
    evidence_put(out, &e);
    assert_int_equal(out->err, E_OK);
    builder_free(&quote);
    builder_free(&statement);
}

#endif
