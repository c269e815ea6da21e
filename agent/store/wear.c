#include "agent/store/wear.h"

#include <string.h>

#include "include/grey/must.h"

#define HOUR_MS 3600000
#define HEAD "grey-wear 1"

const char *wear_level_name(enum wear_level level) {
    static const char *const names[] = {[WEAR_LOW] = "low", [WEAR_HIGH] = "high", [WEAR_OVER] = "over"};
    must((unsigned)level < sizeof names / sizeof names[0]);
    return names[level];
}

void wear_init(struct wear *w, uint64_t limit_bytes) {
    *w = (struct wear){.limit_bytes = limit_bytes};
}

static uint64_t saturated(uint64_t a, uint64_t b) {
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static void judge(struct wear *w) {
    w->day_bytes = 0;
    for (uint32_t i = 0; i < WEAR_HOURS; i++) {
        w->day_bytes = saturated(w->day_bytes, w->hours[i]);
    }
    uint64_t tenth = w->limit_bytes / 10;
    bool over = w->day_bytes >= w->limit_bytes || (w->level == WEAR_OVER && w->day_bytes >= 9 * tenth);
    bool high = w->day_bytes >= 8 * tenth || (w->level != WEAR_LOW && w->day_bytes >= 7 * tenth);
    w->level = w->limit_bytes == 0 ? WEAR_LOW : over ? WEAR_OVER : high ? WEAR_HIGH : WEAR_LOW;
}

enum wear_level wear_add(struct wear *w, int64_t time_ms, uint64_t bytes) {
    int64_t hour = time_ms / HOUR_MS;
    if (hour > w->hour) {
        int64_t passed = hour - w->hour;
        for (int64_t i = 1; i <= passed && i <= (int64_t)WEAR_HOURS; i++) {
            w->hours[(uint64_t)(w->hour + i) % WEAR_HOURS] = 0;
        }
        w->hour = hour;
    }
    uint64_t *newest = &w->hours[(uint64_t)w->hour % WEAR_HOURS];
    *newest = saturated(*newest, bytes);
    judge(w);
    return w->level;
}

void wear_put(const struct wear *w, struct builder *b) {
    builder_add_str(b, HEAD);
    builder_addf(b, " %lld", (long long)w->hour);
    for (uint32_t i = 0; i < WEAR_HOURS; i++) {
        builder_addf(b, " %llu", (unsigned long long)w->hours[i]);
    }
    builder_add_str(b, "\n");
}

/* A number of decimal digits behind one space. */
static bool take_number(struct bytes *text, uint64_t max, uint64_t *out) {
    size_t at = 1;
    uint64_t value = 0;
    if (text->size < 2 || text->data[0] != ' ') {
        return false;
    }
    for (; at < text->size && text->data[at] >= '0' && text->data[at] <= '9'; at++) {
        uint64_t digit = (uint64_t)(text->data[at] - '0');
        if (value > (max - digit) / 10) {
            return false;
        }
        value = value * 10 + digit;
    }
    *text = bytes_of(text->data + at, text->size - at);
    *out = value;
    return at > 1;
}

bool wear_get(struct wear *w, struct bytes text) {
    struct wear read = {.limit_bytes = w->limit_bytes};
    size_t head = strlen(HEAD);
    uint64_t hour = 0;
    if (text.size < head || memcmp(text.data, HEAD, head) != 0) {
        return false;
    }
    text = bytes_of(text.data + head, text.size - head);
    bool whole = take_number(&text, INT64_MAX / HOUR_MS, &hour);
    for (uint32_t i = 0; whole && i < WEAR_HOURS; i++) {
        whole = take_number(&text, UINT64_MAX, &read.hours[i]);
    }
    if (!whole || text.size != 1 || text.data[0] != '\n') {
        return false;
    }
    read.hour = (int64_t)hour;
    judge(&read);
    *w = read;
    return true;
}
