/* Scenes of elections, terms and leases. */
#include "tests/sim/scenes.h"

#include <inttypes.h>

/* --- Partly connected (15) ---------------------------------------------------------------------------------------------------------- */

static raft_term scene_term(const struct world *w) {
    raft_term term = 0;
    for (uint32_t i = 0; i < w->node_count; i++) {
        term = w->nodes[i].disk.term > term ? w->nodes[i].disk.term : term;
    }
    return term;
}

/* Only some links are there for a minute: terms rest, and who hears a majority leads. */
bool scene_partial(struct world *w) {
    struct cast c = {0};
    if (!scene_until(w, 10000, scene_at_rest, &c)) {
        return false;
    }
    fault_topology(w, w->scene->links);
    scene_wait(w, 10000);
    raft_term term = scene_term(w);
    scene_wait(w, 60000);
    if (w->violation == NULL && scene_term(w) > term + 3) {
        world_fail(w, "L9: partly connected, the term rose from %" PRIu64 " to %" PRIu64 " in a minute", term, scene_term(w));
    }
    struct node *leader = world_leader(w);
    raft_index before = check_committed(w);
    if (w->violation == NULL && w->scene->leads && leader != NULL) {
        world_propose(w, leader);
        scene_wait(w, 5000);
    }
    if (w->violation == NULL && w->scene->leads && check_committed(w) == before) {
        world_fail(w, "L9: partly connected, one hears a majority and nothing is committed");
    }
    return true;
}

/* --- Figure 8 of the Raft paper (2) -------------------------------------------------------------------------------------------------- */

static bool scene_b_has_all(struct world *w, struct cast *c) {
    (void)w;
    return disk_last(&c->b->disk) >= c->index;
}

/* Both others of an island of three gave their votes to c->b, who does not know it yet. */
static bool scene_elects(struct world *w, struct cast *c) {
    for (uint32_t i = 0; i < w->node_count; i++) {
        uint32_t votes = 0;
        struct node *n = &w->nodes[i];
        for (uint32_t j = 0; j < w->node_count; j++) {
            const struct node *voter = &w->nodes[j];
            votes += voter != n && voter->disk.term == n->disk.term && n->disk.term < voter->voted_capacity &&
                     voter->voted[n->disk.term] == n->id;
        }
        if (n->up && n->disk.term > c->term && votes >= 2) {
            c->b = n;
            return true;
        }
    }
    return false;
}

static bool scene_b_leads(struct world *w, struct cast *c) {
    (void)w;
    return scene_leads_later(c, c->b) && c->b->disk.term > c->term && disk_last(&c->b->disk) > c->index;
}

static bool scene_fresh_acknowledged(struct world *w, struct cast *c) { /* c->b leads and knows what c->fresh has */
    struct raft_status s;
    (void)w;
    raft_status(c->b->raft, &s);
    for (uint32_t i = 0; i < s.peer_count; i++) {
        if (s.peers[i].id == c->fresh->id) {
            return s.peers[i].match_index >= c->index;
        }
    }
    return false;
}

/* Of five, a and b have an entry of term 1; e leads term 2 and has another in its place.  One of a and b leads term 3 and brings c the
 * entry of term 1: it is with a majority and not committed, for e can still win, and does. */
bool scene_figure_8(struct world *w) {
    struct cast c = {0};
    if (!scene_until(w, 10000, scene_at_rest, &c)) {
        return false;
    }
    uint32_t at = (uint32_t)(c.a - w->nodes);
    struct node *a = c.a, *b = &w->nodes[(at + 1) % 5], *e = NULL, *third = NULL;
    uint32_t pair = scene_bit(w, a) | scene_bit(w, b);
    raft_index before = disk_last(&a->disk);
    scene_islands(w, pair);
    world_propose(w, a);
    struct raft_status s;
    raft_status(a->raft, &s);
    c.index = s.last_index;
    c.b = b;
    if (c.index == before || !scene_until(w, 300, scene_b_has_all, &c)) {
        return false;
    }
    raft_term first = c.term;
    world_crash(w, a);
    world_crash(w, b);
    c.index = before;
    for (uint32_t election = 0; election < 8 && e == NULL; election++) {
        scene_islands(w, pair);
        if (!scene_until(w, 5000, scene_elects, &c)) {
            return false;
        }
        for (uint32_t i = 0; i < w->node_count; i++) {
            w->cut[c.b - w->nodes][i] = true;
        }
        e = scene_until(w, 250, scene_b_leads, &c) ? c.b : NULL;
    }
    if (e == NULL) {
        return false;
    }
    world_crash(w, e);
    c.term = e->disk.term;
    for (uint32_t i = 0; i < 5; i++) {
        third = &w->nodes[i] != e && (pair >> i & 1) == 0 ? &w->nodes[i] : third;
    }
    scene_islands(w, pair | scene_bit(w, third));
    world_restart(w, a);
    world_restart(w, b);
    if (!scene_until(w, 5000, scene_new_leader, &c) || (c.b != a && c.b != b)) {
        return false;
    }
    struct node *leader = c.b;
    c.index = disk_last(&(leader == a ? b : a)->disk);
    c.b = c.fresh = third;
    c.index = before + 1;
    if (!scene_until(w, 1000, scene_b_has_all, &c) || disk_entry(&third->disk, disk_last(&third->disk))->term != first) {
        return false;
    }
    w->cut[leader - w->nodes][third - w->nodes] = true; /* no more than that */
    c.b = leader;
    if (!scene_until(w, 300, scene_fresh_acknowledged, &c)) {
        return false;
    }
    c.term = leader->disk.term;
    scene_islands(w, pair);
    world_restart(w, e);
    return scene_until(w, 6000, scene_new_leader, &c) && c.b == e;
}

/* --- A term ahead (14) --------------------------------------------------------------------------------------------------------------- */

static bool scene_b_is_ahead(struct world *w, struct cast *c) {
    (void)w;
    return c->b->disk.term > c->term;
}

/* c->b is handed leadership, and nobody hears that it took the next term. */
static bool scene_raise(struct world *w, struct cast *c) {
    for (uint32_t i = 0; i < w->node_count; i++) {
        w->cut[c->b - w->nodes][i] = true;
    }
    struct raft_input in = {.kind = RAFT_IN_TRANSFER, .peer = c->b->id};
    return world_step(w, c->a, &in, NULL) == E_OK && scene_until(w, 2000, scene_b_is_ahead, c);
}

/* Either the leader of the former term goes on, and the one ahead must find back; or it has what the one ahead lacks, and they have only each
 * other: it must learn of the term. */
bool scene_ahead(struct world *w) {
    struct cast c = {0};
    if (!scene_until(w, 10000, scene_at_rest, &c)) {
        return false;
    }
    uint32_t at = (uint32_t)(c.a - w->nodes);
    struct node *other = &w->nodes[(at + 1) % 3];
    c.b = &w->nodes[(at + 2) % 3];
    if (!scene_raise(w, &c)) {
        return false;
    }
    scene_islands(w, scene_bit(w, c.b));
    scene_wait(w, 800);
    if (w->scene->leads) {
        scene_islands(w, 0);
        if (!scene_until(w, 8000, scene_at_rest, &c) && w->violation == NULL) {
            world_fail(w, "L9: a member that is a term ahead does not find back");
        }
        return true;
    }
    world_crash(w, c.b);
    c.b->disk.term += 3; /* as if it had stood for election three times more */
    c.b->disk.vote = c.b->id;
    world_restart(w, c.b);
    raft_index before = check_committed(w);
    if (world_leader(w) != c.a) {
        return false;
    }
    world_propose(w, c.a);
    if (!scene_until(w, 2000, scene_committed, &c) || check_committed(w) == before) {
        return false;
    }
    struct node *a = c.a;
    world_crash(w, a);
    world_crash(w, other);
    scene_islands(w, 0);
    world_restart(w, a);
    if (!scene_until(w, 8000, scene_new_leader, &c) && w->violation == NULL) {
        world_fail(w, "L9: who has all entries is a term behind, and is not elected");
    }
    world_restart(w, other);
    return true;
}

/* --- Late answers (5) ---------------------------------------------------------------------------------------------------------------- */

/* What the leader sends arrives at once, the answers take most of an election time-out; then nobody hears it any more. */
bool scene_lease(struct world *w) {
    struct cast c = {0};
    if (!scene_until(w, 10000, scene_at_rest, &c)) {
        return false;
    }
    uint32_t at = (uint32_t)(c.a - w->nodes);
    w->lag_us[at] = (uint32_t)(world_between(w, 200, 280) * SCENE_MS);
    scene_wait(w, world_between(w, 1000, 2000));
    if (world_leader(w) != c.a) {
        return false;
    }
    for (uint32_t i = 0; i < w->node_count; i++) {
        w->cut[at][i] = true;
    }
    return scene_until(w, 3000, scene_new_leader, &c);
}
