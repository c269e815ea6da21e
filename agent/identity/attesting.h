/* attesting.h: attestation in a running site: carries words between this gateway's attestor, the gateway that leads and the core's
 * verifier, and, where this one leads, writes what the verifier says into the site's log (agent/state/verdicts.h).
 *
 * Where attestation is off it carries words for the others all the same.  Thread: the loop's. */
#ifndef AGENT_ATTESTING_H
#define AGENT_ATTESTING_H

#include "agent/identity/attestor.h"
#include "agent/uplink/uplink.h"

struct attesting;

struct attesting_options {
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

void attesting_register(void); /* metrics */
struct attesting *attesting_new(const struct attesting_options *o, struct fault *f);
void attesting_message(struct attesting *a, raft_id from, const struct message *m); /* MESSAGE_ATTEST */
void attesting_now(struct attesting *a);                                            /* all gateways of the site, this one too */
/* False: attestation is off here. */
bool attesting_facts(const struct attesting *a, struct attestor_facts *out);
void attesting_stop(struct attesting *a); /* before the uplink is freed.  NULL is allowed, as below */
void attesting_free(struct attesting *a); /* after the node, which answers what was proposed */

#endif
