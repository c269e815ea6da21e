#include "agent/store/salvage.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/store/datadir.h"
#include "agent/store/logrow.h"
#include "agent/store/sealdb.h"
#include "agent/store/setaside.h"
#include "federation/raft/entries.h"
#include "include/grey/limits.h"
#include "include/grey/must.h"
#include "platform/db.h"
#include "platform/digest.h"

#define MARK "log.mend"
#define COPY "log-mending.db"
#define MENDED "log-mended.db"
#define PATH_BYTES (LIMIT_PATH_BYTES + 32u)
#define BATCH_ROWS 512u
#define BATCH_BYTES 1048576u /* 1 MiB */

struct salvage {
    char data_dir[LIMIT_PATH_BYTES + 1], wal_dir[LIMIT_PATH_BYTES + 1];
    struct logdb *damaged, *copy;
    struct statedb *state;
    struct db_statement *heads, *data;                           /* of damaged */
    struct db_statement *put, *give, *chain, *head, *has, *drop; /* of copy */
    struct mendplan plan;
    uint32_t rows;  /* in the present transaction of the copy */
    uint64_t bytes; /* and their size */
    bool mended;
};

static void path_of(const char *dir, const char *name, char out[PATH_BYTES]) {
    (void)snprintf(out, PATH_BYTES, "%.*s/%s", (int)LIMIT_PATH_BYTES, dir, name);
}

/* --- the mark and the last step -------------------------------------------------------------------------------------------------- */
enum grey_error salvage_mark(const char *wal_dir, const char *reason, struct fault *f) {
    return datadir_note_write(wal_dir, MARK, reason, f);
}

bool salvage_marked(const char *wal_dir) {
    return datadir_note_read(wal_dir, MARK, NULL, 0);
}

void salvage_unmark(const char *wal_dir) {
    char path[PATH_BYTES];
    path_of(wal_dir, MARK, path);
    if (unlink(path) == 0) {
        (void)datadir_sync(wal_dir, NULL);
    }
}

static void remove_copy(const char *wal_dir) {
    static const char *const names[] = {COPY, COPY "-wal"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[PATH_BYTES];
        path_of(wal_dir, names[i], path);
        (void)unlink(path);
    }
}

enum grey_error salvage_resume(const char *data_dir, const char *wal_dir, struct fault *f) {
    char path[PATH_BYTES];
    path_of(wal_dir, MENDED, path);
    if (access(path, F_OK) != 0) {
        return E_OK;
    }
    enum grey_error err = setaside_replace_log(data_dir, wal_dir, MENDED, f);
    if (err == E_OK) {
        salvage_unmark(wal_dir);
    }
    return err;
}

/* --- copying --------------------------------------------------------------------------------------------------------------------- */
/* The copy grows in transactions of a bounded size: it may hold a gigabyte of waiting payloads. */
static enum grey_error copy_batch(struct salvage *s, size_t bytes, struct fault *f) {
    s->rows++;
    s->bytes += bytes;
    if (s->rows < BATCH_ROWS && s->bytes < BATCH_BYTES) {
        return E_OK;
    }
    s->rows = 0;
    s->bytes = 0;
    enum grey_error err = logdb_commit(s->copy, f);
    if (err == E_OK) {
        err = db_checkpoint(logdb_db(s->copy), f);
    }
    return err == E_OK ? logdb_begin(s->copy, f) : err;
}

static enum grey_error copy_put(struct salvage *s, int64_t key, struct bytes head, struct bytes chain, struct bytes data,
                                struct fault *f) {
    db_bind_int(s->put, 1, key);
    db_bind_bytes(s->put, 2, head);
    if (chain.size > 0) {
        db_bind_bytes(s->put, 3, chain);
    }
    if (data.size > 0) {
        db_bind_bytes(s->put, 4, data);
    }
    enum grey_error err = db_run(s->put, f);
    db_reset(s->put);
    return err;
}

static bool unreadable(enum grey_error err) {
    return err == E_CORRUPT || err == E_IO;
}

/* A row whose head is readable.  A payload that is not leaves a hollow row, if the entry is one of the log's. */
static enum grey_error copy_row(struct salvage *s, int64_t key, struct bytes head, struct bytes chain, struct fault *f) {
    struct entry e = {0};
    raft_index base = logdb_facts(s->damaged)->base.index;
    bool of_log = key > 0 && (raft_index)key > base;
    bool row = false;
    if (!logrow_head_read(head, &e)) {
        return E_OK;
    }
    db_bind_int(s->data, 1, key);
    enum grey_error err = db_step(s->data, &row, f);
    bool holds = err == E_OK && row && logrow_payload_holds(&e, db_bytes(s->data, 0));
    if (err == E_OK || unreadable(err)) {
        err = E_OK;
        if (of_log) {
            err = mendplan_row(&s->plan, (raft_index)key, holds, f);
        }
        if (err == E_OK && (holds || of_log)) {
            struct bytes data = holds ? db_bytes(s->data, 0) : bytes_of(NULL, 0);
            err = copy_put(s, key, head, chain, data, f);
            err = err == E_OK ? copy_batch(s, data.size + head.size, f) : err;
        }
    }
    db_reset(s->data);
    return err;
}

static enum grey_error probe(struct salvage *s, int64_t key) {
    bool row = false;
    db_bind_int(s->heads, 1, key);
    enum grey_error err = db_step(s->heads, &row, NULL);
    db_reset(s->heads);
    return err;
}

/* The smallest key above `key` from which rows can be read again: doubling steps, then halving ones. */
static enum grey_error next_readable(struct salvage *s, int64_t key, int64_t *next, struct fault *f) {
    int64_t last = (int64_t)logdb_facts(s->damaged)->last, bad = key, good = key;
    for (uint64_t stride = 1;; stride *= 2) {
        uint64_t left = (uint64_t)last - (uint64_t)bad;
        good = stride < left ? (int64_t)((uint64_t)bad + stride) : last;
        enum grey_error err = probe(s, good);
        if (err == E_OK) {
            break;
        }
        if (!unreadable(err) || good == last) {
            return fault_set(f, err, "log.db: its end cannot be read");
        }
        bad = good;
    }
    while ((uint64_t)good - (uint64_t)bad > 1) {
        int64_t middle = (int64_t)((uint64_t)bad + ((uint64_t)good - (uint64_t)bad) / 2);
        enum grey_error err = probe(s, middle);
        if (err != E_OK && !unreadable(err)) {
            return fault_set(f, err, "log.db: entry %" PRId64, middle);
        }
        good = err == E_OK ? middle : good;
        bad = err == E_OK ? bad : middle;
    }
    *next = good;
    return E_OK;
}

static enum grey_error copy_entries(struct salvage *s, struct fault *f) {
    int64_t at = INT64_MIN;
    for (;;) {
        bool row = true;
        db_bind_int(s->heads, 1, at);
        enum grey_error err;
        while ((err = db_step(s->heads, &row, f)) == E_OK && row) {
            int64_t key = db_int(s->heads, 0);
            struct bytes chain = db_null(s->heads, 2) ? bytes_of(NULL, 0) : db_bytes(s->heads, 2);
            if ((err = copy_row(s, key, db_bytes(s->heads, 1), chain, f)) != E_OK) {
                db_reset(s->heads);
                return err;
            }
            at = key + 1;
        }
        db_reset(s->heads);
        if (err == E_OK) {
            break;
        }
        if (!unreadable(err) || (err = next_readable(s, at, &at, f)) != E_OK) {
            return err;
        }
    }
    return mendplan_looked(&s->plan, f);
}

/* Seals vouch for what is there without them.  Those on damaged pages are left out, and without their signers all are. */
static enum grey_error copy_seals(struct salvage *s, struct fault *f) {
    static const char *const read[] = {"SELECT id, node, key FROM signer", "SELECT idx, epoch, signer, hash, signature FROM seal"};
    static const char *const write[] = {"REPLACE INTO signer(id, node, key) VALUES(?1, ?2, ?3)",
                                        "REPLACE INTO seal(idx, epoch, signer, hash, signature) VALUES(?1, ?2, ?3, ?4, ?5)"};
    static const int numbers[] = {1, 3}, columns[] = {3, 5};
    for (int i = 0; i < 2; i++) {
        struct db_statement *from = NULL, *to = NULL;
        bool row = true;
        enum grey_error err = db_prepare(logdb_db(s->copy), write[i], &to, f);
        if (err != E_OK) {
            return err;
        }
        err = db_prepare(logdb_db(s->damaged), read[i], &from, f);
        while (err == E_OK && (err = db_step(from, &row, f)) == E_OK && row) {
            for (int c = 0; c < columns[i]; c++) {
                if (c < numbers[i]) {
                    db_bind_int(to, c + 1, db_int(from, c));
                } else {
                    db_bind_bytes(to, c + 1, db_bytes(from, c));
                }
            }
            err = db_run(to, f);
            db_reset(to);
            if (err != E_OK) {
                return err;
            }
        }
        if (err != E_OK) {
            return unreadable(err) ? E_OK : err;
        }
    }
    return E_OK;
}

/* --- what is missing ------------------------------------------------------------------------------------------------------------- */
static enum grey_error copy_has(struct salvage *s, raft_index index, bool *has, struct fault *f) {
    db_bind_int(s->has, 1, (int64_t)index);
    enum grey_error err = db_step(s->has, has, f);
    db_reset(s->has);
    return err;
}

static enum grey_error find_live(struct salvage *s, raft_index from, raft_index to, struct fault *f) {
    for (raft_index at = from - 1;;) {
        bool has = false;
        enum grey_error err = statedb_live_next(s->state, at + 1, &at, f);
        if (err != E_OK || at == 0 || at > to) {
            return err;
        }
        if ((err = copy_has(s, at, &has, f)) != E_OK || (!has && (err = mendplan_live(&s->plan, at, f)) != E_OK)) {
            return err;
        }
    }
}

/* In a transaction of the copy. */
static enum grey_error move_base(struct salvage *s, struct fault *f) {
    struct logdb_facts facts = *logdb_facts(s->copy);
    raft_index from = facts.base.index + 1;
    const struct mendplan_list *lost = &s->plan.lost;
    enum grey_error err = E_OK;
    facts.base = statedb_facts(s->state)->applied;
    for (uint32_t i = 0; i < lost->count && lost->at[i] <= facts.base.index && err == E_OK; i++) {
        db_bind_int(s->drop, 1, (int64_t)lost->at[i]); /* hollow, or not there */
        err = db_run(s->drop, f);
        db_reset(s->drop);
    }
    mendplan_forgo(&s->plan);
    err = err == E_OK ? logdb_become(s->copy, &facts, f) : err;
    return err == E_OK ? find_live(s, from, facts.base.index, f) : err;
}

bool salvage_may_forgo(const struct salvage *s) {
    return mendplan_may_forgo(&s->plan);
}

enum grey_error salvage_forgo(struct salvage *s, struct fault *f) {
    enum grey_error err = logdb_begin(s->copy, f);
    if (err == E_OK && (err = move_base(s, f)) != E_OK) {
        logdb_rollback(s->copy);
    }
    return err == E_OK ? logdb_commit(s->copy, f) : err;
}

static enum grey_error settle(struct salvage *s, struct fault *f) {
    const struct logdb_facts *facts = logdb_facts(s->damaged);
    enum grey_error err = logdb_become(s->copy, facts, f);
    err = err == E_OK ? find_live(s, 1, facts->base.index, f) : err;
    return err == E_OK && s->plan.forgo ? move_base(s, f) : err;
}

static enum grey_error judge(const struct salvage *s, struct fault *f) {
    const struct logdb_facts *log = logdb_facts(s->damaged);
    raft_index applied = statedb_facts(s->state)->applied.index;
    if (log->installing || applied < log->base.index || applied > log->last || log->node.text[0] == '\0') {
        return fault_set(f, E_CORRUPT, "log.db %" PRIu64 "..%" PRIu64 " and state.db %" PRIu64 " do not fit together",
                         log->base.index, log->last, applied);
    }
    return E_OK;
}

static enum grey_error prepare(struct salvage *s, struct fault *f) {
    struct db *damaged = logdb_db(s->damaged), *copy = logdb_db(s->copy);
    const struct {
        struct db *db;
        struct db_statement **st;
        const char *sql;
    } all[] = {{damaged, &s->heads, "SELECT idx, head, chain FROM entry WHERE idx >= ?1 ORDER BY idx"},
               {damaged, &s->data, "SELECT data FROM entry WHERE idx = ?1"},
               {copy, &s->put, "REPLACE INTO entry(idx, head, chain, data) VALUES(?1, ?2, ?3, ?4)"},
               {copy, &s->give, "UPDATE entry SET data = ?2 WHERE idx = ?1"},
               {copy, &s->chain, "UPDATE entry SET chain = ?2 WHERE idx = ?1"},
               {copy, &s->head, "SELECT head, chain FROM entry WHERE idx = ?1"},
               {copy, &s->has, "SELECT 1 FROM entry WHERE idx IN (?1, -?1)"},
               {copy, &s->drop, "DELETE FROM entry WHERE idx = ?1"}};
    enum grey_error err = E_OK;
    for (size_t i = 0; i < sizeof all / sizeof all[0] && err == E_OK; i++) {
        err = db_prepare(all[i].db, all[i].sql, all[i].st, f);
    }
    return err;
}

/* What the copy says of an entry of the log, with its hash where that is stored (chained); false: its row is missing. */
static bool head_of(const struct salvage *s, raft_index index, struct entry *e, bool *chained) {
    bool row = false;
    db_bind_int(s->head, 1, (int64_t)index);
    bool there = db_step(s->head, &row, NULL) == E_OK && row && logrow_head_read(db_bytes(s->head, 0), e);
    struct bytes chain = there ? db_bytes(s->head, 1) : bytes_of(NULL, 0);
    *chained = chain.size == DIGEST_BYTES;
    if (*chained) {
        memcpy(e->hash, chain.data, DIGEST_BYTES);
    }
    db_reset(s->head);
    return there;
}

static bool term_of(void *context, raft_index index, raft_term *term) {
    struct entry e = {0};
    bool chained, there = head_of(context, index, &e, &chained);
    *term = e.term;
    return there;
}

static enum grey_error copy_all(struct salvage *s, struct fault *f) {
    for (int i = 0; i < 2; i++) {
        struct sealdb *seals = sealdb_open(i == 0 ? s->damaged : s->copy, f); /* makes its tables where there are none */
        if (seals == NULL) {
            return f->code;
        }
        sealdb_close(seals);
    }
    enum grey_error err = prepare(s, f);
    const struct logdb_facts *log = logdb_facts(s->damaged);
    mendplan_begin(&s->plan, (struct mendplan_log){term_of, s}, log->base, log->last, statedb_facts(s->state)->applied);
    if (err == E_OK && (err = judge(s, f)) == E_OK) {
        err = logdb_begin(s->copy, f);
    }
    if (err == E_OK && (err = copy_entries(s, f)) == E_OK && (err = copy_seals(s, f)) == E_OK) {
        err = settle(s, f);
    }
    if (err == E_OK && (err = logdb_commit(s->copy, f)) == E_OK) {
        err = judge(s, f);
    }
    return err;
}

struct salvage *salvage_open(const char *data_dir, const char *wal_dir, struct fault *f) {
    char path[PATH_BYTES];
    struct salvage *s = mem_new(1, sizeof *s);
    if (s == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "mending the log");
        return NULL;
    }
    (void)snprintf(s->data_dir, sizeof s->data_dir, "%s", data_dir);
    (void)snprintf(s->wal_dir, sizeof s->wal_dir, "%s", wal_dir);
    remove_copy(wal_dir);
    path_of(wal_dir, "log.db", path);
    s->damaged = logdb_open(path, f);
    if (s->damaged != NULL) {
        path_of(data_dir, "state.db", path);
        s->state = statedb_open(path, f);
    }
    if (s->state != NULL) {
        path_of(wal_dir, COPY, path);
        s->copy = logdb_open(path, f);
    }
    if (s->copy == NULL || copy_all(s, f) != E_OK) {
        salvage_close(s);
        return NULL;
    }
    return s;
}

void salvage_close(struct salvage *s) {
    if (s == NULL) {
        return;
    }
    logdb_close(s->damaged);
    logdb_close(s->copy);
    statedb_close(s->state);
    if (!s->mended) {
        remove_copy(s->wal_dir);
    }
    mendplan_end(&s->plan);
    mem_free(s);
}

const struct logdb_facts *salvage_facts(const struct salvage *s) {
    return logdb_facts(s->copy);
}

const struct statedb_facts *salvage_state(const struct salvage *s) {
    return statedb_facts(s->state);
}

/* --- asking and taking ------------------------------------------------------------------------------------------------------------ */
uint32_t salvage_missing(const struct salvage *s) {
    return mendplan_missing(&s->plan);
}

bool salvage_need(struct salvage *s, struct mendplan_need *need) {
    return mendplan_need(&s->plan, need);
}

static enum grey_error take_one(struct salvage *s, const struct mendplan_offer *o, const struct entry *given, uint32_t *taken,
                                struct fault *f) {
    struct entry e = *given, here = {0};
    uint8_t head[LOGROW_HEAD_BYTES_MAX];
    bool chained, there = head_of(s, e.index, &here, &chained);
    digest_sha256(blob_bytes(e.payload), e.digest);
    if (!mendplan_take(&s->plan, o, &e, there ? &here : NULL)) {
        return E_OK;
    }
    size_t head_size = logrow_head_write(&e, head);
    ++*taken;
    if (!there) {
        return copy_put(s, (int64_t)e.index, bytes_of(head, head_size), bytes_of(NULL, 0), blob_bytes(e.payload), f);
    }
    db_bind_int(s->give, 1, (int64_t)e.index);
    db_bind_bytes(s->give, 2, blob_bytes(e.payload));
    enum grey_error err = db_run(s->give, f);
    db_reset(s->give);
    return err;
}

enum grey_error salvage_take(struct salvage *s, const struct mendplan_offer *o, uint32_t *taken, bool *to_this, struct fault *f) {
    *taken = 0;
    enum grey_error err = logdb_begin(s->copy, f);
    for (uint32_t i = 0; i < o->entry_count && err == E_OK; i++) {
        err = take_one(s, o, &o->entries[i], taken, f);
    }
    if (err == E_OK) {
        err = logdb_commit(s->copy, f);
    } else {
        logdb_rollback(s->copy);
    }
    *taken += err == E_OK ? mendplan_freed(&s->plan, o) : 0;
    *to_this = mendplan_answered(&s->plan, o, *taken);
    return err;
}

enum grey_error salvage_read(struct salvage *s, raft_index from, raft_index to, uint64_t bytes_max, struct entry **entries,
                             uint32_t *count, raft_index *looked_to, struct fault *f) {
    return logdb_readable(s->copy, from, to, bytes_max, entries, count, looked_to, f);
}

bool salvage_same(struct salvage *s, raft_index index, raft_term term) {
    return logdb_has_term(s->copy, index, term);
}

/* --- the end --------------------------------------------------------------------------------------------------------------------- */
/* Every entry above the base, each bound to the one before, and at its place the one that the state stands for; stored hashes that were lost
 * are put in again. */
static enum grey_error verify(struct salvage *s, struct fault *f) {
    const struct logdb_facts *log = logdb_facts(s->copy);
    const struct raft_point *applied = &statedb_facts(s->state)->applied;
    struct raft_point at = log->base;
    enum grey_error err = logdb_begin(s->copy, f);
    while (err == E_OK) {
        if (at.index == applied->index && memcmp(at.hash, applied->hash, DIGEST_BYTES) != 0) {
            err = fault_set(f, E_CORRUPT, "log.db: its rows can be read, but are not the history that state.db stands for");
        }
        if (err != E_OK || at.index == log->last) {
            break;
        }
        struct entry e = {0}, head = {0};
        bool chained, step = (at.index + 1) % LOGROW_CHAIN_STEP == 0;
        if ((err = logdb_payload(s->copy, at.index + 1, &e, f)) != E_OK) {
            break;
        }
        entry_seal(&e, at.hash);
        bool there = step && head_of(s, e.index, &head, &chained);
        if (there && chained && memcmp(head.hash, e.hash, DIGEST_BYTES) != 0) {
            err = fault_set(f, E_CORRUPT, "log.db: what others gave for entries before %" PRIu64 " is not what was there", e.index);
        } else if (there && !chained) {
            db_bind_int(s->chain, 1, (int64_t)e.index);
            db_bind_bytes(s->chain, 2, bytes_of(e.hash, DIGEST_BYTES));
            err = db_run(s->chain, f);
            db_reset(s->chain);
        }
        if (e.term < at.term) {
            err = fault_set(f, E_CORRUPT, "log.db: entry %" PRIu64 " is of an earlier term than the one before it", e.index);
        }
        at = (struct raft_point){.index = e.index, .term = e.term};
        memcpy(at.hash, e.hash, DIGEST_BYTES);
        blob_unref(e.payload);
        if (err == E_OK) {
            err = copy_batch(s, 0, f);
        }
    }
    if (err != E_OK) {
        logdb_rollback(s->copy);
        return err;
    }
    return logdb_commit(s->copy, f);
}

enum grey_error salvage_finish(struct salvage *s, struct fault *f) {
    char from[PATH_BYTES], to[PATH_BYTES];
    enum grey_error err = verify(s, f);
    if (err != E_OK || (err = db_checkpoint(logdb_db(s->copy), f)) != E_OK) {
        return err;
    }
    logdb_close(s->copy);
    logdb_close(s->damaged);
    s->copy = s->damaged = NULL;
    path_of(s->wal_dir, COPY "-wal", from);
    (void)unlink(from); /* empty, after the checkpoint */
    path_of(s->wal_dir, COPY, from);
    path_of(s->wal_dir, MENDED, to);
    if (rename(from, to) != 0) {
        return fault_errno(f, E_IO, "renaming %s", from);
    }
    s->mended = true;
    err = datadir_sync(s->wal_dir, f);
    return err == E_OK ? salvage_resume(s->data_dir, s->wal_dir, f) : err;
}
