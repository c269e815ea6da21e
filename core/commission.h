/* commission.h: what the core asks its worker to do for a site, made of what the site handed over.
 *
 * A site may say what is to be run and how much of the worker it takes; for whom and under which name it is done is the core's to say.
 * Pure. */
#ifndef CORE_COMMISSION_H
#define CORE_COMMISSION_H

#include "platform/bytes.h"
#include "platform/fault.h"

/* Appends an order as POST /v1/tasks takes it: of the errand (docs/PROTOCOL.md, "Tasks for the core") the members that a site may set, under
 * this id and tenant (NULL: the worker's own).  E_BAD_JSON, E_TOO_LARGE, E_BAD_REQUEST: no object; E_NO_MEMORY. */
enum grey_error commission_write(struct builder *out, const char *id, const char *tenant, struct bytes errand, struct fault *f);
/* Must it not be run a second time?  Also of one that cannot be read. */
bool commission_is_once(struct bytes errand);

#endif
