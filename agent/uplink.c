#include "agent/uplink.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "federation/frame.h"
#include "federation/record.h"
#include "federation/shaper.h"
#include "federation/sync.h"
#include "include/grey/must.h"
#include "platform/compress.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/mqtt.h"
#include "platform/now.h"

/* idle -> (leads) connecting -> hello sent -> welcomed: streaming.  One batch is gathered at a time: rows of the outbox from memory and
 * disk, then their payloads, then one frame.  What was sent and not acknowledged by the core is remembered by its last number only;
 * when no acknowledgement comes, the connection is made anew and the stream goes on behind the last acknowledged number. */

#define BATCH_ROWS 512u
#define BATCH_BYTES (256u * 1024u)
#define COMPRESS_FROM_BYTES 256u
#define GATHER_DATA_MS 200u /* normal and low events wait this long for company */
#define ACK_TIMEOUT_MS 15000u
#define WELCOME_TIMEOUT_MS 3000u
#define RETRY_MS 1000u
#define FLOOR_EVERY 20u      /* each 20th batch is of the lowest channel that has anything: 5% */
#define BURST_SECONDS_DIV 4u /* a quarter of a second's bytes may leave at once */
#define WINDOW_MAX 64u

struct stream {
    grey_seq sent;     /* last number sent in this session */
    grey_seq acked;    /* last number the core acknowledged */
    grey_seq proposed; /* acknowledgement on its way through the log; 0: none */
    uint64_t gather_until_ms;
};

struct flight {
    enum event_channel channel;
    grey_seq to_seq;
    uint64_t sent_ms;
};

/* The batch being gathered. */
struct batch {
    bool running;
    uint64_t session; /* it was begun in: stale when another one has begun */
    enum event_channel channel;
    enum event_priority priority; /* being scanned */
    grey_seq from, next_seq;
    struct outbox_row *rows; /* BATCH_ROWS */
    uint32_t row_count;
    grey_seq scanned_to; /* all rows up to here are known */
    struct sitelog_read read;
    struct blob **payloads; /* parallel to rows; references */
};

struct uplink {
    struct conn_context x;
    struct uplink_options o;
    struct node *node;
    struct mqtt *mqtt;
    struct shaper shaper;
    char site[LIMIT_NAME_BYTES + 1], name[LIMIT_NAME_BYTES + 1];
    bool leads, welcomed, hello_due;
    grey_epoch epoch;
    uint64_t session, hello_ms, message_id;
    struct stream streams[CHANNEL_COUNT];
    struct flight flights[WINDOW_MAX];
    uint32_t flight_first, flight_count, batch_number;
    struct batch batch;
    struct builder frame; /* built and not yet taken by the MQTT client */
    enum event_channel frame_channel;
    grey_seq frame_to;
    struct loop_timer timer, gate_timer;
    int64_t last_contact_ms;
    uint64_t published_payload;
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
static struct metric connects = METRIC_COUNTER("grey_federation_connects_total", "Connections to the broker.");

static void pump(struct uplink *u);

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
    u->flight_first = u->flight_count = 0;
    builder_free(&u->frame);
    metrics_set(&link_up, 0, 0);
}

static void reconnect(struct uplink *u, const char *why) {
    note_error(u, why);
    log_warn("uplink", "reconnect", "%s", why);
    end_session(u);
    mqtt_stop(u->mqtt);
    mqtt_start(u->mqtt);
}

static bool send_content(struct uplink *u, enum event_channel c, struct bytes content, uint16_t flags) {
    char topic[TOPIC_BYTES_MAX];
    struct builder frame;
    int id;
    builder_init(&frame, LIMIT_FRAME_PAYLOAD_BYTES + FRAME_OVERHEAD_BYTES);
    frame_write(&frame, flags, ++u->message_id, (uint64_t)now_wall_ms() * 1000000u, content);
    sync_topic(topic, u->site, true, c);
    enum grey_error err = frame.err != E_OK ? frame.err : mqtt_publish(u->mqtt, topic, builder_bytes(&frame), &id);
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
                           .time_ms = node_site_time_ms(u->node)};
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        struct channel_facts f;
        state_channel(state(u), (enum event_channel)i, &f);
        h.channels[i].next_seq = f.next_seq;
        h.channels[i].acked_seq = f.acked_seq;
    }
    struct builder b;
    builder_init(&b, 1024);
    sync_put_hello(&b, &h);
    if (send_content(u, CHANNEL_CONTROL, builder_bytes(&b), FRAME_FLAG_PRIORITY)) {
        u->hello_due = false;
        u->hello_ms = loop_now_ms(u->x.loop);
    }
    builder_free(&b);
}

static void on_connected(void *context) {
    struct uplink *u = context;
    char filter[TOPIC_BYTES_MAX];
    metrics_add(&connects, 0, 1);
    (void)snprintf(filter, sizeof filter, TOPIC_PREFIX "%s/down/#", u->site);
    (void)mqtt_subscribe(u->mqtt, filter); /* before the hello, so that the welcome finds us */
    u->hello_due = true;
    say_hello(u);
}

static void on_closed(void *context, const char *why) {
    struct uplink *u = context;
    note_error(u, why);
    log_limited(LOG_WARN, "uplink", "closed", "endpoint=%s %s", mqtt_endpoint(u->mqtt), why);
    end_session(u);
}

/* --- acknowledgements -------------------------------------------------------------------------------------------------------------------------- */

static void ack_applied(void *context, const struct node_answer *a) {
    struct uplink *u = context;
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        u->streams[i].proposed = 0;
    }
    if (a->err != E_OK && a->err != E_STOPPING) {
        log_limited(LOG_WARN, "uplink", "ack", "error=GREY-%d %s: %s", error_id(a->err), error_sentence(a->err), a->detail);
    }
    if (a->err != E_STOPPING) {
        loop_timer_after(u->x.loop, &u->timer, a->err == E_OK ? 0 : RETRY_MS);
    }
}

/* The core's word becomes an entry of the log; one at a time, the newest wins. */
static void propose_acks(struct uplink *u) {
    struct site_facts site;
    if (!state_site(state(u), &site)) {
        return;
    }
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        if (u->streams[i].proposed != 0) {
            return;
        }
    }
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        struct stream *s = &u->streams[i];
        struct channel_facts f;
        state_channel(state(u), (enum event_channel)i, &f);
        if (s->acked <= f.acked_seq) {
            continue;
        }
        struct builder b;
        builder_init(&b, 256);
        payload_ack(&b, site.incarnation, (enum event_channel)i, s->acked < f.next_seq ? s->acked : f.next_seq - 1);
        struct blob *payload = builder_blob(&b);
        builder_free(&b);
        if (payload != NULL) {
            s->proposed = s->acked;
            node_propose(u->node, ENTRY_ACK, payload, false, ack_applied, u);
            blob_unref(payload);
        }
        return; /* the next channel's when this one is applied */
    }
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
    s->acked = seq > s->acked ? seq : s->acked;
    s->sent = s->acked > s->sent ? s->acked : s->sent;
    for (uint32_t i = 0; i < u->flight_count; i++) { /* per channel in order, among channels not */
        struct flight *k = &u->flights[(u->flight_first + i) % WINDOW_MAX];
        if (k->channel == c && k->to_seq <= seq) {
            k->to_seq = 0;
        }
    }
    while (u->flight_count > 0 && u->flights[u->flight_first].to_seq == 0) {
        u->flight_first = (u->flight_first + 1) % WINDOW_MAX;
        u->flight_count--;
    }
    propose_acks(u);
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
    if (kind == MESSAGE_DOWN_WELCOME && (why = sync_get_welcome(content, &w)) == E_OK) {
        if (w.incarnation == facts.incarnation && w.epoch == u->epoch) {
            u->last_contact_ms = now_wall_ms();
            if (!u->welcomed) {
                u->welcomed = true;
                metrics_set(&link_up, 0, 1);
                u->last_error[0] = 0;
                log_info("uplink", "up", "endpoint=%s epoch=%" PRIu64, mqtt_endpoint(u->mqtt), u->epoch);
                for (int i = 0; i < CHANNEL_COUNT; i++) {
                    struct channel_facts k;
                    state_channel(state(u), (enum event_channel)i, &k);
                    u->streams[i].sent = u->streams[i].acked = k.acked_seq;
                    take_ack(u, (enum event_channel)i, w.position[i] < k.next_seq ? w.position[i] : k.next_seq - 1);
                }
            }
        }
    } else if (kind == MESSAGE_DOWN_ACK && (why = sync_get_ack(content, &a)) == E_OK) {
        if (a.incarnation == facts.incarnation && a.epoch == u->epoch && u->welcomed) {
            u->last_contact_ms = now_wall_ms();
            take_ack(u, a.channel, a.acked_seq);
        }
    } else {
        metrics_add(&refusals, 0, 1);
        log_limited(LOG_WARN, "uplink", "refuse", "topic=%.100s error=GREY-%d %s", topic, error_id(why), error_sentence(why));
    }
    builder_free(&scratch);
    pump(u);
}

static void on_published(void *context, int id, const char *refusal) {
    struct uplink *u = context;
    (void)id;
    if (refusal != NULL) {
        note_error(u, refusal);
        log_limited(LOG_ERROR, "uplink", "refused", "the broker does not take this site's messages: %s; check its ACL", refusal);
    }
}

static void on_writable(void *context) {
    struct uplink *u = context;
    say_hello(u);
    pump(u);
}

static const struct mqtt_events mqtt_events = {
    .connected = on_connected, .closed = on_closed, .message = on_message, .published = on_published, .writable = on_writable};

/* --- gathering a batch -------------------------------------------------------------------------------------------------------------------------- */

static void drop_batch(struct uplink *u) {
    struct batch *b = &u->batch;
    for (uint32_t i = 0; i < b->row_count && b->payloads != NULL; i++) {
        blob_unref(b->payloads[i]);
    }
    mem_free(b->payloads);
    mem_free(b->rows);
    *b = (struct batch){0};
}

static bool send_frame(struct uplink *u) {
    char topic[TOPIC_BYTES_MAX];
    int id;
    sync_topic(topic, u->site, true, u->frame_channel);
    enum grey_error err = mqtt_publish(u->mqtt, topic, builder_bytes(&u->frame), &id);
    if (err == E_BUSY) {
        return false;
    }
    if (err == E_OK) {
        u->streams[u->frame_channel].sent = u->frame_to;
        u->flights[(u->flight_first + u->flight_count++) % WINDOW_MAX] =
            (struct flight){.channel = u->frame_channel, .to_seq = u->frame_to, .sent_ms = loop_now_ms(u->x.loop)};
        u->published_payload += u->frame.size;
    }
    builder_free(&u->frame);
    return err == E_OK;
}

static void build_frame(struct uplink *u, const struct sync_events *e) {
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

static bool evicted(const struct uplink *u, enum event_channel c, grey_seq seq) {
    for (int p = 0; p < PRIORITY_COUNT; p++) {
        if (event_channel_of((enum event_priority)p) == c && seq < state_evicted_below(state(u), (enum event_priority)p)) {
            return true;
        }
    }
    return false;
}

/* Rows and payloads are there: items and gaps that follow each other without a hole. */
static void make_frame(struct uplink *u) {
    struct batch *b = &u->batch;
    struct site_facts site;
    struct sync_item *items = mem_new(BATCH_ROWS, sizeof *items);
    struct sync_gap *gaps = mem_new(SYNC_GAPS_MAX, sizeof *gaps);
    struct sync_events e = {
        .epoch = u->epoch, .channel = b->channel, .from_seq = b->from, .to_seq = b->from - 1, .items = items, .gaps = gaps};
    size_t bytes = 0;
    grey_seq next = b->from;
    bool whole = items != NULL && gaps != NULL && state_site(state(u), &site);
    for (uint32_t i = 0; i <= b->row_count && whole && bytes < BATCH_BYTES; i++) {
        grey_seq upto = i < b->row_count ? b->rows[i].seq : b->scanned_to + 1;
        if (upto > next) { /* a hole: a gap if it was evicted, else rows were on the move and are looked for again */
            grey_seq last = next;
            while (last < upto && evicted(u, b->channel, last)) {
                last++;
            }
            if (last > next && e.gap_count < SYNC_GAPS_MAX) {
                gaps[e.gap_count++] = (struct sync_gap){.from_seq = next, .to_seq = last - 1, .reason = SYNC_GAP_EVICTED};
                e.to_seq = last - 1;
                next = last;
            }
            if (next < upto) {
                break;
            }
        }
        if (i == b->row_count) {
            break;
        }
        struct bytes record;
        if (b->payloads[i] != NULL && record_slot(blob_bytes(b->payloads[i]), b->rows[i].slot, &record) == E_OK) {
            items[e.item_count++] =
                (struct sync_item){.seq = next, .index = b->rows[i].index, .time_ms = b->rows[i].time_ms, .record = record};
            bytes += record.size;
        } else {
            struct channel_facts f;
            state_channel(state(u), b->channel, &f);
            if (next > f.acked_seq && !evicted(u, b->channel, next)) {
                log_limited(LOG_ERROR, "uplink", "payload",
                            "channel=%s seq=%" PRIu64 " index=%" PRIu64 " cannot be read from this disk",
                            event_channel_name(b->channel), next, b->rows[i].index);
            }
            break;
        }
        e.to_seq = next++;
    }
    if (whole && e.to_seq >= e.from_seq) {
        e.incarnation = site.incarnation;
        build_frame(u, &e);
        metrics_add(&sent_events, (unsigned)b->channel, e.item_count);
    } else {
        loop_timer_after(u->x.loop, &u->timer, RETRY_MS / 4);
    }
    mem_free(items);
    mem_free(gaps);
    drop_batch(u);
    pump(u);
}

static bool batch_stale(struct uplink *u) {
    if (u->batch.session == u->session && u->leads && u->welcomed) {
        return false;
    }
    drop_batch(u);
    return true;
}

static void payloads_read(void *context, struct sitelog_read *read) {
    struct uplink *u = context;
    struct batch *b = &u->batch;
    for (uint32_t i = 0, k = 0; i < b->row_count && read->err == E_OK; i++) {
        if (b->payloads[i] == NULL && k < read->index_count) {
            b->payloads[i] = blob_ref(read->payloads[k++]);
        }
    }
    if (!batch_stale(u)) {
        make_frame(u);
    }
}

static void fetch_payloads(struct uplink *u) {
    struct batch *b = &u->batch;
    uint32_t missing = 0;
    b->payloads = mem_new(b->row_count == 0 ? 1 : b->row_count, sizeof *b->payloads);
    raft_index *indexes = mem_new(b->row_count == 0 ? 1 : b->row_count, sizeof *indexes);
    if (b->payloads == NULL || indexes == NULL) {
        mem_free(indexes);
        drop_batch(u);
        loop_timer_after(u->x.loop, &u->timer, RETRY_MS);
        return;
    }
    for (uint32_t i = 0; i < b->row_count; i++) {
        b->payloads[i] = blob_ref(node_payload_in_memory(u->node, b->rows[i].index));
        if (b->payloads[i] == NULL) {
            indexes[missing++] = b->rows[i].index;
        }
    }
    if (missing == 0) {
        mem_free(indexes);
        make_frame(u);
        return;
    }
    b->read = (struct sitelog_read){
        .kind = SITELOG_PAYLOADS, .indexes = indexes, .index_count = missing, .done = payloads_read, .context = u};
    if (sitelog_read(node_log(u->node), &b->read) != E_OK) {
        mem_free(indexes);
        drop_batch(u);
        loop_timer_after(u->x.loop, &u->timer, RETRY_MS);
    }
}

static void scan_next(struct uplink *u);

static void scanned(void *context, enum grey_error err, const struct node_row *rows, size_t count, bool more) {
    struct uplink *u = context;
    struct batch *b = &u->batch;
    if (batch_stale(u)) {
        return;
    }
    if (err != E_OK) {
        drop_batch(u);
        loop_timer_after(u->x.loop, &u->timer, RETRY_MS);
        return;
    }
    /* Merge by number with the rows of the priority before; room for BATCH_ROWS, the rest comes with the next batch. */
    struct outbox_row *merged = mem_new(BATCH_ROWS, sizeof *merged);
    uint32_t merged_count = 0, old = 0;
    size_t fresh = 0;
    if (merged == NULL) {
        drop_batch(u);
        loop_timer_after(u->x.loop, &u->timer, RETRY_MS);
        return;
    }
    struct outbox_row row;
    grey_seq last_fresh = 0;
    if (count > 0 && state_outbox_row(rows[count - 1].key, rows[count - 1].value, &row) == E_OK) {
        last_fresh = row.seq;
    }
    if (more && last_fresh < b->scanned_to) {
        b->scanned_to = last_fresh;
    }
    while (merged_count < BATCH_ROWS && (old < b->row_count || fresh < count)) {
        bool have = false;
        if (fresh < count) {
            have = state_outbox_row(rows[fresh].key, rows[fresh].value, &row) == E_OK && row.seq < b->next_seq;
            if (!have) {
                fresh++;
                continue;
            }
        }
        if (have && (old == b->row_count || row.seq < b->rows[old].seq)) {
            merged[merged_count++] = row;
            fresh++;
        } else {
            merged[merged_count++] = b->rows[old++];
        }
    }
    if ((old < b->row_count || fresh < count) && merged[merged_count - 1].seq < b->scanned_to) {
        b->scanned_to = merged[merged_count - 1].seq;
    }
    mem_free(b->rows);
    b->rows = merged;
    while (merged_count > 0 && merged[merged_count - 1].seq > b->scanned_to) {
        merged_count--;
    }
    b->row_count = merged_count;
    b->priority = (enum event_priority)(b->priority + 1);
    scan_next(u);
}

/* One scan for each priority of the channel. */
static void scan_next(struct uplink *u) {
    struct batch *b = &u->batch;
    while (b->priority < PRIORITY_COUNT && event_channel_of(b->priority) != b->channel) {
        b->priority = (enum event_priority)(b->priority + 1);
    }
    if (b->priority >= PRIORITY_COUNT) {
        fetch_payloads(u);
        return;
    }
    uint8_t low[9], high[9];
    state_outbox_key(b->priority, b->from, low);
    state_outbox_key(b->priority, b->next_seq, high);
    node_scan(u->node, TABLE_OUTBOX, bytes_of(low, sizeof low), bytes_of(high, sizeof high), BATCH_ROWS, scanned, u);
}

/* --- what goes next ------------------------------------------------------------------------------------------------------------------------------ */

static bool has_more(struct uplink *u, enum event_channel c) {
    struct channel_facts f;
    struct stream *s = &u->streams[c];
    state_channel(state(u), c, &f);
    if (f.acked_seq > s->sent) {
        s->sent = f.acked_seq;
    }
    if (s->sent + 1 >= f.next_seq) {
        s->gather_until_ms = 0;
        return false;
    }
    if (c != CHANNEL_DATA || u->flight_count > 0 || f.next_seq - s->sent > BATCH_ROWS) {
        return true;
    }
    uint64_t now_ms = loop_now_ms(u->x.loop);
    if (s->gather_until_ms == 0) {
        s->gather_until_ms = now_ms + GATHER_DATA_MS;
        loop_timer_set(u->x.loop, &u->timer, s->gather_until_ms);
    }
    return now_ms >= s->gather_until_ms;
}

static void pump(struct uplink *u) {
    if (!u->leads || !u->welcomed || u->batch.running) {
        return;
    }
    if (u->frame.size > 0 && !send_frame(u)) {
        return;
    }
    if (u->flight_count >= (u->o.window_frames < WINDOW_MAX ? u->o.window_frames : WINDOW_MAX)) {
        return;
    }
    u->batch_number++;
    bool floor_turn = u->batch_number % FLOOR_EVERY == 0;
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        enum event_channel c = (enum event_channel)(floor_turn ? CHANNEL_COUNT - 1 - i : i);
        if (!has_more(u, c)) {
            continue;
        }
        struct channel_facts f;
        state_channel(state(u), c, &f);
        u->streams[c].gather_until_ms = 0;
        u->batch = (struct batch){.running = true,
                                  .session = u->session,
                                  .channel = c,
                                  .from = u->streams[c].sent + 1,
                                  .next_seq = f.next_seq,
                                  .scanned_to = f.next_seq - 1};
        scan_next(u);
        return;
    }
}

static void on_timer(void *context) {
    struct uplink *u = context;
    if (!u->leads) {
        return;
    }
    uint64_t now_ms = loop_now_ms(u->x.loop);
    if (mqtt_connected(u->mqtt) && !u->welcomed && !u->hello_due && now_ms >= u->hello_ms + WELCOME_TIMEOUT_MS) {
        u->hello_due = true; /* the core may have been away when the hello came: say it again */
        note_error(u, "connected to the broker, but the core does not answer");
    }
    say_hello(u);
    if (u->flight_count > 0 && now_ms >= u->flights[u->flight_first].sent_ms + ACK_TIMEOUT_MS) {
        reconnect(u, "the core acknowledges nothing");
    }
    propose_acks(u);
    pump(u);
    bool busy = u->flight_count > 0 || !u->welcomed;
    if (u->timer.place == 0) {
        loop_timer_after(u->x.loop, &u->timer, busy ? RETRY_MS : 10 * RETRY_MS);
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
    struct metric *const all[] = {&link_up, &sent_bytes, &received_bytes, &sent_events, &contact, &refusals, &connects};
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
    uint64_t burst = o->limit_bytes_per_s / BURST_SECONDS_DIV;
    shaper_init(&u->shaper, o->limit_bytes_per_s, burst < 4096 ? 4096 : burst, now_monotonic_us());
    struct mqtt_options m = {.endpoints = o->endpoints,
                             .endpoint_count = o->endpoint_count,
                             .tls = o->tls,
                             .client_id = u->site,
                             .socket_dir = o->data_dir,
                             .keepalive_s = o->keepalive_s,
                             .inflight_max = 20,
                             .gate = o->limit_bytes_per_s > 0 ? gate : NULL,
                             .gate_context = u};
    u->mqtt = mqtt_new(x, &m, &mqtt_events, u, f);
    if (u->mqtt == NULL) {
        mem_free(u);
        return NULL;
    }
    return u;
}

void uplink_free(struct uplink *u) {
    if (u != NULL) {
        uplink_follow(u);
        mqtt_free(u->mqtt);
        if (u->batch.running) {
            u->session++; /* a job still holds it: the node finishes it before it goes */
        }
        loop_timer_cancel(u->x.loop, &u->gate_timer);
        builder_free(&u->frame);
        if (!u->batch.running) {
            mem_free(u);
        }
    }
}

void uplink_lead(struct uplink *u, grey_epoch epoch) {
    u->leads = true;
    u->epoch = epoch;
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        u->streams[i] = (struct stream){0};
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
}

void uplink_wake(struct uplink *u) {
    if (!u->leads) {
        return;
    }
    say_hello(u);
    if (u->welcomed && !u->batch.running && (u->timer.place == 0 || u->timer.deadline_ms > loop_now_ms(u->x.loop))) {
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
