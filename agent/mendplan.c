#include "agent/mendplan.h"

#include <inttypes.h>
#include <string.h>

#include "include/grey/must.h"
#include "platform/bytes.h"

static enum grey_error list_add(struct mendplan_list *l, raft_index index, struct fault *f) {
    if (l->count == MENDPLAN_MISSING_MAX) {
        return fault_set(f, E_CORRUPT, "log.db: more than %u entries are damaged", MENDPLAN_MISSING_MAX);
    }
    if (l->count == l->capacity) {
        uint32_t capacity = l->capacity == 0 ? 64 : l->capacity * 2;
        raft_index *grown = mem_grow(l->at, capacity, sizeof *grown);
        if (grown == NULL) {
            return fault_set(f, E_NO_MEMORY, "listing damaged entries");
        }
        l->at = grown;
        l->capacity = capacity;
    }
    l->at[l->count++] = index;
    return E_OK;
}

static bool list_remove(struct mendplan_list *l, raft_index index) {
    for (uint32_t i = 0; i < l->count && l->at[i] <= index; i++) {
        if (l->at[i] == index) {
            memmove(&l->at[i], &l->at[i + 1], (l->count - i - 1) * sizeof l->at[0]);
            l->count--;
            return true;
        }
    }
    return false;
}

void mendplan_begin(struct mendplan *p, raft_index base, raft_index last, raft_index applied) {
    mendplan_end(p);
    *p = (struct mendplan){.base = base, .last = last, .applied = applied, .want = base + 1};
}

void mendplan_end(struct mendplan *p) {
    mem_free(p->live.at);
    mem_free(p->lost.at);
    *p = (struct mendplan){0};
}

static enum grey_error miss(struct mendplan *p, raft_index from, raft_index to, struct fault *f) {
    enum grey_error err = E_OK;
    for (; from <= to && err == E_OK; from++) {
        if (from <= p->applied && p->lost.count == MENDPLAN_MISSING_MAX / 2) {
            p->forgo = true;
            from = to < p->applied ? to : p->applied;
        } else {
            err = list_add(&p->lost, from, f);
        }
    }
    return err;
}

enum grey_error mendplan_row(struct mendplan *p, raft_index index, bool holds, struct fault *f) {
    enum grey_error err = miss(p, p->want, holds ? index - 1 : index, f);
    p->want = index + 1;
    return err;
}

enum grey_error mendplan_looked(const struct mendplan *p, struct fault *f) {
    return p->want == p->last + 1 ? E_OK : fault_set(f, E_CORRUPT, "log.db: its end, entry %" PRIu64 ", cannot be read", p->last);
}

enum grey_error mendplan_live(struct mendplan *p, raft_index index, struct fault *f) {
    return list_add(&p->live, index, f);
}

uint32_t mendplan_missing(const struct mendplan *p) {
    return p->live.count + p->lost.count;
}

bool mendplan_need(const struct mendplan *p, bool (*term_of)(void *context, raft_index index, raft_term *term), void *context,
                   struct mendplan_need *need) {
    const struct mendplan_list *l = p->live.count > 0 ? &p->live : &p->lost;
    if (l->count == 0) {
        return false;
    }
    *need = (struct mendplan_need){.from = l->at[0], .to = l->at[0]};
    for (uint32_t i = 1; i < l->count && l->at[i] == need->to + 1 && i < MENDPLAN_ASK_MAX; i++) {
        need->to++;
    }
    if (l == &p->lost) { /* the last entry's head is readable, so there is an end */
        need->anchor = need->from;
        while (!term_of(context, need->anchor, &need->anchor_term)) {
            must(++need->anchor <= p->last);
        }
        need->to = need->anchor < need->to ? need->anchor : need->to;
    }
    return true;
}

bool mendplan_take(struct mendplan *p, const struct mendplan_offer *o, const struct entry *e, const struct entry *here) {
    bool certain = e->index <= p->applied && e->index <= o->certain;
    bool same = o->same && e->index <= o->anchor;
    if (!(certain || same) || e->index < o->from || e->index > o->to || e->stripped_bytes > 0) {
        return false;
    }
    if (here != NULL && (here->term != e->term || memcmp(here->digest, e->digest, DIGEST_BYTES) != 0)) {
        return false; /* another entry than was here */
    }
    return list_remove(e->index <= p->base ? &p->live : &p->lost, e->index); /* false: not asked for */
}

uint32_t mendplan_freed(struct mendplan *p, const struct mendplan_offer *o) {
    uint32_t freed = 0;
    for (uint32_t i = 0; o->whole && i < p->live.count;) {
        raft_index index = p->live.at[i];
        if (index >= o->from && index <= o->to && index <= o->certain) { /* an entry to come removes the row */
            (void)list_remove(&p->live, index);
            freed++;
        } else {
            i++;
        }
    }
    return freed;
}

bool mendplan_may_forgo(const struct mendplan *p) {
    return p->lost.count > 0 && p->lost.at[0] <= p->applied;
}

void mendplan_forgo(struct mendplan *p) {
    uint32_t below = 0;
    while (below < p->lost.count && p->lost.at[below] <= p->applied) {
        below++;
    }
    if (below > 0) {
        memmove(p->lost.at, p->lost.at + below, (p->lost.count - below) * sizeof p->lost.at[0]);
        p->lost.count -= below;
    }
    p->base = p->applied;
}
