/* scenes.h: what the scenes of the simulator are made of (scenes.c says what a scene is). */
#ifndef TESTS_SIM_SCENES_H
#define TESTS_SIM_SCENES_H

#include "tests/sim/world.h"

#define SCENE_MS UINT64_C(1000)

struct scene {
    enum world_count met;
    uint32_t voters;
    bool (*play)(struct world *w); /* true: it came about */
    enum world_count links;        /* of scene_partial; which of its kind, of scene_ahead */
    bool leads;                    /* somebody hears a majority */
};

/* Who plays, and what a condition looks for. */
struct cast {
    struct node *a, *b;
    struct node *fresh;
    raft_term term;
    raft_index index;
};

/* Runs on until the condition is met (true), or for so long (false).  It is looked at after each event. */
bool scene_until(struct world *w, uint64_t most_ms, bool (*met)(struct world *w, struct cast *c), struct cast *c);
void scene_wait(struct world *w, uint64_t ms);
void scene_islands(struct world *w, uint32_t set); /* links are there within the set only, and among all others; bit i: node i */
uint32_t scene_bit(const struct world *w, const struct node *n);
enum grey_error scene_members(struct world *w, struct node *n, const struct raft_members *want); /* proposed at n */
struct raft_members scene_members_of(const struct node *n);
bool scene_leads_later(const struct cast *c, const struct node *n); /* n leads, in a later term than c->term */

/* Conditions. */
bool scene_at_rest(struct world *w, struct cast *c);    /* one leads, all have what it has; c->a: who, c->term: its term */
bool scene_new_leader(struct world *w, struct cast *c); /* somebody leads a later term; c->b: who */
bool scene_committed(struct world *w, struct cast *c);  /* c->a has applied all that it has, and answered */

/* scenes_election.c; each is true when it came about */
bool scene_partial(struct world *w);
bool scene_figure_8(struct world *w);
bool scene_ahead(struct world *w);
bool scene_lease(struct world *w);

bool scene_all_damaged(struct world *w); /* scenes_damage.c */

/* scenes_change.c */
bool scene_two_majorities(struct world *w);
bool scene_wiped(struct world *w);
bool scene_promoted(struct world *w);
bool scene_exchanged(struct world *w);
bool scene_installed(struct world *w);

#endif
