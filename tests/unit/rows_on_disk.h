/* rows_on_disk.h: a gateway's state with a disk that is a table too, for tests: rows are loaded as an entry wants them, flushes happen
 * and fail, the gateway starts again.  Where the tests say "log", entries are made here one after the other. */
#ifndef TESTS_UNIT_ROWS_ON_DISK_H
#define TESTS_UNIT_ROWS_ON_DISK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/state/state.h"
#include "federation/record.h"
#include "include/grey/must.h"

struct gateway {
    struct table *rows, *disk;
    struct state *state;
    size_t clean_bytes_max;
};

static inline void gateway_load_pinned(struct gateway *g) {
    for (enum table_id id = TABLE_META; id <= TABLE_ID_MAX; id++) {
        if (!table_pinned(id)) {
            continue;
        }
        uint8_t after[LIMIT_KEY_BYTES + 1];
        struct bytes from = bytes_of(NULL, 0), key, value;
        raft_index ref;
        while (table_next(g->disk, id, from, &key, &value, &ref)) {
            must(table_load(g->rows, id, key, true, value, ref) == E_OK);
            memcpy(after, key.data, key.size);
            after[key.size] = 0;
            from = bytes_of(after, key.size + 1);
        }
    }
}

static inline void gateway_start(struct gateway *g) {
    struct fault f = {0};
    g->rows = table_new(g->clean_bytes_max);
    gateway_load_pinned(g);
    g->state = state_new(g->rows, &f);
    if (g->state == NULL) {
        (void)fprintf(stderr, "the state does not load: %s\n", f.text);
        abort();
    }
}

static inline struct gateway gateway_new(size_t clean_bytes_max) {
    struct gateway g = {.disk = table_new(SIZE_MAX / 8), .clean_bytes_max = clean_bytes_max};
    gateway_start(&g);
    return g;
}

static inline void gateway_stop(struct gateway *g) {
    state_free(g->state);
    table_free(g->rows);
}

static inline void gateway_free(struct gateway *g) {
    gateway_stop(g);
    table_free(g->disk);
}

static inline void gateway_flush_write(struct gateway *g, const struct table_flush *f) {
    for (size_t i = 0; i < f->count; i++) {
        const struct table_op *op = &f->ops[i];
        if (op->kind == TABLE_OP_PUT) {
            must(table_put(g->disk, op->id, op->key, op->value, op->ref) == E_OK);
        } else if (op->kind == TABLE_OP_DELETE) {
            must(table_delete(g->disk, op->id, op->key) == E_OK);
        } else {
            must(table_delete_range(g->disk, op->id, op->key, op->high) == E_OK);
        }
    }
}

static inline void gateway_flush(struct gateway *g) {
    struct table_flush f;
    must(table_flush_begin(g->rows, &f) == E_OK);
    if (f.count > 0) {
        gateway_flush_write(g, &f);
        table_flush_done(g->rows, true);
    }
}

static inline void gateway_load(void *context, enum table_id id, struct bytes key) {
    struct gateway *g = context;
    struct bytes value, found_key;
    raft_index ref;
    if (table_get(g->rows, id, key, &value) == TABLE_UNKNOWN) {
        bool found = table_next(g->disk, id, key, &found_key, &value, &ref) && bytes_equal(found_key, key);
        must(table_load(g->rows, id, key, found, value, ref) == E_OK);
    }
}

static inline enum grey_error gateway_apply(struct gateway *g, const struct entry *e, struct outcome *o, struct builder *answer) {
    state_wants(e, gateway_load, g);
    return state_apply(g->state, e, o, answer);
}

/* The next entry of this kind, applied; payload: taken as it is and emptied. */
static inline enum grey_error gateway_entry(struct gateway *g, enum entry_kind kind, int64_t time_ms, struct builder *payload,
                                            struct outcome *o, struct builder *answer) {
    struct entry e = {
        .index = state_applied(g->state) + 1, .kind = (uint16_t)kind, .schema = ENTRY_SCHEMA, .time_ms = time_ms, .term = 1};
    if (payload != NULL) {
        must(payload->err == E_OK);
        e.payload = builder_blob(payload);
        builder_reset(payload);
    }
    must(gateway_apply(g, &e, o, answer) == E_OK);
    blob_unref(e.payload);
    return o->err;
}

/* Payload of ENTRY_LIMITS that bounds the bytes and nothing else. */
static inline void gateway_limits(struct builder *out, uint64_t bytes_max) {
    struct queue_limits l = {.bytes_max = bytes_max};
    payload_limits(out, &l);
}

/* All rows of a table as a reader of memory and disk sees them, one after the other, in out. */
static inline void gateway_dump(struct gateway *g, struct builder *out) {
    builder_reset(out);
    for (enum table_id id = 1; id <= TABLE_ID_MAX; id++) {
        uint8_t after[LIMIT_KEY_BYTES + 1];
        struct bytes from = bytes_of(NULL, 0), key[2], value[2];
        raft_index ref[2];
        for (;;) {
            bool memory = table_next(g->rows, id, from, &key[0], &value[0], &ref[0]);
            bool disk = table_next(g->disk, id, from, &key[1], &value[1], &ref[1]);
            if (!memory && !disk) {
                break;
            }
            int take = !memory || (disk && bytes_compare(key[1], key[0]) < 0) ? 1 : 0;
            if (take == 0 || !table_deleted(g->rows, id, key[1])) {
                table_change_put(out, id, key[take], value[take], ref[take]);
            }
            memcpy(after, key[take].data, key[take].size);
            after[key[take].size] = 0;
            from = bytes_of(after, key[take].size + 1);
        }
    }
    must(out->err == E_OK);
}

#endif
