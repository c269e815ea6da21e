#include "federation/handover.h"

#include <string.h>

void handover_init(struct handover *h, uint32_t after_ms) {
    memset(h, 0, sizeof *h);
    h->after_ms = after_ms;
}

static uint64_t later(uint64_t now_ms, uint32_t wait_ms, uint32_t random) {
    return now_ms + wait_ms + random % (wait_ms / 2 + 1);
}

void handover_lead(struct handover *h, uint64_t now_ms) {
    h->leads = true;
    h->broken = false;
    h->until_ms = 0;
    h->starts_ms[h->starts++ % HANDOVER_STARTS_MAX] = now_ms;
}

void handover_follow(struct handover *h) {
    h->leads = h->broken = false;
    h->until_ms = 0;
}

void handover_link(struct handover *h, bool reaches, uint64_t now_ms, uint32_t random) {
    if (h->leads && !reaches && !h->broken) {
        h->broken_ms = now_ms;
        h->wait_ms = h->after_ms;
        h->ask_ms = later(now_ms, h->after_ms, random);
    }
    h->broken = h->leads && !reaches;
    h->until_ms = h->broken ? h->until_ms : 0;
}

/* The first of the last starts is so long ago; before that it keeps what it has. */
static uint64_t calm_ms(const struct handover *h) {
    return h->starts < HANDOVER_STARTS_MAX ? 0 : h->starts_ms[h->starts % HANDOVER_STARTS_MAX] + HANDOVER_HOUR_MS;
}

uint64_t handover_wake_ms(const struct handover *h) {
    uint64_t calm = calm_ms(h);
    return !h->broken || h->after_ms == 0 ? UINT64_MAX : h->ask_ms > calm ? h->ask_ms : calm;
}

bool handover_step(struct handover *h, uint64_t now_ms, uint32_t random) {
    if (now_ms < handover_wake_ms(h)) {
        return false;
    }
    h->number++;
    h->until_ms = now_ms + HANDOVER_ANSWER_MS;
    h->wait_ms = h->wait_ms < HANDOVER_WAIT_MS_MAX / 2 ? h->wait_ms * 2 : HANDOVER_WAIT_MS_MAX;
    h->ask_ms = later(now_ms, h->wait_ms > HANDOVER_ANSWER_MS ? h->wait_ms : HANDOVER_ANSWER_MS, random);
    return true;
}

bool handover_answered(struct handover *h, uint64_t number, bool reaches, uint64_t now_ms) {
    bool counts = h->broken && reaches && number == h->number && now_ms < h->until_ms;
    h->until_ms = counts ? 0 : h->until_ms; /* one gets it */
    return counts;
}

enum handover_look handover_asked(struct handover *h, uint64_t now_ms) {
    if (h->looking) {
        return HANDOVER_LOOKING;
    }
    if (h->looked_ms != 0 && now_ms < h->looked_ms + h->after_ms / 2) {
        return h->saw ? HANDOVER_SAW : HANDOVER_SAW_NOT;
    }
    h->looking = true;
    return HANDOVER_LOOK;
}

void handover_looked(struct handover *h, bool reaches, uint64_t now_ms) {
    h->looking = false;
    h->saw = reaches;
    h->looked_ms = now_ms;
}
