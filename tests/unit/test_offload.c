#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "federation/offload.h"
#include "platform/digest.h"

/* If site and core read a result differently, a task that failed at the core would count as done. */
static void a_result_survives_its_way(void **context) {
    (void)context;
    uint8_t hash[DIGEST_SHA256_BYTES];
    struct offload_result in = {.incarnation = 7,
                                .epoch = 3,
                                .task = bytes_str("press-7"),
                                .token = 99,
                                .end = OFFLOAD_FAILED,
                                .exit_status = -9,
                                .output_hash = bytes_of(hash, sizeof hash),
                                .output_bytes = 1u << 20,
                                .output = bytes_str("the end")},
                          out;
    struct builder b, again;
    digest_sha256(bytes_str("all"), hash);
    builder_init(&b, 4096);
    builder_init(&again, 4096);
    offload_put_result(&b, &in);
    assert_int_equal(sync_kind(builder_bytes(&b)), MESSAGE_DOWN_RESULT);
    assert_int_equal(offload_get_result(builder_bytes(&b), &out), E_OK);
    assert_true(out.incarnation == 7 && out.epoch == 3 && bytes_equal(out.task, in.task) && out.token == 99);
    assert_true(out.end == OFFLOAD_FAILED && out.exit_status == -9 && out.output_bytes == 1u << 20);
    assert_true(bytes_equal(out.output_hash, in.output_hash) && bytes_equal(out.output, in.output));
    offload_put_result(&again, &out);
    assert_true(bytes_equal(builder_bytes(&b), builder_bytes(&again)));
    for (size_t size = 0; size < b.size; size++) { /* no head of it is one */
        assert_int_not_equal(offload_get_result(bytes_of(b.data, size), &out), E_OK);
    }
    builder_reset(&b);
    in.output_hash = bytes_of(NULL, 0); /* output without its hash */
    offload_put_result(&b, &in);
    assert_int_equal(offload_get_result(builder_bytes(&b), &out), E_BAD_MESSAGE);
    builder_reset(&b);
    in.output = bytes_of(NULL, 0); /* it did not run */
    offload_put_result(&b, &in);
    assert_int_equal(offload_get_result(builder_bytes(&b), &out), E_OK);
    builder_reset(&b);
    in.task = bytes_str("../x");
    offload_put_result(&b, &in);
    assert_int_equal(offload_get_result(builder_bytes(&b), &out), E_BAD_MESSAGE);
    builder_free(&b);
    builder_free(&again);
}

/* A name that is read as another task's would end that one. */
static void names_are_read_strictly(void **context) {
    (void)context;
    char text[OFFLOAD_NAME_BYTES];
    struct grey_name task;
    uint64_t token;
    offload_name(text, bytes_str("a.b"), 1234567890123456789u);
    assert_string_equal(text, "a.b/1234567890123456789");
    assert_true(offload_name_read(bytes_str(text), &task, &token) && token == 1234567890123456789u);
    assert_string_equal(task.text, "a.b");
    static const char *const bad[] = {"", "a", "a/", "/1", "a/0", "a/-1", "a/1x", "a/12345678901234567890", "a b/1", "a/1/2"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (offload_name_read(bytes_str(bad[i]), &task, &token)) {
            fail_msg("\"%s\" is taken for a name", bad[i]);
        }
    }
    assert_true(offload_reserved(bytes_str(OFFLOAD_GIVEN)) && offload_reserved(bytes_str(OFFLOAD_SETTLED)));
    assert_false(offload_reserved(bytes_str("grey.task")) || offload_reserved(bytes_str("my.grey.task.x")));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_result_survives_its_way), cmocka_unit_test(names_are_read_strictly)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
