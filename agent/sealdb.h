/* sealdb.h: seals of the log (federation/seal.h) in tables of log.db, beside the entries, with the keys that verify them.
 *
 * Blocking; used by the storage thread and at start.  docs/FORMATS.md, "Seals".  Seals below the log's base are dropped, but for the
 * newest of them, when another is put in. */
#ifndef AGENT_SEALDB_H
#define AGENT_SEALDB_H

#include "agent/logdb.h"
#include "federation/seal.h"

#define SEALDB_LIST_MAX 512u

struct sealdb;

struct sealdb_signer { /* who made seals, as its membership said when it did */
    raft_id id;
    struct grey_name node;
    uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES];
};

struct sealdb *sealdb_open(struct logdb *log, struct fault *f); /* borrows log, which is closed after it */
void sealdb_close(struct sealdb *s);                            /* NULL is allowed */

/* In a transaction of its own; durable when E_OK.  Where a seal of that index is there it stays. */
enum grey_error sealdb_put(struct sealdb *s, const struct seal *seal, const struct sealdb_signer *signer, struct fault *f);
enum grey_error sealdb_newest(struct sealdb *s, struct seal *seal, struct fault *f); /* index 0: there is none */
/* Seals with from <= index <= to in order, at most SEALDB_LIST_MAX, and the first one above `to` if there is room. */
enum grey_error sealdb_list(struct sealdb *s, raft_index from, raft_index to, struct seal *out, uint32_t *count, struct fault *f);
/* All signers known, at most max. */
enum grey_error sealdb_signers(struct sealdb *s, struct sealdb_signer *out, uint32_t max, uint32_t *count, struct fault *f);

/* The newest seal against this log.  E_SEAL names what does not hold: the log ends before it, an entry before it was changed though the
 * chain was mended, or the seal is not its signer's. */
enum grey_error sealdb_check(struct sealdb *s, struct fault *f);

#endif
