/* mqtt.h: an MQTT 5 client (libmosquitto) whose bytes all pass through one place.
 *
 *     libmosquitto <-> unix socket <-> pump (here) <-> conn: plain or our TLS, counted, gated <-> broker
 *
 * So libmosquitto neither resolves names nor connects nor encrypts, and nothing it does can block the loop.  The library is loaded
 * when the first client starts: a gateway that never speaks to a broker does not pay for it (with it comes OpenSSL).  Each connection
 * is a clean session: what was not acknowledged is the owner's to send again.  Reconnects by itself, 0.5 s to 60 s with jitter,
 * through the endpoints in order.  A connection on which a confirmation is due and no byte moves any more is given up (8 s to 30 s,
 * by what confirmations took before); one that is idle is looked after by the keep-alive.  Thread: the loop's. */
#ifndef PLATFORM_MQTT_H
#define PLATFORM_MQTT_H

#include "platform/conn.h"

struct mqtt;

struct mqtt_options {
    const char *const *endpoints; /* "host:port"; with TLS the host is checked against the broker's certificate */
    uint32_t endpoint_count;      /* at most 8; copied */
    const struct conn_tls *tls;
    const char *client_id, *socket_dir; /* a socket file is made here, or in /tmp when the path would be too long */
    uint32_t keepalive_s;
    uint32_t inflight_max; /* publishes without PUBACK, 1 to 64, fewer if the broker says so; above: E_BUSY */
    bool topics_repeat;    /* few topics, used again and again: sent as aliases (MQTT 5, 3.3.2.3.4) where the broker takes them */
    size_t (*gate)(void *context, size_t wanted_bytes); /* see conn_set_gate; NULL: none */
    void *gate_context;
};

struct mqtt_events {
    void (*connected)(void *context);
    void (*closed)(void *context, const char *why); /* was connected, or a try failed; a new try follows by itself */
    void (*message)(void *context, const char *topic, struct bytes payload);
    void (*published)(void *context, int id, const char *refusal); /* PUBACK; refusal NULL: taken by the broker */
    void (*writable)(void *context);                               /* after E_BUSY: there is room again */
};

struct mqtt *mqtt_new(const struct conn_context *x, const struct mqtt_options *o, const struct mqtt_events *events, void *context,
                      struct fault *f);
void mqtt_free(struct mqtt *m);
void mqtt_start(struct mqtt *m); /* connects, and stays connected until mqtt_stop */
void mqtt_stop(struct mqtt *m);
void mqtt_give_up(struct mqtt *m,
                  const char *why); /* this connection is no good: closed follows, then the next endpoint is tried */
bool mqtt_connected(const struct mqtt *m);
const char *mqtt_endpoint(const struct mqtt *m); /* in use or tried last */

/* QoS 1, not retained.  *id names it in `published`.  E_BUSY (window or socket full), E_CLOSED (not connected), E_TOO_LARGE. */
enum grey_error mqtt_publish(struct mqtt *m, const char *topic, struct bytes payload, int *id);
enum grey_error mqtt_subscribe(struct mqtt *m, const char *topic_filter); /* QoS 1; again after each connect */
size_t mqtt_payload_bytes_max(const struct mqtt *m);                      /* what the broker takes at most; above: E_TOO_LARGE */
/* mqtt_hold: the owner can take no more messages just now; the broker is slowed down by TCP.  A few may still come. */
void mqtt_hold(struct mqtt *m, bool hold);
struct conn_count mqtt_counted(const struct mqtt *m);         /* bytes of all connections so far, TLS included */
void mqtt_wired(const struct mqtt *m, struct conn_wire *out); /* the same on the wire; segment and header of the last one */
size_t mqtt_unsent_bytes(const struct mqtt *m);               /* on this connection, held by the gate or the socket */
void mqtt_set_unsent_max(struct mqtt *m, uint32_t bytes);     /* see conn_set_unsent_max; for this connection */
void mqtt_gate_open(struct mqtt *m);

#endif
