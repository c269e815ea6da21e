#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "include/grey/must.h"

const char *const world_deed_names[DEED_KINDS] = {"steps of chaos", "planned falls", "fates of messages", "requests"};

#define CALM_CLIENT_MS 50u /* in the calm: often enough that something is committed, and so seldom that whoever lags catches up */

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

bool world_deed_begin(struct world *w, enum deed_kind kind, uint64_t *random) {
    struct deeds *d = &w->deeds;
    uint32_t number = d->count[kind]++;
    if (d->tally != NULL) {
        d->tally->count[kind] = d->count[kind];
        d->tally->now_us = w->now_us;
        d->tally->calm = w->calm;
    }
    *random = w->random;
    w->random = (w->seed * UINT64_C(0xd1342543de82ef95)) ^ (((uint64_t)number << 2 | kind) + 1) * UINT64_C(0xaf251af3b0f025b5);
    return number >= d->mask_count[kind] || d->masked[kind][number] == 0;
}

void world_deed_end(struct world *w, uint64_t random) {
    w->random = random;
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

void *world_alloc(size_t count, size_t size) {
    void *p = calloc(count > 0 ? count : 1, size);
    must(p != NULL);
    return p;
}

/* --- Events: a binary heap by time, then by order of making ------------------------------------------------------------------------ */

static bool event_before(const struct event *a, const struct event *b) {
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

void event_push(struct world *w, struct event e) {
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

/* --- The run ------------------------------------------------------------------------------------------------------------------- */

static void handle_plan(struct world *w, enum event_kind kind, struct node *n) {
    uint64_t random;
    if (!world_deed_begin(w, DEED_FALL, &random)) {
        n->quick = false;
    } else if (kind == EVENT_FALL) {
        world_crash(w, n);
        world_later(w, n->quick ? world_between(w, 1, 50) * MS : world_between(w, 20, 500) * MS, EVENT_RESTART, n);
        n->quick = false;
    } else if (kind == EVENT_CHANGE) {
        chaos_hurry(w);
    } else {
        chaos_jump(w, n);
    }
    world_deed_end(w, random);
}

static void world_handle(struct world *w, struct event *e) {
    struct node *n = &w->nodes[e->node];
    bool of_node = e->kind != EVENT_CLIENT && e->kind != EVENT_CHAOS && e->kind != EVENT_RESTART;
    bool mail = e->kind == EVENT_DELIVER || e->kind == EVENT_LETTER;
    if (of_node && n->up && n->paused_us > w->now_us && (mail || e->generation == n->generation)) {
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
    case EVENT_LETTER:
        letter_deliver(w, n, e->letter);
        letter_free(e->letter);
        break;
    case EVENT_ASK:
        if (n->patient != NULL && e->generation == n->generation) {
            patient_ask(w, n);
        }
        break;
    case EVENT_FALL:
    case EVENT_CHANGE:
    case EVENT_JUMP:
        if (alive && !w->calm) {
            handle_plan(w, e->kind, n);
        }
        break;
    case EVENT_CLIENT: {
        uint64_t random;
        bool wanted = world_deed_begin(w, DEED_CLIENT, &random);
        w->calm_requests += w->calm && wanted;
        uint64_t pause_ms = w->calm ? CALM_CLIENT_MS : w->client_ms;
        world_later(w, world_between(w, 1, 2 * pause_ms) * MS, EVENT_CLIENT, NULL);
        if (wanted && !w->hushed) {
            client_act(w);
        }
        world_deed_end(w, random);
        break;
    }
    case EVENT_CHAOS:
        if (!w->calm) {
            uint64_t random;
            uint32_t step = w->deeds.count[DEED_CHAOS];
            bool wanted = world_deed_begin(w, DEED_CHAOS, &random);
            world_later(w, world_between(w, 1, 2 * (uint64_t)w->chaos_ms) * MS, EVENT_CHAOS, NULL);
            if (wanted) {
                world_trace(w, "chaos step %u", step);
                chaos_act(w);
            }
            world_deed_end(w, random);
        }
        break;
    }
}

bool world_run_one(struct world *w, uint64_t until_us) {
    if (w->violation != NULL || w->heap_count == 0 || w->heap[0].at_us > until_us) {
        return false;
    }
    struct event e = event_pop(w);
    w->now_us = e.at_us;
    world_handle(w, &e);
    return true;
}

void world_run_until(struct world *w, uint64_t until_us) {
    while (world_run_one(w, until_us)) {
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
    w->damages = !world_quiet && w->seed % 10 == 7;
    if (w->damages) { /* of several gateways at once, or while the membership changes */
        w->changes = w->changes && w->seed % 20 == 7;
        w->restless = w->restless && w->changes;
        w->wipes = false;
    }
    w->voters_min = w->wipes || w->damages ? 3 : 1;
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
    w->scene = world_quiet || world_long ? NULL : scene_of_seed(seed);
    if (w->scene != NULL) {
        voters = scene_prepare(w->scene, w);
        witness = false;
    }
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
    if (w->scene == NULL) {
        world_later(w, 2000 * MS, EVENT_CHAOS, NULL);
    }
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
        disk_clear(&n->sound);
        disk_clear(&n->below);
        patient_free(n);
        free(n->held);
        free(n->proposals);
        free(n->reads);
        free(n->voted);
    }
    for (uint32_t i = 0; i < w->heap_count; i++) {
        message_free(w->heap[i].message);
        letter_free(w->heap[i].letter);
    }
    free(w->heap);
    check_free(w->check);
    free(w);
}
