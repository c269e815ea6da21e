/* A scene of damaged disks: every gateway of a site lost something else, and none of them can lead before it has it again (FAULTS P12). */
#include <inttypes.h>

#include "tests/sim/scenes.h"

static bool scene_written(struct world *w, struct cast *c, uint32_t rounds) {
    for (uint32_t i = 0; i < rounds; i++) {
        world_propose(w, c->a);
        scene_wait(w, 5);
        if (!c->a->up || w->violation != NULL) {
            return false;
        }
    }
    return true;
}

/* All fall at once, some with entries that others lack; each is damaged at places of its own. */
bool scene_all_damaged(struct world *w) {
    struct cast c = {0};
    if (!scene_until(w, 10000, scene_at_rest, &c) || !scene_written(w, &c, 20 + (uint32_t)world_draw(w, 40))) {
        return false;
    }
    if (world_chance(w, 500) && !scene_until(w, 10000, scene_at_rest, &c)) {
        return false;
    }
    uint32_t damaged = 0;
    for (uint32_t i = 0; i < w->node_count; i++) {
        world_crash(w, &w->nodes[i]);
    }
    for (uint32_t i = 0; i < w->node_count; i++) {
        damaged += patient_damage(w, &w->nodes[i], 1 + (uint32_t)world_draw(w, 12));
    }
    for (uint32_t i = 0; i < w->node_count; i++) {
        world_later(w, world_draw(w, 3000 * SCENE_MS), EVENT_RESTART, &w->nodes[i]);
    }
    bool whole = scene_until(w, 20000, scene_at_rest, &c);
    if (!whole && damaged == w->node_count && w->violation == NULL) {
        world_fail(w, "L9: %u damaged gateways have not mended each other", damaged);
    }
    return whole && damaged == w->node_count;
}
