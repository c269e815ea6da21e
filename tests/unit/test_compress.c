#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "platform/compress.h"

/* If a block did not come back as it was, an event would be changed on its way. */
static void blocks_come_back_byte_for_byte(void **state) {
    (void)state;
    for (size_t size = 64; size <= 1u << 20; size = size * 5 / 2) {
        uint8_t *in = malloc(size);
        for (size_t i = 0; i < size; i++) {
            in[i] = (uint8_t)(i % 61 * (i / 977 % 3));
        }
        struct builder block, out;
        builder_init(&block, 2u << 20);
        builder_init(&out, 2u << 20);
        builder_add_str(&block, "head");
        builder_add_str(&out, "head");
        assert_int_equal(compress_lz4(bytes_of(in, size), &block), E_OK);
        assert_true(block.size < size + 4);
        assert_memory_equal(block.data, "head", 4);
        assert_int_equal(compress_unlz4(bytes_of(block.data + 4, block.size - 4), size, &out), E_OK);
        assert_int_equal(out.size, size + 4);
        assert_memory_equal(out.data + 4, in, size);
        builder_free(&block);
        builder_free(&out);
        free(in);
    }
}

/* If data that does not shrink were "compressed", it would cost more on a paid link than it must. */
static void what_does_not_shrink_is_left_alone(void **state) {
    (void)state;
    struct builder out;
    builder_init(&out, 1000);
    builder_add_str(&out, "x");
    assert_int_equal(compress_lz4(bytes_str("0123456789abcdefghijklmnopqrstuvwxyz"), &out), E_TOO_LARGE);
    assert_int_equal(compress_lz4(bytes_of(NULL, 0), &out), E_TOO_LARGE);
    assert_int_equal(compress_lz4(bytes_str("a"), &out), E_TOO_LARGE);
    assert_int_equal(out.err, E_OK);
    assert_int_equal(out.size, 1);
    builder_free(&out);
}

/* If a block could unfold beyond what was checked, 4 KiB from a peer would take a gateway's memory (FAULTS B2). */
static void damaged_blocks_and_bombs_are_refused(void **state) {
    (void)state;
    uint8_t zeros[4096] = {0};
    struct builder block, out;
    builder_init(&block, 4096);
    builder_init(&out, 1u << 30);
    assert_int_equal(compress_lz4(bytes_of(zeros, sizeof zeros), &block), E_OK);
    struct bytes b = builder_bytes(&block);
    assert_int_equal(compress_unlz4(b, 4095, &out), E_CORRUPT);
    assert_int_equal(compress_unlz4(b, 4097, &out), E_CORRUPT);
    assert_int_equal(compress_unlz4(b, 0, &out), E_CORRUPT);
    assert_int_equal(compress_unlz4(b, SIZE_MAX, &out), E_CORRUPT);
    assert_int_equal(compress_unlz4(b, 1u << 29, &out), E_CORRUPT);
    assert_true(out.capacity < 100000); /* a claim that cannot be true takes no memory */
    for (size_t size = 0; size < b.size; size++) {
        uint8_t *exact = malloc(size == 0 ? 1 : size);
        memcpy(exact, b.data, size);
        assert_int_equal(compress_unlz4(bytes_of(exact, size), 4096, &out), E_CORRUPT);
        free(exact);
    }
    assert_int_equal(out.size, 0);
    assert_int_equal(out.err, E_OK);
    assert_int_equal(compress_unlz4(b, 4096, &out), E_OK);
    out.limit_bytes = 5000;
    assert_int_equal(compress_unlz4(b, 4096, &out), E_TOO_LARGE);
    builder_free(&block);
    builder_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_come_back_byte_for_byte),
        cmocka_unit_test(what_does_not_shrink_is_left_alone),
        cmocka_unit_test(damaged_blocks_and_bombs_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
