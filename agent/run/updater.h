/* updater.h: new versions of our own programs, at this gateway and, where it leads, for its site.
 *
 * Each gateway says how it stands to the updates in force (agent/state/updating.h), and in its turn hands the bundle to grey-update
 * (agent/slots/letterbox.h), which restarts greyd from the other slot.  A greyd on trial that has been part of a site with a quorum for soak_s says so in the log of its
 * site, and when that is committed tells grey-update to keep it; so a version that cannot take part is left.  As leader: whose turn it is.
 * Thread: the loop's; what waits for the disk is done by a worker. */
#ifndef AGENT_UPDATER_H
#define AGENT_UPDATER_H

#include "agent/node/node.h"
#include "agent/slots/slots.h"
#include "agent/state/updating.h"
#include "platform/conn.h"

struct updater;

struct updater_options {
    const char *slots;    /* "": this gateway has none */
    const char *product;  /* of bundles that are for this gateway */
    const char *data_dir; /* bundles go to updates/ in it */
    uint32_t soak_s;      /* a version on trial is well when it was so for so long */
    uint32_t turn_s;      /* what a gateway has for all of it */
};

struct updater_facts {
    const char *slot; /* "-": no slots; "base", "a", "b" */
    bool on_trial;
    uint8_t running_id[UPDATE_ID_BYTES]; /* zeros: of the package */
    uint64_t floor;
    bool damaged; /* the slots' state cannot be read */
};

void updater_register(void);
/* Borrows x, node and the texts of o. */
struct updater *updater_new(const struct conn_context *x, const struct updater_options *o, struct node *node, struct fault *f);
void updater_stop(struct updater *u); /* before the node is freed; NULL is allowed */
void updater_free(struct updater *u); /* when the workers have stopped; NULL is allowed */
void updater_applied(struct updater *u, const struct entry *e);
void updater_facts(const struct updater *u, struct updater_facts *out);

#endif
