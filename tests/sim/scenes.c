/* Scenes: several steps in one order, which chance alone meets once in a million runs.  Each is played on a site without other faults,
 * by its own seed's delays; what is broken by it is found by the same checks as ever.  Afterwards chaos goes on from there.
 *
 * A scene that cannot come about (an election was split, say) is left; those that came about are counted. */
#include "tests/sim/scenes.h"

#include <string.h>

bool scene_until(struct world *w, uint64_t most_ms, bool (*met)(struct world *w, struct cast *c), struct cast *c) {
    uint64_t until_us = w->now_us + most_ms * SCENE_MS;
    while (!met(w, c)) {
        if (!world_run_one(w, until_us)) {
            w->now_us = until_us;
            return false;
        }
    }
    return w->violation == NULL;
}

void scene_wait(struct world *w, uint64_t ms) {
    world_run_until(w, w->now_us + ms * SCENE_MS);
}

void scene_islands(struct world *w, uint32_t set) {
    for (uint32_t i = 0; i < w->node_count; i++) {
        for (uint32_t j = 0; j < w->node_count; j++) {
            w->cut[i][j] = (set >> i & 1) != (set >> j & 1);
        }
    }
}

uint32_t scene_bit(const struct world *w, const struct node *n) {
    return UINT32_C(1) << (n - w->nodes);
}

bool scene_at_rest(struct world *w, struct cast *c) {
    struct raft_status s;
    c->a = world_leader(w);
    if (c->a == NULL) {
        return false;
    }
    raft_status(c->a->raft, &s);
    c->term = s.term;
    for (uint32_t i = 0; i < w->node_count; i++) {
        struct node *n = &w->nodes[i];
        if (!n->wiped && (!n->up || n->applied != s.last_index || disk_last(&n->disk) != s.last_index || n->disk.term != s.term)) {
            return false;
        }
    }
    return s.commit_index == s.last_index && s.last_index > 0;
}

enum grey_error scene_members(struct world *w, struct node *n, const struct raft_members *want) {
    struct raft_input in = {.kind = RAFT_IN_MEMBERS, .members = want};
    return world_step(w, n, &in, NULL);
}

struct raft_members scene_members_of(const struct node *n) {
    struct raft_status s;
    raft_status(n->raft, &s);
    return *s.members;
}

bool scene_leads_later(const struct cast *c, const struct node *n) {
    struct raft_status s;
    if (!n->up) {
        return false;
    }
    raft_status(n->raft, &s);
    return s.role == RAFT_LEADER && s.term > c->term;
}

bool scene_new_leader(struct world *w, struct cast *c) {
    c->b = world_leader(w);
    return c->b != NULL && scene_leads_later(c, c->b);
}

bool scene_committed(struct world *w, struct cast *c) {
    (void)w;
    return c->a->applied == disk_last(&c->a->disk) && c->a->proposal_count == 0;
}

/* ------------------------------------------------------------------------------------------------------------------------------------ */

static const struct scene scenes[] = {
    {COUNT_SCENE_TWO_MAJORITIES, 4, scene_two_majorities, 0, false},
    {COUNT_SCENE_WIPED, 3, scene_wiped, 0, false},
    {COUNT_SCENE_PROMOTED, 3, scene_promoted, 0, false},
    {COUNT_SCENE_FIGURE_8, 5, scene_figure_8, 0, false},
    {COUNT_SCENE_AHEAD, 3, scene_ahead, 0, true},
    {COUNT_SCENE_AHEAD, 3, scene_ahead, 0, false},
    {COUNT_SCENE_LEASE, 3, scene_lease, 0, false},
    {COUNT_SCENE_EXCHANGED, 3, scene_exchanged, 0, false},
    {COUNT_SCENE_INSTALLED, 3, scene_installed, 0, false},
    {COUNT_SCENE_PARTIAL, 3, scene_partial, COUNT_STAR, true},
    {COUNT_SCENE_PARTIAL, 5, scene_partial, COUNT_STAR, true},
    {COUNT_SCENE_PARTIAL, 5, scene_partial, COUNT_BRIDGE, true},
    {COUNT_SCENE_PARTIAL, 5, scene_partial, COUNT_RING, true},
    {COUNT_SCENE_PARTIAL, 7, scene_partial, COUNT_STAR, true},
    {COUNT_SCENE_PARTIAL, 7, scene_partial, COUNT_BRIDGE, true},
    {COUNT_SCENE_PARTIAL, 7, scene_partial, COUNT_RING, false},
};
static const struct scene damage[] = {{COUNT_SCENE_ALL_DAMAGED, 3, scene_all_damaged, 0, false},
                                      {COUNT_SCENE_ALL_DAMAGED, 5, scene_all_damaged, 0, false}};

const struct scene *scene_of_seed(uint64_t seed) {
    if (seed % 20 == 17) {
        return &damage[seed / 20 % 2];
    }
    return seed > 0 && seed % 5 == 0 ? &scenes[(seed / 5 - 1) % (sizeof scenes / sizeof scenes[0])] : NULL;
}

uint32_t scene_prepare(const struct scene *s, struct world *w) {
    w->voters_min = 3;
    w->restless = w->short_reigns = w->leases = false;
    w->config.message_bytes_max = w->config.message_bytes_max > 1 ? w->config.message_bytes_max : 1024;
    if (s->met == COUNT_SCENE_FIGURE_8) {
        w->config.message_bytes_max = 1; /* entries of former terms travel alone */
        w->short_reigns = true;
    } else if (s->met == COUNT_SCENE_LEASE) {
        w->config.lease_reads = true;
        w->delay_us_max = w->disk_us_max = 3000;
    } else if (s->met == COUNT_SCENE_INSTALLED) {
        w->config.window_entries = 4;
    }
    return s->voters;
}

void scene_play(struct world *w) {
    uint32_t loss = w->loss_permille, duplicate = w->duplicate_permille, late = w->late_permille, corrupt = w->corrupt_permille;
    bool short_reigns = w->short_reigns;
    w->loss_permille = w->duplicate_permille = w->late_permille = w->corrupt_permille = 0;
    w->short_reigns = false;
    w->hushed = true;
    bool met = w->scene->play(w) && w->violation == NULL;
    world_trace(w, "the scene %s", met ? "came about" : "did not come about");
    w->counts[w->scene->met] += met;
    w->hushed = false;
    w->loss_permille = loss;
    w->duplicate_permille = duplicate;
    w->late_permille = late;
    w->corrupt_permille = corrupt;
    w->short_reigns = short_reigns;
    memset(w->lag_us, 0, sizeof w->lag_us);
    scene_islands(w, 0);
    for (uint32_t i = 0; i < w->node_count; i++) {
        world_restart(w, &w->nodes[i]);
    }
    world_later(w, 1000 * SCENE_MS, EVENT_CHAOS, NULL);
}
