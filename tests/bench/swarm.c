/* swarm.c: many sites that come back after a long time, in one process: each with an MQTT connection of its own (platform/mqtt), a backlog,
 * and the uplink's rules: hello, frames of several events with at most so many on the way, resend behind the core's position.
 *
 *     swarm core HOST:PORT SITES EVENTS PER_FRAME SPREAD_MS    sites sync EVENTS each to grey-core; they connect within SPREAD_MS
 *     swarm plain HOST:PORT SITES EVENTS PER_FRAME SPREAD_MS   the same events, each a message of its own, for any subscriber
 *
 * One more number: so many of a hundred sites are of feature level 1, which minds no credits, knows no routes, and has four times as many frames on the way.
 * Prints one JSON object.  Exit status 1: not done within two minutes. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/dialler.h"
#include "federation/channel.h"
#include "federation/credit.h"
#include "federation/frame.h"
#include "federation/record.h"
#include "federation/sync.h"
#include "platform/keys.h"
#include "platform/log.h"
#include "platform/mqtt.h"
#include "platform/now.h"

#define ON_WAY_MAX 20u    /* as agent/uplink/uplink.c */
#define WINDOW_FRAMES 16u /* of its, for the data channel */
#define KEEPALIVE_S 60u
#define PATIENCE_MS 15000u
#define UNHEARD_PAUSE_MS 2000u
#define TOTAL_MS 120000u
#define PER_FRAME_MAX 500u
#define DATA_BYTES 256u

struct site {
    struct swarm *swarm;
    struct mqtt *mqtt;
    struct dialler dialler;
    char name[16], dir[64]; /* for its client's socket */
    uint64_t incarnation, message_id, hello_ms, heard_ms;
    struct channel_out out;
    uint32_t on_way, rng, credit_bytes;
    struct {
        int id;
        uint32_t bytes;
        uint64_t sent_ms;
    } unconfirmed[ON_WAY_MAX];
    struct channel_pace pace;
    uint32_t level;
    uint64_t said_ms;
    char route[ROUTE_BYTES_MAX + 1];
    bool welcomed, finished, hello_due, gone;
    struct loop_timer start, patience;
};

struct swarm {
    struct conn_context x;
    struct site *sites;
    uint32_t site_count, old_percent, events, per_frame, finished;
    bool plain;
    uint64_t begin_ms, first_welcome_ms, end_ms;
    uint64_t hellos, resyncs, frames, impatient, routed, unheard, welcomes, uplink_bytes;
    uint32_t *welcome_ms;
    struct loop_timer total;
};

/* --- what a site says ------------------------------------------------------------------------------------------------------------------------ */

static void put_event(struct builder *b, struct site *s, grey_seq seq) {
    char id[32], data[DATA_BYTES + 1];
    (void)snprintf(id, sizeof id, "%s-%" PRIu64, s->name, seq);
    int size =
        snprintf(data, sizeof data, "{\"seq\":%" PRIu64 ",\"time\":%" PRIu64 ",\"readings\":[", seq, 1700000000000u + seq * 1000);
    for (; size < (int)DATA_BYTES - 12; size += 8) {
        s->rng = s->rng * 1664525u + 1013904223u;
        (void)snprintf(data + size, sizeof data - (size_t)size, "%03u.%03u,", 100 + (s->rng >> 8) % 900, (s->rng >> 18) % 1000);
    }
    (void)snprintf(data + size, sizeof data - (size_t)size, "0]}");
    struct event e = {.id = bytes_str(id),
                      .source = bytes_str("/machines/7"),
                      .type = bytes_str("reading"),
                      .data = bytes_str(data),
                      .priority = PRIORITY_NORMAL};
    record_encode(&e, b);
}

static enum grey_error publish(struct site *s, struct bytes payload) {
    char topic[TOPIC_BYTES_MAX];
    int id;
    sync_topic_routed(topic, s->name, CHANNEL_DATA, s->welcomed ? s->route : "");
    enum grey_error err = s->on_way == ON_WAY_MAX ? E_BUSY : mqtt_publish(s->mqtt, topic, payload, &id);
    if (err == E_OK) {
        s->unconfirmed[s->on_way].id = id;
        s->unconfirmed[s->on_way].bytes = (uint32_t)payload.size;
        s->unconfirmed[s->on_way++].sent_ms = loop_now_ms(s->swarm->x.loop);
        s->swarm->uplink_bytes += payload.size;
        channel_pace_sent(&s->pace, (uint32_t)payload.size);
    }
    return err;
}

static enum grey_error say(struct site *s, const struct builder *content) {
    struct builder frame;
    builder_init(&frame, LIMIT_FRAME_PAYLOAD_BYTES + FRAME_OVERHEAD_BYTES);
    frame_write(&frame, 0, ++s->message_id, (uint64_t)now_wall_ms() * 1000000u, builder_bytes(content));
    enum grey_error err = publish(s, builder_bytes(&frame));
    builder_free(&frame);
    return err;
}

static void hello(struct site *s) {
    struct sync_hello h = {
        .incarnation = s->incarnation, .epoch = 1, .feature_level = s->level, .node = bytes_str("1"), .time_ms = now_wall_ms()};
    struct builder b;
    for (int i = 0; i < CHANNEL_COUNT; i++) {
        h.channels[i].next_seq = i == CHANNEL_DATA ? s->swarm->events + 1u : 1;
        h.channels[i].acked_seq = i == CHANNEL_DATA ? s->out.acked : 0;
    }
    builder_init(&b, 1000);
    sync_put_hello(&b, &h);
    s->welcomed = false;
    s->route[0] = 0;
    s->gone = false;
    s->said_ms = s->heard_ms = loop_now_ms(s->swarm->x.loop);
    s->hello_ms = s->hello_ms == 0 ? s->heard_ms : s->hello_ms;
    s->hello_due = say(s, &b) != E_OK; /* otherwise when there is room */
    s->swarm->hellos += !s->hello_due;
    builder_free(&b);
}

/* *bytes: what it weighs. */
static enum grey_error send_frame(struct site *s, grey_seq from, grey_seq to, uint32_t *bytes) {
    static struct sync_item items[PER_FRAME_MAX];
    static size_t ends[PER_FRAME_MAX];
    struct sync_events e = {
        .incarnation = s->incarnation, .epoch = 1, .channel = CHANNEL_DATA, .from_seq = from, .to_seq = to, .items = items};
    struct builder records, b;
    builder_init(&records, LIMIT_FRAME_PAYLOAD_BYTES);
    builder_init(&b, LIMIT_FRAME_PAYLOAD_BYTES);
    for (grey_seq seq = from; seq <= to; seq++) {
        put_event(&records, s, seq);
        ends[e.item_count] = records.size;
        items[e.item_count++] = (struct sync_item){.seq = seq, .index = seq, .time_ms = 1700000000000};
    }
    for (uint32_t i = 0; i < e.item_count; i++) {
        size_t at = i == 0 ? 0 : ends[i - 1];
        items[i].record = bytes_of(records.data + at, ends[i] - at);
    }
    sync_put_events(&b, &e);
    *bytes = (uint32_t)b.size;
    enum grey_error err = s->swarm->plain ? publish(s, builder_bytes(&records)) : say(s, &b);
    builder_free(&records);
    builder_free(&b);
    return err;
}

static void pump(struct site *s) {
    struct swarm *swarm = s->swarm;
    if (s->hello_due) {
        hello(s);
    }
    for (;;) {
        grey_seq from = channel_next(&s->out, 0, swarm->events + 1u);
        grey_seq to = from + (swarm->plain ? 1 : swarm->per_frame) - 1;
        to = to > swarm->events ? swarm->events : to;
        uint32_t bytes = 0;
        if (from == 0 || !s->welcomed || s->out.frames >= (s->level < UP_LEVEL ? CHANNEL_FRAMES_MAX : WINDOW_FRAMES) ||
            !channel_room(&s->out) || !channel_pace_room(&s->pace) || !credit_allows(s->credit_bytes, s->out.bytes_on_way, false) ||
            send_frame(s, from, to, &bytes) != E_OK) {
            return;
        }
        channel_sent(&s->out, to, bytes);
        swarm->frames++;
    }
}

static void take_ack(struct site *s, grey_seq seq) {
    struct swarm *swarm = s->swarm;
    (void)channel_acked(&s->out, seq);
    if (s->out.acked == swarm->events && !s->finished) {
        s->finished = true;
        loop_timer_cancel(swarm->x.loop, &s->patience);
        if (++swarm->finished == swarm->site_count) {
            swarm->end_ms = loop_now_ms(swarm->x.loop);
            loop_stop(swarm->x.loop);
        }
    }
}

/* --- what it hears --------------------------------------------------------------------------------------------------------------------------- */

static void take_welcome(struct site *s, const struct sync_welcome *w) {
    struct swarm *swarm = s->swarm;
    uint64_t now_ms = loop_now_ms(swarm->x.loop);
    if (s->welcomed) {
        return;
    }
    swarm->first_welcome_ms = swarm->first_welcome_ms == 0 ? now_ms : swarm->first_welcome_ms;
    if (swarm->welcomes < swarm->site_count) {
        swarm->welcome_ms[swarm->welcomes++] = (uint32_t)(now_ms - s->hello_ms);
    }
    s->welcomed = true;
    s->credit_bytes = s->level < UP_LEVEL ? CREDIT_BYTES_FULL : CREDIT_BYTES_FIRST;
    channel_begin(&s->out, s->out.acked);
    take_ack(s, w->position[CHANNEL_DATA]);
}

static void on_message(void *context, const char *topic, struct bytes payload) {
    struct site *s = context;
    struct frame f;
    size_t used, need;
    enum grey_error why;
    struct sync_welcome w;
    struct sync_ack a;
    struct sync_route r;
    struct bytes content;
    struct builder scratch;
    (void)topic;
    builder_init(&scratch, LIMIT_FRAME_PAYLOAD_BYTES);
    if (frame_read(payload, &f, &used, &need, &why) == FRAME_READY && frame_content(&f, &scratch, &content) == E_OK) {
        s->heard_ms = loop_now_ms(s->swarm->x.loop);
        if (sync_get_welcome(content, &w) == E_OK && w.incarnation == s->incarnation) {
            take_welcome(s, &w);
        } else if (sync_get_ack(content, &a) == E_OK && a.incarnation == s->incarnation && s->welcomed) {
            s->credit_bytes = s->level < UP_LEVEL ? CREDIT_BYTES_FULL : a.credit_bytes;
            take_ack(s, a.acked_seq);
        } else if (sync_get_route(content, &r) == E_OK && r.incarnation == s->incarnation && !s->welcomed) {
            memcpy(s->route, r.route, sizeof s->route);
            s->swarm->routed++;
        } else if (sync_get_resync(content, &w) == E_OK && w.incarnation == s->incarnation) {
            s->swarm->resyncs++;
            hello(s);
        }
    }
    builder_free(&scratch);
    pump(s);
}

static void on_connected(void *context) {
    struct site *s = context;
    char filter[TOPIC_BYTES_MAX];
    dialler_connected(&s->dialler);
    s->on_way = 0;
    channel_pace_begin(&s->pace, 0);
    if (s->swarm->plain) {
        s->welcomed = true;
        s->credit_bytes = CREDIT_BYTES_FULL;
        s->swarm->first_welcome_ms = s->swarm->first_welcome_ms == 0 ? loop_now_ms(s->swarm->x.loop) : s->swarm->first_welcome_ms;
        channel_begin(&s->out, s->out.acked);
        pump(s);
        return;
    }
    (void)snprintf(filter, sizeof filter, TOPIC_PREFIX "%s/down/#", s->name);
    (void)mqtt_subscribe(s->mqtt, filter);
    hello(s);
    loop_timer_after(s->swarm->x.loop, &s->patience, PATIENCE_MS);
}

static void on_closed(void *context, const char *why) {
    struct site *s = context;
    dialler_closed(&s->dialler);
    s->welcomed = false;
    log_limited(LOG_WARN, "swarm", "closed", "site=%s %s", s->name, why);
}

static void on_stage(void *context, enum mqtt_stage stage) {
    struct site *s = context;
    dialler_stage(&s->dialler, stage);
}

static void on_published(void *context, int id, const char *refusal) {
    struct site *s = context;
    uint64_t now_ms = loop_now_ms(s->swarm->x.loop);
    for (uint32_t i = 0; i < s->on_way; i++) {
        if (s->unconfirmed[i].id == id) {
            channel_pace_confirmed(&s->pace, s->unconfirmed[i].bytes, (uint32_t)(now_ms - s->unconfirmed[i].sent_ms), now_ms);
            memmove(&s->unconfirmed[i], &s->unconfirmed[i + 1], (--s->on_way - i) * sizeof s->unconfirmed[0]);
            break;
        }
    }
    if (mqtt_unheard(s->mqtt) && s->welcomed && s->route[0] != 0 && !s->gone) {
        s->gone = true;
        loop_timer_set(s->swarm->x.loop, &s->patience,
                       s->said_ms + UNHEARD_PAUSE_MS > now_ms ? s->said_ms + UNHEARD_PAUSE_MS : now_ms);
    }
    if (refusal != NULL) {
        log_limited(LOG_ERROR, "swarm", "refused", "%s", refusal);
    }
    if (s->swarm->plain) {
        take_ack(s, s->out.acked + 1);
    }
    pump(s);
}

static void on_writable(void *context) {
    pump(context);
}

static void on_patience(void *context) {
    struct site *s = context;
    uint64_t now_ms = loop_now_ms(s->swarm->x.loop);
    if (s->gone && mqtt_connected(s->mqtt)) {
        s->swarm->unheard++;
        hello(s);
    } else if (now_ms >= s->heard_ms + PATIENCE_MS && mqtt_connected(s->mqtt)) {
        s->swarm->impatient++;
        hello(s);
    }
    loop_timer_set(s->swarm->x.loop, &s->patience, s->heard_ms + PATIENCE_MS > now_ms ? s->heard_ms + PATIENCE_MS : now_ms + 1000);
}

static void on_start(void *context) {
    struct site *s = context;
    dialler_start(&s->dialler);
}

static void on_total(void *context) {
    struct swarm *swarm = context;
    (void)fprintf(stderr, "swarm: %u of %u sites are done after %u s\n", swarm->finished, swarm->site_count, TOTAL_MS / 1000);
    loop_stop(swarm->x.loop);
}

/* --- the swarm --------------------------------------------------------------------------------------------------------------------------------- */

static const struct mqtt_events mqtt_events = {.stage = on_stage,
                                               .connected = on_connected,
                                               .closed = on_closed,
                                               .message = on_message,
                                               .published = on_published,
                                               .writable = on_writable};

static bool add_site(struct swarm *swarm, uint32_t number, const char *broker, uint32_t spread_ms, const char *dir,
                     struct fault *f) {
    struct site *s = &swarm->sites[number];
    uint32_t chance;
    keys_random(&chance, sizeof chance);
    *s = (struct site){
        .swarm = swarm, .incarnation = 1000u + number, .rng = number, .level = number % 100 < swarm->old_percent ? 1 : UP_LEVEL};
    (void)snprintf(s->name, sizeof s->name, "site-%05u", number);
    (void)snprintf(s->dir, sizeof s->dir, "%s/%u", dir, number);
    if (mkdir(s->dir, 0700) != 0) {
        (void)fault_errno(f, E_SYSTEM, "%s", s->dir);
        return false;
    }
    s->start = (struct loop_timer){.fire = on_start, .context = s};
    s->patience = (struct loop_timer){.fire = on_patience, .context = s};
    struct mqtt_options o = {.client_id = s->name, .socket_dir = s->dir, .inflight_max = ON_WAY_MAX, .topics_repeat = true};
    s->mqtt = mqtt_new(&swarm->x, &o, &mqtt_events, s, f);
    if (s->mqtt != NULL) {
        dialler_init(&s->dialler, &swarm->x, s->mqtt, NULL, &broker, 1, KEEPALIVE_S);
        loop_timer_after(swarm->x.loop, &s->start, spread_ms == 0 ? 0 : chance % spread_ms);
    }
    return s->mqtt != NULL;
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void report(struct swarm *swarm) {
    double seconds = (double)(swarm->end_ms - swarm->first_welcome_ms) / 1000;
    uint64_t events = (uint64_t)swarm->events * swarm->site_count;
    uint64_t count = swarm->welcomes;
    qsort(swarm->welcome_ms, count, sizeof swarm->welcome_ms[0], by_size);
    (void)printf("{\"events\":%" PRIu64 ",\"seconds\":%.3f,\"rate\":%.1f,\"whole_seconds\":%.3f,\"frames\":%" PRIu64
                 ",\"hellos\":%" PRIu64 ",\"resyncs\":%" PRIu64 ",\"routed\":%" PRIu64 ",\"unheard\":%" PRIu64
                 ",\"impatient\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"welcome_p50_ms\":%u,\"welcome_p99_ms\":%u}\n",
                 events, seconds, (double)events / seconds, (double)(swarm->end_ms - swarm->begin_ms) / 1000, swarm->frames,
                 swarm->hellos, swarm->resyncs, swarm->routed, swarm->unheard, swarm->impatient, swarm->uplink_bytes,
                 count == 0 ? 0 : swarm->welcome_ms[count / 2], count == 0 ? 0 : swarm->welcome_ms[count * 99 / 100]);
}

int main(int argc, char **argv) {
    static struct swarm swarm;
    struct fault f = {0};
    if (argc < 7 || argc > 8 || (strcmp(argv[1], "core") != 0 && strcmp(argv[1], "plain") != 0)) {
        (void)fprintf(stderr, "usage: swarm core|plain HOST:PORT SITES EVENTS PER_FRAME SPREAD_MS [OLD_PERCENT]\n");
        return 2;
    }
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    log_configure(LOG_WARN, LOG_PRETTY);
    swarm.plain = strcmp(argv[1], "plain") == 0;
    swarm.site_count = (uint32_t)strtoul(argv[3], NULL, 10);
    swarm.events = (uint32_t)strtoul(argv[4], NULL, 10);
    swarm.per_frame = (uint32_t)strtoul(argv[5], NULL, 10);
    uint32_t spread_ms = (uint32_t)strtoul(argv[6], NULL, 10);
    swarm.old_percent = argc > 7 ? (uint32_t)strtoul(argv[7], NULL, 10) : 0;
    char dir[] = "/tmp/grey-swarm-XXXXXX";
    if (swarm.site_count == 0 || swarm.events == 0 || swarm.per_frame == 0 || swarm.per_frame > PER_FRAME_MAX ||
        mkdtemp(dir) == NULL) {
        return 2;
    }
    swarm.sites = mem_new(swarm.site_count, sizeof swarm.sites[0]);
    swarm.welcome_ms = mem_new(swarm.site_count, sizeof swarm.welcome_ms[0]);
    swarm.x.loop = loop_new(&f);
    swarm.x.crypto = swarm.x.loop == NULL ? NULL : worker_new(swarm.x.loop, "names", swarm.site_count + 1, NULL, NULL, &f);
    bool ok = swarm.sites != NULL && swarm.welcome_ms != NULL && swarm.x.crypto != NULL;
    for (uint32_t i = 0; i < swarm.site_count && ok; i++) {
        ok = add_site(&swarm, i, argv[2], spread_ms, dir, &f);
    }
    if (!ok) {
        (void)fprintf(stderr, "swarm: %s\n", f.text);
        return 2;
    }
    swarm.begin_ms = loop_now_ms(swarm.x.loop);
    swarm.total = (struct loop_timer){.fire = on_total, .context = &swarm};
    loop_timer_after(swarm.x.loop, &swarm.total, TOTAL_MS);
    loop_run(swarm.x.loop);
    if (swarm.end_ms != 0) {
        report(&swarm);
    }
    for (uint32_t i = 0; i < swarm.site_count; i++) {
        dialler_stop(&swarm.sites[i].dialler);
        mqtt_free(swarm.sites[i].mqtt);
        (void)rmdir(swarm.sites[i].dir);
    }
    worker_stop(swarm.x.crypto);
    loop_free(swarm.x.loop);
    mem_free(swarm.welcome_ms);
    mem_free(swarm.sites);
    (void)rmdir(dir);
    return swarm.end_ms == 0;
}
