/* leading.h: some things only the leader of a site knows or does, such as trying the link to the core.  Where its API can be asked from here without
 * credentials, which is on the same machine, greyctl asks it instead of the node it was given. */
#ifndef AGENT_CTL_LEADING_H
#define AGENT_CTL_LEADING_H

#include "agent/ctl/verbs.h"

struct leading {
    char address[300];
    struct client client; /* asks it; borrows address */
    json_t *cluster;      /* its /v1/cluster/status; the caller's */
};

/* The leader that `cluster`, another node's /v1/cluster/status, names.  Only believed when it says itself that it leads the same site: on
 * real gateways each node has the same loopback address.  False: it cannot be asked from here, and *out owns nothing. */
bool leading_find(const json_t *cluster, struct leading *out);

/* From here on c asks the leader, in place of a node that does not lead, where it can be asked; place must outlive c. */
void leading_redirect(struct call *c, struct leading *place);

#endif
