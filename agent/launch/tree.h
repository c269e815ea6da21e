/* tree.h: trees of files that a task left, which may be anything: as deep and as wide as it liked.  Nothing here follows a link.
 *
 * What is to go is moved into the folder TREE_GONE beside it, which is done at once; a sweep removes what lies there, one folder after the
 * other: each folder in it is moved up before its own is removed, so that no depth is too deep.  What a sweep leaves, for the machine was
 * off or the disk failed, the next one takes. */
#ifndef AGENT_LAUNCH_TREE_H
#define AGENT_LAUNCH_TREE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define TREE_GONE "gone"
#define TREE_DEPTH_MAX 128u          /* of one that is counted */
#define TREE_ENTRY_BYTES_LEAST 4096u /* what each name counts, so that bytes bound how many there are */

/* Takes what a folder holds on disk from *left.  False: it holds more, or is deeper than TREE_DEPTH_MAX; nothing is within any bounds. */
bool tree_within(int at, const char *name, uint64_t *left);
bool tree_move_away(int at, const char *name); /* or removes it, if it is small; false, errno: it is still there */
bool tree_sweep(int at);                       /* false: something could not be removed */
void tree_sweep_apart(int at); /* in a process of its own, which is for the caller's wait(2); nobody asks how it went */
/* fork(2) for work that takes its time and nobody waits for: the child keeps of the descriptors only this one and ends with its parent. */
pid_t tree_fork(int kept_fd);

#endif
