/* table.h: the site's state as rows, of which only the changed and the recently used ones are in memory (DECISIONS 3).
 *
 * Pure.  Rows live in state.db; the storage thread loads what an entry needs before it is applied (table_load) and writes what
 * changed (table_flush_*).  So applying never waits for a disk: table_get answers TABLE_UNKNOWN only if the caller did not ask for
 * the row first.  Rows are ordered by key as memcmp does.  That a row is absent is remembered like a row.
 *
 * Bounds: clean rows are dropped least recently used first above clean_bytes_max (which must hold what one entry wants: 512 KiB is
 * plenty); rows that were loaded and not read yet have twice as much for themselves, so that what was loaded for
 * entries in flight is still there when they are applied.  Dirty rows are bounded by flushing (table_dirty_bytes).  Rows of
 * pinned tables (table_pinned) are never dropped, and one that is not in memory does not exist.  A row costs some 56 bytes beside
 * its key and value. */
#ifndef AGENT_TABLE_H
#define AGENT_TABLE_H

#include "include/grey/ids.h"
#include "platform/bytes.h"

struct table;

/* Numbers stand in state.db and in snapshots; never reused. */
enum table_id {
    TABLE_META = 1,    /* small fixed set of rows: counters of channels, site, limits; always in memory */
    TABLE_KV = 2,      /* key -> version, size, content type; ref = log index whose payload holds the value */
    TABLE_DEDUP = 3,   /* slot u8, 16-byte hash of source and id -> priority, seq, index, body hash, time */
    TABLE_OUTBOX = 4,  /* list u8, seq be64 -> index, slot, bytes, time; ref = log index */
    TABLE_SEGMENT = 5, /* list u8, first seq be64 -> summary of a run of outbox rows; always in memory */
    TABLE_GAP = 6,     /* channel u8, last seq be64 -> events that were lost: numbers, bytes, reason */
    TABLE_TASK =
        7, /* id -> what the scheduler knows of the task; ref = log index whose payload holds the order; always in memory */
    TABLE_TENANT = 8,   /* tenant, or tenant/namespace -> share; always in memory */
    TABLE_NODE = 9,     /* raft id be64 -> what the node has for tasks; always in memory */
    TABLE_OBJECT = 10,  /* kind u8, name -> manifests in force and coming (agent/state/holding.h); always in memory */
    TABLE_CHUNK = 11,   /* SHA-256 of a chunk of them -> size; ref = log index whose payload has it; always in memory */
    TABLE_PROOF = 12,   /* index be64 -> whose run the proof in that entry's payload is of; ref = index; always in memory */
    TABLE_TOKEN = 13,   /* id -> what is kept of a token of the API (agent/state/grants.h); always in memory */
    TABLE_VERDICT = 14, /* name of a gateway -> what the verifier said of it (agent/state/verdicts.h); always in memory */
    TABLE_UPDATE = 16,  /* name of an object -> how each gateway stands to it (agent/state/updating.h); always in memory */
    TABLE_OUTPUT = 17,  /* id of a task -> what it wrote beside the core; ref = index of the entry that has it; always in memory */
};
#define TABLE_ID_MAX 17

/* Tables whose rows are all loaded at the start and stay in memory. */
static inline bool table_pinned(enum table_id id) {
    return id == TABLE_META || id == TABLE_SEGMENT || id >= TABLE_TASK;
}

enum table_found { TABLE_FOUND, TABLE_ABSENT, TABLE_UNKNOWN };

struct table *table_new(size_t clean_bytes_max);
void table_free(struct table *t);

/* value: lent until the next call that changes t. */
enum table_found table_get(struct table *t, enum table_id id, struct bytes key, struct bytes *value);
/* Copies.  ref: index of the log entry whose payload this row keeps alive; 0: none.  Each of these three either returns E_OK, or
 * E_NO_MEMORY with t as it was.  Keys are at most LIMIT_KEY_BYTES. */
enum grey_error table_put(struct table *t, enum table_id id, struct bytes key, struct bytes value, raft_index ref);
enum grey_error table_delete(struct table *t, enum table_id id, struct bytes key);
/* Deletes all rows with low <= key < high, in memory and, at the next flush, on disk. */
enum grey_error table_delete_range(struct table *t, enum table_id id, struct bytes low, struct bytes high);

enum table_op_kind { TABLE_OP_PUT = 0, TABLE_OP_DELETE = 1, TABLE_OP_DELETE_RANGE = 2 };

/* A list of changes that are made whole or not at all: collect them in a builder, then commit.  The encoding of a change is fixed,
 * for it is what the state hash covers: kind u8 (enum table_op_kind), id u8, key size u16, second size u32, ref u64, all big-endian;
 * key (or low); value (or high). */
void table_change_put(struct builder *changes, enum table_id id, struct bytes key, struct bytes value, raft_index ref);
void table_change_delete(struct builder *changes, enum table_id id, struct bytes key);
void table_change_delete_range(struct builder *changes, enum table_id id, struct bytes low, struct bytes high);
enum grey_error table_commit(struct table *t, struct bytes changes); /* E_NO_MEMORY: t is as it was */

/* What storage found: a row, or that there is none (found false).  Never overwrites what is newer in memory.  The result of a
 * read must come here before table_flush_done is called for a flush that was given to the storage thread after that read.
 * E_NO_MEMORY: not loaded. */
enum grey_error table_load(struct table *t, enum table_id id, struct bytes key, bool found, struct bytes value, raft_index ref);

/* table_next: the first row in memory (dirty or clean, not deleted) with key >= from, in key order; false when there is none.
 * key, value: lent until the next change.  Rows only on disk are not seen: merge with a scan (table_deleted tells what to hide). */
bool table_next(struct table *t, enum table_id id, struct bytes from, struct bytes *key, struct bytes *value, raft_index *ref);
/* The same with key > after, which is copied before *key is written and has at most LIMIT_KEY_BYTES; empty: the first row of all. */
bool table_after(struct table *t, enum table_id id, struct bytes after, struct bytes *key, struct bytes *value, raft_index *ref);
bool table_deleted(struct table *t, enum table_id id, struct bytes key); /* a deletion of it is in memory */

/* Flushing: begin hands over the net effect of all changes since the last begin, to be written in this order: range deletions first,
 * then rows by table and key, one operation each.  They stay readable.  done(true): they are on disk, the rows become clean;
 * done(false): the write failed, they are dirty again (merged under what changed since).  One at a time. */
struct table_op {
    enum table_op_kind kind;
    enum table_id id;
    struct bytes key, high, value; /* high: end of a range */
    raft_index ref;
};
struct table_flush {
    const struct table_op *ops; /* lent to the storage thread until table_flush_done; t does not touch these bytes meanwhile */
    size_t count;
};
enum grey_error table_flush_begin(struct table *t, struct table_flush *f); /* count 0: nothing to do, no done needed */
void table_flush_done(struct table *t, bool written);
bool table_flushing(const struct table *t);
size_t table_dirty_bytes(const struct table *t); /* rows changed and not on disk yet, in flight included */
size_t table_memory_bytes(const struct table *t);
void table_clear(struct table *t); /* forgets everything in memory (before a snapshot is installed); not while flushing */

#endif
