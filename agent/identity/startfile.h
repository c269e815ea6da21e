/* startfile.h: the log of starts on disk, kept in step with register 14.  For grey-tpm; thread: its only one.
 *
 * A start is written down before it is extended.  If the power goes between the two, the last row is one too many and is taken off the next
 * time; the other way round the register would hold what nobody can account for until the next boot. */
#ifndef AGENT_STARTFILE_H
#define AGENT_STARTFILE_H

#include "federation/attest/startlog.h"
#include "platform/tpm.h"

/* startfile_read: appends the log that the file holds; nothing when there is none.  E_IO, E_ATTEST_START_LOG when it is too large. */
enum grey_error startfile_read(const char *path, struct builder *out, struct fault *f);

/* startfile_add: base: the register's value before the first start of this boot.  A log of an earlier boot, known by a register that still
 * holds base, is begun anew.  A log that fits neither is left as it is and added to: whoever judges it will see. */
enum grey_error startfile_add(const char *path, struct tpm *t, const uint8_t base[DIGEST_SHA256_BYTES],
                              const struct startlog_start *start, struct fault *f);

#endif
