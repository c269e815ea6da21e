#include "federation/reconnect.h"

#include <stddef.h>

#define FIRST_MS 4000u
#define MAX_MS 60000u
#define STEADY_MS 60000u
#define EAGER_STEPS 8u    /* the first wait of the eager, in their longest */
#define ALONE_MS 1800000u /* a core that does not answer, and no other endpoint to try */
#define HOLD_MS_MAX 3600000u
#define PROBES_PER_HOLD 3u
#define IDLE_LOOK_MS 1000u /* to return, it looks so often whether the link is idle */
#define BUSY_HOLDS 10u     /* a site that is never idle returns all the same after so many times the hold */

/* Enough for 9.6 kbit/s with a round trip of 3 s. */
static const uint32_t patience_ms[RECONNECT_STAGES] = {
    [RECONNECT_DIAL] = 12000, [RECONNECT_TLS] = 25000, [RECONNECT_MQTT] = 20000, [RECONNECT_HELLO] = 30000};

static const char *const silences[RECONNECT_STAGES] = {
    [RECONNECT_DIAL] = "it cannot be reached: no answer to TCP, or to the proxy's CONNECT",
    [RECONNECT_TLS] = "it accepts connections and does not finish the TLS handshake",
    [RECONNECT_MQTT] = "it takes MQTT CONNECT and does not answer",
    [RECONNECT_HELLO] = "connected to the broker, but the core does not answer"};

void reconnect_init(struct reconnect *r, const struct reconnect_options *o) {
    *r = (struct reconnect){.o = *o,
                            .current = RECONNECT_NONE,
                            .returning_to = RECONNECT_NONE,
                            .probed = RECONNECT_NONE,
                            .candidate = RECONNECT_NONE,
                            .hold_ms = o->failback_ms,
                            .backoff = {.first_ms = FIRST_MS, .max_ms = MAX_MS}};
    if (o->longest_wait_ms > 0) {
        r->backoff = (struct backoff){.first_ms = o->longest_wait_ms / EAGER_STEPS, .max_ms = o->longest_wait_ms};
    }
}

static void enter(struct reconnect *r, enum reconnect_stage stage, uint64_t now_ms) {
    r->stage = stage;
    r->since_ms = now_ms;
}

static void forget_probes(struct reconnect *r) {
    r->probed = r->candidate = RECONNECT_NONE;
}

void reconnect_start(struct reconnect *r, uint64_t now_ms) {
    backoff_reset(&r->backoff);
    r->returning_to = RECONNECT_NONE;
    forget_probes(r);
    r->try_ms = now_ms;
    enter(r, RECONNECT_WAIT, now_ms);
}

void reconnect_stop(struct reconnect *r) {
    forget_probes(r);
    r->stage = RECONNECT_OFF;
}

static void note_failure(struct reconnect *r, uint32_t endpoint, uint64_t now_ms, uint32_t random) {
    struct breaker *b = &r->breakers[endpoint];
    breaker_failed(b, now_ms, random);
    if (r->o.longest_wait_ms > 0 && b->until_ms > now_ms + r->o.longest_wait_ms) {
        b->until_ms = now_ms + r->o.longest_wait_ms;
    }
}

/* --- which one --------------------------------------------------------------------------------------------------------------------- */

static uint32_t choose(const struct reconnect *r, uint64_t now_ms, uint32_t random) {
    uint32_t best = RECONNECT_NONE, equals = 0;
    for (uint32_t i = 0; i < r->o.endpoint_count; i++) {
        if (!breaker_allows(&r->breakers[i], now_ms)) {
            continue;
        }
        if (best != RECONNECT_NONE) {
            uint32_t fewer = r->breakers[best].failures, failures = r->breakers[i].failures;
            if (failures > fewer || (failures == fewer && r->o.priorities[i] > r->o.priorities[best])) {
                continue;
            }
            equals = failures == fewer && r->o.priorities[i] == r->o.priorities[best] ? equals : 0;
        }
        equals++;
        best = equals == 1 || random % equals == 0 ? i : best; /* each of n equals is kept with 1 in n */
    }
    return best;
}

static bool another_allows(const struct reconnect *r, uint64_t now_ms) {
    for (uint32_t i = 0; i < r->o.endpoint_count; i++) {
        if (i != r->current && breaker_allows(&r->breakers[i], now_ms)) {
            return true;
        }
    }
    return false;
}

static uint64_t first_allowed_ms(const struct reconnect *r, uint32_t but) {
    uint64_t first = UINT64_MAX;
    for (uint32_t i = 0; i < r->o.endpoint_count; i++) {
        if (i == but) {
            continue;
        }
        uint64_t at = r->breakers[i].state == BREAKER_OPEN ? r->breakers[i].until_ms : 0;
        first = at < first ? at : first;
    }
    return first;
}

static struct reconnect_order connect_to(struct reconnect *r, uint32_t endpoint, uint64_t now_ms) {
    breaker_try(&r->breakers[endpoint], now_ms);
    r->current = endpoint;
    r->steady = false;
    enter(r, RECONNECT_DIAL, now_ms);
    return (struct reconnect_order){.action = RECONNECT_CONNECT, .endpoint = endpoint};
}

static struct reconnect_order step_wait(struct reconnect *r, uint64_t now_ms, uint32_t random) {
    if (now_ms >= r->try_ms) {
        uint32_t endpoint = r->returning_to != RECONNECT_NONE ? r->returning_to : choose(r, now_ms, random);
        if (endpoint != RECONNECT_NONE) {
            return connect_to(r, endpoint, now_ms);
        }
        r->try_ms = first_allowed_ms(r, RECONNECT_NONE);
    }
    return (struct reconnect_order){.action = RECONNECT_NOTHING};
}

/* --- how long ---------------------------------------------------------------------------------------------------------------------- */

static uint64_t stage_over_ms(const struct reconnect *r) {
    return r->since_ms + patience_ms[r->stage];
}

static struct reconnect_order step_stage(struct reconnect *r, uint64_t now_ms) {
    bool over = now_ms >= stage_over_ms(r);
    if (over && r->stage == RECONNECT_HELLO && !another_allows(r, now_ms)) {
        over = now_ms >= r->since_ms + ALONE_MS;
    }
    return over ? (struct reconnect_order){.action = RECONNECT_LEAVE, .endpoint = r->current, .why = silences[r->stage]}
                : (struct reconnect_order){.action = RECONNECT_NOTHING};
}

/* --- return ------------------------------------------------------------------------------------------------------------------------ */

static uint32_t probe_pause_ms(const struct reconnect *r, uint32_t random) {
    uint32_t mean = r->hold_ms / PROBES_PER_HOLD;
    return mean / 2 + (uint32_t)((uint64_t)random * mean >> 32);
}

static bool better_exists(const struct reconnect *r) {
    for (uint32_t i = 0; i < r->o.endpoint_count; i++) {
        if (r->o.priorities[i] < r->o.priorities[r->current]) {
            return true;
        }
    }
    return false;
}

/* The best of the better ones that may be tried. */
static uint32_t to_probe(const struct reconnect *r, uint64_t now_ms) {
    uint32_t best = RECONNECT_NONE, bound = r->o.priorities[r->current];
    for (uint32_t i = 0; i < r->o.endpoint_count; i++) {
        if (r->o.priorities[i] < bound && breaker_allows(&r->breakers[i], now_ms)) {
            best = i;
            bound = r->o.priorities[i];
        }
    }
    return best;
}

static struct reconnect_order step_up(struct reconnect *r, uint64_t now_ms, uint32_t random, bool idle) {
    if (!r->steady && now_ms >= r->since_ms + STEADY_MS) {
        r->steady = true;
        breaker_steady(&r->breakers[r->current]);
        backoff_reset(&r->backoff);
        r->hold_ms = better_exists(r) ? r->hold_ms : r->o.failback_ms;
    }
    if (r->probed != RECONNECT_NONE || !better_exists(r)) {
        return (struct reconnect_order){.action = RECONNECT_NOTHING};
    }
    uint64_t good_ms = r->candidate == RECONNECT_NONE ? 0 : now_ms - r->good_since_ms;
    if (good_ms >= r->hold_ms && (idle || good_ms >= (uint64_t)BUSY_HOLDS * r->hold_ms)) {
        return (struct reconnect_order){
            .action = RECONNECT_LEAVE, .endpoint = r->candidate, .why = "a better endpoint is good again", .returns = true};
    }
    if (now_ms >= r->probe_ms) {
        uint32_t endpoint = to_probe(r, now_ms);
        r->probe_ms = now_ms + probe_pause_ms(r, random);
        if (endpoint != RECONNECT_NONE) {
            breaker_try(&r->breakers[endpoint], now_ms);
            r->probed = endpoint;
            return (struct reconnect_order){.action = RECONNECT_PROBE, .endpoint = endpoint};
        }
    }
    return (struct reconnect_order){.action = RECONNECT_NOTHING};
}

void reconnect_probed(struct reconnect *r, bool good, uint64_t now_ms, uint32_t random) {
    uint32_t endpoint = r->probed;
    r->probed = RECONNECT_NONE;
    if (endpoint == RECONNECT_NONE) {
        return;
    }
    if (!good) {
        note_failure(r, endpoint, now_ms, random);
        r->candidate = r->candidate == endpoint ? RECONNECT_NONE : r->candidate;
    } else if (r->candidate != endpoint) {
        breaker_answered(&r->breakers[endpoint]);
        r->candidate = endpoint;
        r->good_since_ms = now_ms;
    }
}

/* --- what happens ------------------------------------------------------------------------------------------------------------------ */

struct reconnect_order reconnect_step(struct reconnect *r, uint64_t now_ms, uint32_t random, bool idle) {
    switch (r->stage) {
    case RECONNECT_WAIT:
        return step_wait(r, now_ms, random);
    case RECONNECT_DIAL:
    case RECONNECT_TLS:
    case RECONNECT_MQTT:
    case RECONNECT_HELLO:
        return step_stage(r, now_ms);
    case RECONNECT_UP:
        return step_up(r, now_ms, random, idle);
    case RECONNECT_OFF:
        break;
    }
    return (struct reconnect_order){.action = RECONNECT_NOTHING};
}

static uint64_t earlier(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

uint64_t reconnect_wake_ms(const struct reconnect *r, uint64_t now_ms) {
    uint64_t wake = UINT64_MAX;
    if (r->stage == RECONNECT_OFF) {
        return wake;
    }
    if (r->stage == RECONNECT_WAIT) {
        return r->try_ms;
    }
    if (r->stage == RECONNECT_HELLO && now_ms >= stage_over_ms(r)) { /* it stays until there is something better to do */
        return earlier(r->since_ms + ALONE_MS, first_allowed_ms(r, r->current));
    }
    if (r->stage != RECONNECT_UP) {
        return stage_over_ms(r);
    }
    if (!r->steady) {
        wake = r->since_ms + STEADY_MS;
    }
    if (r->probed == RECONNECT_NONE && better_exists(r)) {
        wake = earlier(wake, r->probe_ms);
        uint64_t held = r->candidate == RECONNECT_NONE ? UINT64_MAX : r->good_since_ms + r->hold_ms;
        wake = earlier(wake, held > now_ms ? held : now_ms + IDLE_LOOK_MS);
    }
    return wake;
}

void reconnect_reached(struct reconnect *r, enum reconnect_stage stage, uint64_t now_ms) {
    if (r->stage <= RECONNECT_WAIT || stage == r->stage) {
        return;
    }
    enter(r, stage, now_ms);
    if (stage == RECONNECT_UP) {
        breaker_answered(&r->breakers[r->current]);
        r->returning_to = RECONNECT_NONE;
        forget_probes(r);
        r->probe_ms = now_ms + r->hold_ms / PROBES_PER_HOLD;
    }
}

void reconnect_failed(struct reconnect *r, uint64_t now_ms, uint32_t random) {
    if (r->stage <= RECONNECT_WAIT) {
        return;
    }
    bool trusted = (r->stage == RECONNECT_UP && r->steady) || (r->stage == RECONNECT_HELLO && now_ms >= r->since_ms + ALONE_MS);
    if (!trusted) {
        if (r->stage == RECONNECT_UP) {
            breaker_dropped(&r->breakers[r->current]); /* a line that flaps is used while it is there; waits grow to a minute */
        } else {
            note_failure(r, r->current, now_ms, random);
        }
        if (r->returning_to != RECONNECT_NONE ||
            (r->stage == RECONNECT_UP && !better_exists(r))) { /* do not run back as soon the next time */
            r->hold_ms = r->hold_ms > HOLD_MS_MAX / 2 ? HOLD_MS_MAX : r->hold_ms * 2;
        }
    }
    r->returning_to = RECONNECT_NONE;
    forget_probes(r);
    uint64_t allowed_ms = first_allowed_ms(r, RECONNECT_NONE), waited_ms = now_ms + backoff_next_ms(&r->backoff, random);
    r->try_ms = waited_ms > allowed_ms ? waited_ms : allowed_ms;
    enter(r, RECONNECT_WAIT, now_ms);
}

void reconnect_left(struct reconnect *r, uint64_t now_ms) {
    r->returning_to = r->candidate;
    forget_probes(r);
    r->try_ms = now_ms;
    enter(r, RECONNECT_WAIT, now_ms);
}

void reconnect_hurry(struct reconnect *r, uint64_t at_ms) {
    for (uint32_t i = 0; i < r->o.endpoint_count; i++) {
        struct breaker *b = &r->breakers[i];
        b->until_ms = b->state == BREAKER_OPEN ? earlier(b->until_ms, at_ms) : b->until_ms;
    }
    backoff_reset(&r->backoff);
    r->try_ms = r->stage == RECONNECT_WAIT ? earlier(r->try_ms, at_ms) : r->try_ms;
    r->probe_ms = r->stage == RECONNECT_UP ? earlier(r->probe_ms, at_ms) : r->probe_ms;
}

const char *reconnect_stage_name(enum reconnect_stage s) {
    static const char *const names[RECONNECT_STAGES] = {"off", "waiting", "dialling", "tls", "mqtt", "hello", "up"};
    return names[s];
}
