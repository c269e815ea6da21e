#include "federation/breaker.h"

void breaker_failed(struct breaker *b, uint64_t now_ms, uint32_t random) {
    b->failures += b->failures < BREAKER_FAILURES;
    if (b->state == BREAKER_OPEN || b->failures < BREAKER_FAILURES) {
        return;
    }
    uint64_t open_ms = BREAKER_OPEN_MS;
    for (uint32_t i = 0; i < b->openings && open_ms < BREAKER_OPEN_MS_MAX; i++) {
        open_ms *= 2;
    }
    open_ms = open_ms > BREAKER_OPEN_MS_MAX ? BREAKER_OPEN_MS_MAX : open_ms;
    b->openings += b->openings < UINT32_MAX;
    b->until_ms = now_ms + open_ms + (random * (open_ms / 2) >> 32); /* those who failed together do not come back together */
    b->state = BREAKER_OPEN;
}

void breaker_answered(struct breaker *b) {
    b->state = BREAKER_CLOSED;
    b->failures = b->failures >= BREAKER_FAILURES ? BREAKER_FAILURES - 1 : b->failures;
}

void breaker_dropped(struct breaker *b) {
    b->failures += b->failures < BREAKER_FAILURES - 1;
}

void breaker_steady(struct breaker *b) {
    *b = (struct breaker){.state = BREAKER_CLOSED};
}

bool breaker_allows(const struct breaker *b, uint64_t now_ms) {
    return b->state != BREAKER_OPEN || now_ms >= b->until_ms;
}

void breaker_try(struct breaker *b, uint64_t now_ms) {
    if (b->state == BREAKER_OPEN && now_ms >= b->until_ms) {
        b->state = BREAKER_HALF_OPEN;
    }
}

const char *breaker_state_name(enum breaker_state s) {
    static const char *const names[] = {"closed", "open", "half-open"};
    return names[s];
}
