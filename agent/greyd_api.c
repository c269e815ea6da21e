/* The API: where it listens, and what it answers from. */
#include <grp.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/greyd_core.h"
#include "platform/log.h"

static enum event_priority priority_of(int64_t number) {
    return number >= 90 ? PRIORITY_CRITICAL : number >= 70 ? PRIORITY_HIGH : number >= 30 ? PRIORITY_NORMAL : PRIORITY_LOW;
}

bool greyd_api_listen(struct greyd *g, http_handler *handler, void *context, struct fault *f) {
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

static bool attest_facts(void *context, struct api_attest_facts *out) {
    const struct greyd *g = context;
    struct attestor_facts f;
    if (!herald_facts(g->herald, &f)) {
        return false;
    }
    *out = (struct api_attest_facts){.state = attestor_state_name(f.state),
                                     .type = attest_type_name(f.type),
                                     .from_s = f.from_s,
                                     .until_s = f.until_s,
                                     .why = f.why,
                                     .detail = f.detail};
    return true;
}

static void attest_now(void *context) {
    const struct greyd *g = context;
    herald_now(g->herald);
}

static const struct api_attest api_attest = {.facts = attest_facts, .now = attest_now};

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

bool greyd_api_start(struct greyd *g, struct fault *f) {
    const struct config *c = &g->config;
    g->tasklog = tasklog_new(g->x.loop, g->node, g->executor, f);
    if (g->tasklog == NULL) {
        return false;
    }
    if (c->priority_lanes < LANE_COUNT) {
        log_warn("greyd", "lanes", "scheduler.priority_lanes is 4: lane preempt is off, its orders go to lane low");
    }
    static const char *const modes[] = {"single", "site", "edge", "witness"};
    struct api_options o = {.loop = g->x.loop,
                            .node = g->node,
                            .uplink = g->uplink,
                            .attest = g->herald == NULL ? NULL : &api_attest,
                            .attest_context = g,
                            .board = g->board,
                            .tasklog = g->tasklog,
                            .updater = g->updater,
                            .mode = modes[c->mode],
                            .data_dir = c->data_dir,
                            .alive = greyd_gets_on,
                            .alive_context = g,
                            .default_priority = priority_of(c->default_priority),
                            .local_affinity = strcmp(c->local_affinity, "prefer") == 0,
                            .lanes = (uint32_t)c->priority_lanes,
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
    return greyd_api_listen(g, api_handle, g->api, f) && (!o.has_socket_group || give_socket(c->socket_path, o.socket_group, f));
}
