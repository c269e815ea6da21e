/* keepdb.h: intake.db: batches of events that this gateway took while its site had no leader, until the log has them.
 *
 * Blocking; used by the storage thread.  A file of its own: what was promised here must outlive whatever happens to log.db and
 * state.db.  It is made when the first batch comes.  docs/FORMATS.md, "intake.db". */
#ifndef AGENT_KEEPDB_H
#define AGENT_KEEPDB_H

#include "platform/bytes.h"
#include "platform/fault.h"

#define KEEPDB_ID_BYTES 16u

struct keepdb;

struct keepdb *keepdb_open(const char *path, struct fault *f); /* opens or creates */
void keepdb_close(struct keepdb *k);                           /* NULL is allowed */
uint64_t keepdb_events(const struct keepdb *k);
uint64_t keepdb_bytes(const struct keepdb *k); /* of the batches */

/* Durable when E_OK.  ids: KEEPDB_ID_BYTES for each event of the batch.  Receipts rise and are never given twice. */
enum grey_error keepdb_add(struct keepdb *k, struct bytes batch, struct bytes ids, uint64_t *receipt, struct fault *f);
/* The first batch behind `after`.  batch: a reference for the caller.  E_NOT_FOUND: there is none. */
enum grey_error keepdb_next(struct keepdb *k, uint64_t after, uint64_t *receipt, struct blob **batch, struct fault *f);
enum grey_error keepdb_remove(struct keepdb *k, uint64_t receipt, struct fault *f); /* harmless when it is gone */
enum grey_error keepdb_find(struct keepdb *k, const uint8_t id[KEEPDB_ID_BYTES], uint64_t *receipt, uint32_t *element,
                            struct fault *f); /* E_NOT_FOUND */

#endif
