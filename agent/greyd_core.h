/* greyd_core.h: what the sources that wire greyd share.
 *
 * A start function makes one part from the configuration and from the parts started before it, and puts it into struct greyd; it returns true
 * as well when the configuration wants no such part.  False: it could not, and f says why.  greyd.c calls them in the order in which parts need
 * each other, and ends them all, also those of a start that failed.  Thread: the loop's. */
#ifndef AGENT_GREYD_CORE_H
#define AGENT_GREYD_CORE_H

#include "agent/api/api.h"
#include "agent/config/config.h"
#include "agent/identity/herald.h"
#include "agent/identity/identity.h"
#include "agent/node/node.h"
#include "agent/run/boardwatch.h"
#include "agent/run/executor.h"
#include "agent/run/tasklog.h"
#include "agent/run/updater.h"
#include "agent/uplink/uplink.h"
#include "platform/supervise.h"

struct greyd {
    struct config config;
    struct conn_context x;
    struct conn_tls *tls, *upstream_tls;
    struct node *node;
    struct uplink *uplink;
    struct identity *identity;
    struct herald *herald; /* NULL: neither core nor other gateways, or a witness */
    struct boardwatch *board;
    struct executor *executor; /* NULL: no tasks here */
    struct tasklog *tasklog;
    struct updater *updater; /* NULL: a witness */
    struct api *api;
    struct http_server *http;
    struct supervise supervise;
    struct loop_timer leave_timer;
    uint64_t leave_deadline_ms;
    bool stopping, failed;
};

/* --- greyd_node.c: the node, and what it tells the other parts --- */

/* A damaged log is made whole first (agent/node/mending.h); the loop runs meanwhile, so signals have to be heard before. */
bool greyd_node_start(struct greyd *g, struct fault *f);

/* --- greyd_link.c: links to other gateways and to the core, and what is proven on them --- */

/* The certificates of the links to other gateways.  Before the node. */
bool greyd_link_start_site(struct greyd *g, struct fault *f);
bool greyd_link_start_uplink(struct greyd *g, struct fault *f);
bool greyd_link_start_identity(struct greyd *g, struct fault *f);
bool greyd_link_start_herald(struct greyd *g, struct fault *f);
/* Limits, windows and budgets of a configuration that was read again, for the uplink if there is one. */
void greyd_link_retune(struct greyd *g, const struct config *fresh);

/* --- greyd_run.c: what runs on this machine: tasks, updates, the eye on the board --- */

/* What this machine has for tasks and itself. */
struct quota_amount greyd_run_capacity(const struct config *c);
bool greyd_run_start_executor(struct greyd *g, struct fault *f);
bool greyd_run_start_boardwatch(struct greyd *g, struct fault *f);
bool greyd_run_start_updater(struct greyd *g, struct fault *f);

/* --- greyd_api.c: the API --- */

/* Opens g->http on the configured addresses; handler answers, with context, for as long as g->http lives. */
bool greyd_api_listen(struct greyd *g, http_handler *handler, void *context, struct fault *f);
/* After all other parts. */
bool greyd_gets_on(void *context, char *why, size_t size); /* context: the greyd */
bool greyd_api_start(struct greyd *g, struct fault *f);

#endif
