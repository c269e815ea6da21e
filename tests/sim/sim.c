/* sim: runs clusters from seeds and says which law was broken.
 *
 *     sim --seed N --count K --minutes M     K seeds from N on, M virtual minutes of faults each, then a calm end
 *     sim --seed N --trace                   one seed, every message and note
 *     sim --drift-ppm D ...                  clocks run wrong by up to D, either way; leases allow for 5000 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/sim/world.h"

#define SECOND_US UINT64_C(1000000)

static raft_term highest_term(struct world *w) {
    raft_term term = 0;
    for (uint32_t i = 0; i < w->node_count; i++) {
        struct raft_status s;
        if (w->nodes[i].up) {
            raft_status(w->nodes[i].raft, &s);
            term = s.term > term ? s.term : term;
        }
    }
    return term;
}

/* L9: five seconds after the last fault a majority commits again; then terms rest and every member catches up. */
static void run_calm(struct world *w) {
    chaos_stop(w);
    uint64_t began_us = w->now_us;
    world_run_until(w, began_us + 5 * SECOND_US);
    if (w->violation == NULL && w->calm_acknowledged == 0) {
        world_fail(w, "L9: nothing was committed in 5 s without faults");
    }
    raft_term term = highest_term(w);
    world_run_until(w, began_us + 25 * SECOND_US);
    if (w->violation == NULL && highest_term(w) != term) {
        world_fail(w, "L9: term %" PRIu64 " rose to %" PRIu64 " without faults", term, highest_term(w));
    }
    struct node *leader = world_leader(w);
    if (w->violation != NULL || leader == NULL) {
        return;
    }
    struct raft_status s;
    raft_status(leader->raft, &s);
    raft_index target = s.commit_index;
    struct raft_members members = *s.members;
    world_run_until(w, w->now_us + 2 * SECOND_US);
    for (uint32_t i = 0; i < members.count; i++) {
        struct node *n = world_node(w, members.at[i].id);
        if (!n->wiped && n->applied < target && !w->short_reigns) { /* there one entry travels at a time */
            world_fail(w, "L9: member %" PRIu64 " is at %" PRIu64 " of %" PRIu64, n->id, n->applied, target);
        }
    }
    if (raft_members_joint(&members)) {
        world_fail(w, "L9: the joint phase does not end");
    }
}

static int usage(void) {
    fprintf(stderr, "usage: sim [--seed N] [--count K] [--minutes M] [--drift-ppm D] [--trace]\n");
    return 2;
}

int main(int argc, char **argv) {
    uint64_t seed = 1, count = 1, minutes = 1, violations = 0, drift_ppm = world_drift_ppm;
    bool trace = false;
    for (int i = 1; i < argc; i++) {
        uint64_t *number = strcmp(argv[i], "--seed") == 0        ? &seed
                           : strcmp(argv[i], "--count") == 0     ? &count
                           : strcmp(argv[i], "--minutes") == 0   ? &minutes
                           : strcmp(argv[i], "--drift-ppm") == 0 ? &drift_ppm
                                                                 : NULL;
        if (number != NULL && i + 1 < argc) {
            *number = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--trace") == 0) {
            trace = true;
        } else {
            return usage();
        }
    }
    world_drift_ppm = drift_ppm < 900000 ? (uint32_t)drift_ppm : 900000;
    uint64_t totals[COUNT_KINDS] = {0}, virtual_us = 0;
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (uint64_t i = 0; i < count; i++) {
        struct world *w = world_new(seed + i, trace);
        world_run_until(w, minutes * 60 * SECOND_US);
        if (w->violation == NULL) {
            run_calm(w);
        }
        if (w->violation != NULL) {
            violations++;
            printf("seed %" PRIu64 ": %s\n", w->seed, w->violation);
            fflush(stdout);
        }
        for (uint32_t k = 0; k < COUNT_KINDS; k++) {
            totals[k] += w->counts[k];
        }
        virtual_us += w->now_us;
        world_free(w);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    double seconds = (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
    for (uint32_t k = 0; k < COUNT_KINDS; k++) {
        printf("  %-24s %12" PRIu64 "\n", world_count_names[k], totals[k]);
    }
    printf("  %.0f virtual seconds in %.1f s: %.0f times as fast\n", (double)virtual_us / 1e6, seconds,
           (double)virtual_us / 1e6 / seconds);
    printf("%" PRIu64 " seeds, %" PRIu64 " violations\n", count, violations);
    return violations > 0;
}
