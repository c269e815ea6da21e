/* launcher.h: greyd's end of the link to grey-launch: finds it, starts one of its own where none is, and tries again when it goes.
 * Thread: the loop's. */
#ifndef AGENT_LAUNCHER_H
#define AGENT_LAUNCHER_H

#include "agent/launch/launchwire.h"
#include "platform/loop.h"

struct launcher;

struct launcher_events {
    void (*up)(void *context); /* connected; LAUNCH_LIST is asked already */
    void (*down)(void *context);
    void (*message)(void *context, const struct launch_message *m); /* what launchwire_is_order is false of; lent */
};

struct launcher_options {
    struct loop *loop;
    const char *
        socket_path; /* of a launcher that others start, as root it may be; "": the one in data_dir/tasks; "own": the same, started from here if need be */
    const char *data_dir;
};

struct launcher *launcher_new(const struct launcher_options *o, const struct launcher_events *events, void *context,
                              struct fault *f); /* copies; `up` comes on a later turn */
void launcher_free(struct launcher *l);         /* what it runs goes on */
bool launcher_up(const struct launcher *l);
size_t launcher_queued(const struct launcher *l);                       /* bytes that it has not taken yet */
void launcher_send(struct launcher *l, const struct launch_message *m); /* lost when it is not up */

#endif
