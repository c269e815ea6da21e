/* Clients: proposals and reads, and what they were told. */
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "include/grey/must.h"

void world_propose(struct world *w, struct node *n) {
    struct raft_proposal proposals[4];
    uint32_t count = world_quiet ? 1 : (uint32_t)world_between(w, 1, 4);
    for (uint32_t i = 0; i < count; i++) {
        size_t size = (size_t)(!world_quiet && world_chance(w, 20) ? 4096 : 8 + world_draw(w, 64));
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

void client_act(struct world *w) {
    struct node *n = &w->nodes[world_draw(w, w->node_count)];
    if (!n->up || n->paused_us > w->now_us) {
        return;
    }
    if (world_chance(w, w->leases && !w->calm ? 980 : 300)) {
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
