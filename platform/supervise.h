/* supervise.h: what the service manager hears of this process (the protocol of sd_notify: datagrams to $NOTIFY_SOCKET) and its watchdog.
 *
 * While it starts, the manager is asked for patience; from supervise_ready on, WATCHDOG=1 is sent three times per watchdog time by a timer
 * of the loop, and only if `alive` says so: a loop that hangs sends nothing, nor does one whose work does not get on.  Without a manager
 * everything here does nothing.  A word that cannot be delivered is dropped: the manager's own time-outs judge.  Thread: the loop's. */
#ifndef PLATFORM_SUPERVISE_H
#define PLATFORM_SUPERVISE_H

#include <sys/socket.h>
#include <sys/un.h>

#include "platform/fault.h"
#include "platform/loop.h"

struct supervise_options {
    const char *socket, *watchdog_usec, *watchdog_pid; /* $NOTIFY_SOCKET, $WATCHDOG_USEC, $WATCHDOG_PID; NULL: not set */
    /* Does the work get on?  Asked before each WATCHDOG=1; why (of `size` bytes) is told to the manager once when it does not. */
    bool (*alive)(void *context, char *why, size_t size);
    void *context;
};

struct supervise {
    struct loop *loop;
    struct supervise_options o;
    struct sockaddr_un address;
    socklen_t address_size; /* 0: no manager */
    int fd;
    uint64_t beat_ms; /* 0: no watchdog */
    bool ready, starved;
    struct loop_timer timer;
};

/* Says that the start may take long (reading a large log, mending it with others), again and again until supervise_ready.  Copies o; its
 * texts need not live on.  E_CONFIG: the variables make no sense. */
enum grey_error supervise_begin(struct supervise *s, struct loop *l, const struct supervise_options *o, struct fault *f);
void supervise_ready(struct supervise *s, const char *status); /* status: one line for `systemctl status` */
void supervise_status(struct supervise *s, const char *status);
void supervise_reloading(struct supervise *s); /* then, when that is done, supervise_ready */
void supervise_stopping(struct supervise *s);
void supervise_end(struct supervise *s); /* before the loop is freed; also of one that is all zero */

#endif
