#include "agent/work/phi.h"

#define SMOOTH 16
#define GAP_MS_MAX 60000u /* longer ones say that he was away, not how he speaks */

void phi_heard(struct phi *p, uint64_t now_ms) {
    uint64_t gap_ms = now_ms - p->heard_ms;
    uint64_t before_ms = p->heard_ms;
    p->heard_ms = now_ms;
    if (before_ms == 0 || gap_ms > GAP_MS_MAX) {
        return;
    }
    int64_t gap_us = (int64_t)gap_ms * 1000, off_us = gap_us - (int64_t)p->mean_us;
    off_us = off_us < 0 ? -off_us : off_us;
    if (p->samples == 0) {
        p->mean_us = (uint32_t)gap_us;
        p->deviation_us = 0;
    } else {
        p->mean_us = (uint32_t)((int64_t)p->mean_us + (gap_us - (int64_t)p->mean_us) / SMOOTH);
        p->deviation_us = (uint32_t)((int64_t)p->deviation_us + (off_us - (int64_t)p->deviation_us) / SMOOTH);
    }
    p->samples += p->samples < UINT32_MAX;
}

static uint64_t limit_us(const struct phi *p, uint32_t k) {
    uint64_t deviation_us = (uint64_t)p->deviation_us * 5 / 4;
    deviation_us = deviation_us < PHI_DEVIATION_MS_MIN * 1000u ? PHI_DEVIATION_MS_MIN * 1000u : deviation_us;
    return p->mean_us + deviation_us * k / 1000u;
}

enum phi_level phi_level(const struct phi *p, uint64_t now_ms) {
    uint64_t silent_us = now_ms > p->heard_ms ? (now_ms - p->heard_ms) * 1000u : 0;
    if (p->samples < PHI_SAMPLES_MIN) {
        return PHI_WELL;
    }
    return silent_us >= limit_us(p, PHI_GONE_K) ? PHI_GONE : silent_us >= limit_us(p, PHI_SUSPECT_K) ? PHI_SUSPECT : PHI_WELL;
}
