#include "agent/uplink.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/gather.h"
#include "federation/channel.h"
#include "federation/frame.h"
#include "federation/shaper.h"
#include "include/grey/must.h"
#include "platform/compress.h"
#include "platform/keys.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/mqtt.h"
#include "platform/now.h"

/* idle -> (leads) connecting -> hello sent -> welcomed: streaming.  One frame at a time: whose turn it is, its rows and payloads
 * (agent/gather.h), the frame, the broker.  What is on the way is not kept here: only the core's acknowledgement counts, and when that
 * does not come, a new hello asks the core for its position and the stream goes on behind it.  A connection is made anew only when the
 * broker does not answer (platform/mqtt.h): handshakes cost more than hellos. */

#define COMPRESS_FROM_BYTES 256u
#define FRAME_MARGIN_BYTES 4096u /* what stands around the records of a frame; each has some 20 bytes more */
#define GATHER_DATA_EVENTS 512u
#define GATHER_DATA_MS 200u /* normal and low events wait this long for company */
#define TICK_MS 1000u
#define IDLE_TICK_MS 10000u
#define RETRY_MS 1000u
#define ACK_PATIENCE_MS_MIN 15000u /* the broker has it and the core is silent: ask; doubled each time up to the maximum */
#define ACK_PATIENCE_MS_MAX 240000u
#define HELLO_MS_MIN 3000u /* the core has not welcomed us: say hello again; doubled each time up to the maximum */
#define HELLO_MS_MAX 300000u
#define HELLOS_PER_ENDPOINT 3u /* then another broker is tried, if there is one */
#define HELLOS_PER_CONNECT 12u /* and the same one anew after so many, in case it has lost our subscription */
#define RESYNC_PAUSE_MS 2000u  /* a hello so fresh answers the core's wish for one */
#define ACK_PROPOSE_MS 500u    /* acknowledgements become log entries at most this often: each is a commit on every disk */
#define BURST_SECONDS_DIV 4u   /* a quarter of a second's bytes may leave at once */
#define ON_WAY_MAX 20u         /* publishes that the broker has not confirmed */

struct stream {
    struct channel_out out;
    struct uplink *owner;
    grey_seq proposed;         /* acknowledgement on its way through the log; 0: none */
    uint64_t gather_until_ms;  /* nothing is sent before; 0: all was sent */
    uint64_t waiting_since_ms; /* the broker has frames that the core has not acknowledged; 0: none known */
};

/* A publish that the broker has not confirmed. */
struct on_way {
    int id;
    uint32_t bytes;
    uint64_t sent_ms;
    enum event_channel channel;
};

struct uplink {
    struct conn_context x;
    struct uplink_options o;
    struct node *node;
    struct mqtt *mqtt;
    struct gather *gather;
    struct shaper shaper;
    char site[LIMIT_NAME_BYTES + 1], name[LIMIT_NAME_BYTES + 1];
    bool leads, welcomed, hello_due, pumping, stopped;
    uint32_t proposals; /* acknowledgements that the node has not answered */
    grey_epoch epoch;
    uint64_t session, gather_session, message_id;
    uint64_t hello_ms, hello_wait_ms, patience_ms, acks_proposed_ms;
    uint32_t hellos;     /* on this connection without a welcome */
    uint32_t core_level; /* feature level of the core that welcomed this session */
    struct stream streams[CHANNEL_COUNT];
    struct channel_turns turns;
    struct channel_pace pace;
    uint64_t reconnect_hello_wait_ms;
    struct on_way on_way[ON_WAY_MAX];
    uint32_t on_way_count;
    struct builder frame; /* built and not yet taken by the MQTT client */
    enum event_channel frame_channel;
    grey_seq frame_to;
    struct loop_timer timer, gate_timer, ack_timer;
    int64_t last_contact_ms;
    char last_error[160];
};

static const char *const channels[] = {"control", "events", "data"};
static struct metric link_up = METRIC_GAUGE("grey_federation_link_up", "1 while the core has welcomed this session.");
static struct metric sent_bytes =
    METRIC_COUNTER("grey_federation_sent_bytes_total", "Bytes sent towards the core, TLS and MQTT included.");
static struct metric received_bytes =
    METRIC_COUNTER("grey_federation_received_bytes_total", "Bytes received from the core, TLS and MQTT included.");
static struct metric sent_events =
    METRIC_COUNTER_LABELS("grey_federation_sent_events_total", "Events sent, repeats included.", "channel", channels);
static struct metric contact = METRIC_GAUGE_MILLI("grey_federation_last_contact_seconds", "Since the core's last word; -1: never.");
static struct metric refusals =
    METRIC_COUNTER("grey_federation_refused_messages_total", "Messages from the core's side that could not be read.");
static struct metric rolled_back =
    METRIC_GAUGE("grey_federation_rolled_back", "1 while the core holds events that this site does not know (see the log).");
static struct metric connects = METRIC_COUNTER("grey_federation_connects_total", "Connections to the broker.");

static void pump(struct uplink *u);
static void propose_acks(struct uplink *u);
static void what_waits(struct uplink *u, bool waiting[CHANNEL_COUNT]);

static struct state *state(const struct uplink *u) {
    return node_state(u->node);
}

static void note_error(struct uplink *u, const char *text) {
    (void)snprintf(u->last_error, sizeof u->last_error, "%.159s", text);
}

/* --- the session -------------------------------------------------------------------------------------------------------------------------- */

static void end_session(struct uplink *u) {
    if (u->welcomed) {
        log_info("uplink", "down", "endpoint=%s %s", mqtt_endpoint(u->mqtt), u->last_error);
    }
    u->welcomed = false;
    u->session++;
    builder_free(&u->frame);
    metrics_set(&link_up, 0, 0);
}

static enum grey_error send(struct uplink *u, enum event_channel c, struct bytes frame) {
    char topic[TOPIC_BYTES_MAX];
    int id;
    if (u->on_way_count == ON_WAY_MAX) {
        return E_BUSY;
    }
    sync_topic(topic, u->site, true, c);
    enum grey_error err = mqtt_publish(u->mqtt, topic, frame, &id);
    if (err == E_OK) {
        u->on_way[u->on_way_count++] =
            (struct on_way){.id = id, .bytes = (uint32_t)frame.size, .sent_ms = loop_now_ms(u->x.loop), .channel = c};
        channel_pace_sent(&u->pace, (uint32_t)frame.size);
    }
    return err;
}

static bool send_content(struct uplink *u, enum event_channel c, struct bytes content, uint16_t flags) {
    struct builder frame;
    builder_init(&frame, LIMIT_FRAME_PAYLOAD_BYTES + FRAME_OVERHEAD_BYTES);
    frame_write(&frame, flags, ++u->message_id, (uint64_t)now_wall_ms() * 1000000u, content);
    enum grey_error err = frame.err != E_OK ? frame.err : send(u, c, builder_bytes(&frame));
    builder_free(&frame);
    return err == E_OK;
}

/* Says who speaks.  Stays due while the client cannot take it, or while the log does not know the site yet. */
static void say_hello(struct uplink *u) {
    struct site_facts site;
    if (!u->hello_due || !mqtt_connected(u->mqtt) || !state_site(state(u), &site)) {
        return;
    }
    struct sync_hello h = {.incarnation = site.incarnation,
                           .epoch = u->epoch,
                           .feature_level = FEATURE_LEVEL,
                           .node = bytes_str(u->name),
                           .time_ms = node_site_time_ms(u->node),
                           .former = site.former};
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        struct channel_facts f;
        state_channel(state(u), (enum event_channel)i, &f);
        h.channels[i].next_seq = f.next_seq;
        h.channels[i].acked_seq = f.acked_seq;
        h.channels[i].former_next = site.former_next[i];
    }
    struct builder b;
    builder_init(&b, 1024);
    sync_put_hello(&b, &h);
    if (send_content(u, CHANNEL_CONTROL, builder_bytes(&b), FRAME_FLAG_PRIORITY)) {
        uint8_t chance;
        keys_random(&chance, sizeof chance);
        u->hello_due = false;
        u->hello_ms = loop_now_ms(u->x.loop);
        u->hello_wait_ms = u->hello_wait_ms * 2 > HELLO_MS_MAX ? HELLO_MS_MAX : u->hello_wait_ms * 2;
        u->hello_wait_ms -= u->hello_wait_ms * chance / 1024; /* up to a quarter less, so that sites do not speak in chorus */
        u->hellos++;
    }
    builder_free(&b);
}

/* The session is begun anew on the same connection. */
static void begin_again(struct uplink *u, const char *why) {
    note_error(u, why);
    end_session(u);
    u->hello_due = true;
    say_hello(u);
}

static void on_connected(void *context) {
    struct uplink *u = context;
    char filter[TOPIC_BYTES_MAX];
    metrics_add(&connects, 0, 1);
    (void)snprintf(filter, sizeof filter, TOPIC_PREFIX "%s/down/#", u->site);
    (void)mqtt_subscribe(u->mqtt, filter); /* before the hello, so that the welcome finds us */
    u->on_way_count = 0;
    channel_pace_begin(&u->pace, u->o.limit_bytes_per_s);
    u->hello_due = true;
    u->hello_wait_ms = u->reconnect_hello_wait_ms > 0 ? u->reconnect_hello_wait_ms : HELLO_MS_MIN / 2;
    u->reconnect_hello_wait_ms = 0;
    u->hellos = 0;
    say_hello(u);
}

static void on_closed(void *context, const char *why) {
    struct uplink *u = context;
    note_error(u, why);
    log_limited(LOG_WARN, "uplink", "closed", "endpoint=%s %s", mqtt_endpoint(u->mqtt), why);
    end_session(u);
}

/* --- acknowledgements -------------------------------------------------------------------------------------------------------------------------- */

static void release(struct uplink *u) {
    if (u->stopped && u->proposals == 0) {
        mem_free(u);
    }
}

static void ack_applied(void *context, const struct node_answer *a) {
    struct stream *s = context;
    struct uplink *u = s->owner;
    s->proposed = 0;
    u->proposals--;
    if (u->stopped) {
        release(u);
        return;
    }
    if (a->err == E_OK) {
        propose_acks(u); /* what came meanwhile */
    } else {
        log_limited(LOG_WARN, "uplink", "ack", "error=GREY-%d %s: %s", error_id(a->err), error_sentence(a->err), a->detail);
        loop_timer_after(u->x.loop, &u->ack_timer, RETRY_MS);
    }
}

/* The core's word becomes an entry of the log: one on its way for each channel, the newest wins. */
static void propose_acks(struct uplink *u) {
    struct site_facts site;
    uint64_t now_ms = loop_now_ms(u->x.loop);
    if (!u->leads || !state_site(state(u), &site)) {
        return;
    }
    bool early = now_ms < u->acks_proposed_ms + ACK_PROPOSE_MS;
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        struct stream *s = &u->streams[i];
        struct channel_facts f;
        state_channel(state(u), (enum event_channel)i, &f);
        if (s->proposed != 0 || s->out.acked <= f.acked_seq) {
            continue;
        }
        if (early) {
            if (u->ack_timer.place == 0) {
                loop_timer_set(u->x.loop, &u->ack_timer, u->acks_proposed_ms + ACK_PROPOSE_MS);
            }
            return;
        }
        struct builder b;
        builder_init(&b, 256);
        payload_ack(&b, site.incarnation, (enum event_channel)i, s->out.acked);
        struct blob *payload = builder_blob(&b);
        builder_free(&b);
        if (payload != NULL) {
            s->proposed = s->out.acked;
            u->acks_proposed_ms = now_ms;
            u->proposals++;
            node_propose(u->node, ENTRY_ACK, payload, false, ack_applied, s);
            blob_unref(payload);
        }
    }
}

static void on_ack_timer(void *context) {
    propose_acks(context);
}

static void take_ack(struct uplink *u, enum event_channel c, grey_seq seq) {
    struct stream *s = &u->streams[c];
    struct channel_facts f;
    state_channel(state(u), c, &f);
    if (seq >= f.next_seq) {
        metrics_add(&refusals, 0, 1);
        log_limited(LOG_ERROR, "uplink", "ack", "channel=%s seq=%" PRIu64 " was never given (next is %" PRIu64 "): ignored",
                    event_channel_name(c), seq, f.next_seq);
        return;
    }
    if (channel_acked(&s->out, seq)) {
        s->waiting_since_ms = s->out.frames > 0 ? loop_now_ms(u->x.loop) : 0;
        u->patience_ms = ACK_PATIENCE_MS_MIN;
        propose_acks(u);
    }
}

/* --- the core's word ------------------------------------------------------------------------------------------------------------------------ */

/* The core has numbers that this site would give a second time: what is sent under them would be taken for repeats and lost. */
static bool knows_more(struct uplink *u, const struct sync_welcome *w) {
    bool more = false;
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        struct channel_facts f;
        state_channel(state(u), (enum event_channel)i, &f);
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
        log_error("uplink", "rolled-back", "%s", u->last_error);
        return;
    }
    u->welcomed = true;
    u->core_level = w->feature_level;
    node_core_time(u->node, w->time_ms);
    u->hello_due = false;
    u->hellos = 0;
    u->hello_wait_ms = HELLO_MS_MIN / 2;
    u->last_error[0] = 0;
    metrics_set(&link_up, 0, 1);
    log_info("uplink", "up", "endpoint=%s epoch=%" PRIu64, mqtt_endpoint(u->mqtt), u->epoch);
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        struct channel_facts f;
        struct stream *s = &u->streams[i];
        state_channel(state(u), (enum event_channel)i, &f);
        channel_begin(&s->out, f.acked_seq);
        s->waiting_since_ms = 0;
        if (channel_acked(&s->out, w->position[i])) {
            propose_acks(u);
        }
    }
}

static void take_resync(struct uplink *u) {
    if (u->hello_due || loop_now_ms(u->x.loop) < u->hello_ms + RESYNC_PAUSE_MS) {
        return;
    }
    u->hello_wait_ms = HELLO_MS_MIN / 2;
    begin_again(u, "the core asks where this site is");
}

static void on_message(void *context, const char *topic, struct bytes payload) {
    struct uplink *u = context;
    struct grey_name site;
    enum event_channel c;
    struct frame f;
    size_t used, need;
    enum grey_error why = E_BAD_MESSAGE;
    struct builder scratch;
    struct bytes content = {0};
    struct sync_welcome w;
    struct sync_ack a;
    struct site_facts facts;
    builder_init(&scratch, LIMIT_FRAME_PAYLOAD_BYTES);
    bool ok = sync_topic_parse(topic, false, &site, &c) && strcmp(site.text, u->site) == 0 && state_site(state(u), &facts) &&
              frame_read(payload, &f, &used, &need, &why) == FRAME_READY && used == payload.size &&
              (why = frame_content(&f, &scratch, &content)) == E_OK;
    enum message_kind kind = ok ? sync_kind(content) : (enum message_kind)0;
    why = ok ? E_BAD_MESSAGE : why;
    bool mine = false; /* of this incarnation and session; older ones are passed over */
    if (kind == MESSAGE_DOWN_WELCOME && (why = sync_get_welcome(content, &w)) == E_OK) {
        mine = w.incarnation == facts.incarnation && w.epoch == u->epoch;
        if (mine) {
            take_welcome(u, &w);
        }
    } else if (kind == MESSAGE_DOWN_RESYNC && (why = sync_get_resync(content, &w)) == E_OK) {
        mine = w.incarnation == facts.incarnation && w.epoch <= u->epoch;
        if (mine) {
            take_resync(u);
        }
    } else if (kind == MESSAGE_DOWN_ACK && (why = sync_get_ack(content, &a)) == E_OK) {
        mine = a.incarnation == facts.incarnation && a.epoch == u->epoch && u->welcomed;
        if (mine) {
            take_ack(u, a.channel, a.acked_seq);
        }
    } else {
        metrics_add(&refusals, 0, 1);
        log_limited(LOG_WARN, "uplink", "refuse", "topic=%.100s error=GREY-%d %s", topic, error_id(why), error_sentence(why));
    }
    u->last_contact_ms = mine ? now_wall_ms() : u->last_contact_ms;
    builder_free(&scratch);
    pump(u);
}

static void on_published(void *context, int id, const char *refusal) {
    struct uplink *u = context;
    uint64_t now_ms = loop_now_ms(u->x.loop);
    for (uint32_t i = 0; i < u->on_way_count; i++) {
        struct on_way w = u->on_way[i];
        if (w.id == id) {
            u->on_way_count--;
            memmove(&u->on_way[i], &u->on_way[i + 1], (u->on_way_count - i) * sizeof w);
            channel_pace_confirmed(&u->pace, w.bytes, (uint32_t)(now_ms - w.sent_ms), now_ms);
            struct stream *s = &u->streams[w.channel];
            s->waiting_since_ms = s->waiting_since_ms == 0 && s->out.frames > 0 ? now_ms : s->waiting_since_ms;
            break;
        }
    }
    if (refusal != NULL) {
        note_error(u, refusal);
        log_limited(LOG_ERROR, "uplink", "refused", "the broker does not take this site's messages: %s; check its ACL", refusal);
    }
    pump(u);
}

static void on_writable(void *context) {
    struct uplink *u = context;
    say_hello(u);
    pump(u);
}

static const struct mqtt_events mqtt_events = {
    .connected = on_connected, .closed = on_closed, .message = on_message, .published = on_published, .writable = on_writable};

/* --- frames ------------------------------------------------------------------------------------------------------------------------------ */

/* False: not yet. */
static bool send_frame(struct uplink *u) {
    struct stream *s = &u->streams[u->frame_channel];
    enum grey_error err = send(u, u->frame_channel, builder_bytes(&u->frame));
    if (err == E_BUSY) {
        return false;
    }
    if (err == E_OK) {
        bool waiting[CHANNEL_COUNT];
        what_waits(u, waiting);
        waiting[u->frame_channel] = true;
        channel_turn_took(&u->turns, waiting, u->frame_channel, (uint32_t)u->frame.size);
        channel_sent(&s->out, u->frame_to);
    } else if (err == E_TOO_LARGE) {
        note_error(u, "an event is larger than what the broker takes: raise its max_packet_size to 1052672");
        log_limited(LOG_ERROR, "uplink", "frame", "channel=%s bytes=%zu broker_takes=%zu: raise its max_packet_size to 1052672",
                    event_channel_name(u->frame_channel), u->frame.size, mqtt_payload_bytes_max(u->mqtt));
        s->gather_until_ms = loop_now_ms(u->x.loop) + ACK_PATIENCE_MS_MIN; /* the other channels go on */
    }
    builder_free(&u->frame);
    return err == E_OK || err == E_TOO_LARGE;
}

static void build_frame(struct uplink *u, const struct sync_events *e) {
    must(u->frame.size == 0);
    struct builder content, packed;
    builder_init(&content, LIMIT_FRAME_PAYLOAD_BYTES);
    builder_init(&packed, LIMIT_FRAME_PAYLOAD_BYTES);
    sync_put_events(&content, e);
    struct bytes plain = builder_bytes(&content);
    uint16_t flags = (uint16_t)(FRAME_FLAG_IDEMPOTENT | (e->channel != CHANNEL_DATA ? FRAME_FLAG_PRIORITY : 0u));
    if (plain.size >= COMPRESS_FROM_BYTES) {
        uint8_t size[4];
        bytes_put_be32(size, (uint32_t)plain.size);
        builder_add(&packed, bytes_of(size, sizeof size));
        if (compress_lz4(plain, &packed) == E_OK && packed.err == E_OK && packed.size < plain.size) {
            flags |= FRAME_FLAG_COMPRESSED;
            plain = builder_bytes(&packed);
        }
    }
    builder_init(&u->frame, LIMIT_FRAME_PAYLOAD_BYTES + FRAME_OVERHEAD_BYTES);
    if (content.err == E_OK) {
        frame_write(&u->frame, flags, ++u->message_id, (uint64_t)now_wall_ms() * 1000000u, plain);
    }
    if (content.err != E_OK || u->frame.err != E_OK) {
        builder_free(&u->frame);
        log_limited(LOG_ERROR, "uplink", "frame", "channel=%s from_seq=%" PRIu64 " does not fit a frame",
                    event_channel_name(e->channel), e->from_seq);
    }
    u->frame_channel = e->channel;
    u->frame_to = e->to_seq;
    builder_free(&content);
    builder_free(&packed);
}

static void gathered(void *context, struct sync_events *e) {
    struct uplink *u = context;
    struct site_facts site;
    if (u->gather_session != u->session || !u->leads || !u->welcomed || !state_site(state(u), &site)) {
        return; /* a session that is over wanted it */
    }
    if (e->to_seq < e->from_seq) {
        loop_timer_after(u->x.loop, &u->timer, RETRY_MS / 4);
        return;
    }
    e->incarnation = site.incarnation;
    e->epoch = u->epoch;
    e->sized_gaps = u->core_level >= 2;
    build_frame(u, e);
    metrics_add(&sent_events, (unsigned)e->channel, e->item_count);
    pump(u);
}

/* --- what goes next ------------------------------------------------------------------------------------------------------------------------------ */

static bool has_more(struct uplink *u, enum event_channel c) {
    struct channel_facts f;
    struct stream *s = &u->streams[c];
    state_channel(state(u), c, &f);
    grey_seq next = channel_next(&s->out, f.acked_seq, f.next_seq);
    if (next == 0) {
        s->gather_until_ms = 0;
        return false;
    }
    if (!channel_room(&s->out) || s->out.frames >= u->o.window_frames) {
        return false;
    }
    uint64_t now_ms = loop_now_ms(u->x.loop);
    if (s->gather_until_ms == 0) { /* the first since all was sent */
        bool few = c == CHANNEL_DATA && s->out.frames == 0 && f.next_seq - next < GATHER_DATA_EVENTS;
        s->gather_until_ms = few ? now_ms + GATHER_DATA_MS : now_ms;
    }
    if (now_ms < s->gather_until_ms && (u->timer.place == 0 || u->timer.deadline_ms > s->gather_until_ms)) {
        loop_timer_set(u->x.loop, &u->timer, s->gather_until_ms);
    }
    return now_ms >= s->gather_until_ms;
}

static void what_waits(struct uplink *u, bool waiting[CHANNEL_COUNT]) {
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        waiting[i] = has_more(u, (enum event_channel)i);
    }
}

static void pump(struct uplink *u) {
    if (!u->leads || !u->welcomed || u->pumping) {
        return;
    }
    u->pumping = true; /* what is gathered at once comes back here */
    while (u->frame.size == 0 || send_frame(u)) {
        bool waiting[CHANNEL_COUNT];
        what_waits(u, waiting);
        enum event_channel c = channel_turn(&u->turns, waiting);
        if (!u->welcomed || c == CHANNEL_COUNT || gather_running(u->gather) || !channel_pace_room(&u->pace)) {
            break;
        }
        struct channel_facts f;
        struct stream *s = &u->streams[c];
        uint32_t bytes = channel_pace_frame_bytes(&u->pace);
        size_t most = mqtt_payload_bytes_max(u->mqtt);
        most = most > 2 * FRAME_MARGIN_BYTES ? most - FRAME_MARGIN_BYTES : FRAME_MARGIN_BYTES;
        state_channel(state(u), c, &f);
        u->gather_session = u->session;
        gather_begin(u->gather, c, channel_next(&s->out, f.acked_seq, f.next_seq), f.next_seq,
                     bytes < most ? bytes : (uint32_t)most);
        if (u->frame.size == 0) {
            break; /* it comes on a later turn, or later */
        }
    }
    u->pumping = false;
}

/* --- time ------------------------------------------------------------------------------------------------------------------------------------ */

static void look_after_hello(struct uplink *u, uint64_t now_ms) {
    if (u->welcomed || u->hello_due || !mqtt_connected(u->mqtt) || now_ms < u->hello_ms + u->hello_wait_ms) {
        return;
    }
    uint32_t enough = u->o.endpoint_count > 1 ? HELLOS_PER_ENDPOINT : HELLOS_PER_CONNECT;
    bool known = metrics_value(&rolled_back, 0) != 0; /* it did answer, and said why it cannot welcome this site */
    const char *why = "connected to the broker, but the core does not answer";
    if (!known) {
        note_error(u, why);
    }
    if (u->hellos >= enough && !known) {
        u->reconnect_hello_wait_ms = u->hello_wait_ms;
        mqtt_give_up(u->mqtt, why);
    } else {
        u->hello_due = true;
    }
}

static void look_after_acks(struct uplink *u, uint64_t now_ms) {
    for (int i = 0; i < CHANNEL_COUNT && u->welcomed; i++) {
        struct stream *s = &u->streams[i];
        if (s->out.frames > 0 && s->waiting_since_ms > 0 && now_ms >= s->waiting_since_ms + u->patience_ms) {
            u->patience_ms = u->patience_ms * 2 > ACK_PATIENCE_MS_MAX ? ACK_PATIENCE_MS_MAX : u->patience_ms * 2;
            begin_again(u, "the broker takes events, but the core acknowledges none");
        }
    }
}

static void on_timer(void *context) {
    struct uplink *u = context;
    if (!u->leads) {
        return;
    }
    uint64_t now_ms = loop_now_ms(u->x.loop);
    look_after_hello(u, now_ms);
    look_after_acks(u, now_ms);
    say_hello(u);
    propose_acks(u);
    pump(u);
    bool busy = !u->welcomed;
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        busy = busy || u->streams[i].out.frames > 0;
    }
    if (u->timer.place == 0) {
        loop_timer_after(u->x.loop, &u->timer, busy ? TICK_MS : IDLE_TICK_MS);
    }
}

/* --- shaping ---------------------------------------------------------------------------------------------------------------------------------------- */

static void on_gate_timer(void *context) {
    struct uplink *u = context;
    mqtt_gate_open(u->mqtt);
}

static size_t gate(void *context, size_t wanted) {
    struct uplink *u = context;
    size_t granted = shaper_grant(&u->shaper, now_monotonic_us(), wanted);
    if (granted == 0) {
        uint64_t want = u->shaper.burst_bytes / 2 < wanted ? u->shaper.burst_bytes / 2 : wanted;
        loop_timer_after(u->x.loop, &u->gate_timer, shaper_wait_us(&u->shaper, (size_t)want) / 1000 + 1);
    }
    return granted;
}

/* --- life ------------------------------------------------------------------------------------------------------------------------------------------- */

struct uplink *uplink_new(const struct conn_context *x, const struct uplink_options *o, struct node *node, struct fault *f) {
    struct metric *const all[] = {&link_up, &sent_bytes, &received_bytes, &sent_events,
                                  &contact, &refusals,   &rolled_back,    &connects};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        metrics_register(all[i]);
    }
    struct uplink *u = mem_new(1, sizeof *u);
    if (u == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "uplink");
        return NULL;
    }
    u->x = *x;
    u->o = *o;
    u->node = node;
    (void)snprintf(u->site, sizeof u->site, "%s", node_site(node));
    (void)snprintf(u->name, sizeof u->name, "%s", node_name(node));
    u->timer = (struct loop_timer){.fire = on_timer, .context = u};
    u->gate_timer = (struct loop_timer){.fire = on_gate_timer, .context = u};
    u->ack_timer = (struct loop_timer){.fire = on_ack_timer, .context = u};
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        u->streams[i].owner = u;
    }
    uint64_t burst = o->limit_bytes_per_s / BURST_SECONDS_DIV;
    shaper_init(&u->shaper, o->limit_bytes_per_s, burst < 4096 ? 4096 : burst, now_monotonic_us());
    struct mqtt_options m = {.endpoints = o->endpoints,
                             .endpoint_count = o->endpoint_count,
                             .tls = o->tls,
                             .client_id = u->site,
                             .socket_dir = o->data_dir,
                             .keepalive_s = o->keepalive_s,
                             .inflight_max = ON_WAY_MAX,
                             .topics_repeat = true,
                             .gate = o->limit_bytes_per_s > 0 ? gate : NULL,
                             .gate_context = u};
    u->mqtt = mqtt_new(x, &m, &mqtt_events, u, f);
    u->gather = u->mqtt == NULL ? NULL : gather_new(node, gathered, u);
    if (u->gather == NULL) {
        mqtt_free(u->mqtt);
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
    mqtt_free(u->mqtt);
    gather_free(u->gather);
    loop_timer_cancel(u->x.loop, &u->gate_timer);
    builder_free(&u->frame);
    u->stopped = true;
    release(u); /* the node still answers what was proposed */
}

void uplink_lead(struct uplink *u, grey_epoch epoch) {
    u->leads = true;
    u->epoch = epoch;
    u->patience_ms = ACK_PATIENCE_MS_MIN;
    u->turns = (struct channel_turns){0};
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        channel_begin(&u->streams[i].out, 0);
        u->streams[i].gather_until_ms = u->streams[i].waiting_since_ms = 0;
    }
    mqtt_start(u->mqtt);
    loop_timer_after(u->x.loop, &u->timer, RETRY_MS);
}

void uplink_follow(struct uplink *u) {
    if (u->leads) {
        u->leads = false;
        end_session(u);
        mqtt_stop(u->mqtt);
    }
    loop_timer_cancel(u->x.loop, &u->timer);
    loop_timer_cancel(u->x.loop, &u->ack_timer);
}

void uplink_wake(struct uplink *u) {
    if (!u->leads) {
        return;
    }
    say_hello(u);
    if (u->welcomed && !gather_running(u->gather) && (u->timer.place == 0 || u->timer.deadline_ms > loop_now_ms(u->x.loop))) {
        loop_timer_after(u->x.loop, &u->timer, 0); /* after the entries of this turn, once */
    }
}

void uplink_facts(const struct uplink *u, struct uplink_facts *out) {
    struct conn_count c = mqtt_counted(u->mqtt);
    *out = (struct uplink_facts){.up = u->welcomed,
                                 .endpoint = mqtt_endpoint(u->mqtt),
                                 .last_contact_unix_ms = u->last_contact_ms,
                                 .sent_bytes = c.out_bytes,
                                 .received_bytes = c.in_bytes};
    memcpy(out->last_error, u->last_error, sizeof out->last_error);
    metrics_set(&sent_bytes, 0, (int64_t)c.out_bytes);
    metrics_set(&received_bytes, 0, (int64_t)c.in_bytes);
    metrics_set(&contact, 0, u->last_contact_ms == 0 ? -1000 : now_wall_ms() - u->last_contact_ms);
}
