/* The digests of platform/digest.h for the simulator: as deterministic and as unlikely to collide by chance, and ten times as fast.  SHA-256
 * would take half of the simulator's time, and nobody here tries to forge anything. */
#include <string.h>

#include "platform/digest.h"

static uint64_t mix(uint64_t v) { /* splitmix64's finalizer */
    v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9u;
    v = (v ^ (v >> 27)) * 0x94d049bb133111ebu;
    return v ^ (v >> 31);
}

struct lanes {
    uint64_t at[4], count;
};

static void add(struct lanes *s, struct bytes in) {
    for (size_t i = 0; i < in.size; i += 8) {
        uint64_t word = 0;
        memcpy(&word, in.data + i, in.size - i < 8 ? in.size - i : 8);
        uint64_t *lane = &s->at[s->count++ & 3];
        *lane = (*lane ^ word) * 0x9e3779b97f4a7c15u;
        *lane ^= *lane >> 29;
    }
}

static void end(const struct lanes *s, uint64_t size, uint8_t out[DIGEST_SHA256_BYTES]) {
    uint64_t all = mix(s->at[0] + 3 * s->at[1]) ^ mix(s->at[2] + 5 * s->at[3]) ^ mix(size);
    for (unsigned i = 0; i < 4; i++) {
        bytes_put_be64(out + 8 * i, mix(all + s->at[i] + i));
    }
}

void digest_sha256(struct bytes in, uint8_t out[DIGEST_SHA256_BYTES]) {
    struct lanes s = {.at = {1, 2, 3, 4}};
    add(&s, in);
    end(&s, in.size, out);
}

/* The digest of the two as one would need them in one piece; no caller compares it with that. */
void digest_sha256_two(struct bytes a, struct bytes b, uint8_t out[DIGEST_SHA256_BYTES]) {
    struct lanes s = {.at = {1, 2, 3, 4}};
    add(&s, a);
    s.count = 0;
    add(&s, b);
    end(&s, a.size + ((uint64_t)b.size << 32), out);
}

uint32_t digest_crc32(uint32_t crc, struct bytes in) {
    for (size_t i = 0; i < in.size; i++) {
        crc = (crc ^ in.data[i]) * 0x01000193u;
        crc ^= crc >> 15;
    }
    return crc;
}
