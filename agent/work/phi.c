#include "agent/work/phi.h"

#include <stddef.h>

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

static uint64_t deviation_us(const struct phi *p) {
    uint64_t us = (uint64_t)p->deviation_us * 5 / 4;
    return us < PHI_DEVIATION_MS_MIN * 1000u ? PHI_DEVIATION_MS_MIN * 1000u : us;
}

static uint64_t silent_us(const struct phi *p, uint64_t now_ms) {
    return now_ms > p->heard_ms ? (now_ms - p->heard_ms) * 1000u : 0;
}

/* -log10 of the upper tail of the normal distribution, in thousandths, at some numbers of standard deviations. */
static const struct tail {
    int32_t k, milli; /* k: thousandths of a deviation */
} tails[] = {{-2000, 10},
             {-1000, 75},
             {-500, 160},
             {0, 301},
             {500, 511},
             {1000, 799},
             {1282, 1000},
             {2000, 1643},
             {2500, 2207},
             {3000, 2870},
             {3500, 3633},
             {4000, 4499},
             {4500, 5469},
             {5000, 6543},
             {5612, 8000},
             {6000, 9006},
             {7000, 11893},
             {8000, 15206},
             {8225, (int32_t)PHI_MILLI_MAX}};

uint32_t phi_milli(const struct phi *p, uint64_t now_ms) {
    if (p->samples < PHI_SAMPLES_MIN) {
        return 0;
    }
    const size_t last = sizeof tails / sizeof tails[0] - 1;
    int64_t us = (int64_t)silent_us(p, now_ms) - (int64_t)p->mean_us, deviation = (int64_t)deviation_us(p);
    if (us >= tails[last].k * deviation / 1000) {
        return PHI_MILLI_MAX;
    }
    int64_t k = us * 1000 / deviation;
    for (size_t i = 1; i <= last; i++) {
        if (k < tails[i].k) {
            int64_t into = k - tails[i - 1].k, step = tails[i].k - tails[i - 1].k;
            return into < 0 ? 0 : (uint32_t)(tails[i - 1].milli + (tails[i].milli - tails[i - 1].milli) * into / step);
        }
    }
    return PHI_MILLI_MAX;
}

enum phi_level phi_level(const struct phi *p, uint64_t now_ms) {
    uint32_t milli = phi_milli(p, now_ms);
    return milli >= PHI_DEAD_MILLI ? PHI_GONE : milli >= PHI_SUSPECT_MILLI ? PHI_SUSPECT : PHI_WELL;
}
