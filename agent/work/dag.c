#include "agent/work/dag.h"

#include <string.h>

#include "include/grey/must.h"

enum { BUCKETS_MIN = 64 };

struct dag_edge {
    struct dag_vertex *from, *to;               /* from waits for to */
    struct dag_edge *next_of_from, *next_of_to; /* in the order of the ids at their other ends */
};

struct dag {
    struct dag_vertex **buckets;
    size_t bucket_count; /* a power of two */
    size_t count, owned;
    uint32_t visit;
};

static uint32_t hash_of(struct bytes id) { /* FNV-1a */
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < id.size; i++) {
        h = (h ^ id.data[i]) * 16777619u;
    }
    return h;
}

static struct bytes id_of(const struct dag_vertex *v) {
    return bytes_of(v->id, v->id_bytes);
}

struct dag *dag_new(void) {
    struct dag *d = mem_new(1, sizeof *d);
    if (d != NULL) {
        d->bucket_count = BUCKETS_MIN;
        d->buckets = mem_new(d->bucket_count, sizeof(struct dag_vertex *));
        if (d->buckets == NULL) {
            mem_free(d);
            d = NULL;
        }
    }
    return d;
}

void dag_free(struct dag *d) {
    if (d == NULL) {
        return;
    }
    for (size_t i = 0; i < d->bucket_count; i++) {
        while (d->buckets[i] != NULL) {
            struct dag_vertex *v = d->buckets[i];
            d->buckets[i] = v->next_in_bucket;
            while (v->waits_for != NULL) {
                struct dag_edge *e = v->waits_for;
                v->waits_for = e->next_of_from;
                mem_free(e);
            }
            mem_free(v);
        }
    }
    mem_free(d->buckets);
    mem_free(d);
}

size_t dag_count(const struct dag *d) {
    return d->owned;
}

struct dag_vertex *dag_find(const struct dag *d, struct bytes id) {
    uint32_t hash = hash_of(id);
    struct dag_vertex *v = d->buckets[hash & (d->bucket_count - 1)];
    while (v != NULL && (v->hash != hash || !bytes_equal(id_of(v), id))) {
        v = v->next_in_bucket;
    }
    return v;
}

struct dag_vertex *dag_next(const struct dag *d, const struct dag_vertex *v) {
    size_t bucket = v == NULL ? 0 : (v->hash & (d->bucket_count - 1)) + 1;
    struct dag_vertex *next = v == NULL ? NULL : v->next_in_bucket;
    while ((next == NULL && bucket < d->bucket_count) || (next != NULL && next->owner == NULL)) {
        next = next == NULL ? d->buckets[bucket++] : next->next_in_bucket;
    }
    return next;
}

/* More buckets when there is memory for them; without, chains are longer. */
static void spread(struct dag *d) {
    if (d->count < d->bucket_count) {
        return;
    }
    struct dag_vertex **wider = mem_new(2 * d->bucket_count, sizeof(struct dag_vertex *));
    if (wider == NULL) {
        return;
    }
    size_t mask = 2 * d->bucket_count - 1;
    for (size_t i = 0; i < d->bucket_count; i++) {
        while (d->buckets[i] != NULL) {
            struct dag_vertex *v = d->buckets[i];
            d->buckets[i] = v->next_in_bucket;
            v->next_in_bucket = wider[v->hash & mask];
            wider[v->hash & mask] = v;
        }
    }
    mem_free(d->buckets);
    d->buckets = wider;
    d->bucket_count = mask + 1;
}

static struct dag_vertex *vertex_make(struct dag *d, struct bytes id) {
    must(id.size > 0 && id.size <= LIMIT_NAME_BYTES);
    struct dag_vertex *v = mem_new(1, offsetof(struct dag_vertex, id) + id.size + 1);
    if (v == NULL) {
        return NULL;
    }
    memcpy(v->id, id.data, id.size);
    v->id_bytes = (uint8_t)id.size;
    v->hash = hash_of(id);
    spread(d);
    struct dag_vertex **bucket = &d->buckets[v->hash & (d->bucket_count - 1)];
    v->next_in_bucket = *bucket;
    *bucket = v;
    d->count++;
    return v;
}

static void vertex_drop(struct dag *d, struct dag_vertex *v) {
    must(v->owner == NULL && v->wanted_by == NULL && v->waits_for == NULL);
    struct dag_vertex **at = &d->buckets[v->hash & (d->bucket_count - 1)];
    while (*at != v) {
        must(*at != NULL);
        at = &(*at)->next_in_bucket;
    }
    *at = v->next_in_bucket;
    d->count--;
    mem_free(v);
}

/* --- Cycles ------------------------------------------------------------------------------------------------------------------------------- */

/* Appends " waits for ID", with the middle of a long cycle left out. */
static void name_add(struct builder *b, const struct dag_vertex *v, size_t place, size_t length) {
    enum { SHOWN_AT_EACH_END = 4 };
    if (place < SHOWN_AT_EACH_END || place + SHOWN_AT_EACH_END >= length) {
        builder_add_str(b, " waits for ");
        builder_add(b, id_of(v));
    } else if (place == SHOWN_AT_EACH_END) {
        builder_addf(b, " ... (%zu more) ...", length - 2 * SHOWN_AT_EACH_END);
    }
}

static enum grey_error cycle_name(struct dag_vertex *goal, struct bytes id, struct fault *f) {
    struct builder text;
    builder_init(&text, 2048);
    builder_add(&text, id);
    /* via leads from the goal back to the start: turn it round. */
    struct dag_vertex *path = NULL;
    size_t length = 0;
    for (struct dag_vertex *v = goal; v != NULL; length++) {
        struct dag_vertex *back = v->via;
        v->via = path;
        path = v;
        v = back;
    }
    size_t place = 0;
    for (const struct dag_vertex *v = path; v != NULL; v = v->via) {
        name_add(&text, v, place++, length);
    }
    enum grey_error err = fault_set(f, E_CYCLE, "%.*s", (int)text.size, (const char *)text.data);
    builder_free(&text);
    return err;
}

enum grey_error dag_check(struct dag *d, struct bytes id, const struct bytes *on, size_t count, struct fault *f) {
    const struct dag_vertex *self = dag_find(d, id);
    for (size_t i = 0; i < count; i++) {
        if (bytes_equal(on[i], id)) {
            return fault_set(f, E_CYCLE, "%.*s waits for itself", (int)id.size, (const char *)id.data);
        }
    }
    if (self == NULL || self->wanted_by == NULL) {
        return E_OK; /* nobody waits for it, so nothing leads back */
    }
    uint32_t visit = ++d->visit;
    struct dag_vertex *first = NULL, **last = &first;
    for (size_t i = 0; i < count; i++) {
        struct dag_vertex *v = dag_find(d, on[i]);
        if (v != NULL && v->visit != visit) {
            v->visit = visit;
            v->via = v->next_to_visit = NULL;
            *last = v;
            last = &v->next_to_visit;
        }
    }
    for (struct dag_vertex *v = first; v != NULL; v = v->next_to_visit) {
        for (const struct dag_edge *e = v->waits_for; e != NULL; e = e->next_of_from) {
            struct dag_vertex *to = e->to;
            if (to->visit == visit) {
                continue;
            }
            to->visit = visit;
            to->via = v;
            to->next_to_visit = NULL;
            if (to == self) {
                return cycle_name(to, id, f);
            }
            *last = to;
            last = &to->next_to_visit;
        }
    }
    return E_OK;
}

/* --- Edges --------------------------------------------------------------------------------------------------------------------------------- */

static void edge_drop(struct dag_edge *e) {
    struct dag_edge **at = &e->from->waits_for;
    while (*at != e) {
        must(*at != NULL);
        at = &(*at)->next_of_from;
    }
    *at = e->next_of_from;
    for (at = &e->to->wanted_by; *at != e; at = &(*at)->next_of_to) {
        must(*at != NULL);
    }
    *at = e->next_of_to;
    e->from->unmet--;
    mem_free(e);
}

static void forget_if_unknown(struct dag *d, struct dag_vertex *v) {
    if (v->owner == NULL && v->wanted_by == NULL) {
        vertex_drop(d, v);
    }
}

const char *dag_waits_for(const struct dag_vertex *v, uint32_t n) {
    must(n < v->unmet);
    const struct dag_edge *e = v->waits_for;
    while (n-- > 0) {
        e = e->next_of_from;
    }
    return e->to->id;
}

/* It waits for nothing any more. */
static void give_up(struct dag *d, struct dag_vertex *v) {
    while (v->waits_for != NULL) {
        struct dag_vertex *to = v->waits_for->to;
        edge_drop(v->waits_for);
        forget_if_unknown(d, to);
    }
}

static bool edge_add(struct dag_vertex *from, struct dag_vertex *to) {
    struct dag_edge *e = mem_new(1, sizeof *e);
    if (e == NULL) {
        return false;
    }
    e->from = from;
    e->to = to;
    struct dag_edge **at = &from->waits_for;
    while (*at != NULL && bytes_compare(id_of((*at)->to), id_of(to)) < 0) {
        at = &(*at)->next_of_from;
    }
    e->next_of_from = *at;
    *at = e;
    at = &to->wanted_by;
    while (*at != NULL && bytes_compare(id_of((*at)->from), id_of(from)) < 0) {
        at = &(*at)->next_of_to;
    }
    e->next_of_to = *at;
    *at = e;
    must(from->unmet < UINT16_MAX);
    from->unmet++;
    return true;
}

enum grey_error dag_add(struct dag *d, struct bytes id, const struct bytes *on, size_t count, void *owner,
                        bool (*met)(const struct dag_vertex *v), struct dag_vertex **out) {
    must(owner != NULL);
    struct dag_vertex *v = dag_find(d, id);
    must(v == NULL || v->owner == NULL);
    v = v != NULL ? v : vertex_make(d, id);
    if (v == NULL) {
        return E_NO_MEMORY;
    }
    v->owner = owner; /* so that it stays while its edges are made */
    for (size_t i = 0; i < count; i++) {
        struct dag_vertex *to = dag_find(d, on[i]);
        if (to != NULL && to->owner != NULL && met(to)) {
            continue;
        }
        to = to != NULL ? to : vertex_make(d, on[i]);
        if (to == NULL || !edge_add(v, to)) {
            if (to != NULL) {
                forget_if_unknown(d, to);
            }
            give_up(d, v);
            v->owner = NULL;
            forget_if_unknown(d, v);
            return E_NO_MEMORY;
        }
    }
    d->owned++;
    *out = v;
    return E_OK;
}

void dag_finish(struct dag *d, struct dag_vertex *v, void (*ready)(void *context, struct dag_vertex *w), void *context) {
    give_up(d, v);
    while (v->wanted_by != NULL) {
        struct dag_vertex *from = v->wanted_by->from;
        edge_drop(v->wanted_by);
        ready(context, from);
    }
}

void dag_remove(struct dag *d, struct dag_vertex *v) {
    must(v->owner != NULL);
    give_up(d, v);
    v->owner = NULL;
    d->owned--;
    forget_if_unknown(d, v);
}
