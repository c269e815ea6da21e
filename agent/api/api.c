#include "agent/api/api.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "agent/api/api_core.h"
#include "agent/run/boardwatch.h"
#include "agent/work/scheduler.h"
#include "platform/keys.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/now.h"

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
    if (a->out.err != E_OK) {
        http_reply_error(c->q, a->out.err, "the answer grew too large; ask for less");
    } else {
        builder_add_byte(&a->out, '\n');
        http_reply(c->q, status, "application/json", builder_bytes(&a->out), extra, extra_count);
    }
    builder_free(&a->out);
    mem_free(c);
}

void api_call_error(struct api_call *c, enum grey_error err, const char *detail) {
    metrics_add(&errors, 0, 1);
    http_reply_error(c->q, err, detail);
    mem_free(c);
}

/* --- how it is ------------------------------------------------------------------------------------------------------------------- */

enum health { HEALTHY, DEGRADED, UNHEALTHY };
static const char *const health_names[] = {"healthy", "degraded", "unhealthy"};

/* Unhealthy: nothing can be decided.  Degraded: it can, but one more loss would end that, or this node lags behind. */
static enum health consensus_health(struct api *a) {
    struct raft_status s;
    node_raft_status(a->o.node, &s);
    if (!node_has_quorum(a->o.node)) {
        return UNHEALTHY;
    }
    uint32_t voters = 0, active = 1;
    for (uint32_t i = 0; i < s.members->count; i++) {
        voters += s.members->at[i].voter;
    }
    if (s.role == RAFT_LEADER) {
        for (uint32_t i = 0; i < s.peer_count; i++) {
            const struct raft_member *m = raft_members_find(s.members, s.peers[i].id);
            active += m != NULL && m->voter && s.peers[i].active;
        }
        return active < voters ? DEGRADED : HEALTHY;
    }
    return raft_members_find(s.members, s.self) == NULL ? DEGRADED : HEALTHY;
}

static enum health link_health(struct api *a, struct uplink_facts *facts) {
    struct raft_status s;
    node_raft_status(a->o.node, &s);
    memset(facts, 0, sizeof *facts);
    if (a->o.uplink == NULL) {
        return HEALTHY;
    }
    uplink_facts(a->o.uplink, facts);
    return (s.role != RAFT_LEADER || facts->up) && !node_overdue(a->o.node) ? HEALTHY : DEGRADED;
}

static enum health storage_health(struct api *a, struct disk_facts *facts) {
    node_disk_facts(a->o.node, facts);
    return facts->damage != NULL || node_wear(a->o.node)->level == WEAR_OVER ? DEGRADED : HEALTHY;
}

static enum health worst_of(enum health a, enum health b) {
    return a > b ? a : b;
}

/* What a person must see to before it becomes a loss. */
static enum health board_health(struct api *a, struct boardwatch_facts *facts) {
    boardwatch_facts(a->o.board, facts);
    return facts->hot || facts->hardware.under_voltage ? DEGRADED : HEALTHY;
}

static void health(struct api_call *c) {
    struct uplink_facts facts;
    struct boardwatch_facts board_facts;
    enum health consensus = consensus_health(c->api), link = link_health(c->api, &facts);
    struct disk_facts disk;
    enum health storage = storage_health(c->api, &disk);
    enum health board = board_health(c->api, &board_facts);
    enum health worst = worst_of(worst_of(consensus, board), worst_of(storage, link));
    struct api_answer a;
    api_answer_begin(&a);
    json_open(&a.w, '{');
    json_member_str(&a.w, "status", health_names[worst]);
    json_close(&a.w);
    api_answer_send(&a, c, worst == UNHEALTHY ? 503 : 200, NULL, 0);
}

static void health_live(struct api_call *c) {
    http_reply(c->q, 200, "application/json", bytes_str("{\"status\":\"healthy\"}\n"), NULL, 0);
    mem_free(c);
}

static void health_ready(struct api_call *c) {
    bool ready = node_has_quorum(c->api->o.node);
    http_reply(c->q, ready ? 200 : 503, "application/json",
               bytes_str(ready ? "{\"status\":\"healthy\"}\n" : "{\"status\":\"unhealthy\"}\n"), NULL, 0);
    mem_free(c);
}

static const char *role_name(const struct raft_status *s, raft_id id) {
    if (id == s->leader && id != 0) {
        return "leader";
    }
    return id == s->self && (s->role == RAFT_CANDIDATE || s->role == RAFT_PRE_CANDIDATE) ? "candidate" : "follower";
}

static const char *own_role_name(const struct raft_status *s) {
    return s->role == RAFT_LEADER ? "leader" : s->role == RAFT_FOLLOWER ? "follower" : "candidate";
}

static uint64_t pending_bytes(struct api *a) {
    uint64_t bytes = 0;
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        struct channel_facts f;
        state_channel(node_state(a->o.node), (enum event_channel)i, &f);
        bytes += f.pending_bytes;
    }
    return bytes;
}

/* What is damaged and waits to be mended, and how far the databases have been read through to find such. */
static void put_storage_check(struct json_writer *w, const struct disk_facts *disk) {
    json_key(w, "damage");
    if (disk->damage == NULL) {
        json_none(w);
    } else {
        json_str(w, disk->damage);
    }
    json_member_uint(w, "checked_percent", disk->checked_percent);
    json_key(w, "checked_seconds_ago");
    if (disk->round_ended_unix_ms == 0) {
        json_none(w);
    } else {
        json_milli(w, now_wall_ms() - disk->round_ended_unix_ms);
    }
}

/* What was written to the disk in a day, against the bound of the configuration. */
static void put_wear(struct json_writer *w, const struct wear *wear) {
    json_member_uint(w, "written_day_bytes", wear->day_bytes);
    json_key(w, "written_day_limit_bytes");
    if (wear->limit_bytes == 0) {
        json_none(w);
    } else {
        json_uint(w, wear->limit_bytes);
    }
    json_member_str(w, "wear", wear_level_name(wear->level));
}

/* What the board does not tell is null. */
static void put_board(struct json_writer *w, const char *status, const struct boardwatch_facts *f) {
    json_open(w, '{');
    json_member_str(w, "status", status);
    json_key(w, "temperature_celsius");
    if (f->hardware.has_temperature) {
        json_milli(w, f->hardware.temperature_milli_c);
    } else {
        json_none(w);
    }
    json_key(w, "under_voltage");
    if (f->hardware.has_voltage) {
        json_bool(w, f->hardware.under_voltage);
    } else {
        json_none(w);
    }
    json_member_uint(w, "resident_bytes", f->hardware.resident_bytes);
    json_member_uint(w, "memory_budget_bytes", f->budget_bytes);
    json_member_uint(w, "memory_reliefs", f->reliefs);
    json_member_bool(w, "memory_pressure_known", f->pressure_known);
    json_close(w);
}

static void health_detailed(struct api_call *c) {
    struct api *api = c->api;
    struct uplink_facts facts;
    struct boardwatch_facts board_facts;
    enum health consensus = consensus_health(api), link = link_health(api, &facts);
    struct disk_facts disk;
    enum health storage = storage_health(api, &disk);
    enum health board = board_health(api, &board_facts);
    enum health worst = worst_of(worst_of(consensus, board), worst_of(storage, link));
    struct raft_status s;
    node_raft_status(api->o.node, &s);
    struct sitelog_usage usage;
    sitelog_usage(node_log(api->o.node), &usage);
    struct peers_link links[LIMIT_MEMBERS];
    size_t up = 0, link_count = node_peers(api->o.node) == NULL ? 0 : peers_links(node_peers(api->o.node), links, LIMIT_MEMBERS);
    for (size_t i = 0; i < link_count; i++) {
        up += links[i].up;
    }
    struct api_answer a;
    api_answer_begin(&a);
    json_open(&a.w, '{');
    json_member_str(&a.w, "status", health_names[worst]);
    json_key(&a.w, "checks");
    json_open(&a.w, '{');
    json_key(&a.w, "consensus");
    json_open(&a.w, '{');
    json_member_str(&a.w, "status", health_names[consensus]);
    json_member_str(&a.w, "role", own_role_name(&s));
    json_member_uint(&a.w, "term", s.term);
    json_member_str(&a.w, "leader_id", node_leader_name(api->o.node));
    json_close(&a.w);
    json_key(&a.w, "storage");
    json_open(&a.w, '{');
    json_member_str(&a.w, "status", health_names[storage]);
    json_member_uint(&a.w, "used_bytes", usage.log_bytes + usage.state_bytes + usage.wal_bytes + usage.snapshot_bytes);
    json_member_uint(&a.w, "log_bytes", usage.log_bytes + usage.wal_bytes);
    json_member_uint(&a.w, "jobs_waiting", usage.jobs_waiting);
    json_member_uint(&a.w, "last_store_us", usage.store_us_last);
    put_storage_check(&a.w, &disk);
    put_wear(&a.w, node_wear(api->o.node));
    json_close(&a.w);
    json_key(&a.w, "board");
    put_board(&a.w, health_names[board], &board_facts);
    json_key(&a.w, "scheduler");
    json_open(&a.w, '{');
    json_member_str(&a.w, "status", "healthy");
    const struct scheduler *tasks = state_scheduler(node_state(api->o.node));
    json_member_uint(&a.w, "active_tasks", tasks == NULL ? 0 : tasks->held_count);
    json_member_uint(&a.w, "waiting_tasks", tasks == NULL ? 0 : lanes_waiting(&tasks->lanes));
    json_close(&a.w);
    json_key(&a.w, "network");
    json_open(&a.w, '{');
    json_member_str(&a.w, "status", up < link_count ? "degraded" : "healthy");
    json_member_uint(&a.w, "connected_peers", up);
    json_member_uint(&a.w, "known_peers", link_count);
    json_close(&a.w);
    json_key(&a.w, "federation");
    json_open(&a.w, '{');
    json_member_str(&a.w, "status", api->o.uplink == NULL ? "disabled" : health_names[link]);
    json_member_uint(&a.w, "queue_bytes", pending_bytes(api));
    json_key(&a.w, "last_contact_seconds");
    if (facts.last_contact_unix_ms == 0) {
        json_none(&a.w);
    } else {
        json_milli(&a.w, now_wall_ms() - facts.last_contact_unix_ms);
    }
    json_close(&a.w);
    json_key(&a.w, "clock");
    json_open(&a.w, '{');
    int64_t site_ms = node_site_time_ms(api->o.node);
    int64_t off_ms = now_machine_ms() - site_ms;
    if (s.role != RAFT_LEADER && off_ms > 0) {
        off_ms = 0; /* a follower knows the time of the last entry only, and the site may be idle since */
    }
    bool unsure = site_ms > 0 && (off_ms > 60000 || off_ms < -60000);
    json_member_str(&a.w, "status", unsure ? "degraded" : "healthy");
    json_key(&a.w, "offset_from_site_seconds");
    json_milli(&a.w, site_ms > 0 ? off_ms : 0);
    json_member_str(&a.w, "source", node_clock_source(api->o.node));
    json_close(&a.w);
    json_key(&a.w, "attestation");
    api_attest_health(api, &a.w);
    json_close(&a.w);
    json_close(&a.w);
    api_answer_send(&a, c, worst == UNHEALTHY ? 503 : 200, NULL, 0);
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

/* --- the site ------------------------------------------------------------------------------------------------------------------------ */

static const char *member_state(struct api *a, const struct raft_status *s, const struct raft_member *m) {
    if (m->id == s->self) {
        return "healthy";
    }
    if (node_fenced(a->o.node) == m->id) {
        return "fenced";
    }
    for (uint32_t i = 0; i < s->peer_count; i++) {
        if (s->role == RAFT_LEADER && s->peers[i].id == m->id) {
            return s->peers[i].active ? "healthy" : "dead";
        }
    }
    struct peers *p = node_peers(a->o.node);
    return p != NULL && peers_up(p, m->id) ? "healthy" : "suspect";
}

static void put_members(struct api *a, struct json_writer *w) {
    struct raft_status s;
    node_raft_status(a->o.node, &s);
    json_open(w, '[');
    for (uint32_t i = 0; i < s.members->count; i++) {
        const struct raft_member *m = &s.members->at[i];
        json_open(w, '{');
        json_member_str(w, "id", m->node.text);
        json_member_str(w, "addr", m->peer_address);
        json_member_str(w, "http_addr", m->http_address);
        json_member_str(w, "role", role_name(&s, m->id));
        json_member_str(w, "kind", m->witness ? "witness" : m->voter || m->voter_old ? "voter" : "learner");
        const char *state = member_state(a, &s, m);
        json_member_str(w, "state", strcmp(state, "healthy") == 0 && api_attest_quarantined(a, m->id) ? "quarantined" : state);
        json_key(w, "match_index");
        bool known = false;
        for (uint32_t k = 0; k < s.peer_count && s.role == RAFT_LEADER; k++) {
            if (s.peers[k].id == m->id) {
                json_uint(w, s.peers[k].match_index);
                known = true;
            }
        }
        if (!known && m->id == s.self) {
            json_uint(w, s.stored_index);
        } else if (!known) {
            json_none(w);
        }
        json_member_id(w, "raft_id", m->id);
        json_member_str(w, "attestation", api_attest_word(a, m->id));
        json_close(w);
    }
    json_close(w);
}

static void cluster_members(struct api_call *c) {
    struct api_answer a;
    api_answer_begin(&a);
    put_members(c->api, &a.w);
    api_answer_send(&a, c, 200, NULL, 0);
}

static void cluster_status(struct api_call *c) {
    struct api *api = c->api;
    struct raft_status s;
    node_raft_status(api->o.node, &s);
    struct api_answer a;
    api_answer_begin(&a);
    json_open(&a.w, '{');
    json_member_str(&a.w, "site_id", node_site(api->o.node));
    json_member_str(&a.w, "node_id", node_name(api->o.node));
    json_member_str(&a.w, "mode", api->o.mode);
    json_member_str(&a.w, "version", GREY_VERSION);
    json_member_str(&a.w, "role", own_role_name(&s));
    json_member_str(&a.w, "leader_id", node_leader_name(api->o.node));
    json_member_uint(&a.w, "term", s.term);
    json_member_uint(&a.w, "commit_index", s.commit_index);
    json_member_uint(&a.w, "applied_index", node_applied(api->o.node));
    json_member_bool(&a.w, "quorum", node_has_quorum(api->o.node));
    json_key(&a.w, "one_disk");
    if (s.role == RAFT_LEADER) {
        json_bool(&a.w, node_on_one_disk(api->o.node));
    } else {
        json_none(&a.w);
    }
    json_key(&a.w, "uptime_seconds");
    json_milli(&a.w, (int64_t)(loop_now_ms(api->o.loop) - api->started_ms));
    char time_text[32];
    now_format(node_site_time_ms(api->o.node), time_text);
    json_member_str(&a.w, "site_time", time_text);
    json_member_bool(&a.w, "removed", node_removed(api->o.node));
    json_key(&a.w, "members");
    put_members(api, &a.w);
    json_close(&a.w);
    api_answer_send(&a, c, 200, NULL, 0);
}

static void cluster_leader(struct api_call *c) {
    struct raft_status s;
    node_raft_status(c->api->o.node, &s);
    const struct raft_member *m = node_member(c->api->o.node, s.leader);
    if (m == NULL) {
        api_call_error(c, E_NO_QUORUM, "no leader is known");
        return;
    }
    struct api_answer a;
    api_answer_begin(&a);
    json_open(&a.w, '{');
    json_member_str(&a.w, "leader_id", m->node.text);
    json_member_str(&a.w, "addr", m->peer_address);
    json_member_str(&a.w, "http_addr", m->http_address);
    json_member_uint(&a.w, "term", s.term);
    json_close(&a.w);
    api_answer_send(&a, c, 200, NULL, 0);
}

static void raft_details(struct api_call *c) {
    struct node *n = c->api->o.node;
    struct raft_status s;
    node_raft_status(n, &s);
    uint8_t hash[DIGEST_BYTES];
    state_hash(node_state(n), hash);
    struct api_answer a;
    api_answer_begin(&a);
    json_open(&a.w, '{');
    json_member_str(&a.w, "state", s.role == RAFT_LEADER ? "Leader" : s.role == RAFT_FOLLOWER ? "Follower" : "Candidate");
    json_member_str(&a.w, "role", own_role_name(&s));
    json_member_id(&a.w, "raft_id", s.self);
    json_member_uint(&a.w, "term", s.term);
    json_member_id(&a.w, "voted_for", s.vote);
    json_member_str(&a.w, "leader_id", node_leader_name(n));
    json_member_uint(&a.w, "epoch", s.term);
    json_key(&a.w, "log");
    json_open(&a.w, '{');
    json_member_uint(&a.w, "first_index", s.base_index + 1);
    json_member_uint(&a.w, "last_index", s.last_index);
    json_member_uint(&a.w, "stored_index", s.stored_index);
    json_member_hex(&a.w, "chain_head", bytes_of(s.last_hash, DIGEST_BYTES));
    json_member_int(&a.w, "last_time_ms", s.last_time_ms);
    json_close(&a.w);
    struct seal seal;
    struct sealdb_signer signer;
    sealing_status(n, &seal, &signer);
    json_key(&a.w, "seal");
    if (seal.index == 0) {
        json_none(&a.w);
    } else {
        api_put_seal(&a.w, &seal, signer.node.text);
    }
    json_member_uint(&a.w, "commit_index", s.commit_index);
    json_member_uint(&a.w, "applied_index", node_applied(n));
    json_member_hex(&a.w, "state_hash", bytes_of(hash, DIGEST_BYTES));
    json_member_uint(&a.w, "members_index", s.members_index);
    json_member_uint(&a.w, "requests_waiting", node_requests_waiting(n));
    json_key(&a.w, "peers");
    json_open(&a.w, '[');
    for (uint32_t i = 0; i < s.peer_count && s.role == RAFT_LEADER; i++) {
        static const char *const modes[] = {"probe", "replicate", "snapshot"};
        const struct raft_member *m = raft_members_find(s.members, s.peers[i].id);
        json_open(&a.w, '{');
        json_member_str(&a.w, "id", m == NULL ? "?" : m->node.text);
        json_member_uint(&a.w, "match_index", s.peers[i].match_index);
        json_member_uint(&a.w, "next_index", s.peers[i].next_index);
        json_member_bool(&a.w, "active", s.peers[i].active);
        json_member_str(&a.w, "mode", s.peers[i].mode < 3 ? modes[s.peers[i].mode] : "?");
        json_close(&a.w);
    }
    json_close(&a.w);
    json_close(&a.w);
    api_answer_send(&a, c, 200, NULL, 0);
}

static void debug_network(struct api_call *c) {
    struct peers *p = node_peers(c->api->o.node);
    struct peers_link links[LIMIT_MEMBERS];
    size_t count = p == NULL ? 0 : peers_links(p, links, LIMIT_MEMBERS);
    struct api_answer a;
    api_answer_begin(&a);
    json_open(&a.w, '{');
    json_key(&a.w, "links");
    json_open(&a.w, '[');
    for (size_t i = 0; i < count; i++) {
        const struct peers_link *k = &links[i];
        json_open(&a.w, '{');
        json_member_str(&a.w, "peer_id", k->node.text);
        json_member_id(&a.w, "raft_id", k->id);
        json_member_str(&a.w, "addr", k->address);
        json_member_str(&a.w, "state", k->up ? "connected" : "disconnected");
        json_member_bool(&a.w, "tls", k->tls);
        json_key(&a.w, "last_seen_seconds");
        if (k->last_heard_ms == 0) {
            json_none(&a.w);
        } else {
            json_milli(&a.w, (int64_t)(loop_now_ms(c->api->o.loop) - k->last_heard_ms));
        }
        json_member_uint(&a.w, "received_bytes", k->in_bytes);
        json_member_uint(&a.w, "sent_bytes", k->out_bytes);
        json_member_uint(&a.w, "queued_bytes", k->output_bytes);
        json_member_str(&a.w, "last_error", k->last_error);
        json_close(&a.w);
    }
    json_close(&a.w);
    json_member_uint(&a.w, "dropped_messages", p == NULL ? 0 : peers_dropped(p));
    if (c->api->o.uplink != NULL) {
        struct uplink_facts facts;
        uplink_facts(c->api->o.uplink, &facts);
        json_key(&a.w, "core");
        json_open(&a.w, '{');
        api_link_put(&a.w, &facts);
        json_close(&a.w);
    }
    json_close(&a.w);
    api_answer_send(&a, c, 200, NULL, 0);
}

static void not_here_yet(struct api_call *c) {
    api_call_error(c, E_NOT_HERE_YET, "this call is part of a later version");
}

/* --- routes ------------------------------------------------------------------------------------------------------------------------- */

struct route {
    const char *method, *path; /* a path that ends in "/" takes what follows as its argument; "*" stands for it within one */
    void (*run)(struct api_call *c);
    enum access_role least; /* who may; docs/openapi.yaml says the same, and make docs-check compares */
};

static const struct route routes[] = {
    {"PUT", "/v1/kv/", api_kv_put, ROLE_OPERATOR},
    {"GET", "/v1/kv/", api_kv_get, ROLE_VIEWER},
    {"HEAD", "/v1/kv/", api_kv_get, ROLE_VIEWER},
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
    {"GET", "/health", health, ROLE_NONE},
    {"GET", "/health/live", health_live, ROLE_NONE},
    {"GET", "/health/ready", health_ready, ROLE_NONE},
    {"GET", "/health/detailed", health_detailed, ROLE_VIEWER},
    {"GET", "/metrics", metrics, ROLE_VIEWER},
    {"GET", "/v1/cluster/status", cluster_status, ROLE_VIEWER},
    {"GET", "/v1/cluster/members", cluster_members, ROLE_VIEWER},
    {"GET", "/v1/cluster/leader", cluster_leader, ROLE_VIEWER},
    {"GET", "/v1/raft/status", raft_details, ROLE_VIEWER},
    {"GET", "/v1/debug/raft", raft_details, ROLE_VIEWER},
    {"GET", "/v1/debug/network", debug_network, ROLE_VIEWER},
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
        (void)snprintf(a->source, sizeof a->source, "grey://%s", node_site(o->node));
    }
    return a;
}

void api_free(struct api *a) {
    if (a != NULL) {
        loop_timer_cancel(a->o.loop, &a->watch_timer);
        api_kv_watchers_free(a);
        api_logs_free(a);
        mem_free(a);
    }
}

void api_applied(struct api *a, const struct entry *e) {
    if (e->kind == ENTRY_KV && a->watcher_count > 0) {
        api_kv_applied(a, e);
    }
}
