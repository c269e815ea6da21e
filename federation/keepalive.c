#include "federation/keepalive.h"

#define MENDED_MS 30000u     /* a new connection that stands so soon after the loss: the path itself was well */
#define FORGET_MS 604800000u /* a week */
#define ANSWERS_TO_GROW 50u
#define SILENCE_S_MIN (KEEPALIVE_S_MIN / 2u) /* a loss after less says nothing about idle connections */

void keepalive_init(struct keepalive *k, uint32_t max_s) {
    *k = (struct keepalive){.max_s = max_s, .interval_s = max_s};
}

static void set(struct keepalive *k, uint32_t interval_s) {
    uint32_t least_s = k->max_s < KEEPALIVE_S_MIN ? k->max_s : KEEPALIVE_S_MIN;
    interval_s = interval_s > k->max_s ? k->max_s : interval_s;
    k->interval_s = interval_s < least_s ? least_s : interval_s;
    k->answers = 0;
}

/* What the former connection has shown, if a new one stands now. */
static void learn(struct keepalive *k, uint64_t now_ms) {
    if (k->fatal_s > 0 && now_ms - k->fatal_ms >= FORGET_MS) {
        k->fatal_s = 0;
    }
    if (k->suspect_s > 0 && now_ms - k->suspect_ms <= MENDED_MS) {
        k->fatal_s = k->suspect_s;
        k->fatal_ms = now_ms;
        set(k, k->good_s > 0 && k->good_s < k->fatal_s ? k->good_s : k->fatal_s / 2);
        k->good_s = 0; /* if that fails too, it is not good any more */
    } else if (k->answers >= ANSWERS_TO_GROW && k->interval_s < k->max_s) {
        uint32_t bound_s = k->fatal_s > 0 ? k->fatal_s - k->fatal_s / 8 : k->max_s;
        uint32_t more_s = k->interval_s + k->interval_s / 4;
        k->good_s = k->interval_s;
        set(k, more_s <= bound_s ? more_s : bound_s > k->interval_s ? bound_s : k->interval_s);
    }
    k->suspect_s = 0;
}

uint32_t keepalive_ask_s(const struct keepalive *k, uint64_t now_ms) {
    struct keepalive next = *k;
    learn(&next, now_ms);
    return next.interval_s;
}

void keepalive_begin(struct keepalive *k, uint64_t now_ms) {
    learn(k, now_ms);
    k->up = true;
    k->asked = false;
    k->moved_ms = now_ms;
}

void keepalive_spoke(struct keepalive *k, uint64_t now_ms) {
    if (k->up && !k->asked) {
        k->asked = true;
        k->silence_ms = now_ms - k->moved_ms;
    }
    k->moved_ms = now_ms;
}

void keepalive_heard(struct keepalive *k, uint64_t now_ms) {
    uint64_t silence_ms = k->asked ? k->silence_ms : now_ms - k->moved_ms;
    if (k->up && silence_ms + silence_ms / 8 >= k->interval_s * 1000ull) {
        k->answers += k->answers < UINT32_MAX;
    }
    k->asked = false;
    k->moved_ms = now_ms;
}

void keepalive_keep(const struct keepalive *k, uint64_t now_ms, struct keepalive_learned *out) {
    uint64_t age_s = k->fatal_s == 0 ? 0 : (now_ms - k->fatal_ms) / 1000;
    *out = (struct keepalive_learned){.interval_s = k->interval_s,
                                      .good_s = k->good_s,
                                      .fatal_s = k->fatal_s,
                                      .fatal_age_s = age_s < UINT32_MAX ? (uint32_t)age_s : UINT32_MAX};
}

void keepalive_restore(struct keepalive *k, const struct keepalive_learned *l, uint64_t now_ms) {
    bool sound = l->interval_s > 0 && (l->fatal_s == 0 || (l->fatal_s >= SILENCE_S_MIN && l->good_s < l->fatal_s));
    if (!sound || l->fatal_age_s >= FORGET_MS / 1000) {
        return; /* it begins anew, as it does after a week */
    }
    set(k, l->interval_s);
    k->good_s = l->good_s < k->max_s ? l->good_s : 0;
    k->fatal_s = l->fatal_s;
    k->fatal_ms = now_ms - l->fatal_age_s * 1000ull; /* may be before this clock began: only the difference is looked at */
}

void keepalive_end(struct keepalive *k, uint64_t now_ms, bool broken) {
    if (broken && k->up && k->asked && k->silence_ms >= SILENCE_S_MIN * 1000ull) {
        uint64_t silence_s = k->silence_ms / 1000;
        k->suspect_s = silence_s > k->max_s ? k->max_s : (uint32_t)silence_s;
        k->suspect_ms = now_ms;
    }
    k->up = k->asked = false;
}
