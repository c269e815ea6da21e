/* herald.h: attestation in a running site: carries words between this gateway's attestor, the gateway that leads and the core's
 * verifier, and, where this one leads, writes what the verifier says into the site's log (agent/state/verdicts.h).
 *
 * Where attestation is off it carries words for the others all the same.  Thread: the loop's. */
#ifndef AGENT_HERALD_H
#define AGENT_HERALD_H

#include "agent/identity/attestor.h"
#include "agent/uplink/uplink.h"

struct herald;

struct herald_options {
    struct loop *loop;
    struct node *node;     /* borrowed, as is uplink */
    struct uplink *uplink; /* NULL: there is no core */
    bool enabled;          /* this gateway gets itself attested */
    enum attest_type type;
    const char *socket, *document; /* as in attestor.h; borrowed for its life */
    const char *data_dir;          /* likewise */
    const char *cert_path;         /* PEM of this gateway's certificate, read once: evidence names its key; "": it has none */
    uint32_t period_s;
    bool has_verifier_key; /* else nothing that the core says counts */
    uint8_t verifier_key[KEYS_ED25519_PUBLIC_BYTES];
};

void herald_register(void); /* metrics */
struct herald *herald_new(const struct herald_options *o, struct fault *f);
void herald_message(struct herald *a, raft_id from, const struct message *m); /* MESSAGE_ATTEST */
void herald_applied(struct herald *a, const struct entry *e);                 /* after it was applied */
void herald_now(struct herald *a);                                            /* all gateways of the site, this one too */
/* False: attestation is off here. */
bool herald_facts(const struct herald *a, struct attestor_facts *out);
void herald_stop(struct herald *a); /* before the uplink is freed.  NULL is allowed, as below */
void herald_free(struct herald *a); /* after the node, which answers what was proposed */

#endif
