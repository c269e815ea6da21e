/* A line is put together in a buffer on the stack and leaves with one write(2), so lines of two threads do not mix and nothing is
 * allocated.  The text may hold what came from outside: control characters and bytes that are not UTF-8 are shown as \xNN, so
 * nobody can forge a line or move the cursor of a terminal. */
#include "platform/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "platform/bytes.h"
#include "platform/now.h"

#define TEXT_BYTES_MAX 2048u /* what a caller's format may give; more is cut */
#define LINE_BYTES_MAX                                                                                                             \
    (5u * TEXT_BYTES_MAX + 512u) /* an escape takes five bytes; time, level, module, event and quotes fit in 512 */

static const char *const level_names[] = {"trace", "debug", "info", "warn", "error"};

static _Atomic int least_level = LOG_INFO;
static _Atomic int line_format = LOG_PRETTY;

void log_configure(enum log_level level, enum log_format format) {
    atomic_store_explicit(&least_level, (int)level, memory_order_relaxed);
    atomic_store_explicit(&line_format, (int)format, memory_order_relaxed);
}

bool log_enabled(enum log_level level) {
    return (int)level >= atomic_load_explicit(&least_level, memory_order_relaxed);
}

bool log_level_parse(const char *text, enum log_level *level) {
    for (int i = LOG_TRACE; i <= LOG_ERROR; i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *level = (enum log_level)i;
            return true;
        }
    }
    return false;
}

bool log_limit_pass(struct log_limit *limit, uint32_t *left_out) {
    uint64_t now_ms = now_monotonic_ms();
    if (now_ms < limit->next_ms) {
        limit->left_out += limit->left_out < UINT32_MAX;
        return false;
    }
    *left_out = limit->left_out;
    *limit = (struct log_limit){.next_ms = now_ms + 1000};
    return true;
}

/* --- The line under construction ------------------------------------------------------------------------------------------------ */

struct line {
    size_t size;
    char text[LINE_BYTES_MAX];
};

static void add(struct line *l, const char *text, size_t size) {
    if (size <= sizeof l->text - l->size) {
        memcpy(l->text + l->size, text, size);
        l->size += size;
    }
}

static void add_str(struct line *l, const char *text) {
    add(l, text, strlen(text));
}

static void add_escaped(struct line *l, struct bytes text, bool json) {
    while (text.size > 0) {
        size_t size = bytes_utf8_size(text);
        uint8_t c = text.data[0];
        bool c1_control = size == 2 && c == 0xc2 && text.data[1] < 0xa0;
        if (size == 0 || c < 0x20 || c == 0x7f || c1_control) {
            char escape[8];
            size = size == 0 ? 1 : size;
            (void)snprintf(escape, sizeof escape, json ? "\\\\x%02x" : "\\x%02x", text.data[size - 1]);
            add_str(l, escape);
        } else {
            if (json && (c == '"' || c == '\\')) {
                add(l, "\\", 1);
            }
            add(l, (const char *)text.data, size);
        }
        text.data += size, text.size -= size;
    }
}

static void add_member(struct line *l, const char *before, struct bytes name, struct bytes value) {
    add_str(l, before);
    add(l, "\"", 1);
    add_escaped(l, name, true);
    add(l, "\":\"", 3);
    add_escaped(l, value, true);
    add(l, "\"", 1);
}

/* --- key=value pairs of the text, for JSON -------------------------------------------------------------------------------------- */

/* The size of "key" when "key=" stands at the head of text, else 0. */
static size_t key_size(struct bytes text) {
    size_t i = 0;
    while (i < text.size && ((text.data[i] >= 'a' && text.data[i] <= 'z') || text.data[i] == '_' ||
                             (i > 0 && text.data[i] >= '0' && text.data[i] <= '9'))) {
        i++;
    }
    return i < text.size && text.data[i] == '=' ? i : 0;
}

/* The size of what stands before the next " key=", so that a value may hold spaces: "error=no such file path=/x". */
static size_t value_size(struct bytes text) {
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] == ' ' && key_size(bytes_of(text.data + i + 1, text.size - i - 1)) > 0) {
            return i;
        }
    }
    return text.size;
}

static struct bytes skip(struct bytes text, size_t size) {
    return size >= text.size ? bytes_of(NULL, 0) : bytes_of(text.data + size, text.size - size);
}

/* Words before the first pair are "msg", the pairs are "fields". */
static void add_fields(struct line *l, struct bytes text) {
    if (text.size > 0 && key_size(text) == 0) {
        size_t size = value_size(text);
        add_member(l, ",", bytes_str("msg"), bytes_of(text.data, size));
        text = skip(text, size + 1);
    }
    if (text.size == 0) {
        return;
    }
    add_str(l, ",\"fields\":{");
    for (const char *before = ""; text.size > 0; before = ",") {
        size_t name_bytes = key_size(text);
        struct bytes rest = skip(text, name_bytes + 1);
        size_t value_bytes = value_size(rest);
        add_member(l, before, bytes_of(text.data, name_bytes), bytes_of(rest.data, value_bytes));
        text = skip(rest, value_bytes + 1);
    }
    add_str(l, "}");
}

/* --- One line ------------------------------------------------------------------------------------------------------------------- */

/* sd-daemon(3): the journal takes the level of a line from a <N> at its head.  Asked once. */
static bool for_journal(void) {
    static _Atomic int answer = -1;
    int known = atomic_load_explicit(&answer, memory_order_relaxed);
    if (known < 0) {
        known = getenv("JOURNAL_STREAM") != NULL;
        atomic_store_explicit(&answer, known, memory_order_relaxed);
    }
    return known != 0;
}

static void add_json(struct line *l, const char *time, enum log_level level, const char *module, const char *event,
                     struct bytes text) {
    add_member(l, "{", bytes_str("time"), bytes_str(time));
    add_member(l, ",", bytes_str("level"), bytes_str(level_names[level]));
    add_member(l, ",", bytes_str("module"), bytes_str(module));
    add_member(l, ",", bytes_str("event"), bytes_str(event));
    add_fields(l, text);
    add_str(l, "}");
}

static void add_pretty(struct line *l, const char *time, enum log_level level, const char *module, const char *event,
                       struct bytes text) {
    char head[48];
    (void)snprintf(head, sizeof head, "%s %-5s ", time, level_names[level]);
    add_str(l, head);
    add_escaped(l, bytes_str(module), false);
    add_str(l, " ");
    add_escaped(l, bytes_str(event), false);
    if (text.size > 0) {
        add_str(l, " ");
        add_escaped(l, text, false);
    }
}

void log_write(enum log_level level, const char *module, const char *event, const char *format, ...) {
    int errno_before = errno;
    char text[TEXT_BYTES_MAX], time[32];
    va_list args;
    va_start(args, format);
    int size = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    size_t text_bytes = size < 0 ? 0 : (size_t)size < sizeof text ? (size_t)size : sizeof text - 1;
    now_format(now_wall_ms(), time);

    struct line line;
    line.size = 0;
    if (for_journal()) {
        static const char *const priorities[] = {"<7>", "<7>", "<6>", "<4>", "<3>"};
        add_str(&line, priorities[level]);
    }
    if (atomic_load_explicit(&line_format, memory_order_relaxed) == LOG_JSON) {
        add_json(&line, time, level, module, event, bytes_of(text, text_bytes));
    } else {
        add_pretty(&line, time, level, module, event, bytes_of(text, text_bytes));
    }
    add_str(&line, "\n");
    while (write(STDERR_FILENO, line.text, line.size) < 0 && errno == EINTR) {
        /* A log that cannot be written has nobody to tell. */
    }
    errno = errno_before;
}
