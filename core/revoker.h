/* revoker.h: makes known which certificates are revoked (docs/IDENTITY.md).
 *
 * The store knows them.  Their list, signed by the CA, goes to crl.pem in the CA's directory, which the broker of this machine reads, and
 * with the CA's certificates, as the policy "grey-trust" (federation/trust.h), to all sites.  One that names the same certificates and is not
 * old is left as it is.  A broker that cannot be told to read the file, for it may just be starting, is told again until it hears.
 * Thread: the loop's. */
#ifndef CORE_REVOKER_H
#define CORE_REVOKER_H

#include "core/authority.h"
#include "core/giver.h"
#include "platform/worker.h"

struct revoker;

struct revoker_options {
    struct loop *loop;          /* borrowed, as are the next three */
    struct worker *storage;     /* with batch_run */
    struct giver *giver;        /* told of a new list */
    const struct authority *ca; /* signs; the storage thread reads it, so its owner changes it only when revoker_busy says no */
    const char *ca_dir;         /* copied */
    const char *broker_pid;     /* file with the broker's process id; "": nobody is told; copied */
};

void revoker_register(void);                                                   /* metrics */
struct revoker *revoker_new(const struct revoker_options *o, struct fault *f); /* E_NO_MEMORY; publishes nothing yet */
void revoker_stop(struct revoker *r); /* publishes no more; before the storage thread is stopped.  NULL is allowed */
void revoker_free(struct revoker *r); /* after it was.  NULL is allowed */

/* Compares what is published with the store, and publishes anew when that is needed: after a change, and now and then, for a list grows old.
 * What fails is logged; the next call tries again.  A call while one is under way is done after it. */
void revoker_publish(struct revoker *r);
bool revoker_busy(const struct revoker *r);

#endif
