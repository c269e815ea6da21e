/* Seals: what a leader vouched for, and nothing else, passes; for ever, also when this code is another one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "federation/seal.h"

#define CLUSTER 0x1122334455667788u

/* The key of seed 00 01 ... 1f; the signature was made by another implementation (Python's cryptography) from docs/FORMATS.md. */
static const uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES] = {0x03, 0xa1, 0x07, 0xbf, 0xf3, 0xce, 0x10, 0xbe, 0x1d, 0x70, 0xdd,
                                                              0x18, 0xe7, 0x4b, 0xc0, 0x99, 0x67, 0xe4, 0xd6, 0x30, 0x9b, 0xa5,
                                                              0x0d, 0x5f, 0x1d, 0xdc, 0x86, 0x64, 0x12, 0x55, 0x31, 0xb8};
static const uint8_t signature[KEYS_ED25519_SIGNATURE_BYTES] = {
    0x06, 0xa5, 0x28, 0x05, 0x0c, 0x03, 0x1b, 0x33, 0x6d, 0x4f, 0x15, 0xf6, 0xa7, 0x1e, 0x14, 0x80,
    0x3e, 0x21, 0x94, 0x62, 0x4b, 0x7e, 0xef, 0x05, 0x16, 0x97, 0xf4, 0x2a, 0x29, 0xbc, 0x34, 0x7b,
    0xa7, 0xfd, 0x09, 0xf2, 0x05, 0x44, 0xe4, 0x6f, 0x9f, 0x94, 0xff, 0x1c, 0x82, 0x6b, 0x0f, 0x78,
    0xe1, 0x71, 0x71, 0xb4, 0xa0, 0xf5, 0x74, 0xaf, 0x66, 0x9b, 0x75, 0x75, 0x79, 0x9b, 0xe9, 0x0b};

static struct seal known(void) {
    struct seal s = {.index = 42, .epoch = 7, .signer = 0xfedcba9876543210};
    memset(s.hash, 0xab, sizeof s.hash);
    memcpy(s.signature, signature, sizeof s.signature);
    return s;
}

/* If this failed, seals made by a released version, or by another program from the format's description, would be refused. */
static void the_format_is_the_written_one(void **state) {
    (void)state;
    struct seal s = known(), again = s;
    uint8_t secret[KEYS_ED25519_SECRET_BYTES];
    assert_true(seal_verify(&s, CLUSTER, public_key));
    for (uint8_t i = 0; i < 32; i++) {
        secret[i] = i;
    }
    memcpy(secret + 32, public_key, sizeof public_key);
    memset(again.signature, 0, sizeof again.signature);
    seal_sign(&again, CLUSTER, secret);
    assert_memory_equal(again.signature, signature, sizeof signature);
}

/* If this failed, a seal could be passed off for another entry, epoch, leader or site. */
static void nothing_in_it_can_be_changed(void **state) {
    (void)state;
    struct seal s = known();
    assert_false(seal_verify(&s, CLUSTER + 1, public_key));
    s.index++;
    assert_false(seal_verify(&s, CLUSTER, public_key));
    s = known();
    s.epoch--;
    assert_false(seal_verify(&s, CLUSTER, public_key));
    s = known();
    s.signer ^= 1;
    assert_false(seal_verify(&s, CLUSTER, public_key));
    for (size_t i = 0; i < sizeof s.hash; i++) {
        s = known();
        s.hash[i] ^= 0x80;
        assert_false(seal_verify(&s, CLUSTER, public_key));
    }
    for (size_t i = 0; i < sizeof s.signature; i++) {
        s = known();
        s.signature[i] ^= 1;
        assert_false(seal_verify(&s, CLUSTER, public_key));
    }
    uint8_t other[KEYS_ED25519_PUBLIC_BYTES], secret[KEYS_ED25519_SECRET_BYTES];
    keys_new_ed25519(other, secret);
    s = known();
    assert_false(seal_verify(&s, CLUSTER, other));
    memset(other, 0, sizeof other); /* a member without a key */
    assert_false(seal_verify(&s, CLUSTER, other));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_format_is_the_written_one),
                                       cmocka_unit_test(nothing_in_it_can_be_changed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
