/* isolate.h: namespaces of a run.  They are made by its user, in a user namespace of its own (user_namespaces(7)), so that the launcher
 * needs no right for it; a kernel that forbids that to users refuses the run.
 *
 * A run with processes of its own is three: the keeper, whom the launcher knows, and who ends as the task ended; the first process of the
 * namespace, which clears away; and the task.  When one of the two dies, so does all of the rest.  Thread: a child between fork and exec. */
#ifndef AGENT_LAUNCH_ISOLATE_H
#define AGENT_LAUNCH_ISOLATE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Leaves for new namespaces; as_root: the user is 0 inside.  false and errno. */
bool isolate_enter(uint32_t flags, bool as_root);
/* With LAUNCH_ISOLATE_PID, after enter: goes on in the first process of the new namespace.  *end_fd: for attend. */
bool isolate_split(int *end_fd);
/* What it sees of files: with PID its own /proc; with MOUNT an empty /tmp, and of runs_path only the working directory, which is the
 * current one and stays where it is. */
bool isolate_mounts(uint32_t flags, const char *runs_path, const char *work_path);
/* In the first process of the namespace: goes on in another, and tells the keeper how that ended.  close_fd: ends of a pipe that only
 * the other keeps. */
bool isolate_attend(int end_fd, const int close_fd[2]);
/* Of a run that the launcher knows by this pid, the process whose namespaces others may join: the keeper is a copy of the launcher, into
 * whose memory nobody may look, and the kernel takes the one for the other.  0: there is none. */
pid_t isolate_inside(pid_t pid, uint32_t flags);
bool isolate_join(pid_t pid, uint32_t flags); /* into those of that process, but not among its processes */

#endif
