/* rollout.h: does a new version go on to more sites, wait, or go back?  Computes only.
 *
 * Stages are sites with a label each; a new version goes to the sites of the first stage, and on to those of the next when all that were
 * reached have had it in force for the time to soak and none says that it fails; behind the last stage to all.  When one says that it
 * fails, all go back to the version before. */
#ifndef CORE_ROLLOUT_H
#define CORE_ROLLOUT_H

#include <stdbool.h>
#include <stdint.h>

#define ROLLOUT_STAGES_MAX 16u
#define ROLLOUT_SOAK_S_MAX (30u * 24 * 3600)
#define ROLLOUT_LABEL_BYTES_MAX 128u

enum rollout_state { ROLLOUT_DONE = 0, ROLLOUT_RUNNING = 1, ROLLOUT_BACK = 2 }; /* numbers stand in the store */

struct rollout {
    enum rollout_state state;
    uint32_t stage, stage_count;
    uint32_t soak_s;  /* of this stage */
    int64_t since_ms; /* this stage began */
};

/* Sites that the stages so far reach and that take objects. */
struct rollout_tally {
    uint64_t reached;
    uint64_t
        settled; /* of these: have it in force since the time to soak, and do not say that it fails; of an update: say that it is well */
    uint64_t failed;
};

enum rollout_step { ROLLOUT_WAIT, ROLLOUT_ON, ROLLOUT_ALL, ROLLOUT_REVERT };
enum rollout_step rollout_next(const struct rollout *r, const struct rollout_tally *t, int64_t now_ms);

const char *rollout_state_name(enum rollout_state s); /* "done", "running", "rolled-back" */

#endif
