/* Keys in files: two processes that make one at once must go on with the same, or each refuses what the other signs. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "platform/keyfile.h"

#define PROCESSES 8

static void many_make_one_key(void **state) {
    (void)state;
    for (unsigned round = 0; round < 20; round++) {
        char dir[] = "/tmp/grey-keyfile-XXXXXX", path[64];
        int go[2], out[2];
        assert_non_null(mkdtemp(dir));
        assert_int_equal(pipe(go) + pipe(out), 0);
        for (int i = 0; i < PROCESSES; i++) {
            pid_t child = fork();
            assert_true(child >= 0);
            if (child == 0) {
                char byte;
                struct keyfile k;
                struct fault f = {0};
                close(go[1]);
                (void)!read(go[0], &byte, 1); /* all at once */
                bool well = keyfile_open(dir, KEYFILE_CORE_SECRET, &k, &f) == E_OK &&
                            keyfile_put_public(dir, KEYFILE_CORE_PUBLIC, &k, &f) == E_OK;
                (void)!write(out[1], k.public_key, sizeof k.public_key);
                _exit(well ? 0 : 1);
            }
        }
        close(go[0]);
        close(go[1]);
        uint8_t first[KEYS_ED25519_PUBLIC_BYTES], next[KEYS_ED25519_PUBLIC_BYTES];
        for (int i = 0; i < PROCESSES; i++) {
            int status;
            assert_true(wait(&status) > 0);
            assert_int_equal(status, 0);
            assert_int_equal(read(out[0], i == 0 ? first : next, sizeof first), sizeof first);
            assert_true(i == 0 || memcmp(first, next, sizeof first) == 0);
        }
        close(out[0]);
        close(out[1]);
        struct fault f = {0};
        (void)snprintf(path, sizeof path, "%s/%s", dir, KEYFILE_CORE_PUBLIC);
        assert_int_equal(keyfile_get_public(path, next, &f), E_OK);
        assert_memory_equal(first, next, sizeof first);
        assert_int_equal(unlink(path), 0);
        (void)snprintf(path, sizeof path, "%s/%s", dir, KEYFILE_CORE_SECRET);
        assert_int_equal(unlink(path), 0);
        assert_int_equal(rmdir(dir), 0); /* nothing else is left */
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(many_make_one_key)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
