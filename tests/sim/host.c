/* A member as its owner runs it: starts, steps, stores, sends, applies, falls. */
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "include/grey/must.h"

static const uint64_t MS = 1000;

uint64_t world_clock_ms(const struct world *w, const struct node *n) {
    int64_t us = (int64_t)(n->clock_stopped_us > w->now_us ? n->clock_stopped_us : w->now_us);
    return (uint64_t)((n->clock_offset_us + us + us * n->drift_ppm / 1000000) / 1000);
}

static int32_t node_draw_drift(struct world *w) {
    return (int32_t)(world_chance(w, 500) ? world_drift_ppm : world_draw(w, world_drift_ppm + 1)) * (world_chance(w, 500) ? 1 : -1);
}

void world_clock_rate(struct world *w, struct node *n) {
    if (n->clock_stopped_us > w->now_us) {
        return;
    }
    int64_t us = (int64_t)w->now_us, before = us * n->drift_ppm / 1000000;
    n->drift_ppm = node_draw_drift(w);
    n->clock_offset_us += before - us * n->drift_ppm / 1000000;
}

struct node *world_node(struct world *w, raft_id id) {
    for (uint32_t i = 0; i < w->node_count; i++) {
        if (w->nodes[i].id == id) {
            return &w->nodes[i];
        }
    }
    return NULL;
}

struct node *world_leader(struct world *w) {
    struct node *leader = NULL;
    raft_term term = 0;
    for (uint32_t i = 0; i < w->node_count; i++) {
        struct raft_status s;
        if (w->nodes[i].up) {
            raft_status(w->nodes[i].raft, &s);
            if (s.role == RAFT_LEADER && s.term > term) {
                leader = &w->nodes[i];
                term = s.term;
            }
        }
    }
    return leader;
}

static void node_schedule_tick(struct world *w, struct node *n) {
    uint64_t deadline_ms = raft_deadline_ms(n->raft), now_ms = world_clock_ms(w, n);
    uint64_t wait_us = deadline_ms > now_ms ? (deadline_ms - now_ms) * MS : 0;
    uint64_t at_us = w->now_us + wait_us * 1000000 / (uint64_t)(1000000 + n->drift_ppm) + 1; /* its timers run as its clock does */
    if (n->tick_us == 0 || at_us < n->tick_us) {
        n->tick_us = at_us;
        world_later(w, at_us - w->now_us, EVENT_TICK, n);
    }
}

void node_start(struct world *w, struct node *n) {
    struct disk *d = &n->disk;
    if (n->ill) {
        patient_start(w, n);
        return;
    }
    if (n->suspect && disk_damaged(d)) { /* in the middle or at the end: every entry was durable, so none may be missed */
        w->counts[COUNT_DAMAGE_FOUND]++;
        world_trace(w, "node %" PRIu64 " finds damage and does not come back under its id", n->id);
        n->wiped = true;
        return;
    }
    if (n->rolled_back) { /* found as DECISIONS 12 says; it comes back as a learner with another id */
        n->wiped = true;
        return;
    }
    struct raft_members *members = world_alloc(1, sizeof *members);
    struct raft_start start = {.term = d->term, .vote = d->vote, .base = d->base, .applied_index = d->applied};
    disk_members(d, d->applied, members, &start.members_index);
    start.members = members->count > 0 ? members : NULL;
    raft_index window = world_between(w, d->base.index, d->applied);
    start.window_base = d->base;
    const struct entry *before = disk_entry(d, window);
    if (before != NULL) {
        start.window_base = (struct raft_point){.index = before->index, .term = before->term, .time_ms = before->time_ms};
        memcpy(start.window_base.hash, before->hash, DIGEST_BYTES);
    }
    start.entries = d->entries + (window - d->base.index);
    start.entry_count = (uint32_t)(disk_last(d) - window);
    struct raft_config config = w->config;
    config.self = n->id;
    config.witness = n->witness;
    config.seed = world_draw(w, UINT64_MAX);
    n->raft = raft_new(&config, &start, world_clock_ms(w, n));
    free(members);
    if (n->raft == NULL) {
        world_fail(w, "node %" PRIu64 " cannot start", n->id);
        return;
    }
    raft_set_reluctant(n->raft, n->reluctant);
    n->up = true;
    n->generation++;
    n->tick_us = 0;
    n->applied = d->applied;
    n->sum = d->sum;
    n->disk_free_us = n->paused_us = 0;
    n->install_from = 0;
    check_restart(w, n);
    node_schedule_tick(w, n);
}

uint32_t world_add(struct world *w) {
    must(w->node_count < WORLD_NODES_MAX);
    struct node *n = &w->nodes[w->node_count];
    *n = (struct node){.id = 1 + w->node_count,
                       .clock_offset_us = (int64_t)world_draw(w, 1000000000),
                       .wall_offset_ms = (int64_t)world_draw(w, 7200000),
                       .drift_ppm = node_draw_drift(w),
                       .held = world_alloc(WORLD_SENDS_HELD_MAX, sizeof(struct held_send))};
    return w->node_count++;
}

void node_forget(struct node *n) { /* all that lives in memory only */
    raft_free(n->raft);
    n->raft = NULL;
    n->up = false;
    for (uint32_t i = 0; i < n->held_count; i++) {
        message_free(n->held[i].message);
    }
    n->held_count = 0;
    n->proposal_count = n->read_count = 0;
    n->crash_armed = 0;
}

/* A process ends: of what was not reported as durable a part is on the disk all the same, in order; a unit is there or not, since its
 * transaction is.  all: nothing of it. */
static void node_lose(struct world *w, struct node *n, bool all) {
    uint32_t kept = 0, total = 0;
    for (struct unit *u = n->units; u != NULL; u = u->next) {
        total++;
    }
    kept = all ? 0 : (uint32_t)world_draw(w, total + 1); /* written but not reported */
    w->counts[COUNT_WRITES_LOST] += total - kept;
    while (n->units != NULL) {
        struct unit *u = unit_shift(n);
        if (kept > 0) {
            kept--;
            disk_take(w, &n->disk, u);
        }
        unit_free(u);
    }
    node_forget(n);
}

void world_crash(struct world *w, struct node *n) {
    world_trace(w, "crash of %" PRIu64, n->id);
    w->counts[COUNT_CRASH]++;
    w->counts[COUNT_CRASH_INSTALLING] += n->install_from != 0;
    node_lose(w, n, false);
}

const struct disk *world_disk(const struct node *n) {
    return n->ill ? &n->sound : &n->disk;
}

void world_fsync_error(struct world *w, struct node *n) {
    world_trace(w, "fsync error at %" PRIu64, n->id);
    w->counts[COUNT_FSYNC_ERROR]++;
    node_lose(w, n, true);
}

void world_wipe(struct world *w, struct node *n) {
    if (n->up) {
        world_crash(w, n);
    }
    world_trace(w, "node %" PRIu64 " is wiped", n->id);
    w->counts[COUNT_WIPE]++;
    disk_clear(&n->disk);
    n->wiped = true; /* its id went with the directory: whoever starts there draws another (chaos_replace) */
}

void world_flip(struct world *w, struct node *n) {
    struct disk *d = &n->disk;
    if (n->up || d->count == 0) {
        return;
    }
    struct entry *e = &d->entries[world_draw(w, d->count)];
    struct blob *payload = e->payload;
    size_t size = blob_bytes(payload).size;
    if (size > 0) {
        struct blob *changed = blob_new(size);
        must(changed != NULL);
        memcpy(changed->data, payload->data, size);
        changed->data[world_draw(w, size)] ^= (uint8_t)(1u << world_draw(w, 8));
        blob_unref(payload);
        e->payload = changed;
    } else {
        e->digest[0] ^= e->stripped_bytes > 0;
        e->epoch ^= e->stripped_bytes == 0;
    }
    n->suspect = true;
    w->counts[COUNT_BIT_FLIPPED]++;
    world_trace(w, "a bit of entry %" PRIu64 " on the disk of %" PRIu64 " is flipped", e->index, n->id);
}

void world_keep_disk(struct world *w, struct node *n) {
    (void)w;
    disk_clear(&n->old);
    disk_copy(&n->old, &n->disk);
    n->old_kept = true;
}

void world_put_back(struct world *w, struct node *n) {
    if (n->up || !n->old_kept) {
        return;
    }
    world_trace(w, "an older disk is put back into %" PRIu64, n->id);
    w->counts[COUNT_OLD_DISK]++;
    disk_clear(&n->disk);
    n->disk = n->old;
    n->old = (struct disk){0};
    n->old_kept = false;
    n->rolled_back = true;
}

void world_restart(struct world *w, struct node *n) {
    if (!n->up && !n->wiped && n->patient == NULL) {
        world_trace(w, "start of %" PRIu64, n->id);
        w->counts[COUNT_RESTART]++;
        node_start(w, n);
    }
}

void claim_add(struct claim **claims, uint32_t *count, uint32_t *capacity, struct claim c) {
    if (*count == *capacity) {
        *capacity = *capacity == 0 ? 16 : *capacity * 2;
        *claims = realloc(*claims, *capacity * sizeof **claims);
        must(*claims != NULL);
    }
    (*claims)[(*count)++] = c;
}

static void node_acknowledge(struct world *w, struct node *n, const struct entry *e) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n->proposal_count; i++) {
        struct claim c = n->proposals[i];
        if (c.index != e->index) {
            n->proposals[kept++] = c;
        } else if (c.term == e->term) {
            w->counts[COUNT_ACKNOWLEDGED]++;
            w->acknowledged = e->index > w->acknowledged ? e->index : w->acknowledged;
            if (w->calm && c.context > 0 && e->index > w->calm_acknowledged) {
                w->calm_acknowledged = e->index;
            }
        }
    }
    n->proposal_count = kept;
}

static void node_serve_reads(struct world *w, struct node *n) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n->read_count; i++) {
        struct claim c = n->reads[i];
        if (c.term == 1 && c.index <= n->applied) { /* answered: the client sees the state as it is now */
            w->acknowledged = n->applied > w->acknowledged ? n->applied : w->acknowledged;
        } else {
            n->reads[kept++] = c;
        }
    }
    n->read_count = kept;
}

/* The owner applies, now all, now a part; and notes down durably how far it is, after what was stored before. */
static void node_apply(struct world *w, struct node *n, raft_index commit) {
    raft_index until = world_chance(w, 900) ? commit : world_between(w, n->applied, commit);
    if (until <= n->applied) {
        return;
    }
    while (n->applied < until) {
        const struct entry *e = raft_entry(n->raft, n->applied + 1);
        if (e == NULL) {
            world_fail(w, "node %" PRIu64 ": entry %" PRIu64 " is committed and not in memory", n->id, n->applied + 1);
            return;
        }
        check_apply(w, n, e);
        n->applied++;
        node_acknowledge(w, n, e);
    }
    node_serve_reads(w, n);
    if (world_chance(w, 100)) {
        struct unit *u = world_alloc(1, sizeof *u);
        u->applied = n->applied;
        u->sum = n->sum;
        unit_queue(w, n, u);
    }
    struct raft_input in = {.kind = RAFT_IN_APPLIED, .index = n->applied};
    (void)world_step(w, n, &in, NULL);
}

static void node_store(struct world *w, struct node *n, const struct raft_output *out) {
    struct unit *u = world_alloc(1, sizeof *u);
    *u = (struct unit){.store_id = out->store_id,
                       .vote_set = out->store_vote,
                       .term = out->term,
                       .vote = out->vote,
                       .truncate_from = out->truncate_from};
    if (out->rebase != NULL) {
        w->counts[COUNT_REBASED]++;
        u->rebase = true;
        u->base = *out->rebase;
        u->base_members = *out->rebase_members;
        u->base_members_index = out->rebase_members_index;
        n->applied = out->rebase->index;
        n->sum = u->sum = check_sum(w, n->applied);
        n->proposal_count = 0;
    }
    if (out->store_last >= out->store_first) {
        u->entries = world_alloc((size_t)(out->store_last - out->store_first + 1), sizeof *u->entries);
        for (raft_index i = out->store_first; i <= out->store_last; i++) {
            const struct entry *e = raft_entry(n->raft, i);
            if (e == NULL) {
                world_fail(w, "node %" PRIu64 ": entry %" PRIu64 " is to be stored and not in memory", n->id, i);
                break;
            }
            if (n->witness && e->kind != ENTRY_CONFIG && e->payload != NULL) {
                world_fail(w, "witness %" PRIu64 " stores the payload of entry %" PRIu64, n->id, i);
            }
            u->entries[u->count] = *e;
            blob_ref(u->entries[u->count++].payload);
        }
    }
    unit_queue(w, n, u);
}

static void node_send(struct world *w, struct node *n, const struct raft_output *out, uint32_t limit) {
    for (uint32_t i = 0; i < out->send_count && i < limit; i++) {
        const struct raft_send *s = &out->sends[i];
        if (s->after_store_id == 0) {
            message_post(w, n, message_copy(&s->message));
        } else if (n->held_count < WORLD_SENDS_HELD_MAX) {
            n->held[n->held_count++] = (struct held_send){message_copy(&s->message), s->after_store_id};
        }
    }
}

static void node_take_reads(struct world *w, struct node *n, const struct raft_output *out) {
    for (uint32_t i = 0; i < out->read_count; i++) {
        const struct raft_read *read = &out->reads[i];
        for (uint32_t j = 0; j < n->read_count; j++) {
            struct claim *c = &n->reads[j];
            if (c->context != read->context) {
                continue;
            }
            if (read->err != E_OK) {
                w->counts[COUNT_READ_FAILED]++;
                *c = n->reads[--n->read_count];
            } else {
                w->counts[COUNT_READ]++;
                w->counts[COUNT_READ_LEASED] += read->lease;
                if (read->index < c->floor) {
                    world_fail(w, "L6: node %" PRIu64 " reads at %" PRIu64 ", clients knew %" PRIu64, n->id, read->index, c->floor);
                }
                c->index = read->index;
                c->term = 1;
            }
            break;
        }
    }
}

static void node_take_notes(struct world *w, struct node *n, const struct raft_output *out) {
    for (uint32_t i = 0; i < out->note_count; i++) {
        const struct raft_note *note = &out->notes[i];
        world_trace(w, "note of %" PRIu64 ": kind=%d a=%" PRIu64 " b=%" PRIu64, n->id, (int)note->kind, note->a, note->b);
        w->counts[COUNT_TRUNCATED] += note->kind == RAFT_NOTE_TRUNCATED;
        w->counts[COUNT_QUORUM_LOST] += note->kind == RAFT_NOTE_QUORUM_LOST;
        if (note->kind == RAFT_NOTE_ROLE && note->a == RAFT_LEADER) {
            w->counts[COUNT_ELECTED]++;
            if (w->restless && !w->calm && world_chance(w, 500)) {
                world_later(w, 1 + world_draw(w, 2 * (uint64_t)w->delay_us_max), EVENT_CHANGE, n);
            }
            if (w->short_reigns && !w->calm && world_chance(w, 900)) {
                world_later(w, world_draw(w, 4 * (uint64_t)w->delay_us_max), EVENT_FALL, n);
            }
        }
        bool expected = note->kind == RAFT_NOTE_REFUSED && note->a == RAFT_APPEND && w->corrupted;
        if (!expected && (note->kind == RAFT_NOTE_DIVERGED || note->kind == RAFT_NOTE_REFUSED)) {
            world_fail(w, "node %" PRIu64 ": note %d a=%" PRIu64 " b=%" PRIu64 " among honest members", n->id, (int)note->kind,
                       note->a, note->b);
        }
    }
}

enum grey_error world_step(struct world *w, struct node *n, struct raft_input *in, raft_index *proposed) {
    struct raft_output out;
    in->now_ms = n->tick_now_ms = world_clock_ms(w, n);
    in->wall_ms = INT64_C(1800000000000) + n->wall_offset_ms + (int64_t)(w->now_us / 1000);
    w->counts[COUNT_STEPS]++;
    enum grey_error err = raft_step(n->raft, in, &out);
    if (proposed != NULL) {
        *proposed = out.proposed_index;
    }
    node_take_notes(w, n, &out);
    world_mix(w, w->now_us ^ n->id << 56 ^ (uint64_t)in->kind << 48 ^ out.store_id << 24 ^ out.commit_index);
    check_step(w, n, &out);
    if (w->violation != NULL) {
        return err;
    }
    int crash = out.store_id > 0 || out.send_count > 0 ? n->crash_armed : 0;
    if (crash == COUNT_CRASH_BEFORE_STORE) {
        w->counts[crash]++;
        world_crash(w, n);
        return E_OUTCOME_UNKNOWN;
    }
    if (out.store_id > 0) {
        node_store(w, n, &out);
    }
    node_send(w, n, &out,
              crash == COUNT_CRASH_BEFORE_SEND ? 0
              : crash != 0                     ? (uint32_t)world_draw(w, out.send_count + 1)
                                               : UINT32_MAX);
    if (crash != 0) {
        w->counts[crash]++;
        world_crash(w, n);
        return E_OUTCOME_UNKNOWN;
    }
    node_take_reads(w, n, &out);
    for (uint32_t i = 0; i < out.load_count; i++) {
        event_push(w, (struct event){.at_us = w->now_us + world_between(w, 1 * MS, 20 * MS),
                                     .kind = EVENT_LOADED,
                                     .node = (uint32_t)(n - w->nodes),
                                     .generation = n->generation,
                                     .load = out.loads[i]});
    }
    if (out.install) {
        n->install_from = out.install_from;
        n->install_point = out.install_point;
        world_later(w, world_between(w, 5 * MS, 600 * MS), EVENT_INSTALLED, n);
    }
    if (out.commit_index > n->applied && n->install_from == 0) {
        node_apply(w, n, out.commit_index);
    }
    node_serve_reads(w, n);
    if (n->up && w->violation == NULL) {
        node_schedule_tick(w, n);
    }
    return err;
}

/* Everything written so far, in order; then what waited for it may leave. */
void node_stored(struct world *w, struct node *n, bool all) {
    uint64_t store_id = 0;
    bool burst = world_chance(w, 100); /* several units reported as one */
    while (n->units != NULL && (all || n->units->done_us <= w->now_us || (burst && world_chance(w, 500)))) {
        struct unit *u = unit_shift(n);
        disk_take(w, &n->disk, u);
        if (u->count > 0 && n->below.count > 0) {
            disk_clear(&n->below);
        }
        store_id = u->store_id > 0 ? u->store_id : store_id;
        unit_free(u);
    }
    if (store_id == 0) {
        return;
    }
    if (n->crash_armed == COUNT_CRASH_BEFORE_SEND) { /* durable, and nobody knows */
        w->counts[COUNT_CRASH_BEFORE_SEND]++;
        world_crash(w, n);
        return;
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n->held_count; i++) {
        if (n->held[i].after_store_id <= store_id) {
            message_post(w, n, n->held[i].message);
        } else {
            n->held[kept++] = n->held[i];
        }
    }
    n->held_count = kept;
    struct raft_input in = {.kind = RAFT_IN_STORED, .store_id = store_id};
    (void)world_step(w, n, &in, NULL);
}

void node_loaded(struct world *w, struct node *n, const struct raft_load *load) {
    const struct disk *d = &n->disk;
    struct raft_input in = {.kind = RAFT_IN_LOADED, .peer = load->peer, .load_index = load->from};
    if (load->from > d->base.index && (w->calm || !world_chance(w, 20))) {
        if (load->from > disk_last(d)) {
            world_fail(w, "node %" PRIu64 " loads %" PRIu64 ", the disk ends at %" PRIu64, n->id, load->from, disk_last(d));
            return;
        }
        uint64_t bytes = 0;
        in.entries = disk_entry(d, load->from);
        do {
            bytes += blob_bytes(in.entries[in.entry_count++].payload).size;
        } while (load->from + in.entry_count <= disk_last(d) && bytes < load->bytes_max);
        w->counts[COUNT_LOADED]++;
    } else {
        w->counts[COUNT_LOAD_FAILED]++;
    }
    (void)world_step(w, n, &in, NULL);
}

void node_installed(struct world *w, struct node *n) {
    struct node *from = world_node(w, n->install_from);
    struct raft_input in = {.kind = RAFT_IN_SNAPSHOT_FAILED};
    n->install_from = 0;
    if (from == NULL || !from->up || from->disk.base.index != n->install_point.index || world_chance(w, 100)) {
        w->counts[COUNT_INSTALL_FAILED]++;
        (void)world_step(w, n, &in, NULL);
        return;
    }
    uint64_t generation = n->generation;
    node_stored(w, n, true); /* the storage works in order */
    if (!n->up || n->generation != generation || w->violation != NULL) {
        return;
    }
    struct disk *d = &n->disk;
    const struct raft_point point = from->disk.base;
    const struct entry *here = disk_entry(d, point.index);
    bool goes_on = here != NULL && memcmp(here->hash, point.hash, DIGEST_BYTES) == 0;
    if (goes_on) {
        disk_drop(d, point.index);
    } else {
        disk_cut(d, d->base.index + 1);
    }
    disk_cut(&n->below, n->applied + 1); /* what is not certain goes with the log that it was of (logdb_replace) */
    d->base = point;
    d->base_members = from->disk.base_members;
    d->base_members_index = from->disk.base_members_index;
    d->applied = n->applied = point.index;
    d->sum = n->sum = d->base_sum = from->disk.base_sum;
    w->counts[COUNT_INSTALLED]++;
    in = (struct raft_input){
        .kind = RAFT_IN_SNAPSHOT_DONE, .point = &point, .members = &d->base_members, .index = d->base_members_index};
    if (world_step(w, n, &in, NULL) == E_BAD_MESSAGE) {
        world_fail(w, "node %" PRIu64 " refuses the snapshot at %" PRIu64, n->id, point.index);
    }
    n->proposal_count = 0;
}

void node_compact(struct world *w, struct node *n) {
    struct disk *d = &n->disk;
    if (d->applied <= d->base.index + w->compact_entries || n->install_from != 0 || w->calm ||
        patient_count(w) > 0) { /* logs keep more than the state of a neighbour lags behind */
        return;
    }
    raft_index at = d->applied - world_draw(w, w->compact_entries);
    const struct entry *e = disk_entry(d, at);
    struct raft_point point = {.index = at, .term = e->term, .time_ms = e->time_ms};
    memcpy(point.hash, e->hash, DIGEST_BYTES);
    disk_members(d, at, &d->base_members, &d->base_members_index);
    for (raft_index i = d->base.index + 1; i <= at; i++) {
        d->base_sum = world_sum(d->base_sum, disk_entry(d, i));
    }
    disk_drop(d, at);
    d->base = point;
    w->counts[COUNT_COMPACTED]++;
    struct raft_input in = {.kind = RAFT_IN_COMPACTED, .point = &point};
    (void)world_step(w, n, &in, NULL);
}
