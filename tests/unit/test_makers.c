/* Whose TPMs a core trusts, in files that change.  If this failed, a maker that was added would wait for a restart of the core, or a file that somebody
 * damaged would leave the core with nobody to trust, or with half of them. */
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

#include "core/makers.h"
#include "platform/cert.h"
#include "platform/wholefile.h"

static char dir[32], roots[64], keys[64];
static struct builder one, leaf;

static void write_text(const char *path, const char *text) {
    struct fault f = {0};
    assert_int_equal(wholefile_write(path, bytes_str(text), 0600, &f), E_OK);
}

static void read_text(const char *path, struct builder *out) {
    char full[100];
    struct fault f = {0};
    (void)snprintf(full, sizeof full, "%s/%s", dir, path);
    builder_init(out, 16384);
    assert_int_equal(wholefile_read(full, out, &f), E_OK);
}

static int set_up(void **state) {
    (void)state;
    char command[400];
    (void)strcpy(dir, "/tmp/grey-makers-XXXXXX");
    assert_non_null(mkdtemp(dir));
    (void)snprintf(roots, sizeof roots, "%s/roots.pem", dir);
    (void)snprintf(keys, sizeof keys, "%s/keys", dir);
    (void)snprintf(
        command, sizeof command,
        "cd %s && for n in one leaf; do openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $n.key -out "
        "$n.pem -subj /CN=$n -days 30 -addext basicConstraints=critical,CA:$([ $n = one ] && echo TRUE || echo FALSE) "
        "2>/dev/null || exit 1; done",
        dir);
    assert_int_equal(system(command), 0);
    read_text("one.pem", &one);
    read_text("leaf.pem", &leaf);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    char command[100];
    builder_free(&one);
    builder_free(&leaf);
    (void)snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static void what_changes_is_read_and_what_is_bad_is_not(void **state) {
    (void)state;
    static const char key[] = "# who signs\n0101010101010101010101010101010101010101010101010101010101010101\n";
    struct fault f = {0};
    struct loop *loop = loop_new(&f);
    write_text(roots, (const char *)one.data);
    write_text(keys, key);
    struct makers_watch *w = makers_watch_new(loop, &(struct makers_files){roots, "", keys}, &f);
    assert_non_null(w);
    struct makers *before = makers_hold(w);
    assert_string_equal(before->roots_pem[ATTEST_TPM2], (const char *)one.data);
    assert_null(before->roots_pem[ATTEST_VTPM]);
    assert_int_equal(before->document_key_count, 1);

    static const char *const bad[] = {"", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) { /* what was read before goes on */
        write_text(roots, bad[i]);
        makers_reload(w);
        struct makers *now = makers_hold(w);
        assert_ptr_equal(now, before);
        makers_release(now);
    }
    write_text(roots, (const char *)leaf.data); /* one that signs nobody */
    makers_reload(w);
    write_text(roots, (const char *)one.data);
    write_text(keys, "0101\n");
    makers_reload(w);
    struct makers *same = makers_hold(w);
    assert_ptr_equal(same, before);
    makers_release(same);

    struct builder two;
    builder_init(&two, 32768);
    builder_add_str(&two, (const char *)one.data);
    builder_add_str(&two, (const char *)one.data);
    builder_add_byte(&two, 0);
    write_text(roots, (const char *)two.data);
    write_text(keys, key);
    makers_reload(w);
    struct makers *after = makers_hold(w);
    assert_ptr_not_equal(after, before);
    assert_string_equal(after->roots_pem[ATTEST_TPM2], (const char *)two.data);
    assert_string_equal(before->roots_pem[ATTEST_TPM2], (const char *)one.data); /* who judges by it still has it */
    makers_release(before);
    makers_release(after);
    makers_watch_free(w);
    builder_free(&two);
    loop_free(loop);
}

static void a_bad_file_is_named_at_the_start(void **state) {
    (void)state;
    struct fault f = {0};
    struct loop *loop = loop_new(&f);
    write_text(roots, (const char *)leaf.data);
    assert_null(makers_watch_new(loop, &(struct makers_files){roots, "", ""}, &f));
    assert_true(f.code == E_CONFIG && strstr(f.text, roots) != NULL && strstr(f.text, "number 1") != NULL);
    assert_null(makers_watch_new(loop, &(struct makers_files){"/nowhere/roots.pem", "", ""}, &f));
    assert_int_equal(f.code, E_NOT_FOUND);
    loop_free(loop);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_changes_is_read_and_what_is_bad_is_not, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_bad_file_is_named_at_the_start, set_up, tear_down)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
