/* The gateway's signing key: the same after a restart, its own, and read by nobody else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/node/signer.h"

static char dir[64], path[96];

static int make(void **state) {
    (void)state;
    (void)snprintf(dir, sizeof dir, "/tmp/grey-signer-XXXXXX");
    if (mkdtemp(dir) == NULL) {
        return -1;
    }
    (void)snprintf(path, sizeof path, "%s/signer.key", dir);
    return 0;
}

static int clean(void **state) {
    (void)state;
    (void)unlink(path);
    return rmdir(dir);
}

static void write_file(const char *text, mode_t mode) {
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(path, mode), 0);
}

/* If this failed, a restart would make all seals of the time before unverifiable. */
static void the_key_outlives_a_restart(void **state) {
    (void)state;
    struct signer first, again;
    struct stat st;
    struct fault f = {0};
    assert_int_equal(signer_open(dir, NULL, &first, &f), E_OK);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(signer_open(dir, NULL, &again, &f), E_OK);
    assert_memory_equal(&first, &again, sizeof first);
    uint8_t signature[KEYS_ED25519_SIGNATURE_BYTES];
    keys_sign_ed25519(bytes_str("x"), again.secret_key, signature);
    assert_true(keys_verify_ed25519(bytes_str("x"), first.public_key, signature));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(signer_open(dir, NULL, &again, &f), E_OK);
    assert_memory_not_equal(first.public_key, again.public_key, sizeof first.public_key);
}

/* If this failed, a torn or copied file would be taken for a key, or another user could sign in the gateway's name. */
static void what_is_no_key_is_refused(void **state) {
    (void)state;
    struct signer s;
    struct fault f = {0};
    char good[200];
    assert_int_equal(signer_open(dir, NULL, &s, &f), E_OK);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_non_null(fgets(good, sizeof good, file));
    (void)fclose(file);
    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(signer_open(dir, NULL, &s, &f), E_KEY);
    assert_non_null(strstr(f.text, "0600"));
    write_file("", 0600);
    assert_int_equal(signer_open(dir, NULL, &s, &f), E_KEY);
    size_t size = strlen(good);
    for (size_t at = 0; at < size; at += 7) { /* one letter is another */
        char bad[200];
        memcpy(bad, good, size + 1);
        bad[at] = bad[at] == '0' ? '1' : '0';
        write_file(bad, 0600);
        assert_int_equal(signer_open(dir, NULL, &s, &f), E_KEY);
    }
    write_file(good, 0600);
    assert_int_equal(signer_open(dir, NULL, &s, &f), E_OK);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("/dev/zero", path), 0);
    assert_int_equal(signer_open(dir, NULL, &s, &f), E_KEY);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(the_key_outlives_a_restart, make, clean),
                                       cmocka_unit_test_setup_teardown(what_is_no_key_is_refused, make, clean)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
