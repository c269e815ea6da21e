/* One step: what is due, what must stop, who gets a place.  Everything is decided in an order that follows from names, tickets and
 * tokens, never from where something lies in memory. */
#include <string.h>

#include "agent/work/scheduler.h"
#include "include/grey/must.h"

/* --- Usage ---------------------------------------------------------------------------------------------------------------------------------- */

static uint32_t of_firm(uint32_t permille, uint64_t firm, uint64_t all) {
    return all == 0 ? permille : (uint32_t)((uint64_t)permille * (firm >> 10) / (all >> 10 | 1));
}

/* Tasks of lane 4 give way to all others, so what they hold does not count for those.  Requests are known exactly; what nodes measured
 * may be above them.  Of that, lane 4's part is taken to be as large as its part of the requests. */
uint32_t dispatch_usage(const struct scheduler *s, enum task_lane lane) {
    uint32_t cpu = s->measured_cpu_permille, memory = s->measured_memory_permille;
    uint32_t asked = quota_usage(lane == LANE_PREEMPT ? s->held : s->held_firm, s->usable);
    if (lane != LANE_PREEMPT) {
        cpu = of_firm(cpu, s->held_firm.cpu_millicores << 10, s->held.cpu_millicores << 10);
        memory = of_firm(memory, s->held_firm.memory_bytes, s->held.memory_bytes);
    }
    uint32_t measured = cpu > memory ? cpu : memory;
    return asked > measured ? asked : measured;
}

/* --- What is due ------------------------------------------------------------------------------------------------------------------------------ */

/* An idle node takes what another has not begun. */
static void steal(struct scheduler *s, struct task *t) {
    if (t->delivery != DELIVERY_AT_LEAST_ONCE || t->stop != REASON_NONE || t->node->task_count < 2) {
        return;
    }
    struct placement_wish w;
    struct task_texts selectors;
    scheduler_wish(t, &w, &selectors);
    for (uint32_t i = 0; i < s->placement.count; i++) {
        struct placement_node *n = s->placement.nodes[i];
        if (n->task_count == 0 && placement_suits(n, &w) && quota_within(w.need, placement_free(n, &w))) {
            scheduler_move(s, t, n);
            return;
        }
    }
}

static void run_timers(struct scheduler *s) {
    const struct due_item *first;
    while ((first = due_first(&s->due)) != NULL && first->at_ms <= s->now_ms) {
        struct task *t = (struct task *)((char *)(uintptr_t)first - offsetof(struct task, due));
        due_clear(&s->due, &t->due);
        scheduler_changed(s, t);
        switch ((enum task_state)t->state) {
        case TASK_PENDING:
        case TASK_RUNNING:
            scheduler_time(s, t);
            break;
        case TASK_ASSIGNED:
            steal(s, t);
            break;
        default:
            must(false); /* nothing else has a time */
        }
    }
}

/* Who is to stop first: of `from` (a tenant; NULL: anybody), on n (NULL: any node), the lowest lane and the newest of it. */
static struct task *victim_find(struct scheduler *s, const struct placement_node *n, const struct quota_tenant *from,
                                enum task_lane lowest, bool spare_once) {
    struct task *worst = NULL;
    for (uint32_t i = 0; i < s->placement.count; i++) {
        for (struct task *t = s->placement.nodes[i]->tasks; t != NULL && (n == NULL || n == s->placement.nodes[i]);
             t = t->next_on_node) {
            if ((from != NULL && t->tenant != from) || !scheduler_may_stop(t, lowest) ||
                (spare_once && t->delivery == DELIVERY_AT_MOST_ONCE)) {
                continue;
            }
            if (worst == NULL || t->lane > worst->lane || (t->lane == worst->lane && t->token > worst->token)) {
                worst = t;
            }
        }
    }
    return worst;
}

static void end_bursts(struct scheduler *s) {
    for (uint32_t i = 0; i < s->quota.count; i++) {
        const struct quota_tenant *t = s->quota.tenants[i];
        if (t->burst_left_ms > 0 || !quota_above(&s->quota, t)) {
            continue;
        }
        struct quota_amount limit = quota_limit(&s->quota, t), left = t->used;
        for (uint32_t k = 0; k < s->placement.count; k++) {
            for (const struct task *on = s->placement.nodes[k]->tasks; on != NULL; on = on->next_on_node) {
                if (on->tenant == t && on->stop != REASON_NONE) {
                    left.cpu_millicores -= on->cpu_millicores;
                    left.memory_bytes -= on->memory_bytes;
                }
            }
        }
        while (!quota_within(left, limit)) {
            struct task *victim = victim_find(s, NULL, t, LANE_CRITICAL, true);
            if (victim == NULL) {
                break;
            }
            left.cpu_millicores -= victim->cpu_millicores;
            left.memory_bytes -= victim->memory_bytes;
            scheduler_stop(s, victim, REASON_BURST);
        }
    }
}

/* A hot spot gives one task away with each of its reports, the lowest lane and the newest first, if another node has room for it. */
static void cool_down(struct scheduler *s, struct placement_node *n) {
    struct task *worst = NULL;
    for (struct task *t = n->tasks; t != NULL; t = t->next_on_node) {
        struct placement_wish w;
        struct task_texts selectors;
        scheduler_wish(t, &w, &selectors);
        bool may = scheduler_may_stop(t, LANE_HIGH) && t->delivery == DELIVERY_AT_LEAST_ONCE;
        if (may && (worst == NULL || t->lane > worst->lane) && placement_pick(&s->placement, &w) != NULL) {
            worst = t;
        }
    }
    if (worst != NULL && n->stopping.cpu_millicores == 0) { /* the last one has left */
        scheduler_stop(s, worst, REASON_HOT);
    }
}

static void note_emergency(struct scheduler *s, const struct placement_node *n, const struct task *t) {
    struct scheduler_alarm *a = &s->alarms[s->alarm_count++ % SCHEDULER_ALARMS];
    *a = (struct scheduler_alarm){.token = t->token,
                                  .lane = t->lane,
                                  .tenant = t->tenant->name,
                                  .node = n->name,
                                  .cpu_permille = n->measured_cpu_permille,
                                  .memory_permille = n->measured_memory_permille,
                                  .time_ms = s->now_ms};
    memcpy(a->task.text, t->vertex->id, t->vertex->id_bytes);
}

/* A node that measures more than tasks may use stops its lowest, but never a critical one, until what is left should fit. */
static void end_emergencies(struct scheduler *s) {
    for (uint32_t i = 0; i < s->placement.count; i++) {
        struct placement_node *n = s->placement.nodes[i];
        if (!n->reported) {
            continue; /* what it measured has been acted upon; it measures again */
        }
        n->reported = false;
        if (n->condition == NODE_HOT) {
            cool_down(s, n);
        }
        struct quota_amount usable = placement_usable(n);
        for (;;) {
            uint32_t cpu_freed = quota_usage((struct quota_amount){n->stopping.cpu_millicores, 0}, usable);
            uint32_t memory_freed = quota_usage((struct quota_amount){0, n->stopping.memory_bytes}, usable);
            bool over = n->measured_cpu_permille > QUOTA_EMERGENCY_ABOVE + cpu_freed ||
                        n->measured_memory_permille > QUOTA_EMERGENCY_ABOVE + memory_freed;
            struct task *victim = over ? victim_find(s, n, NULL, LANE_HIGH, false) : NULL;
            if (victim == NULL) {
                break;
            }
            note_emergency(s, n, victim);
            scheduler_stop(s, victim, REASON_EMERGENCY);
        }
    }
}

/* --- Places ------------------------------------------------------------------------------------------------------------------------------------ */

static int64_t allowed_ms(const struct task *t, uint32_t usage) {
    return t->lane == LANE_CRITICAL ? t->ready_ms : t->ready_ms + quota_delay_ms(usage);
}

/* No task of the lane may have a place, whoever's it is: then nobody need be asked. */
static bool closed(const struct scheduler *s, enum task_lane lane) {
    return s->held_count >= s->saved.concurrent_max || (lane != LANE_CRITICAL && quota_zone(dispatch_usage(s, lane)) >= ZONE_RED);
}

static bool fits(void *context, struct lane_item *item) {
    struct scheduler *s = context;
    struct task *t = (struct task *)item;
    uint32_t usage = dispatch_usage(s, (enum task_lane)t->lane);
    enum quota_zone zone = quota_zone(usage);
    if (closed(s, (enum task_lane)t->lane) || s->now_ms < allowed_ms(t, usage)) { /* each place given may close it */
        return false;
    }
    bool burst = zone == ZONE_GREEN && t->delivery == DELIVERY_AT_LEAST_ONCE;
    if (quota_admits(&s->quota, t->tenant, task_space(t), scheduler_need(t), burst) != QUOTA_YES) {
        return false;
    }
    struct placement_wish w;
    struct task_texts selectors;
    scheduler_wish(t, &w, &selectors);
    s->chosen = placement_pick(&s->placement, &w);
    if (s->chosen == NULL && s->blocked == NULL && t->kept == NULL) {
        s->blocked = t;
    }
    return s->chosen != NULL;
}

static void serve(void *context, struct lane_item *item) {
    struct scheduler *s = context;
    must(s->chosen != NULL);
    scheduler_assign(s, (struct task *)item, s->chosen);
    s->chosen = NULL;
}

/* How many of lane 4 must stop on n so that t fits, beside those that are being stopped anyway.  UINT32_MAX: that is not enough. */
static uint32_t victims_count(const struct placement_node *n, const struct placement_wish *w) {
    struct quota_amount usable = placement_usable(n), wanted = quota_sum(n->held, w->need), stopping = n->stopping;
    for (unsigned lane = 0; lane <= (unsigned)w->lane; lane++) {
        wanted = quota_sum(wanted, n->kept[lane]);
    }
    const struct task *t = n->tasks;
    for (uint32_t count = 0;; count++) {
        if (quota_within(wanted, quota_sum(usable, stopping))) {
            return count;
        }
        while (t != NULL && !scheduler_may_stop(t, LANE_PREEMPT)) {
            t = t->next_on_node;
        }
        if (t == NULL) {
            return UINT32_MAX;
        }
        stopping = quota_sum(stopping, scheduler_need(t));
        t = t->next_on_node;
    }
}

/* Makes room for t by stopping tasks of lane 4, where that takes the fewest.  False: they are not enough anywhere. */
static bool preempt_for(struct scheduler *s, struct task *t, const struct placement_wish *w) {
    struct placement_node *best = NULL;
    uint32_t fewest = UINT32_MAX;
    for (uint32_t i = 0; i < s->placement.count; i++) {
        uint32_t count = placement_suits(s->placement.nodes[i], w) ? victims_count(s->placement.nodes[i], w) : UINT32_MAX;
        if (count < fewest) {
            fewest = count;
            best = s->placement.nodes[i];
        }
    }
    if (best == NULL) {
        return false;
    }
    struct task *victim = best->tasks;
    for (uint32_t i = 0; i < fewest; i++) {
        while (!scheduler_may_stop(victim, LANE_PREEMPT)) {
            victim = victim->next_on_node;
            must(victim != NULL);
        }
        scheduler_stop(s, victim, REASON_PREEMPTED);
    }
    scheduler_keep(s, t, best);
    return true;
}

/* A large task that waited long enough has the emptiest node kept free for it, else small ones would go by it for ever. */
static bool keep_node_for(struct scheduler *s, struct task *t, const struct placement_wish *w) {
    struct placement_node *best = NULL;
    uint32_t best_usage = UINT32_MAX;
    for (uint32_t i = 0; i < s->placement.count && s->now_ms - t->ready_ms >= SCHEDULER_RESERVE_MS; i++) {
        struct placement_node *n = s->placement.nodes[i];
        bool taken = false;
        for (unsigned lane = 0; lane < LANE_COUNT; lane++) {
            taken = taken || n->kept[lane].cpu_millicores > 0;
        }
        uint32_t usage = quota_usage(n->held, placement_usable(n));
        if (!taken && placement_suits(n, w) && usage < best_usage) {
            best = n;
            best_usage = usage;
        }
    }
    if (best != NULL) {
        scheduler_keep(s, t, best);
    }
    return best != NULL;
}

static void serve_lane(struct scheduler *s, enum task_lane lane) {
    struct lanes_server server = {fits, serve, s};
    bool again = s->lanes.counts[lane] > 0;
    while (again && !closed(s, lane)) {
        s->blocked = NULL;
        lanes_run(&s->lanes, lane, &server);
        again = false;
        struct task *t = s->blocked;
        if (t != NULL && t->state == TASK_QUEUED && t->kept == NULL) {
            struct placement_wish w;
            struct task_texts selectors;
            scheduler_wish(t, &w, &selectors);
            again = (lane != LANE_PREEMPT && preempt_for(s, t, &w)) || keep_node_for(s, t, &w);
        }
    }
    s->blocked = NULL;
}

void dispatch_step(struct scheduler *s) {
    run_timers(s);
    end_bursts(s);
    end_emergencies(s);
    for (unsigned lane = 0; lane < LANE_COUNT; lane++) {
        serve_lane(s, (enum task_lane)lane);
    }
    scheduler_forget_old(s);
}

/* --- The next step ---------------------------------------------------------------------------------------------------------------------------- */

/* When the first of those whom a yellow zone delays may start: none of them is before the head of its queue. */
static int64_t delays_end_ms(const struct scheduler *s) {
    int64_t first_ms = INT64_MAX;
    for (unsigned lane = LANE_HIGH; lane < LANE_COUNT; lane++) {
        uint32_t usage = s->lanes.counts[lane] > 0 ? dispatch_usage(s, (enum task_lane)lane) : 0;
        if (quota_zone(usage) != ZONE_YELLOW) {
            continue;
        }
        for (uint32_t i = 0; i < s->lanes.flow_count; i++) {
            for (unsigned k = 0; k <= QUOTA_NAMESPACES_MAX; k++) {
                const struct lane_item *item = s->lanes.flows[i]->queues[lane][k].first;
                for (unsigned n = 0; item != NULL && n < LANES_LOOKAHEAD; item = item->next, n++) {
                    int64_t at_ms = allowed_ms((const struct task *)item, usage);
                    first_ms = at_ms > s->now_ms && at_ms < first_ms ? at_ms : first_ms;
                }
            }
        }
    }
    return first_ms;
}

/* When the first tenant with waiting tasks may burst again. */
static int64_t rests_end_ms(const struct scheduler *s) {
    int64_t first_ms = INT64_MAX;
    for (uint32_t i = 0; i < s->quota.count; i++) {
        const struct lane_flow *f = s->quota.tenants[i]->owner;
        bool waits = false;
        for (unsigned lane = 0; lane < LANE_COUNT; lane++) {
            waits = waits || f->counts[lane] > 0;
        }
        int64_t at_ms = waits ? quota_rested_ms(&s->quota, s->quota.tenants[i]) : INT64_MAX;
        first_ms = at_ms < first_ms ? at_ms : first_ms;
    }
    return first_ms;
}

int64_t dispatch_due_ms(struct scheduler *s) {
    const struct due_item *first = due_first(&s->due);
    int64_t at_ms = first == NULL ? INT64_MAX : first->at_ms;
    int64_t burst_ms = quota_due_ms(&s->quota), delay_ms = delays_end_ms(s), rest_ms = rests_end_ms(s);
    at_ms = burst_ms < at_ms ? burst_ms : at_ms;
    at_ms = delay_ms < at_ms ? delay_ms : at_ms;
    at_ms = rest_ms < at_ms ? rest_ms : at_ms;
    if (at_ms == INT64_MAX) {
        return at_ms;
    }
    at_ms += SCHEDULER_EPOCH_MS - 1;
    return at_ms - at_ms % SCHEDULER_EPOCH_MS - s->saved.skew_ms;
}
