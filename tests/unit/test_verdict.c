/* Attestation results and endorsement certificates: what other gateways trust without asking, and what the verifier trusts to begin with. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "federation/attest/verdict.h"

#define FROM_S INT64_C(1900000000)

static uint8_t keys[2][KEYS_ED25519_PUBLIC_BYTES], secret[KEYS_ED25519_SECRET_BYTES], other_secret[KEYS_ED25519_SECRET_BYTES];

static struct verdict make(void) {
    struct verdict v = {.verifier = bytes_str("core-1"),
                        .who = {.site = bytes_str("plant-7"), .node = bytes_str("node1"), .raft_id = 77},
                        .from_s = FROM_S,
                        .until_s = FROM_S + 192 * 3600,
                        .type = ATTEST_TPM2,
                        .status = 2,
                        .identity = 2,
                        .configuration = 2,
                        .executables = 3,
                        .hardware = 2,
                        .policy = bytes_str("lab"),
                        .policy_serial = 9};
    memset(v.who.signing_key, 1, sizeof v.who.signing_key);
    memset(v.who.tls_key, 2, sizeof v.who.tls_key);
    memset(v.evidence_digest, 3, sizeof v.evidence_digest);
    return v;
}

static enum grey_error open_at(struct bytes in, int64_t now_s, struct verdict *out) {
    return verdict_open(in, (const uint8_t(*)[KEYS_ED25519_PUBLIC_BYTES])keys, 1, now_s, out, NULL);
}

/* If this failed, a gateway that was judged good would be shut out by its own site. */
static void a_result_says_what_was_signed(void **state) {
    struct verdict v = make(), read;
    struct builder b;
    (void)state;
    builder_init(&b, VERDICT_BYTES_MAX);
    assert_int_equal(verdict_sign(&b, &v, keys[0], secret), E_OK);
    assert_int_equal(open_at(builder_bytes(&b), FROM_S + 1, &read), E_OK);
    assert_true(attest_identity_equal(&read.who, &v.who));
    assert_true(bytes_equal(read.verifier, v.verifier) && bytes_equal(read.policy, v.policy));
    assert_int_equal(read.until_s, v.until_s);
    assert_int_equal(read.from_s, v.from_s);
    assert_int_equal(read.type, v.type);
    assert_int_equal(read.executables, 3);
    assert_int_equal(read.policy_serial, 9);
    assert_memory_equal(read.evidence_digest, v.evidence_digest, sizeof v.evidence_digest);
    builder_free(&b);
}

/* If this failed, results could be forged, lengthened, or used after their time. */
static void nothing_else_is_a_result(void **state) {
    struct verdict v = make(), read;
    struct builder b;
    (void)state;
    builder_init(&b, VERDICT_BYTES_MAX);
    assert_int_equal(verdict_sign(&b, &v, keys[0], secret), E_OK);
    for (size_t at = 0; at < b.size; at++) {
        for (uint32_t bit = 0; bit < 8; bit++) {
            b.data[at] ^= (uint8_t)(1u << bit);
            assert_int_equal(open_at(builder_bytes(&b), FROM_S, &read), E_ATTEST_RESULT);
            b.data[at] ^= (uint8_t)(1u << bit);
        }
        assert_int_equal(open_at(bytes_of(b.data, at), FROM_S, &read), E_ATTEST_RESULT);
    }
    assert_int_equal(open_at(builder_bytes(&b), FROM_S, &read), E_OK);
    assert_int_equal(open_at(builder_bytes(&b), FROM_S - 301, &read), E_ATTEST_RESULT); /* from the future */
    assert_int_equal(open_at(builder_bytes(&b), v.until_s - 1, &read), E_OK);
    assert_int_equal(open_at(builder_bytes(&b), v.until_s, &read), E_ATTEST_EXPIRED);
    builder_reset(&b);
    assert_int_equal(verdict_sign(&b, &v, keys[1], other_secret), E_OK); /* a verifier that nobody trusts here */
    assert_int_equal(open_at(builder_bytes(&b), FROM_S, &read), E_ATTEST_RESULT);
    v.until_s++;
    builder_reset(&b);
    assert_int_equal(verdict_sign(&b, &v, keys[0], secret), E_OK); /* longer than any policy allows */
    assert_int_equal(open_at(builder_bytes(&b), FROM_S, &read), E_ATTEST_RESULT);
    v = make();
    v.who.site = bytes_str("a/b");
    builder_reset(&b);
    assert_int_equal(verdict_sign(&b, &v, keys[0], secret), E_BAD_MESSAGE); /* would read as another gateway */
    builder_free(&b);
}

/* If this failed, policies could be read in two ways, or values be accepted in registers that nobody looks at. */
static void a_policy_is_read_strictly(void **state) {
    static struct reference p, read;
    struct builder b;
    (void)state;
    p = (struct reference){
        .name = bytes_str("lab"), .serial = 3, .types = 2, .pcr_mask = 0x40ff, .validity_s = 60, .value_count = 1};
    p.values[0] = (struct reference_value){.kind = REFERENCE_REGISTER, .pcr = 0, .until_ms = -1};
    builder_init(&b, REFERENCE_BYTES_MAX);
#define POLICY(change, wanted)                                                                                                     \
    do {                                                                                                                           \
        struct reference kept = p;                                                                                                 \
        change;                                                                                                                    \
        builder_reset(&b);                                                                                                         \
        reference_put(&b, &p);                                                                                                     \
        assert_int_equal(reference_get(builder_bytes(&b), &read), wanted);                                                         \
        p = kept;                                                                                                                  \
    } while (0)
    POLICY((void)0, E_OK);
    assert_memory_equal(&read.values[0], &p.values[0], sizeof p.values[0]);
    POLICY(p.types = 0, E_ATTEST_POLICY);
    POLICY(p.types = 16, E_ATTEST_POLICY);
    POLICY(p.pcr_mask = 0, E_ATTEST_POLICY);
    POLICY((p.pcr_mask = 0, p.types = 1), E_OK);
    POLICY(p.validity_s = 59, E_ATTEST_POLICY);
    POLICY(p.validity_s = 192 * 3600 + 1, E_ATTEST_POLICY);
    POLICY(p.name = bytes_str(""), E_ATTEST_POLICY);
    POLICY(p.values[0].pcr = 24, E_ATTEST_POLICY);
    POLICY(p.values[0].pcr = STARTLOG_PCR, E_ATTEST_POLICY);
    POLICY(p.values[0].kind = REFERENCE_PROGRAM, E_ATTEST_POLICY);
    POLICY(p.values[0].from_ms = -1, E_ATTEST_POLICY);
    POLICY((p.values[0].from_ms = 5, p.values[0].until_ms = 5), E_ATTEST_POLICY);
#undef POLICY
    builder_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_result_says_what_was_signed), cmocka_unit_test(nothing_else_is_a_result),
                                       cmocka_unit_test(a_policy_is_read_strictly)};
    keys_new_ed25519(keys[0], secret);
    keys_new_ed25519(keys[1], other_secret);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
