#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "platform/zonefile.h"

static char folder[] = "/tmp/grey-zones-XXXXXX";

static void put_file(const char *name, const char *text, size_t size) {
    char path[64];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

static enum grey_error rule(const char *name, char *out) {
    struct builder b;
    struct fault f = {0};
    builder_init(&b, 256);
    enum grey_error err = zonefile_rule(folder, bytes_str(name), &b, &f);
    (void)snprintf(out, 64, "%.*s", (int)b.size, b.size > 0 ? (const char *)b.data : "");
    builder_free(&b);
    return err;
}

/* Who says "Europe/Berlin" must get the hours of Berlin, or a refusal that says why, and no file that is not one of zones. */
static void a_name_becomes_the_rule_at_the_end_of_its_file(void **context) {
    (void)context;
    char text[44 + 64] = "TZif2", out[64], path[64];
    memcpy(text + 44, "...\nCET-1CEST,M3.5.0,M10.5.0/3\n", 31);
    assert_non_null(mkdtemp(folder));
    put_file("Berlin", text, 44 + 31);
    assert_int_equal(rule("Berlin", out), E_OK);
    assert_string_equal(out, "CET-1CEST,M3.5.0,M10.5.0/3");
    put_file("Cut", text, 44 + 30); /* no line feed at the end */
    assert_int_equal(rule("Cut", out), E_BAD_MESSAGE);
    put_file("None", text, 44 + 4); /* an empty rule: nobody knows how it goes on */
    assert_int_equal(rule("None", out), E_BAD_MESSAGE);
    text[4] = 0; /* version 1 has no footer */
    put_file("Old", text, 44 + 31);
    assert_int_equal(rule("Old", out), E_BAD_MESSAGE);
    put_file("Text", "hello\n", 6);
    assert_int_equal(rule("Text", out), E_BAD_MESSAGE);
    assert_int_equal(rule("Paris", out), E_NOT_FOUND);
    static const char *const bad[] = {"", "../Berlin", "/etc/passwd", "Ber.lin", "Ber lin"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(rule(bad[i], out), E_BAD_REQUEST);
    }
    static const char *const names[] = {"Berlin", "Cut", "None", "Old", "Text"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(rmdir(folder), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_name_becomes_the_rule_at_the_end_of_its_file)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
