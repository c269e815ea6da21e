/* api.h: the HTTP API of a node (INTERFACE in docs/openapi.yaml).  Any node answers; writes reach the leader by themselves.
 * Thread: the loop's. */
#ifndef AGENT_API_H
#define AGENT_API_H

#include "agent/node/node.h"
#include "agent/run/tasklog.h"
#include "agent/run/updater.h"
#include "agent/uplink/uplink.h"
#include "platform/http.h"

struct api;

/* What this gateway knows of its own attestation, of whoever carries it out. */
struct api_attest_facts {
    const char *state, *type;
    int64_t from_s, until_s; /* of its result, Unix seconds; 0: it has none */
    enum grey_error why;     /* it is not trusted; E_OK */
    const char *detail;      /* lent until the next turn */
};
struct api_attest {
    bool (*facts)(void *context, struct api_attest_facts *out); /* false: attestation is off here */
    void (*now)(void *context);                                 /* all gateways of the site get themselves attested */
};

struct api_options {
    struct loop *loop;
    struct node *node;
    struct uplink *uplink;           /* NULL: no core configured */
    const struct api_attest *attest; /* NULL: there is nothing of that here */
    void *attest_context;
    struct boardwatch *board;
    struct tasklog *tasklog;
    struct updater *updater; /* NULL: a witness */
    const char *mode;        /* "single", "site" or "edge" */
    const char *data_dir;
    /* Does the work get on, as for the watchdog (platform/supervise.h)? */
    bool (*alive)(void *context, char *why, size_t size);
    void *alive_context;
    enum event_priority default_priority;
    bool local_affinity;    /* tasks that name no node prefer this one */
    uint32_t lanes;         /* 4: lane preempt is off */
    uint32_t task_priority; /* 0 to 100: of tasks that name neither lane nor priority */
    uint32_t storage_max_gb;
    bool auth; /* also plain callers of this machine must say who they are */
    bool has_socket_group;
    uint32_t socket_group;     /* its members are operators on the socket */
    uint32_t calls_per_second; /* of one caller that had to say who it is; 0: no limit */
};

struct api *api_new(const struct api_options *o);
void api_free(struct api *a);
void api_handle(void *context, struct http_request *q); /* an http_handler; context: the api */
/* A word of another gateway, MESSAGE_LINK_ASK or MESSAGE_LINK: how the leader's link to the core is. */
void api_heard(struct api *a, raft_id from, const struct message *m);
void api_applied(struct api *a, const struct entry *e); /* wakes those who watch a key */

#endif
