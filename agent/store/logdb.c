/* One row per entry (agent/store/logrow.h).  chain is the entry's chain hash where idx is a multiple of LOGROW_CHAIN_STEP and NULL elsewhere: the hash
 * of any entry follows from the nearest stored one (or the base point) and the heads and payloads after it, and a run that ends at a
 * stored hash is thereby verified. */
#include "agent/store/logdb.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/random.h>

#include "agent/store/logrow.h"
#include "federation/raft/entries.h"
#include "include/grey/must.h"
#include "platform/db.h"
#include "platform/digest.h"

#define LOG_FORMAT 1
/* Measured with 256-byte values, 1/64/512 in flight: 25.9, 4.1, 3.2 bytes written per byte; 2048: 29.8, 4.7, 3.2; 4096: 37.6, 5.7 */
#define LOG_PAGE_BYTES 1024u
#define LOG_CACHE_BYTES 262144u /* 256 KiB */
#define SWEEP_ROWS_MAX 512u

struct logdb {
    struct db *db;
    struct logdb_facts facts, before; /* before: as of the start of the transaction */
    bool facts_changed;
    struct db_statement *insert, *truncate, *save, *entries, *payload, *remove, *remove_range, *keys_up, *keys_down, *has,
        *sizes_down, *kept;
    struct {
        bool begun;
        int64_t key;          /* of the last row that was verified, */
        struct raft_point at; /* and the entry there when it is above base */
    } check;                  /* where logdb_check stands */
};

static const char schema[] =
    "CREATE TABLE entry(idx INTEGER PRIMARY KEY, head BLOB NOT NULL, chain BLOB, data BLOB);"
    "CREATE TABLE meta(id INTEGER PRIMARY KEY, format INT, self INT, cluster INT, node BLOB, site BLOB, term INT, "
    "vote INT, base_index INT, base_term INT, base_time INT, base_hash BLOB, swept INT, starts INT, installing INT)";

/* --- facts ----------------------------------------------------------------------------------------------------------------------- */
static enum grey_error facts_save(struct logdb *l, struct fault *f) {
    const struct logdb_facts *a = &l->facts;
    const int64_t before[] = {LOG_FORMAT, (int64_t)a->self, (int64_t)a->cluster_id};
    for (int i = 0; i < 3; i++) {
        db_bind_int(l->save, i + 1, before[i]);
    }
    db_bind_bytes(l->save, 4, bytes_str(a->node.text));
    db_bind_bytes(l->save, 5, bytes_str(a->site.text));
    const int64_t after[] = {(int64_t)a->term, (int64_t)a->vote, (int64_t)a->base.index, (int64_t)a->base.term, a->base.time_ms};
    for (int i = 0; i < 5; i++) {
        db_bind_int(l->save, i + 6, after[i]);
    }
    db_bind_bytes(l->save, 11, bytes_of(a->base.hash, DIGEST_BYTES));
    db_bind_int(l->save, 12, (int64_t)a->swept);
    db_bind_int(l->save, 13, (int64_t)a->start_count);
    db_bind_int(l->save, 14, a->installing);
    enum grey_error err = db_run(l->save, f);
    db_reset(l->save);
    return err;
}

static bool name_read(struct bytes in, struct grey_name *out) {
    if (in.size > 0 && !grey_name_valid((const char *)in.data, in.size)) {
        return false;
    }
    memset(out, 0, sizeof *out);
    if (in.size > 0) {
        memcpy(out->text, in.data, in.size);
    }
    return true;
}

static enum grey_error facts_load(struct logdb *l, struct fault *f) {
    struct db_statement *st = NULL;
    bool row = false;
    enum grey_error err = db_prepare(l->db,
                                     "SELECT format, self, cluster, term, vote, base_index, base_term, base_time, swept, starts, "
                                     "installing, node, site, base_hash FROM meta WHERE id = 1",
                                     &st, f);
    if (err != E_OK || (err = db_step(st, &row, f)) != E_OK) {
        return err;
    }
    if (!row) {
        return fault_set(f, E_CORRUPT, "log.db: it has lost its description");
    }
    struct logdb_facts *a = &l->facts;
    if (db_int(st, 0) != LOG_FORMAT) {
        err = fault_set(f, E_DISK_VERSION, "log.db: format %" PRId64 ", this version knows %d", db_int(st, 0), LOG_FORMAT);
    }
    a->self = (raft_id)db_int(st, 1);
    a->cluster_id = (uint64_t)db_int(st, 2);
    a->term = (raft_term)db_int(st, 3);
    a->vote = (raft_id)db_int(st, 4);
    a->base.index = (raft_index)db_int(st, 5);
    a->base.term = (raft_term)db_int(st, 6);
    a->base.time_ms = db_int(st, 7);
    a->swept = (raft_index)db_int(st, 8);
    a->start_count = (uint64_t)db_int(st, 9);
    a->installing = db_int(st, 10) != 0;
    struct bytes hash = db_bytes(st, 13);
    if (err == E_OK && (!name_read(db_bytes(st, 11), &a->node) || !name_read(db_bytes(st, 12), &a->site) ||
                        hash.size != DIGEST_BYTES || a->self == 0 || a->swept > a->base.index || a->base.index > INT64_MAX)) {
        err = fault_set(f, E_CORRUPT, "log.db: its description contradicts itself");
    } else if (err == E_OK) {
        memcpy(a->base.hash, hash.data, DIGEST_BYTES);
    }
    db_reset(st);
    return err;
}

static enum grey_error draw_self(struct logdb *l, struct fault *f) {
    while (l->facts.self == 0) { /* 0 means none */
        if (getrandom(&l->facts.self, sizeof l->facts.self, 0) != (ssize_t)sizeof l->facts.self) {
            return fault_errno(f, E_SYSTEM, "drawing a raft id");
        }
    }
    return E_OK;
}

static enum grey_error prepare(struct logdb *l, struct fault *f) {
    const struct {
        struct db_statement **st;
        const char *sql;
    } all[] = {
        {&l->insert, "INSERT INTO entry(idx, head, chain, data) VALUES(?1, ?2, ?3, ?4)"},
        {&l->truncate, "DELETE FROM entry WHERE idx >= ?1"},
        {&l->save, "REPLACE INTO meta VALUES(1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)"},
        {&l->entries, "SELECT idx, head, chain, data FROM entry WHERE idx > ?1 AND idx <= ?2 ORDER BY idx"},
        {&l->payload, "SELECT head, data FROM entry WHERE idx = ?1"},
        {&l->remove, "DELETE FROM entry WHERE idx IN (?1, -?1)"},
        {&l->remove_range, "DELETE FROM entry WHERE idx BETWEEN ?1 AND ?2"},
        {&l->keys_up, "SELECT idx FROM entry WHERE idx > ?1 AND idx <= ?2 ORDER BY idx LIMIT ?3"},
        {&l->keys_down, "SELECT -idx FROM entry WHERE idx < -?1 AND idx >= -?2 ORDER BY idx DESC LIMIT ?3"},
        {&l->has, "SELECT 1 FROM entry WHERE idx = ?1"},
        {&l->sizes_down,
         "SELECT idx, length(head) + ifnull(length(data), 0) FROM entry WHERE idx > ?1 AND idx <= ?2 ORDER BY idx DESC"},
        {&l->kept, "SELECT idx, head, data FROM entry WHERE idx > ?1 AND idx <= ?2 ORDER BY idx"},
    };
    enum grey_error err = E_OK;
    for (size_t i = 0; i < sizeof all / sizeof all[0] && err == E_OK; i++) {
        err = db_prepare(l->db, all[i].sql, all[i].st, f);
    }
    return err;
}

static enum grey_error load(struct logdb *l, bool created, struct fault *f) {
    enum grey_error err = db_begin(l->db, f);
    if (err == E_OK && created) {
        err = db_exec(l->db, schema, f);
    }
    if (err == E_OK && (err = prepare(l, f)) == E_OK) {
        err = created ? draw_self(l, f) : facts_load(l, f);
    }
    if (err != E_OK) {
        return err;
    }
    l->facts.start_count++;
    int64_t last = 0;
    if ((err = db_ask(l->db, "SELECT max(idx) FROM entry", &last, f)) != E_OK) {
        return err;
    }
    l->facts.last = last > (int64_t)l->facts.base.index ? (raft_index)last : l->facts.base.index;
    if ((err = facts_save(l, f)) != E_OK) {
        return err;
    }
    return db_commit(l->db, f);
}

struct logdb *logdb_open(const char *path, struct fault *f) {
    struct logdb *l = mem_new(1, sizeof *l);
    if (l == NULL) {
        fault_set(f, E_NO_MEMORY, "opening %s", path);
        return NULL;
    }
    bool created = false;
    l->db = db_open(path, &(struct db_options){.page_bytes = LOG_PAGE_BYTES, .cache_bytes = db_cache_bytes(LOG_CACHE_BYTES)},
                    &created, f);
    if (l->db == NULL || load(l, created, f) != E_OK) {
        logdb_close(l);
        return NULL;
    }
    return l;
}

void logdb_close(struct logdb *l) {
    if (l != NULL) {
        db_close(l->db);
        mem_free(l);
    }
}

const struct logdb_facts *logdb_facts(const struct logdb *l) {
    return &l->facts;
}

struct db *logdb_db(struct logdb *l) {
    return l->db;
}

/* --- transactions ---------------------------------------------------------------------------------------------------------------- */
enum grey_error logdb_begin(struct logdb *l, struct fault *f) {
    l->before = l->facts;
    l->facts_changed = false;
    return db_begin(l->db, f);
}

enum grey_error logdb_commit(struct logdb *l, struct fault *f) {
    enum grey_error err = l->facts_changed ? facts_save(l, f) : E_OK;
    if (err == E_OK) {
        err = db_commit(l->db, f);
    }
    if (err != E_OK) {
        logdb_rollback(l);
    }
    return err;
}

void logdb_rollback(struct logdb *l) {
    db_rollback(l->db);
    l->facts = l->before;
}

enum grey_error logdb_vote(struct logdb *l, raft_term term, raft_id vote, struct fault *f) {
    (void)f;
    if (l->facts.term != term || l->facts.vote != vote) {
        must(term >= l->facts.term);
        l->facts.term = term;
        l->facts.vote = vote;
        l->facts_changed = true;
    }
    return E_OK;
}

enum grey_error logdb_cluster(struct logdb *l, uint64_t cluster_id, struct fault *f) {
    (void)f;
    l->facts_changed |= l->facts.cluster_id != cluster_id;
    l->facts.cluster_id = cluster_id;
    return E_OK;
}

enum grey_error logdb_become(struct logdb *l, const struct logdb_facts *facts, struct fault *f) {
    (void)f;
    l->facts = *facts;
    l->facts_changed = true;
    l->check.begun = false;
    return E_OK;
}

enum grey_error logdb_claim(struct logdb *l, const struct grey_name *node, const struct grey_name *site, struct fault *f) {
    (void)f;
    l->facts.node = *node;
    l->facts.site = *site;
    l->facts_changed = true;
    return E_OK;
}

enum grey_error logdb_truncate(struct logdb *l, raft_index from, struct fault *f) {
    must(from > l->facts.base.index);
    db_bind_int(l->truncate, 1, (int64_t)from);
    l->check.begun = false; /* other entries may come in the places of those that it went on from */
    enum grey_error err = db_run(l->truncate, f);
    db_reset(l->truncate);
    if (err == E_OK && from <= l->facts.last) {
        l->facts.last = from - 1;
    }
    return err;
}

static enum grey_error insert(struct logdb *l, int64_t key, const struct entry *e, bool chain, struct fault *f) {
    uint8_t head[LOGROW_HEAD_BYTES_MAX];
    db_bind_int(l->insert, 1, key);
    db_bind_bytes(l->insert, 2, bytes_of(head, logrow_head_write(e, head)));
    if (chain) {
        db_bind_bytes(l->insert, 3, bytes_of(e->hash, DIGEST_BYTES));
    }
    if (e->payload != NULL) {
        db_bind_bytes(l->insert, 4, blob_bytes(e->payload));
    }
    enum grey_error err = db_run(l->insert, f);
    db_reset(l->insert);
    return err;
}

enum grey_error logdb_append(struct logdb *l, const struct entry *e, struct fault *f) {
    must(e->index == l->facts.last + 1);
    enum grey_error err = insert(l, (int64_t)e->index, e, e->index % LOGROW_CHAIN_STEP == 0, f);
    if (err == E_OK) {
        l->facts.last = e->index;
    }
    return err;
}

enum grey_error logdb_compact(struct logdb *l, const struct raft_point *point, struct fault *f) {
    struct raft_point here;
    if (point->index <= l->facts.base.index) {
        return E_OK;
    }
    enum grey_error err = logdb_point(l, point->index, &here, f);
    if (err != E_OK) {
        return err;
    }
    if (memcmp(here.hash, point->hash, DIGEST_BYTES) != 0) {
        return fault_set(f, E_BUG, "log.db: compaction to %" PRIu64 " of another history", point->index);
    }
    l->facts.base = here;
    l->facts_changed = true;
    return E_OK;
}

enum grey_error logdb_replace(struct logdb *l, const struct raft_point *point, raft_index certain, struct fault *f) {
    db_bind_int(l->truncate, 1, (int64_t)(certain + 1));
    l->check.begun = false;
    enum grey_error err = db_run(l->truncate, f);
    db_reset(l->truncate);
    if (err == E_OK) {
        l->facts.base = *point;
        l->facts.last = point->index;
        l->facts.swept = 0;
        l->facts.installing = true;
        l->facts_changed = true;
    }
    return err;
}

enum grey_error logdb_installed(struct logdb *l, struct fault *f) {
    (void)f;
    l->facts_changed |= l->facts.installing;
    l->facts.installing = false;
    return E_OK;
}

enum grey_error logdb_receive(struct logdb *l, const struct entry *e, struct fault *f) {
    static const uint8_t none[DIGEST_BYTES];
    struct entry copy = *e;
    bool there = false;
    digest_sha256(blob_bytes(e->payload), copy.digest);
    if (memcmp(e->digest, none, DIGEST_BYTES) != 0 && memcmp(e->digest, copy.digest, DIGEST_BYTES) != 0) {
        return fault_set(f, E_CORRUPT, "the received payload of entry %" PRIu64 " is damaged", e->index);
    }
    db_bind_int(l->has, 1, -(int64_t)e->index);
    enum grey_error err = db_step(l->has, &there, f);
    db_reset(l->has);
    return err != E_OK || there ? err : insert(l, -(int64_t)e->index, &copy, false, f);
}

enum grey_error logdb_forget(struct logdb *l, raft_index index, struct fault *f) {
    must(index <= l->facts.base.index);
    db_bind_int(l->remove, 1, (int64_t)index);
    enum grey_error err = db_run(l->remove, f);
    db_reset(l->remove);
    return err;
}

/* --- the sweep --------------------------------------------------------------------------------------------------------------------- */
/* The next keys above swept, at or below base, of own (up) or received (down) payloads; more: the limit cut them off. */
static enum grey_error keys(struct logdb *l, struct db_statement *st, uint32_t rows_max, raft_index *out, uint32_t *count,
                            struct fault *f) {
    db_bind_int(st, 1, (int64_t)l->facts.swept);
    db_bind_int(st, 2, (int64_t)l->facts.base.index);
    db_bind_int(st, 3, rows_max);
    *count = 0;
    bool row = true;
    enum grey_error err = E_OK;
    while ((err = db_step(st, &row, f)) == E_OK && row) {
        must(*count < rows_max);
        out[(*count)++] = (raft_index)db_int(st, 0);
    }
    db_reset(st);
    return err;
}

static enum grey_error remove_range(struct logdb *l, int64_t low, int64_t high, struct fault *f) {
    db_bind_int(l->remove_range, 1, low);
    db_bind_int(l->remove_range, 2, high);
    enum grey_error err = db_run(l->remove_range, f);
    db_reset(l->remove_range);
    return err;
}

enum grey_error logdb_sweep(struct logdb *l, uint32_t rows_max,
                            enum grey_error (*live)(void *context, raft_index index, bool *is, struct fault *f), void *context,
                            struct fault *f) {
    raft_index at[SWEEP_ROWS_MAX];
    raft_index until = l->facts.base.index;
    rows_max = rows_max < SWEEP_ROWS_MAX ? rows_max : SWEEP_ROWS_MAX;
    for (int sign = 1; sign >= -1; sign -= 2) {
        uint32_t count = 0;
        enum grey_error err = keys(l, sign > 0 ? l->keys_up : l->keys_down, rows_max, at, &count, f);
        if (err != E_OK) {
            return err;
        }
        if (count > 0 && count == rows_max && at[count - 1] < until) {
            until = at[count - 1];
        }
        /* Dead payloads that lie side by side go with one statement. */
        for (uint32_t i = 0, first = 0; i <= count; i++) {
            bool is = true;
            if (i < count && at[i] <= until && (err = live(context, at[i], &is, f)) != E_OK) {
                return err;
            }
            if (!is) {
                continue;
            }
            if (i > first) {
                int64_t low = (int64_t)at[first], high = (int64_t)at[i - 1];
                if ((err = sign > 0 ? remove_range(l, low, high, f) : remove_range(l, -high, -low, f)) != E_OK) {
                    return err;
                }
            }
            first = i + 1;
        }
    }
    l->facts.swept = until;
    l->facts_changed = true;
    return E_OK;
}

/* --- reading ----------------------------------------------------------------------------------------------------------------------- */
/* Walks the verified entries above `point` (base or one with a stored hash) up to `to`; keep: called for each, takes the payload. */
struct walk {
    struct logdb *l;
    struct raft_point at; /* the last entry passed */
    raft_index to;
};

static enum grey_error walk_begin(struct walk *w, struct logdb *l, raft_index from, raft_index to, struct fault *f) {
    *w = (struct walk){.l = l, .at = l->facts.base, .to = to};
    raft_index stored = (from - 1) / LOGROW_CHAIN_STEP * LOGROW_CHAIN_STEP;
    if (stored > l->facts.base.index) {
        db_bind_int(l->entries, 1, (int64_t)stored - 1);
        db_bind_int(l->entries, 2, (int64_t)stored);
        bool row = false;
        struct entry e = {0};
        enum grey_error err = db_step(l->entries, &row, f);
        if (err == E_OK && row && db_bytes(l->entries, 2).size == DIGEST_BYTES) {
            err = logrow_read(stored, db_bytes(l->entries, 1), db_bytes(l->entries, 3), &e, f);
            w->at = (struct raft_point){.index = stored, .term = e.term, .time_ms = e.time_ms};
            memcpy(w->at.hash, db_bytes(l->entries, 2).data, DIGEST_BYTES);
        } else if (err == E_OK) {
            err = fault_set(f, E_CORRUPT, "log.db: entry %" PRIu64 " or its chain hash is missing", stored);
        }
        blob_unref(e.payload);
        db_reset(l->entries);
        if (err != E_OK) {
            return err;
        }
    }
    db_bind_int(l->entries, 1, (int64_t)w->at.index);
    db_bind_int(l->entries, 2, (int64_t)to);
    return E_OK;
}

/* The next entry, verified; the caller owns its payload reference.  Not to be called beyond `to`. */
static enum grey_error walk_next(struct walk *w, struct entry *e, struct fault *f) {
    struct db_statement *st = w->l->entries;
    raft_index index = w->at.index + 1;
    bool row = false;
    enum grey_error err = db_step(st, &row, f);
    if (err != E_OK) {
        return err;
    }
    if (!row || db_int(st, 0) != (int64_t)index) {
        return fault_set(f, E_CORRUPT, "log.db: entry %" PRIu64 " is missing", index);
    }
    if ((err = logrow_read(index, db_bytes(st, 1), db_bytes(st, 3), e, f)) != E_OK) {
        return err;
    }
    entry_seal(e, w->at.hash);
    struct bytes chain = db_bytes(st, 2);
    bool stored = index % LOGROW_CHAIN_STEP == 0;
    if (stored != !db_null(st, 2) || (stored && !bytes_equal(chain, bytes_of(e->hash, DIGEST_BYTES))) || e->term < w->at.term) {
        blob_unref(e->payload);
        return fault_set(f, E_CORRUPT, "log.db: the chain breaks at or before entry %" PRIu64, index);
    }
    w->at = (struct raft_point){.index = index, .term = e->term, .time_ms = e->time_ms};
    memcpy(w->at.hash, e->hash, DIGEST_BYTES);
    return E_OK;
}

enum grey_error logdb_point(struct logdb *l, raft_index index, struct raft_point *point, struct fault *f) {
    if (index < l->facts.base.index || index > l->facts.last) {
        return fault_set(f, E_NOT_FOUND, "log.db: entry %" PRIu64 " is not in %" PRIu64 "..%" PRIu64, index, l->facts.base.index,
                         l->facts.last);
    }
    if (index == l->facts.base.index) {
        *point = l->facts.base;
        return E_OK;
    }
    struct walk w;
    enum grey_error err = walk_begin(&w, l, index, index, f);
    while (err == E_OK && w.at.index < index) {
        struct entry e = {0};
        if ((err = walk_next(&w, &e, f)) == E_OK) {
            blob_unref(e.payload);
        }
    }
    db_reset(l->entries);
    *point = w.at;
    return err;
}

enum grey_error logdb_entries(struct logdb *l, raft_index from, raft_index to, uint64_t bytes_max, struct entry **entries,
                              uint32_t *count, struct fault *f) {
    *entries = NULL;
    *count = 0;
    if (from <= l->facts.base.index || from > l->facts.last || to < from) {
        return fault_set(f, E_NOT_FOUND, "log.db: entry %" PRIu64 " is not in %" PRIu64 "..%" PRIu64, from, l->facts.base.index + 1,
                         l->facts.last);
    }
    to = to < l->facts.last ? to : l->facts.last;
    struct walk w;
    struct entry *list = NULL;
    uint32_t held = 0, capacity = 0;
    uint64_t bytes = 0;
    enum grey_error err = walk_begin(&w, l, from, to, f);
    /* The last quarter ends at a stored hash where it can: who reads on from there need not walk to it again. */
    uint64_t enough = bytes_max - bytes_max / 4;
    while (err == E_OK && w.at.index < to &&
           (held == 0 || (bytes < bytes_max && (bytes < enough || w.at.index % LOGROW_CHAIN_STEP != 0)))) {
        struct entry e = {0};
        if ((err = walk_next(&w, &e, f)) != E_OK) {
            break;
        }
        if (e.index < from) {
            blob_unref(e.payload);
            continue;
        }
        if (held == capacity) {
            uint32_t more = capacity == 0 ? 16 : capacity * 2;
            struct entry *grown = mem_grow(list, more, sizeof *list);
            if (grown == NULL) {
                blob_unref(e.payload);
                err = fault_set(f, E_NO_MEMORY, "reading entries from %" PRIu64, from);
                break;
            }
            list = grown;
            capacity = more;
        }
        list[held++] = e;
        bytes += blob_bytes(e.payload).size + ENTRY_HEADER_BYTES; /* small ones cost their reading */
    }
    db_reset(l->entries);
    if (err != E_OK) {
        logdb_entries_free(list, held);
        return err;
    }
    *entries = list;
    *count = held;
    return E_OK;
}

enum grey_error logdb_last_fitting(struct logdb *l, raft_index from, raft_index to, uint64_t bytes_max, raft_index *below,
                                   struct fault *f) {
    uint64_t bytes = 0;
    bool row = true;
    enum grey_error err = E_OK;
    *below = to;
    db_bind_int(l->sizes_down, 1, (int64_t)from - 1);
    db_bind_int(l->sizes_down, 2, (int64_t)to);
    while ((err = db_step(l->sizes_down, &row, f)) == E_OK && row) {
        bytes += (uint64_t)db_int(l->sizes_down, 1);
        if (bytes > bytes_max) {
            break;
        }
        *below = (raft_index)db_int(l->sizes_down, 0) - 1;
    }
    db_reset(l->sizes_down);
    return err;
}

void logdb_entries_free(struct entry *entries, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        blob_unref(entries[i].payload);
    }
    mem_free(entries);
}

enum grey_error logdb_payload(struct logdb *l, raft_index index, struct entry *e, struct fault *f) {
    for (int sign = 1; sign >= -1; sign -= 2) {
        bool row = false;
        db_bind_int(l->payload, 1, sign > 0 ? (int64_t)index : -(int64_t)index);
        enum grey_error err = db_step(l->payload, &row, f);
        if (err == E_OK && row) {
            err = logrow_read(index, db_bytes(l->payload, 0), db_bytes(l->payload, 1), e, f);
        }
        db_reset(l->payload);
        if (err != E_OK || row) {
            return err;
        }
    }
    return fault_set(f, E_NOT_FOUND, "log.db: no payload of entry %" PRIu64, index);
}

enum grey_error logdb_readable(struct logdb *l, raft_index from, raft_index to, uint64_t bytes_max, struct entry **entries,
                               uint32_t *count, raft_index *looked_to, struct fault *f) {
    uint64_t bytes = 0;
    enum grey_error err = E_OK;
    struct entry *list = mem_new((size_t)(to - from) + 1, sizeof *list);
    *entries = NULL;
    *count = 0;
    *looked_to = from - 1;
    if (list == NULL) {
        return fault_set(f, E_NO_MEMORY, "reading entries from %" PRIu64, from);
    }
    while (err == E_OK && *looked_to < to && (*count == 0 || bytes < bytes_max)) {
        struct entry e = {0};
        struct fault why = {0};
        err = logdb_payload(l, ++*looked_to, &e, &why);
        if (err == E_OK) {
            bytes += blob_bytes(e.payload).size + ENTRY_HEADER_BYTES;
            list[(*count)++] = e;
        } else if (err != E_NOT_FOUND && f != NULL) {
            *f = why;
        }
        err = err == E_NOT_FOUND || err == E_CORRUPT ? E_OK : err;
    }
    if (err != E_OK) {
        logdb_entries_free(list, *count);
        *count = 0;
        return err;
    }
    *entries = list;
    return E_OK;
}

/* --- the background check ---------------------------------------------------------------------------------------------------------- */
static enum grey_error check_kept(struct logdb *l, uint64_t bytes_max, uint64_t *bytes, struct fault *f) {
    bool row = true;
    enum grey_error err = E_OK;
    db_bind_int(l->kept, 1, l->check.key);
    db_bind_int(l->kept, 2, (int64_t)l->facts.base.index);
    while (err == E_OK && *bytes < bytes_max && (err = db_step(l->kept, &row, f)) == E_OK && row) {
        struct entry e = {0};
        int64_t key = db_int(l->kept, 0);
        err = logrow_read((raft_index)(key < 0 ? -key : key), db_bytes(l->kept, 1), db_bytes(l->kept, 2), &e, f);
        *bytes += blob_bytes(e.payload).size + ENTRY_HEADER_BYTES;
        blob_unref(e.payload);
        l->check.key = key;
    }
    db_reset(l->kept);
    if (err == E_OK && !row) {
        l->check.key = (int64_t)l->facts.base.index;
        l->check.at = l->facts.base;
    }
    return err;
}

static enum grey_error check_entries(struct logdb *l, uint64_t bytes_max, uint64_t *bytes, struct fault *f) {
    struct walk w = {.l = l, .at = l->check.at, .to = l->facts.last};
    enum grey_error err = E_OK;
    db_bind_int(l->entries, 1, (int64_t)w.at.index);
    db_bind_int(l->entries, 2, (int64_t)w.to);
    while (err == E_OK && *bytes < bytes_max && w.at.index < w.to) {
        struct entry e = {0};
        if ((err = walk_next(&w, &e, f)) == E_OK) {
            *bytes += blob_bytes(e.payload).size + ENTRY_HEADER_BYTES;
            blob_unref(e.payload);
        }
    }
    db_reset(l->entries);
    l->check.at = w.at;
    l->check.key = (int64_t)w.at.index;
    return err;
}

enum grey_error logdb_check(struct logdb *l, uint64_t bytes_max, uint64_t *bytes, bool *end, struct fault *f) {
    enum grey_error err = E_OK;
    if (!l->check.begun) {
        l->check.begun = true;
        l->check.key = INT64_MIN;
    }
    *bytes = 0;
    if (l->check.key < (int64_t)l->facts.base.index || l->check.key == INT64_MIN) { /* also when base has passed it since */
        err = check_kept(l, bytes_max, bytes, f);
    }
    if (err == E_OK && l->check.key >= (int64_t)l->facts.base.index) {
        err = check_entries(l, bytes_max, bytes, f);
    }
    *end = err != E_OK || l->check.key >= (int64_t)l->facts.last;
    l->check.begun = !*end;
    return err;
}

bool logdb_has_term(struct logdb *l, raft_index index, raft_term term) {
    struct entry e = {0};
    bool same = index == l->facts.base.index && l->facts.base.term == term;
    db_bind_int(l->payload, 1, (int64_t)index);
    bool row = false;
    if (!same && index > 0 && db_step(l->payload, &row, NULL) == E_OK && row) {
        same = logrow_head_read(db_bytes(l->payload, 0), &e) && e.term == term;
    }
    db_reset(l->payload);
    return same;
}
