/* table.h: the site's state as rows, of which only the changed and the recently used ones are in memory (DECISIONS 3).
 *
 * Pure.  Rows live in state.db; the storage thread loads what an entry needs before it is applied (table_load) and writes what
 * changed (table_flush_*).  So applying never waits for a disk: table_get answers TABLE_UNKNOWN only if the caller did not ask for
 * the row first.  Rows are ordered by key as memcmp does.  Bound: clean rows are dropped least recently used first above
 * clean_bytes_max; dirty rows are bounded by flushing (table_dirty_bytes). */
#ifndef AGENT_TABLE_H
#define AGENT_TABLE_H

#include "include/grey/ids.h"
#include "platform/bytes.h"

struct table;

/* Numbers stand in state.db and in snapshots; never reused. */
enum table_id {
    TABLE_META = 1,    /* small fixed set of rows: counters of channels, site, limits; always in memory */
    TABLE_KV = 2,      /* key -> version, size, content type; ref = log index whose payload holds the value */
    TABLE_DEDUP = 3,   /* 16-byte hash of source and id -> channel, seq, index, body hash, time */
    TABLE_OUTBOX = 4,  /* priority u8, seq be64 -> index, slot, bytes, time; ref = log index */
    TABLE_SEGMENT = 5, /* priority u8, first seq be64 -> summary of a run of outbox rows; always in memory */
};

enum table_found { TABLE_FOUND, TABLE_ABSENT, TABLE_UNKNOWN };

struct table *table_new(size_t clean_bytes_max);
void table_free(struct table *t);

/* value: lent until the next call that changes t. */
enum table_found table_get(struct table *t, enum table_id id, struct bytes key, struct bytes *value);
/* Copies.  ref: index of the log entry whose payload this row keeps alive; 0: none. */
enum grey_error table_put(struct table *t, enum table_id id, struct bytes key, struct bytes value, raft_index ref);
enum grey_error table_delete(struct table *t, enum table_id id, struct bytes key);
/* Deletes all rows with low <= key < high, in memory and, at the next flush, on disk. */
enum grey_error table_delete_range(struct table *t, enum table_id id, struct bytes low, struct bytes high);

/* What storage found: a row, or that there is none (found false).  Never overwrites what is newer in memory. */
enum grey_error table_load(struct table *t, enum table_id id, struct bytes key, bool found, struct bytes value, raft_index ref);

/* table_next: the first row in memory (dirty or clean, not deleted) with key >= from, in key order; false when there is none.
 * key, value: lent until the next change.  Rows only on disk are not seen: merge with a scan (table_deleted tells what to hide). */
bool table_next(struct table *t, enum table_id id, struct bytes from, struct bytes *key, struct bytes *value, raft_index *ref);
bool table_deleted(struct table *t, enum table_id id, struct bytes key); /* a deletion of it is in memory */

/* Flushing: begin hands over all changes since the last begin, in order; they stay readable.  done(true): they are on disk, the rows
 * become clean; done(false): the write failed, they are dirty again (merged under what changed since).  One at a time. */
enum table_op_kind { TABLE_OP_PUT, TABLE_OP_DELETE, TABLE_OP_DELETE_RANGE };
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
size_t table_dirty_bytes(const struct table *t);
size_t table_memory_bytes(const struct table *t);
void table_clear(struct table *t); /* forgets everything in memory (before a snapshot is installed); not while flushing */

#endif
