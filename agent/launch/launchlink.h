/* launchlink.h: messages over a unix socket between greyd and grey-launch: four bytes of length, big-endian, then so many bytes.
 * Thread: the loop's. */
#ifndef AGENT_LAUNCH_LAUNCHLINK_H
#define AGENT_LAUNCH_LAUNCHLINK_H

#include "platform/bytes.h"
#include "platform/loop.h"

struct launchlink {
    void (*message)(void *context, struct bytes message); /* lent; may close the link */
    void (*closed)(void *context); /* by the other side, or for a message that is too long; the link is closed already */
    void *context;
    struct loop *loop; /* NULL: not open */
    struct loop_fd fd;
    struct builder in, out;
    size_t sent; /* of out */
};

/* l: its callbacks are set.  Takes fd, also on error. */
enum grey_error launchlink_open(struct launchlink *l, struct loop *loop, int fd, struct fault *f);
void launchlink_close(struct launchlink *l); /* harmless when closed */
bool launchlink_is_open(const struct launchlink *l);
size_t launchlink_queued(const struct launchlink *l); /* bytes that wait to be sent */
/* Copies.  What cannot be queued (the other side reads nothing) closes the link on a later turn. */
void launchlink_send(struct launchlink *l, struct bytes message);

#endif
