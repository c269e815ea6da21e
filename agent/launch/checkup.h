/* checkup.h: grey-launch --probe: is somebody well at a port of this machine?  A process of its own, in the group of the task it asks
 * about and with no more rights than that; it may block. */
#ifndef AGENT_LAUNCH_CHECKUP_H
#define AGENT_LAUNCH_CHECKUP_H

#include <stdbool.h>
#include <stdint.h>

/* path "": a connection is enough; else GET path must be answered with a status from 200 to 399. */
bool checkup(uint16_t port, unsigned timeout_s, const char *path);

#endif
