/* What a lone gateway promised must be there after a crash, in the order in which it was taken, and go when the log has it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/store/keepdb.h"

static char dir[] = "/tmp/grey-keepdb-XXXXXX", path[64];

static struct bytes ids_of(uint8_t *room, uint8_t first, uint32_t count) {
    memset(room, 0, (size_t)count * KEEPDB_ID_BYTES);
    for (uint32_t i = 0; i < count; i++) {
        room[i * KEEPDB_ID_BYTES] = (uint8_t)(first + i);
    }
    return bytes_of(room, (size_t)count * KEEPDB_ID_BYTES);
}

static void batches_come_back_in_order(void **state) {
    (void)state;
    struct fault f = {0};
    uint8_t room[8 * KEEPDB_ID_BYTES], id[KEEPDB_ID_BYTES] = {0};
    uint64_t receipt[3], got, after = 0;
    uint32_t element;
    struct blob *batch;
    struct keepdb *k = keepdb_open(path, &f);
    assert_non_null(k);
    assert_int_equal(keepdb_next(k, 0, &got, &batch, &f), E_NOT_FOUND);
    assert_int_equal(keepdb_add(k, bytes_str("one"), ids_of(room, 1, 2), &receipt[0], &f), E_OK);
    assert_int_equal(keepdb_add(k, bytes_str("three"), ids_of(room, 10, 3), &receipt[1], &f), E_OK);
    assert_int_equal(keepdb_add(k, bytes_str("repeat"), ids_of(room, 1, 1), &receipt[2], &f), E_OK);
    keepdb_close(k);
    k = keepdb_open(path, &f);
    assert_non_null(k);
    assert_int_equal(keepdb_events(k), 6);
    assert_int_equal(keepdb_bytes(k), 3 + 5 + 6);
    static const char *const texts[] = {"one", "three", "repeat"};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(keepdb_next(k, after, &got, &batch, &f), E_OK);
        assert_true(got == receipt[i] && got > after && bytes_equal_str(blob_bytes(batch), texts[i]));
        blob_unref(batch);
        after = got;
    }
    id[0] = 12;
    assert_int_equal(keepdb_find(k, id, &got, &element, &f), E_OK);
    assert_true(got == receipt[1] && element == 2);
    id[0] = 1;
    assert_int_equal(keepdb_find(k, id, &got, &element, &f), E_OK);
    assert_int_equal(got, receipt[0]); /* the first of two */
    id[0] = 99;
    assert_int_equal(keepdb_find(k, id, &got, &element, &f), E_NOT_FOUND);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(keepdb_remove(k, receipt[i], &f), E_OK);
        assert_int_equal(keepdb_remove(k, receipt[i], &f), E_OK); /* a crash may repeat it */
    }
    assert_true(keepdb_events(k) == 0 && keepdb_bytes(k) == 0);
    uint64_t last;
    assert_int_equal(keepdb_add(k, bytes_str("x"), ids_of(room, 1, 1), &last, &f), E_OK);
    assert_true(last > receipt[2]); /* a receipt is never given twice */
    keepdb_close(k);
}

static void damage_is_named(void **state) {
    (void)state;
    struct fault f = {0};
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    for (long at = 4096 + 100; at < 16 * 4096 && fseek(file, at, SEEK_SET) == 0 && fgetc(file) != EOF; at += 4096) {
        (void)fseek(file, at, SEEK_SET);
        (void)fputc(0x55, file);
    }
    (void)fclose(file);
    struct keepdb *k = keepdb_open(path, &f);
    if (k != NULL) { /* a page that opening does not read */
        uint64_t got;
        uint32_t element;
        static const uint8_t id[KEEPDB_ID_BYTES] = {1};
        struct blob *batch = NULL;
        enum grey_error a = keepdb_next(k, 0, &got, &batch, &f), b = keepdb_find(k, id, &got, &element, &f);
        blob_unref(batch);
        assert_true(a == E_CORRUPT || b == E_CORRUPT);
        keepdb_close(k);
    } else {
        assert_int_equal(f.code, E_CORRUPT);
    }
}

int main(void) {
    if (mkdtemp(dir) == NULL) {
        return 1;
    }
    (void)snprintf(path, sizeof path, "%s/intake.db", dir);
    const struct CMUnitTest tests[] = {cmocka_unit_test(batches_come_back_in_order), cmocka_unit_test(damage_is_named)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    char command[96];
    (void)snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command) != 0 ? 1 : failed;
}
