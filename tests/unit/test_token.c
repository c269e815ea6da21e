/* Texts cut into words and numbers: if a number came back with another zero or sign, the core would store what no device has sent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "federation/token.h"

static void expect_tokens(const char *text, const char *const *tokens) {
    struct bytes t = bytes_str(text);
    size_t at = 0;
    for (size_t i = 0; tokens[i] != NULL; i++) {
        bool number;
        size_t size = token_next(t, at, &number);
        assert_int_equal(number, tokens[i][0] == '#');
        assert_true(bytes_equal_str(bytes_of(t.data + at, size), tokens[i] + 1));
        at += size;
    }
    assert_int_equal(at, t.size);
}

static void texts_are_cut_where_they_vary(void **state) {
    (void)state;
    static const char *const json[] = {"={\"", "=temp\"", "=:", "#-12.50", "=,\"", "=state\"", "=:\"", "=running\"", "=}", NULL};
    expect_tokens("{\"temp\":-12.50,\"state\":\"running\"}", json);
    static const char *const name[] = {"=press-", "#4", "=-", "#00012", NULL};
    expect_tokens("press-4-00012", name);
    static const char *const units[] = {"=pump", "#17", "= ", "#5", "=kW ", "#3.5", "=V", NULL};
    expect_tokens("pump17 5kW 3.5V", units);
    static const char *const time[] = {"=at ", "#2026-02-28T23:59:59.250", "=Z", NULL};
    expect_tokens("at 2026-02-28T23:59:59.250Z", time);
    static const char *const no_time[] = {"#2026", "=-", "#02", "=-30T23:", "#59", "=:", "#59", NULL};
    expect_tokens("2026-02-30T23:59:59", no_time);
    static const char *const version[] = {"#4", "=.", "#2", "=.", "#10", NULL};
    expect_tokens("4.2.10", version);
    static const char *const hex[] = {"=3fa9c1e07d4b", NULL};
    expect_tokens("3fa9c1e07d4b", hex);
    static const char *const zero[] = {"=-", "#0", "= -", "#0.0", "= ", "#-0.1", NULL};
    expect_tokens("-0 -0.0 -0.1", zero);
    static const char *const sentence[] = {"=the ", "=pump ", "=stopped", NULL};
    expect_tokens("the pump stopped", sentence);
    static const char *const digits[] = {"=1234567890123456789012", "=3", NULL};
    expect_tokens("12345678901234567890123", digits);
    static const char *const lengthy[] = {"=abcdefghijklmnopqrstuv", "=wxyz", NULL};
    expect_tokens("abcdefghijklmnopqrstuvwxyz", lengthy);
}

static void expect_number(const char *text, struct token_form *form, int64_t value, unsigned style, unsigned decimals,
                          unsigned width) {
    char out[TOKEN_NUMBER_BYTES];
    assert_int_equal(token_value(bytes_str(text), form), value);
    assert_int_equal(form->style, style);
    assert_int_equal(form->decimals, decimals);
    assert_int_equal(form->width, width);
    size_t size = token_render(*form, value, out);
    assert_true(bytes_equal_str(bytes_of(out, size), text));
}

static void numbers_are_written_as_they_stood(void **state) {
    (void)state;
    struct token_form f = {0};
    expect_number("7", &f, 7, TOKEN_PLAIN, 0, 0);
    expect_number("007", &f, 7, TOKEN_PLAIN, 0, 3);
    expect_number("1000", &f, 1000, TOKEN_PLAIN, 0, 3); /* grown beyond its zeros */
    expect_number("21.503", &f, 21503, TOKEN_PLAIN, 3, 0);
    expect_number("-0.100", &f, -100, TOKEN_PLAIN, 3, 0);
    expect_number("21.5", &f, 21500, TOKEN_STRIP_ONE, 3, 0); /* what prints so leaves zeros out */
    expect_number("21.0", &f, 21000, TOKEN_STRIP_ONE, 3, 0);
    expect_number("21", &f, 21000, TOKEN_STRIP_ALL, 3, 0);
    expect_number("21.25", &f, 21250, TOKEN_STRIP_ALL, 3, 0);
    expect_number("21.2501", &f, 212501, TOKEN_STRIP_ALL, 4, 0);
    expect_number("21.250", &f, 21250, TOKEN_PLAIN, 3, 0);
    expect_number("1970-01-01T00:00:00", &f, 0, TOKEN_TIME, 0, 0);
    expect_number("2024-02-29T12:00:01.007", &f, 1709208001007, TOKEN_TIME, 3, 0);
    expect_number("2199-12-31T23:59:59.999999999", &f, 7258118399999999999, TOKEN_TIME, 9, 0);
    expect_number("999999999999999999", &f, 999999999999999999, TOKEN_PLAIN, 0, 0);
}

/* A reader renders whatever a stranger claims. */
static void what_cannot_be_written_is_refused(void **state) {
    (void)state;
    char out[TOKEN_NUMBER_BYTES];
    assert_int_equal(token_render((struct token_form){.style = TOKEN_TIME}, -1, out), 0);
    assert_int_equal(token_render((struct token_form){.style = TOKEN_TIME}, INT64_MAX, out), 0);
    assert_int_equal(token_render((struct token_form){.style = TOKEN_TIME}, 7289654400, out), 0); /* the year 2201 */
    assert_int_equal(token_render((struct token_form){.style = TOKEN_PLAIN, .decimals = 15, .width = 18}, INT64_MIN, out), 35);
    assert_int_equal(token_render((struct token_form){.style = TOKEN_STRIP_ALL, .decimals = 15}, INT64_MIN, out), 21);
    assert_false(token_form_valid((struct token_form){.style = TOKEN_STYLE_COUNT}));
    assert_false(token_form_valid((struct token_form){.style = TOKEN_TIME, .decimals = 10}));
    assert_false(token_form_valid((struct token_form){.style = TOKEN_STRIP_ONE, .width = 1}));
    assert_false(token_form_valid((struct token_form){.decimals = 16}));
    assert_false(token_form_valid((struct token_form){.width = 19}));
}

/* Any text, cut and put together again, whatever forms came before. */
static void any_text_survives(void **state) {
    (void)state;
    static const char letters[] = "0123456789000...---::TZ\"  abf,{}\xc3\xbc\n";
    char text[64], out[TOKEN_NUMBER_BYTES];
    struct token_form form = {0};
    srand(4);
    for (unsigned round = 0; round < 200000; round++) {
        struct bytes t = bytes_of(text, (size_t)rand() % sizeof text);
        for (size_t i = 0; i < t.size; i++) {
            text[i] = letters[(size_t)rand() % (sizeof letters - 1)];
        }
        for (size_t at = 0, size; at < t.size; at += size) {
            bool number;
            size = token_next(t, at, &number);
            assert_true(size > 0 && size <= t.size - at && (number || size <= TOKEN_WORD_BYTES));
            if (number) {
                int64_t value = token_value(bytes_of(t.data + at, size), &form);
                assert_int_equal(token_render(form, value, out), size);
                assert_memory_equal(out, text + at, size);
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_cut_where_they_vary),
        cmocka_unit_test(numbers_are_written_as_they_stood),
        cmocka_unit_test(what_cannot_be_written_is_refused),
        cmocka_unit_test(any_text_survives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
