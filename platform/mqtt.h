/* mqtt.h: an MQTT 5 client (libmosquitto) whose bytes all pass through one place.
 *
 *     libmosquitto <-> unix socket <-> pump (here) <-> conn: plain or our TLS, counted, gated <-> broker
 *
 * So libmosquitto neither resolves names nor connects nor encrypts, and nothing it does can block the loop.  The library is loaded
 * when the first client dials: a gateway that never speaks to a broker does not pay for it (with it comes OpenSSL).
 *
 * It keeps one connection, a clean session: what was not acknowledged is the owner's to send again, and so is when to dial whom (see
 * federation/reconnect.h).  A connection on which an answer is due (to a publish, to a ping) and no byte moves any more is given up, 8 s
 * to 30 s later by what answers took before.  Thread: the loop's. */
#ifndef PLATFORM_MQTT_H
#define PLATFORM_MQTT_H

#include "platform/conn.h"

struct mqtt;

struct mqtt_options {
    const char *client_id, *socket_dir; /* a socket file is made here, or in /tmp when the path would be too long */
    uint32_t inflight_max;              /* publishes without PUBACK, 1 to 64, fewer if the broker says so; above: E_BUSY */
    bool topics_repeat; /* few topics, used again and again: sent as aliases (MQTT 5, 3.3.2.3.4) where the broker takes them */
    size_t (*gate)(void *context, size_t wanted_bytes); /* see conn_set_gate; NULL: none */
    void *gate_context;
};

/* Whom to dial.  The address is copied, the rest borrowed until the connection is closed; see conn_options. */
struct mqtt_target {
    const char *address; /* "host:port"; with TLS the host is checked against the broker's certificate */
    const struct conn_tls *tls;
    const struct conn_proxy *proxy;
    struct conn_session *session;
    bool offer;
    uint32_t keepalive_s;
};

enum mqtt_stage { MQTT_STAGE_TLS, MQTT_STAGE_CONNECT }; /* the handshake begins; CONNECT was sent */

struct mqtt_events {
    void (*stage)(void *context, enum mqtt_stage s); /* may be NULL */
    void (*connected)(void *context);
    void (*closed)(void *context, const char *why); /* was connected, or the try failed; never before mqtt_dial has returned */
    void (*message)(void *context, const char *topic, struct bytes payload);
    void (*published)(void *context, int id, const char *refusal); /* PUBACK; refusal NULL: taken by the broker */
    void (*writable)(void *context);                               /* after E_BUSY: there is room again */
    void (*moved)(void *context, bool heard); /* bytes came, or bytes left that the broker answers; may be NULL */
};

struct mqtt *mqtt_new(const struct conn_context *x, const struct mqtt_options *o, const struct mqtt_events *events, void *context,
                      struct fault *f);
void mqtt_free(struct mqtt *m);
void mqtt_dial(struct mqtt *m, const struct mqtt_target *t); /* there must be no connection */
void mqtt_close(struct mqtt *m);                             /* says good-bye where it can; no event follows */
void mqtt_give_up(struct mqtt *m, const char *why);          /* this connection is no good: closed follows */
bool mqtt_connected(const struct mqtt *m);
const char *mqtt_address(const struct mqtt *m);    /* dialled last; "" before */
uint32_t mqtt_keepalive_s(const struct mqtt *m);   /* in force on this connection: the broker may want a shorter one */
uint32_t mqtt_opening_bytes(const struct mqtt *m); /* both ways, until the handshake of this connection was done */

/* QoS 1, not retained.  *id names it in `published`.  E_BUSY (window or socket full), E_CLOSED (not connected), E_TOO_LARGE. */
enum grey_error mqtt_publish(struct mqtt *m, const char *topic, struct bytes payload, int *id);
bool mqtt_unheard(const struct mqtt *m); /* in `published`: the broker has it, but nobody was subscribed */
enum grey_error mqtt_subscribe(struct mqtt *m, const char *topic_filter); /* QoS 1; again after each connect */
size_t mqtt_payload_bytes_max(const struct mqtt *m);                      /* what the broker takes at most; above: E_TOO_LARGE */
/* mqtt_hold: the owner can take no more messages just now; the broker is slowed down by TCP.  A few may still come. */
void mqtt_hold(struct mqtt *m, bool hold);
struct conn_count mqtt_counted(const struct mqtt *m);         /* bytes of all connections so far, TLS included */
void mqtt_wired(const struct mqtt *m, struct conn_wire *out); /* the same on the wire; segment and header of the last one */
size_t mqtt_unsent_bytes(const struct mqtt *m); /* on this connection, on the way to the gate, held by it or by the socket */
void mqtt_set_unsent_max(struct mqtt *m, uint32_t bytes); /* see conn_set_unsent_max; for this connection */
void mqtt_set_calm(struct mqtt *m, bool calm);            /* see conn_set_calm; likewise */
void mqtt_gate_open(struct mqtt *m);

#endif
