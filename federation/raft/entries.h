/* entries.h: the log as this member sees it: a window in memory over what is stored and compacted; and the hash chain. */
#ifndef FEDERATION_RAFT_ENTRIES_H
#define FEDERATION_RAFT_ENTRIES_H

#include "include/grey/entry.h"

/* entry_seal: fills e->digest (of the payload) and e->hash = SHA-256(header encoding with prev_hash).  The header encoding is fixed
 * big-endian: index u64, term u64, epoch u64, time_ms i64, kind u16, schema u16, payload size u32, prev_hash 32, digest 32
 * (docs/FORMATS.md, "Entry header"). */
void entry_seal(struct entry *e, const uint8_t prev_hash[DIGEST_BYTES]);

#endif
