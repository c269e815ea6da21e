/* Layers of images, as somebody would make them who wants more than to be unpacked.  If this failed, an image could write over files of
 * the gateway, fill its disk, or bring what is not under the digest that was ordered. */
#include <errno.h>
#include <fcntl.h>
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

#include "agent/launch/layer.h"

#define BLOCK 512u
#define ARCHIVE_MAX (1u << 20)

static struct {
    char dir[64], outside[96];
    int root;
    struct builder archive;
    struct layer_room room;
    struct fault f;
} t;

static int setup(void **state) {
    char path[512];
    (void)state;
    memset(&t, 0, sizeof t);
    (void)snprintf(t.dir, sizeof t.dir, "/tmp/grey-layer-XXXXXX");
    assert_non_null(mkdtemp(t.dir));
    (void)snprintf(t.outside, sizeof t.outside, "%s/outside", t.dir);
    static const char *const folders[] = {"root", "outside", "blobs", "blobs/sha256"};
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", t.dir, folders[i]);
        assert_int_equal(mkdir(path, 0755), 0);
    }
    (void)snprintf(path, sizeof path, "%s/root", t.dir);
    t.root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(t.root >= 0);
    t.room = (struct layer_room){.bytes = 1u << 20, .entries = 1000};
    builder_init(&t.archive, ARCHIVE_MAX);
    return 0;
}

static int teardown(void **state) {
    char command[128];
    (void)state;
    (void)close(t.root);
    builder_free(&t.archive);
    (void)snprintf(command, sizeof command, "rm -rf %s", t.dir);
    return system(command); /* NOLINT(cert-env33-c): a fixed command over a name that was made here */
}

/* --- Archives -------------------------------------------------------------------------------------------------------------------------------- */

static void add_block(const char *name, char kind, const char *link, const char *size, unsigned mode) {
    uint8_t block[BLOCK] = {0};
    unsigned sum = 0;
    memcpy(block, name, strnlen(name, 100));
    (void)snprintf((char *)block + 100, 8, "%07o", mode);
    memcpy(block + 124, size, strnlen(size, 12));
    block[156] = (uint8_t)kind;
    memcpy(block + 157, link, strnlen(link, 100));
    memcpy(block + 257, "ustar\00000", 8);
    memset(block + 148, ' ', 8);
    for (size_t i = 0; i < BLOCK; i++) {
        sum += block[i];
    }
    (void)snprintf((char *)block + 148, 8, "%06o", sum);
    builder_add(&t.archive, bytes_of(block, BLOCK));
}

static void add_content(const char *content, size_t size) {
    static const uint8_t zeros[BLOCK];
    builder_add(&t.archive, bytes_of(content, size));
    builder_add(&t.archive, bytes_of(zeros, (BLOCK - size % BLOCK) % BLOCK));
}

static void add(const char *name, char kind, const char *link, const char *content) {
    char size[32];
    (void)snprintf(size, sizeof size, "%011zo", strlen(content));
    add_block(name, kind, link, size, kind == '5' ? 0755 : 0644);
    add_content(content, strlen(content));
}

static void add_file(const char *name, const char *content) {
    add(name, '0', "", content);
}

static void add_link(const char *name, const char *target) {
    add(name, '2', target, "");
}

/* The archive as a layer; another one may begin.  named: under the digest of something else. */
static bool unpack(bool named_well) {
    static const uint8_t zeros[2 * BLOCK];
    uint8_t hash[DIGEST_SHA256_BYTES];
    char hex[65], path[192], text[256];
    struct layout l;
    builder_add(&t.archive, bytes_of(zeros, sizeof zeros));
    digest_sha256(builder_bytes(&t.archive), hash);
    hash[0] ^= named_well ? 0 : 1;
    bytes_hex(hash, sizeof hash, hex);
    (void)snprintf(path, sizeof path, "%s/blobs/sha256/%s", t.dir, hex);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0 && write(fd, t.archive.data, t.archive.size) == (ssize_t)t.archive.size);
    (void)close(fd);
    builder_reset(&t.archive);
    (void)snprintf(text, sizeof text, "{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"sha256:%s\"}", hex);
    t.f = (struct fault){0};
    json_t *descriptor = json_read(bytes_str(text), &t.f);
    assert_non_null(descriptor);
    assert_true(layout_open(&l, t.dir, &t.f));
    bool well = layer_unpack(&l, descriptor, t.root, &t.room, &t.f);
    layout_close(&l);
    json_decref(descriptor);
    return well;
}

/* What a path in the root holds; NULL: nothing. */
static const char *content_of(const char *path) {
    static char text[4096];
    int fd = openat(t.root, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0) {
        (void)close(fd);
    }
    text[size > 0 ? size : 0] = 0;
    return size < 0 ? NULL : text;
}

static bool is_there(const char *path) {
    struct stat st;
    return fstatat(t.root, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static void nothing_outside(void) {
    assert_int_equal(rmdir(t.outside), 0); /* it is empty */
    assert_int_equal(mkdir(t.outside, 0755), 0);
}

/* --- Tests ----------------------------------------------------------------------------------------------------------------------------------- */

static void layers_lie_one_over_the_other(void **state) {
    struct stat st;
    (void)state;
    add("./", '5', "", "");
    add_file("a", "a1");
    add_file("deep/er/b", "b1"); /* its folders are not named */
    add_file("deep/c", "c1");
    add_file("full/1", "1");
    add_file("full/2", "2");
    add("hard", '1', "a", "");
    add_block("suid", '0', "", "00000000000", 04755);
    add("null", '3', "", ""); /* a device */
    assert_true(unpack(true));
    assert_string_equal(content_of("a"), "a1");
    assert_string_equal(content_of("hard"), "a1");
    assert_string_equal(content_of("deep/er/b"), "b1");
    assert_true(fstatat(t.root, "suid", &st, 0) == 0 && (st.st_mode & 07777u) == 0755); /* nobody becomes another by it */
    assert_false(is_there("null"));
    add_file("a", "a2");
    add_file("full/3", "3"); /* of this layer, so it stays, although it comes first */
    add_file("full/.wh..wh..opq", "");
    add_file("deep/.wh.c", "");
    add_file(".wh.never", ""); /* there is none */
    assert_true(unpack(true));
    assert_string_equal(content_of("a"), "a2");
    assert_string_equal(content_of("hard"), "a1"); /* written anew, not through the link */
    assert_true(!is_there("full/1") && !is_there("full/2") && is_there("full/3") && !is_there("deep/c") && is_there("deep/er/b"));
    add("deep", '0', "", "a file in place of a folder");
    add_file("full/../x", "x");
    assert_false(unpack(true));
    assert_true(is_there("deep/er/b")); /* nothing was touched: it is looked through first */
    add("deep", '0', "", "a file in place of a folder");
    assert_true(unpack(true));
    assert_string_equal(content_of("deep"), "a file in place of a folder");
}

static void names_do_not_lead_out(void **state) {
    static const char *const names[] = {"../outside/x", "a/../../outside/x", "/../outside/x", "..", "./../outside/x"};
    char absolute[128];
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        add_file(names[i], "!");
        assert_false(unpack(true));
        assert_non_null(strstr(t.f.text, "leads out"));
    }
    (void)snprintf(absolute, sizeof absolute, "%s/x", t.outside);
    add_file(absolute, "!"); /* means one inside */
    assert_true(unpack(true));
    assert_string_equal(content_of(absolute + 1), "!");
    nothing_outside();
}

static void links_do_not_lead_out(void **state) {
    char up[128];
    (void)state;
    (void)snprintf(up, sizeof up, "../../../../../../../..%s", t.outside);
    for (unsigned way = 0; way < 4; way++) {
        add_link("out", way % 2 == 0 ? t.outside : up);
        add(way < 2 ? "out/x" : "out", way < 2 ? '0' : '5', "", way < 2 ? "!" : "");
        bool well = unpack(true); /* refused, for there is no such folder in the image, or taken as one inside */
        assert_true(!well || way >= 2);
        nothing_outside();
    }
    add(t.outside + 1, '5', "", "");
    add_link("in", t.outside);
    add_file("in/x", "!");
    assert_true(unpack(true));
    nothing_outside();
    assert_true(is_there("in"));
    char path[512];
    (void)snprintf(path, sizeof path, "%s/x", t.outside + 1);
    assert_string_equal(content_of(path), "!");
    add_link("loop", "loop");
    add_file("loop/x", "!");
    assert_false(unpack(true));
    add_file("in/.wh.x", ""); /* takes away inside, never outside */
    assert_true(unpack(true));
    assert_null(content_of(path));
    add_file(".wh..", "");
    assert_false(unpack(true));
    add_file(".wh...", "");
    assert_false(unpack(true));
    (void)snprintf(path, sizeof path, "%s/secret", t.outside);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    (void)close(fd);
    add_link("here", t.outside);
    add("stolen", '1', "here/secret", "");
    assert_false(unpack(true));
    add("stolen", '1', "../outside/secret", "");
    assert_false(unpack(true));
    add_link("file", path);
    add_file("file", "!"); /* in place of the link, not through it */
    assert_true(unpack(true));
    assert_string_equal(content_of("file"), "!");
    struct stat st;
    assert_true(stat(path, &st) == 0 && st.st_size == 0 && unlink(path) == 0);
    nothing_outside();
}

static void what_is_not_what_it_says_is_refused(void **state) {
    (void)state;
    add_file("a", "a1");
    assert_false(unpack(false));
    assert_int_equal(t.f.code, E_CORRUPT);
    assert_false(is_there("a"));
    add_block("a", '0', "", "77777777777", 0644); /* more than the archive has */
    assert_false(unpack(true));
    add_block("a", '0', "", "0000000000x", 0644);
    assert_false(unpack(true));
    add_block("x", 'x', "", "00000000024", 0644); /* pax */
    add_content("99 path=../outside/x", 20);
    add_file("a", "!");
    assert_false(unpack(true));
    add_block("x", 'x', "", "00000000025", 0644);
    add_content("21 path=../outside/x\n", 21);
    add_file("a", "!");
    assert_false(unpack(true));
    assert_non_null(strstr(t.f.text, "leads out"));
    add_file("a", "a1");
    builder_add(&t.archive, bytes_str("no block of an archive"));
    assert_false(unpack(true));
    assert_false(is_there("a"));
    nothing_outside();
}

static void long_names_are_read(void **state) {
    char name[300], record[400];
    (void)state;
    memset(name, 'n', sizeof name);
    memcpy(name, "f/", 2);
    for (size_t i = 60; i < sizeof name; i += 60) {
        name[i] = '/';
    }
    name[sizeof name - 1] = 0;
    int size = snprintf(record, sizeof record, "%zu path=%s\n", strlen(name) + 10, name);
    char octal[32];
    (void)snprintf(octal, sizeof octal, "%011o", (unsigned)size);
    add_block("x", 'x', "", octal, 0644);
    add_content(record, (size_t)size);
    add_file("short", "pax");
    assert_true(unpack(true));
    assert_string_equal(content_of(name), "pax");
    assert_false(is_there("short"));
    name[2] = 'g';
    (void)snprintf(octal, sizeof octal, "%011o", (unsigned)strlen(name) + 1);
    add_block("././@LongLink", 'L', "", octal, 0644);
    add_content(name, strlen(name) + 1);
    add_file("short", "gnu");
    assert_true(unpack(true));
    assert_string_equal(content_of(name), "gnu");
}

/* A name of that length, its parts one letter each. */
static void add_deep(const char *record_name, size_t parts) {
    char path[4096], record[4200], octal[32];
    for (size_t i = 0; i < parts; i++) {
        memcpy(path + 2 * i, "d/", 2);
    }
    path[2 * parts - 1] = 0;
    size_t size = strlen(path) + strlen(record_name) + 3; /* the space, "=", the end of the line */
    size += size + 4 > 999 ? 4 : size + 3 > 99 ? 3 : 2;   /* the number itself */
    (void)snprintf(record, sizeof record, "%zu %s=%s\n", size, record_name, path);
    assert_int_equal(strlen(record), size);
    (void)snprintf(octal, sizeof octal, "%011o", (unsigned)size);
    add_block("x", 'x', "", octal, 0644);
    add_content(record, size);
}

/* What is too deep to be walked through is not made, and takes no stack. */
static void deep_paths_are_refused(void **state) {
    static const size_t too_deep[] = {LAYER_DEPTH_MAX + 1, 2000};
    (void)state;
    add_deep("path", LAYER_DEPTH_MAX);
    add_file("short", "!");
    assert_true(unpack(true));
    for (size_t i = 0; i < sizeof too_deep / sizeof too_deep[0]; i++) {
        add_deep("path", too_deep[i]);
        add_file("short", "!");
        assert_false(unpack(true));
        assert_int_equal(t.f.code, E_CORRUPT);
        assert_non_null(strstr(t.f.text, "more than 63 folders"));
        add_deep("linkpath", too_deep[i]);
        add("hard", '1', "a", "");
        assert_false(unpack(true));
        assert_non_null(strstr(t.f.text, "more than 63 folders"));
    }
}

static void it_takes_no_more_than_there_is_room(void **state) {
    (void)state;
    t.room = (struct layer_room){.bytes = 5, .entries = 10};
    add_file("a", "12");
    add_file("b", "345");
    assert_true(unpack(true));
    add_file("a", "!"); /* what was there before counts */
    assert_false(unpack(true));
    assert_int_equal(t.f.code, E_TOO_LARGE);
    assert_string_equal(content_of("a"), "12");
    t.room = (struct layer_room){.bytes = 1000, .entries = 2};
    add_file("c", "");
    add_file("d", "");
    add_file("e", "");
    assert_false(unpack(true));
    assert_int_equal(t.f.code, E_TOO_LARGE);
    assert_false(is_there("c"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(layers_lie_one_over_the_other, setup, teardown),
        cmocka_unit_test_setup_teardown(names_do_not_lead_out, setup, teardown),
        cmocka_unit_test_setup_teardown(links_do_not_lead_out, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_not_what_it_says_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(long_names_are_read, setup, teardown),
        cmocka_unit_test_setup_teardown(deep_paths_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(it_takes_no_more_than_there_is_room, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
