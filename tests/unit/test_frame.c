/* Frames: if a damaged or foreign frame were taken for a good one, a gateway would act on bytes that nobody sent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "federation/frame.h"
#include "include/grey/limits.h"
#include "platform/compress.h"

static enum frame_status read_all(struct bytes in, struct frame *f, size_t *used, enum grey_error *why) {
    size_t need = 0;
    return frame_read(in, f, used, &need, why);
}

static void golden_bytes(void **state) {
    (void)state;
    static const uint8_t expected[] = {'G', 'R', 'E', 'Y', 0, 2, 0, 8, 0, 0, 0, 0, 0,   0,   0,  1,
                                       0,   0,   0,   0,   0, 0, 0, 2, 0, 0, 0, 3, 'a', 'b', 'c'};
    struct builder b;
    builder_init(&b, 100);
    frame_write(&b, FRAME_FLAG_IDEMPOTENT, 1, 2, bytes_str("abc"));
    assert_int_equal(b.size, FRAME_OVERHEAD_BYTES + 3);
    assert_memory_equal(b.data, expected, sizeof expected);
    builder_free(&b);
}

static void every_prefix_is_partial(void **state) {
    (void)state;
    struct builder b;
    struct frame f;
    builder_init(&b, 100);
    frame_write(&b, 0, 7, 9, bytes_str("hello"));
    for (size_t size = 0; size < b.size; size++) {
        size_t used = 0, need = 0;
        enum grey_error why = E_OK;
        assert_int_equal(frame_read(bytes_of(b.data, size), &f, &used, &need, &why), FRAME_PARTIAL);
        assert_true(need > 0 && need <= b.size - size + FRAME_OVERHEAD_BYTES);
    }
    size_t used = 0;
    enum grey_error why = E_OK;
    assert_int_equal(read_all(builder_bytes(&b), &f, &used, &why), FRAME_READY);
    assert_int_equal(used, b.size);
    assert_true(bytes_equal_str(f.payload, "hello") && f.message_id == 7 && f.time_ns == 9);
    builder_free(&b);
}

static void every_flipped_bit_is_found(void **state) {
    (void)state;
    struct builder b;
    builder_init(&b, 100);
    frame_write(&b, 0, 7, 9, bytes_str("hello, world"));
    for (size_t bit = 0; bit < b.size * 8; bit++) {
        struct frame f;
        size_t used = 0;
        enum grey_error why = E_OK;
        b.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        assert_int_not_equal(read_all(builder_bytes(&b), &f, &used, &why), FRAME_READY);
        b.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    builder_free(&b);
}

static void each_rule_has_its_error(void **state) {
    (void)state;
    struct builder b;
    struct frame f;
    size_t used = 0;
    enum grey_error why = E_OK;
    builder_init(&b, 100);
    frame_write(&b, 0, 7, 9, bytes_str("x"));
    b.data[0] = 'X';
    assert_int_equal(read_all(builder_bytes(&b), &f, &used, &why), FRAME_BAD);
    assert_int_equal(why, E_BAD_FRAME);
    b.data[0] = 'G', b.data[5] = 3;
    assert_int_equal(read_all(builder_bytes(&b), &f, &used, &why), FRAME_BAD);
    assert_int_equal(why, E_BAD_VERSION);
    b.data[5] = 2, b.data[24] = 0x7f;
    assert_int_equal(read_all(builder_bytes(&b), &f, &used, &why), FRAME_BAD);
    assert_int_equal(why, E_TOO_LARGE);
    b.data[24] = 0, b.data[28] ^= 1;
    assert_int_equal(read_all(builder_bytes(&b), &f, &used, &why), FRAME_BAD);
    assert_int_equal(why, E_BAD_CRC);
    builder_free(&b);
}

static void compressed_content(void **state) {
    (void)state;
    char text[2000];
    struct builder packed, scratch;
    struct bytes content;
    memset(text, 'a', sizeof text);
    builder_init(&packed, 4096);
    builder_init(&scratch, LIMIT_FRAME_PAYLOAD_BYTES);
    uint8_t size[4];
    bytes_put_be32(size, sizeof text);
    builder_add(&packed, bytes_of(size, 4));
    assert_int_equal(compress_lz4(bytes_of(text, sizeof text), &packed), E_OK);
    struct frame f = {.flags = FRAME_FLAG_COMPRESSED, .payload = builder_bytes(&packed)};
    assert_int_equal(frame_content(&f, &scratch, &content), E_OK);
    assert_true(bytes_equal(content, bytes_of(text, sizeof text)));
    bytes_put_be32(packed.data, LIMIT_FRAME_PAYLOAD_BYTES + 1); /* a bomb says how large it is: refused before it unfolds */
    assert_int_equal(frame_content(&f, &scratch, &content), E_TOO_LARGE);
    bytes_put_be32(packed.data, 1999);
    assert_int_equal(frame_content(&f, &scratch, &content), E_CORRUPT);
    f.flags = FRAME_FLAG_ENCRYPTED;
    assert_int_equal(frame_content(&f, &scratch, &content), E_BAD_FRAME);
    f.flags = 0x0100;
    assert_int_equal(frame_content(&f, &scratch, &content), E_BAD_FRAME);
    builder_free(&packed);
    builder_free(&scratch);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(golden_bytes), cmocka_unit_test(every_prefix_is_partial),
                                       cmocka_unit_test(every_flipped_bit_is_found), cmocka_unit_test(each_rule_has_its_error),
                                       cmocka_unit_test(compressed_content)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
