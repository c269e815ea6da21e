/* GET /health, /health/live, /health/ready and /health/detailed: how this gateway is, and with it what the site can still decide. */
#include <string.h>

#include "agent/api/api_core.h"
#include "agent/run/boardwatch.h"
#include "agent/work/scheduler.h"
#include "platform/now.h"

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

/* What both answers are made of. */
struct picture {
    enum health consensus, link, storage, board, worst;
    struct uplink_facts link_facts;
    struct disk_facts disk;
    struct boardwatch_facts board_facts;
};

static void take_picture(struct api *a, struct picture *p) {
    p->consensus = consensus_health(a);
    p->link = link_health(a, &p->link_facts);
    p->storage = storage_health(a, &p->disk);
    p->board = board_health(a, &p->board_facts);
    p->worst = worst_of(worst_of(p->consensus, p->board), worst_of(p->storage, p->link));
}

void api_health(struct api_call *c) {
    struct picture p;
    struct api_answer a;
    take_picture(c->api, &p);
    api_answer_begin(&a);
    json_open(&a.w, '{');
    json_member_str(&a.w, "status", health_names[p.worst]);
    json_close(&a.w);
    api_answer_send(&a, c, p.worst == UNHEALTHY ? 503 : 200, NULL, 0);
}

void api_health_live(struct api_call *c) {
    char why[160];
    bool alive = c->api->o.alive(c->api->o.alive_context, why, sizeof why);
    http_reply(c->q, alive ? 200 : 503, "application/json",
               bytes_str(alive ? "{\"status\":\"healthy\"}\n" : "{\"status\":\"unhealthy\"}\n"), NULL, 0);
    mem_free(c);
}

void api_health_ready(struct api_call *c) {
    bool ready = node_has_quorum(c->api->o.node);
    http_reply(c->q, ready ? 200 : 503, "application/json",
               bytes_str(ready ? "{\"status\":\"healthy\"}\n" : "{\"status\":\"unhealthy\"}\n"), NULL, 0);
    mem_free(c);
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

static void put_scheduler(struct json_writer *w, const struct scheduler *tasks) {
    json_member_open(w, "scheduler", '{');
    json_member_str(w, "status", "healthy");
    json_member_uint(w, "active_tasks", tasks == NULL ? 0 : tasks->held_count);
    json_member_uint(w, "waiting_tasks", tasks == NULL ? 0 : lanes_waiting(&tasks->lanes));
    json_close(w);
}

static void put_network(struct json_writer *w, struct peers *peers) {
    struct peers_link links[LIMIT_MEMBERS];
    size_t up = 0, count = peers == NULL ? 0 : peers_links(peers, links, LIMIT_MEMBERS);
    for (size_t i = 0; i < count; i++) {
        up += links[i].up;
    }
    json_member_open(w, "network", '{');
    json_member_str(w, "status", up < count ? "degraded" : "healthy");
    json_member_uint(w, "connected_peers", up);
    json_member_uint(w, "known_peers", count);
    json_close(w);
}

static void put_clock(struct json_writer *w, struct node *n, enum raft_role role) {
    int64_t site_ms = node_site_time_ms(n), off_ms = now_machine_ms() - site_ms;
    if (role != RAFT_LEADER && off_ms > 0) {
        off_ms = 0; /* a follower knows the time of the last entry only, and the site may be idle since */
    }
    bool unsure = site_ms > 0 && (off_ms > 60000 || off_ms < -60000);
    json_member_open(w, "clock", '{');
    json_member_str(w, "status", unsure ? "degraded" : "healthy");
    json_member_milli(w, "offset_from_site_seconds", site_ms > 0 ? off_ms : 0);
    json_member_str(w, "source", node_clock_source(n));
    json_close(w);
}

void api_health_detailed(struct api_call *c) {
    struct api *api = c->api;
    struct picture p;
    struct raft_status s;
    take_picture(api, &p);
    node_raft_status(api->o.node, &s);
    struct sitelog_usage usage;
    sitelog_usage(node_log(api->o.node), &usage);
    struct api_answer a;
    api_answer_begin(&a);
    json_open(&a.w, '{');
    json_member_str(&a.w, "status", health_names[p.worst]);
    json_member_open(&a.w, "checks", '{');
    json_member_open(&a.w, "consensus", '{');
    json_member_str(&a.w, "status", health_names[p.consensus]);
    json_member_str(&a.w, "role", api_own_role(&s));
    json_member_uint(&a.w, "term", s.term);
    json_member_str(&a.w, "leader_id", node_leader_name(api->o.node));
    json_close(&a.w);
    json_member_open(&a.w, "storage", '{');
    json_member_str(&a.w, "status", health_names[p.storage]);
    json_member_uint(&a.w, "used_bytes", usage.log_bytes + usage.state_bytes + usage.wal_bytes + usage.snapshot_bytes);
    json_member_uint(&a.w, "log_bytes", usage.log_bytes + usage.wal_bytes);
    json_member_uint(&a.w, "jobs_waiting", usage.jobs_waiting);
    json_member_uint(&a.w, "last_store_us", usage.store_us_last);
    put_storage_check(&a.w, &p.disk);
    put_wear(&a.w, node_wear(api->o.node));
    json_close(&a.w);
    json_key(&a.w, "board");
    put_board(&a.w, health_names[p.board], &p.board_facts);
    put_scheduler(&a.w, state_scheduler(node_state(api->o.node)));
    put_network(&a.w, node_peers(api->o.node));
    json_member_open(&a.w, "federation", '{');
    json_member_str(&a.w, "status", api->o.uplink == NULL ? "disabled" : health_names[p.link]);
    json_member_uint(&a.w, "queue_bytes", pending_bytes(api));
    json_key(&a.w, "last_contact_seconds");
    if (p.link_facts.last_contact_unix_ms == 0) {
        json_none(&a.w);
    } else {
        json_milli(&a.w, now_wall_ms() - p.link_facts.last_contact_unix_ms);
    }
    json_close(&a.w);
    put_clock(&a.w, api->o.node, s.role);
    json_key(&a.w, "attestation");
    api_attest_health(api, &a.w);
    json_close(&a.w);
    json_close(&a.w);
    api_answer_send(&a, c, p.worst == UNHEALTHY ? 503 : 200, NULL, 0);
}
