/* Scenes: several steps in one order, which chance alone meets once in a million runs.  Each is played on a site without other faults,
 * by its own seed's delays; what is broken by it is found by the same checks as ever.  Afterwards chaos goes on from there.
 *
 * A scene that cannot come about (an election was split, say) is left; those that came about are counted. */
#include "tests/sim/world.h"

#include <inttypes.h>
#include <string.h>

static const uint64_t MS = 1000, SECOND = 1000000;

struct scene {
    enum world_count met;
    uint32_t voters;
    bool (*play)(struct world *w); /* true: it came about */
    enum world_count links;        /* of scene_partial; which of its kind, of scene_ahead */
    bool leads;                    /* somebody hears a majority */
};

/* --- What scenes are made of ------------------------------------------------------------------------------------------------------- */

struct cast {
    struct node *a, *b;
    struct node *fresh;
    raft_term term;
    raft_index index;
};

static bool scene_until(struct world *w, uint64_t most_ms, bool (*met)(struct world *w, struct cast *c), struct cast *c) {
    uint64_t until_us = w->now_us + most_ms * MS;
    while (!met(w, c)) {
        if (!world_run_one(w, until_us)) {
            w->now_us = until_us;
            return false;
        }
    }
    return w->violation == NULL;
}

static void scene_wait(struct world *w, uint64_t ms) {
    world_run_until(w, w->now_us + ms * MS);
}

/* Links are there within the set only, and among all others; bit i: node i. */
static void scene_islands(struct world *w, uint32_t set) {
    for (uint32_t i = 0; i < w->node_count; i++) {
        for (uint32_t j = 0; j < w->node_count; j++) {
            w->cut[i][j] = (set >> i & 1) != (set >> j & 1);
        }
    }
}

static uint32_t scene_bit(const struct world *w, const struct node *n) {
    return UINT32_C(1) << (n - w->nodes);
}

static bool scene_at_rest(struct world *w, struct cast *c) { /* one leads, all have what it has; c->a: who */
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

static enum grey_error scene_members(struct world *w, struct node *n, const struct raft_members *want) {
    struct raft_input in = {.kind = RAFT_IN_MEMBERS, .members = want};
    return world_step(w, n, &in, NULL);
}

static struct raft_members scene_members_of(const struct node *n) {
    struct raft_status s;
    raft_status(n->raft, &s);
    return *s.members;
}

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

static bool scene_leads_later(struct world *w, const struct cast *c, const struct node *n) {
    struct raft_status s;
    if (!n->up) {
        return false;
    }
    raft_status(n->raft, &s);
    (void)w;
    return s.role == RAFT_LEADER && s.term > c->term;
}

static bool scene_new_leader(struct world *w, struct cast *c) {
    c->b = world_leader(w);
    return c->b != NULL && scene_leads_later(w, c, c->b);
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
    return scene_leads_later(w, c, c->a) || scene_leads_later(w, c, c->fresh);
}

/* Leader a of four adds a fifth, which alone learns of it.  Another of the three left wins with the votes of all three, and removes a before
 * anything of its own term is committed: it and one more are two of three.  Then a wins with the fifth and the last: three of five.  Each
 * change is of one voter; nobody is in both majorities. */
static bool scene_two_majorities(struct world *w) {
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

static bool scene_committed(struct world *w, struct cast *c) {
    (void)w;
    return c->a->applied == disk_last(&c->a->disk) && c->a->proposal_count == 0;
}

/* Of three, a and b have what c lacks.  b loses its directory and starts; a is away.  If b were its old self it would vote for c, and what a
 * client was told of would be gone. */
static bool scene_wiped(struct world *w) {
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
static bool scene_promoted(struct world *w) {
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

/* --- Partly connected (15) ---------------------------------------------------------------------------------------------------------- */

static raft_term scene_term(const struct world *w) {
    raft_term term = 0;
    for (uint32_t i = 0; i < w->node_count; i++) {
        term = w->nodes[i].disk.term > term ? w->nodes[i].disk.term : term;
    }
    return term;
}

/* Only some links are there for a minute: terms rest, and who hears a majority leads. */
static bool scene_partial(struct world *w) {
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
    return scene_leads_later(w, c, c->b) && c->b->disk.term > c->term && disk_last(&c->b->disk) > c->index;
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
static bool scene_figure_8(struct world *w) {
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
static bool scene_ahead(struct world *w) {
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
static bool scene_lease(struct world *w) {
    struct cast c = {0};
    if (!scene_until(w, 10000, scene_at_rest, &c)) {
        return false;
    }
    uint32_t at = (uint32_t)(c.a - w->nodes);
    w->lag_us[at] = (uint32_t)(world_between(w, 200, 280) * MS);
    scene_wait(w, world_between(w, 1000, 2000));
    if (world_leader(w) != c.a) {
        return false;
    }
    for (uint32_t i = 0; i < w->node_count; i++) {
        w->cut[at][i] = true;
    }
    return scene_until(w, 3000, scene_new_leader, &c);
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
        if (&w->nodes[i] != c->a && scene_leads_later(w, c, &w->nodes[i])) {
            return true;
        }
    }
    return false;
}

/* The leader and two learners take the place of the leader and two voters: the old ones know nothing of it and elect one of theirs. */
static bool scene_exchanged(struct world *w) {
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
static bool scene_installed(struct world *w) {
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

const struct scene *scene_of_seed(uint64_t seed) {
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
    world_later(w, SECOND, EVENT_CHAOS, NULL);
}
