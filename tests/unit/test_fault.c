#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "include/grey/must.h"
#include "platform/fault.h"

/* If two errors shared an id, `greyctl explain` would send an engineer to the wrong remedy. */
static void every_error_has_its_own_id_and_words(void **state) {
    (void)state;
    for (int i = 1; i < GREY_ERROR_COUNT; i++) {
        enum grey_error code = (enum grey_error)i;
        assert_true(error_id(code) >= 1000 && error_id(code) <= 9999);
        assert_int_equal(error_by_id(error_id(code)), code);
        assert_true(strlen(error_sentence(code)) > 5);
        assert_true(strlen(error_remedy(code)) > 5);
        assert_memory_equal(error_name(code), "E_", 2);
        assert_true(error_http_status(code) >= 400 && error_http_status(code) < 600);
    }
    assert_int_equal(error_http_status(E_OK), 200);
    assert_int_equal(error_id(E_OK), 0);
    assert_int_equal(error_by_id(1), E_OK);
}

/* If a wrong number crashed the printing of an error, the first sign of trouble would be the last. */
static void unknown_codes_are_harmless(void **state) {
    (void)state;
    enum grey_error wild = (enum grey_error)(GREY_ERROR_COUNT + 5);
    assert_string_equal(error_name(wild), "E_?");
    assert_string_equal(error_sentence(wild), "unknown error");
    assert_string_equal(error_remedy(wild), "");
    assert_int_equal(error_id(wild), 0);
    assert_int_equal(error_http_status(wild), 500);
}

/* If details overran their room, a long path in a configuration would corrupt memory. */
static void details_are_cut_to_fit(void **state) {
    (void)state;
    struct fault f;
    assert_int_equal(fault_set(&f, E_CONFIG, "%s %d", "line", 3), E_CONFIG);
    assert_int_equal(f.code, E_CONFIG);
    assert_string_equal(f.text, "line 3");
    assert_int_equal(fault_set(&f, E_IO, "%0999d", 0), E_IO);
    assert_int_equal(strlen(f.text), sizeof f.text - 1);
    errno = EIO;
    assert_int_equal(fault_errno(&f, E_IO, "%0999d", 0), E_IO);
    assert_int_equal(strlen(f.text), sizeof f.text - 1);
    assert_int_equal(fault_set(NULL, E_IO, "nobody asks"), E_IO);
    assert_int_equal(fault_errno(NULL, E_IO, "nobody asks"), E_IO);
}

/* If a full disk were reported as a broken one, the card would be replaced for nothing. */
static void a_full_disk_and_lost_memory_are_told_apart(void **state) {
    (void)state;
    struct fault f;
    errno = ENOSPC;
    assert_int_equal(fault_errno(&f, E_IO, "write %s", "log.db"), E_DISK_FULL);
    assert_int_equal(f.code, E_DISK_FULL);
    assert_string_equal(f.text, "write log.db: No space left on device");
    assert_int_equal(errno, ENOSPC);
    errno = EDQUOT;
    assert_int_equal(fault_errno(&f, E_IO, "write"), E_DISK_FULL);
    errno = ENOMEM;
    assert_int_equal(fault_errno(&f, E_IO, "write"), E_NO_MEMORY);
    errno = EACCES;
    assert_int_equal(fault_errno(&f, E_SYSTEM, "open"), E_SYSTEM);
    assert_string_equal(f.text, "open: Permission denied");
}

/* If must() forgot to stop, a broken invariant would spread to the disk; if it evaluated twice, it would break things itself. */
static void must_stops_the_process_and_evaluates_once(void **state) {
    (void)state;
    int count = 0;
    must(++count == 1);
    assert_int_equal(count, 1);
    if (count == 1)
        must(count == 1);
    else
        count = 5;
    must(count == 1 || count == 2);

    pid_t child = fork();
    if (child == 0) {
        (void)close(STDERR_FILENO);
        must(count == 2);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_error_has_its_own_id_and_words),
        cmocka_unit_test(unknown_codes_are_harmless),
        cmocka_unit_test(details_are_cut_to_fit),
        cmocka_unit_test(a_full_disk_and_lost_memory_are_told_apart),
        cmocka_unit_test(must_stops_the_process_and_evaluates_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
