#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "platform/json.h"
#include "platform/log.h"

static char captured[32768];

/* What `body` writes to stderr stands in captured. */
#define CAPTURE(body)                                                                                                              \
    do {                                                                                                                           \
        int pipe_ends[2], kept = dup(STDERR_FILENO);                                                                               \
        assert_int_equal(pipe(pipe_ends), 0);                                                                                      \
        assert_true(dup2(pipe_ends[1], STDERR_FILENO) >= 0);                                                                       \
        body;                                                                                                                      \
        assert_true(dup2(kept, STDERR_FILENO) >= 0);                                                                               \
        (void)close(kept), (void)close(pipe_ends[1]);                                                                              \
        ssize_t size_read = read(pipe_ends[0], captured, sizeof captured - 1);                                                     \
        captured[size_read < 0 ? 0 : size_read] = '\0';                                                                            \
        (void)close(pipe_ends[0]);                                                                                                 \
    } while (0)

static json_t *captured_json(void) {
    struct fault f = {0};
    json_t *line = json_read(bytes_str(captured), &f);
    assert_string_equal(f.text, "");
    assert_non_null(line);
    return line;
}

static const char *member(json_t *line, const char *name) {
    const char *value = json_string_value(json_object_get(line, name));
    return value == NULL ? "" : value;
}

/* If the form of a line changed, the searches of an engineer would find nothing. */
static void a_line_says_when_how_bad_who_and_what(void **state) {
    (void)state;
    log_configure(LOG_INFO, LOG_PRETTY);
    CAPTURE(log_info("outbox", "evict", "channel=%s bytes=%d", "data", 91344));
    assert_int_equal(strlen("2026-02-03T10:15:30.123Z"), 24);
    assert_string_equal(captured + 24, " info  outbox evict channel=data bytes=91344\n");
    assert_int_equal(captured[4], '-');
    assert_int_equal(captured[23], 'Z');
    CAPTURE(log_error("db", "full", "%s", ""));
    assert_string_equal(captured + 24, " error db full\n");
    CAPTURE(log_debug("db", "step", "n=%d", 1));
    assert_string_equal(captured, "");
}

/* If text from outside could begin a new line, an attacker could write our log. */
static void outside_text_cannot_forge_lines(void **state) {
    (void)state;
    log_configure(LOG_INFO, LOG_PRETTY);
    CAPTURE(log_warn("api", "refuse", "id=%s", "a\nb\r\x1b[2J\x7f\xff\xc2\x9b gr\xc3\xbc\xc3\x9f"));
    assert_string_equal(captured + 24, " warn  api refuse id=a\\x0ab\\x0d\\x1b[2J\\x7f\\xff\\x9b gr\xc3\xbc\xc3\x9f\n");
    log_configure(LOG_INFO, LOG_JSON);
    CAPTURE(log_warn("api", "refuse", "id=%s", "\"},\n\\"));
    json_t *line = captured_json();
    assert_string_equal(member(json_object_get(line, "fields"), "id"), "\"},\\x0a\\");
    json_decref(line);
}

/* If lines were not JSON, the collector of a fleet would drop them. */
static void json_lines_carry_words_and_fields(void **state) {
    (void)state;
    log_configure(LOG_TRACE, LOG_JSON);
    CAPTURE(log_trace("peers", "lost", "no answer peer=%s error=%s after_ms=%d", "node-2", "no route to host: a=", 300));
    json_t *line = captured_json();
    json_t *fields = json_object_get(line, "fields");
    assert_string_equal(member(line, "level"), "trace");
    assert_string_equal(member(line, "module"), "peers");
    assert_string_equal(member(line, "event"), "lost");
    assert_string_equal(member(line, "msg"), "no answer");
    assert_int_equal(strlen(member(line, "time")), 24);
    assert_string_equal(member(fields, "peer"), "node-2");
    assert_string_equal(member(fields, "error"), "no route to host:");
    assert_string_equal(member(fields, "a"), "");
    assert_string_equal(member(fields, "after_ms"), "300");
    json_decref(line);
    CAPTURE(log_info("node", "start", "%s", "just words = text"));
    line = captured_json();
    assert_string_equal(member(line, "msg"), "just words = text");
    assert_null(json_object_get(line, "fields"));
    json_decref(line);
}

/* If the longest line broke, the worst moment would be the one that is not logged. */
static void the_longest_text_is_cut_and_stays_a_line(void **state) {
    (void)state;
    static const char *const fillers[] = {"x", "\n", "a= ", "\xff", "\"", "gr\xc3\xbc"};
    char text[5000];
    for (size_t k = 0; k < sizeof fillers / sizeof fillers[0]; k++) {
        for (size_t i = 0; i < sizeof text - 1; i++) {
            text[i] = fillers[k][i % strlen(fillers[k])];
        }
        text[sizeof text - 1] = '\0';
        log_configure(LOG_INFO, LOG_PRETTY);
        CAPTURE(log_info("m", "e", "%s", text));
        assert_int_equal(captured[strlen(captured) - 1], '\n');
        assert_in_range(strlen(captured), 2047, 9000);
        log_configure(LOG_INFO, LOG_JSON);
        CAPTURE(log_info("m", "e", "k=%s", text));
        assert_in_range(strlen(captured), 2047, 11000);
        if (strcmp(fillers[k], "a= ") != 0) { /* that one gives the same name many times, which json_read refuses */
            json_decref(captured_json());
        }
    }
}

/* If a log call changed errno, the error that is reported after it would be a wrong one. */
static void errno_survives(void **state) {
    (void)state;
    int kept = dup(STDERR_FILENO);
    (void)close(STDERR_FILENO);
    errno = ENOSPC;
    log_error("db", "write", "%s", "lost");
    int after = errno;
    assert_true(dup2(kept, STDERR_FILENO) >= 0);
    (void)close(kept);
    assert_int_equal(after, ENOSPC);
}

/* If repeats were not held back, a flood of bad frames would fill the disk with lines about them. */
static void repeats_are_held_back_and_counted(void **state) {
    (void)state;
    log_configure(LOG_INFO, LOG_PRETTY);
    CAPTURE(for (int i = 0; i < 1000; i++) { log_limited(LOG_WARN, "peers", "bad-frame", "n=%d", i); });
    assert_string_equal(captured + 24, " warn  peers bad-frame n=0\n");
    struct log_limit limit = {.next_ms = 0, .left_out = 7};
    uint32_t left_out = 0;
    assert_true(log_limit_pass(&limit, &left_out));
    assert_int_equal(left_out, 7);
    assert_false(log_limit_pass(&limit, &left_out));
    assert_int_equal(limit.left_out, 1);
}

/* If a level were misread, debugging on site would need a new build. */
static void levels_are_read_by_name(void **state) {
    (void)state;
    enum log_level level = LOG_INFO;
    assert_true(log_level_parse("trace", &level));
    assert_int_equal(level, LOG_TRACE);
    assert_true(log_level_parse("error", &level));
    assert_int_equal(level, LOG_ERROR);
    assert_false(log_level_parse("warning", &level));
    assert_false(log_level_parse("", &level));
    assert_int_equal(level, LOG_ERROR);
}

int main(void) {
    (void)unsetenv("JOURNAL_STREAM");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_says_when_how_bad_who_and_what),
        cmocka_unit_test(outside_text_cannot_forge_lines),
        cmocka_unit_test(json_lines_carry_words_and_fields),
        cmocka_unit_test(the_longest_text_is_cut_and_stays_a_line),
        cmocka_unit_test(errno_survives),
        cmocka_unit_test(repeats_are_held_back_and_counted),
        cmocka_unit_test(levels_are_read_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
