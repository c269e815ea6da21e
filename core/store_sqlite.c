/* The store in one SQLite file, which this process has for itself (platform/db.h). */
#include <stdio.h>

#include "core/store_backend.h"
#include "include/grey/limits.h"
#include "include/grey/must.h"
#include "platform/db.h"

#define FORMAT 1
#define PAGE_BYTES 4096u
#define CACHE_BYTES (8u * 1024u * 1024u)
#define CHECKPOINT_BYTES (16u * 1024u * 1024u)

/* What is there already comes from an earlier version, which made the tables one by one and was cut off: it holds nothing. */
static const char schema[] = "CREATE TABLE IF NOT EXISTS meta(format INTEGER NOT NULL);"
                             "CREATE TABLE IF NOT EXISTS site(no INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, first_ms INTEGER, "
                             "contact_ms INTEGER, node TEXT);"
                             "CREATE TABLE IF NOT EXISTS incarnation(no INTEGER PRIMARY KEY, site INTEGER NOT NULL, number INTEGER "
                             "NOT NULL, epoch INTEGER NOT NULL,"
                             " first_ms INTEGER, UNIQUE(site, number));"
                             "CREATE TABLE IF NOT EXISTS position(inc INTEGER, channel INTEGER, seq INTEGER NOT NULL, known "
                             "INTEGER NOT NULL, PRIMARY KEY(inc, channel)) "
                             "WITHOUT ROWID;"
                             "CREATE TABLE IF NOT EXISTS event(inc INTEGER, channel INTEGER, seq INTEGER, idx INTEGER, time_ms "
                             "INTEGER, received_ms INTEGER, record BLOB "
                             "NOT NULL,"
                             " PRIMARY KEY(inc, channel, seq)) WITHOUT ROWID;"
                             "CREATE TABLE IF NOT EXISTS gap(inc INTEGER, channel INTEGER, from_seq INTEGER, to_seq INTEGER, "
                             "reason INTEGER, received_ms INTEGER,"
                             " PRIMARY KEY(inc, channel, from_seq)) WITHOUT ROWID;"
                             "INSERT INTO meta VALUES(1);";
static const char schema_added[] = /* what a core.db of format 1 may lack */
    "CREATE TABLE IF NOT EXISTS node(site INTEGER, name TEXT, first_ms INTEGER, contact_ms INTEGER,"
    " PRIMARY KEY(site, name)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS ahead(inc INTEGER, channel INTEGER, from_seq INTEGER, to_seq INTEGER, received_ms INTEGER, size "
    "INTEGER,"
    " content BLOB NOT NULL, PRIMARY KEY(inc, channel, from_seq)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS object(kind INTEGER, name TEXT, version INTEGER, issue INTEGER NOT NULL, created_ms INTEGER,"
    " cut BLOB NOT NULL, PRIMARY KEY(kind, name, version)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS chunk(hash BLOB PRIMARY KEY, content BLOB NOT NULL);"
    "CREATE TABLE IF NOT EXISTS aim(kind INTEGER, name TEXT, target INTEGER NOT NULL, former INTEGER, stage INTEGER,"
    " state INTEGER, since_ms INTEGER, PRIMARY KEY(kind, name)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS stage(kind INTEGER, name TEXT, no INTEGER, label TEXT, soak_s INTEGER,"
    " PRIMARY KEY(kind, name, no)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS label(site INTEGER, label TEXT, PRIMARY KEY(site, label)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS supplied(site INTEGER PRIMARY KEY, said_ms INTEGER);"
    "CREATE TABLE IF NOT EXISTS holding(site INTEGER, kind INTEGER, name TEXT, version INTEGER, issue INTEGER, health INTEGER,"
    " since_ms INTEGER, PRIMARY KEY(site, kind, name)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS sealed(site TEXT PRIMARY KEY, since_ms INTEGER) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS token(hash BLOB PRIMARY KEY, site TEXT NOT NULL, nodes INTEGER NOT NULL, used INTEGER NOT NULL,"
    " created_ms INTEGER, expires_ms INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS certificate(serial BLOB PRIMARY KEY, key BLOB NOT NULL, site TEXT NOT NULL, node TEXT NOT NULL,"
    " token BLOB, issued_ms INTEGER, not_after_ms INTEGER, pem TEXT NOT NULL, revoked_ms INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE INDEX IF NOT EXISTS certificate_key ON certificate(key);"
    "CREATE INDEX IF NOT EXISTS certificate_node ON certificate(site, node);"
    "CREATE TABLE IF NOT EXISTS offload(inc INTEGER, task TEXT, token INTEGER, state INTEGER NOT NULL, received_ms INTEGER,"
    " seen_ms INTEGER NOT NULL, errand BLOB NOT NULL, outcome INTEGER, status INTEGER, hash BLOB, size INTEGER, output BLOB,"
    " PRIMARY KEY(inc, task, token)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS tpm(ek BLOB PRIMARY KEY, site TEXT NOT NULL, node TEXT NOT NULL, added_ms INTEGER) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS attestation(site TEXT, node TEXT, revision INTEGER NOT NULL, kept BLOB NOT NULL,"
    " error INTEGER NOT NULL, until_ms INTEGER NOT NULL, PRIMARY KEY(site, node)) WITHOUT ROWID;"
    "CREATE TABLE IF NOT EXISTS mark(id INTEGER PRIMARY KEY, no INTEGER NOT NULL, store INTEGER NOT NULL);"
    "CREATE TABLE IF NOT EXISTS restored(site TEXT PRIMARY KEY, evidence INTEGER NOT NULL, known INTEGER NOT NULL,"
    " held INTEGER NOT NULL, found_ms INTEGER NOT NULL, accepted_ms INTEGER NOT NULL) WITHOUT ROWID;";
static const struct {
    const char *there, *add;
} columns_added[] = {
    {"SELECT count(*) FROM pragma_table_info('gap') WHERE name = 'bytes'",
     "ALTER TABLE gap ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;"},
    {"SELECT count(*) FROM pragma_table_info('site') WHERE name = 'asked_ms'",
     "ALTER TABLE site ADD COLUMN asked_ms INTEGER NOT NULL DEFAULT 0"},
    {"SELECT count(*) FROM pragma_table_info('token') WHERE name = 'node'", "ALTER TABLE token ADD COLUMN node TEXT"},
    {"SELECT count(*) FROM pragma_table_info('gap') WHERE name = 'bytes'",
     "ALTER TABLE gap ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0"},
};
static const char event_add[] = "INSERT OR IGNORE INTO event VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)";

struct sqlite {
    struct store base;
    struct db *db;
    struct db_statement *statements[STORE_STATEMENTS], *event_add;
    char path[LIMIT_PATH_BYTES + 1];
};

static struct sqlite *of(struct store *s) {
    return (struct sqlite *)(void *)s;
}

/* A reader is the statement itself, which SQLite steps row by row. */
static struct db_statement *stepped(const struct store_rows *rows) {
    return (struct db_statement *)(uintptr_t)rows;
}

static void close_it(struct store *s) {
    db_close(of(s)->db);
    mem_free(s);
}

static const char *name(struct store *s) {
    return of(s)->path;
}

static enum grey_error begin(struct store *s, struct fault *f) {
    return db_begin(of(s)->db, f);
}

static enum grey_error commit(struct store *s, struct fault *f) {
    struct db *db = of(s)->db;
    enum grey_error err = db_commit(db, f);
    if (err == E_OK && db_wal_bytes(db) > CHECKPOINT_BYTES) {
        err = db_checkpoint(db, f);
    }
    return err;
}

static void rollback(struct store *s) {
    db_rollback(of(s)->db);
}

static struct db_statement *bound(struct store *s, enum store_statement which, const struct store_value *in, int count) {
    struct db_statement *st = of(s)->statements[which];
    must(count <= STORE_VALUES_MAX);
    for (int i = 0; i < count; i++) {
        if (in[i].kind == STORE_NUMBER) {
            db_bind_int(st, i + 1, in[i].number);
        } else if (in[i].kind == STORE_BYTES) {
            db_bind_bytes(st, i + 1, in[i].bytes);
        } else {
            db_bind_null(st, i + 1);
        }
    }
    return st;
}

static enum grey_error run(struct store *s, enum store_statement which, const struct store_value *in, int count, struct fault *f) {
    if (store_sql[which] == NULL) {
        return E_OK;
    }
    struct db_statement *st = bound(s, which, in, count);
    enum grey_error err = db_run(st, f);
    db_reset(st);
    return err;
}

/* Nobody else writes here. */
static enum grey_error lock(struct store *s, const char *const *sites, size_t count, struct fault *f) {
    (void)s, (void)sites, (void)count, (void)f;
    return E_OK;
}

static enum grey_error ask(struct store *s, enum store_statement which, const struct store_value *in, int count,
                           struct store_rows **rows, struct fault *f) {
    (void)f;
    *rows = (struct store_rows *)(void *)bound(s, which, in, count);
    return E_OK;
}

static enum grey_error next(struct store_rows *rows, bool *row, struct fault *f) {
    return db_step(stepped(rows), row, f);
}

static int64_t number(const struct store_rows *rows, int column) {
    return db_int(stepped(rows), column);
}

static struct bytes text(const struct store_rows *rows, int column) {
    return db_bytes(stepped(rows), column);
}

static bool null(const struct store_rows *rows, int column) {
    return db_null(stepped(rows), column);
}

static void end(struct store_rows *rows) {
    db_reset(stepped(rows));
}

static enum grey_error add_events(struct store *s, int64_t inc, enum event_channel c, const struct sync_item *items, uint32_t count,
                                  int64_t now_ms, struct fault *f) {
    struct db_statement *st = of(s)->event_add;
    enum grey_error err = E_OK;
    for (uint32_t i = 0; i < count && err == E_OK; i++) {
        const int64_t in[] = {inc, c, (int64_t)items[i].seq, (int64_t)items[i].index, items[i].time_ms, now_ms};
        for (int k = 0; k < (int)(sizeof in / sizeof in[0]); k++) {
            db_bind_int(st, k + 1, in[k]);
        }
        db_bind_bytes(st, 7, items[i].record);
        err = db_run(st, f);
        db_reset(st);
    }
    return err;
}

static const struct store_ops ops = {.close = close_it,
                                     .name = name,
                                     .begin = begin,
                                     .commit = commit,
                                     .rollback = rollback,
                                     .run = run,
                                     .ask = ask,
                                     .next = next,
                                     .number = number,
                                     .bytes = text,
                                     .null = null,
                                     .end = end,
                                     .lock = lock,
                                     .add_events = add_events};

struct store *store_sqlite_open(const char *path, struct fault *f) {
    struct db_options o = {.page_bytes = PAGE_BYTES, .cache_bytes = CACHE_BYTES};
    bool created = false;
    struct sqlite *s = mem_new(1, sizeof *s);
    if (s == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "store");
        return NULL;
    }
    s->base.ops = &ops;
    (void)snprintf(s->path, sizeof s->path, "%s", path);
    s->db = db_open(path, &o, &created, f);
    bool ok = s->db != NULL;
    if (ok && (created || db_number(s->db, "SELECT count(*) FROM meta", -1) == 0)) {
        ok = db_exec_whole(s->db, schema, f) == E_OK; /* what comes later may stop anywhere: it is looked at each time */
    }
    if (ok && db_number(s->db, "SELECT format FROM meta", -1) != FORMAT) {
        (void)fault_set(f, E_DISK_VERSION, "%s", path);
        ok = false;
    }
    ok = ok && db_exec(s->db, schema_added, f) == E_OK;
    for (size_t i = 0; i < sizeof columns_added / sizeof columns_added[0] && ok; i++) {
        ok = db_number(s->db, columns_added[i].there, 0) > 0 || db_exec(s->db, columns_added[i].add, f) == E_OK;
    }
    ok = ok && db_prepare(s->db, event_add, &s->event_add, f) == E_OK;
    for (int i = 0; i < STORE_STATEMENTS && ok; i++) {
        ok = store_sql[i] == NULL || db_prepare(s->db, store_sql[i], &s->statements[i], f) == E_OK;
    }
    if (!ok) {
        close_it(&s->base);
        return NULL;
    }
    return &s->base;
}
