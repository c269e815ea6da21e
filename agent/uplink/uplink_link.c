#include <stdio.h>
#include <string.h>

#include "agent/uplink/uplink_core.h"
#include "include/grey/must.h"
#include "platform/keys.h"
#include "platform/log.h"
#include "platform/metrics.h"

/* The driver of federation/reconnect.h: it decides, this dials, closes and probes.  Orders are carried out on the timer only, because a
 * connection must not be closed in the middle of what it tells. */

#define PROBE_MS 30000u
#define HURRY_PAUSE_MS 60000u /* an interface that flaps does not drive us */
#define HURRY_SPREAD_MS 2000u
#define OFFER_PORT ":443"

static const char *const breakers[] = {"closed", "open", "half-open"};
static struct metric connects = METRIC_COUNTER("grey_federation_connects_total", "Connections to a broker.");
static struct metric resumes =
    METRIC_COUNTER("grey_federation_resumed_handshakes_total", "TLS handshakes that went on with the session before.");
static struct metric fallen =
    METRIC_COUNTER("grey_federation_connection_failures_total", "Tries that failed and connections lost.");
static struct metric opening =
    METRIC_COUNTER("grey_federation_handshake_bytes_total", "Bytes both ways until connections were open.");
static struct metric endpoint_states =
    METRIC_GAUGE_LABELS("grey_federation_endpoints", "Endpoints by the state of their circuit breaker.", "breaker", breakers);
static struct metric keepalive_s = METRIC_GAUGE("grey_federation_keepalive_seconds", "Keep-alive in force; 0: not connected.");

static uint32_t chance(void) {
    uint32_t random;
    keys_random(&random, sizeof random);
    return random;
}

static uint64_t now_ms(const struct uplink *u) {
    return loop_now_ms(u->x.loop);
}

static struct uplink_endpoint *current(struct uplink *u) {
    return u->reconnect.current == RECONNECT_NONE ? NULL : &u->endpoints[u->reconnect.current];
}

static bool idle(const struct uplink *u) {
    bool on_way = u->on_way_count > 0 || u->frame.size > 0 || uplink_parts_any(u);
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        struct channel_facts f;
        state_channel(uplink_state(u), (enum event_channel)i, &f);
        on_way = on_way || u->streams[i].out.frames > 0 || f.pending_count > 0;
    }
    return !on_way;
}

void uplink_link_plan(struct uplink *u) {
    uint64_t wake_ms = reconnect_wake_ms(&u->reconnect, now_ms(u));
    if (wake_ms == UINT64_MAX) {
        loop_timer_cancel(u->x.loop, &u->link_timer);
    } else {
        loop_timer_set(u->x.loop, &u->link_timer, wake_ms);
    }
    uplink_handover_link(u);
}

/* --- probes: is a better endpoint good? ------------------------------------------------------------------------------------------- */

static void probed(void *context, bool good, const char *why) {
    struct uplink *u = context;
    log_debug("uplink", "probe", "endpoint=%s good=%d %s", u->endpoints[u->reconnect.probed].address, good, why);
    reconnect_probed(&u->reconnect, good, now_ms(u), chance());
    uplink_link_plan(u);
}

bool uplink_link_offers(const struct uplink *u, const struct uplink_endpoint *e) {
    size_t size = strlen(e->address), port = strlen(OFFER_PORT);
    return u->o.offer && size > port && strcmp(e->address + size - port, OFFER_PORT) == 0;
}

const struct conn_proxy *uplink_link_proxy(const struct uplink *u) {
    return u->proxy.address == NULL ? NULL : &u->proxy;
}

/* --- orders ------------------------------------------------------------------------------------------------------------------------ */

static void dial(struct uplink *u, struct uplink_endpoint *e) {
    struct mqtt_target t = {.address = e->address,
                            .tls = u->o.tls,
                            .proxy = uplink_link_proxy(u),
                            .session = e->session,
                            .offer = uplink_link_offers(u, e),
                            .keepalive_s = keepalive_ask_s(&e->keepalive, now_ms(u))};
    mqtt_dial(u->mqtt, &t);
}

static void ask(struct uplink *u, struct uplink_endpoint *e) {
    struct conn_options o = {.tls = u->o.tls,
                             .open_timeout_ms = PROBE_MS,
                             .proxy = uplink_link_proxy(u),
                             .session = e->session,
                             .offer = uplink_link_offers(u, e)};
    probe_begin(&u->probe, &u->x, e->address, &o, probed, u);
}

static void gone(struct uplink *u, const char *why, bool broken) {
    struct uplink_endpoint *e = current(u);
    uplink_note_error(u, why);
    if (e != NULL) {
        keepalive_end(&e->keepalive, now_ms(u), broken);
    }
    uplink_session_end(u);
    probe_end(&u->probe);
    uplink_meter_closed(u);
}

static void lost(struct uplink *u, const char *why) {
    metrics_add(&fallen, 0, 1);
    gone(u, why, true);
    reconnect_failed(&u->reconnect, now_ms(u), chance());
    uint64_t next_ms = reconnect_wake_ms(&u->reconnect, now_ms(u));
    log_limited(LOG_WARN, "uplink", "closed", "endpoint=%s breaker=%s next_try_ms=%llu %s", mqtt_address(u->mqtt),
                breaker_state_name(u->reconnect.breakers[u->reconnect.current].state),
                (unsigned long long)(next_ms > now_ms(u) ? next_ms - now_ms(u) : 0), why);
}

static void obey(struct uplink *u, const struct reconnect_order *o) {
    switch (o->action) {
    case RECONNECT_CONNECT:
        dial(u, &u->endpoints[o->endpoint]);
        break;
    case RECONNECT_PROBE:
        ask(u, &u->endpoints[o->endpoint]);
        break;
    case RECONNECT_LEAVE:
        mqtt_close(u->mqtt);
        if (o->returns) {
            log_info("uplink", "return", "endpoint=%s has been good for %u s", u->endpoints[o->endpoint].address,
                     u->reconnect.hold_ms / 1000);
            gone(u, o->why, false);
            reconnect_left(&u->reconnect, now_ms(u));
        } else {
            lost(u, o->why);
        }
        break;
    case RECONNECT_NOTHING:
        break;
    }
}

static void on_link_timer(void *context) {
    struct uplink *u = context;
    struct reconnect_order o;
    do {
        o = reconnect_step(&u->reconnect, now_ms(u), chance(), idle(u));
        obey(u, &o);
    } while (o.action != RECONNECT_NOTHING);
    uplink_link_plan(u);
}

/* The modem has dialled in, a cable was plugged: what waits for its time is tried soon. */
static void on_network(void *context) {
    struct uplink *u = context;
    bool lately = u->hurried_ms > 0 && now_ms(u) < u->hurried_ms + HURRY_PAUSE_MS;
    if (u->reconnect.stage == RECONNECT_WAIT && !lately) {
        u->hurried_ms = now_ms(u);
        log_info("uplink", "network", "an address or a route came: trying now");
        reconnect_hurry(&u->reconnect, now_ms(u) + chance() % HURRY_SPREAD_MS);
        uplink_link_plan(u);
    }
}

/* --- what the connection tells ----------------------------------------------------------------------------------------------------- */

void uplink_link_stage(void *context, enum mqtt_stage s) {
    struct uplink *u = context;
    reconnect_reached(&u->reconnect, s == MQTT_STAGE_TLS ? RECONNECT_TLS : RECONNECT_MQTT, now_ms(u));
    if (s == MQTT_STAGE_CONNECT) {
        metrics_add(&opening, 0, mqtt_opening_bytes(u->mqtt));
    }
    uplink_link_plan(u);
}

void uplink_link_connected(struct uplink *u) {
    struct uplink_endpoint *e = current(u);
    metrics_add(&connects, 0, 1);
    metrics_add(&resumes, 0, e->session != NULL && conn_session_resumed(e->session));
    keepalive_begin(&e->keepalive, now_ms(u));
    uplink_learned_keep(u);
    log_info("uplink", "connected", "endpoint=%s keepalive_s=%u handshake_bytes=%u resumed=%s", e->address,
             mqtt_keepalive_s(u->mqtt), mqtt_opening_bytes(u->mqtt),
             e->session != NULL && conn_session_resumed(e->session) ? "yes" : "no");
    uplink_link_hello(u);
}

void uplink_link_hello(struct uplink *u) {
    reconnect_reached(&u->reconnect, RECONNECT_HELLO, now_ms(u));
    uplink_link_plan(u);
}

void uplink_link_answered(struct uplink *u) {
    reconnect_reached(&u->reconnect, RECONNECT_UP, now_ms(u));
    uplink_link_plan(u);
}

void uplink_link_closed(void *context, const char *why) {
    struct uplink *u = context;
    lost(u, why);
    uplink_link_plan(u);
}

void uplink_link_moved(void *context, bool heard) {
    struct uplink *u = context;
    struct uplink_endpoint *e = current(u);
    if (e != NULL) {
        (heard ? keepalive_heard : keepalive_spoke)(&e->keepalive, now_ms(u));
    }
}

/* --- life -------------------------------------------------------------------------------------------------------------------------- */

bool uplink_link_begin(struct uplink *u, struct fault *f) {
    struct metric *const all[] = {&connects, &resumes, &fallen, &opening, &endpoint_states, &keepalive_s};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        metrics_register(all[i]);
    }
    struct reconnect_options o = {.endpoint_count = u->o.endpoint_count, .failback_ms = u->o.failback_s * 1000};
    must(o.endpoint_count > 0 && o.endpoint_count <= RECONNECT_ENDPOINTS_MAX && u->o.failback_s > 0);
    u->link_timer = (struct loop_timer){.fire = on_link_timer, .context = u};
    for (uint32_t i = 0; i < o.endpoint_count; i++) {
        struct uplink_endpoint *e = &u->endpoints[i];
        (void)snprintf(e->address, sizeof e->address, "%s", u->o.endpoints[i]);
        keepalive_init(&e->keepalive, u->o.keepalive_s);
        o.priorities[i] = u->o.priorities[i];
        e->session = u->o.tls == NULL ? NULL : conn_session_new();
        if (u->o.tls != NULL && e->session == NULL) {
            (void)fault_set(f, E_NO_MEMORY, "TLS session");
            return false;
        }
    }
    if (u->o.proxy != NULL && u->o.proxy[0] != 0) {
        (void)snprintf(u->proxy_address, sizeof u->proxy_address, "%s", u->o.proxy);
        (void)snprintf(u->proxy_auth, sizeof u->proxy_auth, "%s", u->o.proxy_auth == NULL ? "" : u->o.proxy_auth);
        u->proxy = (struct conn_proxy){.address = u->proxy_address, .auth_path = u->proxy_auth};
    }
    uplink_learned_begin(u);
    reconnect_init(&u->reconnect, &o);
    struct fault deaf = {0};
    if (netwatch_open(&u->netwatch, u->x.loop, on_network, u, &deaf) != E_OK) {
        log_info("uplink", "network", "this machine does not tell when an interface comes up (%s): tries follow their times",
                 deaf.text);
    }
    return true;
}

void uplink_link_end(struct uplink *u) {
    loop_timer_cancel(u->x.loop, &u->link_timer);
    netwatch_close(&u->netwatch);
    for (uint32_t i = 0; i < u->o.endpoint_count; i++) {
        conn_session_free(u->endpoints[i].session);
        u->endpoints[i].session = NULL;
    }
}

void uplink_link_start(struct uplink *u) {
    reconnect_start(&u->reconnect, now_ms(u));
    uplink_link_plan(u);
}

void uplink_link_stop(struct uplink *u) {
    struct uplink_endpoint *e = current(u);
    if (e != NULL) {
        keepalive_end(&e->keepalive, now_ms(u), false);
    }
    probe_end(&u->probe);
    reconnect_stop(&u->reconnect);
    mqtt_close(u->mqtt);
    loop_timer_cancel(u->x.loop, &u->link_timer);
}

void uplink_link_facts(const struct uplink *u, struct uplink_facts *out) {
    const struct reconnect *r = &u->reconnect;
    uint64_t now = now_ms(u);
    uint32_t counts[3] = {0};
    out->stage = reconnect_stage_name(r->stage);
    out->endpoint = r->current == RECONNECT_NONE ? u->endpoints[0].address : u->endpoints[r->current].address;
    out->stage_ms = (int64_t)(now - r->since_ms);
    out->next_try_ms = r->stage == RECONNECT_WAIT ? (r->try_ms > now ? (int64_t)(r->try_ms - now) : 0) : -1;
    out->keepalive_s = mqtt_keepalive_s(u->mqtt);
    out->resumed = mqtt_connected(u->mqtt) && r->current != RECONNECT_NONE && u->endpoints[r->current].session != NULL &&
                   conn_session_resumed(u->endpoints[r->current].session);
    out->credit_bytes = u->welcomed ? u->credit_bytes : 0;
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        out->on_way_bytes += u->streams[i].out.bytes_on_way;
    }
    out->handshake_bytes = mqtt_opening_bytes(u->mqtt);
    out->proxy = u->proxy.address == NULL ? "" : u->proxy.address;
    uint64_t ask_ms = handover_wake_ms(&u->handover.policy);
    out->handover_questions = u->handover.policy.number;
    out->handover_ms = ask_ms == UINT64_MAX ? -1 : ask_ms > now ? (int64_t)(ask_ms - now) : 0;
    out->handed_to = u->handover.to;
    out->handed_unix_ms = u->handover.handed_ms;
    out->endpoint_count = u->o.endpoint_count;
    for (uint32_t i = 0; i < u->o.endpoint_count; i++) {
        const struct breaker *b = &r->breakers[i];
        out->endpoints[i] = (struct uplink_endpoint_facts){
            .address = u->endpoints[i].address,
            .priority = r->o.priorities[i],
            .breaker = breaker_state_name(b->state),
            .failures = b->failures,
            .open_ms = b->state == BREAKER_OPEN && b->until_ms > now ? (int64_t)(b->until_ms - now) : 0,
            .keepalive_s = keepalive_ask_s(&u->endpoints[i].keepalive, now),
            .in_use = r->stage >= RECONNECT_DIAL && i == r->current};
        counts[b->state]++;
    }
    out->sent_bytes += u->probe.count.out_bytes + u->handover.probe.count.out_bytes;
    out->received_bytes += u->probe.count.in_bytes + u->handover.probe.count.in_bytes;
    for (unsigned i = 0; i < 3; i++) {
        metrics_set(&endpoint_states, i, counts[i]);
    }
    metrics_set(&keepalive_s, 0, out->keepalive_s);
}
