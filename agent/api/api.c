#include "agent/api/api.h"

#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "agent/api/api_core.h"
#include "agent/work/scheduler.h"
#include "platform/keys.h"
#include "platform/metrics.h"

static struct metric requests = METRIC_COUNTER("grey_http_requests_total", "Requests of the HTTP API.");
static struct metric errors = METRIC_COUNTER("grey_http_errors_total", "Requests answered with a problem.");
static struct metric resident = METRIC_GAUGE("grey_process_resident_memory_bytes", "Resident memory of this process.");
static struct metric disk_ratio =
    METRIC_GAUGE_MILLI("grey_storage_disk_usage_ratio", "Used part of the file system of the data directory.");
static struct metric written =
    METRIC_COUNTER("grey_storage_written_bytes_total", "Bytes this process caused to be written to storage.");
static const char *const channels[] = {"control", "events", "data"};
static struct metric queue_bytes =
    METRIC_GAUGE_LABELS("grey_federation_queue_bytes", "Bytes of events not acknowledged by the core.", "channel", channels);
static struct metric queue_pending =
    METRIC_GAUGE_LABELS("grey_federation_queue_pending", "Events not acknowledged by the core.", "channel", channels);
static struct metric queue_expired =
    METRIC_COUNTER_LABELS("grey_federation_expired_total",
                          "Events given up because they had lived for their time; they count as gaps too.", "channel", channels);
static struct metric queue_gap_bytes =
    METRIC_COUNTER_LABELS("grey_federation_gap_bytes_total", "Bytes of records given up.", "channel", channels);
static struct metric queue_gaps =
    METRIC_COUNTER_LABELS("grey_federation_gaps_total", "Events evicted from the full queue.", "channel", channels);

static struct metric queue_depth = METRIC_GAUGE("grey_scheduler_queue_depth", "Tasks that could run and wait for a place.");
static struct metric running = METRIC_GAUGE("grey_scheduler_active_tasks", "Tasks that have a node.");
static struct metric task_usage =
    METRIC_GAUGE_MILLI("grey_governance_usage_ratio", "What tasks use of what they may use; above 0.9 new ones wait.");
static struct metric quota_exceeded =
    METRIC_COUNTER("grey_governance_quota_exceeded_total", "Tasks that this gateway saw refused for a quota or above 90%.");

void api_answer_begin(struct api_answer *a) {
    builder_init(&a->out, API_ANSWER_BYTES_MAX);
    json_writer_init(&a->w, &a->out);
}

void api_answer_send(struct api_answer *a, struct api_call *c, int status, const struct http_extra *extra, size_t extra_count) {
    http_reply_json(c->q, status, &a->out, extra, extra_count);
    builder_free(&a->out);
    mem_free(c);
}

void api_call_error(struct api_call *c, enum grey_error err, const char *detail) {
    metrics_add(&errors, 0, 1);
    http_reply_error(c->q, err, detail);
    mem_free(c);
}

void api_done(void *context, const struct node_answer *a) {
    struct api_call *c = context;
    if (a->err != E_OK) {
        api_call_error(c, a->err, a->detail);
        return;
    }
    http_reply(c->q, 204, NULL, bytes_of(NULL, 0), NULL, 0);
    mem_free(c);
}

/* --- metrics ------------------------------------------------------------------------------------------------------------------------- */

static void read_process(struct api *a) {
    long pages = 0, skipped;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f != NULL) {
        if (fscanf(f, "%ld %ld", &skipped, &pages) == 2) {
            metrics_set(&resident, 0, (int64_t)pages * sysconf(_SC_PAGESIZE));
        }
        (void)fclose(f);
    }
    f = fopen("/proc/self/io", "re");
    if (f != NULL) {
        char line[80];
        long long bytes;
        while (fgets(line, sizeof line, f) != NULL) {
            if (sscanf(line, "write_bytes: %lld", &bytes) == 1) {
                metrics_set(&written, 0, bytes);
            }
        }
        (void)fclose(f);
    }
    struct statvfs v;
    if (statvfs(a->o.data_dir, &v) == 0 && v.f_blocks > 0) {
        metrics_set(&disk_ratio, 0, (int64_t)(1000u - 1000u * (uint64_t)v.f_bavail / v.f_blocks));
    }
}

static void metrics(struct api_call *c) {
    for (unsigned i = 0; i < CHANNEL_COUNT; i++) {
        struct channel_facts f;
        state_channel(node_state(c->api->o.node), (enum event_channel)i, &f);
        metrics_set(&queue_bytes, i, (int64_t)f.pending_bytes);
        metrics_set(&queue_pending, i, (int64_t)f.pending_count);
        metrics_set(&queue_gaps, i, (int64_t)f.gap_events);
        metrics_set(&queue_gap_bytes, i, (int64_t)f.gap_bytes);
        metrics_set(&queue_expired, i, (int64_t)f.expired_events);
    }
    read_process(c->api);
    api_attest_metrics(c->api);
    const struct scheduler *tasks = state_scheduler(node_state(c->api->o.node));
    if (tasks != NULL) {
        metrics_set(&queue_depth, 0, lanes_waiting(&tasks->lanes));
        metrics_set(&running, 0, tasks->held_count);
        metrics_set(&task_usage, 0, dispatch_usage(tasks, LANE_NORMAL));
        metrics_set(&quota_exceeded, 0, (int64_t)tasks->refused);
    }
    struct builder out;
    builder_init(&out, API_ANSWER_BYTES_MAX);
    metrics_render(&out);
    if (tasks != NULL) {
        api_quotas_metrics(tasks, &out);
    }
    http_reply(c->q, 200, "text/plain; version=0.0.4", builder_bytes(&out), NULL, 0);
    builder_free(&out);
    mem_free(c);
}

/* --- routes ------------------------------------------------------------------------------------------------------------------------- */

static void not_here_yet(struct api_call *c) {
    api_call_error(c, E_NOT_HERE_YET, "this call is part of a later version");
}

struct route {
    const char *method, *path; /* a path that ends in "/" takes what follows as its argument; "*" stands for it within one */
    void (*run)(struct api_call *c);
    enum access_role least; /* who may; docs/openapi.yaml says the same, and make docs-check compares */
};

static const struct route routes[] = {
    {"PUT", "/v1/kv/", api_kv_put, ROLE_OPERATOR},
    {"GET", "/v1/kv/", api_kv_get, ROLE_VIEWER},
    {"DELETE", "/v1/kv/", api_kv_delete, ROLE_OPERATOR},
    {"GET", "/v1/kv", api_kv_list, ROLE_VIEWER},
    {"POST", "/v1/events", api_events_post, ROLE_OPERATOR},
    {"GET", "/v1/events/", api_events_get, ROLE_VIEWER},
    {"GET", "/v1/configs", api_config_list, ROLE_VIEWER},
    {"GET", "/v1/configs/", api_config_get, ROLE_VIEWER},
    {"POST", "/v1/configs/", api_config_health, ROLE_OPERATOR},
    {"GET", "/v1/policies", api_policy_list, ROLE_VIEWER},
    {"GET", "/v1/policies/", api_policy_get, ROLE_VIEWER},
    {"POST", "/v1/policies/", api_policy_health, ROLE_OPERATOR},
    {"GET", "/v1/data", api_data_list, ROLE_VIEWER},
    {"GET", "/v1/data/", api_data_get, ROLE_VIEWER},
    {"POST", "/v1/data/", api_data_health, ROLE_OPERATOR},
    {"GET", "/v1/updates", api_updates_get, ROLE_VIEWER},
    {"GET", "/v1/queue", api_queue_get, ROLE_VIEWER},
    {"GET", "/health", api_health, ROLE_NONE},
    {"GET", "/health/live", api_health_live, ROLE_NONE},
    {"GET", "/health/ready", api_health_ready, ROLE_NONE},
    {"GET", "/health/detailed", api_health_detailed, ROLE_VIEWER},
    {"GET", "/metrics", metrics, ROLE_VIEWER},
    {"GET", "/v1/cluster/status", api_cluster_status, ROLE_VIEWER},
    {"GET", "/v1/cluster/members", api_cluster_members, ROLE_VIEWER},
    {"GET", "/v1/cluster/leader", api_cluster_leader, ROLE_VIEWER},
    {"GET", "/v1/raft/status", api_raft_details, ROLE_VIEWER},
    {"GET", "/v1/debug/raft", api_raft_details, ROLE_VIEWER},
    {"GET", "/v1/debug/network", api_debug_network, ROLE_VIEWER},
    {"GET", "/v1/federation/status", api_federation_status, ROLE_VIEWER},
    {"POST", "/v1/federation/try", api_link_try, ROLE_OPERATOR},
    {"POST", "/v1/admin/snapshot", api_admin_snapshot, ROLE_OPERATOR},
    {"GET", "/v1/admin/snapshots", api_admin_snapshots, ROLE_VIEWER},
    {"POST", "/v1/admin/transfer-leader", api_admin_transfer, ROLE_OPERATOR},
    {"DELETE", "/v1/admin/members/", api_admin_member_remove, ROLE_ADMIN},
    {"POST", "/v1/admin/members", api_admin_members, ROLE_ADMIN},
    {"POST", "/v1/admin/leave", api_admin_leave, ROLE_ADMIN},
    {"POST", "/v1/admin/rebalance", not_here_yet, ROLE_OPERATOR},
    {"GET", "/v1/tasks", api_task_list, ROLE_VIEWER},
    {"POST", "/v1/tasks", api_task_post, ROLE_OPERATOR},
    {"GET", "/v1/tasks/*/logs", api_task_logs, ROLE_VIEWER},
    {"GET", "/v1/tasks/*/proof", api_task_proof, ROLE_VIEWER},
    {"GET", "/v1/tasks/", api_task_get, ROLE_VIEWER},
    {"DELETE", "/v1/tasks/", api_task_delete, ROLE_OPERATOR},
    {"GET", "/v1/tenants/", api_tenant_get, ROLE_VIEWER},
    {"PUT", "/v1/tenants/", api_tenant_put, ROLE_ADMIN},
    {"DELETE", "/v1/tenants/", api_tenant_delete, ROLE_ADMIN},
    {"GET", "/v1/quotas", api_quotas_get, ROLE_VIEWER},
    {"PUT", "/v1/quotas", api_quotas_put, ROLE_ADMIN},
    {"GET", "/v1/tenants", api_quotas_get, ROLE_VIEWER},
    {"GET", "/v1/audit", api_audit, ROLE_VIEWER},
    {"GET", "/v1/tokens", api_token_list, ROLE_ADMIN},
    {"POST", "/v1/tokens", api_token_post, ROLE_ADMIN},
    {"DELETE", "/v1/tokens/", api_token_delete, ROLE_ADMIN},
    {"GET", "/v1/attestation", api_attest_get, ROLE_VIEWER},
    {"POST", "/v1/attestation", api_attest_now, ROLE_OPERATOR},
    {"GET", "/v1/state", not_here_yet, ROLE_VIEWER},
};

/* A witness has no data, but tells how it and the site are. */
static bool witness_answers(struct bytes path) {
    static const char *const prefixes[] = {"/health", "/metrics", "/v1/cluster/", "/v1/raft/", "/v1/debug/"};
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        size_t size = strlen(prefixes[i]);
        if (path.size >= size && memcmp(path.data, prefixes[i], size) == 0) {
            return true;
        }
    }
    return false;
}

void api_handle(void *context, struct http_request *q) {
    struct api *api = context;
    struct bytes path = http_path(q);
    metrics_add(&requests, 0, 1);
    struct api_caller caller;
    bool path_known = false;
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        size_t argument_size;
        long at = access_path_match(routes[i].path, path, &argument_size);
        if (at < 0) {
            continue;
        }
        path_known = true;
        if (strcmp(http_method(q), routes[i].method) != 0) {
            http_allow(q, routes[i].method);
            continue;
        }
        if (!api_access(api, q, routes[i].least, &caller)) {
            metrics_add(&errors, 0, 1);
            return;
        }
        struct api_call *c = mem_new(1, sizeof *c);
        if (c == NULL) {
            http_reply_error(q, E_NO_MEMORY, "");
            return;
        }
        c->api = api;
        c->q = q;
        c->caller = caller;
        if (at > 0) {
            c->arg_size = argument_size;
            if (c->arg_size > LIMIT_KEY_BYTES) {
                api_call_error(c, E_TOO_LARGE, "the name in the path is longer than 512 bytes");
                return;
            }
            memcpy(c->arg, path.data + at, c->arg_size);
        }
        if (node_is_witness(api->o.node) && !witness_answers(path)) {
            char detail[LIMIT_NAME_BYTES + 32];
            (void)snprintf(detail, sizeof detail, "the leader is %s", node_leader_name(api->o.node));
            api_call_error(c, E_WITNESS, detail);
            return;
        }
        routes[i].run(c);
        return;
    }
    metrics_add(&errors, 0, 1);
    if (!api_access(api, q, ROLE_VIEWER, &caller)) { /* what paths there are is not told to everybody */
        return;
    }
    http_reply_error(q, path_known ? E_METHOD : E_NOT_FOUND, path_known ? "" : "no such path; docs/openapi.yaml lists them all");
}

struct api *api_new(const struct api_options *o) {
    struct metric *const all[] = {&requests,    &errors,        &resident,   &disk_ratio,      &written,
                                  &queue_bytes, &queue_pending, &queue_gaps, &queue_gap_bytes, &queue_expired,
                                  &queue_depth, &running,       &task_usage, &quota_exceeded};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        metrics_register(all[i]);
    }
    struct api *a = mem_new(1, sizeof *a);
    if (a != NULL) {
        a->o = *o;
        a->started_ms = loop_now_ms(o->loop);
        api_access_start(a);
        api_attest_start();
        keys_random(&a->id_seed, sizeof a->id_seed);
        a->follow_timer = (struct loop_timer){.fire = api_logs_follow_timer, .context = a};
        a->watch_timer = (struct loop_timer){.fire = api_kv_watch_timer, .context = a};
        a->link_timer = (struct loop_timer){.fire = api_link_timer, .context = a};
        (void)snprintf(a->source, sizeof a->source, "grey://%s", node_site(o->node));
    }
    return a;
}

void api_free(struct api *a) {
    if (a != NULL) {
        loop_timer_cancel(a->o.loop, &a->watch_timer);
        api_kv_watchers_free(a);
        api_logs_free(a);
        api_link_free(a);
        mem_free(a);
    }
}

void api_applied(struct api *a, const struct entry *e) {
    if (e->kind == ENTRY_KV && a->watcher_count > 0) {
        api_kv_applied(a, e);
    }
}
