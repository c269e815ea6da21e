#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/node/node_core.h"
#include "include/grey/must.h"
#include "platform/log.h"
#include "platform/metrics.h"

/* What keeps a node's disk small and its restart short: changed rows go to state.db every FLUSH_ENTRIES entries or FLUSH_MS; an image
 * is written every snapshot_threshold entries or snapshot_interval; the log is then compacted up to the oldest of those that are kept, so
 * that a node can go on from each of them should the newer ones be damaged, and a follower that was away for a while is caught up from
 * the log. */

#define FLUSH_ENTRIES 8000u
#define FLUSH_MS 5000u
#define FLUSH_BYTES (1024u * 1024u)
#define FLUSH_LOG_BYTES (4u * 1024 * 1024)       /* applied since: a start has them all in memory */
#define COVERED_MIN 2u                           /* images that the log is kept for, whatever the disk says */
#define SNAPSHOT_LOG_BYTES (64ull * 1024 * 1024) /* the log grew by so much since the last image, however few entries it took */

/* After a drain the log holds payloads that nothing refers to any more, up to SNAPSHOT_LOG_BYTES of them, and for some time no image would
 * come that lets them go; only when they are gone the file is cut (agent/store/sitedisk.c). */
#define TIDY_LOG_BYTES (8ull * 1024 * 1024)    /* worth two images, when a quarter of it has waited for the core */
#define TIDY_MUCH_BYTES (128ull * 1024 * 1024) /* worth them also while events come */
#define TIDY_QUIET_MS 10000u                   /* no event came for so long */
#define TIDY_PAUSE_MS 60000u                   /* until what was freed shows in the size of the file */

static struct metric flushes = METRIC_COUNTER("grey_storage_flushes_total", "Transactions that wrote changed rows of the state.");
static struct metric snapshots = METRIC_COUNTER("grey_storage_snapshots_total", "State images written.");
static struct metric table_bytes = METRIC_GAUGE("grey_storage_table_memory_bytes", "Rows of the state held in memory.");

bool upkeep_idle(const struct node *n) {
    return !n->upkeep.flushing && !n->upkeep.snapshotting;
}

static void point_of(const struct node *n, struct raft_point *point) {
    raft_index applied = state_applied(n->state);
    const struct entry *e = raft_entry(n->raft, applied);
    if (e == NULL) { /* large entries behind it pushed it out of memory */
        must(n->applied_point.index == applied);
        *point = n->applied_point;
        return;
    }
    *point = (struct raft_point){.index = applied, .term = e->term, .time_ms = e->time_ms};
    memcpy(point->hash, e->hash, DIGEST_BYTES);
}

static void flushed(void *context, struct sitelog_flush *job) {
    struct node *n = context;
    struct upkeep *u = &n->upkeep;
    u->flushing = false;
    if (job->changes.count > 0) {
        table_flush_done(n->table, job->err == E_OK);
    }
    blob_unref(job->members);
    job->members = NULL;
    if (job->err == E_OK) {
        u->flushed_index = job->applied.index;
        metrics_add(&flushes, 0, 1);
    } else if (job->err == E_DISK_FULL) {
        log_limited(LOG_ERROR, "upkeep", "flush", "error=GREY-%d %s: %s", error_id(job->err), error_sentence(job->err),
                    job->fault.text);
        u->dirty_since_ms = loop_now_ms(n->x.loop); /* tried again; the log has it all */
    } else {
        node_fail(n, job->err, job->fault.text);
    }
    catchup_continue(n);
    loop_again(n->x.loop);
}

static void flush(struct node *n) {
    struct upkeep *u = &n->upkeep;
    struct sitelog_flush *job = &u->flush;
    memset(job, 0, sizeof *job);
    if (table_flush_begin(n->table, &job->changes) != E_OK) {
        return; /* no memory now: tried again next turn */
    }
    point_of(n, &job->applied);
    state_hash(n->state, job->state_hash);
    job->members = blob_ref(n->members_blob);
    job->members_index = n->members_index;
    job->done = flushed;
    job->context = n;
    u->dirty_since_ms = u->applied_bytes = 0;
    u->flushing = true;
    if (sitelog_flush(n->log, job) != E_OK) {
        u->flushing = false;
        if (job->changes.count > 0) {
            table_flush_done(n->table, false);
        }
        blob_unref(job->members);
        job->members = NULL;
    }
    metrics_set(&table_bytes, 0, (int64_t)table_memory_bytes(n->table));
}

static void compact(struct node *n);

static void compacted(void *context, struct sitelog_compact *job) {
    struct node *n = context;
    n->upkeep.compacting = false;
    if (job->err != E_OK && job->err != E_STOPPING) {
        log_error("upkeep", "compact", "index=%" PRIu64 " error=GREY-%d %s: %s", job->point.index, error_id(job->err),
                  error_sentence(job->err), job->fault.text);
        return;
    }
    log_debug("upkeep", "compact", "index=%" PRIu64, job->point.index);
    if (job->err == E_OK) {
        compact(n); /* another image may have come meanwhile */
    }
}

/* For how many images the log is kept.  To give a disk back after a drain, or to get room on a full one, it is cut behind the one before
 * the newest. */
static uint32_t images_covered(const struct node *n) {
    struct sitelog_usage usage;
    sitelog_usage(n->log, &usage);
    uint32_t kept = n->o.snapshots_kept < SITELOG_SNAPSHOTS_MAX ? n->o.snapshots_kept : SITELOG_SNAPSHOTS_MAX;
    return n->upkeep.tidying == TIDY_SECOND || usage.disk_full ? COVERED_MIN : kept;
}

/* Where the log is to begin: at the oldest of the images that it is kept for.  A base without an image (it was damaged, and is gone) cannot
 * be given to a follower: then fewer will do.  False: it may stay where it is. */
static bool base_wanted(const struct node *n, raft_index base, struct raft_point *to) {
    uint32_t covered = images_covered(n);
    struct sitelog_snapshot_info images[SITELOG_SNAPSHOTS_MAX];
    size_t count = sitelog_snapshots(n->log, images, covered);
    while (count > 0 && images[count - 1].point.index < base) {
        count--;
    }
    bool wanted = count > 0 && images[count - 1].point.index > base && (base > 0 || count == covered);
    if (wanted) {
        *to = images[count - 1].point;
    }
    return wanted;
}

/* The core forgets first, so that it never asks for what the disk is about to drop. */
static void compact(struct node *n) {
    struct upkeep *u = &n->upkeep;
    struct raft_status s;
    struct raft_point to;
    raft_status(n->raft, &s);
    if (u->compacting || n->has_failed || n->stopping || !base_wanted(n, s.base_index, &to)) {
        return;
    }
    struct raft_input in = {.kind = RAFT_IN_COMPACTED, .point = &to};
    if (node_step(n, &in, NULL) != E_OK) {
        return;
    }
    memset(&u->compact, 0, sizeof u->compact);
    u->compact.point = to;
    u->compact.done = compacted;
    u->compact.context = n;
    u->compacting = sitelog_compact(n->log, &u->compact) == E_OK;
}

static void snapshot_done(void *context, struct sitelog_snapshot *job) {
    struct node *n = context;
    struct upkeep *u = &n->upkeep;
    u->snapshotting = false;
    u->snapshot_ms = loop_now_ms(n->x.loop);
    struct sitelog_usage usage;
    sitelog_usage(n->log, &usage);
    u->log_bytes_at_snapshot = usage.log_bytes;
    if (job->err == E_OK) {
        metrics_add(&snapshots, 0, 1);
        u->snapshot_point = job->info.point;
        log_info("upkeep", "snapshot", "index=%" PRIu64 " bytes=%" PRIu64 " file=%s", job->info.point.index, job->info.file_bytes,
                 job->info.name);
    } else {
        log_error("upkeep", "snapshot", "error=GREY-%d %s: %s", error_id(job->err), error_sentence(job->err), job->fault.text);
    }
    if (u->snapshot_done != NULL) {
        void (*done)(void *, enum grey_error, const struct sitelog_snapshot_info *, const char *) = u->snapshot_done;
        u->snapshot_done = NULL;
        done(u->snapshot_context, job->err, &job->info, job->fault.text);
    }
    compact(n);
    catchup_continue(n);
    loop_again(n->x.loop);
}

static uint64_t flush_ms(const struct node *n) {
    return n->diskwear.wear.level == WEAR_OVER ? DISKWEAR_FLUSH_MS : FLUSH_MS;
}

static bool snapshot_is_due(const struct node *n) {
    const struct upkeep *u = &n->upkeep;
    raft_index applied = state_applied(n->state);
    if (u->snapshot_due) {
        return true;
    }
    if (applied <= u->snapshot_point.index) {
        return false;
    }
    struct sitelog_usage usage;
    sitelog_usage(n->log, &usage);
    return applied - u->snapshot_point.index >= n->o.snapshot_threshold_entries ||
           (loop_now_ms(n->x.loop) - u->snapshot_ms >= 1000ull * n->o.snapshot_interval_s && n->diskwear.wear.level == WEAR_LOW) ||
           usage.log_bytes > u->log_bytes_at_snapshot + SNAPSHOT_LOG_BYTES;
}

static void snapshot(struct node *n) {
    struct upkeep *u = &n->upkeep;
    memset(&u->snapshot, 0, sizeof u->snapshot);
    u->snapshot.kind = SITELOG_SNAPSHOT_WRITE;
    u->snapshot.self_contained = u->snapshot_self_contained;
    u->snapshot.done = snapshot_done;
    u->snapshot.context = n;
    u->snapshot_due = u->snapshot_self_contained = false;
    u->snapshotting = sitelog_snapshot(n->log, &u->snapshot) == E_OK;
}

void upkeep_turn(struct node *n) {
    struct upkeep *u = &n->upkeep;
    raft_index applied = state_applied(n->state);
    if (!upkeep_idle(n) || n->installing || n->catchup.phase == CATCHUP_INSTALL || applied == 0) {
        if (upkeep_idle(n)) {
            catchup_continue(n);
        }
        return;
    }
    uint64_t now_ms = loop_now_ms(n->x.loop);
    if (applied > u->flushed_index) {
        if (u->dirty_since_ms == 0) {
            u->dirty_since_ms = now_ms;
            loop_timer_set(n->x.loop, &u->timer, now_ms + flush_ms(n));
        }
        /* a membership at once: a node whose log is damaged learns from there whom to ask */
        bool due = n->members_index > u->flushed_index || applied - u->flushed_index >= FLUSH_ENTRIES ||
                   now_ms - u->dirty_since_ms >= flush_ms(n) || table_dirty_bytes(n->table) >= FLUSH_BYTES ||
                   u->applied_bytes >= FLUSH_LOG_BYTES;
        if (due || u->snapshot_due) {
            flush(n);
        }
    } else if (snapshot_is_due(n)) { /* an image is one of the last flush */
        snapshot(n);
    }
    if (applied > u->flushed_index && !u->flushing && snapshot_is_due(n)) {
        flush(n);
    }
}

static void queue_stands(const struct node *n, uint64_t *numbers, uint64_t *bytes) {
    *numbers = *bytes = 0;
    for (int c = 0; c < CHANNEL_COUNT; c++) {
        struct channel_facts f;
        state_channel(n->state, (enum event_channel)c, &f);
        *numbers += f.next_seq;
        *bytes += f.pending_bytes;
    }
}

void upkeep_duty(struct node *n) {
    struct upkeep *u = &n->upkeep;
    if (n->o.witness || n->installing) {
        return;
    }
    uint64_t now_ms = loop_now_ms(n->x.loop), numbers, bytes;
    queue_stands(n, &numbers, &bytes);
    if (numbers != u->numbers_given) {
        u->numbers_given = numbers;
        u->quiet_since_ms = now_ms;
    }
    u->waited_bytes = bytes > u->waited_bytes ? bytes : u->waited_bytes;
    struct sitelog_usage usage;
    sitelog_usage(n->log, &usage);
    bool image_there = u->snapshot_point.index >= u->tidy_index && upkeep_idle(n) && !u->snapshot_due;
    switch (u->tidying) {
    case TIDY_REST:
        if (n->diskwear.wear.level == WEAR_LOW &&
            (now_ms >= u->quiet_since_ms + TIDY_QUIET_MS || usage.log_bytes >= TIDY_MUCH_BYTES) &&
            usage.log_bytes >= TIDY_LOG_BYTES && bytes <= usage.log_bytes / 16 && u->waited_bytes >= usage.log_bytes / 4) {
            u->tidy_index = state_applied(n->state);
            u->waited_bytes = bytes;
            u->snapshot_due = u->snapshot_point.index < u->tidy_index;
            u->tidying = TIDY_FIRST;
        }
        break;
    case TIDY_FIRST:
        if (image_there && state_applied(n->state) > u->snapshot_point.index) {
            u->tidy_index = state_applied(n->state);
            u->snapshot_due = true;
            u->tidying = TIDY_SECOND;
        } else if (image_there) {
            ageing_entry(n);
        }
        break;
    case TIDY_SECOND:
        if (image_there) {
            u->tidied_ms = now_ms;
            u->tidying = TIDY_DONE;
        }
        break;
    case TIDY_DONE:
        if (now_ms >= u->tidied_ms + TIDY_PAUSE_MS) {
            u->tidying = TIDY_REST;
        }
        break;
    }
    if (u->snapshot_due) {
        loop_timer_after(n->x.loop, &u->timer, 0);
    }
}

static void on_timer(void *context) {
    struct node *n = context;
    loop_again(n->x.loop);
    if (n->upkeep.dirty_since_ms != 0 || n->upkeep.snapshot_due) {
        loop_timer_after(n->x.loop, &n->upkeep.timer, FLUSH_MS / 4);
    }
}

void upkeep_start(struct node *n) {
    metrics_register(&flushes);
    metrics_register(&snapshots);
    metrics_register(&table_bytes);
    struct upkeep *u = &n->upkeep;
    u->timer = (struct loop_timer){.fire = on_timer, .context = n};
    u->flushed_index = state_applied(n->state);
    u->snapshot_ms = loop_now_ms(n->x.loop);
    struct sitelog_snapshot_info newest;
    if (sitelog_snapshots(n->log, &newest, 1) == 1) {
        u->snapshot_point = newest.point;
    }
    struct sitelog_usage usage;
    sitelog_usage(n->log, &usage);
    u->log_bytes_at_snapshot = usage.log_bytes;
    u->waited_bytes = usage.log_bytes; /* all of it may have: nobody remembers */
}

void upkeep_stop(struct node *n) {
    loop_timer_cancel(n->x.loop, &n->upkeep.timer);
    if (n->upkeep.snapshot_done != NULL) {
        n->upkeep.snapshot_done(n->upkeep.snapshot_context, E_STOPPING, NULL, "this node is stopping");
        n->upkeep.snapshot_done = NULL;
    }
}

void node_snapshot(struct node *n, bool self_contained,
                   void (*done)(void *context, enum grey_error err, const struct sitelog_snapshot_info *info, const char *detail),
                   void *context) {
    struct upkeep *u = &n->upkeep;
    if (u->snapshot_done != NULL || u->snapshotting) {
        done(context, E_BUSY, NULL, "a snapshot is being written; try again in a moment");
        return;
    }
    if (state_applied(n->state) == 0) {
        done(context, E_NOT_FOUND, NULL, "there is nothing to write yet");
        return;
    }
    u->snapshot_due = true;
    u->snapshot_self_contained = self_contained;
    u->snapshot_done = done;
    u->snapshot_context = context;
    loop_timer_after(n->x.loop, &u->timer, 0);
}
