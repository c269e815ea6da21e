/* Small files: whole or not at all.  If one could be half written, a certificate, a key or what was learned would be lost in a power cut. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/wholefile.h"
#include "tests/unit/power_rig.h"

static char dir[32], path[48], fresh[48], elsewhere[48];

static int set_up(void **state) {
    (void)state;
    (void)strcpy(dir, "/tmp/grey-whole-XXXXXX");
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof path, "%s/f", dir);
    (void)snprintf(fresh, sizeof fresh, "%s/f.new", dir);
    (void)snprintf(elsewhere, sizeof elsewhere, "%s/e", dir);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    char command[64];
    (void)snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static void assert_holds(const char *file, const char *text) {
    struct builder b;
    struct fault f = {0};
    builder_init(&b, 4096);
    assert_int_equal(wholefile_read(file, &b, &f), E_OK);
    assert_string_equal((const char *)b.data, text);
    builder_free(&b);
}

/* If a file were replaced bit by bit, or kept what was longer before, its reader would meet neither the old nor the new one. */
static void a_file_is_replaced_as_a_whole(void **state) {
    (void)state;
    struct fault f = {0};
    struct stat st;
    assert_int_equal(wholefile_write(path, bytes_str("the longer text"), 0600, &f), E_OK);
    assert_int_equal(wholefile_write(path, bytes_str("short"), 0600, &f), E_OK);
    assert_holds(path, "short");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(wholefile_make(path, bytes_str("other"), 0600, &f), E_CONDITION);
    assert_holds(path, "short");
    assert_int_equal(wholefile_remove(path, &f), E_OK);
    assert_false(wholefile_exists(path));
    assert_int_equal(wholefile_remove(path, &f), E_OK);
    assert_int_equal(wholefile_make(path, bytes_str("first"), 0600, &f), E_OK);
    assert_holds(path, "first");
}

/* If what is left behind without waiting for the disk were not whole, or one lost attempt stood in the way of all later ones, a gateway would
 * start with half a result of attestation, or never keep one again. */
static void what_is_left_is_whole_and_left_again(void **state) {
    (void)state;
    struct fault f = {0};
    FILE *torn = fopen(fresh, "w"); /* the power went away before its name was changed */
    assert_non_null(torn);
    assert_true(fputs("half of something that is longer than what comes", torn) >= 0);
    assert_int_equal(fclose(torn), 0);
    assert_int_equal(wholefile_leave(path, bytes_str("one"), 0640, &f), E_OK);
    assert_holds(path, "one");
    assert_false(wholefile_exists(fresh));
    assert_int_equal(wholefile_leave(path, bytes_str(""), 0640, &f), E_OK);
    assert_holds(path, "");
}

/* If a link that somebody put beside the file were followed, what greyd leaves would overwrite another file. */
static void what_is_left_follows_no_link(void **state) {
    (void)state;
    struct fault f = {0};
    assert_int_equal(wholefile_write(elsewhere, bytes_str("not ours"), 0600, &f), E_OK);
    assert_int_equal(symlink("e", fresh), 0);
    assert_int_equal(wholefile_leave(path, bytes_str("one"), 0600, &f), E_SYSTEM);
    assert_non_null(strstr(f.text, path));
    assert_holds(elsewhere, "not ours");
    assert_false(wholefile_exists(path));
}

/* What was promised of f (the last text that was written, or "" when it was removed), of g (made once, or not yet) and of h (left). */
struct promise {
    char f[16], g[16];
};

static void text_of(const struct power_cut *cut, const char *name, char text[64]) {
    char file[100];
    struct builder b;
    struct fault f = {0};
    (void)snprintf(file, sizeof file, "%s/%s", cut->dir, name);
    builder_init(&b, 4096);
    enum grey_error err = wholefile_read(file, &b, &f);
    if (err != E_OK && err != E_NOT_FOUND &&
        (err != E_BAD_MESSAGE || strcmp(name, "h") != 0)) { /* what is left may be torn, and is checked */
        fail_msg("%s: %s: %s", cut->what, name, f.text);
    }
    (void)snprintf(text, 64, "%s", err == E_OK ? (const char *)b.data : "");
    builder_free(&b);
}

static void holds_old_or_new(const struct power_cut *cut, void *context) {
    (void)context;
    static const struct promise none;
    const struct promise *p = cut->promise == NULL ? &none : cut->promise;
    static const char *const order[] = {"", "one", "two", "three", ""}; /* of f */
    char f[64], g[64], h[64];
    unsigned promised = 0, found = 0, known = sizeof order / sizeof order[0];
    text_of(cut, "f", f);
    text_of(cut, "g", g);
    text_of(cut, "h", h);
    while (promised < known && strcmp(order[promised], p->f) != 0) {
        promised++;
    }
    promised = strcmp(p->g, "last") == 0 ? known - 1 : promised;
    for (found = promised; found < known && strcmp(order[found], f) != 0 && found <= promised + 1; found++) {
    }
    if (found > promised + 1 || found == known) {
        fail_msg("%s: f holds '%s', promised was '%s'", cut->what, f, p->f);
    }
    if (strcmp(g, "made") != 0 && (p->g[0] != 0 || g[0] != 0)) {
        fail_msg("%s: g holds '%s'", cut->what, g);
    }
}

/* If this failed, a certificate, a key or the state of an update would be gone, or half there, after a power cut. */
static void a_power_cut_leaves_the_old_or_the_new(void **state) {
    (void)state;
    static const char *const texts[] = {"one", "two", "three"};
    char made[48], left[48];
    struct fault f = {0};
    struct promise p = {{0}, {0}};
    (void)snprintf(made, sizeof made, "%s/g", dir);
    (void)snprintf(left, sizeof left, "%s/h", dir);
    power_watch(dir);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(wholefile_write(path, bytes_str(texts[i]), 0600, &f), E_OK);
        (void)strcpy(p.f, texts[i]);
        power_promise(&p, sizeof p);
        assert_int_equal(wholefile_leave(left, bytes_str(texts[i]), 0600, &f), E_OK);
        if (i == 1) {
            assert_int_equal(wholefile_make(made, bytes_str("made"), 0600, &f), E_OK);
            (void)strcpy(p.g, "made");
            power_promise(&p, sizeof p);
        }
    }
    assert_int_equal(wholefile_remove(path, &f), E_OK);
    (void)strcpy(p.g, "last");
    power_promise(&p, sizeof p);
    struct power_tally t = power_cuts(0, holds_old_or_new, NULL);
    print_message("%zu cuts at %zu boundaries\n", t.cuts, t.boundaries);
    assert_true(t.cuts > 60);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_file_is_replaced_as_a_whole, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_left_is_whole_and_left_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_left_follows_no_link, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_power_cut_leaves_the_old_or_the_new, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
