/* api_core.h: the inside of the API, for its sources, api.c (routes, metrics) and api_*.c, and nobody else. */
#ifndef AGENT_API_CORE_H
#define AGENT_API_CORE_H

#include "agent/api/api.h"
#include "federation/access.h"
#include "federation/object.h"
#include "federation/throttle.h"
#include "platform/json.h"

#define API_ANSWER_BYTES_MAX (8u * 1024u * 1024u)
#define API_WATCHERS_MAX 256u

struct api_caller {
    struct access_verdict verdict;
    char address[ACCESS_ADDRESS_BYTES];
};

/* One request under way.  arg: what follows the route's prefix in the path, e.g. the key. */
struct api_call {
    struct api *api;
    struct http_request *q;
    char arg[LIMIT_KEY_BYTES + 1];
    size_t arg_size;
    struct api_caller caller;
};

struct api_watcher;

struct api {
    struct api_options o;
    uint64_t started_ms, id_seed;
    struct api_watcher *watchers;
    uint32_t watcher_count;
    struct loop_timer watch_timer;
    struct api_following *following; /* who waits for more of what a task writes */
    uint32_t following_count;
    struct loop_timer follow_timer;
    struct api_link_ask *link_asks; /* who waits for what the leader says of its link, the newest first */
    uint32_t link_ask_count;
    uint64_t link_ask_number;
    struct loop_timer link_timer;
    struct throttle guesses, calls; /* by address; by token or address */
    char source[2 * LIMIT_NAME_BYTES +
                16]; /* grey://site: of events that name none; the same at every gateway, so that a repeat is known as one */
};

/* A JSON answer being written. */
struct api_answer {
    struct builder out;
    struct json_writer w;
};
void api_answer_begin(struct api_answer *a);
/* Sends and frees; 500 when it grew too large.  Takes c. */
void api_answer_send(struct api_answer *a, struct api_call *c, int status, const struct http_extra *extra, size_t extra_count);
void api_call_error(struct api_call *c, enum grey_error err, const char *detail); /* takes c */
void api_done(void *context,
              const struct node_answer *a); /* a node_done for calls that answer 204 and no more; context: the call, taken */

/* --- api_access.c ------------------------------------------------------------------------------------------------------------------ */
void api_access_start(struct api *a);
/* Whether the caller may use a route of that role.  False: q was answered and is gone. */
bool api_access(struct api *a, struct http_request *q, enum access_role least, struct api_caller *out);
bool api_level(const struct api_call *c, uint32_t level); /* all gateways of the site know what this feature level brought */
/* Begins the payload of an entry with who asked for it and from where (federation/origin.h). */
void api_origin_put(const struct api_call *c, struct builder *payload);
#define API_ORIGIN_BYTES_MAX 512u
void api_note(const struct api_call
                  *c); /* an order that makes no entry in the caller's name: said in the log of the site and of this gateway */

/* --- api_attest.c ------------------------------------------------------------------------------------------------------------------ */
void api_attest_start(void);                                  /* metrics */
void api_attest_metrics(const struct api *a);                 /* sets them */
const char *api_attest_word(const struct api *a, raft_id id); /* "trusted", "pending", "failed", "none" */
bool api_attest_quarantined(const struct api *a, raft_id id);
void api_attest_put(const struct api *a, struct json_writer *w);    /* members of the answer about attestation */
void api_attest_health(const struct api *a, struct json_writer *w); /* the object in the answer about health */
void api_attest_get(struct api_call *c);                            /* routes, as below */
void api_attest_now(struct api_call *c);

/* --- api_cluster.c ----------------------------------------------------------------------------------------------------------------- */
const char *api_own_role(const struct raft_status *s); /* "leader", "follower", "candidate": of this gateway */

/* Routes; each takes c. */
void api_health(struct api_call *c);
void api_health_live(struct api_call *c);
void api_health_ready(struct api_call *c);
void api_health_detailed(struct api_call *c);
void api_cluster_status(struct api_call *c);
void api_cluster_members(struct api_call *c);
void api_cluster_leader(struct api_call *c);
void api_raft_details(struct api_call *c);
void api_debug_network(struct api_call *c);
void api_coming_put(struct api_call *c, struct json_writer *w,
                    const struct object_manifest *m); /* member "coming": a version that comes, and how much of it is here */
void api_kv_get(struct api_call *c);
void api_kv_put(struct api_call *c);
void api_kv_delete(struct api_call *c);
void api_kv_list(struct api_call *c);
void api_kv_applied(struct api *a, const struct entry *e);
void api_kv_watchers_free(struct api *a);
void api_kv_watch_timer(void *context);
void api_events_post(struct api_call *c);
void api_events_get(struct api_call *c);
void api_queue_get(struct api_call *c);
void api_admin_snapshot(struct api_call *c);
void api_admin_snapshots(struct api_call *c);
void api_admin_transfer(struct api_call *c);
void api_admin_members(struct api_call *c);
void api_admin_member_remove(struct api_call *c);
void api_admin_leave(struct api_call *c);
void api_federation_status(struct api_call *c);
void api_link_put(struct json_writer *w, const struct uplink_facts *f); /* members of "link" in the answer of the former */
void api_link_timer(void *context);
void api_link_free(struct api *a);
void api_link_try(struct api_call *c);
void api_audit(struct api_call *c);
void api_task_post(struct api_call *c);
void api_task_get(struct api_call *c);
void api_task_list(struct api_call *c);
void api_task_delete(struct api_call *c);
void api_task_logs(struct api_call *c);
void api_logs_follow_timer(void *context);
void api_logs_free(struct api *a);
void api_task_proof(struct api_call *c);
void api_config_list(struct api_call *c);
void api_config_get(struct api_call *c);
void api_config_health(struct api_call *c);
void api_policy_list(struct api_call *c);
void api_policy_get(struct api_call *c);
void api_policy_health(struct api_call *c);
void api_data_list(struct api_call *c);
void api_data_get(struct api_call *c);
void api_data_health(struct api_call *c);
void api_updates_get(struct api_call *c);
void api_quotas_get(struct api_call *c);
void api_quotas_put(struct api_call *c);
void api_quotas_metrics(const struct scheduler *s, struct builder *out); /* of each tenant and namespace */
void api_tenant_get(struct api_call *c);
void api_tenant_put(struct api_call *c);
void api_tenant_delete(struct api_call *c);
void api_token_post(struct api_call *c);
void api_token_list(struct api_call *c);
void api_token_delete(struct api_call *c);
void api_put_seal(struct json_writer *w, const struct seal *s, const char *node);

#endif
