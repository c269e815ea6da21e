/* child.h: one process becomes a task's: into its group, out of every right that the launcher has, then exec. */
#ifndef AGENT_LAUNCH_CHILD_H
#define AGENT_LAUNCH_CHILD_H

#include <sys/types.h>

#include "agent/launch/cage.h"
#include "agent/launch/sieve.h"

struct child_user {
    bool change;        /* the launcher is root: become this user */
    bool no_image_root; /* images that ask for root inside are refused */
    uid_t uid;
    gid_t gid;
};

struct child_plan {
    const struct launch_message *start;
    const struct cage *cage; /* NULL: rlimits alone */
    const struct sieve *sieve;
    const struct child_user *user;
    int work_folder;           /* becomes its working directory */
    const char *work_path;     /* its $HOME */
    int input, output, errors; /* become 0, 1, 2 */
    char *self_path;           /* runs in place of LAUNCHWIRE_SELF; NULL: nothing does */
    const int *stored;         /* of each file of start that is LAUNCH_FILE_STORED a descriptor; NULL: no files */
    const char *runs_path;     /* where the directories of all runs are */
    const char *image_path;    /* becomes the bundle of start->image */
    pid_t beside;              /* a probe: of the run in whose namespaces it goes; 0: none */
};

/* Starts it as the leader of a session and process group of its own.  *status_fd: a pipe that ends without a word when the program has
 * begun, or gives an int: the errno of what failed, or less than 0 an enum launch_end, of which standard error says more.  pid, or -1 and
 * errno. */
pid_t child_start(const struct child_plan *p, int *status_fd);

#endif
