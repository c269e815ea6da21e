#include "core/giver.h"

#include <stdio.h>
#include <string.h>

#include "core/store_rollouts.h"
#include "include/grey/must.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/now.h"

#define WAITING_BYTES_MAX (16u * 1024u * 1024u) /* on their way to sites: beyond it sites have to ask again */
#define OFFERS_BYTES_MAX (128u * 1024u)         /* for one site at once; the rest when it says what it has then */
#define JOBS_MAX 256u                           /* being read: beyond it sites have to ask again */
#define SWEEP_PAGE 32u
#define SWEEP_PAUSE_MS 100u
#define RETRY_MS 50u
#define STEP_MS 2000u /* how often rollouts are looked at */

struct parcel {
    struct parcel *next;
    struct grey_name site;
    struct blob *content;
};

struct giver {
    struct loop *loop;
    struct worker *storage;
    struct ingest *ingest;
    const uint8_t *secret_key;
    struct parcel *first, **last;
    size_t waiting_bytes;
    struct loop_timer send_timer, sweep_timer, step_timer;
    uint32_t jobs;
    bool stopping, sweeping, sweep_again;
    char swept[LIMIT_NAME_BYTES + 1];
};

/* What a site said; or a page of sites that there is news for. */
struct giver_job {
    struct storage_job storage;
    struct giver *giver;
    struct grey_name site;
    struct blob *content;
    struct store_stand stands[SWEEP_PAGE];
    size_t stand_count;
    struct parcel *answers, **answers_end;
    size_t answers_bytes;
};

/* Whom to sign for. */
struct signing {
    struct giver_job *job;
    const struct grey_name *site;
    uint64_t incarnation;
    grey_epoch epoch;
    struct store *store;
    size_t bytes;
    enum grey_error err;
};

static const char *const kinds[] = {"offer", "chunk"};
static struct metric given = METRIC_COUNTER_LABELS("grey_core_given_total", "Offers and chunks sent to sites.", "kind", kinds);
static struct metric given_bytes = METRIC_COUNTER("grey_core_given_bytes_total", "Bytes of them.");
static struct metric dropped = METRIC_COUNTER("grey_core_given_dropped_total", "Not sent for want of room; sites ask again.");

/* --- on the storage thread ---------------------------------------------------------------------------------------------------------------- */

static void answers_drop(struct giver_job *job) {
    for (struct parcel *next, *p = job->answers; p != NULL; p = next) {
        next = p->next;
        blob_unref(p->content);
        mem_free(p);
    }
    job->answers = NULL;
    job->answers_end = &job->answers;
    job->answers_bytes = 0;
}

/* Takes b. */
static enum grey_error answer(struct giver_job *job, const struct grey_name *site, struct builder *b) {
    struct parcel *p = b->err == E_OK ? mem_new(1, sizeof *p) : NULL;
    enum grey_error err = b->err != E_OK ? b->err : E_NO_MEMORY;
    if (p != NULL && (p->content = builder_blob(b)) != NULL) {
        p->site = *site;
        job->answers_bytes += b->size;
        *job->answers_end = p;
        job->answers_end = &p->next;
        err = E_OK;
    } else {
        mem_free(p);
    }
    builder_free(b);
    return err;
}

static bool sign(void *context, struct object_manifest *m) {
    struct signing *x = context;
    struct builder manifest, content, b;
    builder_init(&manifest, OBJECT_SIGNED_BYTES_MAX);
    builder_init(&content, OBJECT_CHUNK_BYTES_MIN);
    builder_init(&b, OBJECT_SIGNED_BYTES_MAX + OBJECT_CHUNK_BYTES_MIN + 64u);
    m->site = bytes_str(x->site->text);
    object_sign(m, x->job->giver->secret_key, &manifest);
    x->err = manifest.err;
    if (x->err == E_OK && object_chunk_count(m) == 1 && m->size <= OBJECT_CHUNK_BYTES_MIN) {
        x->err = store_chunk(x->store, m->hashes, &content, &x->job->storage.fault);
        x->err = x->err == E_NOT_FOUND ? E_OK : x->err; /* the site asks for it, and again, until somebody puts it anew */
    }
    if (x->err == E_OK) {
        supply_put_offer(&b, &(struct supply_offer){x->incarnation, x->epoch, builder_bytes(&manifest), builder_bytes(&content)});
    }
    x->bytes += b.size;
    builder_free(&manifest);
    builder_free(&content);
    if (x->err == E_OK) {
        x->err = answer(x->job, x->site, &b);
    } else {
        builder_free(&b);
    }
    return x->err == E_OK && x->bytes < OFFERS_BYTES_MAX;
}

static enum grey_error offer(struct giver_job *job, struct store *store, const struct grey_name *site, uint64_t incarnation,
                             grey_epoch epoch) {
    struct signing x = {.job = job, .store = store, .site = site, .incarnation = incarnation, .epoch = epoch};
    enum grey_error err = store_offers(store, site->text, sign, &x, &job->storage.fault);
    return err == E_OK ? x.err : err;
}

static void run_holdings(struct storage_job *storage, struct store *store) {
    struct giver_job *job = (struct giver_job *)(void *)storage;
    struct supply_holding at[SUPPLY_HOLDINGS_MAX];
    struct supply_holdings h;
    answers_drop(job); /* of a try before */
    storage->err = supply_get_holdings(blob_bytes(job->content), &h, at);
    if (storage->err == E_OK) {
        storage->err = store_holdings(store, job->site.text, &h, now_wall_ms(), &storage->fault);
    }
    if (storage->err == E_OK) {
        storage->err = offer(job, store, &job->site, h.incarnation, h.epoch);
    }
}

static void run_pull(struct storage_job *storage, struct store *store) {
    struct giver_job *job = (struct giver_job *)(void *)storage;
    struct supply_pull p;
    storage->err = supply_get_pull(blob_bytes(job->content), &p);
    for (uint32_t i = 0; i < p.count && storage->err == E_OK; i++) {
        struct builder chunk, b;
        builder_init(&chunk, OBJECT_CHUNK_BYTES_MAX);
        builder_init(&b, OBJECT_CHUNK_BYTES_MAX + 64u);
        storage->err = store_chunk(store, bytes_of(p.hashes[i], OBJECT_HASH_BYTES), &chunk, &storage->fault);
        if (storage->err == E_NOT_FOUND) {
            storage->err = E_OK; /* of a version that this store lost: the site is offered another one */
        } else if (storage->err == E_OK) {
            supply_put_chunk(&b, &(struct supply_chunk){p.incarnation, p.epoch, builder_bytes(&chunk)});
            storage->err = answer(job, &job->site, &b);
        }
        builder_free(&chunk);
    }
}

static void run_sweep(struct storage_job *storage, struct store *store) {
    struct giver_job *job = (struct giver_job *)(void *)storage;
    storage->err = store_supplied(store, job->giver->swept, job->stands, SWEEP_PAGE, &job->stand_count, &storage->fault);
    for (size_t i = 0; i < job->stand_count && storage->err == E_OK; i++) {
        const struct store_stand *at = &job->stands[i];
        storage->err = offer(job, store, &at->site, at->at.incarnation, at->at.epoch);
    }
}

/* --- to the sites ------------------------------------------------------------------------------------------------------------------------- */

static bool may_go(struct giver *g, const struct parcel *p) {
    return ingest_pace_us(g->ingest, p->site.text, p->content->size) == 0;
}

/* In order for each site: what its link does not take yet does not hold up others. */
static void send_waiting(struct giver *g) {
    struct parcel **at = &g->first;
    bool full = false;
    while (*at != NULL && !full) {
        struct parcel *p = *at;
        enum grey_error err = may_go(g, p) ? ingest_tell(g->ingest, &p->site, blob_bytes(p->content)) : E_BUSY;
        full = err == E_BUSY && !ingest_may_tell(g->ingest);
        if (err == E_BUSY) {
            at = &p->next;
            continue;
        }
        if (err == E_OK) {
            metrics_add(&given, sync_kind(blob_bytes(p->content)) == MESSAGE_DOWN_CHUNK, 1);
            metrics_add(&given_bytes, 0, p->content->size);
        } /* else the connection is gone: the site asks again */
        *at = p->next;
        g->waiting_bytes -= p->content->size;
        blob_unref(p->content);
        mem_free(p);
    }
    if (*at == NULL) {
        g->last = at;
    }
    if (g->first != NULL && g->send_timer.place == 0 && !g->stopping) {
        loop_timer_after(g->loop, &g->send_timer, RETRY_MS);
    }
}

static void on_send_timer(void *context) {
    send_waiting(context);
}

static void queue(struct giver *g, struct giver_job *job) {
    while (*g->last != NULL) {
        g->last = &(*g->last)->next;
    }
    if (job->answers == NULL) {
        return;
    }
    if (g->waiting_bytes + job->answers_bytes > WAITING_BYTES_MAX || g->stopping) {
        metrics_add(&dropped, 0, 1);
        answers_drop(job);
        return;
    }
    *g->last = job->answers;
    g->last = job->answers_end;
    g->waiting_bytes += job->answers_bytes;
    job->answers = NULL;
    send_waiting(g);
}

static void job_done(struct worker_job *worker_job) {
    struct giver_job *job = (struct giver_job *)(void *)worker_job;
    struct giver *g = job->giver;
    g->jobs--;
    if (job->storage.err != E_OK) {
        log_limited(LOG_WARN, "giver", "refuse", "site=%s error=GREY-%d %s: %s", job->site.text, error_id(job->storage.err),
                    error_sentence(job->storage.err), job->storage.fault.text);
        answers_drop(job);
    }
    queue(g, job);
    blob_unref(job->content);
    mem_free(job);
}

static struct giver_job *job_new(struct giver *g, void (*run)(struct storage_job *, struct store *),
                                 void (*done)(struct worker_job *)) {
    struct giver_job *job = g->stopping || g->jobs >= JOBS_MAX ? NULL : mem_new(1, sizeof *job);
    if (job != NULL) {
        job->storage = (struct storage_job){.job = {.done = done}, .run = run};
        job->giver = g;
        job->answers_end = &job->answers;
    }
    return job;
}

static bool submit(struct giver *g, struct giver_job *job) {
    if (worker_submit(g->storage, &job->storage.job) == E_OK) {
        g->jobs++;
        return true;
    }
    metrics_add(&dropped, 0, 1);
    blob_unref(job->content);
    mem_free(job);
    return false;
}

static void heard(void *context, const struct grey_name *site, enum message_kind kind, struct bytes content) {
    struct giver *g = context;
    bool holdings = kind == MESSAGE_UP_HOLDINGS;
    struct giver_job *job = job_new(g, holdings ? run_holdings : run_pull, job_done);
    if (job == NULL) {
        metrics_add(&dropped, 0, 1);
        return;
    }
    job->site = *site;
    job->storage.is_write = holdings;
    job->storage.site = job->site.text;
    job->content = blob_copy(content);
    if (job->content == NULL) {
        mem_free(job);
        return;
    }
    (void)submit(g, job);
}

/* --- news ------------------------------------------------------------------------------------------------------------------------------------- */

static void sweep_done(struct worker_job *worker_job) {
    struct giver_job *job = (struct giver_job *)(void *)worker_job;
    struct giver *g = job->giver;
    bool more = job->stand_count == SWEEP_PAGE && job->storage.err == E_OK;
    if (more) {
        (void)snprintf(g->swept, sizeof g->swept, "%s", job->stands[job->stand_count - 1].site.text);
    }
    if (!more && g->sweep_again) {
        g->swept[0] = 0;
        g->sweep_again = false;
        more = true;
    }
    g->sweeping = more && !g->stopping;
    if (g->sweeping) {
        loop_timer_after(g->loop, &g->sweep_timer, SWEEP_PAUSE_MS);
    }
    job_done(worker_job);
}

static void on_sweep_timer(void *context) {
    struct giver *g = context;
    struct giver_job *job = job_new(g, run_sweep, sweep_done);
    if (job == NULL || !submit(g, job)) {
        if (!g->stopping) {
            loop_timer_after(g->loop, &g->sweep_timer, 10 * SWEEP_PAUSE_MS);
        }
    }
}

void giver_news(struct giver *g) {
    g->sweep_again = g->sweeping;
    if (!g->sweeping) {
        g->sweeping = true;
        g->swept[0] = 0;
        on_sweep_timer(g);
    }
}

/* --- rollouts -------------------------------------------------------------------------------------------------------------------------------- */

struct step_job {
    struct storage_job storage;
    struct giver *giver;
    bool changed;
};

static void run_step(struct storage_job *storage, struct store *store) {
    struct step_job *job = (struct step_job *)(void *)storage;
    storage->err = store_rollouts_step(store, now_wall_ms(), &job->changed, &storage->fault);
}

static void step_done(struct worker_job *worker_job) {
    struct step_job *job = (struct step_job *)(void *)worker_job;
    struct giver *g = job->giver;
    g->jobs--;
    if (!g->stopping) {
        if (job->storage.err == E_OK && job->changed) {
            giver_news(g);
        }
        loop_timer_after(g->loop, &g->step_timer, STEP_MS);
    }
    mem_free(job);
}

static void on_step_timer(void *context) {
    struct giver *g = context;
    struct step_job *job = mem_new(1, sizeof *job);
    if (job != NULL) {
        job->storage = (struct storage_job){.job = {.done = step_done}, .is_write = true, .run = run_step};
        job->giver = g;
        if (worker_submit(g->storage, &job->storage.job) == E_OK) {
            g->jobs++;
            return;
        }
        mem_free(job);
    }
    loop_timer_after(g->loop, &g->step_timer, STEP_MS);
}

/* --- life ----------------------------------------------------------------------------------------------------------------------------------- */

struct giver *giver_new(struct loop *loop, struct worker *storage, struct ingest *ingest,
                        const uint8_t secret_key[KEYS_ED25519_SECRET_BYTES], struct fault *f) {
    struct metric *const all[] = {&given, &given_bytes, &dropped};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        metrics_register(all[i]);
    }
    struct giver *g = mem_new(1, sizeof *g);
    if (g == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "giver");
        return NULL;
    }
    g->loop = loop;
    g->storage = storage;
    g->ingest = ingest;
    g->secret_key = secret_key;
    g->last = &g->first;
    g->send_timer = (struct loop_timer){.fire = on_send_timer, .context = g};
    g->sweep_timer = (struct loop_timer){.fire = on_sweep_timer, .context = g};
    g->step_timer = (struct loop_timer){.fire = on_step_timer, .context = g};
    loop_timer_after(loop, &g->step_timer, STEP_MS);
    ingest_on_supply(ingest, heard, g);
    return g;
}

void giver_stop(struct giver *g) {
    if (g != NULL) {
        g->stopping = true;
        ingest_on_supply(g->ingest, NULL, NULL);
        loop_timer_cancel(g->loop, &g->send_timer);
        loop_timer_cancel(g->loop, &g->sweep_timer);
        loop_timer_cancel(g->loop, &g->step_timer);
    }
}

void giver_free(struct giver *g) {
    if (g == NULL) {
        return;
    }
    must(g->jobs == 0); /* the storage thread was stopped before */
    for (struct parcel *next, *p = g->first; p != NULL; p = next) {
        next = p->next;
        blob_unref(p->content);
        mem_free(p);
    }
    mem_free(g);
}
