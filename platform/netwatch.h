/* netwatch.h: tells when this machine got an address or a route: a modem has dialled in, a cable was plugged.
 *
 * Linux says so by itself (rtnetlink), to everybody; nothing is polled.  Several such words within a moment are told once.  Thread: the
 * loop's. */
#ifndef PLATFORM_NETWATCH_H
#define PLATFORM_NETWATCH_H

#include "platform/fault.h"
#include "platform/loop.h"

struct netwatch {
    struct loop *loop;
    struct loop_fd watch;
    struct loop_timer settle;
    int fd; /* -1: closed */
    void (*came)(void *context);
    void *context;
};

/* E_SYSTEM: this machine does not tell (a sandbox without netlink). */
enum grey_error netwatch_open(struct netwatch *w, struct loop *loop, void (*came)(void *context), void *context, struct fault *f);
void netwatch_close(struct netwatch *w); /* also after an open that failed, or none (all zero) */

#endif
