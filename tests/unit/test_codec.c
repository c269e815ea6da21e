#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "include/grey/limits.h"
#include "platform/codec.h"

#define B(literal) bytes_of(literal, sizeof(literal) - 1)

static void assert_bytes(struct bytes got, struct bytes wanted) {
    assert_int_equal(got.size, wanted.size);
    if (got.size > 0) {
        assert_memory_equal(got.data, wanted.data, got.size);
    }
}

static enum grey_error skip_all(struct bytes in) {
    struct codec_reader r;
    codec_reader_init(&r, in);
    (void)codec_skip(&r);
    return codec_end(&r);
}

/* If encodings varied, the same entry would have different hashes on different nodes. */
static void values_have_the_encodings_of_rfc_8949(void **state) {
    (void)state;
    static const struct {
        uint64_t v;
        struct bytes wanted;
    } uints[] = {{0, {(const uint8_t *)"\x00", 1}},
                 {23, {(const uint8_t *)"\x17", 1}},
                 {24, {(const uint8_t *)"\x18\x18", 2}},
                 {255, {(const uint8_t *)"\x18\xff", 2}},
                 {256, {(const uint8_t *)"\x19\x01\x00", 3}},
                 {65535, {(const uint8_t *)"\x19\xff\xff", 3}},
                 {65536, {(const uint8_t *)"\x1a\x00\x01\x00\x00", 5}},
                 {1000000000000, {(const uint8_t *)"\x1b\x00\x00\x00\xe8\xd4\xa5\x10\x00", 9}},
                 {UINT64_MAX, {(const uint8_t *)"\x1b\xff\xff\xff\xff\xff\xff\xff\xff", 9}}};
    struct builder b;
    builder_init(&b, 1024);
    for (size_t i = 0; i < sizeof uints / sizeof uints[0]; i++) {
        builder_reset(&b);
        codec_put_uint(&b, uints[i].v);
        assert_bytes(builder_bytes(&b), uints[i].wanted);
        struct codec_reader r;
        codec_reader_init(&r, builder_bytes(&b));
        assert_true(codec_uint(&r, UINT64_MAX) == uints[i].v);
        assert_int_equal(codec_end(&r), E_OK);
    }
    builder_reset(&b);
    codec_put_array(&b, 9);
    codec_put_int(&b, -1);
    codec_put_int(&b, -100);
    codec_put_int(&b, INT64_MIN);
    codec_put_int(&b, INT64_MAX);
    codec_put_bool(&b, true);
    codec_put_bool(&b, false);
    codec_put_null(&b);
    codec_put_bytes(&b, B("\x01\x02"));
    codec_put_text(&b, B("\xc3\xbc"));
    codec_put_map(&b, 1);
    codec_put_bytes(&b, B(""));
    codec_put_text(&b, B(""));
    assert_int_equal(b.err, E_OK);
    assert_bytes(builder_bytes(&b),
                 B("\x89\x20\x38\x63\x3b\x7f\xff\xff\xff\xff\xff\xff\xff\x1b\x7f\xff\xff\xff\xff\xff\xff\xff\xf5\xf4"
                   "\xf6\x42\x01\x02\x62\xc3\xbc\xa1\x40\x60"));
    builder_free(&b);
}

static void write_sample(struct builder *b) {
    codec_put_array(b, 7);
    codec_put_uint(b, 70000);
    codec_put_int(b, -5);
    codec_put_text(b, B("gr\xc3\xbc\xc3\x9f"));
    codec_put_bytes(b, B("0123456789abcdef0123456789abcdef"));
    codec_put_map(b, 2);
    codec_put_uint(b, 1);
    codec_put_null(b);
    codec_put_uint(b, 300);
    codec_put_array(b, 2);
    codec_put_bool(b, true);
    codec_put_int(b, INT64_MIN);
    codec_put_null(b);
    codec_put_bool(b, false);
}

static enum grey_error read_sample(struct bytes in) {
    struct codec_reader r;
    codec_reader_init(&r, in);
    uint8_t fixed[32];
    bool good = codec_array(&r, 7) == 7;
    good = codec_uint(&r, 70000) == 70000 && good;
    good = codec_int(&r) == -5 && good;
    good = bytes_equal_str(codec_text(&r, 6), "gr\xc3\xbc\xc3\x9f") && good;
    codec_fixed(&r, fixed, sizeof fixed);
    good = codec_map(&r, 2) == 2 && good;
    good = codec_uint(&r, 10) == 1 && good;
    good = codec_null(&r) && good;
    good = codec_uint(&r, 300) == 300 && good;
    good = codec_skip(&r).size == 11 && good;
    good = codec_null(&r) && good;
    good = !codec_null(&r) && good;
    good = !codec_bool(&r) && good;
    enum grey_error err = codec_end(&r);
    assert_true(good || err != E_OK);
    return err;
}

/* If a cut document were read, half a message would be taken for a whole one. */
static void what_is_written_is_read_and_no_prefix_of_it(void **state) {
    (void)state;
    struct builder b;
    builder_init(&b, 1024);
    write_sample(&b);
    assert_int_equal(read_sample(builder_bytes(&b)), E_OK);
    assert_int_equal(skip_all(builder_bytes(&b)), E_OK);
    for (size_t size = 0; size < b.size; size++) {
        uint8_t *exact = malloc(size + 1); /* so that a sanitizer sees any read beyond */
        memcpy(exact, b.data, size);
        uint8_t *place = realloc(exact, size == 0 ? 1 : size);
        assert_int_equal(read_sample(bytes_of(place, size)), E_BAD_CBOR);
        assert_int_equal(skip_all(bytes_of(place, size)), E_BAD_CBOR);
        free(place);
    }
    builder_add_byte(&b, 0);
    assert_int_equal(read_sample(builder_bytes(&b)), E_BAD_CBOR);
    assert_int_equal(skip_all(builder_bytes(&b)), E_BAD_CBOR);
    builder_free(&b);
}

/* If a second encoding of the same value passed, a forged entry could carry the hash of another (FAULTS B1). */
static void other_encodings_of_the_same_are_refused(void **state) {
    (void)state;
    static const struct bytes refused[] = {
#define R(literal) {(const uint8_t *)(literal), sizeof(literal) - 1}
        /* longer than needed */
        R("\x18\x17"),
        R("\x19\x00\xff"),
        R("\x1a\x00\x00\xff\xff"),
        R("\x1b\x00\x00\x00\x00\xff\xff\xff\xff"),
        R("\x38\x17"),
        R("\x39\x00\x10"),
        R("\x3a\x00\x00\x00\x01"),
        R("\x3b\x00\x00\x00\x00\x00\x00\x00\x01"),
        R("\x58\x01"
          "a"),
        R("\x59\x00\x01"
          "a"),
        R("\x5b\x00\x00\x00\x00\x00\x00\x00\x01"
          "a"),
        R("\x78\x01"
          "a"),
        R("\x79\x00\x01"
          "a"),
        R("\x7a\x00\x00\x00\x01"
          "a"),
        R("\x98\x01\x00"),
        R("\x99\x00\x01\x00"),
        R("\x9b\x00\x00\x00\x00\x00\x00\x00\x01\x00"),
        R("\xb8\x01\x00\x00"),
        R("\xbb\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00"),
        R("\x9b\x00\x00\x00\x01\x00\x00\x00\x01\x00"),
        /* lengths that are not stated */
        R("\x5f\x41\x61\xff"),
        R("\x7f\x61\x61\xff"),
        R("\x9f\x00\xff"),
        R("\xbf\x00\x00\xff"),
        R("\xff"),
        R("\x81\xff"),
        R("\x9f"),
        /* tags, floats, other simple values, reserved heads */
        R("\xc0\x60"),
        R("\xd8\x18\x40"),
        R("\xf9\x3c\x00"),
        R("\xfa\x3f\x80\x00\x00"),
        R("\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00"),
        R("\xf7"),
        R("\xe0"),
        R("\xf0"),
        R("\xf8\x20"),
        R("\xf8\x14"),
        R("\x1c"),
        R("\x3d"),
        R("\x5e"),
        R("\xfc"),
        R("\x81\xc1\x00"),
        /* UTF-8 */
        R("\x61\xff"),
        R("\x62\xc0\x80"),
        R("\x63\xed\xa0\x80"),
        R("\x61\xc3"),
        /* lengths and counts that lie */
        R("\x5b\x80\x00\x00\x00\x00\x00\x00\x00"),
        R("\x7b\xff\xff\xff\xff\xff\xff\xff\xff"),
        R("\x9b\x80\x00\x00\x00\x00\x00\x00\x00"),
        R("\x9b\xff\xff\xff\xff\xff\xff\xff\xff\x00"),
        R("\xbb\x80\x00\x00\x00\x00\x00\x00\x00"),
        R("\xbb\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00"),
        R("\x84\x00\x00\x00"),
        R("\xa2\x00\x00\x01"),
        R(""),
        /* keys: twice, not ascending, not scalar */
        R("\xa2\x01\x00\x01\x00"),
        R("\xa2\x02\x00\x01\x00"),
        R("\xa2\x61"
          "b\x00\x61"
          "a\x00"),
        R("\xa2\x18\x18\x00\x05\x00"),
        R("\xa1\x80\x00"),
        R("\xa1\xa0\x00"),
        R("\x81\xa2\x01\x00\x01\x00"),
#undef R
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        assert_int_equal(skip_all(refused[i]), E_BAD_CBOR);
        struct codec_reader r;
        codec_reader_init(&r, refused[i]);
        (void)codec_array(&r, UINT64_MAX);
        (void)codec_skip(&r);
        assert_int_not_equal(codec_end(&r), E_OK);
    }
    struct codec_reader r;
    codec_reader_init(&r, B("\xa2\x02\x00\x01\x00"));
    assert_int_equal(codec_map(&r, 2), 0);
    assert_int_equal(r.err, E_BAD_CBOR);
    codec_reader_init(&r, B("\xa2\x01\x00\x02\x81\xf7"));
    assert_int_equal(codec_map(&r, 2), 0);
    assert_int_equal(r.err, E_BAD_CBOR);
    assert_int_equal(skip_all(B("\xa4\x01\x00\x18\x18\x00\x20\x00\x61"
                                "a\x00")),
                     E_OK); /* uint, uint, negative, text ascend as bytes */
}

/* If nesting were followed without a bound, 100,000 bytes from a peer would exhaust the stack. */
static void nesting_is_bounded(void **state) {
    (void)state;
    uint8_t in[100000];
    memset(in, 0x81, sizeof in);
    in[LIMIT_CBOR_DEPTH] = 0;
    assert_int_equal(skip_all(bytes_of(in, LIMIT_CBOR_DEPTH + 1)), E_OK);
    in[LIMIT_CBOR_DEPTH] = 0x81;
    in[LIMIT_CBOR_DEPTH + 1] = 0;
    assert_int_equal(skip_all(bytes_of(in, LIMIT_CBOR_DEPTH + 2)), E_BAD_CBOR);
    in[LIMIT_CBOR_DEPTH + 1] = 0x81;
    assert_int_equal(skip_all(bytes_of(in, sizeof in)), E_BAD_CBOR);
}

/* If a wrong type or range passed as zero, a message with a missing field would be obeyed. */
static void wrong_types_and_ranges_are_refused_and_stay_refused(void **state) {
    (void)state;
    struct codec_reader r;
    uint8_t fixed[4] = {9, 9, 9, 9};
#define REFUSES(literal, call)                                                                                                     \
    codec_reader_init(&r, B(literal));                                                                                             \
    (void)call;                                                                                                                    \
    assert_int_equal(r.err, E_BAD_MESSAGE);                                                                                        \
    assert_int_equal(r.rest.size, 0);                                                                                              \
    assert_int_equal(codec_uint(&r, 10), 0);                                                                                       \
    assert_int_equal(codec_skip(&r).size, 0);                                                                                      \
    assert_false(codec_null(&r));                                                                                                  \
    assert_int_equal(codec_end(&r), E_BAD_MESSAGE)
    REFUSES("\x05", codec_uint(&r, 4));
    REFUSES("\x20", codec_uint(&r, UINT64_MAX));
    REFUSES("\x40", codec_uint(&r, 9));
    REFUSES("\x1b\x80\x00\x00\x00\x00\x00\x00\x00", codec_int(&r));
    REFUSES("\x3b\x80\x00\x00\x00\x00\x00\x00\x00", codec_int(&r));
    REFUSES("\x60", codec_int(&r));
    REFUSES("\xf6", codec_bool(&r));
    REFUSES("\x00", codec_bool(&r));
    REFUSES("\x43"
            "abc",
            codec_bytes(&r, 2));
    REFUSES("\x63"
            "abc",
            codec_bytes(&r, 9));
    REFUSES("\x63"
            "abc",
            codec_text(&r, 2));
    REFUSES("\x43"
            "abc",
            codec_text(&r, 9));
    REFUSES("\x82\x00\x00", codec_array(&r, 1));
    REFUSES("\xa0", codec_array(&r, 1));
    REFUSES("\xa1\x00\x00", codec_map(&r, 0));
    REFUSES("\x80", codec_map(&r, 1));
#undef REFUSES
    codec_reader_init(&r, B("\x43"
                            "abc"));
    codec_fixed(&r, fixed, sizeof fixed);
    assert_int_equal(r.err, E_BAD_MESSAGE);
    assert_int_equal(fixed[0] | fixed[1] | fixed[2] | fixed[3], 0);
    codec_reader_init(&r, B("\x44"
                            "abcd\x00"));
    codec_fixed(&r, fixed, sizeof fixed);
    assert_memory_equal(fixed, "abcd", 4);
    assert_int_equal(r.err, E_OK);
    assert_false(codec_null(&r));
    assert_int_equal(codec_end(&r), E_BAD_CBOR); /* a byte is left */
}

/* If the writer let bad text through, the node that wrote it could not read its own log. */
static void the_writer_refuses_what_no_reader_takes(void **state) {
    (void)state;
    struct builder b;
    builder_init(&b, 100);
    codec_put_text(&b, B("\xff"));
    codec_put_uint(&b, 1);
    assert_int_equal(b.err, E_BAD_MESSAGE);
    builder_reset(&b);
    codec_put_bytes(&b, B("0123456789"));
    b.limit_bytes = 12;
    codec_put_bytes(&b, B("0123456789"));
    assert_int_equal(b.err, E_TOO_LARGE);
    builder_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_have_the_encodings_of_rfc_8949),
        cmocka_unit_test(what_is_written_is_read_and_no_prefix_of_it),
        cmocka_unit_test(other_encodings_of_the_same_are_refused),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(wrong_types_and_ranges_are_refused_and_stay_refused),
        cmocka_unit_test(the_writer_refuses_what_no_reader_takes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
