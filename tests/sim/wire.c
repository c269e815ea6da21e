/* The network: what a message carries, and what becomes of it. */
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "include/grey/must.h"

static const uint64_t MS = 1000;

/* What the wire carries: the fields that count for the kind, entries without digests and hashes. */
struct raft_message *message_copy(const struct raft_message *m) {
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

void message_free(struct raft_message *m) {
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

/* Lost, damaged, doubled, late, or nothing of that. */
static void message_fate(struct world *w, struct node *to, struct raft_message *m) {
    if (world_chance(w, w->loss_permille)) {
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
        uint64_t delay_us = world_between(w, w->delay_us_min, w->delay_us_max) + w->lag_us[to - w->nodes];
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

void message_post(struct world *w, struct node *from, struct raft_message *m) {
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
    if (to == NULL || w->cut[from - w->nodes][to - w->nodes]) {
        w->counts[COUNT_LOST]++;
        message_free(m);
        return;
    }
    uint64_t random;
    if (world_deed_begin(w, DEED_FATE, &random)) {
        message_fate(w, to, m);
    } else {
        event_push(
            w, (struct event){
                   .at_us = w->now_us + w->delay_us_min, .kind = EVENT_DELIVER, .node = (uint32_t)(to - w->nodes), .message = m});
    }
    world_deed_end(w, random);
}
