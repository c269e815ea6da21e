#include <inttypes.h>

#include "agent/node/node_core.h"
#include "agent/state/dedup.h"
#include "federation/record.h"
#include "platform/log.h"
#include "platform/metrics.h"

/* take: no leader for a while -> mark the batch -> intake.db -> the receipt is the answer.
 * merge: a leader is known -> batch by batch, in the order of receipts: proposed like any other -> applied -> removed.
 * A crash between the last two proposes a batch again; every event has an id of its own, so the state drops what it has. */

#define RETRY_MS 1000u

static struct metric kept_events =
    METRIC_GAUGE("grey_intake_provisional_pending", "Events that this gateway keeps until its site has a leader again.");
static struct metric merged = METRIC_COUNTER("grey_intake_provisional_merged_total", "Events of intake.db that came into the log.");

static void next(struct node *n);

static void note_size(struct node *n, const struct sitelog_keep *job) {
    n->provisional.events = job->kept_events;
    n->provisional.bytes = job->kept_bytes;
    metrics_set(&kept_events, 0, (int64_t)job->kept_events);
}

/* --- taking ------------------------------------------------------------------------------------------------------------------------------- */

/* The batch as it will be proposed: every event provisional, and with an id that makes a repeat harmless. */
static struct blob *mark(struct bytes batch, struct builder *ids) {
    struct codec_reader r;
    struct builder out;
    struct blob *marked = NULL;
    codec_reader_init(&r, batch);
    builder_init(&out, LIMIT_PAYLOAD_BYTES);
    uint64_t count = codec_array(&r, LIMIT_BATCH_EVENTS);
    codec_put_array(&out, count);
    for (uint64_t i = 0; i < count && r.err == E_OK; i++) {
        struct event e;
        uint8_t hash[KEEPDB_ID_BYTES];
        if (record_decode(&r, &e) == E_OK) {
            e.provisional = e.has_id = true;
            record_encode(&e, &out);
            dedup_hash(e.source, e.id, hash);
            builder_add(ids, bytes_of(hash, sizeof hash));
        }
    }
    if (codec_end(&r) == E_OK && ids->err == E_OK) {
        marked = builder_blob(&out);
    }
    builder_free(&out);
    return marked;
}

struct taking {
    struct sitelog_keep job;
    struct node *node;
    node_done *done;
    void *context;
};

static void taken(void *context, struct sitelog_keep *job) {
    struct taking *t = context;
    if (job->err == E_OK) {
        note_size(t->node, job);
        log_limited(LOG_WARN, "intake", "provisional", "receipt=%" PRIu64 " events=%u: this site has no leader", job->receipt,
                    (unsigned)(job->ids.size / KEEPDB_ID_BYTES));
    }
    struct node_answer a = {.err = job->err, .detail = job->fault.text, .receipt = job->receipt};
    t->done(t->context, &a);
    builder_free(&job->ids);
    blob_unref(job->batch);
    mem_free(t);
}

void provisional_take(struct node *n, struct bytes batch, node_done *done, void *context) {
    struct taking *t = mem_new(1, sizeof *t);
    struct node_answer a = {.err = E_NO_MEMORY, .detail = ""};
    uint64_t bytes = n->provisional.bytes + batch.size;
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        struct channel_facts f;
        state_channel(n->state, (enum event_channel)c, &f);
        bytes += f.pending_bytes;
    }
    if (bytes > state_limits(n->state)->bytes_max) {
        a = (struct node_answer){.err = E_QUEUE_FULL, .detail = "without a leader nothing can be evicted"};
        mem_free(t);
        t = NULL;
    }
    if (t != NULL) {
        t->node = n;
        t->done = done;
        t->context = context;
        t->job = (struct sitelog_keep){.kind = SITELOG_KEEP_ADD, .done = taken, .context = t};
        builder_init(&t->job.ids, LIMIT_BATCH_EVENTS * KEEPDB_ID_BYTES);
        t->job.batch = mark(batch, &t->job.ids);
        if (t->job.batch != NULL && sitelog_keep(n->log, &t->job) == E_OK) {
            return;
        }
        a.err = t->job.batch == NULL ? E_NO_MEMORY : E_BUSY;
        builder_free(&t->job.ids);
        blob_unref(t->job.batch);
        mem_free(t);
    }
    done(context, &a);
}

bool provisional_possible(const struct node *n) {
    struct site_facts site;
    return state_site(n->state, &site) && !n->removed;
}

bool provisional_due(const struct node *n) {
    return n->leader == 0 && n->role != RAFT_LEADER && provisional_possible(n) &&
           loop_now_ms(n->x.loop) >= n->leaderless_ms + n->o.request_timeout_ms;
}

/* --- merging ------------------------------------------------------------------------------------------------------------------------------ */

static void again(struct node *n) {
    n->provisional.merging = false;
    if (n->stopping) {
        return;
    }
    loop_timer_after(n->x.loop, &n->provisional.timer, RETRY_MS);
}

static void removed(void *context, struct sitelog_keep *job) {
    struct node *n = context;
    if (job->err != E_OK) {
        again(n);
        return;
    }
    note_size(n, job);
    next(n);
}

static void proposed(void *context, const struct node_answer *a) {
    struct node *n = context;
    struct sitelog_keep *job = &n->provisional.job;
    uint64_t receipt = job->receipt;
    bool settled = a->err == E_OK || a->err == E_ID_REUSED || a->err == E_BAD_MESSAGE; /* the last two: no repeat will help */
    if (a->err == E_OK) {
        metrics_add(&merged, 0, 1);
    } else if (settled) {
        log_error("intake", "provisional", "receipt=%" PRIu64 " is given up: GREY-%d %s: %s", receipt, error_id(a->err),
                  error_sentence(a->err), a->detail);
    }
    *job = (struct sitelog_keep){.kind = SITELOG_KEEP_REMOVE, .receipt = receipt, .done = removed, .context = n};
    if (!settled || n->stopping || sitelog_keep(n->log, job) != E_OK) {
        again(n);
    }
}

static void read_next(void *context, struct sitelog_keep *job) {
    struct node *n = context;
    if (job->err != E_OK) {
        if (job->err != E_NOT_FOUND) {
            log_limited(LOG_ERROR, "intake", "provisional", "error=GREY-%d %s: %s", error_id(job->err), error_sentence(job->err),
                        job->fault.text);
        }
        again(n);
        return;
    }
    struct blob *batch = job->batch;
    job->batch = NULL;
    requests_propose(n, ENTRY_EVENTS, batch, true, proposed, n);
    blob_unref(batch);
}

static void next(struct node *n) {
    struct provisional *p = &n->provisional;
    p->merging = false;
    if (p->events == 0 || n->leader == 0 || n->stopping) {
        return;
    }
    p->job = (struct sitelog_keep){.kind = SITELOG_KEEP_NEXT, .done = read_next, .context = n};
    p->merging = sitelog_keep(n->log, &p->job) == E_OK;
    if (!p->merging) {
        again(n);
    }
}

void provisional_turn(struct node *n) {
    struct provisional *p = &n->provisional;
    if (p->events > 0 && !p->merging && n->leader != 0 && p->timer.place == 0) {
        next(n);
    }
}

/* --- life and questions ------------------------------------------------------------------------------------------------------------------ */

static void on_timer(void *context) {
    loop_again(((struct node *)context)->x.loop);
}

static void counted(void *context, struct sitelog_keep *job) {
    struct node *n = context;
    n->provisional.merging = false;
    if (job->err == E_OK) {
        note_size(n, job);
    } else {
        log_error("intake", "provisional", "intake.db cannot be read: GREY-%d %s: %s", error_id(job->err), error_sentence(job->err),
                  job->fault.text);
    }
    loop_again(n->x.loop);
}

void provisional_start(struct node *n) {
    metrics_register(&kept_events);
    metrics_register(&merged);
    struct provisional *p = &n->provisional;
    n->leaderless_ms = loop_now_ms(n->x.loop);
    p->timer = (struct loop_timer){.fire = on_timer, .context = n};
    p->job = (struct sitelog_keep){.kind = SITELOG_KEEP_COUNT, .done = counted, .context = n};
    p->merging = sitelog_keep(n->log, &p->job) == E_OK;
}

void provisional_stop(struct node *n) {
    loop_timer_cancel(n->x.loop, &n->provisional.timer);
}

struct finding {
    struct sitelog_keep job;
    void (*done)(void *context, uint64_t receipt, uint32_t element);
    void *context;
};

static void searched(void *context, struct sitelog_keep *job) {
    struct finding *s = context;
    s->done(s->context, job->err == E_OK ? job->receipt : 0, job->element);
    mem_free(s);
}

void node_provisional_find(struct node *n, struct bytes source, struct bytes id,
                           void (*done)(void *context, uint64_t receipt, uint32_t element), void *context) {
    struct finding *s = n->provisional.events == 0 || source.size > LIMIT_EVENT_FIELD_BYTES || id.size > LIMIT_EVENT_FIELD_BYTES
                            ? NULL
                            : mem_new(1, sizeof *s);
    if (s == NULL) {
        done(context, 0, 0);
        return;
    }
    s->done = done;
    s->context = context;
    s->job = (struct sitelog_keep){.kind = SITELOG_KEEP_FIND, .done = searched, .context = s};
    dedup_hash(source, id, s->job.id);
    if (sitelog_keep(n->log, &s->job) != E_OK) {
        mem_free(s);
        done(context, 0, 0);
    }
}

void node_provisional_facts(const struct node *n, uint64_t *events, uint64_t *bytes) {
    *events = n->provisional.events;
    *bytes = n->provisional.bytes;
}
