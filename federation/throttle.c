#include "federation/throttle.h"

#include <string.h>

#include "platform/digest.h"

#define WHOLE 1000u

void throttle_init(struct throttle *t, uint64_t seed, uint32_t per_minute, uint32_t burst) {
    memset(t, 0, sizeof *t);
    t->seed = seed;
    t->per_minute = per_minute;
    t->burst = burst > 0 ? burst : 1;
}

static uint64_t hash_of(const struct throttle *t, struct bytes caller) {
    uint8_t seed[8], hash[DIGEST_SHA256_BYTES];
    bytes_put_be64(seed, t->seed);
    digest_sha256_two(bytes_of(seed, sizeof seed), caller, hash);
    uint64_t h = bytes_get_be64(hash);
    return h != 0 ? h : 1;
}

/* What is left of the use after the time that has gone. */
static uint64_t used_now(const struct throttle *t, const struct throttle_place *p, uint64_t now_ms) {
    uint64_t gone_ms = now_ms > p->seen_ms ? now_ms - p->seen_ms : 0;
    uint64_t full_ms = (uint64_t)t->burst * 60000u / t->per_minute + 1;
    uint64_t back = gone_ms >= full_ms ? UINT64_MAX : gone_ms * t->per_minute * WHOLE / 60000u;
    return p->used_milli > back ? p->used_milli - back : 0;
}

static uint64_t wait_of(const struct throttle *t, uint64_t used_milli) {
    uint64_t after = used_milli + WHOLE, room = (uint64_t)t->burst * WHOLE;
    return after <= room ? 0 : ((after - room) * 60000u + (uint64_t)t->per_minute * WHOLE - 1) / ((uint64_t)t->per_minute * WHOLE);
}

static const struct throttle_place *find(const struct throttle *t, uint64_t caller) {
    const struct throttle_place *set = t->places[caller % THROTTLE_SETS];
    for (size_t i = 0; i < THROTTLE_WAYS; i++) {
        if (set[i].caller == caller) {
            return &set[i];
        }
    }
    return NULL;
}

uint64_t throttle_wait_ms(const struct throttle *t, struct bytes caller, uint64_t now_ms) {
    const struct throttle_place *p = t->per_minute == 0 ? NULL : find(t, hash_of(t, caller));
    return p == NULL ? 0 : wait_of(t, used_now(t, p, now_ms));
}

uint64_t throttle_take(struct throttle *t, struct bytes caller, uint64_t now_ms) {
    if (t->per_minute == 0) {
        return 0;
    }
    uint64_t hash = hash_of(t, caller), least = UINT64_MAX;
    struct throttle_place *set = t->places[hash % THROTTLE_SETS], *place = NULL;
    for (size_t i = 0; i < THROTTLE_WAYS && (place == NULL || place->caller != hash); i++) {
        uint64_t used = set[i].caller == 0 ? 0 : used_now(t, &set[i], now_ms);
        if (set[i].caller == hash || used < least) {
            place = &set[i];
            least = used;
        }
    }
    uint64_t used = place->caller == hash ? used_now(t, place, now_ms) : 0, wait_ms = wait_of(t, used);
    if (wait_ms == 0) {
        *place = (struct throttle_place){.caller = hash, .seen_ms = now_ms, .used_milli = used + WHOLE};
    }
    return wait_ms;
}
