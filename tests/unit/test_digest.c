#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "platform/digest.h"

static void assert_sha256(struct bytes in, const char *wanted_hex) {
    uint8_t out[DIGEST_SHA256_BYTES];
    char hex[2 * DIGEST_SHA256_BYTES + 1];
    digest_sha256(in, out);
    for (size_t i = 0; i < sizeof out; i++) {
        (void)snprintf(hex + 2 * i, 3, "%02x", out[i]);
    }
    assert_string_equal(hex, wanted_hex);
}

/* If the hash were not SHA-256, the chain could not be checked by anybody else's tool (vectors of NIST). */
static void sha256_agrees_with_nist(void **state) {
    (void)state;
    assert_sha256(bytes_of(NULL, 0), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_sha256(bytes_str("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_sha256(bytes_str("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
                  "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    assert_sha256(bytes_str("abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrs"
                            "mnopqrstnopqrstu"),
                  "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
    static uint8_t million[1000000];
    memset(million, 'a', sizeof million);
    assert_sha256(bytes_of(million, sizeof million), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

/* If two parts hashed differently from the whole, header and payload could not be bound together. */
static void sha256_of_two_parts_is_that_of_the_whole(void **state) {
    (void)state;
    const char *text = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopqabcdbcdecdefdefgefghfghighijhijkijkljklm";
    uint8_t whole[DIGEST_SHA256_BYTES], parts[DIGEST_SHA256_BYTES];
    digest_sha256(bytes_str(text), whole);
    for (size_t cut = 0; cut <= strlen(text); cut++) {
        digest_sha256_two(bytes_of(text, cut), bytes_str(text + cut), parts);
        assert_memory_equal(whole, parts, sizeof whole);
    }
}

/* If the checksum were another one, frames would be refused by the other side. */
static void crc32_has_the_ieee_check_value(void **state) {
    (void)state;
    assert_int_equal(digest_crc32(0, bytes_str("123456789")), 0xCBF43926);
    assert_int_equal(digest_crc32(digest_crc32(0, bytes_str("1234")), bytes_str("56789")), 0xCBF43926);
    assert_int_equal(digest_crc32(0, bytes_of(NULL, 0)), 0);
    assert_int_equal(digest_crc32(0xCBF43926, bytes_of(NULL, 0)), 0xCBF43926);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha256_agrees_with_nist),
        cmocka_unit_test(sha256_of_two_parts_is_that_of_the_whole),
        cmocka_unit_test(crc32_has_the_ieee_check_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
