#include "agent/work/lanes.h"

#include <string.h>

#include "include/grey/must.h"

/* --- Queues -------------------------------------------------------------------------------------------------------------------------------- */

void lanes_flow_add(struct lanes *l, struct lane_flow *f) {
    must(l->flow_count < QUOTA_TENANTS_MAX && f->weight > 0);
    uint32_t place = l->flow_count;
    while (place > 0 && strcmp(l->flows[place - 1]->name, f->name) > 0) {
        l->flows[place] = l->flows[place - 1];
        place--;
    }
    l->flows[place] = f;
    l->flow_count++;
}

void lanes_flow_remove(struct lanes *l, struct lane_flow *f) {
    uint32_t place = 0;
    while (l->flows[place] != f) {
        place++;
        must(place < l->flow_count);
    }
    for (unsigned lane = 0; lane < LANE_COUNT; lane++) {
        must(f->counts[lane] == 0);
    }
    l->flow_count--;
    memmove(&l->flows[place], &l->flows[place + 1], (l->flow_count - place) * sizeof l->flows[0]);
}

void lanes_put(struct lanes *l, struct lane_flow *f, enum task_lane lane, unsigned name_space, struct lane_item *item) {
    must(item->queue == NULL && item->cost > 0 && name_space <= QUOTA_NAMESPACES_MAX);
    struct lane_queue *q = &f->queues[lane][name_space];
    struct lane_item *before = q->last; /* most are the youngest; one that comes back is among the oldest */
    if (before != NULL && q->first->ticket > item->ticket) {
        before = NULL;
    }
    while (before != NULL && before->ticket > item->ticket) {
        before = before->previous;
    }
    item->previous = before;
    item->next = before == NULL ? q->first : before->next;
    *(before == NULL ? &q->first : &before->next) = item;
    *(item->next == NULL ? &q->last : &item->next->previous) = item;
    item->queue = q;
    f->counts[lane]++;
    l->counts[lane]++;
}

static void deficit_set(struct lane_flow *f, enum task_lane lane, uint64_t deficit) {
    f->dirty = f->dirty || f->deficits[lane] != deficit;
    f->deficits[lane] = deficit;
}

void lanes_take(struct lanes *l, struct lane_flow *f, enum task_lane lane, struct lane_item *item) {
    struct lane_queue *q = item->queue;
    must(q != NULL && q >= &f->queues[lane][0] && q <= &f->queues[lane][QUOTA_NAMESPACES_MAX]);
    *(item->previous == NULL ? &q->first : &item->previous->next) = item->next;
    *(item->next == NULL ? &q->last : &item->next->previous) = item->previous;
    item->next = item->previous = NULL;
    item->queue = NULL;
    f->counts[lane]--;
    l->counts[lane]--;
    if (f->counts[lane] == 0) {
        deficit_set(f, lane, 0); /* who has nothing waiting saves nothing up */
    }
}

uint32_t lanes_waiting(const struct lanes *l) {
    uint32_t sum = 0;
    for (unsigned lane = 0; lane < LANE_COUNT; lane++) {
        sum += l->counts[lane];
    }
    return sum;
}

/* --- Serving ------------------------------------------------------------------------------------------------------------------------------- */

/* The oldest of a tenant's tasks that fits, of the first few of each namespace; NULL: none. */
static struct lane_item *choose(struct lane_flow *f, enum task_lane lane, const struct lanes_server *s) {
    struct lane_item *heads[QUOTA_NAMESPACES_MAX + 1];
    unsigned tries[QUOTA_NAMESPACES_MAX + 1], count = 0;
    for (unsigned n = 0; n <= QUOTA_NAMESPACES_MAX; n++) {
        if (f->queues[lane][n].first != NULL) {
            heads[count] = f->queues[lane][n].first;
            tries[count++] = LANES_LOOKAHEAD;
        }
    }
    while (count > 0) {
        unsigned oldest = 0;
        for (unsigned i = 1; i < count; i++) {
            oldest = heads[i]->ticket < heads[oldest]->ticket ? i : oldest;
        }
        if (s->fits(s->context, heads[oldest])) {
            return heads[oldest];
        }
        heads[oldest] = heads[oldest]->next;
        if (heads[oldest] == NULL || --tries[oldest] == 0) {
            count--;
            heads[oldest] = heads[count];
            tries[oldest] = tries[count];
        }
    }
    return NULL;
}

static uint64_t quantum(const struct lane_flow *f) {
    return (uint64_t)f->weight * LANES_QUANTUM;
}

enum visit { VISIT_BLOCKED, VISIT_SHORT, VISIT_EMPTY };

/* One turn of one flow.  BLOCKED: nothing of it fits; SHORT: what fits costs more than it has left; EMPTY: nothing waits. */
static enum visit visit(struct lanes *l, struct lane_flow *f, enum task_lane lane, bool *granted, bool *served,
                        const struct lanes_server *s) {
    while (f->counts[lane] > 0) {
        struct lane_item *item = choose(f, lane, s);
        if (item == NULL) {
            return VISIT_BLOCKED;
        }
        if (item->cost > f->deficits[lane] && !*granted) {
            *granted = true;
            deficit_set(f, lane, f->deficits[lane] + quantum(f));
        }
        if (item->cost > f->deficits[lane]) {
            return VISIT_SHORT;
        }
        deficit_set(f, lane, f->deficits[lane] - item->cost);
        lanes_take(l, f, lane, item);
        s->serve(s->context, item);
        *served = true;
    }
    return VISIT_EMPTY;
}

/* Nobody was served because all who fit are short: as many rounds at once as the first of them needs. */
static bool grant_rounds(struct lanes *l, enum task_lane lane, const bool *is_short, const struct lanes_server *s) {
    uint64_t rounds = UINT64_MAX;
    for (uint32_t i = 0; i < l->flow_count; i++) {
        const struct lane_item *item = is_short[i] ? choose(l->flows[i], lane, s) : NULL;
        if (item != NULL) {
            must(item->cost > l->flows[i]->deficits[lane]);
            uint64_t own = (item->cost - l->flows[i]->deficits[lane] + quantum(l->flows[i]) - 1) / quantum(l->flows[i]);
            rounds = own < rounds ? own : rounds;
        }
    }
    for (uint32_t i = 0; i < l->flow_count && rounds != UINT64_MAX && rounds > 1; i++) {
        if (is_short[i]) { /* the last of these rounds is the next pass */
            deficit_set(l->flows[i], lane, l->flows[i]->deficits[lane] + (rounds - 1) * quantum(l->flows[i]));
        }
    }
    return rounds != UINT64_MAX;
}

static uint32_t turn_find(const struct lanes *l, const struct lane_turn *turn) {
    for (uint32_t i = 0; i < l->flow_count; i++) {
        if (strcmp(l->flows[i]->name, turn->flow.text) >= 0) {
            return i;
        }
    }
    return 0;
}

static void turn_set(struct lane_turn *turn, const struct lane_flow *f) {
    memset(turn, 0, sizeof *turn);
    memcpy(turn->flow.text, f->name, strlen(f->name));
}

void lanes_run(struct lanes *l, enum task_lane lane, const struct lanes_server *s) {
    struct lane_turn *turn = &l->turns[lane];
    bool again = l->counts[lane] > 0 && l->flow_count > 0;
    while (again) {
        bool is_short[QUOTA_TENANTS_MAX] = {0};
        bool served = false, in_turn = true;
        uint32_t start = turn_find(l, turn);
        if (strcmp(l->flows[start]->name, turn->flow.text) != 0) {
            turn_set(turn, l->flows[start]);
        }
        for (uint32_t k = 0; k < l->flow_count && l->counts[lane] > 0; k++) {
            uint32_t at = (start + k) % l->flow_count;
            bool out_of_turn = false;
            enum visit v = visit(l, l->flows[at], lane, in_turn ? &turn->granted : &out_of_turn, &served, s);
            is_short[at] = v == VISIT_SHORT;
            if (v == VISIT_BLOCKED) {
                in_turn = false; /* it stays its turn; the others go on without */
            } else if (in_turn) {
                turn_set(turn, l->flows[(at + 1) % l->flow_count]);
            }
        }
        again = l->counts[lane] > 0 && (served || grant_rounds(l, lane, is_short, s));
    }
}
