#include "agent/work/due.h"

#include "include/grey/must.h"

enum grey_error due_reserve(struct due *d, uint32_t count) {
    if (count <= d->capacity) {
        return E_OK;
    }
    uint32_t capacity = d->capacity < 32 ? 64 : 2 * d->capacity;
    capacity = capacity < count ? count : capacity;
    struct due_item **items = mem_grow(d->items, capacity, sizeof *items);
    if (items == NULL) {
        return E_NO_MEMORY;
    }
    d->items = items;
    d->capacity = capacity;
    return E_OK;
}

void due_free(struct due *d) {
    mem_free(d->items);
    *d = (struct due){0};
}

static bool before(const struct due_item *a, const struct due_item *b) {
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->ticket < b->ticket;
}

static void put(struct due *d, uint32_t place, struct due_item *i) {
    d->items[place] = i;
    i->place = place + 1;
}

/* i belongs at `place` or above it or below it. */
static void settle(struct due *d, uint32_t place, struct due_item *i) {
    while (place > 0 && before(i, d->items[(place - 1) / 2])) {
        put(d, place, d->items[(place - 1) / 2]);
        place = (place - 1) / 2;
    }
    for (;;) {
        uint32_t child = 2 * place + 1;
        if (child + 1 < d->count && before(d->items[child + 1], d->items[child])) {
            child++;
        }
        if (child >= d->count || !before(d->items[child], i)) {
            break;
        }
        put(d, place, d->items[child]);
        place = child;
    }
    put(d, place, i);
}

void due_set(struct due *d, struct due_item *i, int64_t at_ms) {
    i->at_ms = at_ms;
    if (i->place == 0) {
        must(d->count < d->capacity);
        d->count++;
        settle(d, d->count - 1, i);
    } else {
        settle(d, i->place - 1, i);
    }
}

void due_clear(struct due *d, struct due_item *i) {
    if (i->place == 0) {
        return;
    }
    uint32_t place = i->place - 1;
    must(place < d->count && d->items[place] == i);
    i->place = 0;
    d->count--;
    if (place < d->count) {
        settle(d, place, d->items[d->count]);
    }
}

struct due_item *due_first(const struct due *d) {
    return d->count == 0 ? NULL : d->items[0];
}
