#include "platform/conn_core.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "platform/log.h"

#define ACCEPT_PAUSE_MS 100u /* when the process has no descriptors left */
#define WAITING_MAX 64u      /* accepted and not open yet, per listener: a TLS handshake holds 36 KiB */

void conn_reached(struct conn *c) {
    if (c->o.tls == NULL) {
        conn_opened(c);
        return;
    }
    if (c->o.handshake_timeout_ms > 0) {
        c->deadline_ms = loop_now_ms(c->x.loop) + c->o.handshake_timeout_ms;
    }
    loop_timer_set(c->x.loop, &c->timer, c->deadline_ms);
    c->depth++;
    if (c->o.events->on_reached != NULL) {
        c->o.events->on_reached(c->o.context, c);
    }
    if (!c->dead && !c->shut) {
        conn_tls_start(c);
    }
    c->depth--;
    conn_free_if_unheld(c);
}

void conn_connected(struct conn *c) {
    if (!c->client && c->o.tls != NULL) {
        c->state = CONN_GREETED;
        (void)conn_watch(c, EPOLLIN | EPOLLRDHUP); /* a stranger costs little until it says something */
    } else if (c->client && c->o.proxy != NULL) {
        loop_timer_set(c->x.loop, &c->timer, c->deadline_ms);
        conn_proxy_ask(c);
    } else {
        conn_reached(c);
    }
}

/* --- dialling ------------------------------------------------------------------------------------------------------------------------------- */

void conn_connect_next(struct conn *c) {
    struct dialling *d = c->dialling;
    while (d->target_next < d->target_count) {
        uint32_t left = d->target_count - d->target_next;
        const struct sockaddr *target = (const struct sockaddr *)(const void *)&d->targets[d->target_next];
        socklen_t size = d->target_sizes[d->target_next++];
        int on = 1;
        if (c->fd >= 0) {
            struct conn_wire w;
            c->tried = conn_wired(c, &w) ? w : c->tried;
            c->tried.unsent_bytes = 0;
            loop_fd_remove(c->x.loop, &c->watch);
            (void)close(c->fd);
        }
        c->fd = socket(target->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (c->fd < 0) {
            continue;
        }
        if (target->sa_family != AF_UNIX) {
            (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        }
        if (connect(c->fd, target, size) == 0 || errno == EINPROGRESS) {
            uint64_t now_ms = loop_now_ms(c->x.loop);
            uint64_t rest_ms = c->deadline_ms > now_ms ? c->deadline_ms - now_ms : 0;
            c->state = CONN_CONNECTING;
            loop_timer_after(c->x.loop, &c->timer, rest_ms / left); /* an address that swallows packets leaves time for the next */
            (void)conn_watch(c, EPOLLOUT);
            return;
        }
    }
    conn_fail_errno(c, E_CONNECT, "connect");
}

static void resolve(struct conn *c, int flags) {
    struct dialling *d = c->dialling;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags}, *list = NULL;
    c->job_result = address_resolve(d->host, d->port, &hints, &list);
    for (const struct addrinfo *a = list; a != NULL && c->job_result == 0 && d->target_count < TARGETS_MAX; a = a->ai_next) {
        memcpy(&d->targets[d->target_count], a->ai_addr, a->ai_addrlen);
        d->target_sizes[d->target_count++] = a->ai_addrlen;
    }
    if (list != NULL) {
        freeaddrinfo(list);
    }
}

static void resolve_work(struct worker_job *job) {
    resolve((struct conn *)(void *)((char *)job - offsetof(struct conn, job)), 0);
}

static void resolve_done(struct worker_job *job) {
    struct conn *c = (struct conn *)(void *)((char *)job - offsetof(struct conn, job));
    c->job_runs = false;
    if (c->dead) {
        conn_free_if_unheld(c);
    } else if (!c->shut && c->job_result != 0) {
        conn_fail(c, E_CONNECT, gai_strerror(c->job_result));
    } else if (!c->shut) {
        conn_connect_next(c);
    }
}

/* The first connect is put off to the next turn, so that no callback comes before conn_dial has returned. */
static void start_dial(void *context) {
    struct conn *c = context;
    c->timer.fire = conn_open_timeout;
    loop_timer_set(c->x.loop, &c->timer, c->deadline_ms);
    if (c->dialling->target_count > 0) {
        conn_connect_next(c);
        return;
    }
    c->job.work = resolve_work;
    c->job.done = resolve_done;
    c->job_runs = true;
    if (worker_submit(c->x.crypto, &c->job) != E_OK) {
        c->job_runs = false;
        conn_fail(c, E_BUSY, "too many names to resolve at once");
    }
}

static enum grey_error prepare_dial(struct conn *c, const char *address, struct fault *f) {
    struct dialling *d = c->dialling = mem_new(1, sizeof *d);
    c->peer_address = mem_new(strlen(address) + 1, 1);
    if (d == NULL || c->peer_address == NULL) {
        return fault_set(f, E_NO_MEMORY, "connection");
    }
    memcpy(c->peer_address, address, strlen(address) + 1);
    if (c->o.expected_host != NULL) {
        if (strlen(c->o.expected_host) >= sizeof d->expected_host) {
            return fault_set(f, E_CONNECT, "the name '%.60s...' is too long for a certificate", c->o.expected_host);
        }
        memcpy(d->expected_host, c->o.expected_host, strlen(c->o.expected_host) + 1);
        c->o.expected_host = d->expected_host;
    }
    builder_init(&d->proxy_answer, CONN_PROXY_ANSWER_BYTES);
    if (address_is_unix(address) && c->o.proxy == NULL) {
        struct sockaddr_un u;
        enum grey_error err = address_unix(address, &u, f);
        if (err == E_OK) {
            memcpy(&d->targets[0], &u, sizeof u);
            d->target_sizes[0] = sizeof u;
            d->target_count = 1;
        }
        return err;
    }
    enum grey_error err = address_split(c->o.proxy != NULL ? c->o.proxy->address : address, d->host, d->port, f);
    if (err == E_OK) {
        resolve(c, AI_NUMERICHOST);
    }
    return err;
}

struct conn *conn_dial(const struct conn_context *x, const char *address, const struct conn_options *o, struct fault *f) {
    struct conn *c = mem_new(1, sizeof *c);
    if (c == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "connection");
        return NULL;
    }
    conn_set_up(c, x, o, -1);
    c->client = true;
    if (prepare_dial(c, address, f) != E_OK) {
        conn_close(c);
        return NULL;
    }
    c->timer.fire = start_dial;
    loop_timer_after(x->loop, &c->timer, 0);
    return c;
}

void conn_dialled(struct conn *c) {
    if (c->dialling != NULL) {
        builder_free(&c->dialling->proxy_answer);
        mem_free(c->dialling);
        c->dialling = NULL;
    }
}

/* --- listening ------------------------------------------------------------------------------------------------------------------------------- */

static void accept_again(void *context) {
    struct conn_listener *l = context;
    loop_fd_events(l->x.loop, &l->watch, EPOLLIN);
}

static void start_accepted(struct conn_listener *l, struct conn *c, const struct sockaddr_storage *from) {
    char text[80];
    address_describe(from, text, sizeof text);
    c->peer_address = mem_new(strlen(text) + 1, 1);
    if (c->peer_address != NULL) {
        memcpy(c->peer_address, text, strlen(text) + 1);
    }
    if (l->waiting_count >= WAITING_MAX) { /* an honest handshake takes a moment: the oldest is the least likely to become one */
        log_limited(LOG_WARN, "conn", "crowded", "address=%s gives way: %u connections wait for their handshake",
                    conn_peer_address(l->first), l->waiting_count);
        conn_fail(l->first, E_BUSY, "too many handshakes at once");
    }
    c->listener = l;
    c->previous = l->last;
    *(l->last == NULL ? &l->first : &l->last->next) = c;
    l->last = c;
    l->waiting_count++;
    conn_connected(c);
}

static void on_acceptable(void *context, uint32_t events) {
    struct conn_listener *l = context;
    (void)events;
    for (int i = 0; i < 64; i++) {
        struct sockaddr_storage from = {0};
        socklen_t size = sizeof from;
        int fd = accept4(l->fd, (struct sockaddr *)(void *)&from, &size, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
                log_limited(LOG_ERROR, "conn", "accept", "no descriptors or memory left for a new connection");
                loop_fd_events(l->x.loop, &l->watch, 0);
                loop_timer_after(l->x.loop, &l->pause, ACCEPT_PAUSE_MS);
            }
            return;
        }
        struct conn_options o = {0};
        struct conn *c = mem_new(1, sizeof *c); /* before the owner makes an object for it */
        if (c == NULL || !l->accepted(l->context, &o)) {
            mem_free(c);
            (void)close(fd);
            continue;
        }
        conn_set_up(c, &l->x, &o, fd);
        start_accepted(l, c, &from);
    }
}

struct conn_listener *conn_listen(const struct conn_context *x, const char *address,
                                  bool (*accepted)(void *context, struct conn_options *o), void *context, struct fault *f) {
    struct conn_listener *l = mem_new(1, sizeof *l);
    if (l == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "listening");
        return NULL;
    }
    l->x = *x;
    l->accepted = accepted;
    l->context = context;
    l->watch = (struct loop_fd){.ready = on_acceptable, .context = l, .fd = -1};
    l->pause = (struct loop_timer){.fire = accept_again, .context = l};
    l->fd = address_listen(address, l->unix_path, f);
    if (l->fd < 0 || loop_fd_add(x->loop, &l->watch, l->fd, EPOLLIN, f) != E_OK) {
        conn_listener_close(l);
        return NULL;
    }
    return l;
}

void conn_listener_close(struct conn_listener *l) {
    if (l == NULL) {
        return;
    }
    loop_timer_cancel(l->x.loop, &l->pause);
    loop_fd_remove(l->x.loop, &l->watch);
    while (l->first != NULL) {
        conn_fail(l->first, E_STOPPING, "the listener was closed");
    }
    if (l->fd >= 0) {
        (void)close(l->fd);
    }
    if (l->unix_path[0] != 0) {
        (void)unlink(l->unix_path);
    }
    mem_free(l);
}

uint16_t conn_listener_port(const struct conn_listener *l) {
    struct sockaddr_storage s = {0};
    socklen_t size = sizeof s;
    if (getsockname(l->fd, (struct sockaddr *)(void *)&s, &size) != 0) {
        return 0;
    }
    return s.ss_family == AF_INET    ? ntohs(((const struct sockaddr_in *)(const void *)&s)->sin_port)
           : s.ss_family == AF_INET6 ? ntohs(((const struct sockaddr_in6 *)(const void *)&s)->sin6_port)
                                     : 0;
}

void conn_leave_listener(struct conn *c) {
    struct conn_listener *l = c->listener;
    if (l != NULL) {
        *(c->previous == NULL ? &l->first : &c->previous->next) = c->next;
        *(c->next == NULL ? &l->last : &c->next->previous) = c->previous;
        l->waiting_count--;
        c->listener = NULL;
    }
}
