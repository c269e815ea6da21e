/* logrow.h: how an entry lies in a row of log.db: docs/FORMATS.md, "log.db".
 *
 * head = term, epoch, time_ms, kind, schema as varints (seven bits a byte, lowest first, top bit: more follows) and the payload's digest;
 * where the payload is left out (a witness), its size follows as a varint, and data is NULL. */
#ifndef AGENT_LOGROW_H
#define AGENT_LOGROW_H

#include "federation/raft/raft.h"
#include "platform/fault.h"

#define LOGROW_CHAIN_STEP 64u /* rows whose index is a multiple of it hold the chain hash */
#define LOGROW_HEAD_BYTES_MAX (6u * 10u + DIGEST_BYTES)

size_t logrow_head_write(const struct entry *e, uint8_t out[LOGROW_HEAD_BYTES_MAX]); /* returns the size */
bool logrow_head_read(struct bytes head, struct entry *e); /* sets term, epoch, time, kind, schema, digest, stripped size */
bool logrow_payload_holds(const struct entry *e, struct bytes data); /* is it what the head's digest says? */
/* Both, and a reference to a copy of the payload, which is the caller's.  E_CORRUPT names the index and which half is damaged. */
enum grey_error logrow_read(raft_index index, struct bytes head, struct bytes data, struct entry *e, struct fault *f);

#endif
