/* Random numbers, and the keys that TLS and proofs rest on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "platform/mbed.h" /* before the headers of mbedTLS */

#include <mbedtls/ecp.h>

#include "platform/keys.h"

#define PAIR_COUNT 8u

static uint8_t nibble(char c) {
    return (uint8_t)(c <= '9' ? c - '0' : c - 'a' + 10);
}

static void from_hex(const char *hex, uint8_t *out, size_t size) {
    assert_int_equal(strlen(hex), 2 * size);
    for (size_t i = 0; i < size; i++) {
        out[i] = (uint8_t)(nibble(hex[2 * i]) << 4 | nibble(hex[2 * i + 1]));
    }
}

/* If the checker ran only after a key was made in the same process, a node that only verifies would refuse good proofs.
 * This test stays first: nothing has started libsodium yet (RFC 8032, section 7.1, tests 1 and 3). */
static void ed25519_agrees_with_the_rfc(void **state) {
    (void)state;
    static const struct {
        const char *secret, *public, *message, *signature;
    } cases[] = {{"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                  "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
                  "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
                  "d25bf5f0595bbe24655141438e7a100b"},
                 {"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
                  "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
                  "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
                  "4a7c15e9716ed28dc027beceea1ec40a"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t secret[KEYS_ED25519_SECRET_BYTES], public[KEYS_ED25519_PUBLIC_BYTES], message[2] = {0};
        uint8_t wanted[KEYS_ED25519_SIGNATURE_BYTES], signature[KEYS_ED25519_SIGNATURE_BYTES];
        size_t size = strlen(cases[i].message) / 2;
        from_hex(cases[i].secret, secret, 32);
        from_hex(cases[i].public, secret + 32, 32); /* libsodium's form: the seed, then the public key */
        from_hex(cases[i].public, public, sizeof public);
        from_hex(cases[i].message, message, size);
        from_hex(cases[i].signature, wanted, sizeof wanted);
        assert_true(keys_verify_ed25519(bytes_of(message, size), public, wanted));
        keys_sign_ed25519(bytes_of(message, size), secret, signature);
        assert_memory_equal(signature, wanted, sizeof wanted);
    }
}

/* If one changed bit passed, a forged proof would be believed. */
static void ed25519_refuses_every_changed_byte(void **state) {
    (void)state;
    uint8_t public[KEYS_ED25519_PUBLIC_BYTES], secret[KEYS_ED25519_SECRET_BYTES], signature[KEYS_ED25519_SIGNATURE_BYTES];
    uint8_t message[40];
    keys_new_ed25519(public, secret);
    keys_random(message, sizeof message);
    struct bytes all = bytes_of(message, sizeof message);
    keys_sign_ed25519(all, secret, signature);
    assert_true(keys_verify_ed25519(all, public, signature));
    for (size_t i = 0; i < sizeof message; i++) {
        message[i] ^= 1;
        assert_false(keys_verify_ed25519(all, public, signature));
        message[i] ^= 1;
    }
    for (size_t i = 0; i < sizeof signature; i++) {
        signature[i] ^= 1;
        assert_false(keys_verify_ed25519(all, public, signature));
        signature[i] ^= 1;
    }
    for (size_t i = 0; i < sizeof public; i++) {
        public[i] ^= 1;
        assert_false(keys_verify_ed25519(all, public, signature));
        public[i] ^= 1;
    }
    assert_false(keys_verify_ed25519(bytes_of(message, sizeof message - 1), public, signature));
    assert_true(keys_verify_ed25519(all, public, signature));
}

/* If a key of small order were taken, one signature would do for many messages (the point of order one signs everything). */
static void ed25519_refuses_a_key_of_small_order(void **state) {
    (void)state;
    uint8_t public[KEYS_ED25519_PUBLIC_BYTES] = {1}, signature[KEYS_ED25519_SIGNATURE_BYTES] = {1};
    assert_false(keys_verify_ed25519(bytes_str("anything"), public, signature));
}

/* If random bytes were missing at an end, ids and serial numbers would meet. */
static void random_fills_all_and_nothing_more(void **state) {
    (void)state;
    static uint8_t room[100000 + 2]; /* more than one getrandom() is sure to give */
    uint8_t seen[3] = {0};
    for (int round = 0; round < 16; round++) {
        memset(room, 0, sizeof room);
        keys_random(room + 1, sizeof room - 2);
        assert_int_equal(room[0], 0);
        assert_int_equal(room[sizeof room - 1], 0);
        seen[0] |= room[1], seen[1] |= room[50000], seen[2] |= room[sizeof room - 2];
    }
    assert_true(seen[0] != 0 && seen[1] != 0 && seen[2] != 0);
    keys_random(room, 0);
    uint8_t a[16], b[16];
    keys_random(a, sizeof a);
    assert_int_equal(keys_rng(NULL, b, sizeof b), 0);
    assert_memory_not_equal(a, b, sizeof a);
}

/* If a new key were not a P-256 key, or the same twice, no TLS handshake of the site could be trusted. */
static void p256_keys_are_valid_and_differ(void **state) {
    (void)state;
    struct builder pem[PAIR_COUNT];
    for (size_t i = 0; i < PAIR_COUNT; i++) {
        builder_init(&pem[i], 1024);
        assert_int_equal(keys_new_p256(&pem[i], NULL), E_OK);
        assert_memory_equal(pem[i].data, "-----BEGIN EC PRIVATE KEY-----\n", 31);
        assert_int_equal(pem[i].data[pem[i].size - 1], '\n');
        builder_add_byte(&pem[i], 0);
        mbedtls_pk_context key;
        mbedtls_pk_init(&key);
        assert_int_equal(mbed_parse_key(&key, builder_bytes(&pem[i])), 0);
        const mbedtls_ecp_keypair *pair = mbedtls_pk_ec(key);
        assert_int_equal(pair->grp.id, MBEDTLS_ECP_DP_SECP256R1);
        assert_int_equal(mbedtls_ecp_check_privkey(&pair->grp, &pair->d), 0);
        assert_int_equal(mbedtls_ecp_check_pubkey(&pair->grp, &pair->Q), 0);
        mbedtls_pk_free(&key);
        for (size_t j = 0; j < i; j++) {
            assert_false(bytes_equal(builder_bytes(&pem[i]), builder_bytes(&pem[j])));
        }
    }
    for (size_t i = 0; i < PAIR_COUNT; i++) {
        builder_free(&pem[i]);
    }
}

/* If a key that did not fit were reported as made, half a key would lie in a file. */
static void p256_says_when_there_is_no_room(void **state) {
    (void)state;
    struct builder pem;
    struct fault f = {0};
    builder_init(&pem, 100);
    assert_int_equal(keys_new_p256(&pem, &f), E_TOO_LARGE);
    assert_int_equal(f.code, E_TOO_LARGE);
    assert_int_equal(pem.size, 0);
    builder_free(&pem);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ed25519_agrees_with_the_rfc),          cmocka_unit_test(ed25519_refuses_every_changed_byte),
        cmocka_unit_test(ed25519_refuses_a_key_of_small_order), cmocka_unit_test(random_fills_all_and_nothing_more),
        cmocka_unit_test(p256_keys_are_valid_and_differ),       cmocka_unit_test(p256_says_when_there_is_no_room),
    };
    return cmocka_run_group_tests_name("keys", tests, NULL, NULL);
}
