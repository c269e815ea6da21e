#include <inttypes.h>
#include <string.h>

#include "agent/uplink/uplink_core.h"
#include "federation/frame.h"
#include "include/grey/must.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/now.h"

#define GATHER_DATA_EVENTS 512u
#define GATHER_DATA_MS 200u /* normal and low events wait this long for company */

static const char *const channels[] = {"control", "events", "data"};
static struct metric sent_events =
    METRIC_COUNTER_LABELS("grey_federation_sent_events_total", "Events sent, repeats included.", "channel", channels);

void uplink_send_register(void) {
    metrics_register(&sent_events);
}

/* --- to the broker -------------------------------------------------------------------------------------------------------------------- */

static enum grey_error publish(struct uplink *u, enum event_channel c, enum ledger_feature feature, struct bytes frame) {
    char topic[TOPIC_BYTES_MAX];
    int id;
    if (u->on_way_count == UPLINK_ON_WAY_MAX) {
        return E_BUSY;
    }
    struct builder sealed;
    builder_init(&sealed, frame.size + ENVELOPE_OVERHEAD_BYTES);
    enum grey_error err = u->seal.ready ? uplink_seal_put(u, c, frame, &sealed) : E_OK;
    frame = u->seal.ready ? builder_bytes(&sealed) : frame;
    sync_topic_routed(topic, u->site, c, u->welcomed ? u->route : ""); /* a hello is for any core */
    err = err != E_OK ? err : mqtt_publish(u->mqtt, topic, frame, &id);
    if (err == E_OK) {
        u->on_way[u->on_way_count++] =
            (struct uplink_on_way){.id = id, .bytes = (uint32_t)frame.size, .sent_ms = loop_now_ms(u->x.loop), .channel = c};
        channel_pace_sent(&u->pace, (uint32_t)frame.size);
        uplink_meter_sent(u, feature, frame.size);
        uplink_gate_sent(u);
    }
    builder_free(&sealed);
    return err;
}

size_t uplink_send_bytes_max(const struct uplink *u) {
    size_t most = mqtt_payload_bytes_max(u->mqtt), around = u->seal.on ? ENVELOPE_OVERHEAD_BYTES : 0;
    return most > around ? most - around : 0;
}

bool uplink_send_content(struct uplink *u, enum event_channel c, struct bytes content, uint16_t flags) {
    return uplink_send_of(u, c, LEDGER_SESSION, content, flags);
}

bool uplink_send_of(struct uplink *u, enum event_channel c, enum ledger_feature of, struct bytes content, uint16_t flags) {
    struct builder frame;
    builder_init(&frame, LIMIT_FRAME_PAYLOAD_BYTES + FRAME_OVERHEAD_BYTES);
    frame_write(&frame, flags, ++u->message_id, (uint64_t)now_wall_ms() * 1000000u, content);
    enum grey_error err = frame.err != E_OK ? frame.err : publish(u, c, of, builder_bytes(&frame));
    builder_free(&frame);
    return err == E_OK;
}

void uplink_send_published(void *context, int id, const char *refusal) {
    struct uplink *u = context;
    uint64_t now_ms = loop_now_ms(u->x.loop);
    for (uint32_t i = 0; i < u->on_way_count; i++) {
        struct uplink_on_way w = u->on_way[i];
        if (w.id == id) {
            u->on_way_count--;
            memmove(&u->on_way[i], &u->on_way[i + 1], (u->on_way_count - i) * sizeof w);
            uint32_t took_ms = (uint32_t)(now_ms - w.sent_ms), leaves_ms = uplink_gate_leaves_ms(u, w.bytes);
            channel_pace_confirmed(&u->pace, w.bytes, took_ms > leaves_ms ? took_ms - leaves_ms : 0, now_ms);
            struct uplink_stream *s = &u->streams[w.channel];
            s->waiting_since_ms = s->waiting_since_ms == 0 && s->out.frames > 0 ? now_ms : s->waiting_since_ms;
            break;
        }
    }
    if (mqtt_unheard(u->mqtt)) {
        uplink_session_unheard(u);
    }
    if (refusal != NULL) {
        uplink_note_error(u, refusal);
        log_limited(LOG_ERROR, "uplink", "refused", "the broker does not take this site's messages: %s; check its ACL", refusal);
    }
    uplink_send_pump(u);
}

/* --- whose turn it is ----------------------------------------------------------------------------------------------------------------- */

/* The core's credit. */
static bool core_takes(const struct uplink *u, enum event_channel c) {
    uint64_t on_way_bytes = 0;
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        on_way_bytes += u->streams[i].out.bytes_on_way;
    }
    return credit_allows(u->credit_bytes, on_way_bytes, c == CHANNEL_CONTROL && u->streams[c].out.frames == 0);
}

static bool has_more(struct uplink *u, enum event_channel c) {
    struct channel_facts f;
    struct uplink_stream *s = &u->streams[c];
    if (uplink_parts_wait(u, c)) {
        return true;
    }
    state_channel(uplink_state(u), c, &f);
    grey_seq next = channel_next(&s->out, f.acked_seq, f.next_seq);
    if (next == 0) {
        s->gather_until_ms = 0;
        return false;
    }
    if (!channel_room(&s->out) || s->out.frames >= u->o.window_frames || !core_takes(u, c)) {
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

/* A gateway in quarantine that still leads, because nobody else can, says nothing but words of attestation: they are its way back. */
static void what_waits(struct uplink *u, bool waiting[CHANNEL_COUNT]) {
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        waiting[i] =
            !node_quarantined(u->node) && !uplink_meter_holds(u, (enum event_channel)i) && has_more(u, (enum event_channel)i);
    }
}

/* --- frames --------------------------------------------------------------------------------------------------------------------------- */

enum grey_error uplink_send_publish(struct uplink *u, enum event_channel c, grey_seq to_seq, struct bytes frame) {
    bool again = to_seq <= u->streams[c].sent_max, waiting[CHANNEL_COUNT];
    enum grey_error err = publish(u, c, again ? LEDGER_RESENDS : ledger_of_channel(c), frame);
    if (err == E_OK) {
        what_waits(u, waiting);
        waiting[c] = true;
        channel_turn_took(&u->turns, waiting, c, (uint32_t)frame.size);
    }
    return err;
}

void uplink_send_done(struct uplink *u, enum event_channel c, grey_seq to_seq, size_t bytes) {
    struct uplink_stream *s = &u->streams[c];
    channel_sent(&s->out, to_seq, (uint32_t)bytes);
    s->sent_max = to_seq > s->sent_max ? to_seq : s->sent_max;
}

/* False: not yet. */
static bool send_frame(struct uplink *u) {
    struct uplink_stream *s = &u->streams[u->frame_channel];
    enum grey_error err = uplink_send_publish(u, u->frame_channel, u->frame_to, builder_bytes(&u->frame));
    if (err == E_BUSY) {
        return false;
    }
    if (err == E_OK) {
        uplink_send_done(u, u->frame_channel, u->frame_to, u->frame.size);
    } else if (err == E_TOO_LARGE) {
        uplink_note_error(u, "an event is larger than what the broker takes: raise its max_packet_size to 1052672");
        log_limited(LOG_ERROR, "uplink", "frame", "channel=%s bytes=%zu broker_takes=%zu: raise its max_packet_size to 1052672",
                    event_channel_name(u->frame_channel), u->frame.size, mqtt_payload_bytes_max(u->mqtt));
        s->gather_until_ms = loop_now_ms(u->x.loop) + UPLINK_PATIENCE_MS_MIN; /* the other channels go on */
    }
    if (err != E_OK) {
        uplink_pack_lost(u);
    }
    builder_free(&u->frame);
    return err == E_OK || err == E_TOO_LARGE;
}

void uplink_send_gathered(void *context, struct sync_events *e) {
    struct uplink *u = context;
    struct site_facts site;
    if (u->gather_session != u->session || !u->leads || !u->welcomed || !state_site(uplink_state(u), &site)) {
        return; /* a session that is over wanted it */
    }
    if (e->to_seq < e->from_seq) {
        loop_timer_after(u->x.loop, &u->timer, UPLINK_RETRY_MS / 4);
        return;
    }
    e->incarnation = site.incarnation;
    e->epoch = u->epoch;
    e->sized_gaps = u->sized_gaps;
    must(u->frame.size == 0);
    uplink_pack_frame(u, e);
    u->frame_channel = e->channel;
    u->frame_to = e->to_seq;
    metrics_add(&sent_events, (unsigned)e->channel, e->item_count);
    uplink_send_pump(u);
}

void uplink_send_pump(struct uplink *u) {
    if (!u->leads || !u->welcomed || u->pumping) {
        return;
    }
    uplink_meter_settle(u);
    u->pumping = true; /* what is uplink_send_gathered at once comes back here */
    while (u->frame.size == 0 || uplink_parts_take(u) || send_frame(u)) {
        bool waiting[CHANNEL_COUNT];
        what_waits(u, waiting);
        enum event_channel c = channel_turn(&u->turns, waiting);
        if (!u->welcomed || c == CHANNEL_COUNT || gather_running(u->gather) || !channel_pace_room(&u->pace) ||
            !uplink_gate_room(u, channel_pace_frame_bytes(&u->pace))) {
            break;
        }
        if (uplink_parts_wait(u, c)) {
            if (!uplink_parts_send(u, c)) {
                break;
            }
            continue;
        }
        struct channel_facts f;
        struct uplink_stream *s = &u->streams[c];
        uint32_t bytes = channel_pace_frame_bytes(&u->pace);
        state_channel(uplink_state(u), c, &f);
        u->gather_session = u->session;
        gather_begin(u->gather, c, channel_next(&s->out, f.acked_seq, f.next_seq), f.next_seq,
                     uplink_pack_wish(u, bytes, uplink_send_bytes_max(u)));
        if (u->frame.size == 0) {
            break; /* it comes on a later turn, or later */
        }
    }
    u->pumping = false;
}
