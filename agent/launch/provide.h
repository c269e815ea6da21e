/* provide.h: files that a run is given, put into its working directory before it begins, by its user, so that it gets nothing that it could
 * not have read itself.  Each has the content that its SHA-256 names, or the run does not begin.  What is wrong is said on standard
 * error, which is the run's.  Thread: a child between fork and exec. */
#ifndef AGENT_LAUNCH_PROVIDE_H
#define AGENT_LAUNCH_PROVIDE_H

#include "agent/launch/launchwire.h"

/* Into the current directory.  stored: of each file that is LAUNCH_FILE_STORED a descriptor to read.  bytes_max: of all; 0: no bound. */
bool provide_files(const struct launch_files *files, const int stored[LAUNCHWIRE_FILES_MAX], uint64_t bytes_max);

#endif
