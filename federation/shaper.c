#include "federation/shaper.h"

#define US_PER_S 1000000u

void shaper_init(struct shaper *s, uint64_t rate_bytes_per_s, uint64_t burst_bytes, uint64_t now_us) {
    *s = (struct shaper){
        .rate_bytes_per_s = rate_bytes_per_s, .burst_bytes = burst_bytes, .tokens_us = burst_bytes * US_PER_S, .at_us = now_us};
}

static void refill(struct shaper *s, uint64_t now_us) {
    uint64_t passed_us = now_us > s->at_us ? now_us - s->at_us : 0;
    uint64_t full = s->burst_bytes * US_PER_S;
    s->at_us = now_us;
    /* rate * passed is bounded first: after a long silence the bucket is simply full */
    if (passed_us > full / s->rate_bytes_per_s) {
        s->tokens_us = full;
        return;
    }
    s->tokens_us += s->rate_bytes_per_s * passed_us;
    s->tokens_us = s->tokens_us > full ? full : s->tokens_us;
}

size_t shaper_grant(struct shaper *s, uint64_t now_us, size_t wanted) {
    if (s->rate_bytes_per_s == 0) {
        return wanted;
    }
    refill(s, now_us);
    uint64_t whole = s->tokens_us / US_PER_S;
    uint64_t granted = whole < wanted ? whole : wanted;
    s->tokens_us -= granted * US_PER_S;
    return (size_t)granted;
}

uint64_t shaper_wait_us(const struct shaper *s, size_t bytes) {
    uint64_t need = (uint64_t)bytes * US_PER_S;
    if (s->rate_bytes_per_s == 0 || need <= s->tokens_us) {
        return 0;
    }
    return (need - s->tokens_us) / s->rate_bytes_per_s + 1;
}
