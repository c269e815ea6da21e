#include "agent/run/gauge.h"

#include <string.h>

#include "agent/run/pressure.h"
#include "platform/log.h"
#include "platform/metrics.h"

#define ROUND_MS 5000u
#define RUNS_MOST 1024u /* as many as a launcher has */

static struct metric cpu_ratio =
    METRIC_GAUGE_MILLI("grey_executor_cpu_ratio", "Processors that tasks use here, of what they may use; smoothed.");
static struct metric memory_ratio = METRIC_GAUGE_MILLI("grey_executor_memory_ratio", "The same for memory.");
static struct metric hot_spot = METRIC_GAUGE("grey_executor_hot", "1: this machine is a hot spot; tasks move away from it.");

struct used { /* by one run, when it was last asked */
    uint64_t scope, token, cpu_us;
    bool seen; /* in this round */
};

struct gauge {
    struct gauge_options o;
    struct loop_timer timer;
    uint64_t asked_ms, cpu_us, memory_bytes; /* of the round */
    uint32_t count, cpu_permille, memory_permille;
    struct pressure pressure;
    struct used runs[RUNS_MOST];
};

void gauge_take(struct gauge *g, const struct launch_message *m) {
    uint32_t i = 0;
    while (i < g->count && (g->runs[i].token != m->token || g->runs[i].scope != m->scope)) {
        i++;
    }
    if (i == RUNS_MOST) {
        return;
    }
    struct used *r = &g->runs[i];
    if (i == g->count) {
        g->count++;
        *r = (struct used){.scope = m->scope, .token = m->token};
    }
    r->seen = true;
    g->cpu_us += m->use.cpu_us > r->cpu_us ? m->use.cpu_us - r->cpu_us : 0;
    g->memory_bytes += m->use.memory_bytes;
    r->cpu_us = m->use.cpu_us;
}

static uint32_t permille(uint64_t part, uint64_t whole) {
    uint64_t p = whole == 0 ? 0 : part * 1000u / whole;
    return p > NODE_USE_PERMILLE_MAX ? NODE_USE_PERMILLE_MAX : (uint32_t)p;
}

/* The last round is over: half of what it says counts at once. */
static void end_round(struct gauge *g, uint64_t now_ms) {
    uint64_t passed_ms = now_ms - g->asked_ms;
    uint32_t cpu = permille(g->cpu_us, passed_ms * g->o.usable.cpu_millicores); /* us of 1000 ms * cores */
    uint32_t memory = permille(g->memory_bytes >> 10, g->o.usable.memory_bytes >> 10);
    g->cpu_permille = (g->cpu_permille + cpu) / 2;
    g->memory_permille = (g->memory_permille + memory) / 2;
    uint32_t left = 0;
    for (uint32_t i = 0; i < g->count; i++) {
        if (g->runs[i].seen) {
            g->runs[left] = g->runs[i];
            g->runs[left++].seen = false;
        }
    }
    g->count = left;
    g->cpu_us = g->memory_bytes = 0;
}

static void look(void *context) {
    struct gauge *g = context;
    struct pressure_sample s;
    uint64_t now_ms = loop_now_ms(g->o.loop);
    bool was_hot = g->pressure.hot;
    if (g->asked_ms > 0) {
        end_round(g, now_ms);
    }
    bool hot = pressure_read(&s) && pressure_judge(&g->pressure, &s, now_ms);
    if (hot != was_hot) {
        log_warn("gauge", hot ? "hot" : "cool", "cpu=%u%% memory_available=%u%% stalled=%u%%", g->pressure.cpu_permille / 10,
                 s.memory_available_permille / 10, s.stall_permille / 10);
    }
    metrics_set(&cpu_ratio, 0, g->cpu_permille);
    metrics_set(&memory_ratio, 0, g->memory_permille);
    metrics_set(&hot_spot, 0, hot);
    node_measured(g->o.node, &(struct node_use){g->cpu_permille, g->memory_permille, hot});
    g->asked_ms = launcher_up(g->o.launcher) ? now_ms : 0;
    if (g->asked_ms > 0) {
        launcher_send(g->o.launcher, &(struct launch_message){.kind = LAUNCH_MEASURE});
    }
    loop_timer_after(g->o.loop, &g->timer, ROUND_MS);
}

struct gauge *gauge_new(const struct gauge_options *o) {
    struct gauge *g = mem_new(1, sizeof *g);
    if (g != NULL) {
        g->o = *o;
        g->pressure = (struct pressure){.cpu_hot_permille = o->hot_permille, .cpu_ms = o->hot_ms};
        g->timer = (struct loop_timer){.fire = look, .context = g};
        metrics_register(&cpu_ratio);
        metrics_register(&memory_ratio);
        metrics_register(&hot_spot);
        loop_timer_after(o->loop, &g->timer, ROUND_MS);
    }
    return g;
}

void gauge_free(struct gauge *g) {
    if (g != NULL) {
        loop_timer_cancel(g->o.loop, &g->timer);
        mem_free(g);
    }
}
