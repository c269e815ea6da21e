#include "core/ingest.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/answers.h"
#include "core/assemble.h"
#include "core/dialler.h"
#include "core/downpace.h"
#include "core/recall.h"
#include "core/sealed.h"
#include "core/unpack.h"
#include "federation/credit.h"
#include "federation/frame.h"
#include "include/grey/must.h"
#include "platform/keys.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/now.h"

#define HOLD_BYTES (32u * 1024u * 1024u) /* waiting for the storage thread: above it nothing is read, until half of it is written */
#define HOLD_JOBS (BATCH_JOBS_MAX * 3u / 4u)
#define KEEPALIVE_S 60u

struct ingest {
    struct conn_context x;
    struct worker *storage;
    struct mqtt *mqtt;
    struct dialler dialler;
    struct sealed *sealed;
    struct unpack *unpack;
    struct assembler *assembler;
    struct credit credit;
    struct answers *answers;
    struct downpace *downpace;
    uint64_t message_id;
    uint32_t jobs;
    size_t waiting_bytes;
    bool held, write_failed, stopping, shared;
    char route[ROUTE_BYTES_MAX + 1]; /* this process, where several share the work */
    ingest_supply *supply;           /* NULL: nothing to give */
    void *supply_context;
    ingest_certify *certify; /* NULL: this core certifies nobody */
    void *certify_context;
    bool worker;    /* there is one for tasks of sites */
    bool told_full; /* the MQTT client took no more, last time */
    struct recall *recall;
};

struct intake_job { /* one message of a site */
    struct storage_job storage;
    struct ingest *ingest;
    struct grey_name site;
    enum event_channel channel;
    struct blob *content;
    enum message_kind kind;
    struct answer answer;
    struct store_taken taken;
    bool rolled_back;
    uint64_t down_bytes_per_s; /* of a hello */
    uint32_t feature_level;    /* of the site */
    bool is_sealed;
    struct sealed_speaker who; /* of a sealed hello */
};

static const char *const channels[] = {"control", "events", "data"};
static const char *const reasons[] = {"topic", "frame",   "message", "epoch",    "unknown-site", "hole",    "busy",
                                      "store", "session", "sealed",  "repeated", "plain",        "identity"};
enum {
    REFUSED_TOPIC,
    REFUSED_FRAME,
    REFUSED_MESSAGE,
    REFUSED_EPOCH,
    REFUSED_UNKNOWN,
    REFUSED_HOLE,
    REFUSED_BUSY,
    REFUSED_STORE,
    REFUSED_SESSION,
    REFUSED_SEALED,
    REFUSED_REPEATED,
    REFUSED_PLAIN,
    REFUSED_IDENTITY
};
static struct metric taken_events =
    METRIC_COUNTER_LABELS("grey_core_events_total", "Events taken into the store.", "channel", channels);
static struct metric repeated =
    METRIC_COUNTER_LABELS("grey_core_events_repeated_total", "Events that were there already.", "channel", channels);
static struct metric refused =
    METRIC_COUNTER_LABELS("grey_core_refused_messages_total", "Messages of sites that were not taken.", "reason", reasons);
static struct metric unreadable = METRIC_COUNTER_LABELS("grey_core_events_unreadable_total",
                                                        "Events kept as they came that are no records.", "channel", channels);
static struct metric rolled_back =
    METRIC_COUNTER("grey_core_rolled_back_hellos_total", "Hellos of sites that have forgotten events that are here.");
static struct metric held = METRIC_GAUGE("grey_core_held", "1 while nothing is read because the storage thread is behind.");
static struct metric credit_bytes = METRIC_GAUGE("grey_core_credit_bytes", "What a site may have on the way, as granted last.");
static struct metric hellos = METRIC_COUNTER("grey_core_hellos_total", "Sessions begun by sites.");
static struct metric squeezing =
    METRIC_GAUGE("grey_core_squeezing_sites", "Sites whose squeezed sessions are held in memory, up to 64 KiB each.");
static struct metric broker_up = METRIC_GAUGE("grey_core_broker_up", "1 while connected to the broker.");
static struct metric ahead =
    METRIC_COUNTER("grey_core_frames_ahead_total", "Frames kept until those before them come, most by way of another core.");

/* --- on the storage thread ---------------------------------------------------------------------------------------------------------------- */

static void run_hello(struct storage_job *storage, struct store *store) {
    struct intake_job *job = (struct intake_job *)(void *)storage;
    struct sync_hello h;
    storage->err = sync_get_hello(blob_bytes(job->content), &h);
    if (storage->err != E_OK) {
        return;
    }
    if (job->is_sealed && !bytes_equal_str(h.node, job->who.node)) {
        storage->err = fault_set(&storage->fault, E_WRONG_SITE, "the hello is of %.*s, the certificate of %s", (int)h.node.size,
                                 (const char *)h.node.data, job->who.node);
        return;
    }
    storage->err =
        store_manner(store, job->site.text, job->is_sealed ? STORE_HELLO_SEALED : STORE_PLAIN, now_wall_ms(), &storage->fault);
    if (storage->err != E_OK) {
        return;
    }
    job->feature_level = h.feature_level;
    job->answer.welcome = (struct sync_welcome){.incarnation = h.incarnation, .epoch = h.epoch, .time_ms = now_wall_ms()};
    job->down_bytes_per_s = h.down_bytes_per_s;
    storage->err =
        store_hello(store, job->site.text, &h, now_wall_ms(), job->answer.welcome.position, &job->rolled_back, &storage->fault);
}

static void run_events(struct storage_job *storage, struct store *store) {
    static struct sync_item items[SYNC_ITEMS_MAX]; /* the storage thread only */
    static struct sync_gap gaps[SYNC_GAPS_MAX];
    struct intake_job *job = (struct intake_job *)(void *)storage;
    struct sync_events e;
    storage->err = sync_get_events(blob_bytes(job->content), &e, items, gaps);
    if (storage->err == E_OK && e.channel != job->channel) {
        storage->err = E_BAD_MESSAGE;
    }
    if (storage->err != E_OK) {
        return;
    }
    storage->err = store_manner(store, job->site.text, job->is_sealed ? STORE_SEALED : STORE_PLAIN, now_wall_ms(), &storage->fault);
    if (storage->err != E_OK) {
        return;
    }
    storage->err = store_events(store, job->site.text, &e, now_wall_ms(), &job->taken, &storage->fault);
    job->answer.ack =
        (struct sync_ack){.incarnation = e.incarnation, .epoch = e.epoch, .channel = e.channel, .acked_seq = job->taken.position};
    job->answer.kind = MESSAGE_DOWN_ACK;
    if (job->taken.ask_again) { /* something was lost on the way: the site begins again from where the core stands */
        job->answer.kind = MESSAGE_DOWN_RESYNC;
        job->answer.welcome = (struct sync_welcome){.incarnation = e.incarnation, .epoch = e.epoch, .time_ms = now_wall_ms()};
        job->answer.welcome.position[e.channel] = job->taken.position;
    }
}

/* --- answers -------------------------------------------------------------------------------------------------------------------------------- */

/* Plain words are those that promise nothing: where the core stands, who it is; and a welcome that is sealed in itself. */
static bool may_be_plain(enum message_kind kind) {
    return kind == MESSAGE_DOWN_RESYNC || kind == MESSAGE_DOWN_ROUTE || kind == MESSAGE_DOWN_SEALED_WELCOME;
}

static enum grey_error publish(struct ingest *g, const struct grey_name *site, enum event_channel c, enum message_kind kind,
                               struct bytes content) {
    struct builder frame, sealed;
    char topic[TOPIC_BYTES_MAX];
    int id;
    builder_init(&frame, content.size + FRAME_OVERHEAD_BYTES);
    builder_init(&sealed, content.size + FRAME_OVERHEAD_BYTES + ENVELOPE_OVERHEAD_BYTES);
    frame_write(&frame, FRAME_FLAG_PRIORITY | FRAME_FLAG_IDEMPOTENT, ++g->message_id, (uint64_t)now_wall_ms() * 1000000u, content);
    enum grey_error err = frame.err;
    bool seal = !may_be_plain(kind) && sealed_manner(g->sealed, site->text) == SEALED_SEALED;
    if (err == E_OK && seal) {
        err = sealed_seal(g->sealed, site->text, c, builder_bytes(&frame), &sealed);
    }
    sync_topic(topic, site->text, false, c);
    err = err != E_OK ? err : mqtt_publish(g->mqtt, topic, builder_bytes(seal ? &sealed : &frame), &id);
    builder_free(&frame);
    builder_free(&sealed);
    return err;
}

/* To a hello that came sealed the welcome goes sealed. */
static enum grey_error say_welcome(struct ingest *g, const struct answer *a, struct bytes welcome) {
    if (!sealed_awaits(g->sealed, a->site.text)) {
        return sealed_manner(g->sealed, a->site.text) == SEALED_SEALED
                   ? E_OK /* it was answered: this one is of a hello that was said twice */
                   : publish(g, &a->site, a->channel, MESSAGE_DOWN_WELCOME, welcome);
    }
    struct builder content;
    builder_init(&content, 1024);
    enum grey_error err = sealed_welcome(g->sealed, a->site.text, welcome, &content);
    err = err != E_OK ? err : publish(g, &a->site, a->channel, MESSAGE_DOWN_SEALED_WELCOME, builder_bytes(&content));
    if (err == E_OK) {
        sealed_welcomed(g->sealed, a->site.text);
    }
    builder_free(&content);
    return err;
}

static enum grey_error say(void *context, const struct answer *r) {
    struct ingest *g = context;
    struct builder content;
    builder_init(&content, 1024);
    if (r->kind == MESSAGE_DOWN_WELCOME) {
        sync_put_welcome(&content, &r->welcome);
    } else if (r->kind == MESSAGE_DOWN_RESYNC) {
        sync_put_resync(&content, &r->welcome);
    } else if (r->kind == MESSAGE_DOWN_ROUTE) {
        struct sync_route route = {.incarnation = r->welcome.incarnation, .epoch = r->welcome.epoch};
        memcpy(route.route, g->route, sizeof route.route);
        sync_put_route(&content, &route);
    } else {
        sync_put_ack(&content, &r->ack);
    }
    enum grey_error err = r->kind == MESSAGE_DOWN_WELCOME ? say_welcome(g, r, builder_bytes(&content))
                                                          : publish(g, &r->site, r->channel, r->kind, builder_bytes(&content));
    builder_free(&content);
    return err;
}

static void on_writable(void *context) {
    struct ingest *g = context;
    if (answers_go_on(g->answers)) {
        recall_go_on(g->recall);
    }
}

/* --- what the storage thread has done -------------------------------------------------------------------------------------------------------- */

static void update_hold(struct ingest *g) {
    uint32_t jobs = g->jobs + recall_jobs(g->recall);
    bool over =
        g->held ? g->waiting_bytes > HOLD_BYTES / 2 || jobs > HOLD_JOBS / 2 : g->waiting_bytes > HOLD_BYTES || jobs > HOLD_JOBS;
    if (over != g->held) {
        g->held = over;
        metrics_set(&held, 0, over);
    }
    mqtt_hold(g->mqtt, over);
}

static void intake_done(struct worker_job *worker_job) {
    struct intake_job *job = (struct intake_job *)(void *)worker_job;
    struct ingest *g = job->ingest;
    enum grey_error err = job->storage.err;
    unsigned reason = err == E_STALE_MEMBER                       ? REFUSED_EPOCH
                      : err == E_NOT_FOUND                        ? REFUSED_UNKNOWN
                      : err == E_DENIED                           ? REFUSED_PLAIN
                      : err == E_WRONG_SITE                       ? REFUSED_IDENTITY
                      : err == E_BAD_CBOR || err == E_BAD_MESSAGE ? REFUSED_MESSAGE
                                                                  : REFUSED_STORE;
    g->write_failed = err != E_OK && reason == REFUSED_STORE;
    if (err == E_OK) {
        if (job->kind == MESSAGE_UP_HELLO) {
            metrics_add(&hellos, 0, 1);
            if (!job->is_sealed) {
                sealed_greeted_plain(g->sealed, job->site.text);
            }
            if (!downpace_set(g->downpace, job->site.text, job->down_bytes_per_s, now_monotonic_us())) {
                log_limited(LOG_WARN, "ingest", "pace", "site=%s wants to be paced, and there is no room to keep that",
                            job->site.text);
            }
            bool may = job->feature_level >= UP_LEVEL_CODINGS && unpack_admit(g->unpack, job->site.text, loop_now_ms(g->x.loop));
            job->answer.welcome.codings = (job->feature_level >= UP_LEVEL_CODINGS
                                               ? CODING_GAP_BYTES | CODING_PARTS | (g->supply != NULL ? CODING_OBJECTS : 0) |
                                                     (g->certify != NULL ? CODING_CERTIFY : 0) | (g->worker ? CODING_OFFLOAD : 0)
                                               : 0) |
                                          (may ? CODING_SQUEEZE : 0);
            assemble_forget(g->assembler, job->site.text);
            log_info("ingest", "hello", "site=%s epoch=%" PRIu64 " sealed=%s", job->site.text, job->answer.welcome.epoch,
                     job->is_sealed ? "yes" : "no");
            if (job->rolled_back) {
                metrics_add(&rolled_back, 0, 1);
                log_error("ingest", "rolled-back", "site=%s has forgotten events that are here: restore it from a snapshot",
                          job->site.text);
            }
        } else {
            metrics_add(&unreadable, (unsigned)job->channel, job->taken.unreadable);
            metrics_add(&taken_events, (unsigned)job->channel, job->taken.fresh);
            metrics_add(&repeated, (unsigned)job->channel, job->taken.repeated);
            metrics_add(&ahead, 0, job->taken.kept_ahead);
            metrics_add(&refused, REFUSED_HOLE, job->taken.beyond_hole && !job->taken.kept_ahead);
        }
        if (job->taken.first_ahead) {
            recall_hole(g->recall, &job->site, job->answer.ack.incarnation, job->answer.ack.epoch, job->channel);
        }
        job->answer.ack.credit_bytes = credit_grant(&g->credit, g->waiting_bytes, HOLD_BYTES / 2);
        metrics_set(&credit_bytes, 0, job->answer.ack.credit_bytes);
        if (job->kind == MESSAGE_UP_HELLO && g->shared &&
            job->feature_level >= UP_LEVEL_ROUTES) { /* before the welcome, which starts the stream */
            struct answer route = job->answer;
            route.kind = MESSAGE_DOWN_ROUTE;
            answers_give(g->answers, &route);
        }
        if (!job->taken.beyond_hole || job->taken.ask_again) { /* of a frame kept ahead the site hears when the hole has closed */
            answers_give(g->answers, &job->answer);
        }
    } else if (err != E_OK) {
        metrics_add(&refused, reason, 1);
        log_limited(LOG_WARN, "ingest", "refuse", "site=%s channel=%s error=GREY-%d %s: %s", job->site.text,
                    event_channel_name(job->channel), error_id(err), error_sentence(err), job->storage.fault.text);
    }
    g->jobs--;
    g->waiting_bytes -= blob_bytes(job->content).size;
    blob_unref(job->content);
    mem_free(job);
    update_hold(g);
}

/* --- messages ---------------------------------------------------------------------------------------------------------------------------------- */

static void refuse(unsigned reason, const char *topic, enum grey_error why) {
    metrics_add(&refused, reason, 1);
    log_limited(LOG_WARN, "ingest", "refuse", "topic=%.100s reason=%s error=GREY-%d %s", topic, reasons[reason], error_id(why),
                error_sentence(why));
}

/* plain: appended, the events that were squeezed.  False: there is nothing to take. */
static bool unsqueeze(struct ingest *g, const char *topic, const struct grey_name *site, enum event_channel channel,
                      struct bytes content, struct builder *plain) {
    struct sync_squeezed q;
    enum grey_error err = sync_get_squeezed(content, &q);
    if (err != E_OK || q.channel != channel) {
        refuse(REFUSED_MESSAGE, topic, err != E_OK ? err : E_BAD_MESSAGE);
        return false;
    }
    enum unpack_verdict verdict = unpack_frame(g->unpack, site->text, &q, loop_now_ms(g->x.loop), plain);
    metrics_set(&squeezing, 0, unpack_sessions(g->unpack));
    if (verdict == UNPACK_STALE) {
        refuse(REFUSED_EPOCH, topic, E_STALE_MEMBER);
    } else if (verdict == UNPACK_AGAIN || verdict == UNPACK_IGNORED) {
        metrics_add(&refused, REFUSED_SESSION, 1);
    }
    if (verdict == UNPACK_AGAIN) { /* as after a hole: the site begins again from where the core stands */
        struct answer one = {.site = *site, .channel = channel, .kind = MESSAGE_DOWN_RESYNC};
        one.welcome = (struct sync_welcome){.incarnation = q.incarnation, .epoch = q.epoch, .time_ms = now_wall_ms()};
        log_limited(LOG_WARN, "ingest", "session", "site=%s serial=%" PRIu32 " does not follow: asked to begin again", site->text,
                    q.serial);
        answers_give_now(g->answers, &one);
    }
    return verdict == UNPACK_TAKEN;
}

/* who: of a sealed hello. */
static void submit(struct ingest *g, const char *topic, const struct grey_name *site, enum event_channel channel,
                   enum message_kind kind, struct bytes content, bool is_sealed, const struct sealed_speaker *who) {
    bool hello = kind == MESSAGE_UP_HELLO;
    struct intake_job *job = mem_new(1, sizeof *job);
    if (job == NULL) {
        return; /* not acknowledged: the site sends it again */
    }
    job->storage = (struct storage_job){.job = {.done = intake_done}, .is_write = true, .run = hello ? run_hello : run_events};
    job->ingest = g;
    job->site = *site;
    job->storage.site = job->site.text;
    job->channel = channel;
    job->kind = kind;
    job->is_sealed = is_sealed;
    job->who = who != NULL ? *who : (struct sealed_speaker){0};
    job->content = blob_copy(content);
    job->answer = (struct answer){.site = *site, .channel = channel, .kind = hello ? MESSAGE_DOWN_WELCOME : MESSAGE_DOWN_ACK};
    g->jobs++;
    g->waiting_bytes += blob_bytes(job->content).size;
    if (job->content == NULL || worker_submit(g->storage, &job->storage.job) != E_OK) {
        refuse(REFUSED_BUSY, topic, E_BUSY); /* the same */
        g->jobs--;
        g->waiting_bytes -= blob_bytes(job->content).size;
        blob_unref(job->content);
        mem_free(job);
    }
    update_hold(g);
}

/* How a frame came: whole or put together from parts, sealed or plain. */
struct coming {
    bool assembled, sealed;
};
static void take_frame(struct ingest *g, const char *topic, const struct grey_name *site, enum event_channel channel,
                       struct bytes payload, struct coming how);

/* The last part makes the frame whole. */
static void take_part(struct ingest *g, const char *topic, const struct grey_name *site, enum event_channel channel,
                      struct bytes content, bool is_sealed) {
    struct sync_part p;
    struct bytes whole;
    enum grey_error err = sync_get_part(content, &p);
    if (err != E_OK) {
        refuse(REFUSED_MESSAGE, topic, err);
        return;
    }
    enum assemble_verdict v = assemble_part(g->assembler, site->text, channel, &p, &whole);
    if (v == ASSEMBLE_WHOLE) {
        take_frame(g, topic, site, channel, whole, (struct coming){.assembled = true, .sealed = is_sealed});
        assemble_done(g->assembler, site->text, channel);
    } else if (v == ASSEMBLE_DROPPED) {
        metrics_add(&refused, REFUSED_HOLE, 1); /* not acknowledged: the site sends the frame again */
    }
}

/* What a frame says, when it can be believed to come from the site.  False: refused. */
static bool open_frame(struct ingest *g, const char *topic, const struct grey_name *site, enum event_channel channel,
                       struct frame *f, struct builder *opened, struct coming *how) {
    struct frame plain;
    if ((f->flags & FRAME_FLAG_ENCRYPTED) == 0) {
        return true;
    }
    enum grey_error err = how->sealed ? E_BAD_FRAME : sealed_open(g->sealed, site->text, channel, f, opened, &plain);
    if (err == E_OK) {
        *f = plain;
        how->sealed = true;
        return true;
    }
    if (err == E_NOT_FOUND) { /* of a session with the process before: the site finds out, or is asked */
        metrics_add(&refused, REFUSED_SESSION, 1);
    } else {
        refuse(err == E_REPEATED ? REFUSED_REPEATED : REFUSED_SEALED, topic, err);
    }
    return false;
}

/* Hellos and events that came plain are judged with what the store knows of the site, all else with how it said hello. */
static bool believed(struct ingest *g, const char *site, enum message_kind kind, bool is_sealed) {
    return is_sealed || kind == MESSAGE_UP_HELLO || kind == MESSAGE_UP_SEALED_HELLO || kind == MESSAGE_UP_EVENTS ||
           sealed_manner(g->sealed, site) == SEALED_PLAIN;
}

static void take_content(struct ingest *g, const char *topic, const struct grey_name *site, enum event_channel channel,
                         struct bytes content, size_t frame_bytes, struct coming how) {
    struct builder plain;
    size_t plain_bytes = 0;
    enum message_kind kind = sync_kind(content);
    builder_init(&plain, LIMIT_FRAME_PAYLOAD_BYTES);
    if (!believed(g, site->text, kind, how.sealed)) {
        refuse(REFUSED_PLAIN, topic, E_DENIED);
    } else if (kind == MESSAGE_UP_SEALED_HELLO) {
        sealed_hello(g->sealed, site, channel, content);
    } else if (kind == MESSAGE_UP_HELLO && !how.sealed) { /* a sealed one comes in a handshake */
        submit(g, topic, site, channel, kind, content, false, NULL);
    } else if (kind == MESSAGE_UP_EVENTS) {
        plain_bytes = content.size;
        submit(g, topic, site, channel, kind, content, how.sealed, NULL);
    } else if (kind == MESSAGE_UP_PART && !how.assembled) {
        take_part(g, topic, site, channel, content, how.sealed);
    } else if ((kind == MESSAGE_UP_HOLDINGS || kind == MESSAGE_UP_PULL) && g->supply != NULL) {
        g->supply(g->supply_context, site, kind, content);
    } else if (kind == MESSAGE_UP_CERTIFY && g->certify != NULL) {
        g->certify(g->certify_context, site, content);
    } else if (kind != MESSAGE_UP_SQUEEZED) {
        refuse(REFUSED_MESSAGE, topic, E_BAD_MESSAGE);
    } else if (unsqueeze(g, topic, site, channel, content, &plain)) {
        plain_bytes = plain.size;
        submit(g, topic, site, channel, MESSAGE_UP_EVENTS, builder_bytes(&plain), how.sealed, NULL);
    }
    if (plain_bytes > 0) {
        credit_seen(&g->credit, site->text, loop_now_ms(g->x.loop), frame_bytes, plain_bytes);
    }
    builder_free(&plain);
}

static void take_frame(struct ingest *g, const char *topic, const struct grey_name *site, enum event_channel channel,
                       struct bytes payload, struct coming how) {
    struct frame f;
    size_t used, need;
    enum grey_error why = E_BAD_FRAME;
    struct builder scratch, opened;
    struct bytes content;
    if (frame_read(payload, &f, &used, &need, &why) != FRAME_READY || used != payload.size) {
        refuse(REFUSED_FRAME, topic, why);
        return;
    }
    builder_init(&scratch, LIMIT_FRAME_PAYLOAD_BYTES);
    builder_init(&opened, LIMIT_FRAME_PAYLOAD_BYTES);
    if (open_frame(g, topic, site, channel, &f, &opened, &how)) {
        why = frame_content(&f, &scratch, &content);
        if (why == E_OK) {
            take_content(g, topic, site, channel, content, payload.size, how);
        } else {
            refuse(REFUSED_FRAME, topic, why);
        }
    }
    builder_free(&scratch);
    builder_free(&opened);
}

/* A hello that came sealed, and holds. */
static void on_sealed_hello(void *context, const struct grey_name *site, enum event_channel channel, struct bytes hello,
                            const struct sealed_speaker *who) {
    struct ingest *g = context;
    if (sync_kind(hello) == MESSAGE_UP_HELLO && !g->stopping) {
        submit(g, site->text, site, channel, MESSAGE_UP_HELLO, hello, true, who);
    }
}

static void on_message(void *context, const char *topic, struct bytes payload) {
    struct ingest *g = context;
    struct grey_name site;
    enum event_channel channel;
    if (!sync_topic_parse(topic, true, &site, &channel)) {
        refuse(REFUSED_TOPIC, topic, E_BAD_MESSAGE);
        return;
    }
    downpace_heard(g->downpace, site.text, payload.size, now_monotonic_us());
    take_frame(g, topic, &site, channel, payload, (struct coming){0});
}

static void on_connected(void *context) {
    struct ingest *g = context;
    dialler_connected(&g->dialler);
    metrics_set(&broker_up, 0, 1);
    log_info("ingest", "connected", "broker=%s", mqtt_address(g->mqtt));
    if (g->shared) {
        char own[TOPIC_BYTES_MAX];
        (void)snprintf(own, sizeof own, TOPIC_PREFIX "+/up/+/%s", g->route);
        (void)mqtt_subscribe(g->mqtt, own);
    }
    (void)mqtt_subscribe(g->mqtt, g->shared ? "$share/grey-core/" TOPIC_PREFIX "+/up/+" : TOPIC_PREFIX "+/up/#");
    update_hold(g);
    recall_all(g->recall);
}

static void on_closed(void *context, const char *why) {
    struct ingest *g = context;
    dialler_closed(&g->dialler);
    metrics_set(&broker_up, 0, 0);
    answers_drop(g->answers); /* sites ask again with their next hello */
    log_limited(LOG_WARN, "ingest", "closed", "broker=%s %s", mqtt_address(g->mqtt), why);
}

static void on_published(void *context, int id, const char *refusal) {
    (void)context, (void)id;
    if (refusal != NULL) {
        log_limited(LOG_ERROR, "ingest", "refused", "the broker does not take an answer: %s; check its ACL", refusal);
    }
}

static void on_stage(void *context, enum mqtt_stage s) {
    struct ingest *g = context;
    dialler_stage(&g->dialler, s);
}

static const struct mqtt_events mqtt_events = {.stage = on_stage,
                                               .connected = on_connected,
                                               .closed = on_closed,
                                               .message = on_message,
                                               .published = on_published,
                                               .writable = on_writable};

static void free_all(struct ingest *g) {
    if (g != NULL) {
        recall_free(g->recall);
        answers_free(g->answers);
        downpace_free(g->downpace);
        assemble_free(g->assembler);
        unpack_free(g->unpack);
        sealed_free(g->sealed);
        mem_free(g);
    }
}

struct ingest *ingest_new(const struct conn_context *x, const struct ingest_options *o, struct worker *storage, struct fault *f) {
    struct metric *const all[] = {&taken_events, &repeated,  &unreadable, &refused, &rolled_back, &held,
                                  &hellos,       &squeezing, &broker_up,  &ahead,   &credit_bytes};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        metrics_register(all[i]);
    }
    batch_register();
    sealed_register();
    struct ingest *g = mem_new(1, sizeof *g);
    if (g != NULL) {
        g->downpace = downpace_new();
        g->answers = g->downpace == NULL ? NULL : answers_new(x->loop, g->downpace, say, g);
        g->assembler = assemble_new(ASSEMBLE_BYTES_MAX);
        g->recall = g->answers == NULL ? NULL : recall_new(x->loop, storage, g->answers);
        g->unpack = unpack_new(UNPACK_SITES_MAX);
        g->sealed = sealed_new(x, o->secret_key, o->ca_path, on_sealed_hello, g);
    }
    if (g == NULL || g->answers == NULL || g->recall == NULL || g->assembler == NULL || g->unpack == NULL || g->sealed == NULL) {
        free_all(g);
        (void)fault_set(f, E_NO_MEMORY, "ingest");
        return NULL;
    }
    g->x = *x;
    g->storage = storage;
    g->shared = o->shared;
    uint32_t number;
    keys_random(&number, sizeof number); /* anew with each start: what a session has in memory is gone with the process */
    (void)snprintf(g->route, sizeof g->route, "%08" PRIx32, number);
    struct mqtt_options m = {.client_id = o->client_id, .socket_dir = o->socket_dir, .inflight_max = 20};
    g->mqtt = mqtt_new(x, &m, &mqtt_events, g, f);
    if (g->mqtt == NULL) {
        free_all(g);
        return NULL;
    }
    dialler_init(&g->dialler, x, g->mqtt, o->tls, o->endpoints, o->endpoint_count, KEEPALIVE_S);
    dialler_start(&g->dialler);
    return g;
}

void ingest_stop(struct ingest *g) {
    if (g != NULL) {
        g->stopping = true;
        recall_stop(g->recall);
        dialler_stop(&g->dialler);
    }
}

void ingest_free(struct ingest *g) {
    if (g != NULL) {
        must(g->jobs == 0); /* the storage thread was stopped before */
        mqtt_free(g->mqtt);
        free_all(g);
    }
}

void ingest_on_supply(struct ingest *g, ingest_supply *hear, void *context) {
    g->supply = hear;
    g->supply_context = context;
}

void ingest_has_worker(struct ingest *g) {
    g->worker = true;
}

void ingest_on_certify(struct ingest *g, ingest_certify *hear, void *context) {
    g->certify = hear;
    g->certify_context = context;
}

enum grey_error ingest_tell(struct ingest *g, const struct grey_name *site, struct bytes content) {
    enum grey_error err =
        answers_wait(g->answers) ? E_BUSY : publish(g, site, CHANNEL_CONTROL, sync_kind(content), content); /* answers go first */
    g->told_full = err == E_BUSY;
    return err;
}

bool ingest_may_tell(const struct ingest *g) {
    return !g->told_full;
}

uint64_t ingest_pace_us(struct ingest *g, const char *site, size_t bytes) {
    return downpace_wait_us(g->downpace, site, bytes + FRAME_OVERHEAD_BYTES, now_monotonic_us());
}

bool ingest_stores(const struct ingest *g) {
    return !g->write_failed;
}

bool ingest_connected(const struct ingest *g) {
    return mqtt_connected(g->mqtt);
}
