#include "agent/ctl/render.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CELL_BYTES 160
#define COLUMNS_MAX 16

void render_bytes(double bytes, char out[16]) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    size_t unit = 0;
    while (bytes >= 1000 && unit < 4) {
        bytes /= 1000;
        unit++;
    }
    (void)snprintf(out, 16, bytes < 10 && unit > 0 ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
}

void render_duration(double seconds, char out[24]) {
    long s = seconds < 0 ? 0 : (long)seconds;
    if (s < 120) {
        (void)snprintf(out, 24, "%ld s", s);
    } else if (s < 7200) {
        (void)snprintf(out, 24, "%ld min", s / 60);
    } else if (s < 172800) {
        (void)snprintf(out, 24, "%ld h %ld min", s / 3600, s / 60 % 60);
    } else {
        (void)snprintf(out, 24, "%ld d %ld h", s / 86400, s / 3600 % 24);
    }
}

void render_value(const json_t *object, const char *path, char *out, size_t out_size) {
    char name[64];
    while (object != NULL && *path != 0) {
        size_t size = strcspn(path, ".");
        (void)snprintf(name, sizeof name, "%.*s", (int)size, path);
        object = json_object_get(object, name);
        path += size + (path[size] == '.');
    }
    switch (object == NULL ? JSON_NULL : json_typeof(object)) {
    case JSON_STRING:
        (void)snprintf(out, out_size, "%s", json_string_value(object));
        break;
    case JSON_INTEGER:
        (void)snprintf(out, out_size, "%" JSON_INTEGER_FORMAT, json_integer_value(object));
        break;
    case JSON_REAL:
        (void)snprintf(out, out_size, "%.1f", json_real_value(object));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        (void)snprintf(out, out_size, "%s", json_is_true(object) ? "yes" : "no");
        break;
    case JSON_NULL:
        (void)snprintf(out, out_size, "-");
        break;
    default: {
        char *text = json_dumps(object, JSON_COMPACT | JSON_ENCODE_ANY);
        (void)snprintf(out, out_size, "%s", text == NULL ? "?" : text);
        free(text);
    }
    }
    for (char *c = out; *c != 0; c++) { /* nothing a device sent may steer the terminal */
        if ((unsigned char)*c < 0x20 || *c == 0x7f) {
            *c = ' ';
        }
    }
}

void render_table(const json_t *rows, const struct render_column *columns, size_t count, bool wide) {
    int widths[COLUMNS_MAX] = {0};
    char cell[CELL_BYTES];
    count = count > COLUMNS_MAX ? COLUMNS_MAX : count;
    for (size_t c = 0; c < count; c++) {
        widths[c] = (int)strlen(columns[c].title);
        for (size_t r = 0; r < json_array_size(rows); r++) {
            render_value(json_array_get(rows, r), columns[c].path, cell, sizeof cell);
            widths[c] = (int)strlen(cell) > widths[c] ? (int)strlen(cell) : widths[c];
        }
    }
    for (size_t r = 0; r <= json_array_size(rows); r++) {
        for (size_t c = 0, last = count; c < count; c++) {
            if (columns[c].wide_only && !wide) {
                continue;
            }
            while (last > c + 1 && columns[last - 1].wide_only && !wide) {
                last--;
            }
            if (r == 0) {
                (void)snprintf(cell, sizeof cell, "%s", columns[c].title);
            } else {
                render_value(json_array_get(rows, r - 1), columns[c].path, cell, sizeof cell);
            }
            if (c + 1 == last) {
                (void)printf("%s", cell); /* no blanks at the end of a line */
            } else {
                (void)printf("%-*s  ", widths[c], cell);
            }
        }
        (void)putchar('\n');
    }
}

void render_verdict(enum render_tone tone, const char *text) {
    static const char *const codes[] = {"\033[32m", "\033[33m", "\033[31m", ""};
    bool colour = isatty(STDOUT_FILENO) == 1 && getenv("NO_COLOR") == NULL && tone != TONE_PLAIN;
    (void)printf("%s%s%s\n", colour ? codes[tone] : "", text, colour ? "\033[0m" : "");
}
