/* Bundles of programs.  If this failed, a gateway could run what its maker never signed, or what he has withdrawn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "federation/update.h"

static uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES], secret_key[KEYS_ED25519_SECRET_BYTES];
static uint8_t header[UPDATE_HEADER_BYTES];

static struct update_manifest make(void) {
    struct update_manifest m = {.product = bytes_str("agent"),
                                .architecture = bytes_str("arm64"),
                                .version = bytes_str("1.4.0"),
                                .counter = 7,
                                .replaces_max = 0,
                                .file_count = 2};
    m.files[0] = (struct update_file){.name = bytes_str("greyd"), .size = 5000};
    m.files[1] = (struct update_file){.name = bytes_str("greyctl"), .size = 4096};
    memset(m.files[0].hash, 1, sizeof m.files[0].hash);
    return m;
}

static void what_is_signed_is_read(void **state) {
    (void)state;
    struct update_manifest m = make(), back;
    assert_int_equal(update_sign(&m, secret_key, header), E_OK);
    assert_int_equal(update_verify(bytes_of(header, sizeof header), public_key, &back), E_OK);
    assert_true(bytes_equal_str(back.product, "agent") && bytes_equal_str(back.architecture, "arm64") &&
                bytes_equal_str(back.version, "1.4.0"));
    assert_int_equal(back.counter, 7);
    assert_int_equal(back.file_count, 2);
    assert_true(bytes_equal_str(back.files[1].name, "greyctl"));
    assert_memory_equal(back.id, m.id, sizeof m.id);
    assert_int_equal(update_offset(&back, 0), 4096);
    assert_int_equal(update_offset(&back, 1), 4096 + 8192); /* each file begins a chunk */
    assert_int_equal(update_offset(&back, 2), 4096 + 8192 + 4096);
}

static void no_bit_may_change(void **state) {
    (void)state;
    struct update_manifest m = make(), back;
    uint8_t other_public[KEYS_ED25519_PUBLIC_BYTES], other_secret[KEYS_ED25519_SECRET_BYTES];
    assert_int_equal(update_sign(&m, secret_key, header), E_OK);
    for (size_t i = 0; i < sizeof header * 8; i++) {
        header[i / 8] ^= (uint8_t)(1u << i % 8);
        assert_int_not_equal(update_verify(bytes_of(header, sizeof header), public_key, &back), E_OK);
        assert_int_equal(back.file_count, 0);
        header[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    for (size_t size = 0; size < sizeof header; size += 97) {
        assert_int_equal(update_verify(bytes_of(header, size), public_key, &back), E_UPDATE_FORMAT);
    }
    keys_new_ed25519(other_public, other_secret);
    assert_int_equal(update_verify(bytes_of(header, sizeof header), other_public, &back), E_UPDATE_SIGNATURE);
    assert_int_equal(update_read(bytes_of(header, sizeof header), &back), E_OK);
}

static void names_leave_no_folder(void **state) {
    (void)state;
    static const char *const bad[] = {"", ".", "..", "../greyd", "a/b", ".header", "a b"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct update_manifest m = make();
        m.files[0].name = bytes_str(bad[i]);
        assert_int_equal(update_sign(&m, secret_key, header), E_UPDATE_FORMAT);
    }
    struct update_manifest twice = make(), none = make(), empty = make(), uncounted = make();
    twice.files[1].name = twice.files[0].name;
    none.file_count = 0;
    empty.files[0].size = 0;
    uncounted.counter = 0;
    assert_int_equal(update_sign(&twice, secret_key, header), E_UPDATE_FORMAT);
    assert_int_equal(update_sign(&none, secret_key, header), E_UPDATE_FORMAT);
    assert_int_equal(update_sign(&empty, secret_key, header), E_UPDATE_FORMAT);
    assert_int_equal(update_sign(&uncounted, secret_key, header), E_UPDATE_FORMAT);
}

static void all_that_it_may_hold_fits(void **state) {
    (void)state;
    static char names[UPDATE_FILES_MAX][UPDATE_WORD_BYTES_MAX + 1];
    struct update_manifest m = make(), back;
    m.file_count = UPDATE_FILES_MAX;
    for (unsigned i = 0; i < UPDATE_FILES_MAX; i++) {
        memset(names[i], 'a' + (int)i, UPDATE_WORD_BYTES_MAX);
        m.files[i] = (struct update_file){.name = bytes_str(names[i]), .size = UPDATE_FILE_BYTES_MAX};
    }
    assert_int_equal(update_sign(&m, secret_key, header), E_OK);
    assert_int_equal(update_verify(bytes_of(header, sizeof header), public_key, &back), E_OK);
    assert_int_equal(back.file_count, UPDATE_FILES_MAX);
}

static void older_ones_are_refused(void **state) {
    (void)state;
    struct update_manifest m = make();
    assert_int_equal(update_fits(&m, "agent", "arm64", 0), E_OK);
    assert_int_equal(update_fits(&m, "agent", "arm64", 7), E_OK); /* back among versions of one counter is allowed */
    assert_int_equal(update_fits(&m, "agent", "arm64", 8), E_UPDATE_OLDER);
    m.replaces_max = 8; /* its maker allows it */
    assert_int_equal(update_fits(&m, "agent", "arm64", 8), E_OK);
    assert_int_equal(update_fits(&m, "agent", "arm64", 9), E_UPDATE_OLDER);
    assert_int_equal(update_fits(&m, "agent", "armhf", 0), E_UPDATE_PRODUCT);
    assert_int_equal(update_fits(&m, "imx8mm", "arm64", 0), E_UPDATE_PRODUCT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_signed_is_read), cmocka_unit_test(no_bit_may_change),
        cmocka_unit_test(names_leave_no_folder),  cmocka_unit_test(all_that_it_may_hold_fits),
        cmocka_unit_test(older_ones_are_refused),
    };
    keys_new_ed25519(public_key, secret_key);
    return cmocka_run_group_tests_name("update", tests, NULL, NULL);
}
