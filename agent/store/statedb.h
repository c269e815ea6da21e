/* statedb.h: state.db: the rows of agent/table/table.h, the position they stand for, and which payloads of the log they keep alive.
 *
 * Blocking; used by the storage thread (agent/store/sitelog.c) and, at start, before that thread exists.  docs/FORMATS.md, "state.db". */
#ifndef AGENT_STATEDB_H
#define AGENT_STATEDB_H

#include "agent/store/rowset.h"

struct statedb;

struct statedb_facts {
    struct raft_point applied;
    uint8_t state_hash[DIGEST_BYTES];
    struct blob *members; /* encoding of the membership in force at applied; NULL: none */
    raft_index members_index;
};

struct statedb *statedb_open(const char *path, struct fault *f); /* opens or creates */
void statedb_close(struct statedb *s);
const struct statedb_facts *statedb_facts(const struct statedb *s); /* lends until the next flush */
struct db *statedb_db(struct statedb *s);

/* One transaction: the changes in order and the new facts (members: a reference is taken; NULL leaves them).  A payload at or below
 * base that loses its last row is noted as freed. */
enum grey_error statedb_flush(struct statedb *s, const struct table_flush *changes, const struct statedb_facts *facts,
                              raft_index base, struct fault *f);
/* Payloads noted as freed and not yet forgotten, up to max, oldest first.  After they are gone from log.db call statedb_forgotten; it
 * costs no write of its own, the next flush erases the notes. */
enum grey_error statedb_freed(struct statedb *s, raft_index *out, uint32_t max, uint32_t *count, struct fault *f);
void statedb_forgotten(struct statedb *s);
uint64_t statedb_freed_count(const struct statedb *s); /* notes whose payloads are still in log.db; no disk access */

/* Adds what was found, and what was not, to set. */
enum grey_error statedb_rows(struct statedb *s, struct bytes wants, struct sitelog_row_set *set, struct fault *f);
/* low <= key < high (high empty: no end), up to rows_max; more: there are others. */
enum grey_error statedb_scan(struct statedb *s, enum table_id id, struct bytes low, struct bytes high, uint32_t rows_max,
                             struct sitelog_row_set *set, bool *more, struct fault *f);
/* Rows of all tables in order, after (id, key); up to about bytes_max. */
enum grey_error statedb_walk(struct statedb *s, enum table_id id, struct bytes key, size_t bytes_max, struct sitelog_row_set *set,
                             bool *more, struct fault *f);
/* Reads the rows behind those of the last call, about bytes_max of them, at least one, so that each page proves its sum.  *bytes: how many.
 * *end: that were the last ones; the next call begins anew, also after an error. */
enum grey_error statedb_check(struct statedb *s, uint64_t bytes_max, uint64_t *bytes, bool *end, struct fault *f);
enum grey_error statedb_live(struct statedb *s, raft_index index, bool *is, struct fault *f); /* do rows refer to this payload? */
enum grey_error statedb_live_next(struct statedb *s, raft_index from, raft_index *index,
                                  struct fault *f); /* 0: none from there on */

/* Building a new state from an image: begin, rows, then finish with the facts (all in transactions of its own). */
enum grey_error statedb_fill(struct statedb *s, const struct sitelog_row_set *rows, struct fault *f);
enum grey_error statedb_fill_done(struct statedb *s, const struct statedb_facts *facts, struct fault *f);

#endif
