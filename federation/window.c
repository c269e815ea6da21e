#include "federation/window.h"

#include <string.h>

#include "federation/shaper.h"

#define BYTES_PER_S_PER_KBPS 125u
#define KBPS_MAX 100000000u

struct field {
    const char *name;
    unsigned least, most;
    const char *names; /* three letters each, from the value `least`; NULL: none */
};
static const struct field fields[] = {
    {"minute", 0, 59, NULL},
    {"hour", 0, 23, NULL},
    {"day of the month", 1, 31, NULL},
    {"month", 1, 12, "janfebmaraprmayjunjulaugsepoctnovdec"},
    {"day of the week", 0, 7, "sunmontuewedthufrisat"},
};
enum { MINUTE, HOUR, DAY, MONTH, WEEKDAY, FIELD_COUNT };

static enum grey_error refuse(struct fault *f, const char *what, struct bytes at) {
    return fault_set(f, E_CONFIG, "%s: '%.*s'", what, (int)(at.size > 40 ? 40 : at.size), (const char *)at.data);
}

static struct bytes rest_of(struct bytes b, size_t from) {
    return bytes_of(b.data + from, b.size - from);
}

/* Takes what stands before the first separator; *left goes on behind it. */
static struct bytes take_part(struct bytes *left, uint8_t separator) {
    size_t size = 0;
    while (size < left->size && left->data[size] != separator) {
        size++;
    }
    struct bytes part = bytes_of(left->data, size);
    *left = rest_of(*left, size < left->size ? size + 1 : size);
    return part;
}

static struct bytes take_word(struct bytes *left) {
    while (left->size > 0 && (left->data[0] == ' ' || left->data[0] == '\t')) {
        *left = rest_of(*left, 1);
    }
    size_t size = 0;
    while (size < left->size && left->data[size] != ' ' && left->data[size] != '\t') {
        size++;
    }
    struct bytes word = bytes_of(left->data, size);
    *left = rest_of(*left, size);
    return word;
}

static bool take_value(const struct field *d, struct bytes text, unsigned *out) {
    unsigned v = 0;
    if (text.size == 3 && d->names != NULL) {
        for (const char *n = d->names; *n != 0; n += 3) {
            if (memcmp(n, text.data, 3) == 0) {
                *out = d->least + (unsigned)(n - d->names) / 3;
                return true;
            }
        }
    }
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9' || i == 2) {
            return false;
        }
        v = v * 10 + (text.data[i] - (unsigned)'0');
    }
    *out = v;
    return text.size > 0 && v >= d->least && v <= d->most;
}

static bool holds(struct bytes text, uint8_t character) {
    return text.size > 0 && memchr(text.data, character, text.size) != NULL;
}

/* "*", "7", "mon-fri", "0-30/5" and lists of them, as a set of bits. */
static bool take_field(const struct field *d, struct bytes text, uint64_t *out) {
    static const struct field steps = {.least = 1, .most = 60};
    *out = 0;
    bool more = true;
    while (more) {
        more = holds(text, ',');
        struct bytes part = take_part(&text, ',');
        bool stepped = holds(part, '/');
        struct bytes range = take_part(&part, '/');
        unsigned from = d->least, to = d->most, step = 1;
        if (stepped && !take_value(&steps, part, &step)) {
            return false;
        }
        if (!bytes_equal_str(range, "*")) {
            bool ends = holds(range, '-');
            struct bytes first = take_part(&range, '-');
            if (!take_value(d, first, &from) || (ends && !take_value(d, range, &to))) {
                return false;
            }
            to = ends || stepped ? to : from; /* "10/5": from 10 on */
        }
        if (from > to) {
            return false;
        }
        for (unsigned v = from; v <= to; v += step) {
            *out |= (uint64_t)1 << v;
        }
    }
    return true;
}

bool window_parse_mbps(struct bytes text, uint64_t *bytes_per_s) {
    uint64_t kbps = 0;
    unsigned decimals = 0;
    bool point = false, digit = false;
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] == '.' && !point) {
            point = true;
            continue;
        }
        if (text.data[i] < '0' || text.data[i] > '9' || (point && ++decimals > 3) || kbps > KBPS_MAX) {
            return false;
        }
        kbps = kbps * 10 + (text.data[i] - (unsigned)'0');
        digit = true;
    }
    for (; decimals < 3; decimals++) {
        kbps *= 10;
    }
    *bytes_per_s = kbps * BYTES_PER_S_PER_KBPS;
    return digit && kbps <= KBPS_MAX && (kbps == 0 || *bytes_per_s >= SHAPER_LIMIT_BYTES_PER_S_MIN);
}

static enum grey_error take_forbidden(struct window *w, struct bytes list, struct fault *f) {
    if (list.size == 0) {
        return refuse(f, "forbid= wants data, events, or both", list);
    }
    while (list.size > 0) {
        struct bytes name = take_part(&list, ',');
        enum event_channel c = CHANNEL_CONTROL;
        while (c < CHANNEL_COUNT && !bytes_equal_str(name, event_channel_name(c))) {
            c = (enum event_channel)(c + 1);
        }
        if (c == CHANNEL_CONTROL) {
            return refuse(f, "control carries what is critical and cannot be forbidden", name);
        }
        if (c == CHANNEL_COUNT) {
            return refuse(f, "forbid= wants data, events, or both", name);
        }
        w->forbids[c] = true;
    }
    return E_OK;
}

static enum grey_error take_action(struct window *w, struct bytes word, struct fault *f) {
    struct bytes value = word, name = take_part(&value, '=');
    if (bytes_equal_str(name, "forbid")) {
        return take_forbidden(w, value, f);
    }
    bool up = bytes_equal_str(name, "limit_mbps");
    if (!up && !bytes_equal_str(name, "down_limit_mbps")) {
        return refuse(f, "expected limit_mbps=, down_limit_mbps= or forbid=", word);
    }
    if (!window_parse_mbps(value, up ? &w->up_bytes_per_s : &w->down_bytes_per_s)) {
        return refuse(f, "expected 0 (no limit), or 0.016 or more, with three decimals at most", word);
    }
    w->sets_up = w->sets_up || up;
    w->sets_down = w->sets_down || !up;
    return E_OK;
}

enum grey_error window_parse(struct window *w, struct bytes text, struct fault *f) {
    uint64_t sets[FIELD_COUNT];
    struct bytes whole = text;
    *w = (struct window){0};
    for (int i = 0; i < FIELD_COUNT; i++) {
        struct bytes word = take_word(&text);
        if (word.size == 0) {
            return refuse(f, "expected minute, hour, day, month and day of the week, then what holds", whole);
        }
        if (!take_field(&fields[i], word, &sets[i])) {
            return fault_set(f, E_CONFIG, "'%.*s' is no %s (%u to %u, *, lists, ranges, steps)",
                             (int)(word.size > 40 ? 40 : word.size), (const char *)word.data, fields[i].name, fields[i].least,
                             fields[i].most);
        }
        w->every_day = w->every_day || (i == DAY && word.data[0] == '*');
        w->every_weekday = w->every_weekday || (i == WEEKDAY && word.data[0] == '*');
    }
    w->minutes = sets[MINUTE];
    w->hours = (uint32_t)sets[HOUR];
    w->days = (uint32_t)sets[DAY];
    w->months = (uint16_t)sets[MONTH];
    w->weekdays = (uint8_t)((sets[WEEKDAY] | sets[WEEKDAY] >> 7) & 0x7f); /* 7 is Sunday as well */
    struct bytes word = take_word(&text);
    if (word.size == 0) {
        return refuse(f, "says when, but not what holds then: limit_mbps=, down_limit_mbps= or forbid=", whole);
    }
    for (; word.size > 0; word = take_word(&text)) {
        enum grey_error err = take_action(w, word, f);
        if (err != E_OK) {
            return err;
        }
    }
    return E_OK;
}

bool window_open(const struct window *w, const struct window_time *t) {
    bool day = (w->days >> t->day & 1) != 0, weekday = (w->weekdays >> t->weekday & 1) != 0;
    bool date = !w->every_day && !w->every_weekday ? day || weekday : day && weekday;
    return date && (w->minutes >> t->minute & 1) != 0 && (w->hours >> t->hour & 1) != 0 && (w->months >> t->month & 1) != 0;
}

void window_apply(const struct window *windows, uint32_t count, const struct window_time *t, struct window_rule *rule) {
    for (uint32_t i = 0; i < count; i++) {
        const struct window *w = &windows[i];
        if (!window_open(w, t)) {
            continue;
        }
        rule->up_bytes_per_s = w->sets_up ? w->up_bytes_per_s : rule->up_bytes_per_s;
        rule->down_bytes_per_s = w->sets_down ? w->down_bytes_per_s : rule->down_bytes_per_s;
        for (int c = 0; c < CHANNEL_COUNT; c++) {
            rule->forbids[c] = rule->forbids[c] || w->forbids[c];
        }
    }
}
