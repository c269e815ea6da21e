#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/uplink/uplink_core.h"
#include "federation/certify.h"
#include "federation/frame.h"
#include "platform/keys.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/now.h"

#define HELLO_MS_MIN 3000u /* the core has not welcomed us: say hello again; doubled each time up to the maximum */
#define HELLO_MS_MAX 300000u
#define RESYNC_PAUSE_MS 2000u /* between hellos, however often a core asks for one */

static struct metric link_up = METRIC_GAUGE("grey_federation_link_up", "1 while the core has welcomed this session.");
static struct metric rolled_back =
    METRIC_GAUGE("grey_federation_rolled_back", "1 while the core holds events that this site does not know (see the log).");
static struct metric refusals =
    METRIC_COUNTER("grey_federation_refused_messages_total", "Messages from the core's side that could not be read.");

void uplink_session_register(void) {
    struct metric *const all[] = {&link_up, &rolled_back, &refusals};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        metrics_register(all[i]);
    }
}

void uplink_session_refused(void) {
    metrics_add(&refusals, 0, 1);
}

/* --- the session ---------------------------------------------------------------------------------------------------------------------- */

void uplink_session_end(struct uplink *u) {
    if (u->welcomed) {
        log_info("uplink", "down", "endpoint=%s %s", mqtt_address(u->mqtt), u->last_error);
    }
    u->welcomed = false;
    node_core_worker(u->node, false);
    u->route[0] = 0;
    u->unheard = false;
    u->session++;
    uplink_pack_end(u);
    builder_free(&u->frame);
    uplink_parts_end(u);
    uplink_seal_end(u);
    metrics_set(&link_up, 0, 0);
}

void uplink_session_hello(struct uplink *u) {
    struct site_facts site;
    if (!u->hello_due || !mqtt_connected(u->mqtt) || !state_site(uplink_state(u), &site)) {
        return;
    }
    struct sync_hello h = {.incarnation = site.incarnation,
                           .epoch = u->epoch,
                           .feature_level = UP_LEVEL,
                           .node = bytes_str(u->name),
                           .time_ms = node_site_time_ms(u->node),
                           .down_bytes_per_s = u->meter.rule.down_bytes_per_s,
                           .former = site.former};
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        struct channel_facts f;
        state_channel(uplink_state(u), (enum event_channel)i, &f);
        h.channels[i].next_seq = f.next_seq;
        h.channels[i].acked_seq = f.acked_seq;
        h.channels[i].former_next = site.former_next[i];
    }
    struct builder b;
    builder_init(&b, 1024);
    sync_put_hello(&b, &h);
    if (u->seal.on ? uplink_seal_hello(u, builder_bytes(&b))
                   : uplink_send_content(u, CHANNEL_CONTROL, builder_bytes(&b), FRAME_FLAG_PRIORITY)) {
        uint8_t chance;
        keys_random(&chance, sizeof chance);
        u->hello_due = false;
        u->hello_ms = loop_now_ms(u->x.loop);
        u->hello_wait_ms = u->hello_wait_ms * 2 > HELLO_MS_MAX ? HELLO_MS_MAX : u->hello_wait_ms * 2;
        u->hello_wait_ms -= u->hello_wait_ms * chance / 1024; /* up to a quarter less, so that sites do not speak in chorus */
    }
    builder_free(&b);
}

void uplink_session_again(struct uplink *u, const char *why) {
    uplink_note_error(u, why);
    uplink_session_end(u);
    u->hello_due = true;
    uplink_link_hello(u);
    uplink_session_hello(u);
}

static void on_connected(void *context) {
    struct uplink *u = context;
    char filter[TOPIC_BYTES_MAX];
    uplink_meter_connected(u);
    uplink_link_connected(u);
    (void)snprintf(filter, sizeof filter, TOPIC_PREFIX "%s/down/#", u->site);
    (void)mqtt_subscribe(u->mqtt, filter); /* before the hello, so that the welcome finds us */
    u->on_way_count = 0;
    channel_pace_begin(&u->pace, u->gate.shaper.limit_bytes_per_s);
    u->hello_due = true;
    u->hello_wait_ms = HELLO_MS_MIN / 2;
    uplink_session_hello(u);
}

/* --- the core's word ------------------------------------------------------------------------------------------------------------------ */

/* The core has numbers that this site would give a second time: what is sent under them would be taken for repeats and lost. */
static bool knows_more(struct uplink *u, const struct sync_welcome *w) {
    bool more = false;
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        struct channel_facts f;
        state_channel(uplink_state(u), (enum event_channel)i, &f);
        if (w->position[i] >= f.next_seq) {
            more = true;
            (void)snprintf(u->last_error, sizeof u->last_error,
                           "the core has %s events up to %" PRIu64 ", this site gave only %" PRIu64
                           ": its data was rolled back; restore it from a snapshot",
                           event_channel_name((enum event_channel)i), w->position[i], f.next_seq - 1);
        }
    }
    metrics_set(&rolled_back, 0, more);
    return more;
}

static void take_welcome(struct uplink *u, const struct sync_welcome *w) {
    if (u->welcomed) {
        return; /* of a hello that was said twice */
    }
    if (knows_more(u, w)) {
        u->hello_wait_ms = HELLO_MS_MAX;
        uplink_link_answered(u); /* another broker leads to the same core */
        log_error("uplink", "rolled-back", "%s", u->last_error);
        return;
    }
    u->welcomed = true;
    u->credit_bytes = CREDIT_BYTES_FIRST;
    uplink_link_answered(u);
    uplink_pack_begin(u, w->codings);
    u->takes_parts = (w->codings & CODING_PARTS) != 0;
    u->sized_gaps = (w->codings & CODING_GAP_BYTES) != 0;
    node_core_time(u->node, w->time_ms);
    u->hello_due = false;
    u->hello_wait_ms = HELLO_MS_MIN / 2;
    u->last_error[0] = 0;
    metrics_set(&link_up, 0, 1);
    log_info("uplink", "up", "endpoint=%s epoch=%" PRIu64, mqtt_address(u->mqtt), u->epoch);
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        struct channel_facts f;
        struct uplink_stream *s = &u->streams[i];
        state_channel(uplink_state(u), (enum event_channel)i, &f);
        channel_begin(&s->out, f.acked_seq);
        s->waiting_since_ms = 0;
        if (channel_acked(&s->out, w->position[i])) {
            uplink_ack_propose(u);
        }
    }
    u->certifies = (w->codings & CODING_CERTIFY) != 0;
    node_core_worker(u->node, (w->codings & CODING_OFFLOAD) != 0);
    uplink_supply_begin(u, w->codings);
    uplink_attest_begin(u, w->codings);
}

/* False: it is not mine to take, or cannot be read (*why). */
void uplink_certify(struct uplink *u, struct bytes request) {
    struct site_facts site;
    struct builder b;
    if (!u->leads || !u->welcomed || !u->certifies || !state_site(uplink_state(u), &site)) {
        return;
    }
    builder_init(&b, CERTIFY_REQUEST_BYTES_MAX + 64u);
    certify_put_request(&b, &(struct certify){.incarnation = site.incarnation, .epoch = u->epoch, .pem = request});
    if (b.err == E_OK) {
        (void)uplink_send_content(u, CHANNEL_CONTROL, builder_bytes(&b), FRAME_FLAG_PRIORITY);
    }
    builder_free(&b);
}

static void certificate_kept(void *context, const struct node_answer *a) {
    (void)context;
    if (a->err != E_OK) {
        log_limited(LOG_WARN, "uplink", "certificate", "error=GREY-%d %s: %s", error_id(a->err), error_sentence(a->err), a->detail);
    }
}

/* The gateway that asked reads it in the log, and judges it. */
static bool take_certificate(struct uplink *u, struct bytes content, uint64_t incarnation, enum grey_error *why) {
    struct certify c;
    char key[sizeof CERTIFY_KEY_CERTIFICATE + LIMIT_NAME_BYTES];
    struct builder b;
    *why = certify_get_certificate(content, &c);
    if (*why != E_OK || c.incarnation != incarnation || c.epoch != u->epoch || !u->welcomed) {
        return false;
    }
    (void)snprintf(key, sizeof key, CERTIFY_KEY_CERTIFICATE "%.*s", (int)c.node.size, (const char *)c.node.data);
    builder_init(&b, CERTIFY_CERTIFICATE_BYTES_MAX + 1024u);
    payload_kv(&b, false, bytes_str(key), KV_ALWAYS, 0, bytes_str("application/x-pem-file"), c.pem);
    struct blob *payload = builder_blob(&b);
    builder_free(&b);
    if (payload != NULL) {
        node_propose(u->node, ENTRY_KV, payload, true, certificate_kept, NULL);
        blob_unref(payload);
    }
    return true;
}

static bool take_supply(struct uplink *u, enum message_kind kind, struct bytes content, uint64_t incarnation,
                        enum grey_error *why) {
    struct supply_offer o;
    struct supply_chunk k;
    if (node_quarantined(u->node)) {
        *why = E_OK;
        return false; /* the next leader gets it */
    }
    if (kind == MESSAGE_DOWN_OFFER && (*why = supply_get_offer(content, &o)) == E_OK && o.incarnation == incarnation &&
        o.epoch == u->epoch && u->welcomed) {
        uplink_supply_offer(u, &o);
        return true;
    }
    if (kind == MESSAGE_DOWN_CHUNK && (*why = supply_get_chunk(content, &k)) == E_OK && k.incarnation == incarnation &&
        k.epoch == u->epoch && u->welcomed) {
        uplink_supply_chunk(u, k.content);
        return true;
    }
    return false;
}

static bool take_result(struct uplink *u, struct bytes content, uint64_t incarnation, enum grey_error *why) {
    struct offload_result r;
    *why = offload_get_result(content, &r);
    bool mine = *why == E_OK && r.incarnation == incarnation && r.epoch == u->epoch && u->welcomed;
    if (mine) {
        node_task_result(u->node, &r);
    }
    return mine;
}

void uplink_session_unheard(struct uplink *u) {
    u->unheard = u->welcomed && u->route[0] != 0;
    uplink_session_look(u, loop_now_ms(u->x.loop));
}

static void take_resync(struct uplink *u) {
    if (u->hello_due) {
        return;
    }
    if (loop_now_ms(u->x.loop) <
        u->hello_ms + RESYNC_PAUSE_MS) { /* the core may have been another one when it welcomed that hello */
        u->unheard = u->unheard || u->welcomed;
        return;
    }
    u->hello_wait_ms = HELLO_MS_MIN / 2;
    uplink_session_again(u, "the core asks where this site is");
}

/* Each says whether it was of this incarnation and session; older ones are passed over. */
static bool take(struct uplink *u, enum message_kind kind, struct bytes content, uint64_t incarnation, enum grey_error *why) {
    struct sync_welcome w;
    struct sync_ack a;
    struct sync_route route;
    struct sync_attest word;
    bool mine = false;
    switch (kind) {
    case MESSAGE_DOWN_WELCOME:
        *why = sync_get_welcome(content, &w);
        mine = *why == E_OK && w.incarnation == incarnation && w.epoch == u->epoch;
        if (mine) {
            take_welcome(u, &w);
        }
        return mine;
    case MESSAGE_DOWN_RESYNC:
        *why = sync_get_resync(content, &w);
        mine = *why == E_OK && w.incarnation == incarnation && w.epoch <= u->epoch;
        if (mine) {
            take_resync(u);
        }
        return mine;
    case MESSAGE_DOWN_ROUTE:
        *why = sync_get_route(content, &route);
        mine = *why == E_OK && route.incarnation == incarnation && route.epoch == u->epoch && !u->welcomed;
        if (mine) {
            memcpy(u->route, route.route, sizeof u->route);
        }
        return mine;
    case MESSAGE_DOWN_ACK:
        *why = sync_get_ack(content, &a);
        mine = *why == E_OK && a.incarnation == incarnation && a.epoch == u->epoch && u->welcomed;
        if (mine) {
            u->credit_bytes = a.credit_bytes;
            uplink_ack_take(u, a.channel, a.acked_seq);
        }
        return mine;
    case MESSAGE_DOWN_ATTEST:
        *why = sync_get_attest(content, &word);
        mine = *why == E_OK && u->welcomed && u->judges;
        if (mine) {
            uplink_attest_take(u, &word);
        }
        return mine;
    case MESSAGE_DOWN_OFFER:
    case MESSAGE_DOWN_CHUNK:
        return take_supply(u, kind, content, incarnation, why);
    case MESSAGE_DOWN_CERTIFIED:
        return take_certificate(u, content, incarnation, why);
    case MESSAGE_DOWN_RESULT:
        return take_result(u, content, incarnation, why);
    default:
        *why = E_BAD_MESSAGE;
        return false;
    }
}

/* What stands in a frame of the core, unsealed; lent by scratch or opened.  0, with *why: nothing that may be taken. */
static enum message_kind content_of(struct uplink *u, enum event_channel c, struct bytes payload, struct builder *scratch,
                                    struct builder *opened, struct bytes *content, enum grey_error *why) {
    struct frame f;
    size_t used, need;
    if (frame_read(payload, &f, &used, &need, why) != FRAME_READY || used != payload.size) {
        return (enum message_kind)0;
    }
    bool is_sealed = (f.flags & FRAME_FLAG_ENCRYPTED) != 0;
    *why = uplink_seal_get(u, c, &f, opened);
    *why = *why == E_OK ? frame_content(&f, scratch, content) : *why;
    if (*why != E_OK) {
        return (enum message_kind)0;
    }
    enum message_kind kind = sync_kind(*content);
    if (!is_sealed && !uplink_seal_may_be_plain(u, kind)) {
        *why = E_SEALED;
        return (enum message_kind)0;
    }
    if (kind != MESSAGE_DOWN_SEALED_WELCOME) {
        return kind;
    }
    *why = u->seal.on ? uplink_seal_welcome(u, *content, opened, content) : E_BAD_MESSAGE;
    return *why == E_OK && sync_kind(*content) == MESSAGE_DOWN_WELCOME ? MESSAGE_DOWN_WELCOME : (enum message_kind)0;
}

static void on_message(void *context, const char *topic, struct bytes payload) {
    struct uplink *u = context;
    struct grey_name site;
    enum event_channel c;
    enum grey_error why = E_BAD_MESSAGE;
    struct builder scratch, opened;
    struct bytes content = {0};
    struct site_facts facts;
    builder_init(&scratch, LIMIT_FRAME_PAYLOAD_BYTES);
    builder_init(&opened, LIMIT_FRAME_PAYLOAD_BYTES);
    bool ours = sync_topic_parse(topic, false, &site, &c) && strcmp(site.text, u->site) == 0 && state_site(uplink_state(u), &facts);
    enum message_kind kind = ours ? content_of(u, c, payload, &scratch, &opened, &content, &why) : (enum message_kind)0;
    bool mine = kind != 0 && take(u, kind, content, facts.incarnation, &why);
    if (why != E_OK) {
        uplink_session_refused();
        log_limited(LOG_WARN, "uplink", "refuse", "topic=%.100s error=GREY-%d %s", topic, error_id(why), error_sentence(why));
    }
    uplink_meter_received(u,
                          kind == MESSAGE_DOWN_ACK      ? ledger_of_channel(c)
                          : kind == MESSAGE_DOWN_ATTEST ? LEDGER_ATTESTATION
                                                        : LEDGER_SESSION,
                          payload.size);
    u->last_contact_ms = mine ? now_wall_ms() : u->last_contact_ms;
    builder_free(&scratch);
    builder_free(&opened);
    uplink_send_pump(u);
}

static void on_writable(void *context) {
    struct uplink *u = context;
    uplink_session_hello(u);
    uplink_supply_pump(u);
    uplink_send_pump(u);
}

const struct mqtt_events uplink_session_events = {.connected = on_connected,
                                                  .closed = uplink_link_closed,
                                                  .stage = uplink_link_stage,
                                                  .moved = uplink_link_moved,
                                                  .message = on_message,
                                                  .published = uplink_send_published,
                                                  .writable = on_writable};

/* --- time ----------------------------------------------------------------------------------------------------------------------------- */

void uplink_session_look(struct uplink *u, uint64_t now_ms) {
    if (u->unheard && now_ms >= u->hello_ms + RESYNC_PAUSE_MS) {
        uplink_session_again(u, "the core that took this session is gone, or asks where this site is");
        return;
    }
    if (u->welcomed || u->hello_due || !mqtt_connected(u->mqtt) || now_ms < u->hello_ms + u->hello_wait_ms) {
        return;
    }
    if (metrics_value(&rolled_back, 0) == 0) { /* else it did answer, and said why it cannot welcome this site */
        uplink_note_error(u, "connected to the broker, but the core does not answer");
    }
    u->hello_due = true;
}
