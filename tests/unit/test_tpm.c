/* Attestation by a TPM, the whole way: a software TPM proves its key, quotes, and the verifier's code judges it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "agent/prove.h"
#include "federation/attest/verdict.h"
#include "tests/unit/swtpm_rig.h"

#define NOW_S INT64_C(1900000000)
#define MASK 0x40ffu /* 0 to 7, and the log of starts in 14 */

static struct swtpm machines[2];
static struct tpm *tpms[2];
static char *roots;
static struct attested proven;
static struct reference policy;
static uint8_t start_log_room[256];
static struct bytes start_log;

static struct attest_identity who(void) {
    struct attest_identity out = {.site = bytes_str("plant-7"), .node = bytes_str("node1"), .raft_id = 77};
    memset(out.signing_key, 0x11, sizeof out.signing_key);
    memset(out.tls_key, 0x22, sizeof out.tls_key);
    return out;
}

static enum grey_error introduce_from(struct tpm *introducer, struct tpm *answerer, struct attested *out) {
    struct builder message;
    struct introduction i;
    struct introduce_pending pending;
    struct credential challenge;
    struct attest_identity expected = who();
    uint8_t random[INTRODUCE_RANDOM_BYTES], secret[CREDENTIAL_SECRET_BYTES];
    const char *const makers[ATTEST_TYPES] = {[ATTEST_TPM2] = roots};
    struct fault f;
    keys_random(random, sizeof random);
    builder_init(&message, INTRODUCE_BYTES_MAX);
    assert_int_equal(prove_introduce(introducer, TPM_KEY_HANDLE, ATTEST_TPM2, &expected, &message, &f), E_OK);
    assert_int_equal(introduce_get(builder_bytes(&message), &i), E_OK);
    assert_int_equal(introduce_judge(&i, &expected, makers, NOW_S, random, &pending, &challenge, &f), E_OK);
    builder_free(&message);
    enum grey_error err = tpm_activate(answerer, TPM_KEY_HANDLE, &challenge, secret, &f);
    return err != E_OK ? err : introduce_accept(&pending, bytes_of(secret, sizeof secret), out, &f);
}

/* The first start of the agent on the first machine, measured as the launcher does it. */
static void start_agent(void) {
    struct startlog_start start = {.version = bytes_str("0.1.0")};
    uint8_t digest[DIGEST_SHA256_BYTES];
    struct builder log;
    struct fault f;
    memset(start.program, 0x33, sizeof start.program);
    memset(start.config, 0x44, sizeof start.config);
    builder_init(&log, sizeof start_log_room);
    assert_int_equal(startlog_add(bytes_of(NULL, 0), &start, &log), E_OK);
    memcpy(start_log_room, log.data, log.size);
    start_log = bytes_of(start_log_room, log.size);
    builder_free(&log);
    startlog_measure(&start, digest);
    assert_int_equal(tpm_extend(tpms[0], STARTLOG_PCR, digest, &f), E_OK);
    policy = (struct reference){
        .name = bytes_str("lab"), .serial = 1, .learn = true, .types = 1u << ATTEST_TPM2, .pcr_mask = MASK, .validity_s = 3600};
}

static int set_up(void **state) {
    struct fault f;
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        swtpm_start(&machines[i]);
        tpms[i] = tpm_open(machines[i].way, &f);
        if (tpms[i] == NULL) {
            print_error("%s\n", f.text);
            return -1;
        }
    }
    roots = swtpm_roots();
    start_agent();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        tpm_close(tpms[i]);
        swtpm_stop(&machines[i]);
    }
    swtpm_remove_authority();
    free(roots);
    return 0;
}

static struct appraise_question question(uint8_t nonce) {
    struct appraise_question q = {.who = who(), .policy = &policy, .known = &proven, .now_ms = NOW_S * 1000};
    memset(q.nonce, nonce, sizeof q.nonce);
    return q;
}

static void answer(struct tpm *t, const struct appraise_question *q, struct builder *out) {
    struct prove_question p = {
        .type = ATTEST_TPM2, .who = q->who, .pcr_mask = q->policy->pcr_mask, .start_log = start_log, .now_ms = q->now_ms};
    struct fault f = {.text = ""};
    memcpy(p.nonce, q->nonce, sizeof p.nonce);
    builder_reset(out);
    if (prove_evidence(t, TPM_KEY_HANDLE, &p, out, &f) != E_OK) {
        fail_msg("%s: %s", error_name(f.code), f.text);
    }
}

/* If this failed, a gateway with a genuine TPM could not enrol, or one whose key lives elsewhere could. */
static void a_key_is_proven_by_its_own_tpm_only(void **state) {
    struct attested other;
    (void)state;
    assert_int_equal(introduce_from(tpms[0], tpms[0], &proven), E_OK);
    assert_int_equal(proven.type, ATTEST_TPM2);
    assert_int_equal(introduce_from(tpms[0], tpms[1], &other), E_NOT_FOUND);
    assert_int_equal(introduce_from(tpms[1], tpms[1], &other), E_OK);
    assert_int_equal(introduce_from(tpms[0], tpms[1], &other), E_ATTEST_UNPROVEN);
    assert_memory_not_equal(other.endorsement, proven.endorsement, sizeof other.endorsement);
}

/* If this failed, no gateway would ever be trusted, or its result would not convince the others. */
static void genuine_evidence_becomes_a_result(void **state) {
    struct appraise_question q = question(1);
    struct appraisal a;
    struct builder b, result;
    struct fault f = {.text = ""};
    struct verdict v, read;
    uint8_t public_key[1][KEYS_ED25519_PUBLIC_BYTES], secret_key[KEYS_ED25519_SECRET_BYTES];
    (void)state;
    builder_init(&b, ATTEST_EVIDENCE_BYTES_MAX);
    builder_init(&result, VERDICT_BYTES_MAX);
    answer(tpms[0], &q, &b);
    if (appraise(&q, builder_bytes(&b), &a, &f) != E_OK) {
        fail_msg("%s: %s", error_name(f.code), f.text);
    }
    assert_int_equal(a.status, APPRAISE_WARNING); /* the policy learns */
    assert_true(a.next.seen);
    proven = a.next;
    keys_new_ed25519(public_key[0], secret_key);
    v = verdict_of(bytes_str("core-1"), &q, &a);
    assert_int_equal(verdict_sign(&result, &v, public_key[0], secret_key), E_OK);
    assert_int_equal(verdict_open(builder_bytes(&result), public_key, 1, NOW_S + 3599, &read, &f), E_OK);
    assert_true(attest_identity_equal(&read.who, &v.who));
    print_message("evidence of %zu bytes, result of %zu\n", b.size, result.size);
    assert_int_equal(verdict_open(builder_bytes(&result), public_key, 1, NOW_S + 3600, &read, &f), E_ATTEST_EXPIRED);
    builder_free(&result);
    builder_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_key_is_proven_by_its_own_tpm_only),
                                       cmocka_unit_test(genuine_evidence_becomes_a_result)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
