#include "federation/credit.h"

#include <string.h>

#define WINDOW_MS 10000u
#define SWELL_16_MAX 1600u /* one frame of spaces says little about the next */

bool credit_allows(uint32_t credit_bytes, uint64_t on_way_bytes, bool first_critical) {
    return on_way_bytes < credit_bytes || on_way_bytes == 0 || first_critical;
}

void credit_seen(struct credit *c, const char *site, uint64_t now_ms, size_t frame_bytes, size_t plain_bytes) {
    size_t swell_16 = plain_bytes <= frame_bytes ? 16 : plain_bytes * 16 / (frame_bytes + 1);
    swell_16 = swell_16 > SWELL_16_MAX ? SWELL_16_MAX : swell_16;
    c->swell_16 = c->swell_16 == 0 ? (uint32_t)swell_16 : (c->swell_16 * 15 + (uint32_t)swell_16 + 8) / 16;
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (const char *at = site; *at != 0; at++) {
        hash = (hash ^ (uint8_t)*at) * 1099511628211u;
    }
    hash ^= hash >> 32;
    if (now_ms >= c->turned_ms + WINDOW_MS) {
        bool late = now_ms >= c->turned_ms + 2 * WINDOW_MS; /* what was the present is too old to be the past */
        memcpy(c->seen[1], c->seen[0], sizeof c->seen[1]);
        c->counts[1] = c->counts[0];
        if (late) {
            memset(c->seen[1], 0, sizeof c->seen[1]);
            c->counts[1] = 0;
        }
        memset(c->seen[0], 0, sizeof c->seen[0]);
        c->counts[0] = 0;
        c->turned_ms = now_ms;
    }
    uint32_t bit = (uint32_t)(hash % (CREDIT_SKETCH_BYTES * 8u));
    uint8_t mask = (uint8_t)(1u << bit % 8);
    if ((c->seen[0][bit / 8] & mask) == 0) {
        c->seen[0][bit / 8] |= mask;
        c->counts[0]++;
    }
}

uint32_t credit_sites(const struct credit *c) {
    uint32_t most = c->counts[0] > c->counts[1] ? c->counts[0] : c->counts[1];
    return most > 0 ? most : 1;
}

uint32_t credit_grant(const struct credit *c, size_t waiting_bytes, size_t room_bytes) {
    size_t free_bytes = waiting_bytes < room_bytes ? room_bytes - waiting_bytes : 0;
    size_t share = free_bytes / credit_sites(c) * 16 / (c->swell_16 < 16 ? 16 : c->swell_16);
    return share > CREDIT_BYTES_FULL ? CREDIT_BYTES_FULL : share < CREDIT_BYTES_LEAST ? CREDIT_BYTES_LEAST : (uint32_t)share;
}
