/* One treap per table holds the rows in memory, each one allocation.  A row stands in exactly one list:
 *
 *   fresh   as on disk (or known not to be there), loaded and not read since
 *   used    as on disk, least recently used last
 *   dirty   changed since the last flush began; with `found` false it is a deletion
 *   pinned  as on disk, of a table that stays in memory
 *   flight  lent to the storage thread.  When it changes meanwhile, a new dirty row takes its place in the treap and the lent one,
 *           now `detached`, is freed when the flush is done.
 *
 * Range deletions take effect in memory at once; what must still happen on disk stands in a list of ranges.  A flush hands over the
 * ranges first and the rows after them, which is the same as the order of calling: a row put before a range deletion that covers it
 * is gone from memory, a row put after it must survive it.  So a row that comes and goes between two flushes is never written. */
#include "agent/table/table.h"

#include <string.h>

#include "agent/table/keyrange.h"
#include "include/grey/limits.h"
#include "include/grey/must.h"

#define FRESH_FACTOR 2u /* rows loaded and not read yet may take this many times clean_bytes_max */

enum row_list { LIST_FRESH, LIST_USED, LIST_PINNED, LIST_DIRTY, LIST_FLIGHT, LIST_COUNT };

struct row {
    struct row *left, *right;  /* treap: ordered by key, heap by weight */
    struct row *newer, *older; /* of its list */
    raft_index ref;
    uint32_t weight;
    uint32_t value_bytes;
    uint16_t key_bytes;
    uint8_t id;
    uint8_t list;
    bool found : 1;         /* false: known to be absent, or (dirty) to be deleted */
    bool maybe_on_disk : 1; /* dirty: deleting it takes a write */
    bool detached : 1;      /* flight: no longer in the treap */
    uint8_t bytes[];        /* key, value */
};

struct list {
    struct row *newest, *oldest;
    size_t bytes, count;
};

struct table {
    struct row *roots[TABLE_ID_MAX + 1];
    struct list lists[LIST_COUNT];
    struct keyrange_list ranges, flight_ranges; /* to be deleted on disk; lent to the storage thread */
    struct table_op *ops;
    size_t op_count;
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

static void list_add(struct table *t, struct row *r, enum row_list which) {
    struct list *l = &t->lists[which];
    r->list = (uint8_t)which;
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

/* True when a row that is not in memory is deleted, or will be when the ranges reach the disk. */
static bool covered(const struct table *t, enum table_id id, struct bytes key) {
    return keyrange_covers(&t->ranges, id, key) || keyrange_covers(&t->flight_ranges, id, key);
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
    keyrange_clear(&t->ranges);
}

void table_free(struct table *t) {
    if (t == NULL) {
        return;
    }
    keyrange_clear(&t->flight_ranges);
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
        return table_pinned(id) || covered(t, id, key) ? TABLE_ABSENT : TABLE_UNKNOWN;
    }
    if (r->list == LIST_FRESH || r->list == LIST_USED) { /* read: to the head of the used */
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

bool table_after(struct table *t, enum table_id id, struct bytes after, struct bytes *key, struct bytes *value, raft_index *ref) {
    uint8_t from[LIMIT_KEY_BYTES + 1] = {0}; /* the least key behind it: a zero more */
    must(after.size <= LIMIT_KEY_BYTES);
    if (after.size > 0) {
        memcpy(from, after.data, after.size);
    }
    return table_next(t, id, bytes_of(from, after.size == 0 ? 0 : after.size + 1), key, value, ref);
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

/* Each list for itself: rows that were loaded in vain must not drive out those that the next entry was just told are in memory. */
static void trim(struct table *t) {
    while (t->lists[LIST_USED].bytes > t->clean_bytes_max) {
        forget(t, t->lists[LIST_USED].oldest);
    }
    while (t->lists[LIST_FRESH].bytes / FRESH_FACTOR > t->clean_bytes_max) {
        forget(t, t->lists[LIST_FRESH].oldest);
    }
}

enum grey_error table_load(struct table *t, enum table_id id, struct bytes key, bool found, struct bytes value, raft_index ref) {
    if (*place_of(t, id, key) != NULL || covered(t, id, key) || (!found && table_pinned(id))) {
        return E_OK;
    }
    struct row *r = row_new(id, key, found, found ? value : bytes_of(NULL, 0), found ? ref : 0);
    if (r == NULL) {
        return E_NO_MEMORY;
    }
    insert(t, r);
    list_add(t, r, table_pinned(id) ? LIST_PINNED : LIST_FRESH);
    trim(t);
    return E_OK;
}

/* --- Changing: what may fail is done before (a row, a range is made), so that a list of changes is made whole ------------------------ */

/* Takes r, which says what the row is from now on (found) or that it is to be deleted. */
static void change_row(struct table *t, struct row *r) {
    struct row **place = place_of(t, (enum table_id)r->id, key_of(r));
    struct row *old = *place;
    if (old == NULL) {
        r->maybe_on_disk = !table_pinned((enum table_id)r->id) && !covered(t, (enum table_id)r->id, key_of(r));
        if (!r->found && !r->maybe_on_disk) {
            mem_free(r);
            return;
        }
        insert(t, r);
        list_add(t, r, LIST_DIRTY);
        return;
    }
    if (old->found == r->found && old->ref == r->ref && bytes_equal(value_of(old), value_of(r))) {
        mem_free(r); /* nothing changes, wherever it stands */
        return;
    }
    switch ((enum row_list)old->list) {
    case LIST_FRESH:
    case LIST_USED:
    case LIST_PINNED:
        r->maybe_on_disk = old->found;
        break;
    case LIST_DIRTY:
        r->maybe_on_disk = old->maybe_on_disk;
        break;
    case LIST_FLIGHT:
        r->maybe_on_disk = true;
        break;
    case LIST_COUNT:
        must(false);
    }
    if (!r->found && !r->maybe_on_disk && table_pinned((enum table_id)r->id)) {
        take_out(place);
        drop(t, old);
        mem_free(r);
        return;
    }
    replace(place, r);
    if (old->list == LIST_FLIGHT) {
        old->detached = true;
    } else {
        drop(t, old);
    }
    list_add(t, r, r->found || r->maybe_on_disk ? LIST_DIRTY : LIST_USED); /* else: it never reached the disk, and is absent */
}

static void drop_all(struct table *t, struct row *root) {
    while (root != NULL) {
        struct row *right = root->right;
        drop_all(t, root->left);
        if (root->list == LIST_FLIGHT) {
            root->detached = true;
        } else {
            drop(t, root);
        }
        root = right;
    }
}

/* Takes g. */
static void change_range(struct table *t, struct keyrange *g) {
    if (bytes_compare(keyrange_low(g), keyrange_high(g)) >= 0) {
        mem_free(g);
        return;
    }
    struct row **root = &t->roots[g->id], *below, *within, *above;
    split(*root, keyrange_low(g), &below, &within);
    split(within, keyrange_high(g), &within, &above);
    *root = join(below, above);
    drop_all(t, within);
    keyrange_add(&t->ranges, g);
}

enum grey_error table_put(struct table *t, enum table_id id, struct bytes key, struct bytes value, raft_index ref) {
    struct row *r = row_new(id, key, true, value, ref);
    if (r == NULL) {
        return E_NO_MEMORY;
    }
    change_row(t, r);
    return E_OK;
}

enum grey_error table_delete(struct table *t, enum table_id id, struct bytes key) {
    struct row *r = row_new(id, key, false, bytes_of(NULL, 0), 0);
    if (r == NULL) {
        return E_NO_MEMORY;
    }
    change_row(t, r);
    return E_OK;
}

enum grey_error table_delete_range(struct table *t, enum table_id id, struct bytes low, struct bytes high) {
    struct keyrange *g = keyrange_new(id, low, high);
    if (g == NULL) {
        return E_NO_MEMORY;
    }
    change_range(t, g);
    return E_OK;
}

/* --- Lists of changes ------------------------------------------------------------------------------------------------------------- */

#define CHANGE_HEAD_BYTES 16u

struct change {
    enum table_op_kind kind;
    enum table_id id;
    struct bytes key, second;
    raft_index ref;
};

static void change_add(struct builder *out, const struct change *c) {
    must(c->key.size <= UINT16_MAX && c->second.size <= UINT32_MAX);
    uint8_t *p = builder_room(out, CHANGE_HEAD_BYTES + c->key.size + c->second.size);
    if (p == NULL) {
        return;
    }
    p[0] = (uint8_t)c->kind;
    p[1] = (uint8_t)c->id;
    bytes_put_be16(p + 2, (uint16_t)c->key.size);
    bytes_put_be32(p + 4, (uint32_t)c->second.size);
    bytes_put_be64(p + 8, c->ref);
    p += CHANGE_HEAD_BYTES;
    if (c->key.size > 0) {
        memcpy(p, c->key.data, c->key.size);
    }
    if (c->second.size > 0) {
        memcpy(p + c->key.size, c->second.data, c->second.size);
    }
}

static struct change change_take(struct bytes *changes) {
    must(changes->size >= CHANGE_HEAD_BYTES); /* the list is our own work */
    const uint8_t *p = changes->data;
    struct change c = {.kind = (enum table_op_kind)p[0], .id = (enum table_id)p[1], .ref = bytes_get_be64(p + 8)};
    c.key = bytes_of(p + CHANGE_HEAD_BYTES, bytes_get_be16(p + 2));
    c.second = bytes_of(c.key.data + c.key.size, bytes_get_be32(p + 4));
    size_t size = CHANGE_HEAD_BYTES + c.key.size + c.second.size;
    must(size <= changes->size);
    *changes = bytes_of(p + size, changes->size - size);
    return c;
}

void table_change_put(struct builder *changes, enum table_id id, struct bytes key, struct bytes value, raft_index ref) {
    change_add(changes, &(struct change){TABLE_OP_PUT, id, key, value, ref});
}

void table_change_delete(struct builder *changes, enum table_id id, struct bytes key) {
    change_add(changes, &(struct change){TABLE_OP_DELETE, id, key, bytes_of(NULL, 0), 0});
}

void table_change_delete_range(struct builder *changes, enum table_id id, struct bytes low, struct bytes high) {
    change_add(changes, &(struct change){TABLE_OP_DELETE_RANGE, id, low, high, 0});
}

enum grey_error table_commit(struct table *t, struct bytes changes) {
    struct row *rows = NULL, **rows_end = &rows;
    struct keyrange *ranges = NULL, **ranges_end = &ranges;
    bool complete = true;
    for (struct bytes rest = changes; rest.size > 0 && complete;) {
        struct change c = change_take(&rest);
        if (c.kind == TABLE_OP_DELETE_RANGE) {
            *ranges_end = keyrange_new(c.id, c.key, c.second);
            complete = *ranges_end != NULL;
            ranges_end = complete ? &(*ranges_end)->next : ranges_end;
        } else {
            *rows_end = row_new(c.id, c.key, c.kind == TABLE_OP_PUT, c.second, c.ref);
            complete = *rows_end != NULL;
            rows_end = complete ? &(*rows_end)->older : rows_end;
        }
    }
    for (struct bytes rest = changes; rest.size > 0 && complete;) {
        if (change_take(&rest).kind == TABLE_OP_DELETE_RANGE) {
            struct keyrange *g = ranges;
            must(g != NULL); /* made above, one for each */
            ranges = g->next;
            change_range(t, g);
        } else {
            struct row *r = rows;
            must(r != NULL);
            rows = r->older;
            change_row(t, r);
        }
    }
    while (rows != NULL) {
        struct row *r = rows;
        rows = r->older;
        mem_free(r);
    }
    while (ranges != NULL) {
        struct keyrange *g = ranges;
        ranges = g->next;
        mem_free(g);
    }
    return complete ? E_OK : E_NO_MEMORY;
}

/* --- Flushing --------------------------------------------------------------------------------------------------------------------- */

static void hand_over(struct table *t, struct row *root) {
    for (; root != NULL; root = root->right) {
        hand_over(t, root->left);
        if (root->list == LIST_DIRTY) {
            list_remove(t, root);
            list_add(t, root, LIST_FLIGHT);
            t->ops[t->op_count++] = (struct table_op){.kind = root->found ? TABLE_OP_PUT : TABLE_OP_DELETE,
                                                      .id = (enum table_id)root->id,
                                                      .key = key_of(root),
                                                      .value = value_of(root),
                                                      .ref = root->ref};
        }
    }
}

enum grey_error table_flush_begin(struct table *t, struct table_flush *f) {
    must(!t->flushing && t->ops == NULL && t->lists[LIST_FLIGHT].count == 0);
    *f = (struct table_flush){0};
    size_t count = t->lists[LIST_DIRTY].count;
    for (const struct keyrange *g = t->ranges.first; g != NULL; g = g->next) {
        count++;
    }
    if (count == 0) {
        return E_OK;
    }
    t->ops = mem_new(count, sizeof *t->ops);
    if (t->ops == NULL) {
        return E_NO_MEMORY;
    }
    t->op_count = 0;
    for (const struct keyrange *g = t->ranges.first; g != NULL; g = g->next) {
        t->ops[t->op_count++] =
            (struct table_op){.kind = TABLE_OP_DELETE_RANGE, .id = g->id, .key = keyrange_low(g), .high = keyrange_high(g)};
    }
    t->flight_ranges = t->ranges;
    t->ranges = (struct keyrange_list){0};
    for (size_t id = 1; id <= TABLE_ID_MAX; id++) {
        hand_over(t, t->roots[id]);
    }
    must(t->op_count == count && t->lists[LIST_DIRTY].count == 0);
    t->flushing = true;
    *f = (struct table_flush){.ops = t->ops, .count = count};
    return E_OK;
}

void table_flush_done(struct table *t, bool written) {
    must(t->flushing);
    t->flushing = false;
    mem_free(t->ops);
    t->ops = NULL;
    t->op_count = 0;
    while (t->lists[LIST_FLIGHT].oldest != NULL) {
        struct row *r = t->lists[LIST_FLIGHT].oldest;
        if (r->detached) { /* what came after it covers it, written or not */
            drop(t, r);
        } else if (!written) {
            list_remove(t, r);
            r->maybe_on_disk = true;
            list_add(t, r, LIST_DIRTY);
        } else if (!r->found) {
            forget(t, r);
        } else {
            list_remove(t, r);
            list_add(t, r, table_pinned((enum table_id)r->id) ? LIST_PINNED : LIST_USED);
        }
    }
    if (written) {
        keyrange_clear(&t->flight_ranges);
    }
    keyrange_move(&t->ranges, &t->flight_ranges);
    trim(t);
}

bool table_flushing(const struct table *t) {
    return t->flushing;
}

size_t table_dirty_bytes(const struct table *t) {
    return t->lists[LIST_DIRTY].bytes + t->lists[LIST_FLIGHT].bytes + t->ranges.bytes + t->flight_ranges.bytes;
}

size_t table_memory_bytes(const struct table *t) {
    return sizeof *t + t->lists[LIST_FRESH].bytes + t->lists[LIST_USED].bytes + t->lists[LIST_PINNED].bytes + table_dirty_bytes(t) +
           t->op_count * sizeof *t->ops;
}
