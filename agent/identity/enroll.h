/* enroll.h: `greyd enroll`: makes this gateway's key, has the core certify it, and writes what greyd needs to take part.
 *
 * The key never leaves the gateway.  The core is known by the fingerprint in the token (platform/pinned.h), so nobody between can take its
 * place.  Everything may be repeated: a key that is there is used again, and the core gives the same answer again.  docs/IDENTITY.md. */
#ifndef AGENT_ENROLL_H
#define AGENT_ENROLL_H

#include <stdint.h>

#include "platform/fault.h"

#define ENROLL_NOTE_FILE "enrolled" /* in the directory: where the core is, and its CA */

/* argv of the words behind `greyd enroll`.  Returns the exit code: 0, 1 failed, 2 usage. */
int enroll_command(int argc, char **argv);
/* What `greyd enroll --dir DIR` does: a new certificate for the key and names that were enrolled there.  Blocks for timeout_ms at most, unless names
 * resolve slowly.  Thread: any; one at a time. */
enum grey_error enroll_renew(const char *dir, uint32_t timeout_ms, struct fault *f);

#endif
