/* db.h: a SQLite database that one thread at a time uses alone, and the only door to SQLite.
 *
 * Every database is opened the same way: WAL, synchronous=FULL (one fdatasync per commit), exclusive (no shared memory file, no second
 * process), no memory map, no automatic checkpoint (FAULTS 1.3: whoever writes also checkpoints, in the same thread, when it says so),
 * secure_delete off, auto_vacuum incremental, a small cache.  Each page ends in eight bytes with a CRC-32 of the rest, written and
 * verified below SQLite (docs/FORMATS.md, "Pages"), so damage of the file is an error and never a wrong answer; a damaged log before
 * the last commit is found at open.
 *
 * Errors: E_DISK_FULL, E_IO, E_CORRUPT, E_NO_MEMORY, E_LOCKED, E_DISK_VERSION, and E_BUG for wrong SQL.  After an error inside a
 * transaction call db_rollback.  Thread: an object belongs to one thread at a time; counters and faults are for the process. */
#ifndef PLATFORM_DB_H
#define PLATFORM_DB_H

#include "platform/bytes.h"
#include "platform/fault.h"

struct db;
struct db_statement;

struct db_options {
    uint32_t page_bytes;  /* of a new file; an existing one with another size is E_DISK_VERSION */
    uint32_t cache_bytes; /* page cache, not counting what one transaction must hold */
};

/* db_open: opens or creates (mode 0600, in a directory that exists, also behind a symbolic link; the file itself may be none).
 * created: it had no tables. */
struct db *db_open(const char *path, const struct db_options *o, bool *created, struct fault *f);
/* Ends all statements, checkpoints as far as possible, keeps the emptied write-ahead log file.  NULL is allowed. */
void db_close(struct db *d);

enum grey_error db_exec(struct db *d, const char *sql, struct fault *f); /* any number of statements, results ignored */
/* The same in a transaction: all of them or none, wherever it is cut.  For tables, without which nobody could use the file. */
enum grey_error db_exec_whole(struct db *d, const char *sql, struct fault *f);
enum grey_error db_begin(struct db *d, struct fault *f);
enum grey_error db_commit(struct db *d, struct fault *f); /* durable when E_OK; otherwise nothing of it is, after db_rollback */
void db_rollback(struct db *d);                           /* harmless without a transaction; ends all statements' runs */
bool db_in_transaction(const struct db *d);

/* A statement lives until db_close.  Parameters count from 1, columns from 0.  A failed bind is reported by the next step. */
enum grey_error db_prepare(struct db *d, const char *sql, struct db_statement **st, struct fault *f);
void db_bind_int(struct db_statement *st, int at, int64_t v);
void db_bind_bytes(struct db_statement *st, int at, struct bytes v); /* borrows until db_reset; an empty slice is an empty blob */
void db_bind_null(struct db_statement *st, int at);
/* row: whether there is one to look at.  At the end and on error the statement is reset. */
enum grey_error db_step(struct db_statement *st, bool *row, struct fault *f);
enum grey_error db_run(struct db_statement *st, struct fault *f); /* steps to the end */
void db_reset(struct db_statement *st);                           /* ends the run, forgets parameters */
int64_t db_int(const struct db_statement *st, int column);
struct bytes db_bytes(const struct db_statement *st, int column); /* lends until the next step or reset */
bool db_null(const struct db_statement *st, int column);
int64_t db_changes(const struct db *d); /* rows the last statement touched */

/* A single number, e.g. of "PRAGMA freelist_count"; 0 when there is no row or it is NULL. */
enum grey_error db_ask(struct db *d, const char *sql, int64_t *out, struct fault *f);
int64_t db_number(struct db *d, const char *sql, int64_t fallback); /* the same; fallback on any error: for figures only */

/* Moves the write-ahead log into the file and syncs both; the next commit begins the log anew. */
enum grey_error db_checkpoint(struct db *d, struct fault *f);
uint64_t db_wal_bytes(const struct db *d); /* written since the last complete checkpoint */
uint64_t db_file_bytes(struct db *d);      /* pages of the database times their size */
uint64_t db_free_bytes(struct db *d);      /* of these, unused */
/* Of these, what db_rewrite would write: what is used, less SQLite's map of whose page is whose, which is as large as the file wants it. */
uint64_t db_live_bytes(struct db *d);
enum grey_error db_shrink(struct db *d, uint32_t pages_max,
                          struct fault *f); /* gives unused pages back; a transaction of its own */
/* Writes anew what is used, and gives back all else; a transaction of its own, which holds what is used in memory: for little. */
enum grey_error db_rewrite(struct db *d, struct fault *f);

/* For the whole process, since start: what went to the disk below SQLite. */
struct db_counts {
    uint64_t writes, written_bytes, syncs, reads;
};
void db_count(struct db_counts *c);
void db_soft_limit(uint64_t bytes); /* SQLite gives caches back above this */
/* What the operator gives each database for its pages, in place of what its module would take; 0: that.  Before the first is opened. */
void db_set_cache(uint32_t bytes);
uint32_t db_cache_bytes(uint32_t otherwise);
/* Gives back pages that are not in use; tells the memory that SQLite still holds, for all databases. */
uint64_t db_release(struct db *d);

/* Tests: `ask` sees each call before it happens, on the calling thread, and what it returns other than E_OK is done instead of it
 * (E_IO, E_DISK_FULL, E_NO_MEMORY; E_CORRUPT for a read that finds a damaged sector, E_LOCKED for a lock that another holds).  `synced` is called after a successful sync.  NULL: none. */
enum db_io { DB_IO_READ, DB_IO_WRITE, DB_IO_TRUNCATE, DB_IO_SYNC, DB_IO_DELETE, DB_IO_LOCK };
struct db_faults {
    enum grey_error (*ask)(void *context, enum db_io io, const char *path, uint64_t offset, struct bytes data);
    void (*synced)(void *context, const char *path);
    void *context;
};
void db_inject(const struct db_faults *faults);

#endif
