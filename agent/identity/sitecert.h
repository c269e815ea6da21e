/* sitecert.h: certificates of this site's gateways while the core is away (platform/vouch.h; docs/IDENTITY.md).
 *
 * Each gateway sees to it that what the core gave it stands in the site's log (CERTIFY_KEY_CERTIFICATE and its name).  A gateway whose neighbour's has less
 * than a third of its life left, so that the core had its time and did not renew it, vouches for it: writes a chain for the same key under the same name,
 * if the row is still the one that it read.  Each takes what is for itself into data_dir/site.crt, which its links use while it holds for longer than what
 * the core gave, and keeps what is for others in data_dir/known.crt, so that a neighbour comes in that was switched off meanwhile.  The link to the core
 * shows only what the core gave.  Files and signatures: on the crypto worker.  Thread: the loop's. */
#ifndef AGENT_SITECERT_H
#define AGENT_SITECERT_H

#include "agent/uplink/uplink.h"
#include "platform/conn.h"

#define SITECERT_OWN_FILE "site.crt"              /* in the data directory */
#define SITECERT_KNOWN_FILE "known.crt"           /* the same */
#define SITECERT_DELEGATION_FILE "delegation.crt" /* beside the gateway's certificate */

struct sitecert;

struct sitecert_options {
    const char *site, *node, *data_dir;
    const char *ca_path, *cert_path, *key_path, *trust_path;
    struct conn_tls *tls; /* of the links to other gateways: read again.  Borrowed */
};

void sitecert_register(void);
/* Strings are copied; node is borrowed for its life.  NULL: E_NO_MEMORY. */
struct sitecert *sitecert_new(const struct conn_context *x, const struct sitecert_options *o, struct node *node, struct fault *f);
void sitecert_changed(struct sitecert *s); /* a certificate was written, by the core or by a neighbour: looks soon */
void sitecert_stop(struct sitecert *s);    /* before the crypto worker is stopped.  NULL is allowed */
void sitecert_free(struct sitecert *s);    /* after it was, and the node */

/* "/etc/grey/node.crt" -> "/etc/grey/NAME". */
void sitecert_beside(const char *cert_path, const char *name, char *out, size_t size);

#endif
