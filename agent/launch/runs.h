/* runs.h: the runs of this machine: begun once each, watched, bounded, stopped, and remembered until the site knows their end.  Each has
 * a folder (rundir.h). */
#ifndef AGENT_LAUNCH_RUNS_H
#define AGENT_LAUNCH_RUNS_H

#include "agent/launch/cage.h"
#include "agent/launch/child.h"
#include "platform/loop.h"

#define RUNS_MAX 1024u /* at a time, with those whose end was not heard yet */

struct runs;

struct runs_options {
    struct loop *loop;
    const char *dir;
    const struct cages *cages;
    struct child_user user;
    uint64_t artifact_bytes_max;                                        /* on the shelf */
    void (*changed)(void *context, const struct launch_message *state); /* a LAUNCH_STATE, LAUNCH_USE or LAUNCH_STORED, lent */
    void *context;
};

struct runs *runs_new(const struct runs_options *o, struct fault *f);             /* copies; dir exists */
void runs_free(struct runs *r);                                                   /* kills what runs */
void runs_start(struct runs *r, const struct launch_message *start);              /* told by `changed`, at once or later */
void runs_stop(struct runs *r, uint64_t scope, uint64_t token, uint32_t most_ms); /* or the run's own grace, if that is shorter */
void runs_stop_all(struct runs *r, uint32_t grace_ms);
/* The site has its end, so that its folder may leave in time; harmless while it runs, and for one that never was. */
void runs_forget(struct runs *r, uint64_t scope, uint64_t token);
void runs_lease(struct runs *r, uint64_t until_ms); /* by loop_now_ms; what was granted is not taken back */
void runs_tell(struct runs *r);                     /* `changed` for each */
void runs_measure(struct runs *r);                  /* `changed` for each that goes on, with a LAUNCH_USE */
uint32_t runs_live(const struct runs *r);
void runs_reap(struct runs *r);                                     /* at SIGCHLD */
void runs_store(struct runs *r, const struct launch_message *part); /* a LAUNCH_STORE; `changed` with LAUNCH_STOREDs (shelf.h) */
enum grey_error runs_read(struct runs *r, const struct launch_message *read, struct builder *data, uint64_t *from, uint64_t *end);

#endif
