/* greyd: the agent on a gateway.  Reads the configuration, wires the parts together, runs the loop, stops cleanly. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/api/api.h"
#include "agent/config/config.h"
#include "agent/identity/enroll.h"
#include "agent/identity/identity.h"
#include "agent/jail.h"
#include "agent/node/mending.h"
#include "agent/node/node.h"
#include "agent/run/boardwatch.h"
#include "agent/run/executor.h"
#include "agent/run/tasklog.h"
#include "agent/store/salvage.h"
#include "agent/uplink/uplink.h"
#include "include/grey/must.h"
#include "platform/db.h"
#include "platform/keyfile.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/now.h"
#include "platform/supervise.h"

#define EXIT_FAILED 1
#define EXIT_USAGE 2
#define CRYPTO_QUEUE 64u
#define LEAVE_MS 3000u /* for handing leadership on */
#define LARGE_BLOCK_BYTES (64 * 1024)

struct greyd {
    struct config config;
    struct conn_context x;
    struct conn_tls *tls, *upstream_tls;
    struct node *node;
    struct uplink *uplink;
    struct identity *identity;
    struct boardwatch *board;
    struct executor *executor; /* NULL: no tasks here */
    struct tasklog *tasklog;
    struct api *api;
    struct http_server *http;
    struct supervise supervise;
    struct loop_timer leave_timer;
    uint64_t leave_deadline_ms;
    bool stopping, failed;
};

static const char *environment(const char *name) {
    return getenv(name);
}

static enum grey_error read_file(const char *path, struct builder *out, struct fault *f) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return fault_errno(f, errno == ENOENT ? E_NOT_FOUND : E_CONFIG, "%s", path);
    }
    uint8_t room[4096];
    ssize_t got;
    while ((got = read(fd, room, sizeof room)) > 0) {
        builder_add(out, bytes_of(room, (size_t)got));
    }
    enum grey_error err = got < 0 ? fault_errno(f, E_CONFIG, "%s", path) : E_OK;
    (void)close(fd);
    return err;
}

static void print_text(struct builder *b) {
    (void)fwrite(b->data, 1, b->size, stdout);
    builder_free(b);
}

static int complain(const struct fault *f) {
    (void)fprintf(stderr, "greyd: %s (GREY-%d): %s\n  -> %s\n", error_sentence(f->code), error_id(f->code), f->text,
                  error_remedy(f->code));
    return f->code == E_USAGE || f->code == E_CONFIG ? EXIT_USAGE : EXIT_FAILED;
}

/* --- restore ---------------------------------------------------------------------------------------------------------------------------- */

static int restore(int argc, char **argv) {
    const char *snapshot = NULL, *data_dir = NULL;
    struct fault f = {0};
    for (int i = 2; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--snapshot") == 0) {
            snapshot = argv[i + 1];
        } else if (strcmp(argv[i], "--data-dir") == 0) {
            data_dir = argv[i + 1];
        }
    }
    if (snapshot == NULL || data_dir == NULL || argc != 6) {
        (void)fputs("usage: greyd restore --snapshot FILE --data-dir DIR\n", stderr);
        return EXIT_USAGE;
    }
    char wal_dir[LIMIT_PATH_BYTES + 8];
    (void)snprintf(wal_dir, sizeof wal_dir, "%.1000s/log", data_dir);
    if (sitelog_restore(snapshot, data_dir, wal_dir, &f) != E_OK) {
        return complain(&f);
    }
    (void)printf("restored %s into %s; start greyd with --data-dir %s\n", snapshot, data_dir, data_dir);
    return 0;
}

/* --- events of the node ------------------------------------------------------------------------------------------------------------------- */

static void on_leading(void *context, bool leads, grey_epoch epoch) {
    struct greyd *g = context;
    if (g->uplink != NULL) {
        if (leads) {
            uplink_lead(g->uplink, epoch);
        } else {
            uplink_follow(g->uplink);
        }
    }
}

static void on_applied(void *context, const struct entry *e) {
    struct greyd *g = context;
    if (g->api != NULL) {
        api_applied(g->api, e);
    }
    if (g->executor != NULL) {
        executor_applied(g->executor, e);
    }
    if (g->identity != NULL) {
        identity_applied(g->identity, e);
    }
    if (g->uplink != NULL && (e->kind == ENTRY_EVENTS || e->kind == ENTRY_ACK || e->kind == ENTRY_SITE)) {
        uplink_wake(g->uplink);
    }
}

static void on_failed(void *context, enum grey_error err, const char *detail) {
    struct greyd *g = context;
    (void)err, (void)detail;
    g->failed = true;
    loop_stop(g->x.loop);
}

static void on_output(void *context, raft_id from, const struct message *m) {
    struct greyd *g = context;
    if (g->tasklog != NULL) {
        tasklog_message(g->tasklog, from, m);
    }
}

static const struct node_events node_events = {
    .leading = on_leading, .applied = on_applied, .output = on_output, .failed = on_failed};

/* --- signals -------------------------------------------------------------------------------------------------------------------------------- */

static void leave_now(void *context) {
    struct greyd *g = context;
    loop_stop(g->x.loop);
}

static void look_for_successor(void *context) {
    struct greyd *g = context;
    struct raft_status s;
    node_raft_status(g->node, &s);
    if (s.role != RAFT_LEADER || s.peer_count == 0 || loop_now_ms(g->x.loop) >= g->leave_deadline_ms) {
        leave_now(g);
        return;
    }
    loop_timer_after(g->x.loop, &g->leave_timer, 20);
}

static void on_terminate(void *context, int signal_number) {
    struct greyd *g = context;
    if (g->stopping) {
        leave_now(g);
        return;
    }
    g->stopping = true;
    log_info("greyd", "stop", "signal=%d", signal_number);
    supervise_stopping(&g->supervise);
    if (g->node == NULL) { /* still mending its log */
        leave_now(g);
        return;
    }
    node_leave_leadership(g->node);
    g->leave_deadline_ms = loop_now_ms(g->x.loop) + LEAVE_MS;
    g->leave_timer = (struct loop_timer){.fire = look_for_successor, .context = g};
    look_for_successor(g);
}

static struct uplink_bandwidth bandwidth_of(const struct config *c) {
    struct uplink_bandwidth b = {.up_bytes_per_s = (uint64_t)c->limit_kbps * 125u,
                                 .down_bytes_per_s = (uint64_t)c->down_limit_kbps * 125u,
                                 .window_count = c->window_count,
                                 .budget = {.day_bytes = (uint64_t)c->budget_day_kb * 1000u,
                                            .month_bytes = (uint64_t)c->budget_month_kb * 1000u,
                                            .reserve_percent = (uint32_t)c->budget_reserve_percent},
                                 .month_begins_day = (uint32_t)c->budget_month_begins_day};
    memcpy(b.windows, c->windows, sizeof b.windows);
    memcpy(b.privileged, c->privileged, sizeof b.privileged);
    return b;
}

/* Both files anew, the profile first. */
static enum grey_error reread(const struct config *running, struct config *fresh, struct fault *f) {
    struct builder profile, text;
    enum grey_error err = E_OK;
    builder_init(&profile, 256u * 1024u);
    builder_init(&text, 256u * 1024u);
    config_defaults(fresh);
    if (running->profile[0] != 0 && (err = read_file(running->profile, &profile, f)) == E_OK) {
        err = config_read_profile(fresh, builder_bytes(&profile), running->profile, f);
    }
    if (err == E_OK && running->file[0] != 0 && (err = read_file(running->file, &text, f)) == E_OK) {
        err = config_read(fresh, builder_bytes(&text), running->file, f);
    }
    builder_free(&profile);
    builder_free(&text);
    return err;
}

static void on_reload(void *context, int signal_number) {
    struct greyd *g = context;
    (void)signal_number;
    struct config fresh;
    struct fault f = {0};
    enum log_level level;
    if (g->config.file[0] == 0 && g->config.profile[0] == 0) {
        return;
    }
    supervise_reloading(&g->supervise);
    if (reread(&g->config, &fresh, &f) != E_OK) {
        log_error("greyd", "reload", "refused, the running configuration stays: %s", f.text);
    } else if (log_level_parse(fresh.log_level, &level)) {
        log_configure(level, strcmp(fresh.log_format, "json") == 0 ? LOG_JSON : LOG_PRETTY);
        if (g->uplink != NULL) {
            struct uplink_bandwidth b = bandwidth_of(&fresh);
            uplink_set_bandwidth(g->uplink, &b);
        }
        log_info("greyd", "reload", "log level %s, and the limits, windows and budgets of the link; all else takes a restart",
                 fresh.log_level);
    }
    supervise_ready(&g->supervise, "");
}

/* --- wiring ----------------------------------------------------------------------------------------------------------------------------------- */

static enum event_priority priority_of(int64_t number) {
    return number >= 90 ? PRIORITY_CRITICAL : number >= 70 ? PRIORITY_HIGH : number >= 30 ? PRIORITY_NORMAL : PRIORITY_LOW;
}

static bool listen_http(struct greyd *g, http_handler *handler, void *context, struct fault *f) {
    const struct config *c = &g->config;
    struct http_limits limits = {.connections_max = LIMIT_HTTP_CONNECTIONS,
                                 .body_bytes_max = LIMIT_BATCH_BYTES,
                                 .idle_timeout_ms = 120000,
                                 .request_timeout_ms = 15000};
    char address[LIMIT_PATH_BYTES + 8];
    g->http = http_server_new(&g->x, &limits, handler, context);
    if (g->http == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "API");
        return false;
    }
    http_server_admit_guests(g->http); /* who shows no certificate may have a token */
    if (http_server_listen(g->http, c->http_addr, config_loopback(c->http_addr) ? NULL : g->tls, f) != E_OK) {
        return false;
    }
    (void)snprintf(address, sizeof address, "unix:%s", c->socket_path);
    if (strlen(c->socket_path) > 100) {
        log_warn("greyd", "socket", "%s is too long for a socket; greyctl needs --addr", c->socket_path);
    } else if (http_server_listen(g->http, address, NULL, f) != E_OK) {
        return false;
    }
    if (c->metrics_enabled && c->metrics_port > 0) {
        (void)snprintf(address, sizeof address, "127.0.0.1:%" PRId64, c->metrics_port);
        if (http_server_listen(g->http, address, NULL, f) != E_OK) {
            return false;
        }
    }
    return true;
}

/* A damaged log is made whole before the node starts; who asks meanwhile is told. */
static bool mend_log(struct greyd *g, const struct node_options *o, struct fault *f) {
    const struct config *c = &g->config;
    struct mending_options m = {.data_dir = c->data_dir,
                                .wal_dir = c->wal_dir,
                                .site = c->site_id,
                                .node = c->node_id,
                                .listen_address = o->peer_listen_address,
                                .advertise_address = o->peer_address,
                                .http_address = o->http_address,
                                .tls = g->tls};
    struct mending *mending = mending_new(&g->x, f);
    bool whole = mending != NULL && listen_http(g, mending_answer, mending, f) && mending_run(mending, &m, f) == E_OK;
    http_server_free(g->http);
    g->http = NULL;
    mending_free(mending);
    return whole;
}

static struct queue_limits queue_limits(const struct config *c) {
    struct queue_limits l = {.bytes_max = (uint64_t)c->queue_size_mb * 1024u * 1024u, .age_s = (uint32_t)c->age_hours_max * 3600u};
    for (unsigned p = PRIORITY_HIGH; p < PRIORITY_COUNT; p++) {
        l.floor_percent[p] = (uint32_t)c->floor_percent[p];
    }
    for (uint32_t i = 0; i < c->time_count; i++) {
        memcpy(l.ttls[i].type, c->times[i].type, sizeof l.ttls[i].type);
        l.ttls[i].time_s = c->times[i].seconds;
    }
    l.ttl_count = c->time_count;
    return l;
}

/* A bound from the configuration, or count * unit of the machine. */
static uint64_t machine_part(int64_t configured, long count, long unit) {
    return configured > 0 ? (uint64_t)configured : count > 0 && unit > 0 ? (uint64_t)count * (uint64_t)unit : 0;
}

/* What this machine has for tasks and itself. */
static struct quota_amount capacity_of(const struct config *c) {
    return (struct quota_amount){machine_part(c->cpu_limit_millicores, sysconf(_SC_NPROCESSORS_ONLN), 1000),
                                 machine_part(c->memory_limit_bytes, sysconf(_SC_PHYS_PAGES), sysconf(_SC_PAGESIZE))};
}

static bool start_node(struct greyd *g, struct fault *f) {
    const struct config *c = &g->config;
    bool single = c->mode == CONFIG_MODE_SINGLE;
    struct node_options o = {.node = c->node_id,
                             .site = c->site_id,
                             .data_dir = c->data_dir,
                             .wal_dir = c->wal_dir,
                             .peer_listen_address = single ? NULL : c->peer_addr,
                             .peer_address = c->peer_advertise,
                             .http_address = c->http_addr,
                             .seeds = single ? "" : c->join,
                             .bootstrap = single || c->bootstrap,
                             .tls = g->tls,
                             .heartbeat_ms = (uint32_t)c->heartbeat_interval_ms,
                             .election_timeout_ms_min = (uint32_t)c->election_timeout_ms,
                             .election_timeout_ms_max = (uint32_t)(c->election_timeout_ms * 5 / 3),
                             .witness = c->mode == CONFIG_MODE_WITNESS,
                             .lease_reads = c->lease_reads,
                             .clock_drift_percent = (uint32_t)c->clock_drift_percent,
                             .seal_interval_ms = (uint32_t)c->seal_interval_ms,
                             .snapshot_threshold_entries = (uint32_t)c->snapshot_threshold,
                             .snapshot_interval_s = (uint32_t)c->snapshot_interval_s,
                             .snapshots_kept = (uint32_t)c->snapshots_kept,
                             .check_interval_s = (uint32_t)c->check_interval_s,
                             .write_bytes_per_day_max = (uint64_t)c->max_write_mb_per_day * 1000000u,
                             .commit_delay_ms = (uint32_t)c->commit_delay_ms,
                             .request_timeout_ms = (uint32_t)c->provisional_after_ms,
                             .offers_work = c->scheduler && c->mode != CONFIG_MODE_WITNESS,
                             .proof_s = (uint32_t)c->proof_retention_days * 86400u,
                             .tasks_max = (uint32_t)c->tasks_max,
                             .task_cpu_millicores = capacity_of(c).cpu_millicores,
                             .task_memory_bytes = capacity_of(c).memory_bytes,
                             .queue = queue_limits(c),
                             .offline_hours_max = c->federation ? (uint32_t)c->offline_hours_max : 0};
    db_set_cache((uint32_t)c->cache_kb * 1024u);
    g->node = node_new(&g->x, &o, &node_events, g, f);
    if (g->node == NULL && f->code == E_CORRUPT && salvage_marked(c->wal_dir) && mend_log(g, &o, f)) {
        g->node = node_new(&g->x, &o, &node_events, g, f);
    }
    return g->node != NULL;
}

/* With what the core said of trust, as far as it reached this gateway. */
static struct conn_tls *read_certificates(const struct greyd *g, const char *ca, const char *cert, const char *key,
                                          struct fault *f) {
    char trust[LIMIT_PATH_BYTES + 32];
    (void)snprintf(trust, sizeof trust, "%.1000s/" IDENTITY_TRUST_FILE, g->config.data_dir);
    return conn_tls_open(&(struct conn_tls_files){.ca_path = ca, .cert_path = cert, .key_path = key, .trust_path = trust}, f);
}

static bool start_identity(struct greyd *g, struct fault *f) {
    const struct config *c = &g->config;
    struct identity_options o = {.site = c->site_id,
                                 .node = c->node_id,
                                 .data_dir = c->data_dir,
                                 .ca_path = g->tls != NULL ? c->tls_ca : c->upstream_ca,
                                 .cert_path = g->tls != NULL ? c->tls_cert : c->upstream_cert,
                                 .key_path = g->tls != NULL ? c->tls_key : c->upstream_key,
                                 .tls = g->tls,
                                 .upstream_tls = g->upstream_tls};
    if ((g->tls == NULL && g->upstream_tls == NULL) || c->mode == CONFIG_MODE_WITNESS) {
        return true;
    }
    identity_register();
    g->identity = identity_new(&g->x, &o, g->node, g->uplink, f);
    return g->identity != NULL;
}

static bool start_uplink(struct greyd *g, struct fault *f) {
    const struct config *c = &g->config;
    if (!c->federation || c->mode == CONFIG_MODE_WITNESS) {
        return true;
    }
    if (c->upstream_tls) {
        g->upstream_tls = read_certificates(g, c->upstream_ca, c->upstream_cert, c->upstream_key, f);
        if (g->upstream_tls == NULL || (c->upstream_alpn && conn_tls_offer(g->upstream_tls, "mqtt", f) != E_OK)) {
            return false;
        }
    }
    const char *endpoints[CONFIG_ENDPOINTS_MAX];
    uint32_t priorities[CONFIG_ENDPOINTS_MAX];
    for (uint32_t i = 0; i < c->endpoint_count; i++) {
        endpoints[i] = c->endpoints[i];
        priorities[i] = i < c->priority_count ? c->priorities[i] : i + 1;
    }
    struct uplink_options o = {.endpoints = endpoints,
                               .priorities = priorities,
                               .endpoint_count = c->endpoint_count,
                               .failback_s = (uint32_t)c->failback_s,
                               .proxy = c->proxy,
                               .proxy_auth = c->proxy_auth,
                               .offer = c->upstream_alpn,
                               .tls = g->upstream_tls,
                               .node = c->node_id,
                               .data_dir = c->data_dir,
                               .keepalive_s = (uint32_t)c->keepalive_s,
                               .window_frames = 16,
                               .bandwidth = bandwidth_of(c)};
    o.seal = c->upstream_seal && c->upstream_tls;
    o.cert_path = c->upstream_cert;
    o.key_path = c->upstream_key;
    o.has_core_key = c->core_key[0] != 0;
    if (o.has_core_key && keyfile_get_public(c->core_key, o.core_key, f) != E_OK) {
        return false;
    }
    g->uplink = uplink_new(&g->x, &o, g->node, f);
    return g->uplink != NULL;
}

static bool find_group(const char *name, struct api_options *o, struct fault *f) {
    if (name[0] == 0) {
        return true;
    }
    const struct group *found = getgrnam(name); /* before threads that could ask too: none of ours does */
    if (found == NULL) {
        (void)fault_set(f, E_CONFIG, "security.auth.socket_group: there is no group '%.60s' on this machine", name);
        return false;
    }
    o->has_socket_group = true;
    o->socket_group = found->gr_gid;
    return true;
}

/* The mode is 0660: with the group, its members can reach it. */
static bool give_socket(const char *path, gid_t group, struct fault *f) {
    if (chown(path, (uid_t)-1, group) != 0) {
        (void)fault_errno(f, E_CONFIG, "security.auth.socket_group: %s cannot be given to it; greyd must be a member", path);
        return false;
    }
    return true;
}

static bool start_executor(struct greyd *g, struct fault *f) {
    const struct config *c = &g->config;
    if (!c->scheduler || c->mode == CONFIG_MODE_WITNESS) {
        return true;
    }
    struct placement_node self = {.capacity = capacity_of(c)};
    struct executor_options o = {.loop = g->x.loop,
                                 .node = g->node,
                                 .launcher_socket = c->launcher,
                                 .data_dir = c->data_dir,
                                 .usable = placement_usable(&self)};
    g->executor = executor_new(&o, f);
    return g->executor != NULL;
}

static bool start_boardwatch(struct greyd *g, struct fault *f) {
    struct boardwatch_options o = {.budget_bytes = (uint64_t)g->config.memory_budget_mb * 1024u * 1024u,
                                   .temperature_max_c = (int32_t)g->config.temperature_max_c};
    g->board = boardwatch_new(&g->x, node_log(g->node), &o, f);
    return g->board != NULL;
}

static bool start_api(struct greyd *g, struct fault *f) {
    const struct config *c = &g->config;
    g->tasklog = tasklog_new(g->x.loop, g->node, g->executor, f);
    if (g->tasklog == NULL) {
        return false;
    }
    static const char *const modes[] = {"single", "site", "edge", "witness"};
    struct api_options o = {.loop = g->x.loop,
                            .node = g->node,
                            .uplink = g->uplink,
                            .board = g->board,
                            .tasklog = g->tasklog,
                            .mode = modes[c->mode],
                            .data_dir = c->data_dir,
                            .default_priority = priority_of(c->default_priority),
                            .task_priority = (uint32_t)c->default_priority,
                            .auth = c->auth,
                            .calls_per_second = (uint32_t)c->calls_per_second};
    if (!find_group(c->socket_group, &o, f)) {
        return false;
    }
    g->api = api_new(&o);
    if (g->api == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "API");
        return false;
    }
    return listen_http(g, api_handle, g->api, f) && (!o.has_socket_group || give_socket(c->socket_path, o.socket_group, f));
}

/* What starts grey-launch would take the jail along to the tasks. */
static void go_to_jail(const struct config *c) {
    struct fault f = {0};
    bool launches = c->scheduler && c->mode != CONFIG_MODE_WITNESS && strcmp(c->launcher, "own") == 0;
    if (!c->seccomp || launches) {
        log_info("greyd", "jail", "all system calls stay allowed: %s",
                 launches ? "scheduler.launcher is own" : "security.seccomp is off");
    } else if (jail_enter(&f) != E_OK) {
        log_warn("greyd", "jail", "all system calls stay allowed: %s", f.text);
    }
}

/* The loop lives when it asks this; the storage thread must have finished something of late, if it has anything to do. */
static bool gets_on(void *context, char *why, size_t size) {
    const struct greyd *g = context;
    struct sitelog_usage usage;
    sitelog_usage(node_log(g->node), &usage);
    (void)snprintf(why, size, "the disk has finished nothing for %" PRIu64 " s", usage.waits_ms / 1000);
    return usage.waits_ms < (uint64_t)g->config.storage_stall_s * 1000;
}

static bool start(struct greyd *g, struct fault *f) {
    const struct config *c = &g->config;
    struct supervise_options supervise = {.socket = getenv("NOTIFY_SOCKET"),
                                          .watchdog_usec = getenv("WATCHDOG_USEC"),
                                          .watchdog_pid = getenv("WATCHDOG_PID"),
                                          .alive = gets_on,
                                          .context = g};
    go_to_jail(c);
    g->x.loop = loop_new(f);
    if (g->x.loop == NULL || supervise_begin(&g->supervise, g->x.loop, &supervise, f) != E_OK) {
        return false;
    }
    g->x.crypto = worker_new(g->x.loop, "crypto", CRYPTO_QUEUE, NULL, NULL, f);
    if (g->x.crypto == NULL) {
        return false;
    }
    loop_signal(g->x.loop, SIGTERM, on_terminate, g);
    loop_signal(g->x.loop, SIGINT, on_terminate, g);
    loop_signal(g->x.loop, SIGHUP, on_reload, g);
    if (c->mode != CONFIG_MODE_SINGLE && c->peer_tls) {
        g->tls = read_certificates(g, c->tls_ca, c->tls_cert, c->tls_key, f);
        if (g->tls == NULL) {
            return false;
        }
    } else if (c->mode != CONFIG_MODE_SINGLE) {
        log_warn("greyd", "plain",
                 "links to other gateways are plain: whoever reaches %s can read and change what this site agrees on; "
                 "set security.tls.enabled for anything but a trial",
                 c->peer_addr);
    }
    return start_node(g, f) && start_uplink(g, f) && start_identity(g, f) && start_executor(g, f) && start_boardwatch(g, f) &&
           start_api(g, f);
}

static void stop(struct greyd *g) {
    http_server_free(g->http);
    g->http = NULL;
    identity_stop(g->identity);
    uplink_free(g->uplink);
    g->uplink = NULL;
    supervise_end(&g->supervise);
    boardwatch_stop(g->board);
    node_free(g->node); /* answers what the executor asked */
    executor_free(g->executor);
    tasklog_free(g->tasklog);
    api_free(g->api);
    worker_stop(g->x.crypto);
    identity_free(g->identity);
    boardwatch_free(g->board);
    loop_free(g->x.loop);
    conn_tls_free(g->tls);
    conn_tls_free(g->upstream_tls);
}

static int check(const struct config *c) {
    struct builder b;
    builder_init(&b, 256u * 1024u);
    if (c->print) {
        config_print(c, &b);
    }
    config_list_inert(c, &b);
    builder_addf(&b, "%s%s%s: acceptable\n", c->profile, c->profile[0] != 0 && c->file[0] != 0 ? " and " : "",
                 c->file[0] != 0      ? c->file
                 : c->profile[0] != 0 ? ""
                                      : "configuration");
    print_text(&b);
    return 0;
}

int main(int argc, char **argv) {
    static struct greyd g;
    struct fault f = {0};
    struct builder b;
    enum log_level level;
    if (argc > 1 && strcmp(argv[1], "restore") == 0) {
        return restore(argc, argv);
    }
    if (argc > 1 && strcmp(argv[1], "enroll") == 0) {
        (void)umask(077);
        return enroll_command(argc - 2, argv + 2);
    }
    if (argc > 1 && strcmp(argv[1], "--config-keys") == 0) { /* for docs/CONFIGURATION.md */
        builder_init(&b, 256u * 1024u);
        config_document(&b);
        print_text(&b);
        return 0;
    }
    enum grey_error err = config_load(&g.config, argc, argv, environment, read_file, &f);
    if (err != E_OK) {
        return complain(&f);
    }
    if (g.config.show_help || g.config.show_version) {
        builder_init(&b, 64u * 1024u);
        if (g.config.show_help) {
            config_help(&b);
        } else {
            builder_add_str(&b, "greyd " GREY_VERSION " (experimental: formats may change; disk format 1, Grey Protocol v2)\n");
        }
        print_text(&b);
        return 0;
    }
    if (g.config.check) {
        return check(&g.config);
    }
    (void)mallopt(M_ARENA_MAX, 1); /* three threads share one arena: an arena each costs memory that is never given back */
    /* What is large, bodies and batches, goes back when it is freed.  By itself the library raises this bound with each large block that is
     * freed, up to 32 MiB, and between small blocks that live on they leave holes that stay. */
    (void)mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES);
    (void)mallopt(M_TRIM_THRESHOLD, 2 * LARGE_BLOCK_BYTES);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)umask(027);
    if (!now_set_zone(g.config.time_zone)) {
        (void)fault_set(
            &f, E_CONFIG,
            "federation.bandwidth.time_zone: there is no zone '%.60s' on this machine (package tzdata; a POSIX rule such as "
            "CET-1CEST,M3.5.0,M10.5.0/3 needs none)",
            g.config.time_zone);
        return complain(&f);
    }
    if (log_level_parse(g.config.log_level, &level)) {
        log_configure(level, strcmp(g.config.log_format, "json") == 0 ? LOG_JSON : LOG_PRETTY);
    }
    if (!start(&g, &f)) {
        stop(&g);
        return g.stopping ? 0 : complain(&f);
    }
    supervise_ready(&g.supervise, "takes part in its site");
    log_info("greyd", "ready", "version=%s http=%s site=%s node=%s", GREY_VERSION, g.config.http_addr, g.config.site_id,
             g.config.node_id);
    loop_run(g.x.loop);
    stop(&g);
    log_info("greyd", "stopped", "failed=%s", g.failed ? "yes" : "no");
    return g.failed ? EXIT_FAILED : 0;
}
