#include "platform/netwatch.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdalign.h>
#include <sys/socket.h>
#include <unistd.h>

#define SETTLE_MS 500u /* an interface that comes up says several things */

static void on_settled(void *context) {
    struct netwatch *w = context;
    w->came(w->context);
}

static void note_arrival(struct netwatch *w) {
    if (w->settle.place == 0) {
        loop_timer_after(w->loop, &w->settle, SETTLE_MS);
    }
}

static void on_readable(void *context, uint32_t events) {
    struct netwatch *w = context;
    alignas(struct nlmsghdr) char room[8192];
    (void)events;
    for (;;) {
        ssize_t got = recv(w->fd, room, sizeof room, 0);
        if (got < 0 && errno == ENOBUFS) { /* so much was said that something was lost: it may have been that */
            note_arrival(w);
            continue;
        }
        if (got <= 0) {
            return;
        }
        unsigned left = (unsigned)got;
        for (const struct nlmsghdr *m = (const struct nlmsghdr *)(const void *)room; NLMSG_OK(m, left); m = NLMSG_NEXT(m, left)) {
            if (m->nlmsg_type == RTM_NEWADDR || m->nlmsg_type == RTM_NEWROUTE) {
                note_arrival(w);
            }
        }
    }
}

enum grey_error netwatch_open(struct netwatch *w, struct loop *loop, void (*came)(void *context), void *context, struct fault *f) {
    struct sockaddr_nl address = {.nl_family = AF_NETLINK,
                                  .nl_groups = RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE};
    *w = (struct netwatch){.loop = loop, .came = came, .context = context, .fd = -1};
    w->settle = (struct loop_timer){.fire = on_settled, .context = w};
    w->watch = (struct loop_fd){.ready = on_readable, .context = w, .fd = -1};
    w->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
    if (w->fd < 0 || bind(w->fd, (const struct sockaddr *)(const void *)&address, sizeof address) != 0) {
        return fault_errno(f, E_SYSTEM, "netlink");
    }
    return loop_fd_add(loop, &w->watch, w->fd, EPOLLIN, f);
}

void netwatch_close(struct netwatch *w) {
    if (w->loop == NULL) {
        return;
    }
    loop_timer_cancel(w->loop, &w->settle);
    loop_fd_remove(w->loop, &w->watch);
    if (w->fd >= 0) {
        (void)close(w->fd);
        w->fd = -1;
    }
}
