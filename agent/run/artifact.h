/* artifact.h: brings data that the core gave to the site (agent/state/holding.h) to the launcher's shelf, where all runs of this gateway
 * find it under its SHA-256.  The core sent it to the site once; from then on it is read from this gateway's own state.  One at a time.
 * Thread: the loop's. */
#ifndef AGENT_ARTIFACT_H
#define AGENT_ARTIFACT_H

#include "agent/node/node.h"
#include "agent/run/launcher.h"
#include "platform/digest.h"

struct artifact;

/* how: E_OK: it is on the shelf.  E_NOT_FOUND: the core has not given it.  E_CORRUPT: it is not what the hash says.  E_TOO_LARGE: the shelf has
 * no room for it, ever.  E_IO: it could not be kept there.  E_BUSY: it changed while it was read, or cannot be read now; ask again. */
typedef void artifact_done(void *context, uint64_t token, enum grey_error how);

struct artifact *artifact_new(struct loop *loop, struct node *node, struct launcher *launcher, artifact_done *done,
                              void *context); /* borrows; NULL: no memory */
void artifact_free(struct artifact *a);
/* For the run of that token; answered by `done`, always on a later turn.  False: another one is on its way; ask again. */
bool artifact_bring(struct artifact *a, uint64_t token, struct bytes object, struct bytes hash);
void artifact_stored(struct artifact *a, const struct launch_message *m); /* a LAUNCH_STORED */
void artifact_reset(struct artifact *a);                                  /* the launcher went: nothing is answered */

#endif
