/* The loop's half: jobs are given to the storage thread and answered.  The blocking half is agent/store/sitedisk.c.
 *
 * Store jobs that wait become one transaction, also across reads in between (what was read is then at least
 * as new as it would have been), but not across a truncation, a flush or a snapshot.  Long jobs (compaction, snapshots) are done in
 * slices: after each the job goes back to the end of the queue by way of the loop, so that commits wait for one slice at most. */
#include "agent/store/sitelog.h"

#include <pthread.h>
#include <string.h>

#include "agent/store/rowset.h"
#include "agent/store/sitedisk.h"
#include "include/grey/must.h"

#define GROUP_JOBS_MAX 256u
#define GROUP_BYTES_MAX 8388608u /* 8 MiB */
#define RETRY_MS 5000u           /* how often a full disk is looked at again */
#define LATER_MS 1500u           /* clean-up that stores did along goes on by itself when none comes any more */

struct sitelog {
    struct loop *loop;
    struct worker *worker;
    struct sitedisk *disk;
    uint32_t waiting; /* jobs given and not done; chores not counted */
    uint32_t stores_waiting;
    uint64_t store_since_ms; /* a store ended then, or the first that waits was given */
    uint64_t failures_known; /* of store jobs, as their owner heard */
    struct worker_job chore, relief;
    bool chore_given, relief_given, stopping;
    struct loop_timer retry, telling;
    void (*damaged)(void *context, enum sitelog_damage what, const char *detail);
    void *context;
    pthread_mutex_t lock; /* for what follows: written by the storage thread */
    struct sitedisk_damage damage;
    struct sitelog_usage usage;
    bool has_chore, has_later;
    struct sitelog_snapshot_info snapshots[SITELOG_SNAPSHOTS_MAX];
    size_t snapshot_count;
};

/* --- the storage thread ------------------------------------------------------------------------------------------------------------ */
/* Whoever hears of an error hears what was being done, also where there was no memory for more than the error. */
static void explain(enum grey_error err, const char *doing, struct fault *f) {
    if (err != E_OK && f->text[0] == '\0') {
        (void)fault_set(f, err, "%s", doing);
    }
}

static void store_work(struct worker_job *job) {
    struct sitelog_store *store = (struct sitelog_store *)job;
    sitedisk_store(store->slot.owner->disk, &store, 1);
    explain(store->err, "storing entries", &store->fault);
}

static void flush_work(struct worker_job *job) {
    struct sitelog_flush *flush = (struct sitelog_flush *)job;
    sitedisk_flush(flush->slot.owner->disk, flush);
    explain(flush->err, "writing the state", &flush->fault);
}

static void read_work(struct worker_job *job) {
    struct sitelog_read *read = (struct sitelog_read *)job;
    sitedisk_read(read->slot.owner->disk, read);
    explain(read->err, "reading the log and the state", &read->fault);
}

static void compact_work(struct worker_job *job) {
    struct sitelog_compact *compact = (struct sitelog_compact *)job;
    sitedisk_compact(compact->slot.owner->disk, compact);
    explain(compact->err, "forgetting old entries", &compact->fault);
}

static void snapshot_work(struct worker_job *job) {
    struct sitelog_snapshot *snapshot = (struct sitelog_snapshot *)job;
    sitedisk_snapshot(snapshot->slot.owner->disk, snapshot);
    explain(snapshot->err, "a state image", &snapshot->fault);
}

static void keep_work(struct worker_job *job) {
    struct sitelog_keep *keep = (struct sitelog_keep *)job;
    sitedisk_keep(keep->slot.owner->disk, keep);
    explain(keep->err, "events taken without a leader", &keep->fault);
}

static void seal_work(struct worker_job *job) {
    struct sitelog_seal *seal = (struct sitelog_seal *)job;
    sitedisk_seal(seal->slot.owner->disk, seal);
    explain(seal->err, "a seal", &seal->fault);
}

static void chore_work(struct worker_job *job) {
    struct sitelog *s = (struct sitelog *)((char *)job - offsetof(struct sitelog, chore));
    sitedisk_chore(s->disk);
}

static void relief_work(struct worker_job *job) {
    struct sitelog *s = (struct sitelog *)((char *)job - offsetof(struct sitelog, relief));
    sitedisk_relieve(s->disk);
}

static uint64_t store_bytes(const struct sitelog_store *store) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < store->entry_count; i++) {
        bytes += blob_bytes(store->entries[i].payload).size;
    }
    return bytes;
}

/* Does the group of stores that begins at `list`, and the reads among them; returns what is left of the list. */
static struct worker_job *group_work(struct sitelog *s, struct worker_job *list) {
    struct sitelog_store *jobs[GROUP_JOBS_MAX] = {NULL};
    uint32_t count = 0;
    uint64_t bytes = 0;
    struct worker_job *end = list;
    for (; end != NULL && count < GROUP_JOBS_MAX && bytes < GROUP_BYTES_MAX; end = end->next) {
        if (end->work == read_work) {
            continue;
        }
        struct sitelog_store *store = (struct sitelog_store *)end;
        if (end->work != store_work || (count > 0 && (store->truncate_from > 0 || store->rebase))) {
            break;
        }
        jobs[count++] = store;
        bytes += store_bytes(store);
    }
    sitedisk_store(s->disk, jobs, count);
    for (uint32_t i = 0; i < count; i++) {
        explain(jobs[i]->err, "storing entries", &jobs[i]->fault);
    }
    for (struct worker_job *job = list; job != end; job = job->next) {
        if (job->work == read_work) {
            read_work(job);
        }
    }
    return end;
}

static struct worker_job *batch(void *context, struct worker_job *list) {
    struct sitelog *s = context;
    struct worker_job *rest = list->next;
    if (list->work == store_work) {
        rest = group_work(s, list);
    } else {
        list->work(list);
    }
    sitedisk_measure(s->disk); /* what became free is a chore */
    bool has_chore = sitedisk_has_chore(s->disk), has_later = sitedisk_has_later(s->disk);
    pthread_mutex_lock(&s->lock);
    s->usage = s->disk->usage;
    s->has_chore = has_chore;
    s->has_later = has_later;
    s->snapshot_count = sitedisk_snapshots(s->disk, s->snapshots, SITELOG_SNAPSHOTS_MAX);
    if (s->disk->damage.found && !s->damage.found) {
        s->damage = s->disk->damage;
        s->disk->damage.found = false;
    }
    pthread_mutex_unlock(&s->lock);
    return rest; /* stores are answered before a flush behind them begins */
}

/* --- the loop ------------------------------------------------------------------------------------------------------------------------ */
static void chore_give(struct sitelog *s) {
    pthread_mutex_lock(&s->lock);
    bool has_chore = s->has_chore, disk_full = s->usage.disk_full, has_later = s->has_later;
    pthread_mutex_unlock(&s->lock);
    if (s->chore_given || s->stopping) {
        return;
    }
    if (has_chore && worker_submit(s->worker, &s->chore) == E_OK) {
        s->chore_given = true;
    } else if ((disk_full || has_later) && s->retry.place == 0) {
        loop_timer_after(s->loop, &s->retry, disk_full ? RETRY_MS : LATER_MS);
    }
}

static void retry_fire(void *context) {
    struct sitelog *s = context;
    if (!s->chore_given && !s->stopping && worker_submit(s->worker, &s->chore) == E_OK) {
        s->chore_given = true;
    }
}

/* What the jobs that are done met.  A turn later, so that who asked has been answered when the node stops for it. */
static void damage_tell(struct sitelog *s) {
    pthread_mutex_lock(&s->lock);
    bool found = s->damage.found;
    pthread_mutex_unlock(&s->lock);
    if (found && !s->stopping && s->damaged != NULL && s->telling.place == 0) {
        loop_timer_after(s->loop, &s->telling, 0);
    }
}

static void telling_fire(void *context) {
    struct sitelog *s = context;
    pthread_mutex_lock(&s->lock);
    struct sitedisk_damage damage = s->damage;
    s->damage.found = false;
    pthread_mutex_unlock(&s->lock);
    s->damaged(s->context, damage.what, damage.text);
}

static void relief_done(struct worker_job *job) {
    struct sitelog *s = (struct sitelog *)((char *)job - offsetof(struct sitelog, relief));
    s->relief_given = false;
}

enum grey_error sitelog_relieve(struct sitelog *s) {
    if (s->relief_given || s->stopping) {
        return E_BUSY;
    }
    enum grey_error err = worker_submit(s->worker, &s->relief);
    s->relief_given = err == E_OK;
    return err;
}

static void chore_done(struct worker_job *job) {
    struct sitelog *s = (struct sitelog *)((char *)job - offsetof(struct sitelog, chore));
    s->chore_given = false;
    chore_give(s);
    damage_tell(s);
}

static enum grey_error queue(struct sitelog *s, struct worker_job *job, struct sitelog_slot *slot,
                             void (*work)(struct worker_job *job), void (*done)(struct worker_job *job)) {
    if (s->waiting >= SITELOG_JOBS_MAX) {
        return E_BUSY;
    }
    job->work = work;
    job->done = done;
    *slot = (struct sitelog_slot){.owner = s, .failures = s->failures_known};
    enum grey_error err = worker_queue(s->worker, job);
    s->waiting += err == E_OK;
    return err;
}

void sitelog_wake(struct sitelog *s) {
    worker_wake(s->worker);
}

static enum grey_error give(struct sitelog *s, struct worker_job *job, struct sitelog_slot *slot,
                            void (*work)(struct worker_job *job), void (*done)(struct worker_job *job)) {
    enum grey_error err = queue(s, job, slot, work, done);
    if (err == E_OK) {
        sitelog_wake(s);
    }
    return err;
}

/* A sliced job that is not ready goes to the end of the queue: true.  There is always room: the queue is longer than `waiting`; only
 * a sitelog that closes takes nothing more. */
static bool gone_again(struct sitelog_slot *slot, struct worker_job *job, enum grey_error *err) {
    if (!slot->again) {
        return false;
    }
    enum grey_error refused = worker_submit(slot->owner->worker, job);
    if (refused != E_OK) { /* else the job is the storage thread's by now */
        *err = refused;
    }
    return refused == E_OK;
}

static void one_done(struct sitelog *s) {
    must(s->waiting > 0);
    s->waiting--;
    chore_give(s);
    damage_tell(s);
}

/* In each done function: after the owner's done, the job may be gone. */
static void store_done(struct worker_job *job) {
    struct sitelog_store *store = (struct sitelog_store *)job;
    struct sitelog *s = store->slot.owner;
    struct sitelog_row_set *rows = store->rows;
    s->stores_waiting--;
    s->store_since_ms = loop_now_ms(s->loop);
    s->failures_known = store->slot.failures > s->failures_known ? store->slot.failures : s->failures_known;
    one_done(s);
    store->done(store->context, store);
    rowset_free(rows);
}

static void flush_done(struct worker_job *job) {
    struct sitelog_flush *flush = (struct sitelog_flush *)job;
    one_done(flush->slot.owner);
    flush->done(flush->context, flush);
}

static void read_done(struct worker_job *job) {
    struct sitelog_read *read = (struct sitelog_read *)job;
    struct sitelog_read held = *read;
    one_done(held.slot.owner);
    builder_free(&read->wants);
    read->done(read->context, read);
    mem_free(held.indexes);
    rowset_free(held.rows);
    logdb_entries_free(held.entries, held.entry_count);
    for (uint32_t i = 0; held.payloads != NULL && i < held.index_count; i++) {
        blob_unref(held.payloads[i]);
    }
    mem_free(held.payloads);
}

static void compact_done(struct worker_job *job) {
    struct sitelog_compact *compact = (struct sitelog_compact *)job;
    if (gone_again(&compact->slot, job, &compact->err)) {
        return;
    }
    one_done(compact->slot.owner);
    compact->done(compact->context, compact);
}

static void snapshot_done(struct worker_job *job) {
    struct sitelog_snapshot *snapshot = (struct sitelog_snapshot *)job;
    if (gone_again(&snapshot->slot, job, &snapshot->err)) {
        return;
    }
    struct sitelog_row_set *rows = snapshot->rows;
    struct blob *chunk = snapshot->kind == SITELOG_SNAPSHOT_READ ? snapshot->chunk : NULL;
    sitedisk_snapshot_end(snapshot); /* left over only when closing cut it short: the storage thread has ended by then */
    one_done(snapshot->slot.owner);
    snapshot->done(snapshot->context, snapshot);
    rowset_free(rows);
    blob_unref(chunk);
}

static void keep_done(struct worker_job *job) {
    struct sitelog_keep *keep = (struct sitelog_keep *)job;
    one_done(keep->slot.owner);
    keep->done(keep->context, keep);
}

static void seal_done(struct worker_job *job) {
    struct sitelog_seal *seal = (struct sitelog_seal *)job;
    one_done(seal->slot.owner);
    seal->done(seal->context, seal);
}

enum grey_error sitelog_seal(struct sitelog *s, struct sitelog_seal *job) {
    job->seals = NULL;
    job->signers = NULL;
    job->seal_count = job->signer_count = 0;
    job->fault = (struct fault){0};
    return give(s, &job->job, &job->slot, seal_work, seal_done);
}

enum grey_error sitelog_keep(struct sitelog *s, struct sitelog_keep *job) {
    job->fault = (struct fault){0};
    return give(s, &job->job, &job->slot, keep_work, keep_done);
}

enum grey_error sitelog_store(struct sitelog *s, struct sitelog_store *job) {
    job->rows = NULL;
    job->fault = (struct fault){0};
    bool held = job->held;
    enum grey_error err = queue(s, &job->job, &job->slot, store_work, store_done);
    if (err == E_OK && s->stores_waiting++ == 0) {
        s->store_since_ms = loop_now_ms(s->loop);
    }
    if (err == E_OK && !held) {
        sitelog_wake(s);
    }
    return err;
}

enum grey_error sitelog_flush(struct sitelog *s, struct sitelog_flush *job) {
    job->fault = (struct fault){0};
    return give(s, &job->job, &job->slot, flush_work, flush_done);
}

enum grey_error sitelog_read(struct sitelog *s, struct sitelog_read *job) {
    must(job->low_size <= sizeof job->low && job->high_size <= sizeof job->high);
    job->rows = NULL;
    job->entries = NULL;
    job->entry_count = 0;
    job->payloads = NULL;
    job->fault = (struct fault){0};
    return give(s, &job->job, &job->slot, read_work, read_done);
}

enum grey_error sitelog_compact(struct sitelog *s, struct sitelog_compact *job) {
    job->fault = (struct fault){0};
    return give(s, &job->job, &job->slot, compact_work, compact_done);
}

enum grey_error sitelog_snapshot(struct sitelog *s, struct sitelog_snapshot *job) {
    job->rows = NULL;
    job->fault = (struct fault){0};
    if (job->kind == SITELOG_SNAPSHOT_READ) {
        job->chunk = NULL;
    }
    return give(s, &job->job, &job->slot, snapshot_work, snapshot_done);
}

size_t sitelog_snapshots(const struct sitelog *s, struct sitelog_snapshot_info *out, size_t max) {
    pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&s->lock;
    pthread_mutex_lock(lock);
    size_t count = s->snapshot_count < max ? s->snapshot_count : max;
    memcpy(out, s->snapshots, count * sizeof *out);
    pthread_mutex_unlock(lock);
    return count;
}

void sitelog_usage(const struct sitelog *s, struct sitelog_usage *u) {
    pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&s->lock;
    pthread_mutex_lock(lock);
    *u = s->usage;
    pthread_mutex_unlock(lock);
    u->jobs_waiting = s->waiting;
    u->waits_ms = worker_waits_ms(s->worker);
    u->store_waits_ms = s->stores_waiting == 0 ? 0 : loop_now_ms(s->loop) - s->store_since_ms;
}

enum grey_error sitelog_claim(struct sitelog *s, const struct grey_name *node, const struct grey_name *site, struct fault *f) {
    must(s->waiting == 0 && !s->chore_given); /* the storage thread is at rest */
    return sitedisk_claim(s->disk, node, site, f);
}

enum grey_error sitelog_mark(struct sitelog *s, enum sitelog_damage what, const char *reason, struct fault *f) {
    return sitedisk_mark(s->disk, what, reason, f);
}

struct sitelog *sitelog_open(struct loop *loop, const struct sitelog_options *o, struct table *t, struct sitelog_start *start,
                             struct fault *f) {
    struct sitelog *s = mem_new(1, sizeof *s);
    if (s == NULL) {
        fault_set(f, E_NO_MEMORY, "opening the site log");
        return NULL;
    }
    s->loop = loop;
    s->chore = (struct worker_job){.work = chore_work, .done = chore_done};
    s->relief = (struct worker_job){.work = relief_work, .done = relief_done};
    s->retry = (struct loop_timer){.fire = retry_fire, .context = s};
    s->telling = (struct loop_timer){.fire = telling_fire, .context = s};
    s->damaged = o->damaged;
    s->context = o->context;
    pthread_mutex_init(&s->lock, NULL);
    if (sitedisk_open(o, t, start, &s->disk, f) == E_OK) {
        s->usage = s->disk->usage;
        s->snapshot_count = sitedisk_snapshots(s->disk, s->snapshots, SITELOG_SNAPSHOTS_MAX);
        s->worker = worker_new(loop, "storage", SITELOG_JOBS_MAX + 2, batch, s, f);
        if (s->worker != NULL) {
            return s;
        }
        sitelog_start_free(start);
    }
    sitelog_close(s);
    return NULL;
}

void sitelog_close(struct sitelog *s) {
    if (s == NULL) {
        return;
    }
    s->stopping = true;
    if (s->worker != NULL) {
        loop_timer_cancel(s->loop, &s->retry);
        loop_timer_cancel(s->loop, &s->telling);
        worker_stop(s->worker);
    }
    sitedisk_close(s->disk);
    pthread_mutex_destroy(&s->lock);
    mem_free(s);
}
