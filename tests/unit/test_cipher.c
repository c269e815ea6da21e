/* Encryption between site and core: a mistake here opens what a customer's broker should not see, or locks a site out of its core. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "platform/cipher.h"
#include "platform/keys.h"

static size_t from_hex(const char *hex, uint8_t *out) {
    size_t n = strlen(hex) / 2;
    for (size_t i = 0; i < n; i++) {
        unsigned v = 0;
        for (int k = 0; k < 2; k++) {
            char c = hex[2 * i + (size_t)k];
            v = v * 16 + (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
        }
        out[i] = (uint8_t)v;
    }
    return n;
}

/* NIST's GCM test vectors (McGrew and Viega), cases 14 and 16. */
static void gcm_does_as_nist_says(void **state) {
    (void)state;
    static const struct {
        const char *key, *nonce, *bound, *plain, *sealed;
    } cases[] = {
        {"0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000", "",
         "00000000000000000000000000000000", "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"},
        {"feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
         "feedfacedeadbeeffeedfacedeadbeefabaddad2",
         "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
         "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662"
         "76fc6ece0f4e1768cddf8853bb2d551b"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t key[32], nonce[12], bound[64], plain[64], sealed[96], out[96];
        (void)from_hex(cases[i].key, key);
        (void)from_hex(cases[i].nonce, nonce);
        size_t bound_size = from_hex(cases[i].bound, bound), size = from_hex(cases[i].plain, plain);
        assert_int_equal(from_hex(cases[i].sealed, sealed), size + CIPHER_TAG_BYTES);
        assert_true(cipher_seal(key, nonce, bytes_of(bound, bound_size), bytes_of(plain, size), out));
        assert_memory_equal(out, sealed, size + CIPHER_TAG_BYTES);
        assert_true(cipher_open(key, nonce, bytes_of(bound, bound_size), bytes_of(sealed, size + CIPHER_TAG_BYTES), out));
        assert_memory_equal(out, plain, size);
    }
}

static void what_was_changed_does_not_open(void **state) {
    (void)state;
    uint8_t key[32] = {1}, nonce[12] = {2}, bound[5] = "bound", sealed[20 + CIPHER_TAG_BYTES], out[20], zero[20] = {0};
    assert_true(cipher_seal(key, nonce, bytes_of(bound, 5), bytes_str("twenty bytes of text"), sealed));
    for (size_t bit = 0; bit < 8 * sizeof sealed; bit++) {
        sealed[bit / 8] ^= (uint8_t)(1u << bit % 8);
        memset(out, 7, sizeof out);
        assert_false(cipher_open(key, nonce, bytes_of(bound, 5), bytes_of(sealed, sizeof sealed), out));
        assert_memory_equal(out, zero, sizeof out); /* and tells nothing */
        sealed[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t bit = 0; bit < 40; bit++) {
        bound[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_false(cipher_open(key, nonce, bytes_of(bound, 5), bytes_of(sealed, sizeof sealed), out));
        bound[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t size = 0; size < sizeof sealed; size++) {
        assert_false(cipher_open(key, nonce, bytes_of(bound, 5), bytes_of(sealed, size), out));
    }
    key[31] ^= 1;
    assert_false(cipher_open(key, nonce, bytes_of(bound, 5), bytes_of(sealed, sizeof sealed), out));
    key[31] ^= 1;
    nonce[11] ^= 1;
    assert_false(cipher_open(key, nonce, bytes_of(bound, 5), bytes_of(sealed, sizeof sealed), out));
    nonce[11] ^= 1;
    assert_true(cipher_open(key, nonce, bytes_of(bound, 5), bytes_of(sealed, sizeof sealed), out));
}

static void derivation_does_as_rfc_5869_says(void **state) {
    (void)state;
    uint8_t secret[22], salt[13], info[10], wanted[42], out[42];
    memset(secret, 0x0b, sizeof secret);
    (void)from_hex("000102030405060708090a0b0c", salt);
    (void)from_hex("f0f1f2f3f4f5f6f7f8f9", info);
    (void)from_hex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865", wanted);
    cipher_derive(bytes_of(salt, sizeof salt), bytes_of(secret, sizeof secret), bytes_of(info, sizeof info), out, sizeof out);
    assert_memory_equal(out, wanted, sizeof out);
}

static void agreement_does_as_rfc_7748_says(void **state) {
    (void)state;
    uint8_t alice[32], bob[32], wanted[32], a[32], b[32], shared[32], other[32];
    (void)from_hex("77076d0a7318a57d3c16c17251b26645df4c2f92ebc099ac3f36b3d1d7f5e4d4", alice);
    (void)from_hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb", bob);
    keys_public_x25519(bob, b);
    (void)from_hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f", wanted);
    assert_memory_equal(b, wanted, 32);
    keys_public_x25519(alice, a);
    assert_true(keys_agree_x25519(bob, a, shared));
    assert_true(keys_agree_x25519(alice, b, other));
    assert_memory_equal(shared, other, 32);
    memset(b, 0, sizeof b);
    assert_false(keys_agree_x25519(alice, b, shared)); /* a point of small order */
}

static void keys_that_sign_agree_too(void **state) {
    (void)state;
    uint8_t public_key[32], secret_key[64], x_secret[32], x_public[32], made[32];
    keys_new_ed25519(public_key, secret_key);
    keys_x25519_of_secret(secret_key, x_secret);
    assert_true(keys_x25519_of_public(public_key, x_public));
    keys_public_x25519(x_secret, made);
    assert_memory_equal(made, x_public, 32);
    memset(public_key, 0, sizeof public_key);
    assert_false(keys_x25519_of_public(public_key, x_public));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gcm_does_as_nist_says),
        cmocka_unit_test(what_was_changed_does_not_open),
        cmocka_unit_test(derivation_does_as_rfc_5869_says),
        cmocka_unit_test(agreement_does_as_rfc_7748_says),
        cmocka_unit_test(keys_that_sign_agree_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
