#include "agent/work/placement.h"

#include <string.h>

#include "include/grey/must.h"

struct placement_node *placement_find(const struct placement *p, raft_id id) {
    for (uint32_t i = 0; i < p->count; i++) {
        if (p->nodes[i]->id == id) {
            return p->nodes[i];
        }
    }
    return NULL;
}

struct placement_node *placement_add(struct placement *p, raft_id id, struct bytes name) {
    must(name.size <= LIMIT_NAME_BYTES);
    struct placement_node *n = p->count < LIMIT_MEMBERS ? mem_new(1, sizeof *n) : NULL;
    if (n == NULL) {
        return NULL;
    }
    n->id = id;
    memcpy(n->name.text, name.data, name.size);
    uint32_t place = p->count++;
    while (place > 0) {
        const struct placement_node *other = p->nodes[place - 1];
        int order = strcmp(other->name.text, n->name.text);
        if (order < 0 || (order == 0 && other->id < id)) {
            break;
        }
        p->nodes[place] = p->nodes[place - 1];
        place--;
    }
    p->nodes[place] = n;
    return n;
}

void placement_remove(struct placement *p, struct placement_node *n) {
    uint32_t place = 0;
    while (p->nodes[place] != n) {
        place++;
        must(place < p->count);
    }
    must(n->task_count == 0);
    p->count--;
    memmove(&p->nodes[place], &p->nodes[place + 1], (p->count - place) * sizeof p->nodes[0]);
    mem_free(n);
}

void placement_clear(struct placement *p) {
    for (uint32_t i = 0; i < p->count; i++) {
        mem_free(p->nodes[i]);
    }
    p->count = 0;
}

struct quota_amount placement_usable(const struct placement_node *n) {
    struct quota_share share = {QUOTA_WHOLE - QUOTA_SYSTEM_PERMILLE, QUOTA_WHOLE - QUOTA_SYSTEM_PERMILLE};
    return quota_of(n->capacity, share);
}

static uint64_t less(uint64_t a, uint64_t b) {
    return a > b ? a - b : 0;
}

struct quota_amount placement_free(const struct placement_node *n, const struct placement_wish *w) {
    struct quota_amount usable = placement_usable(n), kept = {0, 0};
    for (unsigned lane = 0; lane <= (unsigned)w->lane; lane++) {
        kept = quota_sum(kept, n->kept[lane]);
    }
    if (w->kept_on == n) {
        must(quota_within(w->need, kept));
        kept.cpu_millicores -= w->need.cpu_millicores;
        kept.memory_bytes -= w->need.memory_bytes;
    }
    return (struct quota_amount){
        less(usable.cpu_millicores, n->held.cpu_millicores + less(kept.cpu_millicores, n->stopping.cpu_millicores)),
        less(usable.memory_bytes, n->held.memory_bytes + less(kept.memory_bytes, n->stopping.memory_bytes))};
}

static bool has_label(const struct placement_node *n, struct bytes label) {
    for (uint32_t i = 0; i < n->label_count; i++) {
        if (bytes_equal_str(label, n->labels[i])) {
            return true;
        }
    }
    return false;
}

bool placement_suits(const struct placement_node *n, const struct placement_wish *w) {
    if (n->condition != NODE_READY || !quota_within(w->need, placement_usable(n))) {
        return false;
    }
    for (uint32_t i = 0; w->selectors != NULL && i < w->selectors->count; i++) {
        if (!has_label(n, w->selectors->at[i])) {
            return false;
        }
    }
    return true;
}

struct placement_node *placement_pick(const struct placement *p, const struct placement_wish *w) {
    struct placement_node *best = NULL;
    uint64_t best_score = 0;
    for (uint32_t i = 0; i < p->count; i++) {
        struct placement_node *n = p->nodes[i];
        struct quota_amount room = placement_free(n, w), usable = placement_usable(n);
        if (!quota_within(w->need, room) || !placement_suits(n, w)) {
            continue;
        }
        struct quota_amount after = {room.cpu_millicores - w->need.cpu_millicores, room.memory_bytes - w->need.memory_bytes};
        /* What stays free of the scarcer of the two, in millionths; memory in KiB keeps the product small. */
        uint64_t cpu = after.cpu_millicores * 1000000u / (usable.cpu_millicores | 1);
        uint64_t memory = (after.memory_bytes >> 10) * 1000000u / (usable.memory_bytes >> 10 | 1);
        uint64_t score = 1 + (cpu < memory ? cpu : memory);
        if (w->prefers.size > 0 && bytes_equal_str(w->prefers, n->name.text)) {
            score = UINT64_MAX;
        }
        if (score > best_score) {
            best = n;
            best_score = score;
        }
    }
    return best;
}
