/* sealdb.h: seals of the log (federation/seal.h) in tables of log.db, beside the entries, with the keys that verify them.
 *
 * Blocking; used by the storage thread and at start.  docs/FORMATS.md, "Seals".  Seals below the log's base are dropped, but for the
 * newest of them, when another is put in. */
#ifndef AGENT_SEALDB_H
#define AGENT_SEALDB_H

#include "agent/store/logdb.h"
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

/* Seals come often and a transaction of their own each would cost more than the entries that they vouch for.  So the newest waits in memory
 * for a transaction of the log; if the process ends before, the next leader seals the same. */
void sealdb_put(struct sealdb *s, const struct seal *seal,
                const struct sealdb_signer *signer); /* takes the place of one that waits */
enum grey_error sealdb_write(struct sealdb *s,
                             struct fault *f); /* in a transaction of the log: what waits, once its entry is stored */
enum grey_error sealdb_save(struct sealdb *s,
                            struct fault *f); /* the same in one of its own, if anything waits; durable when E_OK */
enum grey_error sealdb_newest(struct sealdb *s, struct seal *seal, struct fault *f); /* index 0: there is none */
/* Seals with from <= index <= to in order, at most SEALDB_LIST_MAX, and the first one above `to` if there is room. */
enum grey_error sealdb_list(struct sealdb *s, raft_index from, raft_index to, struct seal *out, uint32_t *count, struct fault *f);
/* All signers known, at most max. */
enum grey_error sealdb_signers(struct sealdb *s, struct sealdb_signer *out, uint32_t max, uint32_t *count, struct fault *f);

/* The newest seal against this log.  E_SEAL names what does not hold: the log ends before it, an entry before it was changed though the
 * chain was mended, or the seal is not its signer's. */
enum grey_error sealdb_check(struct sealdb *s, struct fault *f);

#endif
