#include "core/crowd.h"

#include <string.h>

void crowd_saw(struct crowd *c, const char *site, uint64_t now_ms) {
    uint64_t span = now_ms / CROWD_SPAN_MS;
    if (span != c->span) {
        c->before = span == c->span + 1 ? c->count : 0;
        c->count = 0;
        c->span = span;
        memset(c->cells, 0, sizeof c->cells);
    }
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (const char *p = site; *p != 0; p++) {
        hash = (hash ^ (uint8_t)*p) * 16777619u;
    }
    hash ^= hash >> 16;
    uint64_t *cell = &c->cells[hash % CROWD_CELLS / 64], bit = (uint64_t)1 << (hash % 64);
    c->count += (*cell & bit) == 0;
    *cell |= bit;
}

uint32_t crowd_window(const struct crowd *c) {
    uint32_t sites = c->count > c->before ? c->count : c->before;
    uint32_t window = sites == 0 ? CROWD_WINDOW_FULL : CROWD_FRAMES / sites;
    return window == 0 ? 1 : window > CROWD_WINDOW_FULL ? CROWD_WINDOW_FULL : window;
}
