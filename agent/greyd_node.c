/* The node from the configuration, and its word to the other parts. */
#include <stdio.h>
#include <string.h>

#include "agent/greyd_core.h"
#include "agent/node/mending.h"
#include "agent/store/salvage.h"
#include "agent/work/cron.h"
#include "platform/db.h"
#include "platform/keyfile.h"

/* --- what it tells the other parts -------------------------------------------------------------------------------------------- */

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
    if (g->herald != NULL) {
        herald_applied(g->herald, e);
    }
    if (g->updater != NULL) {
        updater_applied(g->updater, e);
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

static void on_asked(void *context, raft_id from, const struct message *m) {
    struct greyd *g = context;
    if (m->kind == MESSAGE_ATTEST) {
        if (g->herald != NULL) {
            herald_message(g->herald, from, m);
        }
    } else if (m->kind == MESSAGE_REACH_ASK || m->kind == MESSAGE_REACH) {
        if (g->uplink != NULL) {
            uplink_heard(g->uplink, from, m);
        }
    } else if (m->kind == MESSAGE_LINK_ASK || m->kind == MESSAGE_LINK) {
        if (g->api != NULL && g->http != NULL) { /* else this gateway starts or stops */
            api_heard(g->api, from, m);
        }
    } else if (g->tasklog != NULL) {
        tasklog_message(g->tasklog, from, m);
    }
}

static const struct node_events node_events = {
    .leading = on_leading, .applied = on_applied, .asked = on_asked, .failed = on_failed};

/* --- start -------------------------------------------------------------------------------------------------------------------- */

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
    supervise_status(&g->supervise, "mends its log with the help of other gateways");
    struct mending *mending = mending_new(&g->x, f);
    bool whole = mending != NULL && greyd_api_listen(g, mending_answer, mending, f) && mending_run(mending, &m, f) == E_OK;
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

/* One of enum of node_options. */
static unsigned offload_when(const struct config *c) {
    static const char *const words[] = {"never", "always", "high-load", "scheduled"};
    unsigned when = 0;
    for (unsigned i = 0; i < sizeof words / sizeof words[0] && c->offload; i++) {
        when = strcmp(c->offload_when, words[i]) == 0 ? i : when;
    }
    return when;
}

bool greyd_node_start(struct greyd *g, struct fault *f) {
    const struct config *c = &g->config;
    struct cron hours;
    struct fault why = {0};
    if (cron_parse(bytes_str(c->offload_hours), &hours, &why) != E_OK) {
        (void)fault_set(f, E_CONFIG, "scheduler.cloud_offload.hours: %.180s", why.text);
        return false;
    }
    bool single = c->mode == CONFIG_MODE_SINGLE;
    struct node_options o = {.node = c->node_id,
                             .site = c->site_id,
                             .data_dir = c->data_dir,
                             .wal_dir = c->wal_dir,
                             .vault = strcmp(c->signing_key, "tpm") == 0 ? c->attest_socket : NULL,
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
                             .overcommit = c->overcommit,
                             .burst_s = (uint32_t)c->burst_s,
                             .offload_when = offload_when(c),
                             .offload_hours = c->offload_hours,
                             .task_cpu_millicores = greyd_run_capacity(c).cpu_millicores,
                             .task_memory_bytes = greyd_run_capacity(c).memory_bytes,
                             .queue = queue_limits(c),
                             .offline_hours_max = c->federation ? (uint32_t)c->offline_hours_max : 0};
    o.has_verifier_key = c->core_key[0] != 0;
    if (o.has_verifier_key && keyfile_get_public(c->core_key, o.verifier_key, f) != E_OK) {
        return false;
    }
    db_set_cache((uint32_t)c->cache_kb * 1024u);
    g->node = node_new(&g->x, &o, &node_events, g, f);
    if (g->node == NULL && f->code == E_CORRUPT && salvage_marked(c->wal_dir) && mend_log(g, &o, f)) {
        g->node = node_new(&g->x, &o, &node_events, g, f);
    }
    return g->node != NULL;
}
