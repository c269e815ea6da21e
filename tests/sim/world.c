#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "include/grey/must.h"

const char *const world_count_names[COUNT_KINDS] = {"crashes",
                                                    "crashes before store",
                                                    "crashes before send",
                                                    "crashes amid sends",
                                                    "restarts",
                                                    "partitions",
                                                    "one-way cuts",
                                                    "pauses",
                                                    "slow disks",
                                                    "links down",
                                                    "messages lost",
                                                    "messages duplicated",
                                                    "messages late",
                                                    "transfers",
                                                    "wiped nodes",
                                                    "learners added",
                                                    "promotions",
                                                    "removals",
                                                    "joint changes",
                                                    "replacements",
                                                    "compactions",
                                                    "snapshots installed",
                                                    "snapshots failed",
                                                    "loads",
                                                    "loads failed",
                                                    "truncations",
                                                    "witnesses rebased",
                                                    "elections won",
                                                    "quorums lost",
                                                    "entries committed",
                                                    "proposals acknowledged",
                                                    "reads",
                                                    "reads by lease",
                                                    "reads failed",
                                                    "frames corrupted",
                                                    "payloads corrupted",
                                                    "wall clock jumps",
                                                    "clock rate changes",
                                                    "clock jumps",
                                                    "writes lost in crashes",
                                                    "full disks",
                                                    "fsync errors",
                                                    "bits flipped on disk",
                                                    "damages found at start",
                                                    "older disks put back",
                                                    "steps"};

static const uint64_t MS = 1000;
bool world_quiet, world_long;
uint32_t world_drift_ppm = 5000; /* either way: two clocks run apart by the 1% that leases allow for, at most */

uint64_t world_draw(struct world *w, uint64_t bound) {
    uint64_t z = (w->random += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (z ^ (z >> 31)) % bound;
}

bool world_chance(struct world *w, uint32_t permille) {
    return world_draw(w, 1000) < permille;
}

uint64_t world_between(struct world *w, uint64_t low, uint64_t high) {
    return low + world_draw(w, high - low + 1);
}

void world_fail(struct world *w, const char *format, ...) {
    if (w->violation == NULL) {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(w->violation_text, sizeof w->violation_text, format, args);
        va_end(args);
        w->violation = w->violation_text;
    }
}

void world_trace(struct world *w, const char *format, ...) {
    if (w->trace) {
        va_list args;
        va_start(args, format);
        printf("%10.3f ms  ", (double)w->now_us / 1000.0);
        (void)vprintf(format, args);
        printf("\n");
        va_end(args);
    }
}

void world_mix(struct world *w, uint64_t value) {
    w->hash = (w->hash ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    w->hash ^= w->hash >> 29;
}

uint64_t world_sum(uint64_t sum, const struct entry *e) {
    uint64_t part;
    memcpy(&part, e->hash, sizeof part);
    return (sum ^ part) * UINT64_C(0x100000001b3);
}

static void *world_alloc(size_t count, size_t size) {
    void *p = calloc(count > 0 ? count : 1, size);
    must(p != NULL);
    return p;
}

/* --- Events: a binary heap by time, then by order of making ------------------------------------------------------------------------ */

static bool event_before(const struct event *a, const struct event *b) {
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

static void event_push(struct world *w, struct event e) {
    if (w->heap_count == w->heap_capacity) {
        w->heap_capacity = w->heap_capacity == 0 ? 256 : w->heap_capacity * 2;
        w->heap = realloc(w->heap, w->heap_capacity * sizeof *w->heap);
        must(w->heap != NULL);
    }
    e.order = ++w->order;
    uint32_t at = w->heap_count++;
    while (at > 0 && event_before(&e, &w->heap[(at - 1) / 2])) {
        w->heap[at] = w->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    w->heap[at] = e;
}

static struct event event_pop(struct world *w) {
    struct event top = w->heap[0], last = w->heap[--w->heap_count];
    uint32_t at = 0;
    for (uint32_t child = 1; child < w->heap_count; child = 2 * at + 1) {
        if (child + 1 < w->heap_count && event_before(&w->heap[child + 1], &w->heap[child])) {
            child++;
        }
        if (!event_before(&w->heap[child], &last)) {
            break;
        }
        w->heap[at] = w->heap[child];
        at = child;
    }
    w->heap[at] = last;
    return top;
}

void world_later(struct world *w, uint64_t delay_us, enum event_kind kind, struct node *n) {
    event_push(w, (struct event){.at_us = w->now_us + delay_us,
                                 .kind = kind,
                                 .node = n == NULL ? 0 : (uint32_t)(n - w->nodes),
                                 .generation = n == NULL ? 0 : n->generation});
}

/* --- Messages ------------------------------------------------------------------------------------------------------------------ */

/* What the wire carries: the fields that count for the kind, entries without digests and hashes. */
static struct raft_message *message_copy(const struct raft_message *m) {
    struct raft_message *copy = world_alloc(1, sizeof *copy);
    *copy = (struct raft_message){.kind = m->kind,
                                  .from = m->from,
                                  .to = m->to,
                                  .term = m->term,
                                  .index = m->index,
                                  .log_term = m->log_term,
                                  .hint_index = m->hint_index,
                                  .commit_index = m->commit_index,
                                  .round = m->round,
                                  .refused = m->refused,
                                  .transfer = m->transfer,
                                  .headers = m->headers};
    if (m->kind == RAFT_APPEND) {
        memcpy(copy->hash, m->hash, DIGEST_BYTES);
        memcpy(copy->last_hash, m->last_hash, DIGEST_BYTES);
        struct entry *entries = m->entry_count > 0 ? world_alloc(m->entry_count, sizeof *entries) : NULL;
        for (uint32_t i = 0; i < m->entry_count; i++) {
            entries[i] = m->entries[i];
            if (m->headers) {
                entry_strip(&entries[i]);
            }
            blob_ref(entries[i].payload);
            if (entries[i].stripped_bytes == 0) {
                memset(entries[i].digest, 0, DIGEST_BYTES);
            }
            memset(entries[i].hash, 0, DIGEST_BYTES);
        }
        copy->entries = entries;
        copy->entry_count = m->entry_count;
    } else if (m->kind == RAFT_SNAPSHOT) {
        copy->point = m->point;
        if (m->members != NULL) {
            struct raft_members *members = world_alloc(1, sizeof *members);
            *members = *m->members;
            copy->members = members;
            copy->members_index = m->members_index;
        }
    }
    return copy;
}

static void message_free(struct raft_message *m) {
    if (m != NULL) {
        for (uint32_t i = 0; i < m->entry_count; i++) {
            blob_unref(m->entries[i].payload);
        }
        free((void *)(uintptr_t)m->entries);
        free((void *)(uintptr_t)m->members);
        free(m);
    }
}

/* One bit of one payload, as a fault in memory does it: no check of the wire notices. */
static bool message_corrupt(struct world *w, struct raft_message *m) {
    if (m->kind != RAFT_APPEND || m->entry_count == 0) {
        return false;
    }
    struct entry *e = (struct entry *)(uintptr_t)&m->entries[world_draw(w, m->entry_count)];
    size_t size = blob_bytes(e->payload).size;
    if (size == 0) {
        return false;
    }
    struct blob *changed = blob_new(size);
    must(changed != NULL);
    memcpy(changed->data, e->payload->data, size);
    changed->data[world_draw(w, size)] ^= (uint8_t)(1u << world_draw(w, 8));
    blob_unref(e->payload);
    e->payload = changed;
    w->counts[COUNT_CORRUPTED_PAYLOAD]++;
    return true;
}

static void message_post(struct world *w, struct node *from, struct raft_message *m) {
    check_release(w, from, m);
    world_mix(w, m->from << 56 ^ m->to << 48 ^ (uint64_t)m->kind << 40 ^ m->term << 24 ^ m->index ^ (uint64_t)m->refused << 63);
    struct node *to = world_node(w, m->to);
    if (w->trace) {
        static const char *const names[] = {
            "?",         "PRE_VOTE",        "PRE_VOTE_REPLY", "VOTE",         "VOTE_REPLY", "APPEND",     "APPEND_REPLY",
            "HEARTBEAT", "HEARTBEAT_REPLY", "SNAPSHOT",       "READ_REQUEST", "READ_REPLY", "TIMEOUT_NOW"};
        world_trace(w,
                    "%" PRIu64 " -> %" PRIu64 " %s term=%" PRIu64 " index=%" PRIu64 " log_term=%" PRIu64 " hint=%" PRIu64
                    " commit=%" PRIu64 " n=%u%s",
                    m->from, m->to, names[m->kind], m->term, m->index, m->log_term, m->hint_index, m->commit_index, m->entry_count,
                    m->refused ? " refused" : "");
    }
    bool cut = to == NULL || w->cut[from - w->nodes][to - w->nodes];
    if (cut || world_chance(w, w->loss_permille)) {
        w->counts[COUNT_LOST]++;
        message_free(m);
        return;
    }
    if (world_chance(w, w->corrupt_permille) && !world_chance(w, 30)) { /* the record layer's check drops it */
        w->counts[COUNT_CORRUPTED_FRAME]++;
        message_free(m);
        return;
    }
    bool corrupted = w->corrupt_permille > 0 && world_chance(w, 1) && message_corrupt(w, m);
    uint32_t copies = 1;
    if (world_chance(w, w->duplicate_permille)) {
        w->counts[COUNT_DUPLICATED]++;
        copies++;
    }
    for (uint32_t i = 0; i < copies; i++) {
        uint64_t delay_us = world_between(w, w->delay_us_min, w->delay_us_max);
        if (world_chance(w, w->late_permille)) {
            w->counts[COUNT_REORDERED]++;
            delay_us += world_draw(w, 2000 * MS);
        }
        event_push(w, (struct event){.at_us = w->now_us + delay_us,
                                     .kind = EVENT_DELIVER,
                                     .node = (uint32_t)(to - w->nodes),
                                     .message = i + 1 < copies ? message_copy(m) : m,
                                     .corrupted = corrupted});
    }
}

/* --- Disk ---------------------------------------------------------------------------------------------------------------------- */

raft_index disk_last(const struct disk *d) {
    return d->base.index + d->count;
}

const struct entry *disk_entry(const struct disk *d, raft_index index) {
    return index > d->base.index && index <= disk_last(d) ? &d->entries[index - d->base.index - 1] : NULL;
}

void disk_members(const struct disk *d, raft_index at, struct raft_members *members, raft_index *index) {
    *members = d->base_members;
    *index = d->base_members_index;
    for (raft_index i = at; i > d->base.index; i--) {
        const struct entry *e = disk_entry(d, i);
        if (e->kind == ENTRY_CONFIG) {
            must(raft_members_decode(blob_bytes(e->payload), members) == E_OK);
            *index = i;
            return;
        }
    }
}

static void disk_cut(struct disk *d, raft_index from) {
    while (d->count > 0 && disk_last(d) >= from) {
        blob_unref(d->entries[--d->count].payload);
    }
}

static void disk_drop(struct disk *d, raft_index until) { /* entries up to here */
    uint32_t n = until >= disk_last(d) ? d->count : (uint32_t)(until - d->base.index);
    for (uint32_t i = 0; i < n; i++) {
        blob_unref(d->entries[i].payload);
    }
    memmove(d->entries, d->entries + n, (d->count - n) * sizeof *d->entries);
    d->count -= n;
}

static void disk_clear(struct disk *d) {
    disk_cut(d, d->base.index + 1);
    free(d->entries);
    *d = (struct disk){0};
}

static bool disk_damaged(const struct disk *d) {
    uint8_t hash[DIGEST_BYTES];
    memcpy(hash, d->base.hash, sizeof hash);
    for (uint32_t i = 0; i < d->count; i++) {
        struct entry e = d->entries[i];
        entry_seal(&e, hash);
        if (memcmp(e.hash, d->entries[i].hash, DIGEST_BYTES) != 0) {
            return true;
        }
        memcpy(hash, e.hash, DIGEST_BYTES);
    }
    return false;
}

static void disk_take(struct world *w, struct disk *d, const struct unit *u) {
    if (u->vote_set) {
        d->term = u->term;
        d->vote = u->vote;
    }
    if (u->rebase) {
        disk_cut(d, d->base.index + 1);
        d->base = u->base;
        d->base_members = u->base_members;
        d->base_members_index = u->base_members_index;
        d->applied = u->base.index;
        d->sum = d->base_sum = u->sum;
    }
    if (u->truncate_from > 0) {
        disk_cut(d, u->truncate_from > d->base.index ? u->truncate_from : d->base.index + 1);
    }
    for (uint32_t i = 0; i < u->count; i++) {
        if (u->entries[i].index <= d->base.index) {
            continue;
        }
        if (u->entries[i].index != disk_last(d) + 1) {
            world_fail(w, "gap on disk: entry %" PRIu64 " after %" PRIu64, u->entries[i].index, disk_last(d));
            return;
        }
        if (d->count == d->capacity) {
            d->capacity = d->capacity == 0 ? 64 : d->capacity * 2;
            d->entries = realloc(d->entries, d->capacity * sizeof *d->entries);
            must(d->entries != NULL);
        }
        d->entries[d->count] = u->entries[i];
        blob_ref(d->entries[d->count++].payload);
    }
    if (u->applied > d->applied) {
        d->applied = u->applied;
        d->sum = u->sum;
        if (u->applied > disk_last(d)) {
            world_fail(w, "applied %" PRIu64 " is durable, the log ends at %" PRIu64, u->applied, disk_last(d));
        }
    }
}

static void unit_free(struct unit *u) {
    for (uint32_t i = 0; i < u->count; i++) {
        blob_unref(u->entries[i].payload);
    }
    free(u->entries);
    free(u);
}

static struct unit *unit_shift(struct node *n) {
    struct unit *u = n->units;
    n->units = u->next;
    if (n->units == NULL) {
        n->units_last = NULL;
    }
    return u;
}

static void unit_queue(struct world *w, struct node *n, struct unit *u) {
    uint64_t us = n->slow_us > w->now_us ? world_between(w, 50 * MS, 800 * MS) : world_between(w, w->disk_us_min, w->disk_us_max);
    uint64_t from = n->disk_free_us > w->now_us && world_chance(w, 700) ? n->disk_free_us : w->now_us;
    u->done_us = n->disk_free_us = from + us > n->disk_free_us ? from + us : n->disk_free_us; /* in order; some share a sync */
    if (n->units_last != NULL) {
        n->units_last->next = u;
    } else {
        n->units = u;
    }
    n->units_last = u;
    world_later(w, u->done_us - w->now_us, EVENT_STORED, n);
}

/* --- Nodes --------------------------------------------------------------------------------------------------------------------- */

uint64_t world_clock_ms(const struct world *w, const struct node *n) {
    int64_t us = (int64_t)w->now_us;
    return (uint64_t)((n->clock_offset_us + us + us * n->drift_ppm / 1000000) / 1000);
}

static int32_t node_draw_drift(struct world *w) {
    return (int32_t)(world_chance(w, 500) ? world_drift_ppm : world_draw(w, world_drift_ppm + 1)) * (world_chance(w, 500) ? 1 : -1);
}

void world_clock_rate(struct world *w, struct node *n) {
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

static void node_start(struct world *w, struct node *n) {
    struct disk *d = &n->disk;
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

static void node_forget(struct node *n) { /* all that lives in memory only */
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
    node_lose(w, n, false);
}

void world_fsync_error(struct world *w, struct node *n) {
    world_trace(w, "fsync error at %" PRIu64, n->id);
    w->counts[COUNT_FSYNC_ERROR]++;
    node_lose(w, n, true);
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
    n->old = n->disk;
    n->old.entries = world_alloc(n->disk.count, sizeof *n->old.entries);
    n->old.capacity = n->disk.count;
    for (uint32_t i = 0; i < n->disk.count; i++) {
        n->old.entries[i] = n->disk.entries[i];
        blob_ref(n->old.entries[i].payload);
    }
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
    if (!n->up && !n->wiped) {
        world_trace(w, "start of %" PRIu64, n->id);
        w->counts[COUNT_RESTART]++;
        node_start(w, n);
    }
}

static void claim_add(struct claim **claims, uint32_t *count, uint32_t *capacity, struct claim c) {
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
        u->entries = world_alloc(out->store_last - out->store_first + 1, sizeof *u->entries);
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
static void node_stored(struct world *w, struct node *n, bool all) {
    uint64_t store_id = 0;
    bool burst = world_chance(w, 100); /* several units reported as one */
    while (n->units != NULL && (all || n->units->done_us <= w->now_us || (burst && world_chance(w, 500)))) {
        struct unit *u = unit_shift(n);
        disk_take(w, &n->disk, u);
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

static void node_loaded(struct world *w, struct node *n, const struct raft_load *load) {
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

static void node_installed(struct world *w, struct node *n) {
    struct node *from = world_node(w, n->install_from);
    struct raft_input in = {.kind = RAFT_IN_SNAPSHOT_FAILED};
    n->install_from = 0;
    if (from == NULL || !from->up || from->disk.base.index < n->install_point.index || world_chance(w, 100)) {
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

static void node_compact(struct world *w, struct node *n) {
    struct disk *d = &n->disk;
    if (d->applied <= d->base.index + w->compact_entries || n->install_from != 0 || w->calm) {
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

/* --- Clients ------------------------------------------------------------------------------------------------------------------- */

void world_propose(struct world *w, struct node *n) {
    struct raft_proposal proposals[4];
    uint32_t count = world_quiet ? 1 : (uint32_t)world_between(w, 1, 4);
    for (uint32_t i = 0; i < count; i++) {
        size_t size = !world_quiet && world_chance(w, 20) ? 4096 : 8 + world_draw(w, 64);
        struct blob *payload = blob_new(size);
        must(payload != NULL);
        memset(payload->data, (int)w->value, size);
        bytes_put_be64(payload->data, ++w->value);
        proposals[i] = (struct raft_proposal){.kind = ENTRY_KV, .schema = ENTRY_SCHEMA, .payload = payload};
    }
    struct raft_status s;
    raft_status(n->raft, &s);
    struct raft_input in = {.kind = RAFT_IN_PROPOSE, .proposals = proposals, .proposal_count = count};
    raft_index index = 0;
    uint64_t generation = n->generation;
    enum grey_error err = world_step(w, n, &in, &index);
    world_trace(w, "%" PRIu64 " proposes %u at %" PRIu64 ": error %d, commit %" PRIu64 ", stored %" PRIu64 ", applied %" PRIu64,
                n->id, count, index, (int)err, s.commit_index, s.stored_index, s.applied_index);
    for (uint32_t i = 0; i < count; i++) {
        if (err == E_NOT_LEADER || err == E_LOG_FULL || err == E_NO_MEMORY) {
            check_refused(w, w->value - i);
        }
        if (err == E_OK && n->up && n->generation == generation) {
            claim_add(&n->proposals, &n->proposal_count, &n->proposal_capacity,
                      (struct claim){.index = index + i, .term = s.term, .context = w->calm});
        }
        blob_unref(proposals[i].payload);
    }
}

static void client_act(struct world *w) {
    struct node *n = &w->nodes[world_draw(w, w->node_count)];
    if (!n->up || n->paused_us > w->now_us) {
        return;
    }
    if (world_chance(w, w->leases ? 980 : 300)) {
        struct raft_input in = {.kind = RAFT_IN_READ, .context = ++w->value};
        claim_add(&n->reads, &n->read_count, &n->read_capacity, (struct claim){.context = w->value, .floor = w->acknowledged});
        (void)world_step(w, n, &in, NULL);
        return;
    }
    struct node *leader = world_chance(w, 800) ? world_leader(w) : n;
    if (leader != NULL && leader->paused_us <= w->now_us) {
        world_propose(w, leader);
    }
    if (n->up && world_chance(w, 200)) {
        node_compact(w, n);
    }
}

/* --- The run ------------------------------------------------------------------------------------------------------------------- */

static void world_handle(struct world *w, struct event *e) {
    struct node *n = &w->nodes[e->node];
    bool of_node = e->kind != EVENT_CLIENT && e->kind != EVENT_CHAOS && e->kind != EVENT_RESTART;
    if (of_node && n->up && n->paused_us > w->now_us && (e->kind == EVENT_DELIVER || e->generation == n->generation)) {
        e->at_us = n->paused_us;
        event_push(w, *e);
        if (e->kind == EVENT_TICK && n->tick_us != 0) {
            n->tick_us = n->paused_us;
        }
        return;
    }
    bool alive = n->up && (e->kind == EVENT_DELIVER || e->generation == n->generation);
    switch (e->kind) {
    case EVENT_DELIVER:
        if (alive) {
            struct raft_input in = {.kind = RAFT_IN_MESSAGE, .message = e->message};
            w->corrupted = e->corrupted;
            (void)world_step(w, n, &in, NULL);
            w->corrupted = false;
        }
        message_free(e->message);
        break;
    case EVENT_TICK:
        if (alive && e->at_us == n->tick_us) {
            n->tick_us = 0;
            struct raft_input in = {.kind = RAFT_IN_TICK};
            (void)world_step(w, n, &in, NULL);
            check_tick(w, n);
        }
        break;
    case EVENT_STORED:
        if (alive) {
            node_stored(w, n, false);
        }
        break;
    case EVENT_LOADED:
        if (alive) {
            node_loaded(w, n, &e->load);
        }
        break;
    case EVENT_INSTALLED:
        if (alive && n->install_from != 0) {
            node_installed(w, n);
        }
        break;
    case EVENT_RESTART:
        if (e->generation == n->generation) {
            world_restart(w, n);
        }
        break;
    case EVENT_FALL:
        if (alive && !w->calm) {
            world_crash(w, n);
            world_later(w, n->quick ? world_between(w, 1, 50) * MS : world_between(w, 20, 500) * MS, EVENT_RESTART, n);
            n->quick = false;
        }
        break;
    case EVENT_CHANGE:
        if (alive && !w->calm) {
            chaos_hurry(w);
        }
        break;
    case EVENT_JUMP:
        if (alive && !w->calm) {
            chaos_jump(w, n);
        }
        break;
    case EVENT_CLIENT:
        client_act(w);
        world_later(w, world_between(w, 1, 2 * (uint64_t)w->client_ms) * MS, EVENT_CLIENT, NULL);
        break;
    case EVENT_CHAOS:
        if (!w->calm) {
            /* Each step draws from its own numbers, so that any of them can be left out and the others stay as they are. */
            uint64_t random = w->random;
            uint32_t step = w->chaos_steps++;
            w->random = (w->seed * UINT64_C(0xd1342543de82ef95)) ^ ((uint64_t)step + 1) * UINT64_C(0xaf251af3b0f025b5);
            world_later(w, world_between(w, 1, 2 * (uint64_t)w->chaos_ms) * MS, EVENT_CHAOS, NULL);
            if (step >= w->chaos_mask_count || w->chaos_masked[step] == 0) {
                world_trace(w, "chaos step %u", step);
                chaos_act(w);
            }
            w->random = random;
        }
        break;
    }
}

void world_run_until(struct world *w, uint64_t until_us) {
    while (w->violation == NULL && w->heap_count > 0 && w->heap[0].at_us <= until_us) {
        struct event e = event_pop(w);
        w->now_us = e.at_us;
        world_handle(w, &e);
    }
    w->now_us = until_us;
}

static void world_draw_character(struct world *w) {
    static const uint32_t windows[] = {0, 4, 16, 64, 1024};
    w->config = (struct raft_config){.heartbeat_ms = 150,
                                     .election_timeout_ms_min = 300,
                                     .election_timeout_ms_max = 500,
                                     .window_entries = windows[world_draw(w, 5)],
                                     .window_bytes = (uint32_t)world_between(w, 1000, 100000),
                                     .proposed_entries_max = (uint32_t)world_between(w, 16, 256),
                                     .proposed_bytes_max = (uint32_t)world_between(w, 8192, 65536),
                                     .message_bytes_max = (uint32_t)world_between(w, 256, 8192),
                                     .inflight_messages_max = (uint32_t)world_between(w, 1, 16),
                                     .snapshot_retry_ms = 1000,
                                     .lease_reads = world_chance(w, 700),
                                     .clock_drift_percent = 1};
    bool harsh = world_chance(w, 500);
    w->loss_permille = harsh ? (uint32_t)world_draw(w, 300) : (uint32_t)world_draw(w, 20);
    w->duplicate_permille = harsh ? (uint32_t)world_draw(w, 500) : (uint32_t)world_draw(w, 20);
    w->late_permille = harsh ? (uint32_t)world_draw(w, 100) : (uint32_t)world_draw(w, 5);
    w->corrupt_permille = world_chance(w, 500) ? (uint32_t)world_draw(w, 30) : 0;
    w->delay_us_min = 100;
    w->delay_us_max = (uint32_t)world_between(w, 200, harsh ? 40000 : 5000);
    w->disk_us_min = 100;
    w->disk_us_max = (uint32_t)world_between(w, 200, 30000);
    w->chaos_ms = (uint32_t)world_between(w, 50, 3000);
    w->client_ms = world_chance(w, 300) ? (uint32_t)world_between(w, 5, 60) : (uint32_t)world_between(w, 60, 300);
    w->compact_entries = (uint32_t)world_between(w, 10, 400);
    w->short_reigns = world_chance(w, 250);
    if (w->short_reigns) {
        w->config.message_bytes_max = 1; /* entries of former terms travel alone */
        w->loss_permille = (uint32_t)world_between(w, 0, 300);
        w->delay_us_max = (uint32_t)world_between(w, 10000, 40000);
        w->disk_us_max = 2000;
        w->client_ms = 5;
        w->chaos_ms = 5000;
    }
    w->changes = !w->short_reigns && world_chance(w, 600);
    w->leases = !w->short_reigns && !w->changes && world_chance(w, 500);
    if (w->leases) {
        w->config.lease_reads = true;
        w->loss_permille = w->loss_permille < 20 ? w->loss_permille : 20;
        w->late_permille = w->late_permille < 5 ? w->late_permille : 5;
        w->delay_us_max = w->disk_us_max = 3000;
        w->client_ms = 10;
        w->chaos_ms = 1000;
    }
    w->restless = w->changes && world_chance(w, 400);
    if (w->restless) {
        w->chaos_ms = (uint32_t)world_between(w, 50, 400);
        w->loss_permille = w->loss_permille < 100 ? w->loss_permille : 100;
    }
    w->wipes = w->changes && world_chance(w, 400);
    w->voters_min = w->wipes ? 3 : 1;
    if (world_long) { /* a fault every half a minute or so, a request or so each second: days go by */
        w->chaos_ms *= 20;
        w->client_ms *= 10;
    }
    if (world_quiet) {
        w->loss_permille = w->duplicate_permille = w->late_permille = w->corrupt_permille = 0;
        w->delay_us_max = 1000;
        w->disk_us_max = 2000;
        w->client_ms = 100; /* ten requests a second */
        w->chaos_ms = UINT32_MAX / 4;
        w->config.window_entries = 1024;
        w->config.message_bytes_max = 65536;
        w->leases = w->changes = w->restless = w->wipes = w->short_reigns = false;
        w->voters_min = 3;
    }
}

struct world *world_new(uint64_t seed, bool trace) {
    struct world *w = world_alloc(1, sizeof *w);
    w->seed = seed;
    w->random = seed * UINT64_C(0x2545f4914f6cdd1d) + 1;
    w->trace = trace;
    w->check = check_new();
    world_draw_character(w);
    static const uint32_t sizes[] = {1, 2, 3, 3, 3, 3, 5, 5};
    uint32_t voters = sizes[world_draw(w, 8)];
    voters = w->leases ? 3 : voters;
    voters = voters < w->voters_min ? w->voters_min : voters;
    bool witness = voters == 3 && !w->wipes && world_chance(w, 500);
    struct raft_members *members = world_alloc(1, sizeof *members);
    for (uint32_t i = 0; i < voters; i++) {
        struct raft_member m = {.id = w->nodes[world_add(w)].id, .voter = true, .witness = witness && i == 2};
        w->nodes[i].witness = m.witness;
        (void)snprintf(m.node.text, sizeof m.node.text, "node%u", i);
        must(raft_members_put(members, &m) == E_OK);
    }
    for (uint32_t i = 0; i < voters; i++) {
        w->nodes[i].disk.base_members = *members; /* --bootstrap */
        node_start(w, &w->nodes[i]);
    }
    free(members);
    world_later(w, 1, EVENT_CLIENT, NULL);
    world_later(w, 2000 * MS, EVENT_CHAOS, NULL);
    return w;
}

void world_free(struct world *w) {
    for (uint32_t i = 0; i < w->node_count; i++) {
        struct node *n = &w->nodes[i];
        while (n->units != NULL) {
            unit_free(unit_shift(n));
        }
        node_forget(n);
        disk_clear(&n->disk);
        disk_clear(&n->old);
        free(n->held);
        free(n->proposals);
        free(n->reads);
        free(n->voted);
    }
    for (uint32_t i = 0; i < w->heap_count; i++) {
        message_free(w->heap[i].message);
    }
    free(w->heap);
    check_free(w->check);
    free(w);
}
