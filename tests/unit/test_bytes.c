#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "platform/bytes.h"

/* If slices compared wrongly, keys and ids of clients would be mixed up. */
static void slices_compare_as_bytes(void **state) {
    (void)state;
    struct bytes empty = bytes_of(NULL, 0);
    assert_true(bytes_equal(empty, bytes_str("")));
    assert_true(bytes_equal(bytes_str(NULL), empty));
    assert_true(bytes_equal_str(bytes_of("ab\0c", 2), "ab"));
    assert_false(bytes_equal_str(bytes_of("ab\0c", 4), "ab"));
    assert_true(bytes_compare(bytes_str("a"), bytes_str("ab")) < 0);
    assert_true(bytes_compare(bytes_str("b"), bytes_str("ab")) > 0);
    assert_true(bytes_compare(bytes_of("\xff", 1), bytes_str("a")) > 0);
    assert_int_equal(bytes_compare(empty, empty), 0);
    assert_true(bytes_compare(empty, bytes_str("a")) < 0);
}

/* If numbers on the wire had another byte order on another processor, a mixed site could not talk. */
static void numbers_are_big_endian_at_any_place(void **state) {
    (void)state;
    uint8_t p[16] = {0};
    bytes_put_be16(p + 1, 0x0102);
    bytes_put_be32(p + 3, 0x03040506);
    bytes_put_be64(p + 7, 0x0708090a0b0c0d0eull);
    for (uint8_t i = 0; i < 15; i++) {
        assert_int_equal(p[i], i);
    }
    assert_int_equal(bytes_get_be16(p + 1), 0x0102);
    assert_int_equal(bytes_get_be32(p + 3), 0x03040506);
    assert_true(bytes_get_be64(p + 7) == 0x0708090a0b0c0d0eull);
    bytes_put_be64(p, UINT64_MAX);
    assert_true(bytes_get_be64(p) == UINT64_MAX);
    assert_true(bytes_get_be32(p) == UINT32_MAX);
}

/* If bad UTF-8 passed, one node's reader would refuse what another node wrote, and the log could not be read. */
static void utf8_is_told_from_other_bytes(void **state) {
    (void)state;
    static const char *const good[] = {"",
                                       "a",
                                       "\x7f",
                                       "\xc2\x80",
                                       "\xdf\xbf",
                                       "\xe0\xa0\x80",
                                       "\xed\x9f\xbf",
                                       "\xee\x80\x80",
                                       "\xef\xbf\xbf",
                                       "\xf0\x90\x80\x80",
                                       "\xf4\x8f\xbf\xbf",
                                       "gr\xc3\xbc\xc3\x9f"};
    static const char *const bad[] = {
        "\x80",         "\xbf",         "\xc0\x80",         "\xc1\xbf",         "\xc2",         "\xc2\x41",
        "\xe0\x9f\xbf", "\xed\xa0\x80", "\xed\xbf\xbf",     "\xe2\x82",         "\xe2\x82\x41", "\xf0\x8f\xbf\xbf",
        "\xf0\x9f\x98", "\xfe",         "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff",         "ok\xc3"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_true(bytes_utf8_valid(bytes_str(good[i])));
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(bytes_utf8_valid(bytes_str(bad[i])));
    }
    assert_true(bytes_utf8_valid(bytes_of("a\0b", 3)));
    assert_int_equal(bytes_utf8_size(bytes_str("\xf0\x9f\x98\x80 and more")), 4);
    assert_int_equal(bytes_utf8_size(bytes_of(NULL, 0)), 0);
}

/* The sanitizer's own allocator stops the process at absurd sizes unless told that NULL is an answer. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "allocator_may_return_null=1";
}

/* If the count of holders were wrong, an event would be freed while it is being sent. */
static void blobs_live_until_the_last_holder(void **state) {
    (void)state;
    struct blob *b = blob_copy(bytes_str("payload"));
    assert_non_null(b);
    assert_ptr_equal(blob_ref(b), b);
    blob_unref(b);
    assert_true(bytes_equal_str(blob_bytes(b), "payload"));
    blob_unref(b);
    assert_null(blob_ref(NULL));
    blob_unref(NULL);
    assert_int_equal(blob_bytes(NULL).size, 0);
    assert_null(blob_new(SIZE_MAX));
    assert_null(mem_new(SIZE_MAX, 2));
    assert_null(mem_grow(NULL, SIZE_MAX, 2));
}

/* If a builder passed its limit, a hostile sender could take all memory of a gateway. */
static void builders_stop_at_their_limit(void **state) {
    (void)state;
    struct builder b;
    builder_init(&b, 10);
    builder_add_str(&b, "12345");
    builder_addf(&b, "%d", 67890);
    assert_int_equal(b.err, E_OK);
    builder_add(&b, bytes_of(NULL, 0));
    assert_int_equal(b.err, E_OK);
    builder_add_byte(&b, 'x');
    assert_int_equal(b.err, E_TOO_LARGE);
    assert_null(builder_room(&b, 0));
    assert_null(builder_blob(&b));
    assert_true(bytes_equal_str(builder_bytes(&b), "1234567890"));
    builder_reset(&b);
    assert_int_equal(b.err, E_OK);
    builder_add_str(&b, "again");
    struct blob *copy = builder_blob(&b);
    assert_true(bytes_equal_str(blob_bytes(copy), "again"));
    blob_unref(copy);
    builder_free(&b);
    builder_add_str(&b, "usable");
    assert_int_equal(b.err, E_OK);
    builder_free(&b);
}

/* If long formatted texts were cut, the metrics page and answers would break off in the middle. */
static void long_formats_come_out_whole(void **state) {
    (void)state;
    for (int width = 500; width < 530; width++) {
        struct builder b;
        builder_init(&b, 4096);
        builder_addf(&b, "%*d|", width, 7);
        builder_add_str(&b, "end");
        assert_int_equal(b.err, E_OK);
        assert_int_equal(b.size, width + 4);
        assert_memory_equal(b.data + width - 1, "7|end", 5);
        builder_free(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slices_compare_as_bytes),       cmocka_unit_test(numbers_are_big_endian_at_any_place),
        cmocka_unit_test(utf8_is_told_from_other_bytes), cmocka_unit_test(blobs_live_until_the_last_holder),
        cmocka_unit_test(builders_stop_at_their_limit),  cmocka_unit_test(long_formats_come_out_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
