/* Maps of images.  If this failed, blocks of a root would be written where they do not belong, or beyond the partition. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "federation/imagemap.h"

static struct builder text;

/* A map of these runs, read back. */
static enum grey_error try_runs(uint64_t size, const struct imagemap_run *runs, size_t count, struct imagemap *back) {
    struct imagemap m = {.size = size};
    struct builder b;
    builder_init(&b, 4096);
    for (size_t i = 0; i < count; i++) {
        imagemap_add_run(&b, runs[i]);
    }
    m.runs = builder_bytes(&b);
    memset(m.hash, 7, sizeof m.hash);
    builder_reset(&text);
    imagemap_put(&text, &m);
    builder_free(&b);
    assert_int_equal(text.err, E_OK);
    return imagemap_read(builder_bytes(&text), back);
}

static void what_is_put_is_read(void **state) {
    (void)state;
    static const struct imagemap_run runs[] = {{0, 3}, {4, 1}, {9, 7}};
    struct imagemap back;
    assert_int_equal(try_runs(16 * 4096, runs, 3, &back), E_OK);
    assert_int_equal(back.size, 16 * 4096);
    assert_int_equal(back.hash[31], 7);
    assert_int_equal(imagemap_run_count(&back), 3);
    assert_int_equal(imagemap_run_at(&back, 2).first, 9);
    assert_int_equal(imagemap_run_at(&back, 2).count, 7);
    assert_int_equal(imagemap_bytes(&back), 11 * 4096);
    for (size_t size = 0; size < text.size; size++) {
        bool whole_run = size > 48 && (size - 48) % 8 == 0;
        assert_int_equal(imagemap_read(bytes_of(text.data, size), &back), whole_run ? E_OK : E_UPDATE_FORMAT);
    }
}

static void runs_are_in_order_and_in_the_image(void **state) {
    (void)state;
    static const struct imagemap_run bad[][2] = {
        {{0, 0}, {4, 1}},                   /* nothing in it */
        {{4, 1}, {0, 1}},                   /* back */
        {{0, 4}, {3, 1}},                   /* one over the other */
        {{0, 4}, {4, 1}},                   /* the same one */
        {{0, 1}, {15, 2}},                  /* beyond the end */
        {{0, 1}, {UINT32_MAX, UINT32_MAX}}, /* and over */
    };
    static const struct imagemap_run good[] = {{0, 1}, {2, 14}};
    struct imagemap back;
    assert_int_equal(try_runs(16 * 4096, good, 2, &back), E_OK);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(try_runs(16 * 4096, bad[i], 2, &back), E_UPDATE_FORMAT);
        assert_int_equal(back.size, 0);
    }
    assert_int_equal(try_runs(16 * 4096 + 1, good, 2, &back), E_UPDATE_FORMAT); /* no whole blocks */
    assert_int_equal(try_runs(16 * 4096, good, 0, &back), E_UPDATE_FORMAT);     /* nothing at all */
    assert_int_equal(try_runs(IMAGEMAP_IMAGE_BYTES_MAX + 4096, good, 2, &back), E_UPDATE_FORMAT);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_put_is_read), cmocka_unit_test(runs_are_in_order_and_in_the_image)};
    builder_init(&text, IMAGEMAP_BYTES_MAX);
    int status = cmocka_run_group_tests_name("imagemap", tests, NULL, NULL);
    builder_free(&text);
    return status;
}
