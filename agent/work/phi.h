/* phi.h: how sure one may be that somebody is gone, from the times between his words so far (phi accrual, Hayashibara et al. 2004).  Phi 1:
 * one in ten such silences is harmless; phi 8: one in a hundred million.
 *
 * Pure; integers only.  Mean and mean deviation are smoothed (one part in 16); the silence is compared with mean + k standard deviations,
 * where k is what a normal distribution has for that phi, and a deviation is 5/4 of the mean one.  Never less than PHI_DEVIATION_MS_MIN: a
 * machine that pauses for a second is not gone, however regular it was. */
#ifndef AGENT_PHI_H
#define AGENT_PHI_H

#include <stdint.h>

#define PHI_DEVIATION_MS_MIN 400u
#define PHI_SAMPLES_MIN 8u /* with fewer nothing is said */
#define PHI_SUSPECT_MILLI 1000u
#define PHI_DEAD_MILLI 8000u
#define PHI_MILLI_MAX 16000u

enum phi_level { PHI_WELL, PHI_SUSPECT, PHI_GONE };

struct phi { /* zero: nothing was heard */
    uint64_t heard_ms;
    uint32_t samples, mean_us, deviation_us;
};

void phi_heard(struct phi *p, uint64_t now_ms);
enum phi_level phi_level(const struct phi *p, uint64_t now_ms);
uint32_t phi_milli(const struct phi *p, uint64_t now_ms); /* thousandths of phi, at most PHI_MILLI_MAX; 0 with too few samples */

#endif
