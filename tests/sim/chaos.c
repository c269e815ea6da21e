/* What goes wrong, and an operator who changes the membership meanwhile.
 *
 * The operator keeps to what a majority can survive: at most one voter at a time is lost for ever (wiped), not while any member's
 * configuration has fewer than three voters, and it is replaced before anything else changes. */
#include "tests/sim/world.h"

#include <stdio.h>
#include <string.h>

#define CHAOS_VOTERS_MAX 5u
#define CHAOS_MEMBERS_MAX 9u

static const uint64_t MS = 1000;

static struct node *chaos_node(struct world *w) {
    return &w->nodes[world_draw(w, w->node_count)];
}

void chaos_jump(struct world *w, struct node *n) {
    if (n->up && n->paused_us <= w->now_us) {
        n->clock_offset_us += (int64_t)world_between(w, 1, world_chance(w, 500) ? 400000 : 20000000);
        w->counts[COUNT_CLOCK_JUMP]++;
        struct raft_input in = {.kind = RAFT_IN_CLOCK_UNSURE};
        (void)world_step(w, n, &in, NULL);
    }
}

static uint64_t chaos_short_us(struct world *w) {
    uint64_t most_ms = world_chance(w, 700) ? 800 : 6000;
    return world_between(w, 10, most_ms) * MS;
}

static void chaos_crash(struct world *w) {
    static const int kinds[] = {COUNT_CRASH_BEFORE_STORE, COUNT_CRASH_BEFORE_SEND, COUNT_CRASH_AMID_SENDS};
    struct node *n = world_chance(w, 400) && world_leader(w) != NULL ? world_leader(w) : chaos_node(w);
    for (uint32_t i = 0; i < w->node_count; i++) { /* it takes a moment only: meet it */
        n = w->nodes[i].up && w->nodes[i].install_from != 0 && world_chance(w, 500) ? &w->nodes[i] : n;
    }
    if (n->patient != NULL) {
        patient_crash(w, n);
        world_later(w, chaos_short_us(w), EVENT_RESTART, n);
    } else if (!n->up) {
        world_restart(w, n);
    } else if (world_chance(w, 600)) {
        n->crash_armed = kinds[world_draw(w, 3)];
        world_later(w, chaos_short_us(w) + 500 * MS, EVENT_RESTART, n);
    } else {
        world_crash(w, n);
        world_later(w, chaos_short_us(w), EVENT_RESTART, n);
    }
}

static void chaos_crash_all(struct world *w) {
    for (uint32_t i = 0; i < w->node_count; i++) {
        struct node *n = &w->nodes[i];
        if (n->up) {
            world_crash(w, n);
            world_later(w, chaos_short_us(w), EVENT_RESTART, n);
        }
    }
}

static void chaos_heal_network(struct world *w) {
    memset(w->cut, 0, sizeof w->cut);
    memset(w->lag_us, 0, sizeof w->lag_us);
}

static void chaos_partition(struct world *w) {
    chaos_heal_network(w);
    w->counts[COUNT_PARTITION]++;
    uint64_t side = world_draw(w, UINT64_C(1) << w->node_count);
    if (world_chance(w, 400)) {
        side = UINT64_C(1) << world_draw(w, w->node_count); /* one alone */
    }
    for (uint32_t i = 0; i < w->node_count; i++) {
        for (uint32_t j = 0; j < w->node_count; j++) {
            w->cut[i][j] = (side >> i & 1) != (side >> j & 1);
        }
    }
}

static void chaos_one_way(struct world *w) {
    chaos_heal_network(w);
    uint32_t cuts = (uint32_t)world_between(w, 1, 4);
    for (uint32_t i = 0; i < cuts; i++) {
        w->counts[COUNT_ONE_WAY]++;
        w->cut[world_draw(w, w->node_count)][world_draw(w, w->node_count)] = true;
    }
}

static void chaos_link_down(struct world *w) {
    struct node *n = chaos_node(w), *peer = chaos_node(w);
    if (n->up && n != peer) {
        w->counts[COUNT_LINK_DOWN]++;
        struct raft_input in = {.kind = RAFT_IN_LINK_DOWN, .peer = peer->id};
        (void)world_step(w, n, &in, NULL);
    }
}

static void chaos_transfer(struct world *w) {
    struct node *n = world_leader(w);
    if (n != NULL) {
        struct raft_input in = {.kind = RAFT_IN_TRANSFER, .peer = world_chance(w, 500) ? 0 : chaos_node(w)->id};
        w->counts[COUNT_TRANSFER] += world_step(w, n, &in, NULL) == E_OK;
    }
}

/* A member in quarantine should not lead (agent/node/quarantine.c), and may be told otherwise at any time. */
static void chaos_reluctant(struct world *w) {
    struct node *n = chaos_node(w);
    n->reluctant = world_chance(w, 500);
    if (n->up) {
        raft_set_reluctant(n->raft, n->reluctant);
    }
    w->counts[COUNT_RELUCTANT] += n->reluctant;
}

/* A member for whom what is on its way is work (agent/node/foreman.c); the leader may ask for anybody. */
static void chaos_tell_at_once(struct world *w) {
    struct node *n = world_leader(w);
    if (n != NULL) {
        struct raft_input in = {.kind = RAFT_IN_HURRY, .peer = chaos_node(w)->id};
        w->counts[COUNT_HURRIED] += world_step(w, n, &in, NULL) == E_OK;
    }
}

/* --- Membership ------------------------------------------------------------------------------------------------------------------ */

static uint32_t chaos_voters(const struct raft_members *m) {
    uint32_t voters = 0;
    for (uint32_t i = 0; i < m->count; i++) {
        voters += m->at[i].voter;
    }
    return voters;
}

static bool chaos_propose(struct world *w, struct node *leader, const struct raft_members *want) {
    struct raft_input in = {.kind = RAFT_IN_MEMBERS, .members = want};
    bool done = world_step(w, leader, &in, NULL) == E_OK;
    if (done && w->restless && world_chance(w, 600)) {
        chaos_partition(w);
    }
    return done;
}

struct raft_member chaos_new_member(struct world *w, const char *name) {
    uint32_t i = world_add(w);
    struct raft_member m = {.id = w->nodes[i].id};
    if (name != NULL) {
        (void)snprintf(m.node.text, sizeof m.node.text, "%.60s", name);
    } else {
        (void)snprintf(m.node.text, sizeof m.node.text, "node%u", i);
    }
    world_restart(w, &w->nodes[i]);
    return m;
}

static const struct raft_member *chaos_wiped(struct world *w, const struct raft_members *m) {
    for (uint32_t i = 0; i < m->count; i++) {
        if (world_node(w, m->at[i].id)->wiped) {
            return &m->at[i];
        }
    }
    return NULL;
}

/* A wiped node came back with a new id: first a learner beside its former self, then in its place by a joint change (DECISIONS 9). */
static void chaos_replace(struct world *w, struct node *leader, struct raft_members *want, struct raft_member wiped) {
    const struct raft_member *fresh = raft_members_find_node(want, wiped.node.text);
    if (fresh == NULL || fresh->id == wiped.id) {
        if (w->node_count < WORLD_NODES_MAX) {
            struct raft_member m = chaos_new_member(w, wiped.node.text);
            w->counts[COUNT_LEARNER] += raft_members_put(want, &m) == E_OK && chaos_propose(w, leader, want);
        }
        return;
    }
    struct raft_member m = *fresh;
    m.voter = wiped.voter;
    raft_members_remove(want, wiped.id);
    if (raft_members_put(want, &m) == E_OK) {
        w->counts[COUNT_REPLACE] += chaos_propose(w, leader, want);
    }
}

static void chaos_change(struct world *w) {
    struct node *leader = world_leader(w);
    if (leader == NULL || !w->changes || patient_count(w) > 0) { /* who is being mended knows only the members of its state */
        return;
    }
    struct raft_status s;
    raft_status(leader->raft, &s);
    struct raft_members want = *s.members;
    if (want.count == 0 || raft_members_joint(&want)) {
        return;
    }
    const struct raft_member *wiped = chaos_wiped(w, &want);
    if (wiped != NULL) {
        chaos_replace(w, leader, &want, *wiped);
        return;
    }
    uint32_t voters = chaos_voters(&want);
    struct raft_member *m = &want.at[world_draw(w, want.count)];
    switch (world_draw(w, 5)) {
    case 0:
        if (want.count < CHAOS_MEMBERS_MAX && w->node_count < WORLD_NODES_MAX) {
            struct raft_member fresh = chaos_new_member(w, NULL);
            w->counts[COUNT_LEARNER] += raft_members_put(&want, &fresh) == E_OK && chaos_propose(w, leader, &want);
        }
        break;
    case 1: { /* a former member returns as a learner */
        struct node *n = chaos_node(w);
        if (!n->wiped && raft_members_find(&want, n->id) == NULL && want.count < CHAOS_MEMBERS_MAX) {
            struct raft_member again = {.id = n->id, .witness = n->witness};
            (void)snprintf(again.node.text, sizeof again.node.text, "node%u", (unsigned)(n - w->nodes));
            w->counts[COUNT_LEARNER] += raft_members_put(&want, &again) == E_OK && chaos_propose(w, leader, &want);
        }
        break;
    }
    case 2:
        if (!m->voter && voters < CHAOS_VOTERS_MAX) {
            m->voter = true;
            w->counts[COUNT_PROMOTE] += chaos_propose(w, leader, &want);
        }
        break;
    case 3:
        if (m->voter && voters > w->voters_min) {
            if (world_chance(w, 300)) {
                m->voter = false;
            } else {
                raft_members_remove(&want, m->id);
            }
            w->counts[COUNT_REMOVE] += chaos_propose(w, leader, &want);
        }
        break;
    default:
        for (uint32_t i = 0; i < want.count; i++) {
            want.at[i].voter = world_chance(w, w->restless ? 450 : 600);
        }
        voters = chaos_voters(&want);
        if (voters >= w->voters_min && voters <= CHAOS_VOTERS_MAX) {
            w->counts[COUNT_JOINT] += chaos_propose(w, leader, &want);
        }
        break;
    }
}

void chaos_hurry(struct world *w) {
    chaos_change(w);
    if (world_chance(w, 300)) {
        chaos_change(w);
    }
    if (world_chance(w, 300)) {
        chaos_partition(w);
    }
    struct node *leader = world_leader(w);
    if (leader != NULL && world_chance(w, 300)) {
        world_later(w, world_draw(w, 2 * (uint64_t)w->delay_us_max) + 1, EVENT_FALL, leader);
    }
}

/* A leader answers by its lease, one follower cannot hear it and campaigns, the other starts again just then. */
static void chaos_lease(struct world *w) {
    struct node *leader = world_leader(w), *deaf = chaos_node(w), *other = chaos_node(w);
    if (leader == NULL || deaf == leader || other == leader || deaf == other || !other->up) {
        return;
    }
    chaos_heal_network(w);
    w->cut[leader - w->nodes][deaf - w->nodes] = w->cut[deaf - w->nodes][leader - w->nodes] = true;
    if (world_chance(w, 600)) {
        world_later(w, world_between(w, 300, 700) * MS, EVENT_FALL, other);
        other->quick = true;
    } else if (world_chance(w, 500)) {
        world_later(w, world_between(w, 300, 700) * MS, EVENT_JUMP, world_chance(w, 500) ? other : leader);
    } else {
        struct raft_input in = {.kind = RAFT_IN_TRANSFER, .peer = other->id};
        w->counts[COUNT_TRANSFER] += world_step(w, leader, &in, NULL) == E_OK;
    }
}

/* Every configuration that any member holds, in memory or on disk, survives the loss of one voter. */
static bool chaos_may_wipe(struct world *w) {
    for (uint32_t i = 0; i < w->node_count; i++) {
        struct node *n = &w->nodes[i];
        struct raft_members on_disk;
        raft_index index;
        if (n->wiped) {
            continue;
        }
        disk_members(world_disk(n), disk_last(world_disk(n)), &on_disk, &index);
        const struct raft_members *seen[2] = {&on_disk, &on_disk};
        struct raft_status s;
        if (n->up) {
            raft_status(n->raft, &s);
            seen[1] = s.members;
        }
        for (uint32_t k = 0; k < 2; k++) {
            if (seen[k]->count > 0 &&
                (raft_members_joint(seen[k]) || chaos_voters(seen[k]) < 3 || chaos_wiped(w, seen[k]) != NULL)) {
                return false;
            }
        }
    }
    return true;
}

static void chaos_wipe(struct world *w) {
    struct node *n = chaos_node(w);
    struct node *leader = world_leader(w);
    if (!w->wipes || n->wiped || leader == NULL || w->node_count >= WORLD_NODES_MAX || !chaos_may_wipe(w)) {
        return;
    }
    struct raft_status s;
    raft_status(leader->raft, &s);
    if (raft_members_find(s.members, n->id) == NULL) {
        return;
    }
    world_wipe(w, n);
    world_later(w, chaos_short_us(w), EVENT_RESTART, n);
}

/* A node's disk is damaged, or an older copy of it is put back: as bad as losing it, so with the same restraint. */
static void chaos_disk(struct world *w) {
    struct node *n = chaos_node(w), *leader = world_leader(w);
    if (world_chance(w, 400)) {
        for (uint32_t i = 0; i < w->node_count && w->wipes; i++) {
            world_keep_disk(w, &w->nodes[i]);
        }
        return;
    }
    struct raft_status s;
    if (!w->wipes || n->wiped || leader == NULL || w->node_count >= WORLD_NODES_MAX || !chaos_may_wipe(w)) {
        return;
    }
    raft_status(leader->raft, &s);
    if (raft_members_find(s.members, n->id) == NULL) {
        return;
    }
    if (n->up) {
        world_crash(w, n);
    }
    uint64_t how = world_draw(w, 10);
    if (n->old_kept && how < 5) {
        world_put_back(w, n);
    } else if (how < 6) {
        fault_misdirect(w, n);
    } else if (how < 8) {
        fault_lose_write(w, n);
    } else {
        world_flip(w, n);
    }
    world_restart(w, n); /* finds it, and waits to be replaced */
}

/* Places in the middle of logs: of one gateway while the membership changes, else of several, each at places of its own. */
void chaos_damage(struct world *w) {
    bool several = !w->changes && world_chance(w, 400);
    if (w->changes && (patient_count(w) > 0 || !chaos_may_wipe(w))) {
        return;
    }
    uint32_t first = (uint32_t)world_draw(w, w->node_count);
    for (uint32_t i = 0; i < (several ? w->node_count : 1); i++) {
        struct node *n = &w->nodes[(first + i) % w->node_count];
        if (n->wiped || n->witness || n->patient != NULL) {
            continue;
        }
        if (n->up) {
            world_crash(w, n);
        }
        (void)patient_damage(w, n, (uint32_t)world_between(w, 1, 8));
        world_later(w, chaos_short_us(w), EVENT_RESTART, n);
    }
}

static void chaos_full_disk(struct world *w) {
    struct node *n = chaos_node(w);
    fault_stall(w, n, chaos_short_us(w));
    w->counts[COUNT_FULL_DISK]++;
}

static void chaos_clock(struct world *w) {
    struct node *n = chaos_node(w);
    switch (world_draw(w, 3)) {
    case 0: { /* ten years either way */
        int64_t step_ms = (int64_t)world_draw(w, UINT64_C(10) * 365 * 86400 * 1000);
        n->wall_offset_ms = world_chance(w, 500) ? step_ms : -step_ms;
        w->counts[COUNT_WALL_JUMP]++;
        break;
    }
    case 1:
        world_clock_rate(w, n);
        w->counts[COUNT_CLOCK_RATE]++;
        break;
    default: /* slept: the owner notices and says so */
        chaos_jump(w, n);
        break;
    }
}

static void chaos_fsync_error(struct world *w) {
    struct node *n = chaos_node(w);
    if (n->up) {
        world_fsync_error(w, n);
        world_later(w, chaos_short_us(w), EVENT_RESTART, n);
    }
}

static void chaos_rare(struct world *w) {
    switch (world_draw(w, 5)) {
    case 0:
        fault_topology(w, (enum world_count)world_between(w, COUNT_RING, COUNT_BRIDGE));
        break;
    case 1:
        fault_stuck_disk(w, chaos_node(w));
        break;
    case 2:
        fault_clock_stop(w, chaos_node(w));
        break;
    case 3:
        fault_lag(w, chaos_node(w));
        break;
    default:
        if (world_chance(w, 300)) {
            fault_pause_all(w);
        }
        break;
    }
}

void chaos_act(struct world *w) {
    if (w->damages && world_chance(w, 120)) {
        chaos_damage(w);
        return;
    }
    if (w->leases && world_chance(w, 600)) {
        chaos_lease(w);
        return;
    }
    if (w->restless && world_chance(w, 700)) {
        if (world_chance(w, 300)) {
            chaos_heal_network(w);
        }
        chaos_change(w);
        return;
    }
    if (w->wipes && world_chance(w, 150)) {
        chaos_disk(w);
        return;
    }
    switch (world_draw(w, 25)) {
    case 23:
    case 24:
        chaos_rare(w);
        break;
    case 21:
    case 22:
        chaos_lease(w);
        break;
    case 16:
        chaos_disk(w);
        break;
    case 17:
        chaos_full_disk(w);
        break;
    case 18:
    case 19:
        chaos_clock(w);
        break;
    case 20:
        chaos_fsync_error(w);
        break;
    case 0:
    case 1:
    case 2:
        chaos_crash(w);
        break;
    case 3:
    case 4:
        chaos_partition(w);
        break;
    case 5:
        chaos_one_way(w);
        break;
    case 6:
    case 7:
        chaos_heal_network(w);
        break;
    case 8: {
        struct node *n = chaos_node(w);
        n->paused_us = w->now_us + chaos_short_us(w);
        w->counts[COUNT_PAUSE] += n->up;
        break;
    }
    case 9: {
        struct node *n = chaos_node(w);
        n->slow_us = w->now_us + chaos_short_us(w);
        w->counts[COUNT_SLOW_DISK]++;
        break;
    }
    case 10:
        chaos_link_down(w);
        break;
    case 11:
        if (world_chance(w, 400)) {
            chaos_transfer(w);
        } else if (world_chance(w, 500)) {
            chaos_tell_at_once(w);
        } else if (world_chance(w, 500)) {
            chaos_reluctant(w);
        } else if (world_chance(w, 200)) {
            chaos_crash_all(w);
        }
        break;
    case 12:
        chaos_wipe(w);
        break;
    default:
        chaos_change(w);
        break;
    }
}

void chaos_stop(struct world *w) {
    w->calm = true;
    w->loss_permille = w->duplicate_permille = w->late_permille = w->corrupt_permille = 0;
    w->disk_us_max = w->disk_us_max < 10000 ? w->disk_us_max : 10000;
    w->delay_us_max = w->delay_us_max < 2000 ? w->delay_us_max : 2000;
    chaos_heal_network(w);
    for (uint32_t i = 0; i < w->node_count; i++) {
        struct node *n = &w->nodes[i];
        n->crash_armed = 0;
        n->slow_us = 0;
        n->paused_us = 0;
        n->reluctant = false;
        if (n->up) {
            raft_set_reluctant(n->raft, false);
        }
        fault_clock_go(w, n);
        for (struct unit *u = n->units; u != NULL; u = u->next) { /* what a slow disk had in hand */
            u->done_us = w->now_us;
        }
        n->disk_free_us = w->now_us;
        world_later(w, 1, EVENT_STORED, n);
        world_restart(w, n);
    }
}
