/* image.h: an OCI image or bundle becomes a bundle of this run: a root file system and a config.json with the limits of the launcher, which
 * crun is then given.  It is done by the run's user.  Of a foreign bundle's configuration its arguments, variables, directory, user and root
 * are taken, and no right that it asks for.  Thread: a child between fork and exec. */
#ifndef AGENT_LAUNCH_IMAGE_H
#define AGENT_LAUNCH_IMAGE_H

#include "agent/launch/launchwire.h"
#include "platform/fault.h"

struct image_plan {
    const struct launch_message *start;
    const char *folder;     /* becomes the bundle; absolute, there, empty or of a former life of this run */
    const char *work_path;  /* seen inside as IMAGE_WORK */
    bool no_root;           /* who is to be root inside is refused */
    char *const *variables; /* of the launcher and the task; those of the image that have other names come behind them */
};

#define IMAGE_WORK "/grey" /* where it is inside */

bool image_prepare(const struct image_plan *p, struct fault *f);
/* Becomes crun, which runs it; returns only when that fails, with errno. */
void image_run(const struct image_plan *p);

#endif
