/* One treap per table holds the rows in memory, each one allocation.  A row stands in exactly one list:
 *
 *   fresh   as on disk (or known not to be there), loaded and not read since
 *   used    as on disk, least recently used last
 *   dirty   changed since the last flush began; with `found` false it is a deletion
 *   flight  lent to the storage thread.  When it changes meanwhile, a new dirty row takes its place in the treap and the lent one,
 *           now `detached`, is freed when the flush is done.
 *
 * Range deletions take effect in memory at once; what must still happen on disk stands in a list of ranges.  A flush hands over the
 * ranges first and the rows after them, which is the same as the order of calling: a row put before a range deletion that covers it
 * is gone from memory, a row put after it must survive it.  So a row that comes and goes between two flushes is never written. */
#include "agent/table.h"

#include <string.h>

#include "include/grey/must.h"

#define FRESH_FACTOR 4u /* rows loaded and not read yet may take this many times clean_bytes_max */

enum row_list { LIST_FRESH, LIST_USED, LIST_DIRTY, LIST_FLIGHT, LIST_COUNT };

struct row {
    struct row *left, *right;    /* treap: ordered by key, heap by weight */
    struct row *newer, *older;   /* of its list */
    raft_index ref;
    uint32_t weight;
    uint32_t value_bytes;
    uint16_t key_bytes;
    uint8_t id;
    uint8_t list : 2;
    bool found : 1;           /* false: known to be absent, or (dirty) to be deleted */
    bool maybe_on_disk : 1;   /* dirty: deleting it takes a write */
    bool detached : 1;        /* flight: no longer in the treap */
    uint8_t bytes[];          /* key, value */
};

struct range {
    struct range *next;
    enum table_id id;
    uint16_t low_bytes, high_bytes;
    uint8_t bytes[]; /* low, high */
};

struct list {
    struct row *newest, *oldest;
    size_t bytes, count;
};

struct table {
    struct row *roots[TABLE_ID_MAX + 1];
    struct list lists[LIST_COUNT];
    struct range *ranges, *flight_ranges;
    struct table_op *ops;
    size_t op_count;
    size_t range_bytes;
    size_t clean_bytes_max;
    uint32_t weight_seed;
    bool flushing;
};

/* --- Rows and lists --------------------------------------------------------------------------------------------------------------- */

static struct bytes key_of(const struct row *r) {
    return bytes_of(r->bytes, r->key_bytes);
}

static struct bytes value_of(const struct row *r) {
    return bytes_of(r->bytes + r->key_bytes, r->value_bytes);
}

static size_t size_of(const struct row *r) {
    return sizeof *r + r->key_bytes + r->value_bytes;
}

static bool pinned(enum table_id id) {
    return id == TABLE_META || id == TABLE_SEGMENT;
}

static void list_add(struct table *t, struct row *r, enum row_list which) {
    struct list *l = &t->lists[which];
    r->list = (uint8_t)which & 3u;
    r->newer = NULL;
    r->older = l->newest;
    if (l->newest != NULL) {
        l->newest->newer = r;
    } else {
        l->oldest = r;
    }
    l->newest = r;
    l->bytes += size_of(r);
    l->count++;
}

static void list_remove(struct table *t, struct row *r) {
    struct list *l = &t->lists[r->list];
    must(l->count > 0 && l->bytes >= size_of(r));
    *(r->newer != NULL ? &r->newer->older : &l->newest) = r->older;
    *(r->older != NULL ? &r->older->newer : &l->oldest) = r->newer;
    l->bytes -= size_of(r);
    l->count--;
}

static void drop(struct table *t, struct row *r) {
    list_remove(t, r);
    mem_free(r);
}

static struct row *row_new(enum table_id id, struct bytes key, bool found, struct bytes value, raft_index ref) {
    must(id > 0 && id <= TABLE_ID_MAX && key.size <= UINT16_MAX && value.size <= UINT32_MAX);
    struct row *r = mem_new(1, sizeof *r + key.size + value.size);
    if (r == NULL) {
        return NULL;
    }
    r->id = (uint8_t)id;
    r->key_bytes = (uint16_t)key.size;
    r->value_bytes = (uint32_t)value.size;
    r->found = found;
    r->ref = ref;
    if (key.size > 0) {
        memcpy(r->bytes, key.data, key.size);
    }
    if (value.size > 0) {
        memcpy(r->bytes + key.size, value.data, value.size);
    }
    return r;
}

/* --- Treap ------------------------------------------------------------------------------------------------------------------------ */

static struct row **place_of(struct table *t, enum table_id id, struct bytes key) {
    must(id > 0 && id <= TABLE_ID_MAX);
    struct row **place = &t->roots[id];
    while (*place != NULL) {
        int order = bytes_compare(key, key_of(*place));
        if (order == 0) {
            break;
        }
        place = order < 0 ? &(*place)->left : &(*place)->right;
    }
    return place;
}

/* All rows below key go to *low, the rest to *high. */
static void split(struct row *root, struct bytes key, struct row **low, struct row **high) {
    while (root != NULL) {
        if (bytes_compare(key_of(root), key) < 0) {
            *low = root;
            low = &root->right;
            root = root->right;
        } else {
            *high = root;
            high = &root->left;
            root = root->left;
        }
    }
    *low = NULL;
    *high = NULL;
}

/* Every key of low is below every key of high. */
static struct row *join(struct row *low, struct row *high) {
    struct row *root, **place = &root;
    while (low != NULL && high != NULL) {
        if (low->weight >= high->weight) {
            *place = low;
            place = &low->right;
            low = low->right;
        } else {
            *place = high;
            place = &high->left;
            high = high->left;
        }
    }
    *place = low != NULL ? low : high;
    return root;
}

static void insert(struct table *t, struct row *r) {
    uint32_t x = t->weight_seed; /* xorshift32: never 0 */
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    t->weight_seed = x;
    r->weight = x;
    struct row **place = &t->roots[r->id];
    while (*place != NULL && (*place)->weight >= r->weight) {
        place = bytes_compare(key_of(r), key_of(*place)) < 0 ? &(*place)->left : &(*place)->right;
    }
    split(*place, key_of(r), &r->left, &r->right);
    *place = r;
}

static void take_out(struct row **place) {
    *place = join((*place)->left, (*place)->right);
}

/* r takes the place of the row there, which leaves the treap but not its list. */
static void replace(struct row **place, struct row *r) {
    r->weight = (*place)->weight;
    r->left = (*place)->left;
    r->right = (*place)->right;
    *place = r;
}

static const struct row *first_from(const struct table *t, enum table_id id, struct bytes from, bool beyond) {
    const struct row *best = NULL, *r = t->roots[id];
    while (r != NULL) {
        int order = bytes_compare(key_of(r), from);
        if (order > 0 || (order == 0 && !beyond)) {
            best = r;
            r = r->left;
        } else {
            r = r->right;
        }
    }
    return best;
}

/* --- Ranges ----------------------------------------------------------------------------------------------------------------------- */

static struct bytes low_of(const struct range *g) {
    return bytes_of(g->bytes, g->low_bytes);
}

static struct bytes high_of(const struct range *g) {
    return bytes_of(g->bytes + g->low_bytes, g->high_bytes);
}

static size_t range_size(const struct range *g) {
    return sizeof *g + g->low_bytes + g->high_bytes;
}

static struct range *range_new(enum table_id id, struct bytes low, struct bytes high) {
    must(id > 0 && id <= TABLE_ID_MAX && low.size <= UINT16_MAX && high.size <= UINT16_MAX);
    struct range *g = mem_new(1, sizeof *g + low.size + high.size);
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

static bool holds(const struct range *outer, const struct range *inner) {
    return outer->id == inner->id && bytes_compare(low_of(outer), low_of(inner)) <= 0 &&
           bytes_compare(high_of(outer), high_of(inner)) >= 0;
}

/* Takes g.  Ranges that lie within another fall together; the outbox deletes from the bottom up, so that few are left. */
static void range_add(struct table *t, struct range *g) {
    for (struct range **place = &t->ranges; *place != NULL;) {
        struct range *other = *place;
        if (holds(other, g)) {
            mem_free(g);
            return;
        }
        if (holds(g, other)) {
            *place = other->next;
            t->range_bytes -= range_size(other);
            mem_free(other);
        } else {
            place = &other->next;
        }
    }
    g->next = t->ranges;
    t->ranges = g;
    t->range_bytes += range_size(g);
}

static bool in_ranges(const struct range *g, enum table_id id, struct bytes key) {
    for (; g != NULL; g = g->next) {
        if (g->id == id && bytes_compare(low_of(g), key) <= 0 && bytes_compare(key, high_of(g)) < 0) {
            return true;
        }
    }
    return false;
}

/* True when a row that is not in memory is deleted, or will be when the ranges reach the disk. */
static bool covered(const struct table *t, enum table_id id, struct bytes key) {
    return in_ranges(t->ranges, id, key) || in_ranges(t->flight_ranges, id, key);
}

static void ranges_free(struct table *t, struct range **first) {
    while (*first != NULL) {
        struct range *g = *first;
        *first = g->next;
        t->range_bytes -= range_size(g);
        mem_free(g);
    }
}

/* --- Life ------------------------------------------------------------------------------------------------------------------------- */

struct table *table_new(size_t clean_bytes_max) {
    struct table *t = mem_new(1, sizeof *t);
    if (t != NULL) {
        t->clean_bytes_max = clean_bytes_max;
        t->weight_seed = 0x9e3779b9u;
    }
    return t;
}

void table_clear(struct table *t) {
    must(!t->flushing);
    for (size_t i = 0; i < LIST_COUNT; i++) {
        while (t->lists[i].newest != NULL) {
            drop(t, t->lists[i].newest);
        }
    }
    memset(t->roots, 0, sizeof t->roots);
    ranges_free(t, &t->ranges);
}

void table_free(struct table *t) {
    if (t == NULL) {
        return;
    }
    ranges_free(t, &t->flight_ranges);
    mem_free(t->ops);
    t->flushing = false;
    table_clear(t);
    mem_free(t);
}

/* --- Reading ---------------------------------------------------------------------------------------------------------------------- */

enum table_found table_get(struct table *t, enum table_id id, struct bytes key, struct bytes *value) {
    *value = bytes_of(NULL, 0);
    struct row *r = *place_of(t, id, key);
    if (r == NULL) {
        return pinned(id) || covered(t, id, key) ? TABLE_ABSENT : TABLE_UNKNOWN;
    }
    if (r->list == LIST_FRESH || r->list == LIST_USED) {
        list_remove(t, r);
        list_add(t, r, LIST_USED);
    }
    if (!r->found) {
        return TABLE_ABSENT;
    }
    *value = value_of(r);
    return TABLE_FOUND;
}

bool table_next(struct table *t, enum table_id id, struct bytes from, struct bytes *key, struct bytes *value, raft_index *ref) {
    must(id > 0 && id <= TABLE_ID_MAX);
    const struct row *r = first_from(t, id, from, false);
    while (r != NULL && !r->found) {
        r = first_from(t, id, key_of(r), true);
    }
    if (r == NULL) {
        *key = *value = bytes_of(NULL, 0);
        *ref = 0;
        return false;
    }
    *key = key_of(r);
    *value = value_of(r);
    *ref = r->ref;
    return true;
}

bool table_deleted(struct table *t, enum table_id id, struct bytes key) {
    const struct row *r = *place_of(t, id, key);
    return r == NULL ? covered(t, id, key) : !r->found;
}

/* --- Loading and forgetting ------------------------------------------------------------------------------------------------------- */

static void forget(struct table *t, struct row *r) {
    struct row **place = place_of(t, r->id, key_of(r));
    must(*place == r);
    take_out(place);
    drop(t, r);
}

static struct row *oldest_to_forget(const struct table *t, enum row_list which) {
    struct row *r = t->lists[which].oldest;
    while (r != NULL && pinned(r->id)) { /* pinned rows are kept out of these lists but for the moment of becoming clean */
        r = r->newer;
    }
    return r;
}
