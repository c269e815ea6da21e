#include "agent/store/mendplan.h"

#include <inttypes.h>
#include <string.h>

#include "include/grey/must.h"
#include "platform/bytes.h"

#define VAIN_PER_ANCHOR 8u /* so many answers without success: another anchor is tried, one twice as far behind */
#define ANCHORS_MAX 40u

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

void mendplan_begin(struct mendplan *p, struct mendplan_log log, struct raft_point base, raft_index last,
                    struct raft_point applied) {
    mendplan_end(p);
    *p = (struct mendplan){.log = log, .base = base, .last = last, .applied = applied, .want = base.index + 1};
}

void mendplan_end(struct mendplan *p) {
    mem_free(p->live.at);
    mem_free(p->lost.at);
    *p = (struct mendplan){0};
}

static enum grey_error miss(struct mendplan *p, raft_index from, raft_index to, struct fault *f) {
    enum grey_error err = E_OK;
    for (; from <= to && err == E_OK; from++) {
        if (from <= p->applied.index && p->lost.count == MENDPLAN_MISSING_MAX / 2) {
            p->forgo = true;
            from = to < p->applied.index ? to : p->applied.index;
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

static raft_index readable_from(const struct mendplan *p, raft_index index, raft_term *term) {
    while (!p->log.term_of(p->log.context, index, term)) { /* the last entry's head is readable, so there is an end */
        must(++index <= p->last);
    }
    return index;
}

/* The entry before a hole is there: it is the first one. */
static void measure_hole(struct mendplan *p, raft_index from, raft_index readable, raft_term term) {
    raft_term before = p->base.term;
    bool known = from - 1 == p->base.index || p->log.term_of(p->log.context, from - 1, &before);
    p->hole_from = from;
    p->hole_to = readable;
    p->hole_term = readable == from || (known && before == term) ? term : 0;
}

bool mendplan_need(struct mendplan *p, struct mendplan_need *need) {
    const struct mendplan_list *l = p->live.count > 0 ? &p->live : &p->lost;
    if (l->count == 0) {
        return false;
    }
    *need = (struct mendplan_need){.from = l->at[0], .to = l->at[0]};
    for (uint32_t i = 1; i < l->count && l->at[i] == need->to + 1 && i < MENDPLAN_ASK_MAX; i++) {
        need->to++;
    }
    if (l == &p->lost) {
        raft_index first = readable_from(p, need->from, &need->anchor_term), further = 0;
        measure_hole(p, need->from, first, need->anchor_term);
        need->to = first < need->to ? first : need->to;
        uint32_t doubling = p->vain / VAIN_PER_ANCHOR;
        further = doubling == 0 ? 0 : (raft_index)1 << (doubling - 1);
        if (doubling > ANCHORS_MAX || further > p->last - first) {
            p->vain = 0;
            further = 0;
        }
        need->anchor = readable_from(p, first + further, &need->anchor_term);
    }
    p->asked = *need;
    return true;
}

bool mendplan_take(struct mendplan *p, const struct mendplan_offer *o, const struct entry *e, const struct entry *here) {
    bool certain = e->index <= p->applied.index && e->index <= o->certain;
    bool same = o->same && e->index <= o->anchor;
    bool of_term = p->hole_term != 0 && e->term == p->hole_term && e->index >= p->hole_from && e->index <= p->hole_to;
    if (!(certain || same || of_term) || e->index < o->from || e->index > o->to || e->stripped_bytes > 0) {
        return false;
    }
    if (here != NULL && (here->term != e->term || memcmp(here->digest, e->digest, DIGEST_BYTES) != 0)) {
        return false; /* another entry than was here */
    }
    return list_remove(e->index <= p->base.index ? &p->live : &p->lost, e->index); /* false: not asked for */
}

bool mendplan_answered(struct mendplan *p, const struct mendplan_offer *o, uint32_t taken) {
    bool to_this = o->from == p->asked.from && o->anchor == p->asked.anchor;
    p->vain = taken > 0 ? 0 : p->vain + to_this;
    return to_this;
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
    return p->lost.count > 0 && p->lost.at[0] <= p->applied.index;
}

void mendplan_forgo(struct mendplan *p) {
    uint32_t below = 0;
    while (below < p->lost.count && p->lost.at[below] <= p->applied.index) {
        below++;
    }
    if (below > 0) {
        memmove(p->lost.at, p->lost.at + below, (p->lost.count - below) * sizeof p->lost.at[0]);
        p->lost.count -= below;
    }
    p->base = p->applied;
    p->hole_from = p->hole_to = p->hole_term = 0;
}
