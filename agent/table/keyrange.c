#include "agent/table/keyrange.h"

#include <string.h>

#include "include/grey/must.h"

static size_t size_of(const struct keyrange *g) {
    return sizeof *g + g->low_bytes + g->high_bytes;
}

struct keyrange *keyrange_new(enum table_id id, struct bytes low, struct bytes high) {
    must(id > 0 && id <= TABLE_ID_MAX && low.size <= UINT16_MAX && high.size <= UINT16_MAX);
    struct keyrange *g = mem_new(1, sizeof *g + low.size + high.size);
    if (g == NULL) {
        return NULL;
    }
    g->id = id;
    g->low_bytes = (uint16_t)low.size;
    g->high_bytes = (uint16_t)high.size;
    if (low.size > 0) {
        memcpy(g->bytes, low.data, low.size);
    }
    if (high.size > 0) {
        memcpy(g->bytes + low.size, high.data, high.size);
    }
    return g;
}

struct bytes keyrange_low(const struct keyrange *g) {
    return bytes_of(g->bytes, g->low_bytes);
}

struct bytes keyrange_high(const struct keyrange *g) {
    return bytes_of(g->bytes + g->low_bytes, g->high_bytes);
}

static bool holds(const struct keyrange *outer, const struct keyrange *inner) {
    return outer->id == inner->id && bytes_compare(keyrange_low(outer), keyrange_low(inner)) <= 0 &&
           bytes_compare(keyrange_high(outer), keyrange_high(inner)) >= 0;
}

static struct keyrange *take_out(struct keyrange_list *l, struct keyrange **place) {
    struct keyrange *g = *place;
    *place = g->next;
    l->bytes -= size_of(g);
    return g;
}

void keyrange_add(struct keyrange_list *l, struct keyrange *g) {
    for (struct keyrange **place = &l->first; *place != NULL;) {
        if (holds(*place, g)) {
            mem_free(g);
            return;
        }
        if (holds(g, *place)) {
            mem_free(take_out(l, place));
        } else {
            place = &(*place)->next;
        }
    }
    g->next = l->first;
    l->first = g;
    l->bytes += size_of(g);
}

bool keyrange_covers(const struct keyrange_list *l, enum table_id id, struct bytes key) {
    for (const struct keyrange *g = l->first; g != NULL; g = g->next) {
        if (g->id == id && bytes_compare(keyrange_low(g), key) <= 0 && bytes_compare(key, keyrange_high(g)) < 0) {
            return true;
        }
    }
    return false;
}

void keyrange_move(struct keyrange_list *to, struct keyrange_list *from) {
    while (from->first != NULL) {
        keyrange_add(to, take_out(from, &from->first));
    }
}

void keyrange_clear(struct keyrange_list *l) {
    while (l->first != NULL) {
        mem_free(take_out(l, &l->first));
    }
}
