#include "agent/store/mendask.h"

#include <string.h>

bool mendask_begin(struct mendask *a, const struct raft_members *members, raft_id self, const char *node, uint64_t now_ms) {
    uint32_t voters = 0, voters_old = 0;
    *a = (struct mendask){.begun_ms = now_ms};
    for (uint32_t i = 0; i < members->count; i++) {
        const struct raft_member *m = &members->at[i];
        voters += m->voter;
        voters_old += m->voter_old;
        if (m->id != self && strcmp(m->node.text, node) != 0) {
            a->at[a->count++] =
                (struct mendask_other){.id = m->id, .voter = m->voter, .voter_old = m->voter_old, .gateway = !m->witness};
        }
    }
    a->needed = voters / 2 + 1;
    a->needed_old = voters_old > 0 ? voters_old / 2 + 1 : 0;
    return a->count > 0;
}

/* fruitless: of those only that were asked in vain.  What a learner has need not be all that is committed. */
static bool majority_whole(const struct mendask *a, bool fruitless) {
    uint32_t whole = 0, whole_old = 0;
    for (uint32_t i = 0; i < a->count; i++) {
        const struct mendask_other *o = &a->at[i];
        bool well = o->gateway ? o->whole && (o->fruitless || !fruitless) : o->up;
        whole += well && o->voter;
        whole_old += well && o->voter_old;
    }
    return whole >= a->needed && whole_old >= a->needed_old;
}

bool mendask_others_whole(const struct mendask *a) {
    return majority_whole(a, false);
}

static bool all_fruitless(const struct mendask *a) {
    bool fruitless = true;
    for (uint32_t i = 0; i < a->count; i++) {
        fruitless = fruitless && (a->at[i].fruitless || !a->at[i].gateway);
    }
    return fruitless;
}

enum mendask_step mendask_next(struct mendask *a, bool may_forgo, uint64_t now_ms) {
    if (a->waiting_for != 0 && now_ms - a->asked_ms < MENDASK_ANSWER_MS) {
        return MENDASK_WAIT;
    }
    a->waiting_for = 0;
    bool fruitless = all_fruitless(a), late = now_ms - a->begun_ms >= MENDASK_PATIENCE_MS;
    if (may_forgo && (fruitless || late)) {
        return MENDASK_FORGO;
    }
    return (fruitless || late) && majority_whole(a, true) ? MENDASK_HOPELESS : MENDASK_ASK;
}

raft_id mendask_whom(struct mendask *a) {
    for (uint32_t i = 0; i < a->count; i++) {
        const struct mendask_other *o = &a->at[a->next++ % a->count];
        if (o->gateway && o->up) {
            return o->id;
        }
    }
    return 0;
}

void mendask_sent(struct mendask *a, raft_id to, uint64_t now_ms) {
    a->waiting_for = to;
    a->asked_ms = now_ms;
}

void mendask_forgone(struct mendask *a) {
    for (uint32_t i = 0; i < a->count; i++) {
        a->at[i].fruitless = false;
    }
}

void mendask_answered(struct mendask *a, raft_id from, bool whole, bool to_this, uint32_t taken) {
    for (uint32_t i = 0; i < a->count; i++) {
        struct mendask_other *o = &a->at[i];
        o->fruitless = taken == 0 && (o->fruitless || (o->id == from && to_this));
        o->whole = o->id == from ? whole : o->whole;
    }
    if (a->waiting_for == from && (to_this || taken > 0)) {
        a->waiting_for = 0;
        a->next = taken > 0 ? a->next + a->count - 1 : a->next; /* who could help is asked again */
    }
}

void mendask_link(struct mendask *a, raft_id id, bool up) {
    for (uint32_t i = 0; i < a->count; i++) {
        if (a->at[i].id == id) {
            a->at[i].up = up;
            a->at[i].fruitless = a->at[i].fruitless && up;
            a->at[i].whole = a->at[i].whole && up;
        }
    }
    a->waiting_for = !up && a->waiting_for == id ? 0 : a->waiting_for;
}

uint32_t mendask_links(const struct mendask *a) {
    uint32_t up = 0;
    for (uint32_t i = 0; i < a->count; i++) {
        up += a->at[i].up;
    }
    return up;
}

uint32_t mendask_whole(const struct mendask *a) {
    uint32_t whole = 0;
    for (uint32_t i = 0; i < a->count; i++) {
        whole += a->at[i].whole;
    }
    return whole;
}
