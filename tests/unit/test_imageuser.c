/* If this failed, an image would run as another user than it was made for, or its files could make the launcher read the gateway's. */
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

#include "agent/launch/imageuser.h"

static char root[64];

static void put(const char *name, const char *text) {
    char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", root, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static int setup(void **state) {
    char path[128];
    (void)state;
    (void)snprintf(root, sizeof root, "/tmp/grey-imageuser-XXXXXX");
    assert_non_null(mkdtemp(root));
    (void)snprintf(path, sizeof path, "%s/etc", root);
    return mkdir(path, 0755);
}

static int teardown(void **state) {
    char command[96];
    (void)state;
    (void)snprintf(command, sizeof command, "rm -rf %s", root);
    return system(command); /* NOLINT(cert-env33-c): a fixed command over a name that was made here */
}

static void is(const char *text, uint32_t uid, uint32_t gid) {
    struct imageuser u;
    struct fault f = {0};
    if (!imageuser_find(text, root, &u, &f)) {
        fail_msg("%s: %s", text, f.text);
    }
    assert_int_equal(u.uid, uid);
    assert_int_equal(u.gid, gid);
}

static void is_refused(const char *text, enum grey_error why) {
    struct imageuser u;
    struct fault f = {0};
    assert_false(imageuser_find(text, root, &u, &f));
    assert_int_equal(f.code, why);
}

static void test_names_and_numbers(void **state) {
    (void)state;
    put("etc/passwd",
        "root:x:0:0::/root:/bin/sh\nbroken\n:x:\nno:x:number:1\napp:x:1000:1001:An App:/app:/bin/sh\nbig:x:4294967294:7::/:");
    put("etc/group", "root:x:0:\nwheel:x:70:app,root\nempty:x::\n");
    is(NULL, 0, 0);
    is("", 0, 0);
    is("root", 0, 0);
    is("app", 1000, 1001);
    is("1000", 1000, 1001); /* the group that its own files name */
    is("1000:5", 1000, 5);
    is("app:wheel", 1000, 70);
    is("app:", 1000, 1001);
    is("77", 77, 0);
    is("0:wheel", 0, 70);
    is("big", 4294967294u, 7);
    is_refused("nemo", E_NOT_FOUND);
    is_refused("no", E_NOT_FOUND);
    is_refused("broken", E_NOT_FOUND);
    is_refused("app:nemo", E_NOT_FOUND);
    is_refused("app:empty", E_NOT_FOUND);
    is_refused("4294967295", E_NOT_FOUND); /* which means "none" to the kernel */
    is_refused("99999999999", E_NOT_FOUND);
    is_refused("-1", E_NOT_FOUND);
    is_refused(":70", E_NOT_FOUND);
    char longer[400];
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = 0;
    is_refused(longer, E_TOO_LARGE);
}

static void test_an_image_without_files_of_users(void **state) {
    (void)state;
    is("root", 0, 0);
    is("12", 12, 0);
    is("12:34", 12, 34);
    is_refused("app", E_NOT_FOUND);
    is_refused("12:app", E_NOT_FOUND);
}

/* A link that leads outside leads to the image's own root: else the gateway's users could be asked for one by one. */
static void test_nothing_outside_is_read(void **state) {
    char path[128], outside[96];
    (void)state;
    (void)snprintf(outside, sizeof outside, "%s.passwd", root);
    FILE *f = fopen(outside, "w");
    assert_true(f != NULL && fputs("spy:x:5:5::/:\n", f) >= 0 && fclose(f) == 0);
    (void)snprintf(path, sizeof path, "%s/etc/passwd", root);
    assert_int_equal(symlink(outside, path), 0);
    is_refused("spy", E_NOT_FOUND);
    assert_int_equal(unlink(path), 0);
    char up[192];
    (void)snprintf(up, sizeof up, "../../../../../../..%s", outside);
    assert_int_equal(symlink(up, path), 0);
    is_refused("spy", E_NOT_FOUND);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0); /* nor waited for */
    is_refused("spy", E_NOT_FOUND);
    assert_int_equal(unlink(outside), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(test_names_and_numbers, setup, teardown),
                                       cmocka_unit_test_setup_teardown(test_an_image_without_files_of_users, setup, teardown),
                                       cmocka_unit_test_setup_teardown(test_nothing_outside_is_read, setup, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
