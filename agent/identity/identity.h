/* identity.h: keeps this gateway's certificate young, and what it trusts up to date; also while the core is away, with what came before.
 *
 * Renewal: when a third of the certificate's life is over, a request by the same key goes into the site's log (federation/certify.h) and
 * comes back as a certificate, which replaces the file; links that begin from then on use it.  Trust: the policy "grey-trust" of the core
 * (federation/trust.h) is written to data_dir/trust.pem, and links of revoked gateways end.  Files are read and written, and signatures
 * made, on the crypto worker.  Thread: the loop's. */
#ifndef AGENT_IDENTITY_H
#define AGENT_IDENTITY_H

#include "agent/uplink/uplink.h"
#include "platform/conn.h"

#define IDENTITY_TRUST_FILE "trust.pem" /* in the data directory */

struct identity;

struct identity_options {
    const char *site, *node, *data_dir;
    const char *ca_path, *cert_path, *key_path; /* of the links to other gateways; where there are none, of the link to the core */
    struct conn_tls *tls, *upstream_tls;        /* to be read again; NULL: plain.  Borrowed */
};

void identity_register(void);
/* Strings are copied; node and uplink (NULL: none) are borrowed for its life.  NULL: E_NO_MEMORY. */
struct identity *identity_new(const struct conn_context *x, const struct identity_options *o, struct node *node,
                              struct uplink *uplink, struct fault *f);
void identity_applied(struct identity *i, const struct entry *e); /* after it was applied */
void identity_stop(struct identity *i);                           /* before the crypto worker is stopped.  NULL is allowed */
void identity_free(struct identity *i);                           /* after it was */

#endif
