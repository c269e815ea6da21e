/* Scenes of membership changes, and of members that lose their disk. */
#include "tests/sim/scenes.h"

#include <inttypes.h>

/* A learner that has caught up: c->fresh. */
static bool scene_learner(struct world *w, struct cast *c) {
    struct raft_member fresh = chaos_new_member(w, NULL);
    struct raft_members want = scene_members_of(c->a);
    struct node *leader = c->a;
    c->fresh = world_node(w, fresh.id);
    return raft_members_put(&want, &fresh) == E_OK && scene_members(w, leader, &want) == E_OK &&
           scene_until(w, 5000, scene_at_rest, c) && c->a == leader;
}

static enum grey_error scene_promote(struct world *w, const struct cast *c) {
    struct raft_members want = scene_members_of(c->a);
    for (uint32_t i = 0; i < want.count; i++) {
        want.at[i].voter |= want.at[i].id == c->fresh->id;
    }
    return scene_members(w, c->a, &want);
}

/* --- Two majorities (FAULTS 2b, 6; Ongaro on raft-dev, 2015) ------------------------------------------------------------------------ */

static bool scene_fresh_has_all(struct world *w, struct cast *c) {
    struct raft_status s;
    (void)w;
    raft_status(c->a->raft, &s);
    return disk_last(&c->fresh->disk) == s.last_index;
}

/* Some voter gave its vote to another of the three: c->b is who gave it. */
static bool scene_voted(struct world *w, struct cast *c) {
    for (uint32_t i = 0; i < w->node_count; i++) {
        struct node *n = &w->nodes[i];
        if (n != c->a && n != c->fresh && n->disk.term > c->term && n->disk.term < n->voted_capacity &&
            n->voted[n->disk.term] != 0 && n->voted[n->disk.term] != n->id) {
            c->b = n;
            return true;
        }
    }
    return false;
}

static bool scene_old_leads(struct world *w, struct cast *c) {
    (void)w;
    return scene_leads_later(c, c->a) || scene_leads_later(c, c->fresh);
}

/* Leader a of four adds a fifth, which alone learns of it.  Another of the three left wins with the votes of all three, and removes a before
 * anything of its own term is committed: it and one more are two of three.  Then a wins with the fifth and the last: three of five.  Each
 * change is of one voter; nobody is in both majorities. */
bool scene_two_majorities(struct world *w) {
    struct cast c = {0};
    if (!scene_until(w, 10000, scene_at_rest, &c) || !scene_learner(w, &c)) {
        return false;
    }
    uint32_t old_side = scene_bit(w, c.a) | scene_bit(w, c.fresh);
    scene_islands(w, old_side);
    if (scene_promote(w, &c) != E_OK || !scene_until(w, 1000, scene_fresh_has_all, &c)) {
        return false;
    }
    struct node *last = NULL;
    bool won = false;
    for (uint32_t election = 0; election < 8 && !won; election++) { /* votes may be split */
        scene_islands(w, old_side);
        if (!scene_until(w, 5000, scene_voted, &c)) {
            return false;
        }
        last = c.b; /* hears nothing of the winner */
        for (uint32_t i = 0; i < w->node_count; i++) {
            w->cut[i][last - w->nodes] = true;
        }
        won = scene_until(w, 250, scene_new_leader, &c) && c.b != last;
        c.term = last->disk.term;
    }
    if (!won) {
        return false;
    }
    struct raft_members want = scene_members_of(c.b);
    raft_members_remove(&want, c.a->id);
    enum grey_error err = scene_members(w, c.b, &want);
    world_trace(w, "scene: %" PRIu64 " leads and removes %" PRIu64 ": error %d", c.b->id, c.a->id, (int)err);
    if (err != E_OK && err != E_MEMBER_CHANGE_PENDING) {
        return false;
    }
    scene_wait(w, 300);
    scene_islands(w, old_side | scene_bit(w, last));
    return scene_until(w, 6000, scene_old_leads, &c);
}

/* --- Wiped and back (35) -------------------------------------------------------------------------------------------------------------- */

/* Of three, a and b have what c lacks.  b loses its directory and starts; a is away.  If b were its old self it would vote for c, and what a
 * client was told of would be gone. */
bool scene_wiped(struct world *w) {
    struct cast c = {0};
    if (!scene_until(w, 10000, scene_at_rest, &c)) {
        return false;
    }
    uint32_t at = (uint32_t)(c.a - w->nodes);
    struct node *b = &w->nodes[(at + 1) % 3], *lags = &w->nodes[(at + 2) % 3];
    scene_islands(w, scene_bit(w, lags));
    world_propose(w, c.a);
    if (!scene_until(w, 2000, scene_committed, &c)) {
        return false;
    }
    world_wipe(w, b);
    scene_islands(w, scene_bit(w, c.a));
    scene_wait(w, world_between(w, 1, 500));
    world_restart(w, b);
    scene_wait(w, 4000);
    return true;
}

/* --- Promoted unawares (9) ---------------------------------------------------------------------------------------------------------- */

static bool scene_promotion_done(struct world *w, struct cast *c) {
    struct raft_status s;
    (void)w;
    raft_status(c->a->raft, &s);
    return s.commit_index == s.last_index && s.commit_index > c->fresh->applied;
}

/* The learner is made a voter while it is away, and its vote is needed before anybody could tell it. */
bool scene_promoted(struct world *w) {
    struct cast c = {0};
    if (!scene_until(w, 10000, scene_at_rest, &c) || !scene_learner(w, &c)) {
        return false;
    }
    uint32_t at = (uint32_t)(c.a - w->nodes);
    struct node *gone = &w->nodes[(at + 1) % 3];
    scene_islands(w, scene_bit(w, c.fresh));
    if (scene_promote(w, &c) != E_OK || !scene_until(w, 1000, scene_promotion_done, &c)) {
        return false;
    }
    world_crash(w, c.a);
    world_crash(w, gone);
    scene_islands(w, 0);
    world_restart(w, c.a);
    bool led = scene_until(w, 8000, scene_new_leader, &c);
    if (!led && w->violation == NULL) {
        world_fail(w, "L9: three of four voters are there and elect nobody: one was promoted and does not know it");
    }
    world_restart(w, gone);
    return led;
}

/* --- Voters exchanged (12) ----------------------------------------------------------------------------------------------------------- */

static bool scene_two_learners(struct world *w, struct cast *c, struct node *learners[2]) {
    for (uint32_t i = 0; i < 2; i++) {
        if (!scene_learner(w, c)) {
            return false;
        }
        learners[i] = c->fresh;
    }
    return true;
}

static bool scene_any_leader(struct world *w, struct cast *c) { /* beside c->a */
    for (uint32_t i = 0; i < w->node_count; i++) {
        if (&w->nodes[i] != c->a && scene_leads_later(c, &w->nodes[i])) {
            return true;
        }
    }
    return false;
}

/* The leader and two learners take the place of the leader and two voters: the old ones know nothing of it and elect one of theirs. */
bool scene_exchanged(struct world *w) {
    struct cast c = {0};
    struct node *learners[2];
    if (!scene_until(w, 10000, scene_at_rest, &c) || !scene_two_learners(w, &c, learners)) {
        return false;
    }
    scene_islands(w, scene_bit(w, c.a) | scene_bit(w, learners[0]) | scene_bit(w, learners[1]));
    struct raft_members want = scene_members_of(c.a), now = want;
    for (uint32_t i = 0; i < now.count; i++) {
        struct raft_member m = now.at[i];
        if (m.voter && m.id != c.a->id) {
            raft_members_remove(&want, m.id);
        } else if (!m.voter) {
            m.voter = true;
            (void)raft_members_put(&want, &m);
        }
    }
    return scene_members(w, c.a, &want) == E_OK && scene_until(w, 5000, scene_any_leader, &c);
}

/* --- Installed members (11) ---------------------------------------------------------------------------------------------------------- */

static bool scene_settled(struct world *w, struct cast *c) {
    struct raft_status s;
    (void)w;
    raft_status(c->a->raft, &s);
    return s.role == RAFT_LEADER && !raft_members_joint(s.members) && s.commit_index == s.last_index;
}

static bool scene_installed_all(struct world *w, struct cast *c) {
    return c->b->disk.base.index >= c->index && scene_at_rest(w, c);
}

/* While c is away a site of three grows to five.  c gets that with a snapshot; then it and b are two of five, and two of the former three. */
bool scene_installed(struct world *w) {
    struct cast c = {0};
    struct node *learners[2];
    if (!scene_until(w, 10000, scene_at_rest, &c) || !scene_two_learners(w, &c, learners)) {
        return false;
    }
    uint32_t at = (uint32_t)(c.a - w->nodes);
    struct node *leader = c.a, *away = &w->nodes[(at + 2) % 3];
    scene_islands(w, scene_bit(w, away));
    struct raft_members want = scene_members_of(leader);
    for (uint32_t i = 0; i < want.count; i++) {
        want.at[i].voter = true;
    }
    if (scene_members(w, leader, &want) != E_OK || !scene_until(w, 3000, scene_settled, &c)) {
        return false;
    }
    c.index = disk_last(&leader->disk);
    for (uint32_t i = 0; i < 300 && leader->up && leader->disk.applied <= c.index; i++) {
        world_propose(w, leader);
        scene_wait(w, 40);
    }
    uint32_t compact_entries = w->compact_entries;
    w->compact_entries = 1;
    if (leader->up && leader->disk.applied > c.index) {
        node_compact(w, leader);
    }
    w->compact_entries = compact_entries;
    scene_islands(w, 0);
    c.b = away;
    if (!scene_until(w, 5000, scene_installed_all, &c) || c.a != leader) {
        return false;
    }
    scene_islands(w, scene_bit(w, away) | scene_bit(w, &w->nodes[(at + 1) % 3]));
    world_propose(w, leader);
    scene_wait(w, 4000);
    return true;
}
