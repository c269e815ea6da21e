#include "core/offloads.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/commission.h"
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
#define EXIT_UNKNOWN 255 /* of a task that the worker has forgotten */
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
    bool silent; /* the worker left a call without an answer: no more of them in this round */
};

struct offloads {
    struct loop *loop;
    struct worker *storage, *caller;
    struct ingest *ingest;
    char address[LIMIT_ADDRESS_BYTES + 8];
    struct loop_timer timer;
    struct round *round; /* NULL: between two */
    size_t
        turn; /* of the calling thread: where a round begins, so that one call that is never answered does not stop those behind it */
    atomic_bool stopping; /* set by the loop, also read by the calling thread */
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

/* The HTTP status; 0: it did not answer, or is not asked any more.  body: the caller frees. */
static int call(struct round *r, const char *method, const char *path, struct bytes body, struct builder *answer) {
    const struct offloads *o = r->offloads;
    struct http_answer a = {0};
    struct fault f = {0};
    struct http_fetch q = {.address = o->address,
                           .method = method,
                           .path = path,
                           .body = body,
                           .body_type = body.size > 0 ? "application/json" : NULL,
                           .timeout_ms = CALL_MS,
                           .answer_bytes_max = ANSWER_BYTES_MAX};
    builder_init(answer, 0);
    if (r->silent || atomic_load(&o->stopping)) {
        return 0;
    }
    enum grey_error err = http_fetch(&q, &a, &f);
    *answer = a.body;
    if (err != E_OK) {
        metrics_add(&unreachable, 0, 1);
        log_limited(LOG_WARN, "offloads", "worker", "address=%s error=GREY-%d %s: %s", o->address, error_id(err),
                    error_sentence(err), f.text);
    }
    r->silent = err != E_OK && err != E_TOO_LARGE && err != E_BAD_HTTP;
    return err == E_OK ? a.status : 0;
}

static int give_to(struct round *r, const struct store_offload *t, const char *id, const char *tenant) {
    struct bytes errand = blob_bytes(t->errand);
    struct builder order, answer;
    struct fault f = {0};
    builder_init(&order, 2 * errand.size + 512);
    enum grey_error err = commission_write(&order, id, tenant, errand, &f);
    int status = err == E_OK || err == E_NO_MEMORY ? 0 : 400;
    if (err == E_OK) {
        status = call(r, "POST", "/v1/tasks", builder_bytes(&order), &answer);
        if (status >= 400) {
            log_limited(LOG_WARN, "offloads", "refused", "site=%s task=%s status=%d %.*s", t->site.text, t->task.text, status,
                        (int)(answer.size < 300 ? answer.size : 300), (const char *)answer.data);
        }
        builder_free(&answer);
    } else {
        log_limited(LOG_WARN, "offloads", "errand", "site=%s task=%s error=GREY-%d %s: %s", t->site.text, t->task.text,
                    error_id(err), error_sentence(err), f.text);
    }
    builder_free(&order);
    return status;
}

/* For the tenant of the site's name, where the worker has one that bounds it; else for the worker's own. */
static int give(struct round *r, const struct store_offload *t, const char *id) {
    int status = give_to(r, t, id, t->site.text);
    return status == 404 ? give_to(r, t, id, NULL) : status;
}

/* All that it wrote, as the worker's proof has it; else of what was kept. */
static bool take_hash(struct round *r, const char *id, struct bytes kept, struct store_offload *t) {
    char path[128];
    struct builder answer;
    (void)snprintf(path, sizeof path, "/v1/tasks/%s/proof", id);
    int status = call(r, "GET", path, bytes_of(NULL, 0), &answer);
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
    return status != 0;
}

static bool take_output(struct round *r, const char *id, struct store_offload *t) {
    char path[128];
    struct builder answer;
    (void)snprintf(path, sizeof path, "/v1/tasks/%s/logs", id);
    int status = call(r, "GET", path, bytes_of(NULL, 0), &answer);
    struct bytes text = status == 200 ? builder_bytes(&answer) : bytes_of(NULL, 0);
    bool well = status == 200 || status == 404; /* it could not be started, so it wrote nothing */
    if (well) {
        well = take_hash(r, id, text, t);
        if (text.size > OFFLOAD_OUTPUT_BYTES_MAX) { /* its end says how it went */
            text = bytes_of(text.data + (text.size - OFFLOAD_OUTPUT_BYTES_MAX), OFFLOAD_OUTPUT_BYTES_MAX);
        }
        t->output = blob_copy(text);
    }
    builder_free(&answer);
    return well && t->output != NULL;
}

/* Has it ended there?  *status: what the worker says when it is asked for it. */
static bool look(struct round *r, struct store_offload *t, const char *id, int *status) {
    char path[96];
    struct builder answer;
    (void)snprintf(path, sizeof path, "/v1/tasks/%s", id);
    *status = call(r, "GET", path, bytes_of(NULL, 0), &answer);
    json_t *doc = *status == 200 ? json_read(builder_bytes(&answer), NULL) : NULL;
    const char *state = json_string_value(json_object_get(doc, "state"));
    bool completed = state != NULL && strcmp(state, "completed") == 0;
    bool failed = state != NULL && (strcmp(state, "failed") == 0 || strcmp(state, "cancelled") == 0);
    if (completed || failed) {
        t->end = completed ? OFFLOAD_COMPLETED : OFFLOAD_FAILED;
        t->exit_status = (int32_t)json_integer_value(json_object_get(doc, "exit_status"));
    }
    json_decref(doc);
    builder_free(&answer);
    return (completed || failed) && take_output(r, id, t);
}

static bool cancel(struct round *r, const char *id) {
    char path[96];
    struct builder answer;
    (void)snprintf(path, sizeof path, "/v1/tasks/%s", id);
    int status = call(r, "DELETE", path, bytes_of(NULL, 0), &answer);
    builder_free(&answer);
    return status != 0 && status < 500; /* also when it has ended, or is not known there */
}

static bool end_as(struct store_offload *t, enum offload_end end) {
    t->end = end;
    t->state = STORE_OFFLOAD_ENDED;
    return true;
}

/* It was not taken yet, as far as the store knows.  A refusal counts only when the worker does not have it: it may have taken it before. */
static bool begin(struct round *r, struct store_offload *t, const char *id) {
    int status = give(r, t, id), known;
    bool taken = status == 200 || status == 201, refused = status >= 400 && status < 500 && status != 429;
    if (!taken && !refused) {
        return false;
    }
    bool done = look(r, t, id, &known);
    if (taken || known == 200) {
        t->state = done ? STORE_OFFLOAD_ENDED : STORE_OFFLOAD_ACCEPTED;
        return true;
    }
    return known == 404 && end_as(t, OFFLOAD_REFUSED);
}

/* It was taken, so it is never given again.  A worker that has forgotten it may have run it. */
static bool follow(struct round *r, struct store_offload *t, const char *id) {
    int known;
    if (look(r, t, id, &known)) {
        t->state = STORE_OFFLOAD_ENDED;
        return true;
    }
    if (known != 404) {
        return false;
    }
    bool once = commission_is_once(blob_bytes(t->errand));
    log_limited(LOG_WARN, "offloads", "lost", "site=%s task=%s: the worker took it and does not know it any more; %s", t->site.text,
                t->task.text, once ? "it runs at most once, so it has failed" : "the site runs it again");
    t->exit_status = once ? EXIT_UNKNOWN : 0;
    return end_as(t, once ? OFFLOAD_FAILED : OFFLOAD_REFUSED);
}

/* True: the store is to know. */
static bool step(struct round *r, struct store_offload *t) {
    char id[sizeof ID_PREFIX + 2 * ID_HASH_BYTES];
    errand_id(t, id);
    switch (t->state) {
    case STORE_OFFLOAD_GIVEN:
        return begin(r, t, id);
    case STORE_OFFLOAD_ACCEPTED:
        return follow(r, t, id);
    case STORE_OFFLOAD_SETTLED:
        return cancel(r, id);
    default:
        return false;
    }
}

static void run_asking(struct worker_job *job) {
    struct round *r = (struct round *)(void *)((char *)(void *)job - offsetof(struct round, asking));
    size_t first = r->offloads->turn;
    for (size_t i = 0; i < r->count && !r->silent; i++) {
        size_t k = (first + i) % r->count;
        r->changed[k] = step(r, &r->at[k]);
        r->offloads->turn = r->silent ? k + 1 : 0;
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
    if (!atomic_load(&o->stopping)) {
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

/* Also while it stops: what was learnt is kept. */
static void asked(struct worker_job *job) {
    struct round *r = (struct round *)(void *)((char *)(void *)job - offsetof(struct round, asking));
    r->writing = (struct storage_job){.job = {.done = written}, .is_write = true, .run = run_writing};
    if (worker_submit(r->offloads->storage, &r->writing.job) != E_OK) {
        end_round(r->offloads);
    }
}

static void read_done(struct worker_job *job) {
    struct round *r = (struct round *)(void *)((char *)(void *)job - offsetof(struct round, reading.job));
    if (r->reading.err != E_OK) {
        complain(&r->reading);
    }
    r->asking = (struct worker_job){.work = run_asking, .done = asked};
    if (r->reading.err != E_OK || r->count == 0 || atomic_load(&r->offloads->stopping) ||
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
        atomic_store(&o->stopping, true);
        loop_timer_cancel(o->loop, &o->timer);
        worker_stop(o->caller); /* finishes the call that is under way */
        o->caller = NULL;
    }
}

void offloads_free(struct offloads *o) {
    if (o != NULL) {
        must(o->round == NULL);
        mem_free(o);
    }
}
