/* rundir.h: a folder for each run, runs/SCOPE-TOKEN: the mark that its token was used, what it wrote, and its working directory.
 *
 * It is made and synced before its process is, and what has a folder is never begun again.  When the site has the end of a run its
 * folder is `over` and may leave: the oldest first, when there are too many or they hold too much. */
#ifndef AGENT_LAUNCH_RUNDIR_H
#define AGENT_LAUNCH_RUNDIR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "platform/fault.h"

#define RUNDIR_KEPT_MAX 1000u                       /* folders that are over */
#define RUNDIR_KEPT_BYTES_MAX (64u * 1024u * 1024u) /* and what was written there */
#define RUNDIR_NAME_BYTES 48u
#define RUNDIR_WORK "work"   /* in such a folder: the working directory */
#define RUNDIR_BEGAN "began" /* in RUNDIR_IMAGE: crun has begun it */
#define RUNDIR_IMAGE "image" /* and what its image became */
#define RUNDIR_ABOVE 3       /* an exit status */

struct rundir {
    int folder; /* -1: closed */
    uint64_t kept_bytes;
};

enum grey_error rundir_open(struct rundir *d, const char *parent, struct fault *f); /* makes parent/runs */
void rundir_close(struct rundir *d);                                                /* harmless when closed */
void rundir_name(char out[RUNDIR_NAME_BYTES], uint64_t scope, uint64_t token);
/* *fd: of the new folder, the caller's.  E_CONDITION: the run was begun before; E_IO. */
enum grey_error rundir_make(struct rundir *d, uint64_t scope, uint64_t token, int *fd);
/* For a run that may be begun again after its process is certainly gone.  E_CONDITION: the site has its end already; E_IO. */
enum grey_error rundir_again(struct rundir *d, uint64_t scope, uint64_t token, int *fd);
int rundir_find(const struct rundir *d, uint64_t scope, uint64_t token); /* a descriptor, the caller's; -1: there is none */
bool rundir_make_image(int fd, bool change, uid_t uid, gid_t gid);       /* an empty RUNDIR_IMAGE; change: it is that user's */
bool rundir_image_began(int fd);
/* Do the working directory and the image hold more than that on disk?  A process of its own looks, which ends with RUNDIR_ABOVE, or 0, and
 * is the caller's to reap; -1: there is none. */
pid_t rundir_weigh(int fd, uint64_t bytes_max);
void rundir_work_done(int fd);                                      /* takes both away at once; their room is free a little later */
void rundir_over(struct rundir *d, uint64_t scope, uint64_t token); /* harmless without a folder */

#endif
