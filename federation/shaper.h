/* shaper.h: how many bytes may leave now: a token bucket over everything the uplink writes, TLS included (DECISIONS 25).
 * Pure: time is given. */
#ifndef FEDERATION_SHAPER_H
#define FEDERATION_SHAPER_H

#include <stddef.h>
#include <stdint.h>

struct shaper {
    uint64_t rate_bytes_per_s; /* 0: no limit */
    uint64_t burst_bytes;
    uint64_t tokens_us; /* bytes * 1,000,000 that may leave, so that slow rates lose nothing to rounding */
    uint64_t at_us;
};

void shaper_init(struct shaper *s, uint64_t rate_bytes_per_s, uint64_t burst_bytes, uint64_t now_us);
/* Grants up to wanted bytes and debits them; 0: wait shaper_wait_us. */
size_t shaper_grant(struct shaper *s, uint64_t now_us, size_t wanted);
uint64_t shaper_wait_us(const struct shaper *s, size_t bytes); /* until so many bytes may leave */

#endif
