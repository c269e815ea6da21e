#include "agent/launch/launchlink.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/launch/launchwire.h"

#define HEAD_BYTES 4u
#define QUEUE_BYTES_MAX (8u * 1024u * 1024u)
#define READ_BYTES 16384u

bool launchlink_is_open(const struct launchlink *l) {
    return l->loop != NULL;
}

void launchlink_close(struct launchlink *l) {
    if (l->loop == NULL) {
        return;
    }
    int fd = l->fd.fd;
    loop_fd_remove(l->loop, &l->fd);
    (void)close(fd);
    builder_free(&l->in);
    builder_free(&l->out);
    l->loop = NULL;
}

static void fail(struct launchlink *l) {
    launchlink_close(l);
    l->closed(l->context);
}

/* Whole messages leave the head of `in`. */
static void take(struct launchlink *l) {
    size_t from = 0;
    while (l->in.size - from >= HEAD_BYTES) {
        uint32_t size = bytes_get_be32(l->in.data + from);
        if (size > LAUNCHWIRE_BYTES_MAX) {
            fail(l);
            return;
        }
        if (l->in.size - from < HEAD_BYTES + size) {
            break;
        }
        l->message(l->context, bytes_of(l->in.data + from + HEAD_BYTES, size));
        if (l->loop == NULL) {
            return;
        }
        from += HEAD_BYTES + size;
    }
    memmove(l->in.data, l->in.data + from, l->in.size - from);
    l->in.size -= from;
}

static void receive(struct launchlink *l) {
    for (;;) {
        uint8_t room[READ_BYTES];
        ssize_t got = recv(l->fd.fd, room, sizeof room, MSG_DONTWAIT);
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        builder_add(&l->in, bytes_of(room, got > 0 ? (size_t)got : 0));
        if (got <= 0 || l->in.err != E_OK) {
            fail(l);
            return;
        }
        take(l);
        if (l->loop == NULL || (size_t)got < sizeof room) {
            return;
        }
    }
}

static void transmit(struct launchlink *l) {
    while (l->sent < l->out.size) {
        ssize_t put = send(l->fd.fd, l->out.data + l->sent, l->out.size - l->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0 && errno != EAGAIN) {
            fail(l);
            return;
        }
        if (put < 0) {
            return;
        }
        l->sent += (size_t)put;
    }
    builder_reset(&l->out);
    l->sent = 0;
    loop_fd_events(l->loop, &l->fd, EPOLLIN);
}

static void ready(void *context, uint32_t events) {
    struct launchlink *l = context;
    if (l->out.err != E_OK) {
        fail(l);
        return;
    }
    if ((events & EPOLLOUT) != 0) {
        transmit(l);
    }
    if (l->loop != NULL && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
        receive(l);
    }
}

enum grey_error launchlink_open(struct launchlink *l, struct loop *loop, int fd, struct fault *f) {
    builder_init(&l->in, HEAD_BYTES + LAUNCHWIRE_BYTES_MAX + READ_BYTES);
    builder_init(&l->out, QUEUE_BYTES_MAX);
    l->sent = 0;
    l->fd = (struct loop_fd){.ready = ready, .context = l, .fd = -1};
    enum grey_error err = loop_fd_add(loop, &l->fd, fd, EPOLLIN, f);
    if (err != E_OK) {
        (void)close(fd);
        return err;
    }
    l->loop = loop;
    return E_OK;
}

size_t launchlink_queued(const struct launchlink *l) {
    return l->loop == NULL ? 0 : l->out.size - l->sent;
}

void launchlink_send(struct launchlink *l, struct bytes message) {
    if (l->loop == NULL) {
        return;
    }
    uint8_t head[HEAD_BYTES];
    bytes_put_be32(head, (uint32_t)message.size);
    builder_add(&l->out, bytes_of(head, sizeof head));
    builder_add(&l->out, message);
    loop_fd_events(l->loop, &l->fd, EPOLLIN | EPOLLOUT);
}
