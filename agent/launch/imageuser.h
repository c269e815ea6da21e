/* imageuser.h: as whom the program of an image sees itself: the `User` of its configuration (OCI image-spec, config.md), a number or a name
 * of the image's own /etc/passwd, and behind a colon a group likewise.  Outside it is the task's user in any case.  Thread: a child between
 * fork and exec. */
#ifndef AGENT_LAUNCH_IMAGEUSER_H
#define AGENT_LAUNCH_IMAGEUSER_H

#include <stdbool.h>
#include <stdint.h>

#include "platform/fault.h"

struct imageuser {
    uint32_t uid, gid;
};

/* text: NULL or empty: root.  root: path of the image's files, none of which leads outside.  False: f says what is not there. */
bool imageuser_find(const char *text, const char *root, struct imageuser *u, struct fault *f);

#endif
