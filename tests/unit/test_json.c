#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "platform/json.h"

#define B(literal) bytes_of(literal, sizeof(literal) - 1)

static void assert_text(struct bytes got, const char *wanted) {
    assert_int_equal(got.size, strlen(wanted));
    assert_memory_equal(got.data, wanted, got.size);
}

/* If malformed requests were accepted, what is stored could not be read by those who come later (FAULTS B4). */
static void what_is_not_json_is_refused_with_its_place(void **state) {
    (void)state;
    static const struct bytes refused[] = {
#define R(literal) {(const uint8_t *)(literal), sizeof(literal) - 1}
        R(""),
        R(" "),
        R("{"),
        R("{\"a\":1,\"a\":2}"),
        R("{\"a\":{\"b\":1,\"\\u0062\":2}}"),
        R("[1,]"),
        R("[1] x"),
        R("{}{}"),
        R("nul"),
        R("'a'"),
        R("\"\xff\""),
        R("\"\\u0000\""),
        R("\"a\0b\""),
        R("\"\\ud800\""),
        R("\"\\udc00\\ud800\""),
        R("\"\n\""),
        R("01"),
        R("+1"),
        R("1."),
        R(".5"),
        R("1e999"),
        R("NaN"),
        R("99999999999999999999"),
        R("{1:2}"),
        R("{\"\\u0000\":1}"),
        R("\xef\xbb\xbf{}"),
        R("\"\\x\""),
        R("[1 2]"),
        R("{\"a\" 1}"),
        R("\0"),
#undef R
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        struct fault f = {0};
        assert_null(json_read(refused[i], &f));
        assert_int_equal(f.code, E_BAD_JSON);
        assert_memory_equal(f.text, "line ", 5);
        assert_null(json_read(refused[i], NULL));
    }
    struct fault f;
    assert_null(json_read(B("{\n  \"a\": tru\n}"), &f));
    assert_non_null(strstr(f.text, "line 2, column 10"));
}

/* If good requests were refused, devices could not report. */
static void what_is_json_is_read(void **state) {
    (void)state;
    static const char *const good[] = {"null",
                                       " true ",
                                       "-0",
                                       "1.10",
                                       "1e-7",
                                       "9223372036854775807",
                                       "\"\\ud83d\\ude00\"",
                                       "[]",
                                       "{\"a\":[1,{\"b\":null}]}",
                                       "\t{\r\n\"\":\"\" }"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        json_t *value = json_read(bytes_str(good[i]), NULL);
        assert_non_null(value);
        json_decref(value);
    }
}

/* If nesting were followed without a bound, one request could exhaust the stack of a gateway. */
static void nesting_is_bounded(void **state) {
    (void)state;
    char text[200001];
    memset(text, '[', 64);
    memset(text + 64, ']', 64);
    json_t *value = json_read(bytes_of(text, 128), NULL);
    assert_non_null(value);
    json_decref(value);
    struct fault f;
    memset(text, '[', 65);
    memset(text + 65, ']', 65);
    assert_null(json_read(bytes_of(text, 130), &f));
    assert_string_equal(f.text, "line 1, column 65: more than 64 levels deep");
    memset(text, '[', sizeof text);
    assert_null(json_read(bytes_of(text, sizeof text), &f));
    memset(text, '[', 70);
    text[0] = text[69] = '"';
    value = json_read(bytes_of(text, 70), &f); /* brackets in a string are no nesting */
    assert_non_null(value);
    json_decref(value);
}

/* If 4 MiB of brackets unfolded to 150 MiB, one request would have the kernel kill the agent (FAULTS B4). */
static void the_memory_of_a_tree_is_bounded_before_it_grows(void **state) {
    (void)state;
    size_t size = 4u << 20;
    char *text = malloc(size);
    static const char *const patterns[] = {"[],", "{},", "{\"\":0},", "0,", "\"\",", "[", "{\"a\":"};
    for (size_t k = 0; k < sizeof patterns / sizeof patterns[0]; k++) {
        for (size_t i = 0; i < size; i++) {
            text[i] = i == 0 ? '[' : patterns[k][(i - 1) % strlen(patterns[k])];
        }
        struct fault f = {0};
        assert_null(json_read(bytes_of(text, size), &f));
        assert_int_equal(f.code, k < 5 ? E_TOO_LARGE : E_BAD_JSON);
    }
    memset(text, 'x', size);
    text[0] = text[size - 1] = '"';
    json_t *value = json_read(bytes_of(text, size), NULL);
    assert_non_null(value);
    json_decref(value);
    free(text);
}

/* If a value were printed anew instead of passed on, 1.10 would reach the core as 1.1 and a signature over it would fail. */
static void raw_slices_are_what_was_received(void **state) {
    (void)state;
    struct bytes text = B(" [ 1.10 ,\"a,]\\\"\", {\"x\" : [1, 2]},[ ],null,-0.0e+5 ] ");
    static const char *const wanted[] = {"1.10", "\"a,]\\\"\"", "{\"x\" : [1, 2]}", "[ ]", "null", "-0.0e+5"};
    struct bytes out[8];
    assert_int_equal(json_raw_elements(text, out, 8), 6);
    for (size_t i = 0; i < 6; i++) {
        assert_text(out[i], wanted[i]);
        assert_text(json_raw_element(text, i), wanted[i]);
    }
    assert_int_equal(json_raw_element(text, 6).size, 0);
    assert_int_equal(json_raw_elements(text, out, 2), 6);
    assert_int_equal(json_raw_elements(text, NULL, 0), 6);
    assert_int_equal(json_raw_elements(B("[]"), out, 8), 0);
    assert_int_equal(json_raw_elements(B("{\"a\":1}"), out, 8), 0);

    struct bytes object = B("{ \"a\" :1.10, \"data\": {\"id\": \"in}ner\"},\"id\":\"x\" , \"\\u00fc\\ud83d\\ude00\\n\":[],\"\":0}");
    assert_text(json_raw_member(object, "a"), "1.10");
    assert_text(json_raw_member(object, "data"), "{\"id\": \"in}ner\"}");
    assert_text(json_raw_member(object, "id"), "\"x\"");
    assert_text(json_raw_member(object, "\xc3\xbc\xf0\x9f\x98\x80\n"), "[]");
    assert_text(json_raw_member(object, ""), "0");
    assert_int_equal(json_raw_member(object, "i").size, 0);
    assert_int_equal(json_raw_member(object, "idx").size, 0);
    assert_int_equal(json_raw_member(B("[]"), "a").size, 0);
    assert_text(json_raw_member(B("{\"\\u0069\\u0064\":7}"), "id"), "7");
}

/* If the scanner trusted its input, a caller's mistake would be read beyond the request. */
static void the_scanner_is_safe_on_any_bytes(void **state) {
    (void)state;
    const char *text = "{\"a\\u00e9\":[1,{\"b\":\"c\\\"\\u12\"}],\"\\ud83d\\ude0\":{}}";
    struct bytes out[4];
    for (size_t from = 0; from < strlen(text); from++) {
        for (size_t size = 0; size <= strlen(text) - from; size++) {
            uint8_t *exact = malloc(size == 0 ? 1 : size);
            memcpy(exact, text + from, size);
            struct bytes in = bytes_of(exact, size);
            (void)json_raw_member(in, "a\xc3\xa9");
            (void)json_raw_member(in, "\xf0\x9f\x98\x80");
            (void)json_raw_element(in, 1);
            assert_true(json_raw_elements(in, out, 4) <= size);
            free(exact);
        }
    }
    assert_int_equal(json_raw_elements(B("[}]"), out, 4), 0);
    assert_int_equal(json_raw_elements(B("[,,]"), out, 4), 0);
    assert_int_equal(json_raw_elements(B("[\"a"), out, 4), 0);
}

/* If escapes were wrong, an event's text could break out of its string in an answer. */
static void the_writer_makes_json_of_anything(void **state) {
    (void)state;
    struct builder b;
    struct json_writer w;
    builder_init(&b, 4096);
    json_writer_init(&w, &b);
    json_open(&w, '{');
    json_key(&w, "te\"xt");
    json_text(&w, B("\"\\/\b\f\n\r\t\x01\x1f\x7f gr\xc3\xbc\xc3\x9f \0 \xff\xc3("));
    json_key(&w, "list");
    json_open(&w, '[');
    json_uint(&w, UINT64_MAX);
    json_int(&w, INT64_MIN);
    json_milli(&w, 1234);
    json_milli(&w, -5);
    json_milli(&w, 0);
    json_milli(&w, INT64_MIN);
    json_bool(&w, true);
    json_bool(&w, false);
    json_none(&w);
    json_raw(&w, B("1.10"));
    json_open(&w, '[');
    json_close(&w);
    json_open(&w, '{');
    json_close(&w);
    json_str(&w, "");
    json_close(&w);
    json_key(&w, "b");
    json_open(&w, '[');
    json_base64(&w, B(""));
    json_base64(&w, B("f"));
    json_base64(&w, B("fo"));
    json_base64(&w, B("foo"));
    json_base64(&w, B("foob"));
    json_base64(&w, B("\xfb\xff\xfe"));
    json_close(&w);
    json_close(&w);
    assert_int_equal(b.err, E_OK);
    assert_text(builder_bytes(&b),
                "{\"te\\\"xt\":\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\x7f gr\xc3\xbc\xc3\x9f \\u0000 \xef\xbf\xbd\xef\xbf\xbd(\","
                "\"list\":[18446744073709551615,-9223372036854775808,1.234,-0.005,0.000,"
                "-9223372036854775.808,true,false,null,1.10,[],{},\"\"],"
                "\"b\":[\"\",\"Zg==\",\"Zm8=\",\"Zm9v\",\"Zm9vYg==\",\"+//+\"]}");
    builder_free(&b);
}

/* If a member were not its name and one value, or an id lost its leading zeros, what one answer names could not be found in another. */
static void a_member_is_its_name_and_a_value(void **state) {
    (void)state;
    struct builder b;
    struct json_writer w;
    builder_init(&b, 4096);
    json_writer_init(&w, &b);
    json_open(&w, '{');
    json_member_text(&w, "te\"xt", B("a\0\xff"));
    json_member_str(&w, "str", "\"");
    json_member_uint(&w, "uint", UINT64_MAX);
    json_member_int(&w, "int", INT64_MIN);
    json_member_bool(&w, "yes", true);
    json_member_bool(&w, "no", false);
    json_member_milli(&w, "milli", 1500);
    json_member_open(&w, "open", '[');
    json_close(&w);
    json_member_hex(&w, "hex", B("\x00\x0f\xf0\xff"));
    json_member_hex(&w, "none", bytes_of(NULL, 0));
    json_member_id(&w, "id", 0xabc);
    json_member_id(&w, "last", UINT64_MAX);
    json_close(&w);
    assert_text(
        builder_bytes(&b),
        "{\"te\\\"xt\":\"a\\u0000\xef\xbf\xbd\",\"str\":\"\\\"\",\"uint\":18446744073709551615,"
        "\"int\":-9223372036854775808,\"yes\":true,\"no\":false,\"milli\":1.500,\"open\":[],\"hex\":\"000ff0ff\",\"none\":\"\","
        "\"id\":\"0000000000000abc\",\"last\":\"ffffffffffffffff\"}");
    builder_free(&b);
}

/* If what we write were not what others read, no client could use an answer. */
static void what_is_written_is_read_again(void **state) {
    (void)state;
    char text[257];
    for (int i = 1; i < 256; i++) {
        text[i - 1] = (char)i;
    }
    struct builder b;
    struct json_writer w;
    builder_init(&b, 4096);
    json_writer_init(&w, &b);
    json_open(&w, '[');
    json_text(&w, bytes_of(text, 127));
    json_text(&w, bytes_of(text, 255));
    json_close(&w);
    json_t *value = json_read(builder_bytes(&b), NULL);
    assert_non_null(value);
    assert_int_equal(json_string_length(json_array_get(value, 0)), 127);
    assert_memory_equal(json_string_value(json_array_get(value, 0)), text, 127);
    json_decref(value);
    builder_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_json_is_refused_with_its_place),
        cmocka_unit_test(what_is_json_is_read),
        cmocka_unit_test(nesting_is_bounded),
        cmocka_unit_test(the_memory_of_a_tree_is_bounded_before_it_grows),
        cmocka_unit_test(raw_slices_are_what_was_received),
        cmocka_unit_test(the_scanner_is_safe_on_any_bytes),
        cmocka_unit_test(the_writer_makes_json_of_anything),
        cmocka_unit_test(a_member_is_its_name_and_a_value),
        cmocka_unit_test(what_is_written_is_read_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
