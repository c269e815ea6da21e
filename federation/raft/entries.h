/* entries.h: the log as this member sees it: a window in memory over what is stored and compacted; and the hash chain. */
#ifndef FEDERATION_RAFT_ENTRIES_H
#define FEDERATION_RAFT_ENTRIES_H

#include "federation/raft/raft.h"

#define ENTRY_HEADER_BYTES 104u
#define RAFT_TIME_MS_MAX (INT64_C(1) << 53) /* log time: 285,000 years */

/* entry_seal: fills e->digest (of the payload; a stripped entry has it already) and e->hash = SHA-256(header encoding with prev_hash).  The header encoding is fixed
 * big-endian: index u64, term u64, epoch u64, time_ms i64, kind u16, schema u16, payload size u32, prev_hash 32, digest 32
 * (docs/FORMATS.md, "Entry header"). */
void entry_seal(struct entry *e, const uint8_t prev_hash[DIGEST_BYTES]);
/* entry_strip: leaves the payload out of a sealed entry (the reference stays the caller's); a membership keeps its own, and what is
 * empty stays so.  Such an entry is sealed from its digest, and its hash is the same. */
void entry_strip(struct entry *e);

/* Log time never falls from one entry to the next, except at an ENTRY_CLOCK, which says so. */
bool entry_time_follows(const struct entry *e, int64_t previous_ms);

/* The window: entries base.index + 1 ... base.index + count, in a ring that grows to capacity_max and never shrinks.
 *
 *     compacted      on disk only       in memory
 *   |...snapshot...|.................|b|1|2|3|4|5|...|
 *                                     ^ base: the entry before the first one held
 *
 * Invariants: terms and store ids never fall from one entry to the next; base.index <= stored_index <= last. */
struct entries_note {
    uint64_t store_id;  /* the storage unit that holds the entry */
    uint64_t bytes_end; /* payload bytes of all entries ever held up to and with this one: a difference gives any range */
};

struct entries {
    struct raft_point base;
    uint64_t base_bytes_end;
    struct entry *ring;
    struct entries_note *notes; /* parallel to ring */
    uint32_t capacity, start, count;
    raft_index stored_index; /* the storage reported everything up to here */
};

/* entries_init: an empty window behind base, all of it stored.  Allocates nothing yet.  entries_free gives all memory back. */
void entries_init(struct entries *log, const struct raft_point *base);
void entries_free(struct entries *log);

raft_index entries_last(const struct entries *log);
const struct entry *entries_at(const struct entries *log, raft_index index); /* NULL when not held; lends until the log changes */

/* entries_point: term, time and hash at index when it is base.index or held; else false. */
bool entries_point(const struct entries *log, raft_index index, struct raft_point *point);
raft_term entries_term(const struct entries *log, raft_index index);    /* index must be base.index or held */
uint64_t entries_store_id(const struct entries *log, raft_index index); /* 0 for base.index and below */
uint64_t entries_bytes(const struct entries *log, raft_index above);    /* payload bytes of held entries above an index */

/* entries_append: copies a sealed entry that follows the last one; takes a payload reference of its own.  E_NO_MEMORY. */
enum grey_error entries_append(struct entries *log, const struct entry *e, uint64_t store_id);
void entries_truncate(struct entries *log, raft_index from);            /* forgets from here on */
void entries_reset(struct entries *log, const struct raft_point *base); /* forgets all; the log goes on behind base */

/* entries_stored: everything up to store_id is durable.  Entries that were written again since have a later id and do not count
 * (the A-B-A case of FAULTS 2b, 22). */
void entries_stored(struct entries *log, uint64_t store_id);

/* entries_evict: forgets from the front what is stored and not above `until`, as long as more than the given amounts are held. */
void entries_evict(struct entries *log, raft_index until, uint32_t entries_max, uint64_t bytes_max);

/* entries_span: a run of held entries from index on that lie side by side: at least one, at most about bytes_max of payload.  NULL
 * and 0 when index is not held. */
const struct entry *entries_span(const struct entries *log, raft_index index, uint64_t bytes_max, uint32_t *count);

#endif
