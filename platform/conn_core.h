/* conn_core.h: the inside of a conn, for the sources that share it and for nobody else:
 *   conn.c       its life, bytes in and out, the end
 *   conn_tls.c   certificates, handshake, records; the only one that knows mbedTLS
 *   conn_open.c  dialling and listening
 *   conn_proxy.c asking an HTTP proxy for the way
 *   conn_wire.c  what the network carries */
#ifndef PLATFORM_CONN_CORE_H
#define PLATFORM_CONN_CORE_H

#include <sys/socket.h>

#include "include/grey/limits.h"
#include "platform/address.h"
#include "platform/conn.h"

struct mbedtls_ssl_context;

#define CONN_READ_BYTES (32u * 1024u) /* one recv; holds a whole TLS record */
#define TARGETS_MAX 4u
#define CONN_PROXY_ANSWER_BYTES 8192u /* head of its answer, at most */

enum conn_state {
    CONN_RESOLVING,
    CONN_CONNECTING,
    CONN_PROXY,
    CONN_GREETED,
    CONN_HANDSHAKE,
    CONN_OPEN
}; /* GREETED: TLS, no byte came yet */

/* What only a conn needs that is being opened by us; freed when it is open. */
struct dialling {
    struct sockaddr_storage targets[TARGETS_MAX];
    socklen_t target_sizes[TARGETS_MAX];
    uint32_t target_count, target_next;
    char host[ADDRESS_HOST_BYTES], port[ADDRESS_PORT_BYTES], expected_host[ADDRESS_HOST_BYTES];
    struct builder proxy_answer;
};

struct peer_names {
    char uri[192], name[LIMIT_NAME_BYTES + 1], role[16];
    uint32_t roles;
};

struct tls_material;

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
    char congestion[16]; /* how the system's TCP reacts to loss, by its name; empty until conn_set_calm wants to know */
    uint32_t depth;      /* callbacks of this conn on the stack */
    int job_result;
    enum grey_error judged; /* of the handshake that was done: E_OK, or why what was shown is not taken all the same */
    struct worker_job job;
    struct loop_fd watch;
    struct loop_timer timer;    /* until open: the deadline; later: a put-off read, or the patience with the last output */
    struct builder in;          /* what the owner has not used up */
    struct builder out;         /* from out_at on: not written yet */
    size_t out_at, tls_pending; /* tls_pending: length of the write that must be repeated as it was */
    uint64_t deadline_ms, seen_out_bytes; /* to be open; when the timer was set for the last output */
    struct mbedtls_ssl_context *ssl;      /* NULL: plain; platform/conn_tls.c alone looks inside */
    struct tls_material *material;        /* of ssl: what conn_tls held when it began */
    struct builder sealed,
        unsealing; /* TLS bytes that were read and not decrypted yet; those of the last time, while it receives */
    struct conn_count count;
    struct conn_wire tried; /* what it cost to dial addresses that did not answer */
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

/* --- conn.c: each may end c; the caller holds it by its depth where it goes on with it ---------------------------------------------- */
void conn_set_up(struct conn *c, const struct conn_context *x, const struct conn_options *o, int fd);
bool conn_watch(struct conn *c, uint32_t events); /* false: it failed */
void conn_open_timeout(void *conn);               /* the timer until it is open */
void conn_opened(struct conn *c);
void conn_fail(struct conn *c, enum grey_error why, const char *detail);
void conn_fail_errno(struct conn *c, enum grey_error why, const char *what);
void conn_free_if_unheld(struct conn *c);
ssize_t conn_socket_send(struct conn *c, const uint8_t *data, size_t size); /* as send(2), through the gate */
ssize_t conn_socket_receive(struct conn *c, uint8_t *data, size_t size);    /* as recv(2), counted */

/* --- conn_tls.c ----------------------------------------------------------------------------------------------------------------------- */
void conn_tls_start(struct conn *c);
void conn_tls_step(struct conn *c);                                      /* of the handshake, on the crypto worker */
void conn_tls_opened(struct conn *c);                                    /* records are read ahead from now on */
void conn_tls_notify(struct conn *c);                                    /* tells the other side that this one has ended */
void conn_tls_end(struct conn *c);                                       /* frees what is TLS's; harmless for a plain conn */
ssize_t conn_tls_send(struct conn *c, const uint8_t *data, size_t size); /* bytes taken, or -1 with errno EAGAIN, EPIPE */
/* 0: the end; -1 with errno EAGAIN, or EPROTO and c->job_result (conn_tls_text).  Between begin and end, on the loop's thread. */
ssize_t conn_tls_receive(struct conn *c, uint8_t *data, size_t size);
void conn_tls_receive_begin(struct conn *c);
enum grey_error conn_tls_receive_end(struct conn *c); /* keeps what was read and not decrypted yet */
bool conn_tls_waits(const struct conn *c);            /* bytes are here already that cause no event any more */
const char *conn_tls_text(int code, char text[128]);

/* --- conn_open.c ---------------------------------------------------------------------------------------------------------------------- */
void conn_connect_next(struct conn *c);
void conn_connected(struct conn *c);
void conn_reached(struct conn *c);        /* the other side itself, past the proxy */
void conn_dialled(struct conn *c);        /* frees what only dialling needs */
void conn_leave_listener(struct conn *c); /* open, closed or failed: its listener need not look after it any more */

/* --- conn_proxy.c --------------------------------------------------------------------------------------------------------------------- */
void conn_proxy_ask(struct conn *c);
void conn_proxy_read(struct conn *c); /* the socket has something to say: conn_reached, or the end */

#endif
