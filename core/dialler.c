#include "core/dialler.h"

#include <stdio.h>

#include "include/grey/must.h"
#include "platform/keys.h"
#include "platform/log.h"

#define FAILBACK_MS 60000u /* before its sites, which return after 300 s: they find it there */
#define PROBE_MS 30000u
#define LONGEST_WAIT_MS 5000u /* all sites wait for the core, and it is one */

static uint32_t chance(void) {
    uint32_t random;
    keys_random(&random, sizeof random);
    return random;
}

static void plan(struct dialler *d) {
    uint64_t wake_ms = reconnect_wake_ms(&d->reconnect, loop_now_ms(d->x.loop));
    if (wake_ms == UINT64_MAX) {
        loop_timer_cancel(d->x.loop, &d->timer);
    } else {
        loop_timer_set(d->x.loop, &d->timer, wake_ms);
    }
}

static void probed(void *context, bool good, const char *why) {
    struct dialler *d = context;
    (void)why;
    reconnect_probed(&d->reconnect, good, loop_now_ms(d->x.loop), chance());
    plan(d);
}

/* On the timer only: a connection must not be closed in the middle of what it tells. */
static void on_timer(void *context) {
    struct dialler *d = context;
    struct reconnect_order o;
    do {
        uint64_t now_ms = loop_now_ms(d->x.loop);
        o = reconnect_step(&d->reconnect, now_ms, chance(), true);
        if (o.action == RECONNECT_CONNECT) {
            struct mqtt_target t = {.address = d->addresses[o.endpoint], .tls = d->tls, .keepalive_s = d->keepalive_s};
            mqtt_dial(d->mqtt, &t);
        } else if (o.action == RECONNECT_PROBE) {
            struct conn_options p = {.tls = d->tls, .open_timeout_ms = PROBE_MS};
            probe_begin(&d->probe, &d->x, d->addresses[o.endpoint], &p, probed, d);
        } else if (o.action == RECONNECT_LEAVE) {
            d->returns = o.returns;
            mqtt_give_up(d->mqtt, o.why); /* dialler_closed follows */
            return;
        }
    } while (o.action != RECONNECT_NOTHING);
    plan(d);
}

void dialler_init(struct dialler *d, const struct conn_context *x, struct mqtt *mqtt, const struct conn_tls *tls,
                  const char *const *endpoints, uint32_t endpoint_count, uint32_t keepalive_s) {
    struct reconnect_options o = {.endpoint_count = endpoint_count, .failback_ms = FAILBACK_MS, .longest_wait_ms = LONGEST_WAIT_MS};
    must(endpoint_count > 0 && endpoint_count <= RECONNECT_ENDPOINTS_MAX);
    *d = (struct dialler){.x = *x, .mqtt = mqtt, .tls = tls, .keepalive_s = keepalive_s};
    d->timer = (struct loop_timer){.fire = on_timer, .context = d};
    for (uint32_t i = 0; i < endpoint_count; i++) {
        o.priorities[i] = i;
        (void)snprintf(d->addresses[i], sizeof d->addresses[i], "%s", endpoints[i]);
    }
    reconnect_init(&d->reconnect, &o);
}

void dialler_start(struct dialler *d) {
    reconnect_start(&d->reconnect, loop_now_ms(d->x.loop));
    plan(d);
}

void dialler_stop(struct dialler *d) {
    reconnect_stop(&d->reconnect);
    probe_end(&d->probe);
    loop_timer_cancel(d->x.loop, &d->timer);
    mqtt_close(d->mqtt);
}

void dialler_stage(struct dialler *d, enum mqtt_stage s) {
    reconnect_reached(&d->reconnect, s == MQTT_STAGE_TLS ? RECONNECT_TLS : RECONNECT_MQTT, loop_now_ms(d->x.loop));
    plan(d);
}

void dialler_connected(struct dialler *d) {
    reconnect_reached(&d->reconnect, RECONNECT_UP, loop_now_ms(d->x.loop));
    plan(d);
}

void dialler_closed(struct dialler *d) {
    probe_end(&d->probe);
    if (d->returns) {
        reconnect_left(&d->reconnect, loop_now_ms(d->x.loop));
    } else {
        reconnect_failed(&d->reconnect, loop_now_ms(d->x.loop), chance());
    }
    d->returns = false;
    plan(d);
}
