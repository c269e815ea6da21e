/* salvage.h: what a damaged log still holds, copied into a new one, and what must come from other gateways to make that whole.
 *
 * A damaged page of log.db hides the rows on it.  As long as the end of the log can be read, this node knows what it promised; the rows
 * that are missing can be named by their indexes, and the node stays who it is, with its term and vote.  agent/store/mendplan.h says what is
 * missing and what may take its place.
 *
 * The copy is wal_dir/log-mending.db; complete and verified against the chain of hashes it becomes log-mended.db, and that log.db.  A
 * crash before leaves the damaged log as it was, one after goes on at the next start.  Blocking; start of the program only. */
#ifndef AGENT_SALVAGE_H
#define AGENT_SALVAGE_H

#include "agent/store/logdb.h"
#include "agent/store/mendplan.h"
#include "agent/store/statedb.h"

/* A small file in wal_dir says that the log was found damaged, and holds the reason. */
enum grey_error salvage_mark(const char *wal_dir, const char *reason, struct fault *f); /* durable before it returns */
bool salvage_marked(const char *wal_dir);
void salvage_unmark(const char *wal_dir);
/* Puts a log in place that was complete when the program ended.  Before log.db is opened. */
enum grey_error salvage_resume(const char *data_dir, const char *wal_dir, struct fault *f);

struct salvage;

/* Copies what can be read.  NULL and E_CORRUPT: the end of the log, its description or the state cannot be read: such a log cannot be mended
 * in place.  Nothing missing is fine: what was damaged has left the log since, or a bad sector was read well again.  Others: E_DISK_FULL, E_IO, E_NO_MEMORY, E_LOCKED. */
struct salvage *salvage_open(const char *data_dir, const char *wal_dir, struct fault *f);
void salvage_close(struct salvage *s); /* NULL is allowed; what is not finished is given up */
const struct logdb_facts *salvage_facts(const struct salvage *s);
const struct statedb_facts *salvage_state(const struct salvage *s);

uint32_t salvage_missing(const struct salvage *s);
bool salvage_need(struct salvage *s, struct mendplan_need *need); /* false: nothing is missing */

/* Of what state.db stands for, only what rows refer to is missed from now on; the rest of the log up to there is given up. */
bool salvage_may_forgo(const struct salvage *s); /* that makes a difference */
enum grey_error salvage_forgo(struct salvage *s, struct fault *f);

/* Takes what fits; *taken: how much less is missing; *to_this: the answer is one to the last need. */
enum grey_error salvage_take(struct salvage *s, const struct mendplan_offer *o, uint32_t *taken, bool *to_this, struct fault *f);

/* To answer others meanwhile: what is readable of from .. to; see logdb_readable. */
enum grey_error salvage_read(struct salvage *s, raft_index from, raft_index to, uint64_t bytes_max, struct entry **entries,
                             uint32_t *count, raft_index *looked_to, struct fault *f);
bool salvage_same(struct salvage *s, raft_index index, raft_term term);

/* Nothing is missing: verifies all, and puts the new log in place.  Then close.  E_CORRUPT: what was taken, or what was there, does not fit
 * the chain and the state. */
enum grey_error salvage_finish(struct salvage *s, struct fault *f);

#endif
