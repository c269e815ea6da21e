/* dialler.h: keeps an MQTT client connected to one of the core's brokers, as federation/reconnect.h decides.  Thread: the loop's. */
#ifndef CORE_DIALLER_H
#define CORE_DIALLER_H

#include "federation/reconnect.h"
#include "include/grey/limits.h"
#include "platform/mqtt.h"
#include "platform/probe.h"

struct dialler {
    struct conn_context x;
    struct mqtt *mqtt;
    const struct conn_tls *tls;
    struct reconnect reconnect;
    struct loop_timer timer;
    struct probe probe;
    char addresses[RECONNECT_ENDPOINTS_MAX][LIMIT_ADDRESS_BYTES + 1];
    uint32_t keepalive_s;
    bool returns; /* the connection is being left for a better one */
};

/* endpoints: at least one, in order of preference; copied.  mqtt, tls: borrowed.  The owner hands the client's events on. */
void dialler_init(struct dialler *d, const struct conn_context *x, struct mqtt *mqtt, const struct conn_tls *tls,
                  const char *const *endpoints, uint32_t endpoint_count, uint32_t keepalive_s);
void dialler_start(struct dialler *d);
void dialler_stop(struct dialler *d); /* closes the connection */
void dialler_stage(struct dialler *d, enum mqtt_stage s);
void dialler_connected(struct dialler *d);
void dialler_closed(struct dialler *d);

#endif
