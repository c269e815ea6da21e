#include "core/rollout.h"

enum rollout_step rollout_next(const struct rollout *r, const struct rollout_tally *t, int64_t now_ms) {
    if (r->state != ROLLOUT_RUNNING) {
        return ROLLOUT_WAIT;
    }
    if (t->failed > 0) {
        return ROLLOUT_REVERT;
    }
    /* Sites soak for themselves; the stage does too, for labels may be given to sites while it goes on. */
    bool soaked = now_ms >= r->since_ms + (int64_t)r->soak_s * 1000;
    if (t->settled < t->reached || !soaked) {
        return ROLLOUT_WAIT;
    }
    return r->stage + 1 < r->stage_count ? ROLLOUT_ON : ROLLOUT_ALL;
}

const char *rollout_state_name(enum rollout_state s) {
    return s == ROLLOUT_RUNNING ? "running" : s == ROLLOUT_BACK ? "rolled-back" : "done";
}
