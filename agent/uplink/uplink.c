#include "agent/uplink/uplink_core.h"

#include <stdio.h>
#include <string.h>

#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/now.h"

/* idle -> (leads) connecting -> hello sent -> welcomed: streaming.  One frame at a time: whose turn it is, its rows and payloads
 * (agent/uplink/gather.h), the frame, the broker.  What is on the way is not kept here: only the core's acknowledgement counts, and when that
 * does not come, a new hello asks the core for its position and the stream goes on behind it.  A connection is made anew only when the
 * broker does not answer (platform/mqtt.h): handshakes cost more than hellos. */

#define TICK_MS 1000u
#define IDLE_TICK_MS 10000u

static struct metric sent_bytes =
    METRIC_COUNTER("grey_federation_sent_bytes_total", "Bytes sent towards the core, TLS and MQTT included.");
static struct metric received_bytes =
    METRIC_COUNTER("grey_federation_received_bytes_total", "Bytes received from the core, TLS and MQTT included.");
static struct metric contact = METRIC_GAUGE_MILLI("grey_federation_last_contact_seconds", "Since the core's last word; -1: never.");

struct state *uplink_state(const struct uplink *u) {
    return node_state(u->node);
}

void uplink_note_error(struct uplink *u, const char *text) {
    (void)snprintf(u->last_error, sizeof u->last_error, "%s", text);
}

/* --- time ----------------------------------------------------------------------------------------------------------------------------- */

static void on_timer(void *context) {
    struct uplink *u = context;
    if (!u->leads) {
        return;
    }
    uint64_t now_ms = loop_now_ms(u->x.loop);
    uplink_meter_look(u);
    uplink_session_look(u, now_ms);
    uplink_ack_look(u, now_ms);
    uplink_supply_look(u, now_ms);
    uplink_session_hello(u);
    uplink_ack_propose(u);
    uplink_send_pump(u);
    bool busy = !u->welcomed || uplink_supply_busy(u);
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        busy = busy || u->streams[i].out.frames > 0;
    }
    if (u->timer.place == 0) {
        loop_timer_after(u->x.loop, &u->timer, busy ? TICK_MS : IDLE_TICK_MS);
    }
}

/* --- life ----------------------------------------------------------------------------------------------------------------------------- */

struct uplink *uplink_new(const struct conn_context *x, const struct uplink_options *o, struct node *node, struct fault *f) {
    struct metric *const all[] = {&sent_bytes, &received_bytes, &contact};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        metrics_register(all[i]);
    }
    uplink_session_register();
    uplink_send_register();
    uplink_supply_register();
    uplink_meter_register();
    uplink_handover_register();
    struct uplink *u = mem_new(1, sizeof *u);
    if (u == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "uplink");
        return NULL;
    }
    u->x = *x;
    u->o = *o;
    u->bandwidth = o->bandwidth;
    u->node = node;
    (void)snprintf(u->site, sizeof u->site, "%s", node_site(node));
    (void)snprintf(u->name, sizeof u->name, "%s", node_name(node));
    u->timer = (struct loop_timer){.fire = on_timer, .context = u};
    u->ack_timer = (struct loop_timer){.fire = uplink_ack_timer, .context = u};
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        u->streams[i].owner = u;
    }
    uplink_seal_begin(u);
    uplink_gate_begin(u);
    uplink_handover_begin(u);
    struct mqtt_options m = {.client_id = u->site,
                             .socket_dir = o->data_dir,
                             .inflight_max = UPLINK_ON_WAY_MAX,
                             .topics_repeat = true,
                             .gate = uplink_gate_grant,
                             .gate_context = u};
    u->mqtt = !uplink_link_begin(u, f) ? NULL : mqtt_new(x, &m, &uplink_session_events, u, f);
    u->gather = u->mqtt == NULL ? NULL : gather_new(node, uplink_send_gathered, u);
    if (u->gather == NULL) {
        mqtt_free(u->mqtt);
        uplink_link_end(u);
        mem_free(u);
        return NULL;
    }
    return u;
}

void uplink_free(struct uplink *u) {
    if (u == NULL) {
        return;
    }
    uplink_follow(u);
    uplink_handover_end(u);
    mqtt_free(u->mqtt);
    uplink_link_end(u);
    gather_free(u->gather);
    uplink_gate_end(u);
    builder_free(&u->frame);
    uplink_parts_end(u);
    uplink_seal_free(u);
    u->stopped = true;
    uplink_ack_release(u); /* the node still answers what was proposed */
}

void uplink_lead(struct uplink *u, grey_epoch epoch) {
    uplink_follow(u); /* of a former term, if nobody said that it was over */
    u->leads = true;
    u->epoch = epoch;
    u->patience_ms = UPLINK_PATIENCE_MS_MIN;
    uplink_meter_lead(u);
    u->turns = (struct channel_turns){0};
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        channel_begin(&u->streams[i].out, 0);
        u->streams[i].gather_until_ms = u->streams[i].waiting_since_ms = u->streams[i].sent_max = 0;
    }
    uplink_link_start(u);
    uplink_handover_lead(u);
    loop_timer_after(u->x.loop, &u->timer, UPLINK_RETRY_MS);
}

void uplink_follow(struct uplink *u) {
    if (u->leads) {
        u->leads = false;
        uplink_session_end(u);
        uplink_link_stop(u);
        uplink_nearby_forget(u);
        uplink_handover_follow(u);
        uplink_meter_closed(u);
    }
    loop_timer_cancel(u->x.loop, &u->timer);
    loop_timer_cancel(u->x.loop, &u->ack_timer);
}

void uplink_wake(struct uplink *u) {
    if (!u->leads) {
        return;
    }
    uplink_session_hello(u);
    if (u->welcomed && !gather_running(u->gather) && (u->timer.place == 0 || u->timer.deadline_ms > loop_now_ms(u->x.loop))) {
        loop_timer_after(u->x.loop, &u->timer, 0); /* after the entries of this turn, once */
    }
}

void uplink_set_bandwidth(struct uplink *u, const struct uplink_bandwidth *b) {
    u->bandwidth = *b;
    uplink_meter_look(u);
    uplink_session_hello(u);
    uplink_send_pump(u);
}

void uplink_facts(const struct uplink *u, struct uplink_facts *out) {
    struct conn_count c = mqtt_counted(u->mqtt);
    *out = (struct uplink_facts){.up = u->welcomed,
                                 .sealed = u->welcomed && u->seal.ready,
                                 .last_contact_unix_ms = u->last_contact_ms,
                                 .sent_bytes = c.out_bytes,
                                 .received_bytes = c.in_bytes};
    uplink_link_facts(u, out);
    uplink_meter_facts(u, out);
    memcpy(out->last_error, u->last_error, sizeof out->last_error);
    metrics_set(&sent_bytes, 0, (int64_t)out->sent_bytes);
    metrics_set(&received_bytes, 0, (int64_t)out->received_bytes);
    metrics_set(&contact, 0, u->last_contact_ms == 0 ? -1000 : now_wall_ms() - u->last_contact_ms);
}

bool uplink_hurry(struct uplink *u) {
    if (u->leads) {
        reconnect_hurry(&u->reconnect, loop_now_ms(u->x.loop));
        uplink_link_plan(u);
    }
    return u->leads;
}
