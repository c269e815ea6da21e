/* Tables: row(tbl, key, value, ref) holds the state; live(idx, n) says how many rows refer to the payload of log entry idx, so that
 * neither compaction nor freeing has to look for them; freed(idx) are payloads whose last row went after the log was compacted
 * beyond them: log.db drops them some time after the flush that noted them, and a later flush erases the notes. */
#include "agent/store/statedb.h"

#include <inttypes.h>
#include <string.h>

#include "include/grey/must.h"
#include "platform/db.h"

#define STATE_FORMAT 3
#define STATE_PAGE_BYTES 1024u    /* most flushed rows lie far apart (hashes): small pages write less */
#define STATE_CACHE_BYTES 262144u /* 256 KiB */
#define ROW_BYTES 16u             /* that a row costs beside its key and value */

struct statedb {
    struct db *db;
    struct statedb_facts facts;
    struct db_statement *get, *put, *remove, *remove_range, *refs, *scan, *scan_open, *walk, *live_get, *live_put, *live_remove,
        *live_next;
    struct db_statement *freed_put, *freed_get, *freed_erase, *save, *save_members, *live_walk;
    int64_t freed_read, freed_forgotten; /* notes up to here were handed out; are gone from log.db */
    uint64_t freed_count, freed_new;     /* notes that are not forgotten; noted by the flush under way */
    uint32_t freed_handed;               /* notes of the last statedb_freed */
    raft_index base;                     /* of the flush under way */
    raft_index pending_index;            /* changes of one live row, gathered while they concern the same entry */
    int64_t pending_delta;
    struct {
        bool rows_done;
        enum table_id id; /* of the last row that was read */
        uint8_t key[LIMIT_KEY_BYTES];
        size_t key_size;
        int64_t live; /* the last live payload, after the rows */
    } check;          /* where statedb_check stands */
};

static const char schema[] =
    "CREATE TABLE row(tbl INTEGER, key BLOB, value BLOB, ref INTEGER, PRIMARY KEY(tbl, key)) WITHOUT ROWID;"
    "CREATE TABLE live(idx INTEGER PRIMARY KEY, n INTEGER);"
    "CREATE TABLE freed(idx INTEGER PRIMARY KEY);"
    "CREATE TABLE meta(id INTEGER PRIMARY KEY, format INT, idx INT, term INT, time INT, hash BLOB, state_hash BLOB);"
    "CREATE TABLE members(id INTEGER PRIMARY KEY, idx INT, list BLOB);"
    "INSERT INTO meta VALUES(1, 3, 0, 0, 0, zeroblob(32), zeroblob(32))";

static enum grey_error prepare(struct statedb *s, struct fault *f) {
    const struct {
        struct db_statement **st;
        const char *sql;
    } all[] = {
        {&s->get, "SELECT value, ref FROM row WHERE tbl = ?1 AND key = ?2"},
        {&s->put, "REPLACE INTO row VALUES(?1, ?2, ?3, ?4)"},
        {&s->remove, "DELETE FROM row WHERE tbl = ?1 AND key = ?2"},
        {&s->remove_range, "DELETE FROM row WHERE tbl = ?1 AND key >= ?2 AND key < ?3"},
        {&s->refs, "SELECT ref FROM row WHERE tbl = ?1 AND key >= ?2 AND key < ?3"},
        {&s->scan, "SELECT tbl, key, value, ref FROM row WHERE tbl = ?1 AND key >= ?2 AND key < ?3 ORDER BY tbl, key LIMIT ?4"},
        {&s->scan_open, "SELECT tbl, key, value, ref FROM row WHERE tbl = ?1 AND key >= ?2 ORDER BY tbl, key LIMIT ?4"},
        {&s->walk, "SELECT tbl, key, value, ref FROM row WHERE (tbl, key) > (?1, ?2) ORDER BY tbl, key"},
        {&s->live_get, "SELECT n FROM live WHERE idx = ?1"},
        {&s->live_put, "REPLACE INTO live VALUES(?1, ?2)"},
        {&s->live_remove, "DELETE FROM live WHERE idx = ?1"},
        {&s->live_next, "SELECT idx FROM live WHERE idx >= ?1 ORDER BY idx LIMIT 1"},
        {&s->freed_put, "INSERT OR IGNORE INTO freed VALUES(?1)"},
        {&s->freed_get,
         "SELECT idx, EXISTS(SELECT 1 FROM live WHERE live.idx = freed.idx) FROM freed WHERE idx > ?1 ORDER BY idx LIMIT ?2"},
        {&s->freed_erase, "DELETE FROM freed WHERE idx <= ?1"},
        {&s->save, "REPLACE INTO meta VALUES(1, 3, ?1, ?2, ?3, ?4, ?5)"},
        {&s->save_members, "REPLACE INTO members VALUES(1, ?1, ?2)"},
        {&s->live_walk, "SELECT idx FROM live WHERE idx > ?1 ORDER BY idx"},
    };
    enum grey_error err = E_OK;
    for (size_t i = 0; i < sizeof all / sizeof all[0] && err == E_OK; i++) {
        err = db_prepare(s->db, all[i].sql, all[i].st, f);
    }
    return err;
}

static enum grey_error facts_load(struct statedb *s, struct fault *f) {
    struct db_statement *st = NULL;
    struct statedb_facts *a = &s->facts;
    bool row = false;
    enum grey_error err =
        db_prepare(s->db,
                   "SELECT format, meta.idx, term, time, hash, state_hash, members.idx, list FROM meta LEFT JOIN members "
                   "ON members.id = 1 WHERE meta.id = 1",
                   &st, f);
    if (err != E_OK || (err = db_step(st, &row, f)) != E_OK) {
        return err;
    }
    if (!row) {
        return fault_set(f, E_CORRUPT, "state.db: it has lost its description");
    }
    a->applied =
        (struct raft_point){.index = (raft_index)db_int(st, 1), .term = (raft_term)db_int(st, 2), .time_ms = db_int(st, 3)};
    struct bytes hash = db_bytes(st, 4), state_hash = db_bytes(st, 5);
    if (db_int(st, 0) != STATE_FORMAT) {
        err = fault_set(f, E_DISK_VERSION, "state.db: format %" PRId64 ", this version knows %d", db_int(st, 0), STATE_FORMAT);
    } else if (hash.size != DIGEST_BYTES || state_hash.size != DIGEST_BYTES || db_int(st, 1) < 0) {
        err = fault_set(f, E_CORRUPT, "state.db: its description contradicts itself");
    } else {
        memcpy(a->applied.hash, hash.data, DIGEST_BYTES);
        memcpy(a->state_hash, state_hash.data, DIGEST_BYTES);
        if (!db_null(st, 7)) {
            a->members_index = (raft_index)db_int(st, 6);
            a->members = blob_copy(db_bytes(st, 7));
            err = a->members == NULL ? fault_set(f, E_NO_MEMORY, "opening state.db") : E_OK;
        }
    }
    db_reset(st);
    return err;
}

struct statedb *statedb_open(const char *path, struct fault *f) {
    struct statedb *s = mem_new(1, sizeof *s);
    if (s == NULL) {
        fault_set(f, E_NO_MEMORY, "opening %s", path);
        return NULL;
    }
    bool created = false;
    s->db = db_open(path, &(struct db_options){.page_bytes = STATE_PAGE_BYTES, .cache_bytes = db_cache_bytes(STATE_CACHE_BYTES)},
                    &created, f);
    enum grey_error err = s->db == NULL ? E_IO : E_OK;
    if (err == E_OK && created) {
        err = db_exec_whole(s->db, schema, f);
    }
    int64_t freed = 0;
    if (err != E_OK || prepare(s, f) != E_OK || facts_load(s, f) != E_OK ||
        db_ask(s->db, "SELECT count(*) FROM freed", &freed, f) != E_OK) {
        statedb_close(s);
        return NULL;
    }
    s->freed_count = (uint64_t)freed;
    return s;
}

void statedb_close(struct statedb *s) {
    if (s != NULL) {
        db_close(s->db);
        blob_unref(s->facts.members);
        mem_free(s);
    }
}

const struct statedb_facts *statedb_facts(const struct statedb *s) {
    return &s->facts;
}

struct db *statedb_db(struct statedb *s) {
    return s->db;
}

static enum grey_error run(struct db_statement *st, struct fault *f) {
    enum grey_error err = db_run(st, f);
    db_reset(st);
    return err;
}

/* --- what the rows keep alive ------------------------------------------------------------------------------------------------------- */
static enum grey_error live_count(struct statedb *s, raft_index index, int64_t *n, struct fault *f) {
    bool row = false;
    db_bind_int(s->live_get, 1, (int64_t)index);
    enum grey_error err = db_step(s->live_get, &row, f);
    *n = err == E_OK && row ? db_int(s->live_get, 0) : 0;
    db_reset(s->live_get);
    return err;
}

static enum grey_error live_settle(struct statedb *s, struct fault *f) {
    raft_index index = s->pending_index;
    int64_t delta = s->pending_delta, n = 0;
    s->pending_index = 0;
    s->pending_delta = 0;
    if (index == 0 || delta == 0) {
        return E_OK;
    }
    enum grey_error err = live_count(s, index, &n, f);
    if (err != E_OK) {
        return err;
    }
    n += delta;
    if (n < 0) {
        return fault_set(f, E_CORRUPT, "state.db: payload %" PRIu64 " has fewer rows than were counted", index);
    }
    if (n > 0) {
        db_bind_int(s->live_put, 1, (int64_t)index);
        db_bind_int(s->live_put, 2, n);
        return run(s->live_put, f);
    }
    db_bind_int(s->live_remove, 1, (int64_t)index);
    err = run(s->live_remove, f);
    if (err == E_OK && index <= s->base) {
        db_bind_int(s->freed_put, 1, (int64_t)index);
        err = run(s->freed_put, f);
        s->freed_new += err == E_OK ? (uint64_t)db_changes(s->db) : 0; /* it may have been noted before */
    }
    return err;
}

static enum grey_error live_change(struct statedb *s, raft_index index, int delta, struct fault *f) {
    if (index == 0) {
        return E_OK;
    }
    enum grey_error err = index == s->pending_index ? E_OK : live_settle(s, f);
    s->pending_index = index;
    s->pending_delta += delta;
    return err;
}

enum grey_error statedb_live(struct statedb *s, raft_index index, bool *is, struct fault *f) {
    int64_t n = 0;
    enum grey_error err = live_count(s, index, &n, f);
    *is = n > 0;
    return err;
}

enum grey_error statedb_live_next(struct statedb *s, raft_index from, raft_index *index, struct fault *f) {
    bool row = false;
    db_bind_int(s->live_next, 1, (int64_t)from);
    enum grey_error err = db_step(s->live_next, &row, f);
    *index = err == E_OK && row ? (raft_index)db_int(s->live_next, 0) : 0;
    db_reset(s->live_next);
    return err;
}

/* --- flush --------------------------------------------------------------------------------------------------------------------------- */
static enum grey_error row_ref(struct statedb *s, enum table_id id, struct bytes key, raft_index *ref, struct fault *f) {
    bool row = false;
    db_bind_int(s->get, 1, id);
    db_bind_bytes(s->get, 2, key);
    enum grey_error err = db_step(s->get, &row, f);
    *ref = err == E_OK && row ? (raft_index)db_int(s->get, 1) : 0;
    db_reset(s->get);
    return err;
}

static enum grey_error row_put(struct statedb *s, enum table_id id, struct bytes key, struct bytes value, raft_index ref,
                               struct fault *f) {
    raft_index before = 0;
    enum grey_error err = row_ref(s, id, key, &before, f);
    /* The new reference first: the payload of a row that is written again must not seem dead in between. */
    if (err == E_OK && ref != before && (err = live_change(s, ref, 1, f)) == E_OK) {
        err = live_change(s, before, -1, f);
    }
    if (err != E_OK) {
        return err;
    }
    db_bind_int(s->put, 1, id);
    db_bind_bytes(s->put, 2, key);
    db_bind_bytes(s->put, 3, value);
    db_bind_int(s->put, 4, (int64_t)ref);
    return run(s->put, f);
}

static enum grey_error row_delete(struct statedb *s, enum table_id id, struct bytes key, struct fault *f) {
    raft_index before = 0;
    enum grey_error err = row_ref(s, id, key, &before, f);
    if (err == E_OK && (err = live_change(s, before, -1, f)) == E_OK) {
        db_bind_int(s->remove, 1, id);
        db_bind_bytes(s->remove, 2, key);
        err = run(s->remove, f);
    }
    return err;
}

static enum grey_error range_delete(struct statedb *s, enum table_id id, struct bytes low, struct bytes high, struct fault *f) {
    db_bind_int(s->refs, 1, id);
    db_bind_bytes(s->refs, 2, low);
    db_bind_bytes(s->refs, 3, high);
    bool row = true;
    enum grey_error err = E_OK;
    while (err == E_OK && (err = db_step(s->refs, &row, f)) == E_OK && row) {
        err = live_change(s, (raft_index)db_int(s->refs, 0), -1, f);
    }
    db_reset(s->refs);
    if (err == E_OK) {
        db_bind_int(s->remove_range, 1, id);
        db_bind_bytes(s->remove_range, 2, low);
        db_bind_bytes(s->remove_range, 3, high);
        err = run(s->remove_range, f);
    }
    return err;
}

static enum grey_error facts_save(struct statedb *s, const struct statedb_facts *a, struct fault *f) {
    db_bind_int(s->save, 1, (int64_t)a->applied.index);
    db_bind_int(s->save, 2, (int64_t)a->applied.term);
    db_bind_int(s->save, 3, a->applied.time_ms);
    db_bind_bytes(s->save, 4, bytes_of(a->applied.hash, DIGEST_BYTES));
    db_bind_bytes(s->save, 5, bytes_of(a->state_hash, DIGEST_BYTES));
    enum grey_error err = run(s->save, f);
    bool same = a->members == NULL || (s->facts.members != NULL && a->members_index == s->facts.members_index &&
                                       bytes_equal(blob_bytes(a->members), blob_bytes(s->facts.members)));
    if (err != E_OK || same) {
        return err;
    }
    db_bind_int(s->save_members, 1, (int64_t)a->members_index);
    db_bind_bytes(s->save_members, 2, blob_bytes(a->members));
    return run(s->save_members, f);
}

/* Ends the transaction; on success the facts in memory follow the disk. */
static enum grey_error finish(struct statedb *s, enum grey_error err, const struct statedb_facts *facts, struct fault *f) {
    if (err == E_OK) {
        err = db_commit(s->db, f);
    }
    if (err != E_OK) {
        db_rollback(s->db);
        return err;
    }
    if (facts != NULL) {
        struct statedb_facts now = *facts;
        if (facts->members == NULL) {
            now.members = s->facts.members;
            now.members_index = s->facts.members_index;
        } else {
            (void)blob_ref(facts->members);
            blob_unref(s->facts.members);
        }
        s->facts = now;
    }
    return E_OK;
}

static enum grey_error begin(struct statedb *s, struct fault *f) {
    s->pending_index = 0;
    s->pending_delta = 0;
    s->freed_new = 0;
    return db_begin(s->db, f);
}

enum grey_error statedb_flush(struct statedb *s, const struct table_flush *changes, const struct statedb_facts *facts,
                              raft_index base, struct fault *f) {
    enum grey_error err = begin(s, f);
    s->base = base;
    if (err == E_OK && s->freed_forgotten > 0) {
        db_bind_int(s->freed_erase, 1, s->freed_forgotten);
        err = run(s->freed_erase, f);
    }
    for (size_t i = 0; i < changes->count && err == E_OK; i++) {
        const struct table_op *op = &changes->ops[i];
        switch (op->kind) {
        case TABLE_OP_PUT:
            err = row_put(s, op->id, op->key, op->value, op->ref, f);
            break;
        case TABLE_OP_DELETE:
            err = row_delete(s, op->id, op->key, f);
            break;
        case TABLE_OP_DELETE_RANGE:
            err = range_delete(s, op->id, op->key, op->high, f);
            break;
        }
    }
    if (err == E_OK && (err = live_settle(s, f)) == E_OK) {
        err = facts_save(s, facts, f);
    }
    err = finish(s, err, facts, f);
    if (err == E_OK) { /* notes up to here are erased; new ones may lie below */
        s->freed_read = 0;
        s->freed_forgotten = 0;
        s->freed_count += s->freed_new;
    }
    return err;
}

enum grey_error statedb_freed(struct statedb *s, raft_index *out, uint32_t max, uint32_t *count, struct fault *f) {
    *count = 0;
    s->freed_read = s->freed_forgotten;
    s->freed_handed = 0;
    if (s->freed_count == 0) {
        return E_OK;
    }
    db_bind_int(s->freed_get, 1, s->freed_forgotten);
    db_bind_int(s->freed_get, 2, max);
    bool row = true;
    enum grey_error err = E_OK;
    while ((err = db_step(s->freed_get, &row, f)) == E_OK && row) {
        must(*count < max);
        s->freed_read = db_int(s->freed_get, 0);
        s->freed_handed++;
        if (db_int(s->freed_get, 1) == 0) { /* else a later row refers to it again */
            out[(*count)++] = (raft_index)db_int(s->freed_get, 0);
        }
    }
    db_reset(s->freed_get);
    return err;
}

void statedb_forgotten(struct statedb *s) {
    must(s->freed_handed <= s->freed_count);
    s->freed_forgotten = s->freed_read;
    s->freed_count -= s->freed_handed;
    s->freed_handed = 0;
}

uint64_t statedb_freed_count(const struct statedb *s) {
    return s->freed_count;
}

/* --- reading -------------------------------------------------------------------------------------------------------------------------- */
enum grey_error statedb_rows(struct statedb *s, struct bytes wants, struct sitelog_row_set *set, struct fault *f) {
    struct sitelog_row want = {0};
    while (rowset_want_next(&wants, &want.id, &want.key)) {
        db_bind_int(s->get, 1, want.id);
        db_bind_bytes(s->get, 2, want.key);
        enum grey_error err = db_step(s->get, &want.found, f);
        if (err == E_OK) {
            want.value = want.found ? db_bytes(s->get, 0) : bytes_of(NULL, 0);
            want.ref = want.found ? (raft_index)db_int(s->get, 1) : 0;
            err = rowset_add(set, &want);
        }
        db_reset(s->get);
        if (err != E_OK) {
            return err;
        }
    }
    return wants.size == 0 ? E_OK : fault_set(f, E_BUG, "the list of wanted rows is malformed");
}

static enum grey_error row_add(struct db_statement *st, struct sitelog_row_set *set, size_t *bytes) {
    struct sitelog_row row = {.id = (enum table_id)db_int(st, 0),
                              .key = db_bytes(st, 1),
                              .value = db_bytes(st, 2),
                              .ref = (raft_index)db_int(st, 3),
                              .found = true};
    *bytes += row.key.size + row.value.size + ROW_BYTES;
    return rowset_add(set, &row);
}

enum grey_error statedb_scan(struct statedb *s, enum table_id id, struct bytes low, struct bytes high, uint32_t rows_max,
                             struct sitelog_row_set *set, bool *more, struct fault *f) {
    struct db_statement *st = high.size == 0 ? s->scan_open : s->scan;
    db_bind_int(st, 1, id);
    db_bind_bytes(st, 2, low);
    if (high.size > 0) {
        db_bind_bytes(st, 3, high);
    }
    db_bind_int(st, 4, (int64_t)rows_max + 1);
    *more = false;
    bool row = true;
    size_t bytes = 0;
    enum grey_error err = E_OK;
    for (uint32_t n = 0; err == E_OK && (err = db_step(st, &row, f)) == E_OK && row; n++) {
        if (n == rows_max) {
            *more = true;
            break;
        }
        err = row_add(st, set, &bytes);
    }
    db_reset(st);
    return err;
}

enum grey_error statedb_walk(struct statedb *s, enum table_id id, struct bytes key, size_t bytes_max, struct sitelog_row_set *set,
                             bool *more, struct fault *f) {
    db_bind_int(s->walk, 1, id);
    db_bind_bytes(s->walk, 2, key);
    *more = false;
    bool row = true;
    size_t bytes = 0;
    enum grey_error err = E_OK;
    while (err == E_OK && (err = db_step(s->walk, &row, f)) == E_OK && row) {
        if (bytes >= bytes_max) {
            *more = true;
            break;
        }
        err = row_add(s->walk, set, &bytes);
    }
    db_reset(s->walk);
    return err;
}

/* --- the background check -------------------------------------------------------------------------------------------------------------- */
static enum grey_error check_rows(struct statedb *s, uint64_t bytes_max, uint64_t *bytes, struct fault *f) {
    bool row = true;
    enum grey_error err = E_OK;
    struct bytes key = bytes_of(NULL, 0);
    db_bind_int(s->walk, 1, s->check.id);
    db_bind_bytes(s->walk, 2, bytes_of(s->check.key, s->check.key_size));
    while (err == E_OK && *bytes < bytes_max && (err = db_step(s->walk, &row, f)) == E_OK && row) {
        key = db_bytes(s->walk, 1);
        *bytes += key.size + db_bytes(s->walk, 2).size + ROW_BYTES;
        if (key.size > sizeof s->check.key) {
            err = fault_set(f, E_CORRUPT, "state.db: a key of %zu bytes", key.size);
        }
    }
    if (err == E_OK && row && key.size > 0) { /* before the reset, which takes the row away */
        s->check.id = (enum table_id)db_int(s->walk, 0);
        memcpy(s->check.key, key.data, key.size);
        s->check.key_size = key.size;
    }
    db_reset(s->walk);
    s->check.rows_done = err == E_OK && !row;
    return err;
}

static enum grey_error check_live(struct statedb *s, uint64_t bytes_max, uint64_t *bytes, bool *end, struct fault *f) {
    bool row = true;
    enum grey_error err = E_OK;
    db_bind_int(s->live_walk, 1, s->check.live);
    while (*bytes < bytes_max && (err = db_step(s->live_walk, &row, f)) == E_OK && row) {
        s->check.live = db_int(s->live_walk, 0);
        *bytes += ROW_BYTES;
    }
    db_reset(s->live_walk);
    *end = !row;
    return err;
}

enum grey_error statedb_check(struct statedb *s, uint64_t bytes_max, uint64_t *bytes, bool *end, struct fault *f) {
    enum grey_error err = E_OK;
    *bytes = 0;
    *end = false;
    if (!s->check.rows_done) {
        err = check_rows(s, bytes_max, bytes, f);
    }
    if (err == E_OK && s->check.rows_done) {
        err = check_live(s, bytes_max, bytes, end, f);
    }
    *end |= err != E_OK;
    if (*end) {
        memset(&s->check, 0, sizeof s->check);
    }
    return err;
}

/* --- building anew --------------------------------------------------------------------------------------------------------------------- */
enum grey_error statedb_fill(struct statedb *s, const struct sitelog_row_set *rows, struct fault *f) {
    enum grey_error err = begin(s, f);
    s->base = 0;
    for (size_t i = 0; i < sitelog_row_count(rows) && err == E_OK; i++) {
        struct sitelog_row row;
        sitelog_row_get(rows, i, &row);
        err = row_put(s, row.id, row.key, row.value, row.ref, f);
    }
    return finish(s, err == E_OK ? live_settle(s, f) : err, NULL, f);
}

enum grey_error statedb_fill_done(struct statedb *s, const struct statedb_facts *facts, struct fault *f) {
    enum grey_error err = begin(s, f);
    return finish(s, err == E_OK ? facts_save(s, facts, f) : err, facts, f);
}
