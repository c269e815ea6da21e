#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "platform/yaml.h"

#define B(literal) bytes_of(literal, sizeof(literal) - 1)

static void assert_refused(struct bytes text, const char *wanted) {
    struct fault f = {0};
    struct yaml_doc *doc = yaml_read(text, &f);
    assert_null(doc);
    assert_int_equal(f.code, E_CONFIG);
    assert_string_equal(f.text, wanted);
    assert_null(yaml_read(text, NULL));
}

/* If places were wrong, an engineer would search the wrong line at night. */
static void nodes_know_their_places(void **state) {
    (void)state;
    struct yaml_doc *doc = yaml_read(B("# remark\nmode: edge\nnode:\n  id: \"a\\nb\"   # why\n  list: [x, gr\xc3\xbc\xc3\x9f, y]\n"
                                       "  block: |\n    text\n  none:\n"),
                                     NULL);
    assert_non_null(doc);
    const struct yaml_node *root = yaml_root(doc);
    assert_int_equal(root->kind, YAML_MAPPING);
    assert_int_equal(root->count, 2);
    const struct yaml_node *mode = root->first;
    assert_string_equal(mode->key.data, "mode");
    assert_int_equal(mode->key_line, 2);
    assert_int_equal(mode->key_column, 1);
    assert_string_equal(mode->text.data, "edge");
    assert_int_equal(mode->line, 2);
    assert_int_equal(mode->column, 7);
    assert_false(mode->quoted);
    const struct yaml_node *node = yaml_get(root, "node");
    assert_ptr_equal(mode->next, node);
    assert_null(node->next);
    const struct yaml_node *id = yaml_get(node, "id");
    assert_true(id->quoted);
    assert_true(bytes_equal_str(id->text, "a\nb"));
    assert_int_equal(id->line, 4);
    assert_int_equal(id->key_column, 3);
    const struct yaml_node *list = yaml_get(node, "list");
    assert_int_equal(list->kind, YAML_SEQUENCE);
    assert_int_equal(list->count, 3);
    assert_int_equal(list->first->next->next->line, 5);
    assert_int_equal(list->first->next->next->column, 19); /* characters, not bytes */
    assert_int_equal(list->first->key.size, 0);
    assert_true(yaml_get(node, "block")->quoted);
    assert_string_equal(yaml_get(node, "block")->text.data, "text\n");
    assert_true(yaml_is_null(yaml_get(node, "none")));
    assert_null(yaml_get(node, "i"));
    assert_null(yaml_get(list, "x"));
    assert_null(yaml_get(NULL, "x"));
    yaml_doc_free(doc);
    yaml_doc_free(NULL);
}

/* If an empty file were a fault of memory, a fresh installation would not start. */
static void an_empty_text_has_no_root(void **state) {
    (void)state;
    static const char *const empty[] = {"", "\n\n", "# only a remark\n", "---\n", "--- # remark\n...\n", "\xef\xbb\xbf"};
    for (size_t i = 0; i < sizeof empty / sizeof empty[0]; i++) {
        struct yaml_doc *doc = yaml_read(bytes_str(empty[i]), NULL);
        assert_non_null(doc);
        assert_null(yaml_root(doc));
        yaml_doc_free(doc);
    }
}

/* If clever YAML were let in, a small file could unfold to gigabytes or say two things at once (FAULTS B5). */
static void what_nobody_needs_is_refused_with_its_place(void **state) {
    (void)state;
    assert_refused(B("a: 1\nb: &x 2\n"), "line 2, column 4: anchors (&x) are not allowed");
    assert_refused(B("a: *x\n"), "line 1, column 4: aliases (*x) are not allowed");
    assert_refused(B("a: !!str 2\n"), "line 1, column 4: tags (tag:yaml.org,2002:str) are not allowed");
    assert_refused(B("a: !x [2]\n"), "line 1, column 4: tags (!x) are not allowed");
    assert_refused(B("? !x {}\n: 1\n"), "line 1, column 3: tags (!x) are not allowed");
    assert_refused(B("a: 1\n---\nb: 2\n"), "line 2, column 1: a second document begins; one is allowed");
    assert_refused(B("a: 1\nb:\n  c: 1\n  d: 2\n  \"c\": 3\n"), "line 5, column 3: key \"c\" stands here and in line 3");
    assert_refused(B("# x\n%YAML 1.2\n---\na: 1\n"), "line 2, column 1: directives and lines that begin with % are not allowed");
    assert_refused(B("? [a]\n: 1\n"), "line 1, column 3: a key must be plain text");
    assert_refused(B("a:\n\tb: 1\n"), "line 2, column 1: a tab; indent with spaces");
    assert_refused(B("a: \"x\\0y\"\n"), "line 1, column 4: a NUL character in a text");
    struct fault f;
    static const struct bytes bad[] = {
#define R(literal) {(const uint8_t *)(literal), sizeof(literal) - 1}
        R("a: [1, 2\n"),
        R("a: {"),
        R("a: 'x"),
        R("a: b: c\n"),
        R("- a\nb: 1\n"),
        R("a: 1\n b: 2\n"),
        R("%x\n"),
        R("a: @x\n"),
        R("a: \xff\n"),
        R("a: x\0y\n"),
        R("\xff\xfe"
          "a\0"),
        R("a: \"\\q\"\n"),
#undef R
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_null(yaml_read(bad[i], &f));
        assert_int_equal(f.code, E_CONFIG);
        assert_memory_equal(f.text, "line ", 5);
    }
    assert_refused(B("a: 1\nb: \xff\n"), "line 2, column 4: invalid leading UTF-8 octet");
}

/* If size, depth or number were unbounded, a wrong file would take the memory of the gateway. */
static void size_depth_and_number_are_bounded(void **state) {
    (void)state;
    size_t size = YAML_TEXT_BYTES_MAX + 1;
    char *text = malloc(size);
    memset(text, ' ', size);
    assert_refused(bytes_of(text, size), "line 1, column 1: 262145 bytes, at most 262144 are read");
    struct yaml_doc *doc = yaml_read(bytes_of(text, size - 1), NULL);
    assert_non_null(doc);
    yaml_doc_free(doc);

    memset(text, '[', 17);
    memset(text + 17, ']', 17);
    assert_refused(bytes_of(text, 34), "line 1, column 17: more than 16 levels deep");
    doc = yaml_read(bytes_of(text + 1, 32), NULL);
    assert_non_null(doc);
    yaml_doc_free(doc);
    memset(text, '[', size - 1);
    assert_refused(bytes_of(text, size - 1), "line 1, column 17: more than 16 levels deep");

    size_t used = 0;
    for (unsigned i = 0; i < YAML_NODES_MAX; i++) {
        used += (size_t)snprintf(text + used, size - used, "k%u: 1\n", i);
    }
    assert_refused(bytes_of(text, used), "line 4096, column 1: more than 4096 values"); /* the root counts as one */
    doc = yaml_read(bytes_of(text, used - strlen("k4095: 1\n")), NULL);
    assert_non_null(doc);
    assert_int_equal(yaml_root(doc)->count, YAML_NODES_MAX - 1);
    yaml_doc_free(doc);
    free(text);
}

/* If `port: 08` or `enabled: no` were guessed at, a gateway would do other than its file says. */
static void scalars_are_read_by_yaml_1_2_or_refused(void **state) {
    (void)state;
    struct yaml_doc *doc = yaml_read(
        B("i: 42\nneg: -7\nplus: +7\nhex: 0x1F\noct: 0o17\nbig: 9223372036854775807\nover: 9223372036854775808\nzero: 010\n"
          "q: \"42\"\nf: -74.0060\ne: 1e3\ndot: .5\ninf: .inf\nt: true\nf2: FALSE\nno: no\nnull: ~\nempty:\nqe: ''\nm: {a: 1}\n"
          "l: []\ns: 0o\nminus: -x\nhuge: 1e999\nu: 1_000\nsp: \"\\e[31m\\x9b long text that goes on and on for more than "
          "forty\"\n"),
        NULL);
    assert_non_null(doc);
    const struct yaml_node *root = yaml_root(doc);
    struct fault f;
    int64_t i = 0;
    double d = 0;
    bool b = false;
    struct bytes text;
#define INT_IS(key, wanted)                                                                                                        \
    assert_int_equal(yaml_int(yaml_get(root, key), INT64_MIN, INT64_MAX, &i, &f), E_OK);                                           \
    assert_true(i == (wanted))
#define NO_INT(key, wanted_text)                                                                                                   \
    assert_int_equal(yaml_int(yaml_get(root, key), -100, 100, &i, &f), E_CONFIG);                                                  \
    assert_string_equal(f.text, wanted_text)
    INT_IS("i", 42);
    INT_IS("neg", -7);
    INT_IS("plus", 7);
    INT_IS("hex", 31);
    INT_IS("oct", 15);
    INT_IS("big", INT64_MAX);
    assert_int_equal(yaml_int(yaml_get(root, "over"), INT64_MIN, INT64_MAX, &i, &f), E_CONFIG);
    assert_true(i == INT64_MAX);
    NO_INT("big", "line 6, column 6: 9223372036854775807 is out of range: -100 to 100");
    NO_INT("zero", "line 8, column 7: a whole number is expected, not \"010\"");
    NO_INT("q", "line 9, column 4: a whole number is expected, not the quoted text \"42\"");
    NO_INT("empty", "line 18, column 7: a whole number is expected, and nothing is given");
    NO_INT("m", "line 20, column 4: a whole number is expected, not a group of keys");
    NO_INT("l", "line 21, column 4: a whole number is expected, not a list");
    static const char *const no_ints[] = {"f", "e", "s", "minus", "u", "sp", "t", "qe"};
    for (size_t k = 0; k < sizeof no_ints / sizeof no_ints[0]; k++) {
        assert_int_equal(yaml_int(yaml_get(root, no_ints[k]), INT64_MIN, INT64_MAX, &i, NULL), E_CONFIG);
    }
#define NUMBER_IS(key, wanted)                                                                                                     \
    assert_int_equal(yaml_number(yaml_get(root, key), -1000, 1000, &d, &f), E_OK);                                                 \
    assert_true(d == (wanted))
    NUMBER_IS("f", -74.0060);
    NUMBER_IS("e", 1000);
    NUMBER_IS("dot", 0.5);
    NUMBER_IS("i", 42);
    static const char *const no_numbers[] = {"inf", "hex", "q", "t", "minus", "huge", "u", "empty", "l"};
    for (size_t k = 0; k < sizeof no_numbers / sizeof no_numbers[0]; k++) {
        assert_int_equal(yaml_number(yaml_get(root, no_numbers[k]), -1e300, 1e300, &d, &f), E_CONFIG);
    }
    assert_int_equal(yaml_bool(yaml_get(root, "t"), &b, &f), E_OK);
    assert_true(b);
    assert_int_equal(yaml_bool(yaml_get(root, "f2"), &b, &f), E_OK);
    assert_false(b);
    assert_int_equal(yaml_bool(yaml_get(root, "no"), &b, &f), E_CONFIG);
    assert_string_equal(f.text, "line 16, column 5: true or false is expected, not \"no\"");
    assert_int_equal(yaml_bool(yaml_get(root, "q"), &b, &f), E_CONFIG);
    assert_int_equal(yaml_text(yaml_get(root, "zero"), &text, &f), E_OK);
    assert_true(bytes_equal_str(text, "010"));
    assert_int_equal(yaml_text(yaml_get(root, "empty"), &text, &f), E_OK);
    assert_int_equal(text.size, 0);
    assert_int_equal(yaml_text(yaml_get(root, "l"), &text, &f), E_CONFIG);
    assert_true(yaml_is_null(yaml_get(root, "empty")));
    assert_true(yaml_is_null(yaml_get(root, "null")));
    assert_false(yaml_is_null(yaml_get(root, "qe")));
    assert_false(yaml_is_null(yaml_get(root, "no")));
    assert_int_equal(yaml_int(yaml_get(root, "sp"), 0, 1, &i, &f), E_CONFIG);
    assert_null(strchr(f.text, '\x1b')); /* nothing that moves a terminal's cursor */
    assert_int_equal(yaml_fault(root, &f, "key %s", "x"), E_CONFIG);
    assert_string_equal(f.text, "line 1, column 1: key x");
    yaml_doc_free(doc);
}

/* If any cut of a file crashed the reader, a full disk during an edit would keep the agent from starting. */
static void any_prefix_is_read_or_refused(void **state) {
    (void)state;
    const char *text = "a: [1, {b: 'c', \"d\\u00e9\": e}]\nf:\n  - g: |\n      h\n    i: >-\n      j\n  - k: # l\n";
    for (size_t size = 0; size <= strlen(text); size++) {
        char *exact = malloc(size == 0 ? 1 : size);
        memcpy(exact, text, size);
        struct fault f = {0};
        struct yaml_doc *doc = yaml_read(bytes_of(exact, size), &f);
        assert_true(doc != NULL || f.code == E_CONFIG);
        free(exact);
        yaml_doc_free(doc);
    }
}

static struct yaml_doc *read_example(const char *name) {
    char path[128];
    static char text[YAML_TEXT_BYTES_MAX];
    (void)snprintf(path, sizeof path, "tests/unit/data/%s", name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t size = fread(text, 1, sizeof text, file);
    (void)fclose(file);
    struct fault f = {0};
    struct yaml_doc *doc = yaml_read(bytes_of(text, size), &f);
    assert_string_equal(f.text, "");
    assert_non_null(doc);
    return doc;
}

/* If the files of the guide did not parse, the first five minutes with Grey Edge would be the last. */
static void the_example_files_are_read(void **state) {
    (void)state;
    struct yaml_doc *doc = read_example("dev.yaml");
    const struct yaml_node *root = yaml_root(doc);
    struct bytes text;
    bool b = true;
    int64_t i = 0;
    double d = 0;
    assert_int_equal(root->count, 8);
    assert_int_equal(yaml_text(yaml_get(yaml_get(root, "node"), "name"), &text, NULL), E_OK);
    assert_true(bytes_equal_str(text, "Development Node"));
    assert_int_equal(yaml_number(yaml_get(yaml_get(yaml_get(root, "observability"), "tracing"), "sample_rate"), 0, 1, &d, NULL),
                     E_OK);
    assert_true(d == 1.0);
    assert_int_equal(yaml_bool(yaml_get(yaml_get(yaml_get(root, "security"), "tls"), "enabled"), &b, NULL), E_OK);
    assert_false(b);
    yaml_doc_free(doc);

    doc = read_example("edge-config.yaml");
    const struct yaml_node *federation = yaml_get(yaml_root(doc), "federation");
    const struct yaml_node *endpoints = yaml_get(yaml_get(federation, "upstream"), "endpoints");
    assert_int_equal(endpoints->count, 2);
    assert_string_equal(endpoints->first->next->text.data, "grey-core.eu-west-1.cloud.example.com:443");
    assert_int_equal(yaml_int(yaml_get(yaml_get(federation, "offline"), "queue_size_mb"), 1, 4096, &i, NULL), E_OK);
    assert_int_equal(i, 1024);
    const struct yaml_node *location = yaml_get(yaml_get(yaml_root(doc), "node"), "location");
    assert_int_equal(yaml_number(yaml_get(location, "longitude"), -180, 180, &d, NULL), E_OK);
    assert_true(d == -74.0060);
    yaml_doc_free(doc);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_know_their_places),
        cmocka_unit_test(an_empty_text_has_no_root),
        cmocka_unit_test(what_nobody_needs_is_refused_with_its_place),
        cmocka_unit_test(size_depth_and_number_are_bounded),
        cmocka_unit_test(scalars_are_read_by_yaml_1_2_or_refused),
        cmocka_unit_test(any_prefix_is_read_or_refused),
        cmocka_unit_test(the_example_files_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
