/* db.c: SQLite as this program uses it: statements, transactions, named errors; below it, in db_disk.c, the file layer. */
#include "platform/db.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "include/grey/must.h"
#include "platform/db_disk.h"

struct db_statement {
    sqlite3_stmt *run;
    struct db *db;
    int bind_error; /* the first bind that failed since the last reset */
    struct db_statement *next;
};

struct db {
    sqlite3 *connection;
    struct db_statement *statements;
    struct db_statement *begin, *commit, *rollback;
    uint64_t wal_frames; /* frames in the log that a checkpoint has not moved yet; set by SQLite at each commit */
    uint32_t page_bytes;
    char name[64]; /* base name, for sentences */
};

static enum grey_error error_of(const struct db *d, int code) {
    switch (code & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
        return E_OK;
    case SQLITE_FULL:
        return E_DISK_FULL;
    case SQLITE_NOMEM:
        return E_NO_MEMORY;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return E_CORRUPT;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return E_LOCKED;
    case SQLITE_IOERR:
        if (code == SQLITE_IOERR_DATA) {
            return E_CORRUPT;
        }
        if (code == SQLITE_IOERR_NOMEM) {
            return E_NO_MEMORY;
        }
        /* SQLite names only ENOSPC; a quota is a full disk as well. */
        return code == SQLITE_IOERR_WRITE && d->connection != NULL && sqlite3_system_errno(d->connection) == EDQUOT ? E_DISK_FULL
                                                                                                                    : E_IO;
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_PROTOCOL:
        return E_IO;
    case SQLITE_TOOBIG:
        return E_TOO_LARGE;
    default:
        return E_BUG;
    }
}

static enum grey_error report(const struct db *d, int code, struct fault *f) {
    enum grey_error err = error_of(d, code);
    if (err == E_OK) {
        return E_OK;
    }
    if (code == SQLITE_IOERR_DATA) {
        return fault_set(f, err, "%s: page %" PRIu64 " is damaged", d->name, db_disk_bad_page());
    }
    return fault_set(f, err, "%s: %s (SQLite %d, errno %d)", d->name,
                     d->connection == NULL ? "out of memory" : sqlite3_errmsg(d->connection), code,
                     d->connection == NULL ? 0 : sqlite3_system_errno(d->connection));
}

static int committed(void *context, sqlite3 *connection, const char *schema, int frames) {
    (void)connection, (void)schema;
    ((struct db *)context)->wal_frames = (uint64_t)frames;
    return SQLITE_OK;
}

enum grey_error db_ask(struct db *d, const char *sql, int64_t *out, struct fault *f) {
    sqlite3_stmt *run = NULL;
    *out = 0;
    int code = sqlite3_prepare_v2(d->connection, sql, -1, &run, NULL);
    if (code == SQLITE_OK && (code = sqlite3_step(run)) == SQLITE_ROW) {
        *out = sqlite3_column_int64(run, 0);
    }
    enum grey_error err = report(d, code, f); /* before finalize, which forgets the message */
    sqlite3_finalize(run);
    return err;
}

int64_t db_number(struct db *d, const char *sql, int64_t fallback) {
    int64_t v = 0;
    return db_ask(d, sql, &v, NULL) == E_OK ? v : fallback;
}

enum grey_error db_exec(struct db *d, const char *sql, struct fault *f) {
    return report(d, sqlite3_exec(d->connection, sql, NULL, NULL, NULL), f);
}

static enum grey_error set_up(struct db *d, const struct db_options *o, bool *created, struct fault *f) {
    sqlite3_extended_result_codes(d->connection, 1);
    sqlite3_db_config(d->connection, SQLITE_DBCONFIG_LOOKASIDE, NULL, 128, 40);
    sqlite3_db_config(d->connection, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    int reserved = DB_DISK_TAIL_BYTES, on = 1;
    /* Exclusive before the first access: then SQLite keeps the index of its log in memory instead of a shared file. */
    enum grey_error err = db_exec(d, "PRAGMA locking_mode=EXCLUSIVE", f);
    if (err != E_OK) {
        return err;
    }
    int64_t pages = 0, page_bytes = 0, tables = 0;
    if ((err = db_ask(d, "PRAGMA page_count", &pages, f)) != E_OK) {
        return err;
    }
    char sql[256];
    if (pages == 0) {
        sqlite3_file_control(d->connection, "main", SQLITE_FCNTL_RESERVE_BYTES, &reserved);
        sqlite3_snprintf(sizeof sql, sql, "PRAGMA page_size=%u; PRAGMA auto_vacuum=INCREMENTAL", o->page_bytes);
        err = db_exec(d, sql, f);
    }
    sqlite3_snprintf(sizeof sql, sql,
                     "PRAGMA secure_delete=OFF; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0;"
                     "PRAGMA journal_size_limit=4194304; PRAGMA mmap_size=0; PRAGMA temp_store=MEMORY; PRAGMA cache_size=-%u",
                     o->cache_bytes / 1024);
    if (err == E_OK) {
        err = db_exec(d, sql, f);
    }
    if (err != E_OK) {
        return err;
    }
    sqlite3_file_control(d->connection, "main", SQLITE_FCNTL_PERSIST_WAL, &on);
    /* The page size as the file says it; the layer below learnt it from the same place. */
    if ((err = db_ask(d, "PRAGMA page_size", &page_bytes, f)) != E_OK) {
        return err;
    }
    if (page_bytes != (int64_t)o->page_bytes) {
        return fault_set(f, E_DISK_VERSION, "%s: pages of %" PRId64 " bytes, not %u", d->name, page_bytes, o->page_bytes);
    }
    reserved = -1; /* asks; other than ours means that sums are not verified */
    sqlite3_file_control(d->connection, "main", SQLITE_FCNTL_RESERVE_BYTES, &reserved);
    if (reserved != DB_DISK_TAIL_BYTES) {
        return fault_set(f, E_CORRUPT, "%s: its first page is damaged, or another program made it", d->name);
    }
    d->page_bytes = o->page_bytes;
    sqlite3_wal_hook(d->connection, committed, d);
    if ((err = db_ask(d, "SELECT count(*) FROM sqlite_schema", &tables, f)) != E_OK) {
        return err;
    }
    *created = tables == 0;
    if ((err = db_prepare(d, "BEGIN IMMEDIATE", &d->begin, f)) != E_OK || (err = db_prepare(d, "COMMIT", &d->commit, f)) != E_OK) {
        return err;
    }
    return db_prepare(d, "ROLLBACK", &d->rollback, f);
}

/* Links on the way to the file are followed here: SQLITE_OPEN_NOFOLLOW, which keeps the file from being one, would refuse them too. */
static bool real_path(const char *path, const char *name, char out[PATH_MAX]) {
    char folder[PATH_MAX];
    int size = snprintf(folder, sizeof folder, "%.*s.", (int)(name - path), path);
    if (size >= (int)sizeof folder || realpath(folder, out) == NULL) {
        return false;
    }
    size_t used = strlen(out);
    if (used + strlen(name) + 2 > PATH_MAX) {
        errno = ENAMETOOLONG;
        return false;
    }
    (void)snprintf(out + used, PATH_MAX - used, "/%s", name);
    return true;
}

struct db *db_open(const char *path, const struct db_options *o, bool *created, struct fault *f) {
    must(o->page_bytes >= 512 && o->page_bytes <= DB_DISK_PAGE_BYTES_MAX && (o->page_bytes & (o->page_bytes - 1)) == 0);
    if (db_disk_register() != SQLITE_OK) {
        fault_set(f, E_NO_MEMORY, "SQLite cannot be initialised");
        return NULL;
    }
    if (db_disk_wal_check(path, f) != E_OK) {
        return NULL;
    }
    char real[PATH_MAX];
    const char *slash = strrchr(path, '/'), *name = slash == NULL ? path : slash + 1;
    if (!real_path(path, name, real)) {
        fault_errno(f, E_IO, "finding the directory of %s", path);
        return NULL;
    }
    struct db *d = mem_new(1, sizeof *d);
    if (d == NULL) {
        fault_set(f, E_NO_MEMORY, "opening %s", path);
        return NULL;
    }
    sqlite3_snprintf(sizeof d->name, d->name, "%s", name);
    /* Made here for its mode; SQLite gives the log beside it the same. */
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        fault_errno(f, E_IO, "opening %s", path);
        mem_free(d);
        return NULL;
    }
    close(fd);
    int code =
        sqlite3_open_v2(real, &d->connection,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW, DB_DISK_NAME);
    enum grey_error err = report(d, code, f);
    if (err == E_OK) {
        err = set_up(d, o, created, f);
    }
    if (err != E_OK) {
        db_close(d);
        return NULL;
    }
    return d;
}

void db_close(struct db *d) {
    if (d == NULL) {
        return;
    }
    db_rollback(d);
    while (d->statements != NULL) {
        struct db_statement *st = d->statements;
        d->statements = st->next;
        sqlite3_finalize(st->run);
        mem_free(st);
    }
    int code = sqlite3_close(d->connection);
    must(code == SQLITE_OK);
    mem_free(d);
}

enum grey_error db_prepare(struct db *d, const char *sql, struct db_statement **out, struct fault *f) {
    struct db_statement *st = mem_new(1, sizeof *st);
    if (st == NULL) {
        return fault_set(f, E_NO_MEMORY, "%s: preparing a statement", d->name);
    }
    enum grey_error err = report(d, sqlite3_prepare_v3(d->connection, sql, -1, SQLITE_PREPARE_PERSISTENT, &st->run, NULL), f);
    if (err != E_OK) {
        mem_free(st);
        return err;
    }
    st->db = d;
    st->next = d->statements;
    d->statements = st;
    *out = st;
    return E_OK;
}

static void note_bind(struct db_statement *st, int code) {
    if (st->bind_error == SQLITE_OK) {
        st->bind_error = code;
    }
}

void db_bind_int(struct db_statement *st, int at, int64_t v) {
    note_bind(st, sqlite3_bind_int64(st->run, at, v));
}

void db_bind_bytes(struct db_statement *st, int at, struct bytes v) {
    note_bind(st, v.size == 0 ? sqlite3_bind_zeroblob(st->run, at, 0)
                              : sqlite3_bind_blob64(st->run, at, v.data, v.size, SQLITE_STATIC));
}

void db_bind_null(struct db_statement *st, int at) {
    note_bind(st, sqlite3_bind_null(st->run, at));
}

enum grey_error db_step(struct db_statement *st, bool *row, struct fault *f) {
    *row = false;
    int code = st->bind_error != SQLITE_OK ? st->bind_error : sqlite3_step(st->run);
    if (code == SQLITE_ROW) {
        *row = true;
        return E_OK;
    }
    enum grey_error err = report(st->db, code, f);
    db_reset(st);
    return err;
}

enum grey_error db_run(struct db_statement *st, struct fault *f) {
    bool row = true;
    enum grey_error err = E_OK;
    while (err == E_OK && row) {
        err = db_step(st, &row, f);
    }
    return err;
}

void db_reset(struct db_statement *st) {
    sqlite3_reset(st->run); /* repeats the error of the last step, which was reported */
    sqlite3_clear_bindings(st->run);
    st->bind_error = SQLITE_OK;
}

int64_t db_int(const struct db_statement *st, int column) {
    return sqlite3_column_int64(st->run, column);
}

struct bytes db_bytes(const struct db_statement *st, int column) {
    const void *data = sqlite3_column_blob(st->run, column); /* before the size, as SQLite asks for */
    return bytes_of(data, data == NULL ? 0 : (size_t)sqlite3_column_bytes(st->run, column));
}

bool db_null(const struct db_statement *st, int column) {
    return sqlite3_column_type(st->run, column) == SQLITE_NULL;
}

int64_t db_changes(const struct db *d) {
    return sqlite3_changes64(d->connection);
}

enum grey_error db_begin(struct db *d, struct fault *f) {
    return db_run(d->begin, f);
}

enum grey_error db_commit(struct db *d, struct fault *f) {
    return db_run(d->commit, f);
}

bool db_in_transaction(const struct db *d) {
    return d->connection != NULL && sqlite3_get_autocommit(d->connection) == 0;
}

void db_rollback(struct db *d) {
    for (struct db_statement *st = d->statements; st != NULL; st = st->next) {
        db_reset(st);
    }
    if (db_in_transaction(d) && d->rollback != NULL) {
        (void)db_run(d->rollback, NULL); /* fails only when SQLite has rolled back by itself */
    }
}

enum grey_error db_exec_whole(struct db *d, const char *sql, struct fault *f) {
    enum grey_error err = db_begin(d, f);
    err = err != E_OK ? err : db_exec(d, sql, f);
    err = err != E_OK ? err : db_commit(d, f);
    if (err != E_OK) {
        db_rollback(d);
    }
    return err;
}

enum grey_error db_checkpoint(struct db *d, struct fault *f) {
    int frames = 0, moved = 0;
    enum grey_error err =
        report(d, sqlite3_wal_checkpoint_v2(d->connection, "main", SQLITE_CHECKPOINT_PASSIVE, &frames, &moved), f);
    if (err == E_OK && frames == moved) {
        d->wal_frames = 0;
    }
    return err;
}

uint64_t db_wal_bytes(const struct db *d) {
    return d->wal_frames * (d->page_bytes + 24u);
}

uint64_t db_file_bytes(struct db *d) {
    return (uint64_t)db_number(d, "PRAGMA page_count", 0) * d->page_bytes;
}

uint64_t db_free_bytes(struct db *d) {
    return (uint64_t)db_number(d, "PRAGMA freelist_count", 0) * d->page_bytes;
}

/* A page of the map has five bytes for each of the pages behind it (SQLite's file format, 1.8). */
uint64_t db_live_bytes(struct db *d) {
    uint64_t file_bytes = db_file_bytes(d), entries = (d->page_bytes - DB_DISK_TAIL_BYTES) / 5;
    uint64_t map_bytes = file_bytes / d->page_bytes / (entries + 1) * d->page_bytes;
    return file_bytes - db_free_bytes(d) - map_bytes;
}

enum grey_error db_shrink(struct db *d, uint32_t pages_max, struct fault *f) {
    char sql[64];
    sqlite3_snprintf(sizeof sql, sql, "PRAGMA incremental_vacuum(%u)", pages_max);
    return db_exec(d, sql, f);
}

enum grey_error db_rewrite(struct db *d, struct fault *f) {
    return db_exec(d, "VACUUM", f);
}

void db_soft_limit(uint64_t bytes) {
    sqlite3_soft_heap_limit64((sqlite3_int64)bytes);
}

static uint32_t cache_bytes; /* 0: nobody said */

void db_set_cache(uint32_t bytes) {
    cache_bytes = bytes;
}

uint32_t db_cache_bytes(uint32_t otherwise) {
    return cache_bytes > 0 ? cache_bytes : otherwise;
}

uint64_t db_release(struct db *d) {
    (void)sqlite3_db_release_memory(d->connection);
    return (uint64_t)sqlite3_memory_used();
}
