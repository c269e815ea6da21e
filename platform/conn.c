#include "platform/conn.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <mbedtls/error.h>
#include <mbedtls/oid.h>
#include <mbedtls/pk.h>
#include <mbedtls/ssl.h>
#include <mbedtls/x509_crt.h>

#include "include/grey/limits.h"
#include "include/grey/must.h"
#include "platform/address.h"
#include "platform/keys.h"
#include "platform/log.h"

#define READ_BYTES (32u * 1024u)       /* one recv; holds a whole TLS record */
#define READ_TURN_BYTES (256u * 1024u) /* then the others get their turn */
#define TARGETS_MAX 4u
#define OPEN_TIMEOUT_MS 10000u
#define ACCEPT_PAUSE_MS 100u /* when the process has no descriptors left */
#define LINGER_MS 2000u      /* after the last byte: until the other side has read it and closes */
#define FINISH_MS 10000u     /* without progress of the last output: the other side does not read */
#define WAITING_MAX 64u      /* accepted and not open yet, per listener: a TLS handshake holds 36 KiB */

enum conn_state { CONN_RESOLVING, CONN_CONNECTING, CONN_GREETED, CONN_HANDSHAKE, CONN_OPEN }; /* GREETED: TLS, no byte came yet */

struct conn_tls {
    mbedtls_ssl_config client, server;
    mbedtls_x509_crt ca, own;
    mbedtls_pk_context key;
};

/* What only a conn needs that is being opened by us; freed when it is open. */
struct dialling {
    struct sockaddr_storage targets[TARGETS_MAX];
    socklen_t target_sizes[TARGETS_MAX];
    uint32_t target_count, target_next;
    char host[ADDRESS_HOST_BYTES], port[ADDRESS_PORT_BYTES], expected_host[ADDRESS_HOST_BYTES];
};

struct peer_names {
    char uri[192], name[LIMIT_NAME_BYTES + 1];
};

/* Hundreds of these idle behind HTTP clients: what few of them need hangs on a pointer. */
struct conn {
    struct conn_context x;
    struct conn_options o;
    enum conn_state state;
    bool client;
    bool dead;      /* closed; freed when nothing below holds it */
    bool finishing; /* close once the output is written */
    bool half_shut; /* it is written: what still comes is thrown away */
    bool shut;      /* the failure has been reported */
    bool job_runs;  /* the crypto worker holds it */
    bool gate_shut, paused;
    bool deaf;    /* paused, and bytes wait in the socket: reading is not watched any more */
    bool emptied; /* TLS: the last recv took all there was */
    int fd;
    uint32_t depth; /* callbacks of this conn on the stack */
    int job_result;
    struct worker_job job;
    struct loop_fd watch;
    struct loop_timer timer;    /* until open: the deadline; later: a put-off read, or the patience with the last output */
    struct builder in;          /* what the owner has not used up */
    struct builder out;         /* from out_at on: not written yet */
    size_t out_at, tls_pending; /* tls_pending: length of the write that must be repeated as it was */
    uint64_t deadline_ms, seen_out_bytes; /* to be open; when the timer was set for the last output */
    mbedtls_ssl_context *ssl;
    struct builder sealed; /* TLS bytes that were read and not decrypted yet */
    struct conn_count count;
    size_t (*gate)(void *context, size_t wanted_bytes);
    void *gate_context;
    struct dialling *dialling;      /* NULL: accepted, or open */
    struct peer_names *names;       /* NULL: plain */
    char *peer_address;             /* NULL: no memory for it */
    struct conn_listener *listener; /* while accepted and not open */
    struct conn *next, *previous;   /* in its list */
};

struct conn_listener {
    struct conn_context x;
    struct loop_fd watch;
    struct loop_timer pause;
    int fd;
    char unix_path[ADDRESS_UNIX_BYTES];
    bool (*accepted)(void *context, struct conn_options *o);
    void *context;
    struct conn *first, *last; /* not open yet, oldest first */
    uint32_t waiting_count;
};

/* One for all, on the loop's thread: plain bytes on their way to on_bytes, and TLS bytes on their way to mbedTLS. */
static uint8_t scratch[READ_BYTES], sealed_scratch[READ_BYTES];
static struct bytes ahead; /* the rest of the TLS bytes of the conn that receives just now */

/* --- certificates ------------------------------------------------------------------------------------------------------------------------- */

static const char *tls_text(int code, char text[128]) {
    mbedtls_strerror(code, text, 128);
    return text;
}

static int configure(struct conn_tls *t, mbedtls_ssl_config *c, int endpoint) {
    static const int suites[] = {MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
                                 MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
                                 0};
    static const mbedtls_ecp_group_id curves[] = {MBEDTLS_ECP_DP_CURVE25519, MBEDTLS_ECP_DP_SECP256R1, MBEDTLS_ECP_DP_NONE};
    int code = mbedtls_ssl_config_defaults(c, endpoint, MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT);
    if (code != 0) {
        return code;
    }
    mbedtls_ssl_conf_min_version(c, MBEDTLS_SSL_MAJOR_VERSION_3, MBEDTLS_SSL_MINOR_VERSION_3);
    mbedtls_ssl_conf_ciphersuites(c, suites);
    mbedtls_ssl_conf_curves(c, curves);
    mbedtls_ssl_conf_renegotiation(c, MBEDTLS_SSL_RENEGOTIATION_DISABLED);
    mbedtls_ssl_conf_session_tickets(c, MBEDTLS_SSL_SESSION_TICKETS_DISABLED);
    mbedtls_ssl_conf_authmode(c, MBEDTLS_SSL_VERIFY_REQUIRED);
    mbedtls_ssl_conf_rng(c, keys_rng, NULL); /* no generator state is shared between loop and crypto worker */
    mbedtls_ssl_conf_ca_chain(c, &t->ca, NULL);
    return mbedtls_ssl_conf_own_cert(c, &t->own, &t->key);
}

struct conn_tls *conn_tls_new(const char *ca_path, const char *cert_path, const char *key_path, struct fault *f) {
    char text[128];
    struct conn_tls *t = mem_new(1, sizeof *t);
    if (t == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "certificates");
        return NULL;
    }
    mbedtls_ssl_config_init(&t->client);
    mbedtls_ssl_config_init(&t->server);
    mbedtls_x509_crt_init(&t->ca);
    mbedtls_x509_crt_init(&t->own);
    mbedtls_pk_init(&t->key);
    int code = mbedtls_x509_crt_parse_file(&t->ca, ca_path);
    if (code != 0) {
        (void)fault_set(f, E_CERT, "%s: %s", ca_path, tls_text(code, text));
    } else if ((code = mbedtls_x509_crt_parse_file(&t->own, cert_path)) != 0) {
        (void)fault_set(f, E_CERT, "%s: %s", cert_path, tls_text(code, text));
    } else if ((code = mbedtls_pk_parse_keyfile(&t->key, key_path, NULL)) != 0) {
        (void)fault_set(f, E_KEY, "%s: %s", key_path, tls_text(code, text));
    } else if ((code = mbedtls_pk_check_pair(&t->own.pk, &t->key)) != 0) {
        (void)fault_set(f, E_KEY, "%s does not belong to %s", key_path, cert_path);
    } else if ((code = configure(t, &t->client, MBEDTLS_SSL_IS_CLIENT)) != 0 ||
               (code = configure(t, &t->server, MBEDTLS_SSL_IS_SERVER)) != 0) {
        (void)fault_set(f, E_TLS, "%s", tls_text(code, text));
    }
    if (code != 0) {
        conn_tls_free(t);
        return NULL;
    }
    return t;
}

void conn_tls_free(struct conn_tls *t) {
    if (t != NULL) {
        mbedtls_ssl_config_free(&t->client);
        mbedtls_ssl_config_free(&t->server);
        mbedtls_x509_crt_free(&t->ca);
        mbedtls_x509_crt_free(&t->own);
        mbedtls_pk_free(&t->key);
        mem_free(t);
    }
}

static void copy_slice(char *out, size_t out_size, const unsigned char *data, size_t size) {
    size = size < out_size - 1 ? size : out_size - 1;
    memcpy(out, data, size);
    out[size] = 0;
    for (size_t i = 0; i < size; i++) { /* a name with odd bytes in it must not match anything, nor garble a log */
        if (out[i] < 0x21 || out[i] > 0x7e) {
            out[i] = '?';
        }
    }
}

static void read_peer(struct conn *c) {
    const mbedtls_x509_crt *crt = mbedtls_ssl_get_peer_cert(c->ssl);
    if (crt == NULL) {
        return;
    }
    c->names = mem_new(1, sizeof *c->names);
    if (c->names == NULL) {
        return; /* without names it is nobody, and refused above */
    }
    for (const mbedtls_x509_name *n = &crt->subject; n != NULL; n = n->next) {
        if (MBEDTLS_OID_CMP(MBEDTLS_OID_AT_CN, &n->oid) == 0 && n->val.len <= LIMIT_NAME_BYTES) {
            copy_slice(c->names->name, sizeof c->names->name, n->val.p, n->val.len);
        }
    }
    for (const mbedtls_x509_sequence *s = &crt->subject_alt_names; s != NULL; s = s->next) {
        if (s->buf.tag == (MBEDTLS_ASN1_CONTEXT_SPECIFIC | MBEDTLS_X509_SAN_UNIFORM_RESOURCE_IDENTIFIER) &&
            s->buf.len < sizeof c->names->uri) {
            copy_slice(c->names->uri, sizeof c->names->uri, s->buf.p, s->buf.len);
            return;
        }
    }
}

/* --- life ------------------------------------------------------------------------------------------------------------------------------- */

/* Open, closed or failed: its listener need not look after it any more. */
static void leave_listener(struct conn *c) {
    struct conn_listener *l = c->listener;
    if (l != NULL) {
        *(c->previous == NULL ? &l->first : &c->previous->next) = c->next;
        *(c->next == NULL ? &l->last : &c->next->previous) = c->previous;
        l->waiting_count--;
        c->listener = NULL;
    }
}

static void free_if_unheld(struct conn *c) {
    if (!c->dead || c->depth > 0 || c->job_runs) {
        return;
    }
    if (c->ssl != NULL) {
        mbedtls_ssl_free(c->ssl);
        mem_free(c->ssl);
    }
    if (c->fd >= 0) {
        (void)close(c->fd);
    }
    builder_free(&c->in);
    builder_free(&c->out);
    builder_free(&c->sealed);
    mem_free(c->dialling);
    mem_free(c->names);
    mem_free(c->peer_address);
    mem_free(c);
}

void conn_close(struct conn *c) {
    if (c == NULL || c->dead) {
        return;
    }
    if (c->ssl != NULL && c->state == CONN_OPEN && !c->job_runs && c->tls_pending == 0) {
        (void)mbedtls_ssl_close_notify(c->ssl);
    }
    c->dead = true;
    leave_listener(c);
    loop_timer_cancel(c->x.loop, &c->timer);
    loop_fd_remove(c->x.loop, &c->watch);
    free_if_unheld(c);
}

static void fail(struct conn *c, enum grey_error why, const char *detail) {
    if (c->dead || c->shut) {
        return;
    }
    c->shut = true;
    leave_listener(c);
    loop_timer_cancel(c->x.loop, &c->timer);
    loop_fd_remove(c->x.loop, &c->watch);
    c->depth++;
    c->o.events->on_closed(c->o.context, c, why, detail);
    c->depth--;
    c->dead = true;
    free_if_unheld(c);
}

static void fail_errno(struct conn *c, enum grey_error why, const char *what) {
    char text[200], reason[96];
    (void)snprintf(text, sizeof text, "%s: %s", what, strerror_r(errno, reason, sizeof reason));
    fail(c, why, text);
}

static void on_ready(void *context, uint32_t events);
static void on_open_timeout(void *context);

static void set_up(struct conn *c, const struct conn_context *x, const struct conn_options *o, int fd) {
    c->x = *x;
    c->o = *o;
    c->fd = fd;
    c->watch = (struct loop_fd){.ready = on_ready, .context = c, .fd = -1};
    c->timer = (struct loop_timer){.fire = on_open_timeout, .context = c};
    c->deadline_ms = loop_now_ms(x->loop) + (o->open_timeout_ms == 0 ? OPEN_TIMEOUT_MS : o->open_timeout_ms);
    builder_init(&c->in, o->input_limit_bytes + READ_BYTES);
    builder_init(&c->out, o->output_limit_bytes);
    builder_init(&c->sealed, READ_BYTES);
    loop_timer_set(x->loop, &c->timer, c->deadline_ms);
}

static void connect_next(struct conn *c);

static void on_open_timeout(void *context) {
    struct conn *c = context;
    if (c->state == CONN_CONNECTING && c->dialling->target_next < c->dialling->target_count) {
        errno = ETIMEDOUT;
        connect_next(c);
        return;
    }
    fail(c, c->state == CONN_HANDSHAKE || c->state == CONN_GREETED ? E_TLS : E_CONNECT, "no answer in time");
}

static bool watch(struct conn *c, uint32_t events) {
    struct fault f = {0};
    if (c->watch.generation > 0) {
        loop_fd_events(c->x.loop, &c->watch, events);
        return true;
    }
    if (loop_fd_add(c->x.loop, &c->watch, c->fd, events, &f) != E_OK) {
        fail(c, f.code, f.text);
        return false;
    }
    return true;
}

static size_t out_left(const struct conn *c) {
    return c->out.size - c->out_at;
}

static void watch_open(struct conn *c) {
    bool want_out = (out_left(c) > 0 || c->tls_pending > 0) && !c->gate_shut;
    (void)watch(c, (c->deaf ? 0u : EPOLLIN | EPOLLRDHUP) | (want_out ? EPOLLOUT : 0u));
}

/* --- bytes to and from the socket ---------------------------------------------------------------------------------------------------------- */

static ssize_t socket_send(struct conn *c, const uint8_t *data, size_t size) {
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

static int tls_send(void *context, const unsigned char *data, size_t size) {
    ssize_t sent = socket_send(context, data, size);
    if (sent >= 0) {
        return (int)sent;
    }
    return errno == EAGAIN || errno == EINTR ? MBEDTLS_ERR_SSL_WANT_WRITE : MBEDTLS_ERR_SSL_INTERNAL_ERROR;
}

static int tls_receive(void *context, unsigned char *data, size_t size) {
    struct conn *c = context;
    ssize_t got = recv(c->fd, data, size, 0);
    if (got > 0) {
        c->count.in_bytes += (uint64_t)got;
    }
    if (got >= 0) {
        return (int)got;
    }
    return errno == EAGAIN || errno == EINTR ? MBEDTLS_ERR_SSL_WANT_READ : MBEDTLS_ERR_SSL_CONN_EOF;
}

/* Once open, on the loop's thread: reads ahead, so that a record costs one recv and not three (header, body, "no more"). */
static int tls_receive_ahead(void *context, unsigned char *data, size_t size) {
    struct conn *c = context;
    if (ahead.size == 0) {
        if (c->emptied) {
            return MBEDTLS_ERR_SSL_WANT_READ;
        }
        int got = tls_receive(c, sealed_scratch, sizeof sealed_scratch);
        if (got <= 0) {
            return got;
        }
        c->emptied = (size_t)got < sizeof sealed_scratch;
        ahead = bytes_of(sealed_scratch, (size_t)got);
    }
    size = size < ahead.size ? size : ahead.size;
    memcpy(data, ahead.data, size);
    ahead = bytes_of(ahead.data + size, ahead.size - size);
    return (int)size;
}

/* As send(2): bytes taken, or -1 with errno EAGAIN. */
static ssize_t stream_send(struct conn *c, const uint8_t *data, size_t size) {
    if (c->ssl == NULL) {
        return socket_send(c, data, size);
    }
    size_t record = c->tls_pending > 0 ? c->tls_pending : size; /* a write that was put off is repeated with its length */
    must(record <= size);
    int wrote = mbedtls_ssl_write(c->ssl, data, record);
    if (wrote == MBEDTLS_ERR_SSL_WANT_WRITE || wrote == MBEDTLS_ERR_SSL_WANT_READ) {
        c->tls_pending = record;
        errno = EAGAIN;
        return -1;
    }
    c->tls_pending = 0;
    if (wrote < 0) {
        errno = EPIPE;
        return -1;
    }
    return wrote;
}

static ssize_t stream_receive(struct conn *c, uint8_t *data, size_t size) {
    if (c->ssl == NULL) {
        ssize_t got = recv(c->fd, data, size, 0);
        if (got > 0) {
            c->count.in_bytes += (uint64_t)got;
        }
        return got;
    }
    int got = mbedtls_ssl_read(c->ssl, data, size);
    if (got == MBEDTLS_ERR_SSL_WANT_READ || got == MBEDTLS_ERR_SSL_WANT_WRITE) {
        errno = EAGAIN;
        return -1;
    }
    if (got == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY || got == MBEDTLS_ERR_SSL_CONN_EOF) {
        return 0;
    }
    if (got < 0) {
        c->job_result = got;
        errno = EPROTO;
    }
    return got;
}

/* --- the last output -------------------------------------------------------------------------------------------------------------------- */

static void on_linger_timeout(void *context) {
    fail(context, E_CLOSED, "finished; the other side did not close");
}

static void on_finish_timeout(void *context) {
    struct conn *c = context;
    if (c->count.out_bytes == c->seen_out_bytes) {
        fail(c, E_TIMEOUT, "the other side does not read what it asked for");
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
        (void)mbedtls_ssl_close_notify(c->ssl);
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
            fail_errno(c, E_CLOSED, "send");
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
                free_if_unheld(c);
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
            fail(c, c->in.err, "input buffer");
            return false;
        }
        all = builder_bytes(&c->in);
    }
    c->depth++;
    size_t used = c->o.events->on_bytes(c->o.context, c, all);
    c->depth--;
    if (c->dead) {
        free_if_unheld(c);
        return false;
    }
    must(used <= all.size);
    size_t left = all.size - used;
    if (left > c->o.input_limit_bytes) {
        fail(c, E_TOO_LARGE, "the other side sends more than one message may hold");
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
            fail(c, c->in.err, "input buffer");
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
        fail(c, E_CLOSED, "finished");
    }
}

/* What one recv holds for a plain conn, all records at hand for a TLS one.  True: it stopped with records at hand. */
static bool receive_some(struct conn *c) {
    size_t total = 0;
    for (;;) {
        ssize_t got = stream_receive(c, scratch, sizeof scratch);
        if (got == 0) {
            fail(c, E_CLOSED, "");
            return false;
        }
        if (got < 0 && errno == EPROTO) {
            char text[128];
            fail(c, E_TLS, tls_text(c->job_result, text));
            return false;
        }
        if (got < 0) {
            if (errno != EAGAIN && errno != EINTR) {
                fail_errno(c, E_CLOSED, "receive");
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
    free_if_unheld(c);
}

/* Bytes that are here already cause no event any more, so a timer stands in for it. */
static void put_off_read(struct conn *c) {
    bool waits = c->sealed.size > 0 || (c->ssl != NULL && mbedtls_ssl_check_pending(c->ssl) != 0);
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
    must(ahead.size == 0);
    struct builder kept = c->sealed;
    ahead = builder_bytes(&kept);
    builder_init(&c->sealed, READ_BYTES);
    c->emptied = false;
    bool more = receive_some(c);
    if (ahead.size > 0 && !c->dead && !c->shut && !c->half_shut) {
        builder_add(&c->sealed, ahead);
    }
    bool lost = c->sealed.err != E_OK;
    ahead = bytes_of(NULL, 0);
    builder_free(&kept);
    if (lost) {
        fail(c, c->sealed.err, "input buffer");
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
    free_if_unheld(c);
}

/* --- handshake on the crypto worker ------------------------------------------------------------------------------------------------------ */

static void handshake_work(struct worker_job *job) {
    struct conn *c = (struct conn *)(void *)((char *)job - offsetof(struct conn, job));
    c->job_result = mbedtls_ssl_handshake(c->ssl);
}

static void opened(struct conn *c) {
    c->state = CONN_OPEN;
    leave_listener(c);
    if (c->ssl != NULL) {
        mbedtls_ssl_set_bio(c->ssl, c, tls_send, tls_receive_ahead, NULL);
    }
    mem_free(c->dialling);
    c->dialling = NULL;
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
    free_if_unheld(c);
}

static void handshake_done(struct worker_job *job) {
    struct conn *c = (struct conn *)(void *)((char *)job - offsetof(struct conn, job));
    c->job_runs = false;
    if (c->dead) {
        free_if_unheld(c);
        return;
    }
    if (c->shut) {
        return;
    }
    char text[128], detail[240];
    if (c->job_result == MBEDTLS_ERR_SSL_WANT_READ) {
        (void)watch(c, EPOLLIN | EPOLLRDHUP);
    } else if (c->job_result == MBEDTLS_ERR_SSL_WANT_WRITE) {
        (void)watch(c, EPOLLOUT | EPOLLRDHUP);
    } else if (c->job_result != 0) {
        uint32_t flags = mbedtls_ssl_get_verify_result(c->ssl);
        enum grey_error why = E_TLS;
        if (flags != 0 && flags != UINT32_MAX) {
            why = E_CERT;
            char *end = detail;
            if (mbedtls_x509_crt_verify_info(detail, sizeof detail, "", flags) > 0) {
                end = strchr(detail, '\n');
            }
            if (end != NULL) {
                *end = 0;
            }
        } else {
            (void)snprintf(detail, sizeof detail, "%s", tls_text(c->job_result, text));
        }
        fail(c, why, detail);
    } else {
        read_peer(c);
        opened(c);
    }
}

static void handshake_step(struct conn *c) {
    loop_fd_remove(c->x.loop, &c->watch); /* the worker has the socket for itself */
    c->job.work = handshake_work;
    c->job.done = handshake_done;
    c->job_runs = true;
    if (worker_submit(c->x.crypto, &c->job) != E_OK) {
        c->job_runs = false;
        fail(c, E_BUSY, "too many handshakes at once");
    }
}

static void start_tls(struct conn *c) {
    char text[128];
    c->state = CONN_HANDSHAKE;
    c->ssl = mem_new(1, sizeof *c->ssl);
    if (c->ssl == NULL) {
        fail(c, E_NO_MEMORY, "TLS");
        return;
    }
    mbedtls_ssl_init(c->ssl);
    int code = mbedtls_ssl_setup(c->ssl, c->client ? &c->o.tls->client : &c->o.tls->server);
    if (code == 0 && c->client) { /* NULL is said as well: later versions refuse a client that has not said which name it means */
        code = mbedtls_ssl_set_hostname(c->ssl, c->o.expected_host);
    }
    if (code != 0) {
        fail(c, E_TLS, tls_text(code, text));
        return;
    }
    mbedtls_ssl_set_bio(c->ssl, c, tls_send, tls_receive, NULL);
    handshake_step(c);
}

static void connected(struct conn *c) {
    if (c->o.tls == NULL) {
        opened(c);
    } else if (c->client) {
        loop_timer_set(c->x.loop, &c->timer, c->deadline_ms);
        start_tls(c);
    } else {
        c->state = CONN_GREETED;
        (void)watch(c, EPOLLIN | EPOLLRDHUP); /* a stranger costs little until it says something */
    }
}

/* --- dialling ------------------------------------------------------------------------------------------------------------------------------- */

static void connect_next(struct conn *c) {
    struct dialling *d = c->dialling;
    while (d->target_next < d->target_count) {
        uint32_t left = d->target_count - d->target_next;
        const struct sockaddr *target = (const struct sockaddr *)(const void *)&d->targets[d->target_next];
        socklen_t size = d->target_sizes[d->target_next++];
        int on = 1;
        if (c->fd >= 0) {
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
            (void)watch(c, EPOLLOUT);
            return;
        }
    }
    fail_errno(c, E_CONNECT, "connect");
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
        free_if_unheld(c);
    } else if (!c->shut && c->job_result != 0) {
        fail(c, E_CONNECT, gai_strerror(c->job_result));
    } else if (!c->shut) {
        connect_next(c);
    }
}

/* The first connect is put off to the next turn, so that no callback comes before conn_dial has returned. */
static void start_dial(void *context) {
    struct conn *c = context;
    c->timer.fire = on_open_timeout;
    loop_timer_set(c->x.loop, &c->timer, c->deadline_ms);
    if (c->dialling->target_count > 0) {
        connect_next(c);
        return;
    }
    c->job.work = resolve_work;
    c->job.done = resolve_done;
    c->job_runs = true;
    if (worker_submit(c->x.crypto, &c->job) != E_OK) {
        c->job_runs = false;
        fail(c, E_BUSY, "too many names to resolve at once");
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
    if (address_is_unix(address)) {
        struct sockaddr_un u;
        enum grey_error err = address_unix(address, &u, f);
        if (err == E_OK) {
            memcpy(&d->targets[0], &u, sizeof u);
            d->target_sizes[0] = sizeof u;
            d->target_count = 1;
        }
        return err;
    }
    enum grey_error err = address_split(address, d->host, d->port, f);
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
    set_up(c, x, o, -1);
    c->client = true;
    if (prepare_dial(c, address, f) != E_OK) {
        conn_close(c);
        return NULL;
    }
    c->timer.fire = start_dial;
    loop_timer_after(x->loop, &c->timer, 0);
    return c;
}

/* --- readiness ------------------------------------------------------------------------------------------------------------------------------ */

static void on_ready(void *context, uint32_t events) {
    struct conn *c = context;
    if (c->state == CONN_CONNECTING) {
        int number = 0;
        socklen_t size = sizeof number;
        (void)getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &number, &size);
        if (number == 0) {
            connected(c);
            return;
        }
        errno = number;
        if (c->dialling->target_next < c->dialling->target_count) {
            connect_next(c);
        } else {
            fail_errno(c, E_CONNECT, "connect");
        }
        return;
    }
    if (c->state == CONN_GREETED) {
        start_tls(c);
        return;
    }
    if (c->state == CONN_HANDSHAKE) {
        handshake_step(c);
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
        fail(c, E_CLOSED, "");
    } else if (!c->dead && !c->shut) {
        c->deaf = c->paused && (c->deaf || (was_paused && (events & (EPOLLIN | EPOLLRDHUP)) != 0));
        watch_open(c);
    }
    c->depth--;
    free_if_unheld(c);
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
        fail(l->first, E_BUSY, "too many handshakes at once");
    }
    c->listener = l;
    c->previous = l->last;
    *(l->last == NULL ? &l->first : &l->last->next) = c;
    l->last = c;
    l->waiting_count++;
    connected(c);
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
        set_up(c, &l->x, &o, fd);
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
        fail(l->first, E_STOPPING, "the listener was closed");
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

const char *conn_peer_name(const struct conn *c) {
    return c->names == NULL ? "" : c->names->name;
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
