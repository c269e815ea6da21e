/* cage.h: the control groups of runs: cgroup v2 where the machine has it with its controllers, v1 where only that is, else none (then a
 * run has rlimits).  Groups lie below the one the launcher is in, so whatever bounds the launcher bounds them all. */
#ifndef AGENT_LAUNCH_CAGE_H
#define AGENT_LAUNCH_CAGE_H

#include <sys/types.h>

#include "agent/launch/launchwire.h"

#define CAGE_PATH_BYTES 512u
#define CAGE_PIDS_MAX 1024u /* processes and threads of one run */

enum { CAGE_CPU, CAGE_MEMORY, CAGE_PIDS, CAGE_IO, CAGE_CONTROLLERS }; /* a run does without IO where the machine does */

struct cages {
    enum launch_limits kind;
    char base[CAGE_CONTROLLERS][CAGE_PATH_BYTES]; /* v1: a folder each; v2: the first */
    char prefix[32];                              /* of the names of our groups */
};

/* Finds out, once.  name: tells this launcher's groups from those of another on the machine.  missing (may be NULL): in words, what
 * cannot be bounded here. */
void cage_find(struct cages *c, const char *name, char *missing, size_t missing_size);
void cage_sweep(const struct cages *c); /* kills what is left of an earlier launcher's groups, and removes them */

struct cage {
    const struct cages *all;
    char name[64];
};
enum grey_error cage_make(struct cage *g, const struct cages *c, uint64_t scope, uint64_t token, uint32_t cpu_millicores,
                          uint64_t memory_bytes, struct fault *f);
/* Bytes a second from and to each disk of the machine; 0: no bound.  False: nothing here can bound that (v1: what is written through the
 * page cache is not bounded even where this is true). */
bool cage_bound_io(const struct cage *g, uint64_t read_bps, uint64_t write_bps);
bool cage_enter(const struct cage *g); /* the calling process, between fork and exec */
int cage_open(
    const struct cage *g); /* v2: its folder, so that a process can be made in it (clone3), which waits for nobody; -1: not here */
void cage_kill(const struct cage *g);   /* every process in it */
bool cage_remove(const struct cage *g); /* false: processes are still leaving it; try again */
/* What its processes have used together; false: the groups do not tell (the rest then is 0). */
bool cage_use(const struct cage *g, uint64_t *cpu_us, uint64_t *memory_bytes, uint64_t *memory_peak_bytes);
bool cage_hit_memory(const struct cage *g); /* the kernel killed in it for want of memory */

#endif
