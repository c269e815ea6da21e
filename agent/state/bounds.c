#include "agent/state/bounds.h"

#include <string.h>

#include "include/grey/must.h"
#include "platform/codec.h"

enum { BYTES_ONLY_FIELDS = 1, ALL_FIELDS = 4, SAVED_FIELDS = ALL_FIELDS + 2, FLOORS = PRIORITY_COUNT - 1 };

#define QUEUE_BYTES_MAX_DEFAULT (1024ull * 1024 * 1024)

/* --- Payload and row --------------------------------------------------------------------------------------------------------------- */

static void put_fields(struct builder *out, const struct queue_limits *l) {
    codec_put_uint(out, l->bytes_max);
    codec_put_array(out, FLOORS);
    for (unsigned p = 1; p < PRIORITY_COUNT; p++) {
        codec_put_uint(out, l->floor_percent[p]);
    }
    codec_put_uint(out, l->age_s);
    codec_put_array(out, l->ttl_count);
    for (uint32_t i = 0; i < l->ttl_count; i++) {
        codec_put_array(out, 2);
        codec_put_text(out, bytes_str(l->ttls[i].type));
        codec_put_uint(out, l->ttls[i].time_s);
    }
}

void payload_limits(struct builder *out, const struct queue_limits *l) {
    codec_put_array(out, ALL_FIELDS);
    put_fields(out, l);
}

static void want(struct codec_reader *r, uint64_t count) {
    if (codec_array(r, count) != count && r->err == E_OK) {
        r->err = E_BAD_MESSAGE;
    }
}

static uint32_t read_time(struct codec_reader *r) {
    uint32_t time_s = (uint32_t)codec_uint(r, BOUNDS_TIME_MAX_S);
    if (time_s < BOUNDS_TIME_MIN_S && r->err == E_OK) {
        r->err = E_BAD_MESSAGE;
    }
    return time_s;
}

static void read_rest(struct codec_reader *r, struct queue_limits *l) {
    uint32_t floors = 0;
    want(r, FLOORS);
    for (unsigned p = 1; p < PRIORITY_COUNT; p++) {
        l->floor_percent[p] = (uint32_t)codec_uint(r, BOUNDS_FLOORS_PERCENT_MAX);
        floors += l->floor_percent[p];
    }
    l->age_s = (uint32_t)codec_uint(r, BOUNDS_TIME_MAX_S);
    l->ttl_count = (uint32_t)codec_array(r, LIMIT_QUEUE_TTLS);
    for (uint32_t i = 0; i < l->ttl_count && r->err == E_OK; i++) {
        want(r, 2);
        struct bytes type = codec_text(r, LIMIT_TYPE_PATTERN_BYTES);
        l->ttls[i].time_s = read_time(r);
        if (r->err == E_OK && (type.size == 0 || memchr(type.data, 0, type.size) != NULL)) {
            r->err = E_BAD_MESSAGE;
        } else if (r->err == E_OK) {
            memcpy(l->ttls[i].type, type.data, type.size);
        }
    }
    if (r->err == E_OK && (floors > BOUNDS_FLOORS_PERCENT_MAX || (l->age_s != 0 && l->age_s < BOUNDS_TIME_MIN_S))) {
        r->err = E_BAD_MESSAGE;
    }
}

static void read_bytes_max(struct codec_reader *r, struct queue_limits *l) {
    l->bytes_max = codec_uint(r, UINT64_MAX / 4);
    if (l->bytes_max == 0 && r->err == E_OK) {
        r->err = E_BAD_MESSAGE;
    }
}

enum grey_error bounds_read(struct bytes payload, struct queue_limits *out) {
    struct codec_reader r;
    memset(out, 0, sizeof *out);
    codec_reader_init(&r, payload);
    uint64_t fields = codec_array(&r, ALL_FIELDS);
    read_bytes_max(&r, out);
    if (fields == ALL_FIELDS) {
        read_rest(&r, out);
    } else if (fields != BYTES_ONLY_FIELDS && r.err == E_OK) {
        r.err = E_BAD_MESSAGE;
    }
    return codec_end(&r);
}

void bounds_save(const struct bounds *b, struct builder *changes) {
    struct builder row;
    builder_init(&row, 4096);
    codec_put_array(&row, SAVED_FIELDS);
    put_fields(&row, &b->limits);
    codec_put_array(&row, b->limits.ttl_count);
    for (uint32_t i = 0; i < b->limits.ttl_count; i++) {
        codec_put_uint(&row, b->ttl_class[i]);
    }
    codec_put_array(&row, BOUNDS_CLASSES);
    for (uint32_t i = 0; i < BOUNDS_CLASSES; i++) {
        codec_put_uint(&row, b->class_s[i]);
    }
    if (row.err == E_OK) {
        table_change_put(changes, TABLE_META, bytes_str("limits"), builder_bytes(&row), 0);
    } else if (changes->err == E_OK) {
        changes->err = row.err;
    }
    builder_free(&row);
}

enum grey_error bounds_load(struct bounds *b, struct table *t, struct fault *f) {
    struct bytes value;
    struct codec_reader r;
    *b = (struct bounds){.limits = {.bytes_max = QUEUE_BYTES_MAX_DEFAULT}};
    if (table_get(t, TABLE_META, bytes_str("limits"), &value) != TABLE_FOUND) {
        return E_OK;
    }
    codec_reader_init(&r, value);
    want(&r, SAVED_FIELDS);
    read_bytes_max(&r, &b->limits);
    read_rest(&r, &b->limits);
    want(&r, b->limits.ttl_count);
    for (uint32_t i = 0; i < b->limits.ttl_count && r.err == E_OK; i++) {
        b->ttl_class[i] = (uint8_t)codec_uint(&r, BOUNDS_CLASSES - 1);
    }
    want(&r, BOUNDS_CLASSES);
    for (uint32_t i = 0; i < BOUNDS_CLASSES && r.err == E_OK; i++) {
        b->class_s[i] = (uint32_t)codec_uint(&r, BOUNDS_TIME_MAX_S);
    }
    bool ok = codec_end(&r) == E_OK && b->class_s[0] == b->limits.age_s;
    for (uint32_t i = 0; i < b->limits.ttl_count && ok; i++) {
        ok = b->ttl_class[i] > 0 && b->class_s[b->ttl_class[i]] == b->limits.ttls[i].time_s;
    }
    return ok ? E_OK : fault_set(f, E_CORRUPT, "row \"limits\" of the state is not one");
}

/* --- Classes ----------------------------------------------------------------------------------------------------------------------- */

static unsigned class_with(const struct bounds *b, uint32_t time_s) {
    for (unsigned i = 1; i < BOUNDS_CLASSES; i++) {
        if (b->class_s[i] == time_s) {
            return i;
        }
    }
    return 0;
}

enum grey_error bounds_adopt(struct bounds *b, const struct queue_limits *limits, uint32_t used) {
    struct bounds next = *b;
    next.limits = *limits;
    next.class_s[0] = limits->age_s;
    for (unsigned i = 1; i < BOUNDS_CLASSES; i++) { /* those without events that no pattern names any more become free */
        bool named = false;
        for (uint32_t k = 0; k < limits->ttl_count; k++) {
            named = named || limits->ttls[k].time_s == next.class_s[i];
        }
        next.class_s[i] = named || (used & 1u << i) != 0 ? next.class_s[i] : 0;
    }
    for (uint32_t k = 0; k < limits->ttl_count; k++) {
        unsigned class = class_with(&next, limits->ttls[k].time_s);
        if (class == 0) {
            class = class_with(&next, 0);
            next.class_s[class] = class == 0 ? next.class_s[0] : limits->ttls[k].time_s;
        }
        if (class == 0) {
            return E_BUSY;
        }
        next.ttl_class[k] = (uint8_t) class;
    }
    *b = next;
    return E_OK;
}

bool bounds_matches(struct bytes pattern, struct bytes type) {
    size_t p = 0, t = 0, star = SIZE_MAX, star_t = 0;
    while (t < type.size) {
        if (p < pattern.size && pattern.data[p] == '*') {
            star = p++;
            star_t = t;
        } else if (p < pattern.size && pattern.data[p] == type.data[t]) {
            p++;
            t++;
        } else if (star != SIZE_MAX) { /* the last star takes one byte more */
            p = star + 1;
            t = ++star_t;
        } else {
            return false;
        }
    }
    while (p < pattern.size && pattern.data[p] == '*') {
        p++;
    }
    return p == pattern.size;
}

unsigned bounds_class_of(const struct bounds *b, enum event_priority p, struct bytes type) {
    for (uint32_t i = 0; i < b->limits.ttl_count && p != PRIORITY_CRITICAL; i++) {
        if (bounds_matches(bytes_str(b->limits.ttls[i].type), type)) {
            return b->ttl_class[i];
        }
    }
    return 0;
}

uint64_t bounds_floor_bytes(const struct bounds *b, enum event_priority p) {
    return b->limits.bytes_max / 100 * b->limits.floor_percent[p] + b->limits.bytes_max % 100 * b->limits.floor_percent[p] / 100;
}
