/* sim: runs clusters from seeds and says which law was broken.
 *
 *     sim --seed N --count K --minutes M     K seeds from N on, M virtual minutes of faults each, then a calm end
 *     sim --seed N --hours H                 the same over hours and days, with longer pauses between faults
 *     sim --seed N --trace                   one seed, every message and note
 *     sim --seed N --reduce                  leaves out deeds (faults, fates of messages, requests) until no single one can go, shows that run
 *     sim --hash, --recheck                  prints a hash over all that happened; runs 1 seed in 100 twice and compares
 *     sim --first                            stops at the first violation
 *     sim --cover                            fails as well when some kind of fault did not occur
 *     sim --quiet                            a site of three with few clients and no faults: how fast is the simulator?
 *     sim --drift-ppm D ...                  clocks run wrong by up to D, either way; leases allow for 5000 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

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
    if (w->violation == NULL && w->calm_acknowledged == 0 && w->calm_requests > 0) {
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
        bool waits = n->patient != NULL && w->counts[COUNT_MEND_SET_ASIDE] > 0; /* a minute, for one that does not come back */
        if (!n->wiped && !waits && n->applied < target && !w->short_reigns) {   /* there one entry travels at a time */
            world_fail(w, "L9: member %" PRIu64 " is at %" PRIu64 " of %" PRIu64, n->id, n->applied, target);
        }
    }
    const struct raft_member *self = raft_members_find(&members, s.self);
    if (self == NULL || !self->voter) {
        world_fail(w, "L9: node %" PRIu64 " leads and is no voter", s.self);
    }
    if (raft_members_joint(&members)) {
        world_fail(w, "L9: the joint phase does not end");
    }
}

struct world *sim_run(uint64_t seed, uint64_t until_us, bool trace, const struct deeds *deeds) {
    struct world *w = world_new(seed, trace);
    if (deeds != NULL) {
        w->deeds = *deeds;
    }
    if (w->scene != NULL) {
        scene_play(w);
        until_us = until_us > w->now_us ? until_us : w->now_us;
    }
    bool short_of_calm = w->deeds.end_us > 0 && w->deeds.end_us < until_us;
    world_run_until(w, short_of_calm ? w->deeds.end_us : until_us);
    if (w->violation == NULL && !short_of_calm) {
        run_calm(w);
    }
    return w;
}

static uint64_t seed_now; /* for the handler below */

static void on_abort(int signal_number) {
    char text[64];
    int n = snprintf(text, sizeof text, "seed %" PRIu64 ": abort (signal %d)\n", seed_now, signal_number);
    (void)!write(STDOUT_FILENO, text, (size_t)n);
    _exit(1);
}

static int usage(void) {
    fprintf(stderr, "usage: sim [--seed N] [--count K] [--minutes M | --hours H] [--drift-ppm D] [--trace] [--hash] [--recheck]\n"
                    "           [--reduce] [--first] [--quiet] [--cover]\n");
    return 2;
}

struct options {
    uint64_t seed, count, minutes, hours, drift_ppm;
    bool trace, hash, recheck, reduce, first, quiet, cover;
};

static bool options_read(struct options *o, int argc, char **argv) {
    const struct {
        const char *name;
        uint64_t *number;
        bool *flag;
    } known[] = {{"--seed", &o->seed, NULL},   {"--count", &o->count, NULL},         {"--minutes", &o->minutes, NULL},
                 {"--hours", &o->hours, NULL}, {"--drift-ppm", &o->drift_ppm, NULL}, {"--trace", NULL, &o->trace},
                 {"--hash", NULL, &o->hash},   {"--recheck", NULL, &o->recheck},     {"--reduce", NULL, &o->reduce},
                 {"--first", NULL, &o->first}, {"--quiet", NULL, &o->quiet},         {"--cover", NULL, &o->cover}};
    for (int i = 1; i < argc; i++) {
        size_t k = 0;
        while (k < sizeof known / sizeof known[0] && strcmp(argv[i], known[k].name) != 0) {
            k++;
        }
        if (k == sizeof known / sizeof known[0] || (known[k].number != NULL && i + 1 == argc)) {
            return false;
        }
        if (known[k].number != NULL) {
            *known[k].number = strtoull(argv[++i], NULL, 10);
        } else {
            *known[k].flag = true;
        }
    }
    return true;
}

int main(int argc, char **argv) {
    struct options o = {.seed = 1, .count = 1, .minutes = 1, .drift_ppm = world_drift_ppm};
    if (!options_read(&o, argc, argv)) {
        return usage();
    }
    world_drift_ppm = o.drift_ppm < 900000 ? (uint32_t)o.drift_ppm : 900000;
    world_quiet = o.quiet;
    world_long = o.hours > 0;
    uint64_t violations = 0, totals[COUNT_KINDS] = {0}, virtual_us = 0, rechecked = 0;
    uint64_t until_us = (o.hours > 0 ? o.hours * 60 : o.minutes) * 60 * SECOND_US;
    if (o.reduce) {
        return reduce_seed(o.seed, until_us);
    }
    (void)signal(SIGABRT, on_abort);
    (void)signal(SIGSEGV, on_abort);
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (uint64_t i = 0; i < o.count && !(o.first && violations > 0); i++) {
        seed_now = o.seed + i;
        struct world *w = sim_run(seed_now, until_us, o.trace, NULL);
        if (w->violation != NULL) {
            violations++;
            printf("seed %" PRIu64 ": %s\n", w->seed, w->violation);
        }
        if (o.hash) {
            printf("seed %" PRIu64 " hash %016" PRIx64 "\n", w->seed, w->hash);
        }
        if (o.recheck && i % 100 == 0) {
            struct world *again = sim_run(seed_now, until_us, false, NULL);
            rechecked++;
            if (again->hash != w->hash) {
                violations++;
                printf("seed %" PRIu64 ": the second run differs from the first\n", w->seed);
            }
            world_free(again);
        }
        fflush(stdout);
        for (uint32_t k = 0; k < COUNT_KINDS; k++) {
            totals[k] += w->counts[k];
        }
        virtual_us += w->now_us;
        world_free(w);
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    double seconds = (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
    bool covered = cover_print(totals);
    printf("  %.0f virtual seconds in %.1f s: %.0f times as fast\n", (double)virtual_us / 1e6, seconds,
           (double)virtual_us / 1e6 / seconds);
    if (o.recheck) {
        printf("  %" PRIu64 " seeds run twice\n", rechecked);
    }
    printf("%" PRIu64 " seeds, %" PRIu64 " violations\n", o.count, violations);
    return violations > 0 || (o.cover && !covered);
}
