#include "agent/node/node.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/node/node_core.h"
#include "include/grey/must.h"
#include "platform/keys.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/now.h"

#define TABLE_CLEAN_BYTES (512u * 1024u)
#define WINDOW_ENTRIES 1024u
#define PROMPT_LAG_ENTRIES 256u /* a gateway this close behind keeps up */
#define WINDOW_BYTES (1024u * 1024u)
#define PEER_OUTPUT_BYTES (16u * 1024u * 1024u)
#define CLOCK_SLEPT_MS 5u
#define RESERVE_BYTES (4u * 1024u * 1024u)

static struct metric leader_changes =
    METRIC_COUNTER("grey_consensus_leader_changes_total", "Changes of leadership seen by this node.");
static struct metric term_gauge = METRIC_GAUGE("grey_consensus_term", "Current term.");
static struct metric is_leader = METRIC_GAUGE("grey_consensus_is_leader", "1 on the leader of the site.");
static struct metric refused_messages =
    METRIC_COUNTER("grey_consensus_refused_messages_total", "Impossible Raft messages, ignored.");

static const char *role_name(uint64_t role) {
    static const char *const names[] = {"follower", "pre-candidate", "candidate", "leader"};
    return role < 4 ? names[role] : "?";
}

void node_fail(struct node *n, enum grey_error err, const char *detail) {
    if (!n->has_failed) {
        n->has_failed = true;
        log_error("node", "fail", "error=GREY-%d %s: %s", error_id(err), error_sentence(err), detail);
        n->events->failed(n->context, err, detail);
    }
}

/* --- outputs ----------------------------------------------------------------------------------------------------------------------- */

static void leading_ends(struct node *n) {
    if (n->leading) {
        n->leading = false;
        n->events->leading(n->context, false, n->leading_term);
    }
}

static void take_note(struct node *n, const struct raft_note *note) {
    switch (note->kind) {
    case RAFT_NOTE_ROLE:
        log_info("raft", "role", "role=%s term=%" PRIu64, role_name(note->a), note->b);
        n->role = (enum raft_role)note->a;
        metrics_set(&term_gauge, 0, (int64_t)note->b);
        metrics_set(&is_leader, 0, n->role == RAFT_LEADER);
        leading_ends(n);
        break;
    case RAFT_NOTE_LEADER: {
        const struct raft_member *m = node_member(n, note->a);
        log_info("raft", "leader", "leader=%s term=%" PRIu64, m != NULL ? m->node.text : note->a == 0 ? "none" : "?", note->b);
        if (note->a != 0 && note->a != n->leader) {
            metrics_add(&leader_changes, 0, 1);
        }
        if (note->a == 0 && n->leader != 0) {
            n->leaderless_ms = loop_now_ms(n->x.loop);
        }
        n->leader = note->a;
        requests_leader_changed(n);
        break;
    }
    case RAFT_NOTE_QUORUM_LOST:
        log_warn("raft", "quorum-lost", "no majority answered for an election time-out: leadership laid down");
        break;
    case RAFT_NOTE_DIVERGED: {
        char text[120];
        (void)snprintf(text, sizeof text, "the log of this node differs from its leader's at index %" PRIu64, note->a);
        node_fail(n, E_CORRUPT, text);
        break;
    }
    case RAFT_NOTE_REFUSED:
        metrics_add(&refused_messages, 0, 1);
        log_limited(LOG_WARN, "raft", "refuse", "message kind=%" PRIu64 " from=%016" PRIx64, note->a, note->b);
        break;
    case RAFT_NOTE_MEMBERS: {
        struct raft_status s;
        raft_status(n->raft, &s);
        log_info("raft", "members", "index=%" PRIu64 " count=%u", note->a, s.members->count);
        const struct raft_member *self = raft_members_find(s.members, n->self);
        if (self != NULL && self->witness != n->o.witness) { /* the site would count on data that is not here, or leave it unused */
            node_fail(n, E_CONFIG,
                      self->witness ? "the site has this node as a witness" : "the site has this node as one that holds data");
        }
        if (n->peers != NULL) {
            peers_set_members(n->peers, s.members);
            if (self != NULL) {
                peers_no_seeds(n->peers);
            }
        }
        break;
    }
    case RAFT_NOTE_SNAPSHOT_OFFERED:
        log_info("raft", "snapshot-offer", "to=%016" PRIx64 " index=%" PRIu64, note->a, note->b);
        break;
    case RAFT_NOTE_TRUNCATED:
        log_info("raft", "truncate", "from=%" PRIu64 " to=%" PRIu64, note->a, note->b);
        requests_truncated(n, note->a);
        break;
    }
}

enum grey_error node_step(struct node *n, struct raft_input *in, raft_index *proposed_index) {
    struct raft_output out;
    in->now_ms = now_monotonic_ms(); /* not the turn's: a lease is worth as much as this (raft.h) */
    in->wall_ms = now_wall_ms();
    if (n->has_failed) {
        return E_STOPPING;
    }
    enum grey_error err = raft_step(n->raft, in, &out);
    if (proposed_index != NULL) {
        *proposed_index = out.proposed_index;
    }
    /* The output is lent until the next step, and some deeds below may step again: those come last, from copies. */
    if (out.store_id > 0) {
        persist_store(n, &out);
    }
    for (uint32_t i = 0; i < out.send_count; i++) {
        persist_send(n, &out.sends[i]);
    }
    if (out.store_id > 0) {
        persist_begin(n);
    }
    if (out.commit_index > n->commit_index) {
        n->commit_index = out.commit_index;
    }
    for (uint32_t i = 0; i < out.read_count; i++) {
        requests_read_index(n, &out.reads[i]);
    }
    for (uint32_t i = 0; i < out.note_count; i++) {
        take_note(n, &out.notes[i]);
    }
    struct raft_load loads[LIMIT_MEMBERS];
    uint32_t load_count = out.load_count < LIMIT_MEMBERS ? out.load_count : LIMIT_MEMBERS;
    if (load_count > 0) {
        memcpy(loads, out.loads, load_count * sizeof *loads);
    }
    if (out.install) {
        struct raft_point point = out.install_point;
        catchup_start(n, out.install_from, &point);
    }
    for (uint32_t i = 0; i < load_count; i++) {
        persist_load(n, &loads[i]);
    }
    if (!n->turning) { /* the end of a turn looks for itself whether it left something */
        loop_again(n->x.loop);
    }
    return err;
}

void node_set_members(struct node *n, const struct raft_members *members, raft_index index) {
    n->quarantine.stale = true;
    struct builder b;
    builder_init(&b, 64u * 1024u);
    raft_members_encode(members, &b);
    struct blob *blob = builder_blob(&b);
    builder_free(&b);
    if (blob == NULL) {
        node_fail(n, E_NO_MEMORY, "membership");
        return;
    }
    blob_unref(n->members_blob);
    n->members_blob = blob;
    n->members = *members;
    n->members_index = index;
    membership_applied(n);
}

/* --- turns and time ---------------------------------------------------------------------------------------------------------------- */

static void arm_tick(struct node *n) {
    uint64_t deadline_ms = raft_deadline_ms(n->raft);
    if (n->tick.place == 0 || n->tick.deadline_ms != deadline_ms) {
        loop_timer_set(n->x.loop, &n->tick, deadline_ms);
    }
}

/* A machine that slept, or that did not let a leader run for an election time-out, should not trust its lease just then.  Both are
 * sound all the same while the clock counts on (it counts sleep as well); this is for machines whose clocks do not keep to that. */
void node_watch_clock(struct node *n) {
    uint64_t suspended_ms = now_suspended_ms();
    bool slept = suspended_ms > n->suspended_ms + CLOCK_SLEPT_MS;
    n->suspended_ms = suspended_ms;
    if (slept) {
        log_limited(LOG_WARN, "node", "clock", "this machine slept; no reads by lease for %u ms", RAFT_LEASE_PAUSE_MS);
        struct raft_input in = {.kind = RAFT_IN_CLOCK_UNSURE};
        (void)node_step(n, &in, NULL);
    }
}

static void watch_turns(struct node *n) {
    uint64_t now_ms = now_monotonic_ms();
    bool stood_still = n->role == RAFT_LEADER && now_ms - n->turn_ms > n->o.election_timeout_ms_min;
    if (stood_still) {
        log_limited(LOG_WARN, "node", "clock", "nothing ran here for %" PRIu64 " ms; no reads by lease for %u ms",
                    now_ms - n->turn_ms, RAFT_LEASE_PAUSE_MS);
        struct raft_input in = {.kind = RAFT_IN_CLOCK_UNSURE};
        (void)node_step(n, &in, NULL);
    }
    n->turn_ms = now_ms;
}

static void on_turn(void *context) {
    struct node *n = context;
    if (n->has_failed) {
        return;
    }
    watch_turns(n);
    node_watch_clock(n);
    n->turning = true;
    requests_turn(n);
    provisional_turn(n);
    apply_turn(n);
    if (n->o.witness) {
        witness_turn(n);
    } else {
        upkeep_turn(n);
    }
    if (n->peers != NULL) {
        peers_flush(n->peers);
    }
    arm_tick(n);
    n->turning = false;
    if (!n->fetching && !n->installing && state_applied(n->state) < n->commit_index) {
        loop_again(n->x.loop);
    }
}

static void on_tick(void *context) {
    struct node *n = context;
    struct raft_input in = {.kind = RAFT_IN_TICK};
    (void)node_step(n, &in, NULL);
}

/* --- events of the links --------------------------------------------------------------------------------------------------------------- */

/* --- life ---------------------------------------------------------------------------------------------------------------------------- */

static bool open_disk(struct node *n, struct sitelog_start *start, struct fault *f) {
    struct sitelog_options o = {.data_dir = n->o.data_dir,
                                .wal_dir = n->o.wal_dir,
                                .reserve_bytes = n->o.witness ? 0 : RESERVE_BYTES,
                                .window_entries = n->o.witness ? WITNESS_WINDOW_ENTRIES : WINDOW_ENTRIES,
                                .window_bytes = WINDOW_BYTES,
                                .witness = n->o.witness,
                                .rejoins = n->o.peer_listen_address != NULL,
                                .damaged = diskcheck_met,
                                .context = n,
                                .node = n->name.text,
                                .snapshots_kept = n->o.snapshots_kept};
    n->log = sitelog_open(n->x.loop, &o, n->table, start, f);
    if (n->log == NULL) {
        return false;
    }
    if (start->site.text[0] == 0) {
        return sitelog_claim(n->log, &n->name, &n->site, f) == E_OK;
    }
    if (strcmp(start->site.text, n->site.text) != 0 || strcmp(start->node.text, n->name.text) != 0) {
        (void)fault_set(f, E_CONFIG, "%s belongs to site %s node %s, not to site %s node %s", n->o.data_dir, start->site.text,
                        start->node.text, n->site.text, n->name.text);
        return false;
    }
    return true;
}

/* A directory that was a witness's lacks what a gateway must have, and the other way round the site would count on a disk that is not
 * one: neither changes into the other. */
static bool same_kind(const struct node *n, const struct raft_start *start, struct fault *f) {
    const struct raft_member *self = start->members == NULL ? NULL : raft_members_find(start->members, n->self);
    if (self == NULL || self->witness == n->o.witness) {
        return true;
    }
    (void)fault_set(f, E_CONFIG, "%s belongs to a %s; to be a %s this node wants an empty directory, and joins anew", n->o.data_dir,
                    self->witness ? "witness" : "gateway that holds data", n->o.witness ? "witness" : "gateway that holds data");
    return false;
}

static bool start_raft(struct node *n, const struct sitelog_start *start, struct fault *f) {
    if (!same_kind(n, &start->raft, f)) {
        return false;
    }
    witness_start(n, &start->raft);
    uint64_t seed = 0;
    keys_random(&seed, sizeof seed);
    n->raft_config = (struct raft_config){.self = n->self,
                                          .heartbeat_ms = n->o.heartbeat_ms,
                                          .election_timeout_ms_min = n->o.election_timeout_ms_min,
                                          .election_timeout_ms_max = n->o.election_timeout_ms_max,
                                          .window_entries = n->o.witness ? WITNESS_WINDOW_ENTRIES : WINDOW_ENTRIES,
                                          .witness = n->o.witness,
                                          .window_bytes = WINDOW_BYTES,
                                          .proposed_entries_max = 4096,
                                          .proposed_bytes_max = 8u * 1024u * 1024u,
                                          .message_bytes_max = 256u * 1024u,
                                          .inflight_messages_max = 32,
                                          .snapshot_retry_ms = 5000,
                                          .lease_reads = n->o.lease_reads,
                                          .clock_drift_percent = n->o.clock_drift_percent,
                                          .seed = seed};
    n->raft = raft_new(&n->raft_config, &start->raft, loop_now_ms(n->x.loop));
    if (n->raft == NULL) {
        (void)fault_set(f, E_CORRUPT, "log and state in %s contradict each other", n->o.data_dir);
        return false;
    }
    n->commit_index = start->raft.applied_index;
    if (start->raft.members != NULL) {
        node_set_members(n, start->raft.members, start->raft.members_index);
    }
    return true;
}

static bool start_peers(struct node *n, bool has_members, struct fault *f) {
    struct peers_options o = {.listen_address = n->o.peer_listen_address,
                              .advertise_address = n->peer_address,
                              .http_address = n->http_address,
                              .tls = n->o.tls,
                              .self = n->self,
                              .cluster_id = n->cluster_id,
                              .start_count = n->start_count,
                              .site = n->site.text,
                              .node = n->name.text,
                              .output_limit_bytes = PEER_OUTPUT_BYTES};
    if (n->o.peer_listen_address == NULL) {
        return true;
    }
    n->peers = peers_new(&n->x, &o, &inbox_events, n, f);
    if (n->peers == NULL) {
        return false;
    }
    struct raft_status s;
    raft_status(n->raft, &s);
    if (has_members) {
        peers_set_members(n->peers, s.members);
    }
    if (!has_members || raft_members_find(s.members, n->self) == NULL) {
        peers_set_seeds(n->peers, n->seeds);
    }
    return true;
}

static void copy_text(char *out, size_t out_size, const char *text) {
    (void)snprintf(out, out_size, "%s", text == NULL ? "" : text);
}

struct node *node_new(const struct conn_context *x, const struct node_options *o, const struct node_events *events, void *context,
                      struct fault *f) {
    metrics_register(&leader_changes);
    metrics_register(&term_gauge);
    metrics_register(&is_leader);
    metrics_register(&refused_messages);
    inbox_start();
    apply_start();
    diskwatch_start();
    diskcheck_start();
    struct sitelog_start start = {0};
    struct node *n = mem_new(1, sizeof *n);
    if (n == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "node");
        return NULL;
    }
    n->x = *x;
    n->o = *o;
    n->events = events;
    n->context = context;
    copy_text(n->name.text, sizeof n->name.text, o->node);
    copy_text(n->site.text, sizeof n->site.text, o->site);
    copy_text(n->peer_address, sizeof n->peer_address, o->peer_address);
    copy_text(n->http_address, sizeof n->http_address, o->http_address);
    copy_text(n->seeds, sizeof n->seeds, o->seeds);
    n->tick = (struct loop_timer){.fire = on_tick, .context = n};
    n->stalled_timer = (struct loop_timer){.fire = persist_again, .context = n};
    n->table = table_new(TABLE_CLEAN_BYTES);
    n->held = mem_new(HELD_SENDS_MAX, sizeof *n->held);
    bool ok = n->table != NULL && n->held != NULL && open_disk(n, &start, f) &&
              signer_open(n->o.data_dir, n->o.vault, &n->sealing.signer, f) == E_OK;
    if (ok) {
        n->self = start.self;
        n->cluster_id = start.cluster_id;
        n->start_count = start.start_count;
        if (start.rejoining && strlen(n->seeds) + strlen(start.peers) + 2 <= sizeof n->seeds) {
            (void)snprintf(n->seeds + strlen(n->seeds), sizeof n->seeds - strlen(n->seeds), "%s%s", n->seeds[0] == 0 ? "" : ",",
                           start.peers);
        }
        if (start.restored) {
            n->restored = start.applied;
            memcpy(n->restored_hash, start.state_hash, DIGEST_BYTES);
        }
        n->state = state_new(n->table, f);
        ok = n->state != NULL && start_raft(n, &start, f) && start_peers(n, start.raft.members != NULL, f);
    } else if (n->table == NULL || n->held == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "node");
    }
    struct seal newest = start.seal;
    if (!ok) {
        sitelog_start_free(&start);
        node_free(n);
        return NULL;
    }
    n->turn_ms = now_monotonic_ms();
    n->suspended_ms = now_suspended_ms();
    requests_start(n);
    provisional_start(n);
    upkeep_start(n);
    sealing_start(n, &newest);
    foreman_start(n);
    quarantine_start(n);
    loop_hook(x->loop, on_turn, n);
    membership_start(n);
    arm_tick(n);
    membership_decide(n, &start);
    sitelog_start_free(&start);
    log_info("node", "start", "site=%s node=%s id=%016" PRIx64 " start=%" PRIu64 " applied=%" PRIu64 " peers=%s", n->site.text,
             n->name.text, n->self, n->start_count, node_applied(n), o->peer_listen_address == NULL ? "none" : n->peer_address);
    return n;
}

void node_leave_leadership(struct node *n) {
    struct raft_status s;
    raft_status(n->raft, &s);
    n->stopping = true;
    if (s.role == RAFT_LEADER && s.peer_count > 0) {
        struct raft_input in = {.kind = RAFT_IN_TRANSFER, .peer = quarantine_successor(n)};
        (void)node_step(n, &in, NULL);
    }
}

void node_free(struct node *n) {
    if (n == NULL) {
        return;
    }
    n->has_failed = true; /* nothing is stepped or applied any more */
    loop_timer_cancel(n->x.loop, &n->tick);
    loop_timer_cancel(n->x.loop, &n->duty);
    loop_timer_cancel(n->x.loop, &n->stalled_timer);
    while (n->stalled_first != NULL) {
        struct sitelog_store *job = n->stalled_first;
        n->stalled_first = (struct sitelog_store *)(void *)job->job.next;
        for (uint32_t i = 0; i < job->entry_count; i++) {
            blob_unref(job->entries[i].payload);
        }
        mem_free(job->entries);
        blob_unref(job->members);
        builder_free(&job->wants);
        mem_free(job);
    }
    if (n->state != NULL) {
        loop_hook_remove(n->x.loop, on_turn, n);
        requests_stop(n);
        provisional_stop(n);
        sealing_stop(n);
        foreman_stop(n);
        clockset_stop(n);
        diskwear_stop(n);
        catchup_stop(n);
        upkeep_stop(n);
    }
    if (n->log != NULL) {
        sitelog_close(n->log);
    }
    peers_free(n->peers);
    raft_free(n->raft);
    state_free(n->state);
    table_free(n->table);
    blob_unref(n->members_blob);
    mem_free(n->held);
    mem_free(n);
}

/* --- questions ------------------------------------------------------------------------------------------------------------------------ */

struct state *node_state(struct node *n) {
    return n->state;
}

struct table *node_table(struct node *n) {
    return n->table;
}

struct sitelog *node_log(struct node *n) {
    return n->log;
}

struct peers *node_peers(struct node *n) {
    return n->peers;
}

void node_raft_status(const struct node *n, struct raft_status *s) {
    raft_status(n->raft, s);
}

const struct raft_member *node_member(const struct node *n, raft_id id) {
    struct raft_status s;
    raft_status(n->raft, &s);
    return id == 0 ? NULL : raft_members_find(s.members, id);
}

const char *node_leader_name(const struct node *n) {
    const struct raft_member *m = node_member(n, n->leader);
    return m == NULL ? "" : m->node.text;
}

raft_index node_applied(const struct node *n) {
    return n->o.witness ? n->witness.applied : state_applied(n->state);
}

bool node_is_witness(const struct node *n) {
    return n->o.witness;
}

bool node_on_one_disk(const struct node *n) {
    struct raft_status s;
    raft_status(n->raft, &s);
    if (s.role != RAFT_LEADER) {
        return false;
    }
    for (uint32_t i = 0; i < s.peer_count; i++) {
        const struct raft_peer_status *p = &s.peers[i];
        const struct raft_member *m = raft_members_find(s.members, p->id);
        if (m != NULL && !m->witness && (m->voter || m->voter_old) && p->active &&
            p->match_index + PROMPT_LAG_ENTRIES >= s.commit_index) {
            return false;
        }
    }
    return true;
}

bool node_has_quorum(const struct node *n) {
    struct raft_status s;
    raft_status(n->raft, &s);
    return s.leader != 0 && loop_now_ms(n->x.loop) <= s.quorum_contact_ms + 2u * n->o.election_timeout_ms_max;
}

const char *node_name(const struct node *n) {
    return n->name.text;
}

const char *node_site(const struct node *n) {
    return n->site.text;
}

uint64_t node_cluster_id(const struct node *n) {
    return n->cluster_id;
}

uint32_t node_requests_waiting(const struct node *n) {
    return n->requests.count;
}

int64_t node_site_time_ms(const struct node *n) {
    return raft_log_time_ms(n->raft, loop_now_ms(n->x.loop));
}

void node_check_certificates(struct node *n) {
    if (n->peers != NULL) {
        peers_check_certificates(n->peers);
    }
}
