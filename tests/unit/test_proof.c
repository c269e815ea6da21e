/* If this failed, a proof of a task's run could be changed or forged unseen, or an honest one be taken for false. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "federation/proof.h"

static uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES], secret_key[KEYS_ED25519_SECRET_BYTES];

static struct proof sample(void) {
    struct proof p = {
        .cluster_id = 0x8877665544332211,
        .token = 9,
        .node = 5,
        .node_name = bytes_str("n1"),
        .task = bytes_str("press-1"),
        .steps = {{.index = 10, .hashed = true, .hash = {1}}, {.index = 11, .hashed = true, .hash = {2}}, {.index = 12}},
        .end = bytes_str("failed"),
        .reason = bytes_str("exit"),
        .status = -3,
        .output_bytes = {4, 0},
        .output_hash = {{7}, {8}},
        .cpu_us = 1500,
        .memory_peak_bytes = 1u << 20,
        .wall_ms = 20};
    memcpy(p.public_key, public_key, sizeof public_key);
    memset(p.input_hash, 0xab, sizeof p.input_hash);
    return p;
}

static int setup(void **state) {
    (void)state;
    keys_new_ed25519(public_key, secret_key);
    return 0;
}

static void is_read_as_it_was_signed(void **state) {
    struct proof in = sample(), out;
    struct bytes body, signature;
    struct builder b;
    (void)state;
    builder_init(&b, 2 * PROOF_BYTES_MAX);
    proof_sign(&b, &in, secret_key);
    assert_int_equal(b.err, E_OK);
    assert_int_equal(proof_read(builder_bytes(&b), &out, &body, &signature), E_OK);
    assert_true(proof_verify(body, signature, public_key));
    assert_true(out.cluster_id == in.cluster_id && out.token == in.token && out.node == in.node && out.status == in.status);
    assert_true(bytes_equal(out.task, in.task) && bytes_equal(out.node_name, in.node_name));
    assert_true(bytes_equal(out.end, in.end) && bytes_equal(out.reason, in.reason) && out.cpu_us == in.cpu_us &&
                out.wall_ms == in.wall_ms);
    assert_true(out.memory_peak_bytes == in.memory_peak_bytes);
    assert_memory_equal(out.input_hash, in.input_hash, sizeof in.input_hash);
    assert_memory_equal(out.output_hash, in.output_hash, sizeof in.output_hash);
    for (unsigned i = 0; i < PROOF_STEPS; i++) {
        assert_true(out.steps[i].index == in.steps[i].index && out.steps[i].hashed == in.steps[i].hashed);
        assert_memory_equal(out.steps[i].hash, in.steps[i].hash, DIGEST_BYTES);
    }
    builder_free(&b);
}

static void no_byte_can_be_changed(void **state) {
    struct proof in = sample(), out;
    struct bytes body, signature;
    struct builder b;
    uint8_t other_key[KEYS_ED25519_PUBLIC_BYTES], other_secret[KEYS_ED25519_SECRET_BYTES];
    (void)state;
    builder_init(&b, 2 * PROOF_BYTES_MAX);
    proof_sign(&b, &in, secret_key);
    for (size_t at = 0; at < b.size; at++) {
        b.data[at] ^= 1;
        bool holds = proof_read(builder_bytes(&b), &out, &body, &signature) == E_OK && proof_verify(body, signature, public_key);
        assert_false(holds);
        b.data[at] ^= 1;
    }
    for (size_t size = 0; size < b.size; size++) {
        assert_int_not_equal(proof_read(bytes_of(b.data, size), &out, &body, &signature), E_OK);
    }
    keys_new_ed25519(other_key, other_secret);
    assert_int_equal(proof_read(builder_bytes(&b), &out, &body, &signature), E_OK);
    assert_false(proof_verify(body, signature, other_key)); /* signed by somebody else */
    builder_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(is_read_as_it_was_signed), cmocka_unit_test(no_byte_can_be_changed)};
    return cmocka_run_group_tests(tests, setup, NULL);
}
