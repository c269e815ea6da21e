#include "agent/work/scheduler.h"

#include <inttypes.h>
#include <string.h>

#include "include/grey/must.h"
#include "platform/codec.h"

#define MIB (1024u * 1024u)

/* --- Life ---------------------------------------------------------------------------------------------------------------------------------- */

static void task_free(struct task *t) {
    mem_free(t->text);
    mem_free(t);
}

struct scheduler *scheduler_new(void) {
    struct scheduler *s = mem_new(1, sizeof *s);
    if (s == NULL) {
        return NULL;
    }
    s->saved.queue_max = QUOTA_RED_QUEUE_MAX;
    s->saved.concurrent_max = SCHEDULER_CONCURRENT_MAX;
    s->dag = dag_new();
    if (s->dag == NULL || quota_init(&s->quota) != E_OK || scheduler_weigh(s) != E_OK) {
        scheduler_free(s);
        return NULL;
    }
    return s;
}

void scheduler_free(struct scheduler *s) {
    if (s == NULL) {
        return;
    }
    for (struct task *t = s->dag == NULL ? NULL : scheduler_next(s, NULL); t != NULL;) {
        struct task *next = scheduler_next(s, t);
        task_free(t);
        t = next;
    }
    for (uint32_t i = 0; i < s->quota.count; i++) {
        mem_free(s->quota.tenants[i]->owner);
    }
    quota_clear(&s->quota);
    placement_clear(&s->placement);
    due_free(&s->due);
    dag_free(s->dag);
    mem_free(s);
}

void scheduler_changed(struct scheduler *s, struct task *t) {
    if (!t->is_dirty) {
        t->is_dirty = true;
        t->next_dirty = NULL;
        *(s->dirty_last == NULL ? &s->dirty_first : &s->dirty_last->next_dirty) = t;
        s->dirty_last = t;
    }
}

static void state_set(struct scheduler *s, struct task *t, enum task_state to, enum task_reason why) {
    must(t->state == to || task_may_follow((enum task_state)t->state, to));
    t->state = (uint8_t)to;
    t->reason = (uint8_t)why;
    scheduler_changed(s, t);
}

struct task *scheduler_find(const struct scheduler *s, struct bytes id) {
    const struct dag_vertex *v = dag_find(s->dag, id);
    return v == NULL ? NULL : v->owner;
}

struct task *scheduler_next(const struct scheduler *s, const struct task *t) {
    const struct dag_vertex *v = dag_next(s->dag, t == NULL ? NULL : t->vertex);
    return v == NULL ? NULL : v->owner;
}

struct quota_amount scheduler_need(const struct task *t) {
    return (struct quota_amount){t->cpu_millicores, t->memory_bytes};
}

/* The larger of millicores and MiB: a core counts as much as a GiB, whatever the site has of them. */
static uint64_t cost_of(const struct task *t) {
    uint64_t mib = t->memory_bytes / MIB;
    return t->cpu_millicores > mib ? t->cpu_millicores : mib;
}

void scheduler_wish(const struct task *t, struct placement_wish *w, struct task_texts *selectors) {
    *w = (struct placement_wish){.need = scheduler_need(t), .lane = (enum task_lane)t->lane, .kept_on = t->kept};
    if (t->text == NULL) {
        return;
    }
    struct codec_reader r;
    codec_reader_init(&r, bytes_of(t->text, t->text_bytes));
    uint64_t count = codec_array(&r, TASK_SELECTORS_MAX + 1);
    w->prefers = codec_text(&r, LIMIT_NAME_BYTES);
    for (selectors->count = 0; selectors->count + 1 < count; selectors->count++) {
        selectors->at[selectors->count] = codec_text(&r, PLACEMENT_LABEL_BYTES);
    }
    must(codec_end(&r) == E_OK); /* checked when it was made or loaded */
    w->selectors = selectors;
}

/* --- Places --------------------------------------------------------------------------------------------------------------------------------- */

static struct lane_flow *flow_of(const struct task *t) {
    return t->tenant->owner;
}

static void link_to_node(struct task *t, struct placement_node *n) {
    struct task *after = n->tasks, *before = NULL; /* newest first: tokens rise */
    while (after != NULL && after->token > t->token) {
        before = after;
        after = after->next_on_node;
    }
    t->previous_on_node = before;
    t->next_on_node = after;
    if (before == NULL) {
        n->tasks = t;
    } else {
        before->next_on_node = t;
    }
    if (after != NULL) {
        after->previous_on_node = t;
    }
}

static void hold(struct scheduler *s, struct task *t, struct placement_node *n) {
    struct quota_amount need = scheduler_need(t);
    must(t->node == NULL);
    t->node = n;
    link_to_node(t, n);
    n->held = quota_sum(n->held, need);
    n->stopping = t->stop == REASON_NONE ? n->stopping : quota_sum(n->stopping, need);
    n->task_count++;
    s->held = quota_sum(s->held, need);
    s->held_firm = t->lane == LANE_PREEMPT ? s->held_firm : quota_sum(s->held_firm, need);
    s->held_count++;
    quota_charge(t->tenant, task_space(t), need);
}

static void amount_less(struct quota_amount *a, struct quota_amount b) {
    must(quota_within(b, *a));
    a->cpu_millicores -= b.cpu_millicores;
    a->memory_bytes -= b.memory_bytes;
}

static void release(struct scheduler *s, struct task *t) {
    struct placement_node *n = t->node;
    if (n == NULL) {
        return;
    }
    struct quota_amount need = scheduler_need(t);
    if (t->previous_on_node == NULL) {
        n->tasks = t->next_on_node;
    } else {
        t->previous_on_node->next_on_node = t->next_on_node;
    }
    if (t->next_on_node != NULL) {
        t->next_on_node->previous_on_node = t->previous_on_node;
    }
    t->next_on_node = t->previous_on_node = NULL;
    t->node = NULL;
    if (t->stop != REASON_NONE) {
        amount_less(&n->stopping, need);
        t->stop = REASON_NONE;
    }
    amount_less(&n->held, need);
    n->task_count--;
    amount_less(&s->held, need);
    if (t->lane != LANE_PREEMPT) {
        amount_less(&s->held_firm, need);
    }
    s->held_count--;
    quota_release(t->tenant, task_space(t), need);
    due_clear(&s->due, &t->due);
    scheduler_changed(s, t);
}

void scheduler_keep(struct scheduler *s, struct task *t, struct placement_node *n) {
    if (t->kept == n) {
        return;
    }
    if (t->kept != NULL) {
        amount_less(&t->kept->kept[t->lane], scheduler_need(t));
    }
    t->kept = n;
    if (n != NULL) {
        n->kept[t->lane] = quota_sum(n->kept[t->lane], scheduler_need(t));
    }
    scheduler_changed(s, t);
}

/* What a proof names. */
static raft_index noted(const struct scheduler *s) {
    return s->saved.proof_s > 0 ? s->index : 0;
}

static void give(struct scheduler *s, struct task *t, struct placement_node *n) {
    t->token = ++s->saved.tokens;
    t->last_node = n->id;
    t->started_ms = 0;
    t->exit_status = 0;
    t->assigned_index = noted(s);
    t->running_after = 0;
    hold(s, t, n);
    due_set(&s->due, &t->due, s->now_ms + SCHEDULER_STEAL_MS);
    state_set(s, t, TASK_ASSIGNED, REASON_NONE);
}

void scheduler_assign(struct scheduler *s, struct task *t, struct placement_node *n) {
    must(t->state == TASK_QUEUED && t->item.queue == NULL);
    scheduler_keep(s, t, NULL);
    t->taken_from = 0;
    give(s, t, n);
}

void scheduler_move(struct scheduler *s, struct task *t, struct placement_node *to) {
    must(t->state == TASK_ASSIGNED && t->node != NULL && t->node != to && t->delivery == DELIVERY_AT_LEAST_ONCE);
    raft_id from = t->node->id;
    release(s, t);
    t->taken_from = from;
    give(s, t, to);
}

bool scheduler_is_away(const struct task *t) {
    return t->state == TASK_ASSIGNED && t->node == NULL;
}

/* It has a token, so that what is said of it later can be told from what was said of an earlier time, but no place here. */
static void send_away(struct scheduler *s, struct task *t) {
    t->token = ++s->saved.tokens;
    t->last_node = t->taken_from = 0;
    t->started_ms = 0;
    t->exit_status = 0;
    t->assigned_index = 0;
    t->running_after = 0;
    s->away++;
    state_set(s, t, TASK_ASSIGNED, REASON_OFFLOADED);
}

/* What had its turn with the core and came back stays. */
static bool goes_away(const struct scheduler *s, const struct task *t) {
    return s->saved.offloads && t->may_leave && t->reason != REASON_RECALLED;
}

static void enqueue(struct scheduler *s, struct task *t, enum task_reason why) {
    if (t->state != TASK_QUEUED) {
        state_set(s, t, TASK_QUEUED, why);
    }
    t->ready_ms = s->now_ms;
    if (goes_away(s, t)) {
        send_away(s, t);
        return;
    }
    lanes_put(&s->lanes, flow_of(t), (enum task_lane)t->lane, t->space, &t->item);
}

static void dequeue(struct scheduler *s, struct task *t) {
    if (t->item.queue != NULL) {
        lanes_take(&s->lanes, flow_of(t), (enum task_lane)t->lane, &t->item);
        scheduler_keep(s, t, NULL);
    }
}

/* --- Ends ------------------------------------------------------------------------------------------------------------------------------------ */

static bool ended_before(const struct task *a, const struct task *b) {
    return a->ended_ms != b->ended_ms ? a->ended_ms < b->ended_ms : a->item.ticket < b->item.ticket;
}

static void ended_add(struct scheduler *s, struct task *t) {
    struct lane_item *before = s->ended_last, *item = &t->item;
    must(item->queue == NULL);
    while (before != NULL && ended_before(t, (struct task *)before)) {
        before = before->previous;
    }
    item->previous = before;
    item->next = before == NULL ? s->ended_first : before->next;
    *(before == NULL ? &s->ended_first : &before->next) = item;
    *(item->next == NULL ? &s->ended_last : &item->next->previous) = item;
    s->ended++;
}

static void ended_take(struct scheduler *s, struct lane_item *item) {
    *(item->previous == NULL ? &s->ended_first : &item->previous->next) = item->next;
    *(item->next == NULL ? &s->ended_last : &item->next->previous) = item->previous;
    item->next = item->previous = NULL;
    s->ended--;
}

/* Called for each task that waited for the one that has ended. */
struct finishing {
    struct scheduler *s;
    bool well;
};

static void dependency_ended(void *context, struct dag_vertex *w) {
    struct finishing *x = context;
    struct task *t = w->owner;
    scheduler_changed(x->s, t);
    if (!x->well) {
        if (!t->is_doomed) {
            t->is_doomed = true;
            t->next_on_node = x->s->doomed;
            x->s->doomed = t;
        }
    } else if (w->unmet == 0 && !t->is_doomed) {
        enqueue(x->s, t, REASON_NONE);
    }
}

static void finish_one(struct scheduler *s, struct task *t, enum task_state state, enum task_reason why) {
    state_set(s, t, state, why);
    t->ended_ms = s->now_ms;
    due_clear(&s->due, &t->due);
    s->live--;
    s->schedules -= t->is_schedule;
    ended_add(s, t);
    struct finishing x = {s, state == TASK_COMPLETED};
    dag_finish(s->dag, t->vertex, dependency_ended, &x);
}

static void finish(struct scheduler *s, struct task *t, enum task_state state, enum task_reason why) {
    finish_one(s, t, state, why);
    while (s->doomed != NULL) { /* those who waited for it in vain, and those who waited for them */
        struct task *w = s->doomed;
        s->doomed = w->next_on_node;
        w->next_on_node = NULL;
        w->is_doomed = false;
        finish_one(s, w, TASK_FAILED, REASON_DEPENDENCY);
    }
}

static void try_again(struct scheduler *s, struct task *t, uint64_t after_ms, enum task_reason why) {
    state_set(s, t, TASK_PENDING, why);
    due_set(&s->due, &t->due, s->now_ms + (int64_t)after_ms);
}

static void ended_well(struct scheduler *s, struct task *t) {
    release(s, t);
    if (t->restart == RESTART_ALWAYS && t->state != TASK_CANCELLED) {
        t->failures = 0;
        try_again(s, t, task_backoff_ms(0), REASON_NONE);
    } else {
        finish(s, t, TASK_COMPLETED, REASON_NONE);
    }
}

static void ended_badly(struct scheduler *s, struct task *t, enum task_reason why) {
    release(s, t);
    t->failures = (uint16_t)(t->failures + (t->failures < UINT16_MAX));
    bool again = t->max_retries > 0 ? t->failures <= t->max_retries : t->restart != RESTART_NEVER;
    if (again && t->delivery == DELIVERY_AT_LEAST_ONCE) {
        try_again(s, t, task_backoff_ms(t->failures), why);
    } else {
        finish(s, t, TASK_FAILED, why);
    }
}

/* It lost its place through no fault of its own. */
static void put_back(struct scheduler *s, struct task *t, enum task_reason why) {
    release(s, t);
    if (t->delivery == DELIVERY_AT_MOST_ONCE) {
        finish(s, t, TASK_FAILED, why);
    } else {
        enqueue(s, t, why);
    }
}

void scheduler_stop(struct scheduler *s, struct task *t, enum task_reason why) {
    must(t->node != NULL && t->stop == REASON_NONE);
    t->stop = (uint8_t)why;
    t->node->stopping = quota_sum(t->node->stopping, scheduler_need(t));
    due_clear(&s->due, &t->due);
    if (why == REASON_PREEMPTED || why == REASON_BURST || why == REASON_EMERGENCY || why == REASON_HOT) {
        t->preemptions = (uint16_t)(t->preemptions + (t->preemptions < UINT16_MAX));
        state_set(s, t, TASK_PREEMPTED, why);
    }
    scheduler_changed(s, t);
}

void scheduler_time(struct scheduler *s, struct task *t) {
    if (t->state == TASK_PENDING) {
        enqueue(s, t, (enum task_reason)t->reason);
    } else {
        scheduler_stop(s, t, REASON_TIMEOUT);
    }
}

bool scheduler_may_stop(const struct task *t, enum task_lane lowest) {
    return t->node != NULL && t->stop == REASON_NONE && t->lane >= lowest &&
           (t->delivery == DELIVERY_AT_LEAST_ONCE || t->lane == LANE_PREEMPT);
}

void scheduler_forget_old(struct scheduler *s) {
    struct lane_item *next;
    for (struct lane_item *item = s->ended_first; s->ended > SCHEDULER_ENDED_MAX && item != NULL; item = next) {
        struct task *t = (struct task *)item;
        next = item->next;
        if (t->node == NULL) { /* else its node is still stopping it */
            ended_take(s, item);
            t->is_gone = true;
            t->tenant->tasks--;
            task_space(t)->tasks--;
            scheduler_changed(s, t);
        }
    }
}

/* --- Entries ---------------------------------------------------------------------------------------------------------------------------------- */

void scheduler_begin(struct scheduler *s, raft_index index, int64_t log_time_ms) {
    int64_t now_ms = log_time_ms + s->saved.skew_ms;
    now_ms -= now_ms % SCHEDULER_EPOCH_MS;
    s->now_ms = now_ms > s->quota.time_ms ? now_ms : s->quota.time_ms;
    s->index = index;
    quota_run(&s->quota, s->now_ms);
}

void scheduler_clock(struct scheduler *s, int64_t leap_ms) {
    s->saved.skew_ms -= leap_ms;
}

static bool completed(const struct dag_vertex *v) {
    const struct task *t = v->owner;
    return t->state == TASK_COMPLETED;
}

enum grey_error scheduler_weigh(struct scheduler *s) {
    for (uint32_t i = 0; i < s->quota.count; i++) {
        struct quota_tenant *t = s->quota.tenants[i];
        struct lane_flow *f = t->owner;
        bool is_new = f == NULL;
        f = is_new ? mem_new(1, sizeof *f) : f;
        if (f == NULL) {
            return E_NO_MEMORY;
        }
        uint32_t share = quota_share_of(&s->quota, t).cpu_permille;
        f->weight = share > 0 ? share : 1;
        if (is_new) {
            f->name = t->name.text;
            t->owner = f;
            lanes_flow_add(&s->lanes, f);
        }
    }
    return E_OK;
}

void scheduler_drop(struct scheduler *s, struct task *t) {
    must(t->is_gone && t->node == NULL && t->item.queue == NULL);
    dag_remove(s->dag, t->vertex);
    task_free(t);
}

enum grey_error scheduler_add(struct scheduler *s, struct task *t, struct bytes id, const struct bytes *on, size_t count) {
    enum grey_error err = due_reserve(&s->due, s->live + 1);
    err = err == E_OK ? dag_add(s->dag, id, on, count, t, completed, &t->vertex) : err;
    if (err != E_OK) {
        task_free(t);
        return err;
    }
    t->item.ticket = t->due.ticket = ++s->saved.tickets;
    t->item.cost = cost_of(t);
    t->submitted_ms = s->now_ms;
    t->tenant->tasks++;
    task_space(t)->tasks++;
    s->live++;
    s->schedules += t->is_schedule;
    scheduler_changed(s, t);
    if (!t->is_schedule && t->vertex->unmet == 0) {
        enqueue(s, t, REASON_NONE);
    }
    return E_OK;
}

static struct task *find_or_fault(const struct scheduler *s, struct bytes id, struct fault *f) {
    struct task *t = scheduler_find(s, id);
    if (t == NULL) {
        (void)fault_set(f, E_NOT_FOUND, "there is no task %.*s", (int)id.size, (const char *)id.data);
    }
    return t;
}

enum grey_error scheduler_cancel(struct scheduler *s, struct bytes id, struct fault *f) {
    struct task *t = find_or_fault(s, id, f);
    if (t == NULL) {
        return E_NOT_FOUND;
    }
    if (task_ended((enum task_state)t->state)) {
        return fault_set(f, E_CONDITION, "the task has ended: %s", task_name(NAMES_STATE, t->state));
    }
    dequeue(s, t);
    s->away -= scheduler_is_away(t);
    finish(s, t, TASK_CANCELLED, REASON_CANCELLED);
    if (t->node != NULL && t->stop == REASON_NONE) {
        scheduler_stop(s, t, REASON_CANCELLED);
    }
    return E_OK;
}

static void report_end(struct scheduler *s, struct task *t, enum task_report report, enum task_reason reason) {
    enum task_reason stop = (enum task_reason)t->stop;
    if (t->state == TASK_CANCELLED) {
        release(s, t);
    } else if (report == REPORT_COMPLETED) {
        ended_well(s, t);
    } else if (stop == REASON_TIMEOUT) {
        ended_badly(s, t, REASON_TIMEOUT);
    } else if (stop != REASON_NONE || report == REPORT_STOPPED) {
        put_back(s, t, stop != REASON_NONE ? stop : REASON_STOPPED);
    } else {
        ended_badly(s, t, reason);
    }
}

enum grey_error scheduler_report(struct scheduler *s, struct bytes id, uint64_t token, enum task_report report,
                                 enum task_reason reason, int32_t exit_status, struct fault *f) {
    struct task *t = find_or_fault(s, id, f);
    if (t == NULL) {
        return E_NOT_FOUND;
    }
    if (t->node == NULL || t->token != token) {
        return fault_set(f, E_CONDITION, "token %" PRIu64 " of task %s is not in force", token, t->vertex->id);
    }
    if (report == REPORT_RUNNING) {
        if (t->state == TASK_ASSIGNED) {
            due_clear(&s->due, &t->due);
            t->started_ms = s->now_ms;
            uint64_t after = t->assigned_index > 0 ? s->index - t->assigned_index : 0;
            t->running_after = after < UINT32_MAX ? (uint32_t)after : 0;
            state_set(s, t, TASK_RUNNING, REASON_NONE);
            if (t->timeout_s > 0 && t->stop == REASON_NONE) {
                due_set(&s->due, &t->due, s->now_ms + (int64_t)t->timeout_s * 1000);
            }
        }
        return E_OK;
    }
    t->exit_status = exit_status;
    report_end(s, t, report, reason);
    return E_OK;
}

void scheduler_lose(struct scheduler *s, struct task *t) {
    if (t->state == TASK_CANCELLED) {
        release(s, t);
    } else if (t->stop == REASON_TIMEOUT) {
        ended_badly(s, t, REASON_TIMEOUT);
    } else {
        put_back(s, t, REASON_NODE_LOST);
    }
}

/* --- With the core ---------------------------------------------------------------------------------------------------------------------- */

void scheduler_offload(struct scheduler *s, bool on) {
    s->saved.offloads = on;
    for (uint32_t i = 0; on && i < s->lanes.flow_count; i++) {
        for (unsigned lane = 0; lane < LANE_COUNT; lane++) {
            for (unsigned k = 0; k <= QUOTA_NAMESPACES_MAX; k++) {
                struct lane_item *next;
                for (struct lane_item *item = s->lanes.flows[i]->queues[lane][k].first; item != NULL; item = next) {
                    next = item->next;
                    if (goes_away(s, (struct task *)item)) {
                        dequeue(s, (struct task *)item);
                        send_away(s, (struct task *)item);
                    }
                }
            }
        }
    }
}

enum grey_error scheduler_returned(struct scheduler *s, struct bytes id, uint64_t token, enum task_report report,
                                   int32_t exit_status, struct fault *f) {
    struct task *t = find_or_fault(s, id, f);
    if (t == NULL) {
        return E_NOT_FOUND;
    }
    if (!scheduler_is_away(t) || t->token != token || report == REPORT_RUNNING) {
        return fault_set(f, E_CONDITION, "task %s is not with the core under token %" PRIu64, t->vertex->id, token);
    }
    s->away--;
    t->exit_status = exit_status;
    if (report == REPORT_COMPLETED) {
        ended_well(s, t);
    } else if (report == REPORT_FAILED) {
        ended_badly(s, t, exit_status == 0 ? REASON_START : REASON_EXIT);
    } else {
        enqueue(s, t, REASON_RECALLED);
    }
    return E_OK;
}

/* --- Loading ---------------------------------------------------------------------------------------------------------------------------------- */

static bool never(const struct dag_vertex *v) {
    (void)v;
    return false; /* what a row says is waited for has not ended */
}

enum grey_error scheduler_load(struct scheduler *s, struct task *t, const struct task_loading *l) {
    t->item.cost = cost_of(t);
    t->due.ticket = t->item.ticket;
    t->space = (uint8_t)l->name_space;
    enum grey_error err = due_reserve(&s->due, s->live + 1);
    err = err == E_OK ? dag_add(s->dag, l->id, l->unmet.at, l->unmet.count, t, never, &t->vertex) : err;
    if (err != E_OK) {
        task_free(t);
        return err;
    }
    t->tenant->tasks++;
    task_space(t)->tasks++;
    int64_t due_ms = t->due.at_ms;
    if (task_ended((enum task_state)t->state)) {
        ended_add(s, t);
    } else {
        s->live++;
        s->schedules += t->is_schedule;
        s->away += t->state == TASK_ASSIGNED && l->node == 0;
    }
    if (l->node != 0) {
        hold(s, t, placement_find(&s->placement, l->node));
    }
    if (due_ms != 0) {
        due_set(&s->due, &t->due, due_ms);
    }
    if (t->state == TASK_QUEUED) {
        lanes_put(&s->lanes, flow_of(t), (enum task_lane)t->lane, l->name_space, &t->item);
        t->kept = placement_find(&s->placement, l->kept);
        if (t->kept != NULL) {
            t->kept->kept[t->lane] = quota_sum(t->kept->kept[t->lane], scheduler_need(t));
        }
    }
    return E_OK;
}
