/* tpmdoor.h: where grey-tpm takes orders: a unix socket at which one caller after the other says one and hangs up (platform/errand.h).
 *
 * The TPM is used by a child that ends with its order: whoever waits at the door has nothing of the TPM's open, and nothing of one caller
 * is left for the next.  Thread: the only one of grey-tpm. */
#ifndef AGENT_TPMDOOR_H
#define AGENT_TPMDOOR_H

#include "platform/fault.h"

#define TPMDOOR_LIMIT_S 30u /* for one order; some chips need seconds for a key */

/* tpmdoor_serve: listens at path, which it makes anew, until it is ended.  allow: name of a user who may come in; always may the one that it
 * runs as, and root.  NULL: nobody else.  answer: called in a child; writes to the caller, and the child ends when it returns.
 * Returns only when it cannot listen: E_SYSTEM, E_USAGE. */
enum grey_error tpmdoor_serve(const char *path, const char *allow, void (*answer)(void *context, int caller), void *context,
                              struct fault *f);

#endif
