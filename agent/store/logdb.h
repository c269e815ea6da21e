/* logdb.h: log.db: the entries of the site log, this node's term and vote, and who the directory belongs to.
 *
 * Blocking; used by the storage thread (agent/store/sitelog.c) and, at start, before that thread exists.  docs/FORMATS.md, "log.db".
 *
 * Positions:      1 ............ base.index ............ last
 *                 live payloads  |       every entry
 * At and below base only the payloads that rows of state.db refer to are kept, once `swept` has passed them.  Rows of a received
 * snapshot's payloads have negative keys, so that they cannot be taken for entries of this node's own log. */
#ifndef AGENT_LOGDB_H
#define AGENT_LOGDB_H

#include "federation/raft/raft.h"
#include "platform/fault.h"

struct logdb;

struct logdb_facts {
    raft_id self;
    uint64_t cluster_id;
    struct grey_name node, site;
    raft_term term;
    raft_id vote;
    struct raft_point base;
    raft_index swept; /* payloads up to here were judged; the rest up to base waits for logdb_sweep */
    raft_index last;  /* not stored: base.index or the last entry */
    uint64_t start_count;
    bool installing; /* a received state image is being put in place of state.db */
};

/* Opens or creates; draws self when new; counts the start.  E_DISK_VERSION, E_CORRUPT and what platform/db.h names. */
struct logdb *logdb_open(const char *path, struct fault *f);
void logdb_close(struct logdb *l);
const struct logdb_facts *logdb_facts(const struct logdb *l); /* lends */
struct db *logdb_db(struct logdb *l);                         /* for checkpoints and figures */

/* A transaction.  After rollback the facts are those before begin. */
enum grey_error logdb_begin(struct logdb *l, struct fault *f);
enum grey_error logdb_commit(struct logdb *l, struct fault *f); /* rolls back on error */
void logdb_rollback(struct logdb *l);

/* --- inside a transaction ------------------------------------------------------------------------------------------------------- */
enum grey_error logdb_vote(struct logdb *l, raft_term term, raft_id vote, struct fault *f);
enum grey_error logdb_cluster(struct logdb *l, uint64_t cluster_id, struct fault *f);
enum grey_error logdb_claim(struct logdb *l, const struct grey_name *node, const struct grey_name *site, struct fault *f);
enum grey_error logdb_become(struct logdb *l, const struct logdb_facts *facts, struct fault *f); /* all of another log's facts */
enum grey_error logdb_truncate(struct logdb *l, raft_index from, struct fault *f);               /* from > base.index */
enum grey_error logdb_append(struct logdb *l, const struct entry *e, struct fault *f);           /* e->index == last + 1, sealed */
/* The base moves up to point: an entry of this log with that hash.  E_BUG otherwise. */
enum grey_error logdb_compact(struct logdb *l, const struct raft_point *point, struct fault *f);
/* A received state takes the place of this log: no entry remains, base becomes point, installing is set.  Payloads of this log up to
 * `certain` (the applied position: committed for sure) stay for the sweep to judge. */
enum grey_error logdb_replace(struct logdb *l, const struct raft_point *point, raft_index certain, struct fault *f);
enum grey_error logdb_installed(struct logdb *l, struct fault *f);
/* Keeps a payload that belongs to a received snapshot.  The digest is e->digest, or the payload's own where that is zeros.
 * E_CORRUPT when they differ. */
enum grey_error logdb_receive(struct logdb *l, const struct entry *e, struct fault *f);
enum grey_error logdb_forget(struct logdb *l, raft_index index, struct fault *f); /* drops a payload at or below base */
/* Judges up to rows_max payloads above swept, at or below base: `live` tells whether rows refer to it. */
enum grey_error logdb_sweep(struct logdb *l, uint32_t rows_max,
                            enum grey_error (*live)(void *context, raft_index index, bool *is, struct fault *f), void *context,
                            struct fault *f);

/* --- reading ----------------------------------------------------------------------------------------------------------------------- */
/* Entries from .. to (base.index < from <= to <= last), about bytes_max of headers and payload, at least one; digests and chain verified.
 * E_NOT_FOUND below base or above last; E_CORRUPT names the index.  The caller owns the array and the payload references. */
enum grey_error logdb_entries(struct logdb *l, raft_index from, raft_index to, uint64_t bytes_max, struct entry **entries,
                              uint32_t *count, struct fault *f);
void logdb_entries_free(struct entry *entries, uint32_t count);
/* Of the entries from .. to (base.index < from), as many of the last as bytes_max of headers and payload hold: those after *below, which is
 * `to` when not even the last fits.  Their payloads are not read. */
enum grey_error logdb_last_fitting(struct logdb *l, raft_index from, raft_index to, uint64_t bytes_max, raft_index *below,
                                   struct fault *f);
/* term, time and chain hash at index, base.index <= index <= last.  E_NOT_FOUND, E_CORRUPT. */
enum grey_error logdb_point(struct logdb *l, raft_index index, struct raft_point *point, struct fault *f);
/* Header fields without hash, digest verified, payload (a reference) of any index, also a compacted one.  E_NOT_FOUND, E_CORRUPT. */
enum grey_error logdb_payload(struct logdb *l, raft_index index, struct entry *e, struct fault *f);
/* What is there and readable of from .. to (few): header fields without hash, payload.  Stops after about bytes_max; *looked_to: where.
 * What is damaged is left out: E_OK, and f says so (E_CORRUPT). */
enum grey_error logdb_readable(struct logdb *l, raft_index from, raft_index to, uint64_t bytes_max, struct entry **entries,
                               uint32_t *count, raft_index *looked_to, struct fault *f);
/* Verifies the rows behind those of the last call, about bytes_max of them, at least one: payloads at and below base by their digests, entries
 * above by the chain as well.  *bytes: how many.  *end: that were the last ones; the next call begins anew, also after an error. */
enum grey_error logdb_check(struct logdb *l, uint64_t bytes_max, uint64_t *bytes, bool *end, struct fault *f);
bool logdb_has_term(struct logdb *l, raft_index index, raft_term term); /* base, or an entry whose row is there, is of that term */

#endif
