/* What goes wrong with the network, a disk or a clock beyond the simple cases of chaos.c. */
#include "tests/sim/world.h"

#include <inttypes.h>
#include <string.h>

static const uint64_t MS = 1000, SECOND = 1000000;

/* --- The network: only some of the members hear each other (FAULTS R13) --------------------------------------------------------------- */

static uint32_t fault_members(struct world *w, uint32_t places[LIMIT_MEMBERS]) { /* of somebody's configuration, in any order */
    struct raft_status s;
    const struct node *n = world_leader(w);
    for (uint32_t i = 0; n == NULL && i < w->node_count; i++) {
        n = w->nodes[i].up ? &w->nodes[i] : NULL;
    }
    if (n == NULL) {
        return 0;
    }
    raft_status(n->raft, &s);
    for (uint32_t i = 0; i < s.members->count; i++) {
        uint32_t at = (uint32_t)world_draw(w, i + 1);
        places[i] = places[at];
        places[at] = (uint32_t)(world_node(w, s.members->at[i].id) - w->nodes);
    }
    return s.members->count;
}

static bool fault_linked(enum world_count kind, uint32_t i, uint32_t j, uint32_t count) {
    switch (kind) {
    case COUNT_RING:
        return (i + 1) % count == j || (j + 1) % count == i;
    case COUNT_STAR:
        return i == 0 || j == 0;
    default: /* two halves, and one that hears both */
        return i == 0 || j == 0 || (i <= count / 2) == (j <= count / 2);
    }
}

void fault_topology(struct world *w, enum world_count kind) {
    uint32_t places[LIMIT_MEMBERS] = {0}, count = fault_members(w, places);
    memset(w->cut, 0, sizeof w->cut);
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t j = 0; j < count; j++) {
            w->cut[places[i]][places[j]] = i != j && !fault_linked(kind, i, j, count);
        }
    }
    w->counts[kind]++;
}

void fault_lag(struct world *w, struct node *n) {
    w->lag_us[n - w->nodes] = (uint32_t)(world_between(w, 50, 500) * MS);
    w->counts[COUNT_LAG]++;
}

/* --- Clocks -------------------------------------------------------------------------------------------------------------------------- */

void fault_pause_all(struct world *w) {
    uint64_t until_us = w->now_us + (world_long ? world_between(w, 1, 3600) * SECOND : world_between(w, 100, 10000) * MS);
    for (uint32_t i = 0; i < w->node_count; i++) {
        w->nodes[i].paused_us = until_us;
    }
    w->counts[COUNT_PAUSE_ALL]++;
}

/* Beyond what leases allow for: who reads by them has to switch them off where this may happen (docs/CONSENSUS.md). */
void fault_clock_stop(struct world *w, struct node *n) {
    if (w->config.lease_reads || !n->up || n->clock_stopped_us > w->now_us) {
        return;
    }
    int64_t us = (int64_t)world_between(w, 1, 5000) * 1000;
    n->clock_stopped_us = w->now_us + (uint64_t)us;
    n->clock_offset_us -= us + us * n->drift_ppm / 1000000 - 2; /* rounding must not take it back */
    if (world_chance(w, 500)) {                                 /* as a virtual machine that is stopped from outside */
        n->paused_us = n->clock_stopped_us;
    }
    w->counts[COUNT_CLOCK_STOP]++;
}

void fault_clock_go(struct world *w, struct node *n) {
    if (n->clock_stopped_us > w->now_us) {
        int64_t us = (int64_t)(n->clock_stopped_us - w->now_us);
        n->clock_offset_us += us + us * n->drift_ppm / 1000000 + 2;
        n->clock_stopped_us = 0;
    }
}

/* --- Disks --------------------------------------------------------------------------------------------------------------------------- */

void fault_stall(struct world *w, struct node *n, uint64_t us) {
    uint64_t until_us = w->now_us + us;
    n->disk_free_us = until_us > n->disk_free_us ? until_us : n->disk_free_us;
    for (struct unit *u = n->units; u != NULL; u = u->next) {
        u->done_us = u->done_us > n->disk_free_us ? u->done_us : n->disk_free_us;
    }
    world_later(w, n->disk_free_us - w->now_us, EVENT_STORED, n);
}

void fault_stuck_disk(struct world *w, struct node *n) {
    fault_stall(w, n, world_between(w, 2, world_chance(w, 700) ? 10 : 60) * SECOND);
    w->counts[COUNT_STUCK_DISK]++;
}

void fault_misdirect(struct world *w, struct node *n) {
    struct disk *d = &n->disk;
    if (n->up || d->count < 2) {
        return;
    }
    uint32_t from = (uint32_t)world_draw(w, d->count), to = (from + 1 + (uint32_t)world_draw(w, d->count - 1)) % d->count;
    world_trace(w, "entry %" PRIu64 " of %" PRIu64 " was written over entry %" PRIu64, d->entries[from].index, n->id,
                d->entries[to].index);
    blob_unref(d->entries[to].payload);
    d->entries[to] = d->entries[from];
    blob_ref(d->entries[to].payload);
    n->suspect = true;
    w->counts[COUNT_MISDIRECTED]++;
}

/* A disk that says "written" and has not: of an entry in the middle nothing is there.  At the end it is as if an older disk were put
 * back, and found like that, unless the state stands for what the log lacks. */
void fault_lose_write(struct world *w, struct node *n) {
    struct disk *d = &n->disk;
    if (n->up || d->count == 0) {
        return;
    }
    uint32_t at = (uint32_t)world_draw(w, d->count);
    if (world_chance(w, 500)) {
        struct entry *e = &d->entries[at];
        blob_unref(e->payload);
        *e = (struct entry){.index = e->index};
        n->suspect = true;
    } else {
        disk_cut(d, d->base.index + 1 + at);
        n->suspect = d->applied > disk_last(d);
        n->rolled_back = !n->suspect;
    }
    world_trace(w, "of the disk of %" PRIu64 " entry %" PRIu64 " was never written", n->id, d->base.index + 1 + at);
    w->counts[COUNT_LOST_WRITE]++;
}
