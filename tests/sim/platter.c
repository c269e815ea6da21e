/* The disk of a member: takes what a step asked to store, in order and later. */
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "include/grey/must.h"

static const uint64_t MS = 1000;

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

void disk_cut(struct disk *d, raft_index from) {
    while (d->count > 0 && disk_last(d) >= from) {
        blob_unref(d->entries[--d->count].payload);
    }
}

void disk_drop(struct disk *d, raft_index until) { /* entries up to here */
    uint32_t n = until >= disk_last(d) ? d->count : (uint32_t)(until - d->base.index);
    for (uint32_t i = 0; i < n; i++) {
        blob_unref(d->entries[i].payload);
    }
    memmove(d->entries, d->entries + n, (d->count - n) * sizeof *d->entries);
    d->count -= n;
}

void disk_clear(struct disk *d) {
    disk_cut(d, d->base.index + 1);
    free(d->entries);
    *d = (struct disk){0};
}

void disk_copy(struct disk *to, const struct disk *from) {
    *to = *from;
    to->entries = world_alloc(from->count, sizeof *to->entries);
    to->capacity = from->count;
    for (uint32_t i = 0; i < from->count; i++) {
        to->entries[i] = from->entries[i];
        blob_ref(to->entries[i].payload);
    }
}

bool disk_damaged(const struct disk *d) {
    uint8_t hash[DIGEST_BYTES];
    if (d->applied > disk_last(d)) { /* the state stands for an entry that the log lacks */
        return true;
    }
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

void disk_take(struct world *w, struct disk *d, const struct unit *u) {
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

void unit_free(struct unit *u) {
    for (uint32_t i = 0; i < u->count; i++) {
        blob_unref(u->entries[i].payload);
    }
    free(u->entries);
    free(u);
}

struct unit *unit_shift(struct node *n) {
    struct unit *u = n->units;
    n->units = u->next;
    if (n->units == NULL) {
        n->units_last = NULL;
    }
    return u;
}

void unit_queue(struct world *w, struct node *n, struct unit *u) {
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
