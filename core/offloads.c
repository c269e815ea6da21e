#include "core/offloads.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/store_offloads.h"
#include "include/grey/must.h"
#include "platform/http_fetch.h"
#include "platform/json.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/now.h"

#define ROUND_MS 1000u /* how often each is looked at */
#define ROUND_MAX 32u  /* in one round */
#define CALL_MS 10000u
#define ANSWER_BYTES_MAX (2u * 1024u * 1024u)
#define ID_PREFIX "offload-"
#define ID_HASH_BYTES 16u

/* One round: read what is due, ask the worker, write what has become of it, tell the sites. */
struct round {
    struct storage_job reading, writing;
    struct worker_job asking;
    struct offloads *offloads;
    struct store_offload at[ROUND_MAX];
    bool changed[ROUND_MAX];
    size_t count;
};

struct offloads {
    struct loop *loop;
    struct worker *storage, *caller;
    struct ingest *ingest;
    char address[LIMIT_ADDRESS_BYTES + 8];
    struct loop_timer timer;
    struct round *round; /* NULL: between two */
    bool stopping;
};

static const char *const ends[] = {"completed", "failed", "refused"};
static struct metric ended =
    METRIC_COUNTER_LABELS("grey_core_offloaded_total", "Tasks of sites that ended at the worker.", "end", ends);
static struct metric unreachable = METRIC_COUNTER("grey_core_worker_errors_total", "Calls that the worker did not answer.");

/* --- the worker: on the calling thread -------------------------------------------------------------------------------------------------- */

static void errand_id(const struct store_offload *o, char out[sizeof ID_PREFIX + 2 * ID_HASH_BYTES]) {
    char text[2 * LIMIT_NAME_BYTES + 64];
    uint8_t hash[DIGEST_SHA256_BYTES];
    int size = snprintf(text, sizeof text, "%s/%" PRIu64 "/%s/%" PRIu64, o->site.text, o->incarnation, o->task.text, o->token);
    digest_sha256(bytes_of(text, (size_t)size), hash);
    memcpy(out, ID_PREFIX, sizeof ID_PREFIX);
    bytes_hex(hash, ID_HASH_BYTES, out + sizeof ID_PREFIX - 1);
}

/* The HTTP status; 0: it did not answer.  body: the caller frees. */
static int call(const struct offloads *o, const char *method, const char *path, struct bytes body, struct builder *answer) {
    struct http_answer a = {0};
    struct fault f = {0};
    struct http_fetch q = {.address = o->address,
                           .method = method,
                           .path = path,
                           .body = body,
                           .body_type = body.size > 0 ? "application/json" : NULL,
                           .timeout_ms = CALL_MS,
                           .answer_bytes_max = ANSWER_BYTES_MAX};
    enum grey_error err = http_fetch(&q, &a, &f);
    *answer = a.body;
    if (err != E_OK) {
        metrics_add(&unreachable, 0, 1);
        log_limited(LOG_WARN, "offloads", "worker", "address=%s error=GREY-%d %s: %s", o->address, error_id(err),
                    error_sentence(err), f.text);
    }
    return err == E_OK ? a.status : 0;
}

/* The errand is an object without an id. */
static int give(const struct offloads *o, const struct store_offload *t, const char *id) {
    struct bytes errand = blob_bytes(t->errand);
    struct builder order, answer;
    if (errand.size < 2 || errand.data[0] != '{') {
        return 400;
    }
    builder_init(&order, errand.size + 256);
    builder_addf(&order, "{\"id\":\"%s\",", id);
    builder_add(&order, bytes_of(errand.data + 1, errand.size - 1));
    int status = order.err == E_OK ? call(o, "POST", "/v1/tasks", builder_bytes(&order), &answer) : 0;
    if (order.err == E_OK) {
        if (status >= 400) {
            log_limited(LOG_WARN, "offloads", "refused", "site=%s task=%s status=%d %.*s", t->site.text, t->task.text, status,
                        (int)(answer.size < 300 ? answer.size : 300), (const char *)answer.data);
        }
        builder_free(&answer);
    }
    builder_free(&order);
    return status;
}

/* All that it wrote, as the worker's proof has it; else of what was kept. */
static void take_hash(const struct offloads *o, const char *id, struct bytes kept, struct store_offload *t) {
    char path[128];
    struct builder answer;
    (void)snprintf(path, sizeof path, "/v1/tasks/%s/proof", id);
    int status = call(o, "GET", path, bytes_of(NULL, 0), &answer);
    json_t *doc = status == 200 ? json_read(builder_bytes(&answer), NULL) : NULL;
    const json_t *out = json_object_get(json_object_get(doc, "output"), "stdout");
    const char *hex = json_string_value(json_object_get(out, "sha256"));
    digest_sha256(kept, t->output_hash);
    t->output_bytes = kept.size;
    if (hex != NULL && bytes_unhex(hex, sizeof t->output_hash, t->output_hash)) {
        t->output_bytes = (uint64_t)json_integer_value(json_object_get(out, "bytes"));
    }
    json_decref(doc);
    builder_free(&answer);
}

static bool take_output(const struct offloads *o, const char *id, struct store_offload *t) {
    char path[128];
    struct builder answer;
    (void)snprintf(path, sizeof path, "/v1/tasks/%s/logs", id);
    int status = call(o, "GET", path, bytes_of(NULL, 0), &answer);
    struct bytes text = status == 200 ? builder_bytes(&answer) : bytes_of(NULL, 0);
    bool well = status == 200 || status == 404; /* it could not be started, so it wrote nothing */
    if (well) {
        take_hash(o, id, text, t);
        size_t skip = text.size > OFFLOAD_OUTPUT_BYTES_MAX ? text.size - OFFLOAD_OUTPUT_BYTES_MAX : 0;
        t->output = blob_copy(bytes_of(text.data + skip, text.size - skip));
    }
    builder_free(&answer);
    return well && t->output != NULL;
}

/* Has it ended there? */
static bool look(const struct offloads *o, struct store_offload *t, const char *id) {
    char path[96];
    struct builder answer;
    (void)snprintf(path, sizeof path, "/v1/tasks/%s", id);
    int status = call(o, "GET", path, bytes_of(NULL, 0), &answer);
    json_t *doc = status == 200 ? json_read(builder_bytes(&answer), NULL) : NULL;
    const char *state = json_string_value(json_object_get(doc, "state"));
    bool completed = state != NULL && strcmp(state, "completed") == 0;
    bool failed = state != NULL && (strcmp(state, "failed") == 0 || strcmp(state, "cancelled") == 0);
    if (completed || failed) {
        t->end = completed ? OFFLOAD_COMPLETED : OFFLOAD_FAILED;
        t->exit_status = (int32_t)json_integer_value(json_object_get(doc, "exit_status"));
    }
    json_decref(doc);
    builder_free(&answer);
    return (completed || failed) && take_output(o, id, t);
}

/* True: the store is to know. */
static bool step(const struct offloads *o, struct store_offload *t) {
    char id[sizeof ID_PREFIX + 2 * ID_HASH_BYTES];
    errand_id(t, id);
    if (t->state == STORE_OFFLOAD_SETTLED) {
        char path[96];
        struct builder answer;
        (void)snprintf(path, sizeof path, "/v1/tasks/%s", id);
        int status = call(o, "DELETE", path, bytes_of(NULL, 0), &answer);
        builder_free(&answer);
        return status != 0 && status < 500; /* also when it has ended, or is not known there */
    }
    if (t->state == STORE_OFFLOAD_ENDED) {
        return false;
    }
    int status = give(o, t, id); /* again and again: it is taken once */
    if (status == 200 || status == 201) {
        bool done = look(o, t, id);
        t->state = done ? STORE_OFFLOAD_ENDED : t->state;
        return done;
    }
    if (status >= 400 && status < 500 && status != 429) {
        t->end = OFFLOAD_REFUSED;
        t->state = STORE_OFFLOAD_ENDED;
        return true;
    }
    return false;
}

static void run_asking(struct worker_job *job) {
    struct round *r = (struct round *)(void *)((char *)(void *)job - offsetof(struct round, asking));
    for (size_t i = 0; i < r->count; i++) {
        r->changed[i] = step(r->offloads, &r->at[i]);
    }
}

/* --- the store: on its thread ---------------------------------------------------------------------------------------------------------------- */

static void clear(struct round *r) {
    for (size_t i = 0; i < r->count; i++) {
        blob_unref(r->at[i].errand);
        blob_unref(r->at[i].output);
    }
    r->count = 0;
}

static void run_reading(struct storage_job *job, struct store *store) {
    struct round *r = (struct round *)(void *)((char *)(void *)job - offsetof(struct round, reading));
    clear(r); /* of a try before */
    job->err = store_offloads_due(store, now_wall_ms(), ROUND_MS / 2, r->at, ROUND_MAX, &r->count, &job->fault);
}

static void run_writing(struct storage_job *job, struct store *store) {
    struct round *r = (struct round *)(void *)((char *)(void *)job - offsetof(struct round, writing));
    job->err = E_OK;
    for (size_t i = 0; i < r->count && job->err == E_OK; i++) {
        job->err = r->changed[i] ? store_offload_put(store, &r->at[i], &job->fault) : E_OK;
    }
}

/* --- rounds ---------------------------------------------------------------------------------------------------------------------------------- */

static void end_round(struct offloads *o) {
    if (o->round != NULL) {
        clear(o->round);
        mem_free(o->round);
        o->round = NULL;
    }
    if (!o->stopping) {
        loop_timer_after(o->loop, &o->timer, ROUND_MS);
    }
}

static void complain(const struct storage_job *job) {
    log_limited(LOG_WARN, "offloads", "store", "error=GREY-%d %s: %s", error_id(job->err), error_sentence(job->err),
                job->fault.text);
}

static void tell(struct offloads *o, const struct store_offload *t) {
    struct builder b;
    struct offload_result result = {.incarnation = t->incarnation,
                                    .epoch = t->epoch,
                                    .task = bytes_str(t->task.text),
                                    .token = t->token,
                                    .end = t->end,
                                    .exit_status = t->exit_status};
    if (t->output != NULL) {
        result.output_hash = bytes_of(t->output_hash, sizeof t->output_hash);
        result.output_bytes = t->output_bytes;
        result.output = blob_bytes(t->output);
    }
    builder_init(&b, OFFLOAD_OUTPUT_BYTES_MAX + 512u);
    offload_put_result(&b, &result);
    if (b.err == E_OK && ingest_pace_us(o->ingest, t->site.text, b.size) == 0) {
        (void)ingest_tell(o->ingest, &t->site, builder_bytes(&b)); /* else the next round does */
    }
    builder_free(&b);
}

static void written(struct worker_job *job) {
    struct round *r = (struct round *)(void *)((char *)(void *)job - offsetof(struct round, writing.job));
    struct offloads *o = r->offloads;
    if (r->writing.err != E_OK) {
        complain(&r->writing);
    }
    for (size_t i = 0; i < r->count && r->writing.err == E_OK && !o->stopping; i++) {
        const struct store_offload *t = &r->at[i];
        if (t->state == STORE_OFFLOAD_ENDED) {
            metrics_add(&ended, (unsigned)t->end, r->changed[i]);
            tell(o, t);
        }
    }
    end_round(o);
}

static void asked(struct worker_job *job) {
    struct round *r = (struct round *)(void *)((char *)(void *)job - offsetof(struct round, asking));
    r->writing = (struct storage_job){.job = {.done = written}, .is_write = true, .run = run_writing};
    if (r->offloads->stopping || worker_submit(r->offloads->storage, &r->writing.job) != E_OK) {
        end_round(r->offloads);
    }
}

static void read_done(struct worker_job *job) {
    struct round *r = (struct round *)(void *)((char *)(void *)job - offsetof(struct round, reading.job));
    if (r->reading.err != E_OK) {
        complain(&r->reading);
    }
    r->asking = (struct worker_job){.work = run_asking, .done = asked};
    if (r->reading.err != E_OK || r->count == 0 || r->offloads->stopping ||
        worker_submit(r->offloads->caller, &r->asking) != E_OK) {
        end_round(r->offloads);
    }
}

static void on_timer(void *context) {
    struct offloads *o = context;
    must(o->round == NULL);
    o->round = mem_new(1, sizeof *o->round);
    if (o->round != NULL) {
        o->round->offloads = o;
        o->round->reading = (struct storage_job){.job = {.done = read_done}, .is_write = true, .run = run_reading};
    }
    if (o->round == NULL || worker_submit(o->storage, &o->round->reading.job) != E_OK) {
        end_round(o);
    }
}

struct offloads *offloads_new(struct loop *loop, struct worker *storage, struct ingest *ingest, const char *address,
                              struct fault *f) {
    metrics_register(&ended);
    metrics_register(&unreachable);
    struct offloads *o = mem_new(1, sizeof *o);
    if (o == NULL || strlen(address) >= sizeof o->address) {
        mem_free(o);
        (void)fault_set(f, o == NULL ? E_NO_MEMORY : E_USAGE, "--worker: the address is too long");
        return NULL;
    }
    o->loop = loop;
    o->storage = storage;
    o->ingest = ingest;
    memcpy(o->address, address, strlen(address) + 1);
    o->caller = worker_new(loop, "worker-calls", 4, NULL, NULL, f);
    if (o->caller == NULL) {
        mem_free(o);
        return NULL;
    }
    o->timer = (struct loop_timer){.fire = on_timer, .context = o};
    loop_timer_after(loop, &o->timer, ROUND_MS);
    ingest_has_worker(ingest);
    return o;
}

void offloads_stop(struct offloads *o) {
    if (o != NULL) {
        o->stopping = true;
        loop_timer_cancel(o->loop, &o->timer);
        worker_stop(o->caller); /* finishes what it does */
        o->caller = NULL;
    }
}

void offloads_free(struct offloads *o) {
    if (o != NULL) {
        must(o->round == NULL);
        mem_free(o);
    }
}
