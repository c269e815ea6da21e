#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/table/table.h"

static uint64_t seed;

static uint64_t draw(uint64_t below) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

static struct bytes text(const char *s) {
    return bytes_str(s);
}

/* A client reads its own write, and what was deleted stays deleted, before anything has reached the disk. */
static void test_a_change_is_seen_at_once(void **context) {
    (void)context;
    struct table *t = table_new(1 << 20);
    struct bytes v;
    assert_int_equal(table_get(t, TABLE_KV, text("a"), &v), TABLE_UNKNOWN);
    assert_int_equal(table_put(t, TABLE_KV, text("a"), text("1"), 7), E_OK);
    assert_int_equal(table_get(t, TABLE_KV, text("a"), &v), TABLE_FOUND);
    assert_true(bytes_equal_str(v, "1"));
    assert_int_equal(table_get(t, TABLE_DEDUP, text("a"), &v), TABLE_UNKNOWN); /* another table */
    assert_int_equal(table_delete(t, TABLE_KV, text("a")), E_OK);
    assert_int_equal(table_get(t, TABLE_KV, text("a"), &v), TABLE_ABSENT);
    assert_true(table_deleted(t, TABLE_KV, text("a")));
    assert_int_equal(table_get(t, TABLE_META, text("a"), &v), TABLE_ABSENT); /* META is all in memory */
    table_free(t);
}

/* The week's traffic of a connected site would wear out the flash if events already acknowledged were written. */
static void test_what_comes_and_goes_between_two_flushes_is_never_written(void **context) {
    (void)context;
    struct table *t = table_new(1 << 20);
    struct table_flush f;
    assert_int_equal(table_put(t, TABLE_OUTBOX, text("b"), text("1"), 7), E_OK);
    assert_int_equal(table_put(t, TABLE_OUTBOX, text("c"), text("1"), 7), E_OK);
    assert_int_equal(table_put(t, TABLE_OUTBOX, text("x"), text("1"), 7), E_OK);
    assert_int_equal(table_delete_range(t, TABLE_OUTBOX, text("a"), text("b~")), E_OK);
    assert_int_equal(table_delete_range(t, TABLE_OUTBOX, text("a"), text("d")), E_OK);
    assert_int_equal(table_put(t, TABLE_SEGMENT, text("s"), text("1"), 0), E_OK);
    assert_int_equal(table_delete(t, TABLE_SEGMENT, text("s")), E_OK); /* pinned, so known never to have been on disk */
    assert_int_equal(table_flush_begin(t, &f), E_OK);
    assert_int_equal(f.count, 2);
    assert_int_equal(f.ops[0].kind, TABLE_OP_DELETE_RANGE);
    assert_true(bytes_equal_str(f.ops[0].high, "d"));
    assert_int_equal(f.ops[1].kind, TABLE_OP_PUT);
    assert_true(bytes_equal_str(f.ops[1].key, "x"));
    assert_int_equal(f.ops[1].ref, 7);
    table_flush_done(t, true);
    assert_int_equal(table_dirty_bytes(t), 0);
    assert_int_equal(table_flush_begin(t, &f), E_OK);
    assert_int_equal(f.count, 0);
    assert_int_equal(table_put(t, TABLE_OUTBOX, text("x"), text("1"), 7), E_OK); /* as it is on disk */
    assert_int_equal(table_dirty_bytes(t), 0);
    table_free(t);
}

/* Rows loaded for entries in flight must survive a flood of others, or applying would ask for them again and again. */
static void test_rows_wanted_are_dropped_last(void **context) {
    (void)context;
    struct table *t = table_new(4096);
    struct bytes v;
    uint8_t key[4];
    for (uint32_t i = 0; i < 50; i++) {
        bytes_put_be32(key, i);
        assert_int_equal(table_load(t, TABLE_KV, bytes_of(key, 4), true, text("loaded"), 1), E_OK);
    }
    for (uint32_t i = 50; i < 1000; i++) {
        bytes_put_be32(key, i);
        assert_int_equal(table_load(t, TABLE_DEDUP, bytes_of(key, 4), false, text(""), 0), E_OK);
        assert_int_equal(table_get(t, TABLE_DEDUP, bytes_of(key, 4), &v), TABLE_ABSENT);
    }
    assert_true(table_memory_bytes(t) < 4096 * 3);
    for (uint32_t i = 0; i < 50; i++) {
        bytes_put_be32(key, i);
        assert_int_equal(table_get(t, TABLE_KV, bytes_of(key, 4), &v), TABLE_FOUND);
    }
    for (uint32_t i = 0; i < 100000; i++) {
        bytes_put_be32(key, i);
        assert_int_equal(table_load(t, TABLE_DEDUP, bytes_of(key, 4), true, text("never read"), 0), E_OK);
    }
    assert_true(table_memory_bytes(t) < 4096 * 4);
    table_free(t);
}

/* Half of an entry's changes without the other half would part this node from its site for ever. */
static void test_a_list_of_changes_equals_its_single_changes(void **context) {
    (void)context;
    struct table *t = table_new(1 << 20);
    struct builder c;
    struct bytes v;
    builder_init(&c, 1 << 20);
    table_change_put(&c, TABLE_KV, text("a"), text("1"), 1);
    table_change_put(&c, TABLE_OUTBOX, text("k"), text("1"), 1);
    table_change_delete_range(&c, TABLE_OUTBOX, text("a"), text("z"));
    table_change_put(&c, TABLE_OUTBOX, text("l"), text("2"), 2);
    table_change_delete(&c, TABLE_KV, text("a"));
    table_change_delete(&c, TABLE_KV, text("never there"));
    assert_int_equal(c.err, E_OK);
    assert_int_equal(table_commit(t, builder_bytes(&c)), E_OK);
    assert_int_equal(table_get(t, TABLE_KV, text("a"), &v), TABLE_ABSENT);
    assert_int_equal(table_get(t, TABLE_OUTBOX, text("k"), &v), TABLE_ABSENT);
    assert_int_equal(table_get(t, TABLE_OUTBOX, text("l"), &v), TABLE_FOUND);
    assert_int_equal(table_commit(t, bytes_of(NULL, 0)), E_OK);
    builder_free(&c);
    table_free(t);
}

/* --- against a naive second version ------------------------------------------------------------------------------------------------ */

#define KEYS 40u
#define TABLES 3u
static const enum table_id ids[TABLES] = {TABLE_KV, TABLE_OUTBOX, TABLE_SEGMENT};

struct cell {
    bool found;
    uint8_t size;
    uint8_t value[20];
    raft_index ref;
};

struct world { /* the truth, the disk, and a storage thread that works in order */
    struct table *t;
    struct cell truth[TABLES][KEYS], disk[TABLES][KEYS];
    struct job {
        bool is_flush, executed, fails;
        unsigned table, key;
        struct cell read;
    } jobs[16];
    unsigned job_count;
    struct table_flush flush;
};

static struct bytes key_bytes(unsigned key, uint8_t out[2]) {
    out[0] = (uint8_t)('a' + key / 10), out[1] = (uint8_t)('0' + key % 10);
    return bytes_of(out, 2);
}

static unsigned key_number(struct bytes key) {
    return (unsigned)(key.data[0] - 'a') * 10 + (unsigned)(key.data[1] - '0');
}

static unsigned table_number(enum table_id id) {
    return id == TABLE_KV ? 0 : id == TABLE_OUTBOX ? 1 : 2;
}

static void execute(struct world *w, struct job *j) {
    j->executed = true;
    if (!j->is_flush) {
        j->read = w->disk[j->table][j->key];
        return;
    }
    for (size_t i = 0; i < w->flush.count && !j->fails; i++) {
        const struct table_op *op = &w->flush.ops[i];
        struct cell(*rows)[KEYS] = &w->disk[table_number(op->id)];
        uint8_t k[2];
        if (op->kind == TABLE_OP_DELETE_RANGE) {
            for (unsigned key = 0; key < KEYS; key++) {
                struct bytes b = key_bytes(key, k);
                if (bytes_compare(op->key, b) <= 0 && bytes_compare(b, op->high) < 0) {
                    (*rows)[key] = (struct cell){0};
                }
            }
            continue;
        }
        struct cell *cell = &(*rows)[key_number(op->key)];
        *cell = (struct cell){0};
        if (op->kind == TABLE_OP_PUT) {
            cell->found = true;
            cell->ref = op->ref;
            cell->size = (uint8_t)op->value.size;
            memcpy(cell->value, op->value.data, op->value.size);
        }
    }
}

static void complete(struct world *w) {
    struct job j = w->jobs[0];
    uint8_t k[2];
    if (j.is_flush) {
        table_flush_done(w->t, !j.fails);
    } else {
        assert_int_equal(
            table_load(w->t, ids[j.table], key_bytes(j.key, k), j.read.found, bytes_of(j.read.value, j.read.size), j.read.ref),
            E_OK);
    }
    memmove(w->jobs, w->jobs + 1, --w->job_count * sizeof w->jobs[0]);
}

static void compare(struct world *w, unsigned table, unsigned key) {
    uint8_t k[2];
    struct bytes value;
    const struct cell *truth = &w->truth[table][key], *disk = &w->disk[table][key];
    switch (table_get(w->t, ids[table], key_bytes(key, k), &value)) {
    case TABLE_FOUND:
        assert_true(truth->found);
        assert_true(bytes_equal(value, bytes_of(truth->value, truth->size)));
        break;
    case TABLE_ABSENT:
        assert_false(truth->found);
        break;
    case TABLE_UNKNOWN:
        assert_int_not_equal(ids[table], TABLE_SEGMENT);
        assert_false(table_deleted(w->t, ids[table], key_bytes(key, k)));
        assert_int_equal(truth->found, disk->found);
        assert_memory_equal(truth->value, disk->value, sizeof truth->value);
        break;
    }
}

/* Memory and disk merged, as a scan of the API does it. */
static void compare_scan(struct world *w, unsigned table) {
    bool seen[KEYS] = {false};
    struct bytes from = text(""), key, value;
    uint8_t after[3] = {0}, k[2];
    raft_index ref;
    int last = -1;
    while (table_next(w->t, ids[table], from, &key, &value, &ref)) {
        unsigned n = key_number(key);
        assert_true((int)n > last);
        last = (int)n;
        const struct cell *truth = &w->truth[table][n];
        assert_true(truth->found && bytes_equal(value, bytes_of(truth->value, truth->size)));
        assert_int_equal(ref, truth->ref);
        seen[n] = true;
        memcpy(after, key.data, 2);
        from = bytes_of(after, 3);
    }
    for (unsigned n = 0; n < KEYS; n++) {
        bool on_disk = w->disk[table][n].found && !table_deleted(w->t, ids[table], key_bytes(n, k));
        assert_int_equal(seen[n] || on_disk, w->truth[table][n].found);
    }
}

static void random_change(struct world *w) {
    unsigned table = (unsigned)draw(TABLES), key = (unsigned)draw(KEYS), high = key + (unsigned)draw(KEYS / 2);
    uint8_t k[2], h[2];
    struct cell *cell = &w->truth[table][key];
    switch (draw(8)) {
    case 0:
        assert_int_equal(table_delete(w->t, ids[table], key_bytes(key, k)), E_OK);
        *cell = (struct cell){0};
        break;
    case 1:
        assert_int_equal(table_delete_range(w->t, ids[table], key_bytes(key, k), key_bytes(high, h)), E_OK);
        for (unsigned n = key; n < high && n < KEYS; n++) {
            w->truth[table][n] = (struct cell){0};
        }
        break;
    default:
        *cell = (struct cell){.found = true, .size = (uint8_t)draw(sizeof cell->value), .ref = draw(5)};
        for (unsigned i = 0; i < cell->size; i++) {
            cell->value[i] = (uint8_t)draw(2);
        }
        assert_int_equal(table_put(w->t, ids[table], key_bytes(key, k), bytes_of(cell->value, cell->size), cell->ref), E_OK);
    }
}

/* Whatever the storage thread's timing, and whether its writes succeed: a site must read what it wrote last, and find it after a
 * restart. */
static void test_any_timing_of_flushes_loads_and_failures_shows_the_same_rows(void **context) {
    (void)context;
    for (uint64_t round = 1; round <= 40; round++) {
        seed = round * 0x9e3779b97f4a7c15u;
        struct world w = {.t = table_new(draw(2) == 0 ? 600 : 1 << 20)};
        for (unsigned step = 0; step < 3000; step++) {
            switch (draw(12)) {
            case 0:
                if (!table_flushing(w.t) && w.job_count < 16) {
                    assert_int_equal(table_flush_begin(w.t, &w.flush), E_OK);
                    if (w.flush.count > 0) {
                        w.jobs[w.job_count++] = (struct job){.is_flush = true, .fails = draw(4) == 0};
                    }
                }
                break;
            case 1:
            case 2:
                if (w.job_count < 16) { /* pinned tables are loaded at the start only */
                    w.jobs[w.job_count++] = (struct job){.table = (unsigned)draw(2), .key = (unsigned)draw(KEYS)};
                }
                break;
            case 3:
            case 4:
            case 5:
                for (unsigned i = 0; i < w.job_count; i++) {
                    if (!w.jobs[i].executed) {
                        execute(&w, &w.jobs[i]);
                        break;
                    }
                }
                break;
            case 6:
            case 7:
                if (w.job_count > 0 && w.jobs[0].executed) {
                    complete(&w);
                }
                break;
            default:
                random_change(&w);
            }
            compare(&w, (unsigned)draw(TABLES), (unsigned)draw(KEYS));
            if (step % 50 == 0) {
                for (unsigned table = 0; table < TABLES; table++) {
                    compare_scan(&w, table);
                }
            }
        }
        for (unsigned i = 0; i < w.job_count; i++) { /* end well: the disk is then the truth */
            if (!w.jobs[i].executed) {
                execute(&w, &w.jobs[i]);
            }
        }
        while (w.job_count > 0) {
            complete(&w);
        }
        assert_int_equal(table_flush_begin(w.t, &w.flush), E_OK);
        if (w.flush.count > 0) {
            w.jobs[w.job_count++] = (struct job){.is_flush = true};
            execute(&w, &w.jobs[0]);
            complete(&w);
        }
        assert_memory_equal(w.disk, w.truth, sizeof w.disk);
        assert_int_equal(table_dirty_bytes(w.t), 0);
        table_free(w.t);
    }
}

/* If the row behind a name were the same again, or one skipped whose name begins alike, a list would never end, or lack a token or a gateway. */
static void test_the_row_behind_a_key_is_the_next_greater_one(void **context) {
    (void)context;
    static const char *const keys[] = {"a", "a\1", "ab", "b"};
    struct table *t = table_new(1 << 20);
    char longest[LIMIT_KEY_BYTES];
    struct bytes key = bytes_of(NULL, 0), value;
    raft_index ref;
    memset(longest, 'z', sizeof longest);
    assert_false(table_after(t, TABLE_KV, key, &key, &value, &ref));
    for (size_t i = 4; i-- > 0;) {
        assert_int_equal(table_put(t, TABLE_KV, text(keys[i]), text("v"), i + 1), E_OK);
    }
    assert_int_equal(table_put(t, TABLE_KV, bytes_of("a", 2), text("v"), 9), E_OK); /* "a" and a zero: the least behind "a" */
    assert_int_equal(table_put(t, TABLE_KV, bytes_of(longest, sizeof longest), text("v"), 10), E_OK);
    static const raft_index order[] = {1, 9, 2, 3, 4, 10};
    for (size_t i = 0; i < 6; i++) {
        assert_true(table_after(t, TABLE_KV, key, &key, &value, &ref));
        assert_int_equal(ref, order[i]);
    }
    assert_false(table_after(t, TABLE_KV, key, &key, &value, &ref));
    assert_int_equal(table_delete(t, TABLE_KV, text("ab")), E_OK);
    assert_true(table_after(t, TABLE_KV, text("a\1"), &key, &value, &ref));
    assert_true(bytes_equal_str(key, "b"));
    table_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_change_is_seen_at_once),
        cmocka_unit_test(test_what_comes_and_goes_between_two_flushes_is_never_written),
        cmocka_unit_test(test_rows_wanted_are_dropped_last),
        cmocka_unit_test(test_a_list_of_changes_equals_its_single_changes),
        cmocka_unit_test(test_the_row_behind_a_key_is_the_next_greater_one),
        cmocka_unit_test(test_any_timing_of_flushes_loads_and_failures_shows_the_same_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
