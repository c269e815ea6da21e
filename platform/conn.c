#include "platform/conn_core.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "include/grey/must.h"

#define PEER_GROUPS_MAX 256u           /* who has more is known by his first group only */
#define READ_TURN_BYTES (256u * 1024u) /* then the others get their turn */
#define OPEN_TIMEOUT_MS 10000u
#define LINGER_MS 2000u  /* after the last byte: until the other side has read it and closes */
#define FINISH_MS 10000u /* without progress of the last output: the other side does not read */

static uint8_t scratch[CONN_READ_BYTES]; /* one for all, on the loop's thread: plain bytes on their way to on_bytes */

void conn_free_if_unheld(struct conn *c) {
    if (!c->dead || c->depth > 0 || c->job_runs) {
        return;
    }
    conn_tls_end(c);
    if (c->fd >= 0) {
        (void)close(c->fd);
    }
    builder_free(&c->in);
    builder_free(&c->out);
    conn_dialled(c);
    mem_free(c->names);
    mem_free(c->peer_address);
    mem_free(c);
}

void conn_close(struct conn *c) {
    if (c == NULL || c->dead) {
        return;
    }
    if (c->ssl != NULL && c->state == CONN_OPEN && !c->job_runs && c->tls_pending == 0) {
        conn_tls_notify(c);
    }
    c->dead = true;
    conn_leave_listener(c);
    loop_timer_cancel(c->x.loop, &c->timer);
    loop_fd_remove(c->x.loop, &c->watch);
    conn_free_if_unheld(c);
}

void conn_fail(struct conn *c, enum grey_error why, const char *detail) {
    if (c->dead || c->shut) {
        return;
    }
    c->shut = true;
    conn_leave_listener(c);
    loop_timer_cancel(c->x.loop, &c->timer);
    loop_fd_remove(c->x.loop, &c->watch);
    c->depth++;
    c->o.events->on_closed(c->o.context, c, why, detail);
    c->depth--;
    c->dead = true;
    conn_free_if_unheld(c);
}

void conn_fail_errno(struct conn *c, enum grey_error why, const char *what) {
    char text[200], reason[96];
    (void)snprintf(text, sizeof text, "%s: %s", what, strerror_r(errno, reason, sizeof reason));
    conn_fail(c, why, text);
}

static void on_ready(void *context, uint32_t events);

void conn_set_up(struct conn *c, const struct conn_context *x, const struct conn_options *o, int fd) {
    c->x = *x;
    c->o = *o;
    c->fd = fd;
    c->watch = (struct loop_fd){.ready = on_ready, .context = c, .fd = -1};
    c->timer = (struct loop_timer){.fire = conn_open_timeout, .context = c};
    c->deadline_ms = loop_now_ms(x->loop) + (o->open_timeout_ms == 0 ? OPEN_TIMEOUT_MS : o->open_timeout_ms);
    builder_init(&c->in, o->input_limit_bytes + CONN_READ_BYTES);
    builder_init(&c->out, o->output_limit_bytes);
    builder_init(&c->sealed, CONN_READ_BYTES);
    loop_timer_set(x->loop, &c->timer, c->deadline_ms);
}

void conn_open_timeout(void *context) {
    struct conn *c = context;
    if (c->state == CONN_CONNECTING && c->dialling->target_next < c->dialling->target_count) {
        errno = ETIMEDOUT;
        conn_connect_next(c);
        return;
    }
    conn_fail(c, c->state == CONN_HANDSHAKE || c->state == CONN_GREETED ? E_TLS : E_CONNECT,
              c->state == CONN_PROXY ? "the proxy does not answer in time" : "no answer in time");
}

bool conn_watch(struct conn *c, uint32_t events) {
    struct fault f = {0};
    if (c->watch.generation > 0) {
        loop_fd_events(c->x.loop, &c->watch, events);
        return true;
    }
    if (loop_fd_add(c->x.loop, &c->watch, c->fd, events, &f) != E_OK) {
        conn_fail(c, f.code, f.text);
        return false;
    }
    return true;
}

static size_t out_left(const struct conn *c) {
    return c->out.size - c->out_at;
}

static void watch_open(struct conn *c) {
    bool want_out = (out_left(c) > 0 || c->tls_pending > 0) && !c->gate_shut;
    (void)conn_watch(c, (c->deaf ? 0u : EPOLLIN | EPOLLRDHUP) | (want_out ? EPOLLOUT : 0u));
}

/* --- bytes to and from the socket ---------------------------------------------------------------------------------------------------------- */

ssize_t conn_socket_send(struct conn *c, const uint8_t *data, size_t size) {
    if (c->gate != NULL && c->state == CONN_OPEN) { /* a handshake runs on another thread, and is counted afterwards */
        size_t granted = c->gate(c->gate_context, size);
        if (granted == 0) {
            c->gate_shut = true;
            errno = EAGAIN;
            return -1;
        }
        size = granted < size ? granted : size;
    }
    ssize_t sent = send(c->fd, data, size, MSG_NOSIGNAL);
    if (sent > 0) {
        c->count.out_bytes += (uint64_t)sent;
    }
    return sent;
}

ssize_t conn_socket_receive(struct conn *c, uint8_t *data, size_t size) {
    ssize_t got = recv(c->fd, data, size, 0);
    if (got > 0) {
        c->count.in_bytes += (uint64_t)got;
    }
    return got;
}

/* As send(2): bytes taken, or -1 with errno EAGAIN. */
static ssize_t stream_send(struct conn *c, const uint8_t *data, size_t size) {
    return c->ssl == NULL ? conn_socket_send(c, data, size) : conn_tls_send(c, data, size);
}

static ssize_t stream_receive(struct conn *c, uint8_t *data, size_t size) {
    return c->ssl == NULL ? conn_socket_receive(c, data, size) : conn_tls_receive(c, data, size);
}

/* --- the last output -------------------------------------------------------------------------------------------------------------------- */

static void on_linger_timeout(void *context) {
    conn_fail(context, E_CLOSED, "finished; the other side did not close");
}

static void on_finish_timeout(void *context) {
    struct conn *c = context;
    if (c->count.out_bytes == c->seen_out_bytes) {
        conn_fail(c, E_TIMEOUT, "the other side does not read what it asked for");
        return;
    }
    c->seen_out_bytes = c->count.out_bytes;
    loop_timer_after(c->x.loop, &c->timer, FINISH_MS);
}

/* All is written.  To close now would let bytes that still come reset the connection, and with it the answer that is on its way. */
static void half_shut(struct conn *c) {
    if (c->half_shut) {
        return;
    }
    c->half_shut = true;
    c->paused = c->deaf = false;
    if (c->ssl != NULL) {
        conn_tls_notify(c);
    }
    (void)shutdown(c->fd, SHUT_WR);
    c->timer.fire = on_linger_timeout;
    loop_timer_after(c->x.loop, &c->timer, LINGER_MS);
}

void conn_finish(struct conn *c) {
    if (c->dead || c->shut || c->finishing) {
        return;
    }
    c->finishing = true;
    if (c->state != CONN_OPEN) {
        return; /* until it is open its own deadline holds */
    }
    c->seen_out_bytes = c->count.out_bytes;
    c->timer.fire = on_finish_timeout;
    loop_timer_after(c->x.loop, &c->timer, FINISH_MS);
    if (out_left(c) == 0) {
        half_shut(c);
    }
    if (c->watch.generation > 0) {
        watch_open(c);
    }
}

/* Writes what it can.  False: the connection has failed. */
static bool flush(struct conn *c) {
    bool had = out_left(c) > 0;
    while (out_left(c) > 0 && !c->gate_shut) {
        ssize_t sent = stream_send(c, c->out.data + c->out_at, out_left(c));
        if (sent < 0) {
            if (errno == EAGAIN || errno == EINTR) {
                break;
            }
            conn_fail_errno(c, E_CLOSED, "send");
            return false;
        }
        c->out_at += (size_t)sent;
    }
    if (out_left(c) == 0 && had) {
        builder_free(&c->out);
        c->out_at = 0;
        if (c->finishing) {
            half_shut(c);
            return true;
        }
        if (c->o.events->on_drained != NULL) {
            c->depth++;
            c->o.events->on_drained(c->o.context, c);
            c->depth--;
            if (c->dead) {
                conn_free_if_unheld(c);
                return false;
            }
        }
    }
    return true;
}

enum grey_error conn_write(struct conn *c, struct bytes out) {
    if (c->dead || c->shut || c->finishing) {
        return E_CLOSED;
    }
    if (out.size > c->out.limit_bytes - out_left(c)) {
        return E_BUSY;
    }
    if (c->state == CONN_OPEN && out_left(c) == 0 && c->tls_pending == 0 && !c->gate_shut) {
        while (out.size > 0) {
            ssize_t sent = stream_send(c, out.data, out.size);
            if (sent < 0) {
                break; /* a broken connection shows itself on the next turn */
            }
            out = bytes_of(out.data + sent, out.size - (size_t)sent);
        }
    }
    if (out.size == 0) {
        return E_OK;
    }
    if (c->out_at > 0 && (c->out_at >= out_left(c) || out.size > c->out.limit_bytes - c->out.size)) {
        memmove(c->out.data, c->out.data + c->out_at, out_left(c));
        c->out.size = out_left(c);
        c->out_at = 0;
    }
    builder_add(&c->out, out);
    if (c->out.err != E_OK) { /* memory is out: part may have left already, so the stream cannot go on */
        c->out.err = E_OK;
        c->gate_shut = false;
        (void)shutdown(c->fd, SHUT_RDWR);
        return E_NO_MEMORY;
    }
    if (c->state == CONN_OPEN) {
        watch_open(c);
    }
    return E_OK;
}

/* Shows the owner what there is; keeps what it does not use.  False: the connection is gone. */
static bool deliver(struct conn *c, struct bytes fresh) {
    struct bytes all = fresh;
    if (c->in.size > 0) {
        builder_add(&c->in, fresh);
        if (c->in.err != E_OK) {
            conn_fail(c, c->in.err, "input buffer");
            return false;
        }
        all = builder_bytes(&c->in);
    }
    c->depth++;
    size_t used = c->o.events->on_bytes(c->o.context, c, all);
    c->depth--;
    if (c->dead) {
        conn_free_if_unheld(c);
        return false;
    }
    must(used <= all.size);
    size_t left = all.size - used;
    if (left > c->o.input_limit_bytes) {
        conn_fail(c, E_TOO_LARGE, "the other side sends more than one message may hold");
        return false;
    }
    if (left == 0) {
        builder_free(&c->in);
    } else if (c->in.size > 0) {
        memmove(c->in.data, c->in.data + used, left);
        c->in.size = left;
    } else {
        builder_add(&c->in, bytes_of(all.data + used, left));
        if (c->in.err != E_OK) {
            conn_fail(c, c->in.err, "input buffer");
            return false;
        }
    }
    return true;
}

/* After the last output: throws away what still comes, until the end. */
static void discard(struct conn *c) {
    ssize_t got = recv(c->fd, scratch, sizeof scratch, 0);
    if (got > 0) {
        c->count.in_bytes += (uint64_t)got;
    } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
        conn_fail(c, E_CLOSED, "finished");
    }
}

/* What one recv holds for a plain conn, all records at hand for a TLS one.  True: it stopped with records at hand. */
static bool receive_some(struct conn *c) {
    size_t total = 0;
    for (;;) {
        ssize_t got = stream_receive(c, scratch, sizeof scratch);
        if (got == 0) {
            conn_fail(c, E_CLOSED, "");
            return false;
        }
        if (got < 0 && errno == EPROTO) {
            char text[128];
            conn_fail(c, E_TLS, conn_tls_text(c->job_result, text));
            return false;
        }
        if (got < 0) {
            if (errno != EAGAIN && errno != EINTR) {
                conn_fail_errno(c, E_CLOSED, "receive");
            }
            return false;
        }
        total += (size_t)got;
        if (!deliver(c, bytes_of(scratch, (size_t)got)) || c->paused || c->half_shut || c->shut) {
            return false;
        }
        if (c->ssl == NULL ? (size_t)got < sizeof scratch || total >= READ_TURN_BYTES : total >= READ_TURN_BYTES) {
            return c->ssl != NULL; /* a short read emptied the socket: epoll tells of more */
        }
    }
}

static void receive(struct conn *c);

static void on_put_off(void *context) {
    struct conn *c = context;
    c->depth++;
    if (!c->paused) {
        receive(c);
    }
    if (!c->dead && !c->shut) {
        watch_open(c);
    }
    c->depth--;
    conn_free_if_unheld(c);
}

/* Bytes that are here already cause no event any more, so a timer stands in for it. */
static void put_off_read(struct conn *c) {
    bool waits = c->ssl != NULL && conn_tls_waits(c);
    if (waits && !c->paused && !c->finishing && !c->dead && !c->shut && c->state == CONN_OPEN) {
        c->timer.fire = on_put_off;
        loop_timer_after(c->x.loop, &c->timer, 0);
    }
}

/* The caller holds c by its depth. */
static void receive(struct conn *c) {
    if (c->half_shut) {
        discard(c);
        return;
    }
    if (c->ssl == NULL) {
        (void)receive_some(c);
        return;
    }
    conn_tls_receive_begin(c);
    bool more = receive_some(c);
    enum grey_error lost = conn_tls_receive_end(c);
    if (lost != E_OK) {
        conn_fail(c, lost, "input buffer");
    } else if (more) {
        put_off_read(c);
    }
}

void conn_pause(struct conn *c) {
    c->paused = true; /* the watch stays: most who are paused hear nothing meanwhile, and so it costs no system call */
}

void conn_resume(struct conn *c) {
    if (!c->paused || c->dead || c->shut) {
        c->paused = false;
        return;
    }
    c->paused = c->deaf = false;
    c->depth++;
    bool alive = true;
    if (c->in.size > 0 && !c->finishing) {
        struct builder kept = c->in;
        builder_init(&c->in, kept.limit_bytes);
        alive = deliver(c, builder_bytes(&kept));
        builder_free(&kept);
    }
    if (alive && !c->dead && !c->shut && c->state == CONN_OPEN) {
        put_off_read(c);
        watch_open(c);
    }
    c->depth--;
    conn_free_if_unheld(c);
}

void conn_opened(struct conn *c) {
    c->state = CONN_OPEN;
    conn_leave_listener(c);
    if (c->ssl != NULL) {
        conn_tls_opened(c);
    }
    conn_dialled(c);
    loop_timer_cancel(c->x.loop, &c->timer);
    c->depth++;
    bool finishing = c->finishing; /* asked for before it was open */
    c->finishing = false;
    c->o.events->on_open(c->o.context, c);
    if (!c->dead && !c->shut && flush(c)) {
        if (finishing) {
            conn_finish(c);
        }
        put_off_read(c);
        watch_open(c);
    }
    c->depth--;
    conn_free_if_unheld(c);
}

/* --- readiness ------------------------------------------------------------------------------------------------------------------------------ */

static void on_ready(void *context, uint32_t events) {
    struct conn *c = context;
    if (c->state == CONN_CONNECTING) {
        int number = 0;
        socklen_t size = sizeof number;
        (void)getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &number, &size);
        if (number == 0) {
            conn_connected(c);
            return;
        }
        errno = number;
        if (c->dialling->target_next < c->dialling->target_count) {
            conn_connect_next(c);
        } else {
            conn_fail_errno(c, E_CONNECT, "connect");
        }
        return;
    }
    if (c->state == CONN_PROXY) {
        conn_proxy_read(c);
        return;
    }
    if (c->state == CONN_GREETED) {
        conn_tls_start(c);
        return;
    }
    if (c->state == CONN_HANDSHAKE) {
        conn_tls_step(c);
        return;
    }
    bool was_paused = c->paused;
    c->depth++; /* keeps c while both directions are served */
    bool alive = true;
    if ((events & EPOLLOUT) != 0) {
        alive = flush(c);
    }
    if (alive && !c->dead && !c->shut && !c->paused && (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
        receive(c);
    }
    if (!c->dead && !c->shut && c->paused && (events & (EPOLLHUP | EPOLLERR)) != 0) {
        conn_fail(c, E_CLOSED, "");
    } else if (!c->dead && !c->shut) {
        c->deaf = c->paused && (c->deaf || (was_paused && (events & (EPOLLIN | EPOLLRDHUP)) != 0));
        watch_open(c);
    }
    c->depth--;
    conn_free_if_unheld(c);
}

/* --- small questions ------------------------------------------------------------------------------------------------------------------------- */

size_t conn_output_bytes(const struct conn *c) {
    return out_left(c);
}

void conn_set_context(struct conn *c, const struct conn_events *events, void *context) {
    c->o.events = events;
    c->o.context = context;
}

void *conn_get_context(const struct conn *c) {
    return c->o.context;
}

const char *conn_peer_uri(const struct conn *c) {
    return c->names == NULL ? "" : c->names->uri;
}

uint32_t conn_peer_roles(const struct conn *c) {
    return c->names == NULL ? 0 : c->names->roles;
}

const char *conn_peer_name(const struct conn *c) {
    return c->names == NULL ? "" : c->names->name;
}

const char *conn_peer_role(const struct conn *c) {
    return c->names == NULL ? "" : c->names->role;
}

const char *conn_peer_address(const struct conn *c) {
    return c->peer_address == NULL ? "?" : c->peer_address;
}

bool conn_peer_uid(const struct conn *c, uint32_t *uid) {
    struct ucred cred = {0};
    socklen_t size = sizeof cred;
    int domain = 0;
    socklen_t domain_size = sizeof domain;
    if (getsockopt(c->fd, SOL_SOCKET, SO_DOMAIN, &domain, &domain_size) != 0 || domain != AF_UNIX ||
        getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) != 0) {
        return false;
    }
    *uid = cred.uid;
    return true;
}

bool conn_peer_in_group(const struct conn *c, uint32_t gid) {
    struct ucred cred = {0};
    gid_t groups[PEER_GROUPS_MAX];
    socklen_t size = sizeof cred, groups_size = sizeof groups;
    if (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) != 0) {
        return false;
    }
    bool found = cred.gid == gid;
    if (!found && getsockopt(c->fd, SOL_SOCKET, SO_PEERGROUPS, groups, &groups_size) == 0) {
        for (size_t i = 0; i < groups_size / sizeof groups[0]; i++) {
            found = found || groups[i] == gid;
        }
    }
    return found;
}

bool conn_is_tls(const struct conn *c) {
    return c->ssl != NULL;
}

struct conn_count conn_counted(const struct conn *c) {
    return c->count;
}

void conn_set_gate(struct conn *c, size_t (*gate)(void *context, size_t wanted_bytes), void *context) {
    c->gate = gate;
    c->gate_context = context;
    if (gate == NULL) {
        conn_gate_open(c);
    }
}

void conn_gate_open(struct conn *c) {
    c->gate_shut = false;
    if (c->state == CONN_OPEN && !c->dead && !c->shut && flush(c)) {
        watch_open(c);
    }
}
