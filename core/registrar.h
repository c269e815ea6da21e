/* registrar.h: gateways that come in by their TPM, with no token in anybody's hands (docs/IDENTITY.md, "Zero touch").
 *
 * An operator registers the endorsement certificate of a board before it is shipped: SHA-256 of it, site, node.  The gateway shows certificate
 * and attestation key (federation/attest/introduce.h); the answer is the name that was registered and a challenge that only that TPM opens.
 * What is in it is an enrolment token for that name alone, good for minutes, with which the gateway enrols as any other.  Thread: the loop's. */
#ifndef CORE_REGISTRAR_H
#define CORE_REGISTRAR_H

#include "core/batch.h"
#include "core/makers.h"
#include "federation/attest/evidence.h"
#include "platform/conn.h"
#include "platform/http.h"

struct registrar;

void registrar_register(void);
/* Everything is borrowed for its life.  NULL: out of memory. */
struct registrar *registrar_new(const struct conn_context *x, struct worker *storage, struct makers_watch *makers);
void registrar_stop(struct registrar *r); /* takes no more; before the workers are stopped.  NULL is allowed */
void registrar_free(struct registrar *r); /* after they were */

/* A call of operators, or of a gateway: true, and q is taken, when it is one of these; r NULL: refused, for this core takes nobody in by TPM. */
bool registrar_handle(struct registrar *r, struct http_request *q);
/* The one call that anybody may make. */
bool registrar_handle_anybody(struct registrar *r, struct http_request *q);

#endif
