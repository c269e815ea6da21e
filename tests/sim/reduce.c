/* Which deeds does a violation need?  Leaves out more and more of them, in ever smaller runs of numbers, as long as some law is still broken;
 * at the end each single one was tried and cannot go (Zeller: delta debugging). */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/sim/world.h"

struct reduction {
    uint64_t seed, until_us;
    struct deeds deeds;
    uint8_t *masked[DEED_KINDS];
    uint64_t runs;
};

/* A member that aborts (must) breaks a law as well: the run is made in a child process. */
static bool fails(struct reduction *r) {
    pid_t child = fork();
    if (child == 0) {
        (void)signal(SIGABRT, SIG_DFL);
        (void)!freopen("/dev/null", "w", stderr);
        _exit(sim_run(r->seed, r->until_us, false, &r->deeds)->violation != NULL);
    }
    int status = 0;
    r->runs++;
    return child > 0 && waitpid(child, &status, 0) == child && status != 0;
}

/* True: numbers from..from+count of the kind can go, and are gone. */
static bool leave_out(struct reduction *r, enum deed_kind kind, uint32_t from, uint32_t count) {
    uint8_t *mask = r->masked[kind] + from, *before = malloc(count);
    if (before == NULL || memchr(mask, 0, count) == NULL) {
        free(before);
        return false;
    }
    memcpy(before, mask, count);
    memset(mask, 1, count);
    bool gone = fails(r);
    if (!gone) {
        memcpy(mask, before, count);
    }
    free(before);
    return gone;
}

static uint32_t kept(const struct reduction *r, enum deed_kind kind) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->deeds.mask_count[kind]; i++) {
        n += r->masked[kind][i] == 0;
    }
    return n;
}

static bool shorten(struct reduction *r, enum deed_kind kind) {
    bool any = false;
    uint32_t count = r->deeds.mask_count[kind];
    for (uint32_t chunk = count; chunk > 0; chunk /= 2) {
        bool shorter = false;
        for (uint32_t from = 0; from < count; from += chunk) {
            shorter |= leave_out(r, kind, from, count - from < chunk ? count - from : chunk);
        }
        any |= shorter;
        if (chunk == 1 && shorter) { /* one that could not go before may go now */
            chunk = 2;
        }
        if (isatty(STDERR_FILENO)) {
            fprintf(stderr, "\r%-20s by %u: %u kept, %" PRIu64 " runs   ", world_deed_names[kind], chunk, kept(r, kind), r->runs);
        }
    }
    return any;
}

int reduce_seed(uint64_t seed, uint64_t until_us) {
    struct reduction r = {.seed = seed, .until_us = until_us};
    struct deed_tally *tally = mmap(NULL, sizeof *tally, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (tally == MAP_FAILED) {
        return 3;
    }
    r.deeds.tally = tally;
    if (!fails(&r)) {
        printf("seed %" PRIu64 " breaks no law\n", seed);
        return 0;
    }
    r.deeds.tally = NULL;
    r.deeds.end_us = tally->calm ? 0 : tally->now_us + 1000000; /* no run may be longer, but for what followed the last deed */
    for (int k = 0; k < DEED_KINDS; k++) {
        r.deeds.mask_count[k] = 2 * tally->count[k] + 100; /* a shorter run may meet more of them */
        r.masked[k] = calloc(r.deeds.mask_count[k], 1);
        r.deeds.masked[k] = r.masked[k];
        if (r.masked[k] == NULL) {
            return 3;
        }
    }
    for (bool shorter = true; shorter;) {
        shorter = false;
        for (int k = 0; k < DEED_KINDS; k++) {
            shorter |= shorten(&r, (enum deed_kind)k);
        }
    }
    printf("seed %" PRIu64 " needs", seed);
    for (int k = 0; k < DEED_KINDS; k++) {
        printf("%s %u %s", k == 0 ? "" : k + 1 < DEED_KINDS ? "," : " and", kept(&r, (enum deed_kind)k), world_deed_names[k]);
    }
    printf("; found in %" PRIu64 " runs:\n", r.runs);
    fflush(stdout);
    (void)setvbuf(stdout, NULL, _IOLBF, 0); /* a member may abort */
    struct world *w = sim_run(seed, until_us, true, &r.deeds);
    printf("%s\n", w->violation != NULL ? w->violation : "nothing");
    world_free(w);
    return 1;
}
