/* Errands: a program that hangs, dies, floods or is not there must not stop or fill the one who sent it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "platform/errand.h"

static struct loop *loop;
static struct errand errand;
static enum grey_error last;
static struct builder output;
static char words[ERRAND_WORDS_BYTES];
static uint32_t rounds;

static void done(void *context, enum grey_error err, struct bytes out, const char *said) {
    (void)context;
    last = err;
    builder_reset(&output);
    builder_add(&output, out);
    (void)snprintf(words, sizeof words, "%s", said);
    loop_stop(loop);
}

static enum grey_error run(const char *script, const char *input, size_t output_max, uint32_t limit_ms) {
    char *const arguments[] = {"/bin/sh", "-c", (char *)(uintptr_t)script, NULL};
    struct fault f;
    assert_int_equal(errand_start(&errand, loop, arguments, bytes_str(input), output_max, limit_ms, done, NULL, &f), E_OK);
    assert_int_equal(errand_start(&errand, loop, arguments, bytes_str(input), output_max, limit_ms, done, NULL, &f), E_BUSY);
    loop_run(loop);
    assert_false(errand.busy);
    return last;
}

/* If this failed, what grey-tpm says would be cut or mixed up. */
static void what_goes_in_comes_out(void **state) {
    (void)state;
    assert_int_equal(run("tr a-z A-Z", "evidence", 100, 60000), E_OK);
    assert_true(bytes_equal_str(builder_bytes(&output), "EVIDENCE"));
    assert_int_equal(run("head -c 300000 /dev/zero; echo fine >&2", "", 300000, 60000), E_OK);
    assert_int_equal(output.size, 300000);
    assert_string_equal(words, "fine\n");
    assert_int_equal(run("cat", "", 100, 60000), E_OK);
    assert_int_equal(output.size, 0);
}

/* If this failed, a broken program would pass for a good one. */
static void failures_are_told(void **state) {
    (void)state;
    assert_int_equal(run("echo half; echo 'the TPM is gone' >&2; exit 3", "", 100, 60000), E_SYSTEM);
    assert_string_equal(words, "the TPM is gone\n");
    assert_int_equal(run("kill -9 $$", "", 100, 60000), E_SYSTEM);
    assert_int_equal(run("head -c 2000 /dev/zero", "", 1999, 60000), E_TOO_LARGE);
    assert_int_equal(run("head -c 5000 /dev/zero | tr '\\0' x >&2; exit 1", "", 10, 60000), E_SYSTEM);
    assert_int_equal(strlen(words), ERRAND_WORDS_BYTES - 1);
    char *const nobody[] = {"/nonexistent/grey-tpm", NULL};
    assert_int_equal(errand_start(&errand, loop, nobody, bytes_str(""), 10, 60000, done, NULL, NULL), E_OK);
    loop_run(loop);
    assert_int_equal(last, E_SYSTEM);
    assert_non_null(strstr(words, "/nonexistent/grey-tpm"));
    uint8_t large[ERRAND_INPUT_BYTES_MAX + 1] = {0};
    assert_int_equal(errand_start(&errand, loop, nobody, bytes_of(large, sizeof large), 10, 60000, done, NULL, NULL), E_TOO_LARGE);
}

/* If this failed, a TPM that hangs would hang attestation for good. */
static void what_hangs_is_ended(void **state) {
    (void)state;
    assert_int_equal(run("exec sleep 1000", "", 100, 50), E_TIMEOUT);
    char *const arguments[] = {"/bin/sleep", "1000", NULL};
    assert_int_equal(errand_start(&errand, loop, arguments, bytes_str(""), 10, 60000, done, NULL, NULL), E_OK);
    errand_stop(&errand); /* and one that is not wanted any more */
    errand_stop(&errand);
    assert_false(errand.busy);
}

static void once_more(void *context, enum grey_error err, struct bytes out, const char *said) {
    char *const arguments[] = {"/bin/true", NULL};
    (void)context, (void)out, (void)said;
    assert_int_equal(err, E_OK);
    if (++rounds == 3) {
        loop_stop(loop);
        return;
    }
    assert_int_equal(errand_start(&errand, loop, arguments, bytes_str(""), 10, 60000, once_more, NULL, NULL), E_OK);
}

/* If this failed, one step of attestation could not follow the other. */
static void one_follows_the_other(void **state) {
    (void)state;
    once_more(NULL, E_OK, bytes_of(NULL, 0), "");
    loop_run(loop);
    assert_int_equal(rounds, 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_goes_in_comes_out), cmocka_unit_test(failures_are_told),
                                       cmocka_unit_test(what_hangs_is_ended), cmocka_unit_test(one_follows_the_other)};
    struct fault f;
    loop = loop_new(&f);
    builder_init(&output, 1u << 20);
    int failed = loop == NULL ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
    builder_free(&output);
    loop_free(loop);
    return failed;
}
