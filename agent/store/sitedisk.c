#include "agent/store/sitedisk.h"

#include <fcntl.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/store/datadir.h"
#include "agent/store/salvage.h"
#include "agent/store/setaside.h"
#include "include/grey/must.h"
#include "platform/db.h"
#include "platform/log.h"
#include "platform/now.h"

#define SWEEP_ROWS 256u             /* a slice of about 2 ms on a slow card */
#define FREED_WITH_STORE 32u        /* freed payloads that a store transaction takes along */
#define SWEEP_WITH_STORE 32u        /* payloads judged together with a store, at least: fewer would write their pages twice */
#define QUIET_MS 1000u              /* without a store: then clean-up goes on by itself */
#define SHRINK_FREE_BYTES 1048576u  /* 1 MiB: less is not given back */
#define SHRINK_LIVE_BYTES 2097152u  /* 2 MiB: so little is written anew as a whole; it is in memory meanwhile */
#define SHRINK_LIST_BYTES 33554432u /* 32 MiB of free pages can be looked for one by one */
#define SHRINK_QUIET_MS 10000u      /* without a store */
#define SHRINK_PAGES_MIN 16u        /* of a slice, which takes SLICE_US or so */
#define SHRINK_PAGES_MAX 4096u
#define SLICE_US 10000u
#define MEASURE_EVERY_MS 1000u
#define CHORE_PAUSE_MS 1000u

static void disk_full(struct sitedisk *d) {
    bool dropped = datadir_reserve_drop(d->data_dir);
    dropped |= d->two_devices && datadir_reserve_drop(d->wal_dir);
    if (!d->usage.disk_full) {
        log_warn("sitelog", "disk_full", "reserve_dropped=%d reserve_bytes=%" PRIu32, dropped, d->reserve_bytes);
    }
    d->usage.disk_full = true;
}

enum grey_error sitedisk_write_failed(struct sitedisk *d, enum grey_error err) {
    if (err == E_DISK_FULL) {
        disk_full(d);
    } else if (err != E_OK && d->failed == E_OK) {
        d->failed = err;
    }
    return err;
}

/* Pages of state.db are verified when they are read, so damage may show long after the start: the next one must know. */
void sitedisk_mark_path(const struct sitedisk *d, char *out, size_t size) {
    (void)snprintf(out, size, "%s/state.damaged", d->data_dir);
}

static enum grey_error mark_state(const struct sitedisk *d, struct fault *f) {
    char mark[sizeof d->data_dir + 16];
    sitedisk_mark_path(d, mark, sizeof mark);
    int fd = open(mark, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return fault_errno(f, E_IO, "opening %s", mark);
    }
    close(fd);
    return datadir_sync(d->data_dir, f);
}

enum grey_error sitedisk_mark(struct sitedisk *d, enum sitelog_damage what, const char *reason, struct fault *f) {
    switch (what) {
    case SITELOG_DAMAGE_STATE:
        return mark_state(d, f);
    case SITELOG_DAMAGE_LOG:
        if (!d->witness) {
            return salvage_mark(d->wal_dir, reason, f);
        }
        break; /* a witness has little to mend, and takes it anew */
    case SITELOG_DAMAGE_HISTORY:
        break;
    }
    return setaside_mark(d->wal_dir, reason, f);
}

static void note_damage(struct sitedisk *d, enum sitelog_damage what, const struct fault *f) {
    if (!d->damage.found) {
        d->damage.found = true;
        d->damage.what = what;
        (void)snprintf(d->damage.text, sizeof d->damage.text, "%s", f->text);
    }
}

enum grey_error sitedisk_state_checked(struct sitedisk *d, enum grey_error err, const struct fault *f) {
    if (err == E_CORRUPT) {
        note_damage(d, SITELOG_DAMAGE_STATE, f);
        if (!d->state_damaged) { /* at once: it may also be what stops the node */
            (void)mark_state(d, NULL);
            log_error("sitelog", "state_damaged", "%s", f->text);
        }
        d->state_damaged = true;
    }
    return err;
}

enum grey_error sitedisk_log_checked(struct sitedisk *d, enum grey_error err, const struct fault *f) {
    if (err == E_CORRUPT) {
        note_damage(d, SITELOG_DAMAGE_LOG, f);
    }
    return err;
}

/* Damage that a store meets is final: the node stops, and its next start mends the log.  What anything else meets, the node judges
 * (agent/node/diskcheck.c). */
static enum grey_error store_checked(struct sitedisk *d, enum grey_error err, const struct fault *f) {
    if (err == E_CORRUPT && !d->state_damaged && d->failed == E_OK && d->rejoins) {
        log_error("sitelog", "log_damaged", "error=GREY-%d %s", error_id(err), f->text);
        (void)sitedisk_mark(d, SITELOG_DAMAGE_LOG, f->text, NULL);
        d->failed = err;
    }
    return err;
}

/* --- store --------------------------------------------------------------------------------------------------------------------------- */
static enum grey_error store_one(struct sitedisk *d, const struct sitelog_store *job, struct fault *f) {
    enum grey_error err = E_OK;
    if (job->vote_given) {
        err = logdb_vote(d->log, job->term, job->vote, f);
    }
    if (err == E_OK && job->cluster_id > 0) {
        err = logdb_cluster(d->log, job->cluster_id, f);
    }
    if (err == E_OK && job->rebase) {
        err = sitedisk_rebase(d, job, f);
    }
    if (err == E_OK && job->truncate_from > 0) {
        err = logdb_truncate(d->log, job->truncate_from, f);
    }
    for (uint32_t i = 0; i < job->entry_count && err == E_OK; i++) {
        if (job->entries[i].index != logdb_facts(d->log)->last + 1) {
            return fault_set(f, E_BUG, "entry %" PRIu64 " does not follow %" PRIu64, job->entries[i].index,
                             logdb_facts(d->log)->last);
        }
        err = logdb_append(d->log, &job->entries[i], f);
    }
    return err;
}

/* Freed payloads go with a transaction that is made anyway; count tells how many, for statedb_forgotten. */
static enum grey_error forget_freed(struct sitedisk *d, uint32_t max, uint32_t *count, struct fault *f) {
    raft_index freed[SWEEP_ROWS];
    must(max <= SWEEP_ROWS);
    enum grey_error err = sitedisk_state_checked(d, statedb_freed(d->state, freed, max, count, f), f);
    for (uint32_t i = 0; i < *count && err == E_OK; i++) {
        err = logdb_forget(d->log, freed[i], f);
    }
    return err;
}

/* A full disk that a checkpoint finds is given the reserve at once: a log that cannot be moved into its file would only grow. */
static enum grey_error checkpoint(struct sitedisk *d, struct db *db, struct fault *f) {
    enum grey_error err = db_checkpoint(db, f);
    if (err == E_DISK_FULL && !d->usage.disk_full) {
        disk_full(d);
        err = db_checkpoint(db, f);
    }
    return err;
}

static enum grey_error is_live(void *context, raft_index index, bool *is, struct fault *f) {
    struct sitedisk *d = context;
    return sitedisk_state_checked(d, statedb_live(d->state, index, is, f), f);
}

/* Not before somebody leads: others whose logs are damaged may need what is there, and without a majority they cannot do without it. */
static bool sweep_open(const struct sitedisk *d) {
    const struct logdb_facts *log = logdb_facts(d->log);
    return d->grown && log->swept < log->base.index;
}

/* While entries come in, as many old payloads are judged as came in, and a few more, so that there is an end; in the same transaction
 * and before them, so that pages that become free are written once, with the new entries in them. */
static enum grey_error sweep_along(struct sitedisk *d, uint32_t entry_count, struct fault *f) {
    d->sweep_credit = sweep_open(d) ? d->sweep_credit + entry_count + (entry_count + 3) / 4 : 0;
    if (d->sweep_credit < SWEEP_WITH_STORE) {
        return E_OK;
    }
    uint32_t rows = d->sweep_credit < SWEEP_ROWS ? d->sweep_credit : SWEEP_ROWS;
    d->sweep_credit = 0;
    return logdb_sweep(d->log, rows, is_live, d, f);
}

static enum grey_error store_all(struct sitedisk *d, struct sitelog_store *const *jobs, uint32_t count, struct fault *f) {
    uint32_t freed = 0;
    uint32_t entry_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        entry_count += jobs[i]->entry_count;
    }
    d->stored_ms = now_monotonic_ms();
    d->grown = d->grown || entry_count > 0;
    enum grey_error err = logdb_begin(d->log, f);
    if (err == E_OK) {
        err = sweep_along(d, entry_count, f);
    }
    for (uint32_t i = 0; i < count && err == E_OK; i++) {
        err = store_one(d, jobs[i], f);
    }
    if (err == E_OK) {
        err = sealdb_write(d->seals, f);
    }
    bool forget =
        statedb_freed_count(d->state) <= FREED_WITH_STORE; /* more go apart, in order, so that each page is written once */
    if (err == E_OK && forget) {
        err = forget_freed(d, FREED_WITH_STORE, &freed, f);
    }
    if (err != E_OK) {
        logdb_rollback(d->log);
        return err;
    }
    if ((err = logdb_commit(d->log, f)) == E_OK) {
        if (forget) {
            statedb_forgotten(d->state);
        }
        if (jobs[0]->rebase &&
            (err = sitedisk_rebase_finish(d, f)) == E_DISK_FULL) { /* half of it is done; the next open does the rest */
            err = fault_set(f, E_IO, "the disk is full in the middle of a new base");
        }
    }
    return err;
}

static void read_wanted(struct sitedisk *d, struct sitelog_store *job) {
    if (job->wants.size == 0) {
        return;
    }
    job->rows = rowset_new();
    job->err =
        job->rows == NULL
            ? fault_set(&job->fault, E_NO_MEMORY, "reading rows")
            : sitedisk_state_checked(d, statedb_rows(d->state, builder_bytes(&job->wants), job->rows, &job->fault), &job->fault);
    (void)sitedisk_write_failed(d, job->err); /* the entries are stored, but the node cannot go on */
}

static void give_up_inputs(struct sitelog_store *job) {
    logdb_entries_free(job->entries, job->entry_count);
    blob_unref(job->members);
    job->members = NULL;
    job->entries = NULL;
    job->entry_count = 0;
    builder_free(&job->wants);
}

void sitedisk_store(struct sitedisk *d, struct sitelog_store *const *jobs, uint32_t count) {
    struct fault fault = {0};
    uint32_t late = 0; /* jobs given before their owner knew of a failure: the oldest ones */
    while (d->failed == E_OK && late < count && jobs[late]->slot.failures != d->failures) {
        jobs[late]->err = fault_set(&jobs[late]->fault, E_DISK_FULL, "an earlier store found the disk full");
        jobs[late]->slot.failures = d->failures;
        late++;
    }
    jobs += late;
    count -= late;
    if (count == 0) {
        return;
    }
    enum grey_error err = d->failed;
    if (err != E_OK) {
        fault_set(&fault, err, "an earlier write failed; start again from the disk");
    } else {
        uint64_t start_us = now_monotonic_us();
        if (d->usage.disk_full &&
            db_wal_bytes(logdb_db(d->log)) > d->log_wal_bytes_max) { /* what is left is not for a growing log */
            err = checkpoint(d, logdb_db(d->log), &fault);
        }
        err = sitedisk_write_failed(d, store_checked(d, err == E_OK ? store_all(d, jobs, count, &fault) : err, &fault));
        d->usage.store_us_last = now_monotonic_us() - start_us;
        d->usage.store_us_max = d->usage.store_us_max > d->usage.store_us_last ? d->usage.store_us_max : d->usage.store_us_last;
        d->usage.stores++;
        d->failures += err != E_OK;
    }
    for (uint32_t i = 0; i < count; i++) {
        jobs[i]->err = err;
        jobs[i]->fault = fault;
        jobs[i]->slot.failures = d->failures;
        if (err == E_OK) {
            read_wanted(d, jobs[i]);
        }
        if (err != E_DISK_FULL) {
            give_up_inputs(jobs[i]);
        }
    }
}

/* --- flush --------------------------------------------------------------------------------------------------------------------------- */
void sitedisk_flush(struct sitedisk *d, struct sitelog_flush *job) {
    const struct logdb_facts *log = logdb_facts(d->log);
    struct statedb_facts facts = {.applied = job->applied, .members = job->members, .members_index = job->members_index};
    memcpy(facts.state_hash, job->state_hash, DIGEST_BYTES);
    if (d->failed != E_OK) {
        job->err = fault_set(&job->fault, d->failed, "an earlier write failed; start again from the disk");
    } else if (job->applied.index < statedb_facts(d->state)->applied.index) {
        job->err = fault_set(&job->fault, E_BUG, "the applied position would go back to %" PRIu64, job->applied.index);
    } else if (job->applied.index > log->last) {
        /* Applied, but the store of it failed: only a full disk lets the node live on. */
        job->err = fault_set(&job->fault, E_DISK_FULL, "entry %" PRIu64 " is not stored yet", job->applied.index);
    } else {
        job->err = sitedisk_write_failed(
            d,
            sitedisk_state_checked(d, statedb_flush(d->state, &job->changes, &facts, log->base.index, &job->fault), &job->fault));
        if (job->err == E_OK) { /* no store took it along for a while */
            job->err = sitedisk_save_seal(d, &job->fault);
        }
    }
}

/* --- read ---------------------------------------------------------------------------------------------------------------------------- */
static enum grey_error read_payloads(struct sitedisk *d, struct sitelog_read *job) {
    job->payloads = mem_new(job->index_count, sizeof(struct blob *));
    if (job->payloads == NULL && job->index_count > 0) {
        return fault_set(&job->fault, E_NO_MEMORY, "reading payloads");
    }
    for (uint32_t i = 0; i < job->index_count; i++) {
        struct entry e;
        enum grey_error err = sitedisk_log_checked(d, logdb_payload(d->log, job->indexes[i], &e, &job->fault), &job->fault);
        if (err == E_OK) {
            job->payloads[i] = e.payload;
        } else if (err != E_NOT_FOUND) {
            return err;
        }
    }
    job->fault = (struct fault){0};
    return E_OK;
}

static enum grey_error read_live(struct sitedisk *d, struct sitelog_read *job) {
    uint32_t capacity = 0;
    uint64_t bytes = 0;
    raft_index at = job->from;
    for (;;) {
        enum grey_error err = sitedisk_state_checked(d, statedb_live_next(d->state, at, &at, &job->fault), &job->fault);
        if (err != E_OK || at == 0 || at > job->to) {
            return err;
        }
        if (job->entry_count > 0 && bytes >= job->bytes_max) {
            job->more = true;
            return E_OK;
        }
        if (job->entry_count == capacity) {
            capacity = capacity == 0 ? 16 : capacity * 2;
            struct entry *grown = mem_grow(job->entries, capacity, sizeof *grown);
            if (grown == NULL) {
                return fault_set(&job->fault, E_NO_MEMORY, "reading live payloads");
            }
            job->entries = grown;
        }
        if ((err = logdb_payload(d->log, at, &job->entries[job->entry_count], &job->fault)) != E_OK) {
            if (err != E_NOT_FOUND) {
                return sitedisk_log_checked(d, err, &job->fault);
            }
            /* Not given with a snapshot, because the giver had freed it by then: an entry to come removes the row. */
            job->fault = (struct fault){0};
            at++;
            continue;
        }
        bytes += blob_bytes(job->entries[job->entry_count++].payload).size;
        at++;
    }
}

/* First log.db, then state.db. */
static enum grey_error check(struct sitedisk *d, struct sitelog_read *job) {
    struct fault *f = &job->fault;
    bool end = false;
    enum grey_error err = d->checking_state
                              ? sitedisk_state_checked(d, statedb_check(d->state, job->bytes_max, &job->checked_bytes, &end, f), f)
                              : sitedisk_log_checked(d, logdb_check(d->log, job->bytes_max, &job->checked_bytes, &end, f), f);
    job->more = !(end && d->checking_state);
    d->checking_state = d->checking_state != end;
    return err;
}

void sitedisk_keep(struct sitedisk *d, struct sitelog_keep *job) {
    struct fault *f = &job->fault;
    job->err = E_OK;
    job->kept_events = job->kept_bytes = 0;
    if (d->keep == NULL && (job->kind == SITELOG_KEEP_ADD || access(d->keep_path, F_OK) == 0)) {
        d->keep = keepdb_open(d->keep_path, f);
        if (d->keep == NULL) {
            job->err = f->code;
            return;
        }
    }
    if (d->keep == NULL) {
        job->err = job->kind == SITELOG_KEEP_NEXT || job->kind == SITELOG_KEEP_FIND ? E_NOT_FOUND : E_OK;
        return;
    }
    switch (job->kind) {
    case SITELOG_KEEP_COUNT:
        break;
    case SITELOG_KEEP_ADD:
        job->err = keepdb_add(d->keep, blob_bytes(job->batch), builder_bytes(&job->ids), &job->receipt, f);
        break;
    case SITELOG_KEEP_NEXT:
        job->err = keepdb_next(d->keep, job->receipt, &job->receipt, &job->batch, f);
        break;
    case SITELOG_KEEP_REMOVE:
        job->err = keepdb_remove(d->keep, job->receipt, f);
        break;
    case SITELOG_KEEP_FIND:
        job->err = keepdb_find(d->keep, job->id, &job->receipt, &job->element, f);
        break;
    }
    job->kept_events = keepdb_events(d->keep);
    job->kept_bytes = keepdb_bytes(d->keep);
}

void sitedisk_read(struct sitedisk *d, struct sitelog_read *job) {
    struct fault *f = &job->fault;
    job->more = false;
    if (d->state == NULL) {
        job->err = fault_set(f, d->failed, "the state could not be put in place; start again from the disk");
        return;
    }
    if (job->kind == SITELOG_ROWS || job->kind == SITELOG_SCAN) {
        job->rows = rowset_new();
        if (job->rows == NULL) {
            job->err = fault_set(f, E_NO_MEMORY, "reading rows");
            return;
        }
    }
    switch (job->kind) {
    case SITELOG_ROWS:
        job->err = sitedisk_state_checked(d, statedb_rows(d->state, builder_bytes(&job->wants), job->rows, f), f);
        break;
    case SITELOG_SCAN:
        job->err = statedb_scan(d->state, job->table, bytes_of(job->low, job->low_size), bytes_of(job->high, job->high_size),
                                job->rows_max, job->rows, &job->more, f);
        (void)sitedisk_state_checked(d, job->err, f);
        break;
    case SITELOG_ENTRIES:
        job->err = sitedisk_log_checked(
            d, logdb_entries(d->log, job->from, job->to, job->bytes_max, &job->entries, &job->entry_count, f), f);
        break;
    case SITELOG_PAYLOADS:
        job->err = read_payloads(d, job);
        break;
    case SITELOG_LIVE:
        job->err = read_live(d, job);
        break;
    case SITELOG_READABLE:
        job->same = job->anchor > 0 && logdb_has_term(d->log, job->anchor, job->anchor_term);
        job->err = logdb_readable(d->log, job->from, job->to, job->bytes_max, &job->entries, &job->entry_count, &job->looked_to, f);
        (void)sitedisk_log_checked(d, f->code, f); /* also when it gave what is left */
        break;
    case SITELOG_CHECK:
        job->err = check(d, job);
        break;
    }
    if (job->err == E_BUG) { /* only wrong SQL or a malformed list */
        log_error("sitelog", "read", "kind=%d %s", (int)job->kind, f->text);
    }
}

/* --- compaction and chores -------------------------------------------------------------------------------------------------------------- */
static bool quiet(const struct sitedisk *d) {
    return now_monotonic_ms() - d->stored_ms >= QUIET_MS;
}

/* One transaction: the base moves (point may be NULL) and when no store does it along, a slice of the payloads below it is judged. */
static enum grey_error sweep(struct sitedisk *d, const struct raft_point *point, struct fault *f) {
    enum grey_error err = logdb_begin(d->log, f);
    if (err == E_OK && point != NULL) {
        err = logdb_compact(d->log, point, f);
    }
    if (err == E_OK && quiet(d)) {
        err = logdb_sweep(d->log, SWEEP_ROWS, is_live, d, f);
    }
    if (err != E_OK) {
        logdb_rollback(d->log);
        return err;
    }
    return logdb_commit(d->log, f);
}

/* What clean-up meets of damage was rolled back, and the node may be needed as it is. */
static enum grey_error cleaned(struct sitedisk *d, enum grey_error err, const struct fault *f) {
    return err == E_CORRUPT ? sitedisk_log_checked(d, err, f) : sitedisk_write_failed(d, err);
}

void sitedisk_compact(struct sitedisk *d, struct sitelog_compact *job) {
    job->slot.again = false;
    if (d->failed != E_OK) {
        job->err = fault_set(&job->fault, d->failed, "an earlier write failed; start again from the disk");
        return;
    }
    if (job->point.index > statedb_facts(d->state)->applied.index) {
        job->err = fault_set(&job->fault, E_BUG, "compaction to %" PRIu64 " beyond the flushed state", job->point.index);
        return;
    }
    job->err = cleaned(d, sweep(d, &job->point, &job->fault), &job->fault);
    job->slot.again = job->err == E_OK && sweep_open(d) && quiet(d);
    d->measured_ms = 0;
}

/* A queue is freed from its oldest end, and what is still needed lies at the end of the file.  To cut that, SQLite moves each page of it to the
 * front, and for each looks through the list of free pages: seconds for a MiB when most of 1 GiB is free.  So a long list is given back all at
 * once, when so little is left that it can be written anew (agent/node/upkeep.c sees to it); until then new entries use it.  A short one is
 * given back page by page, and while stores come, which will use it again, only when there is little else in the file. */
static void look_for_free(const struct sitedisk *d, struct db *db, struct sitedisk_shrink *s) {
    uint64_t free_bytes = db_free_bytes(db), file_bytes = db_file_bytes(db);
    bool quiet_for_long = now_monotonic_ms() - d->stored_ms >= SHRINK_QUIET_MS;
    s->whole = db_live_bytes(db) <= SHRINK_LIVE_BYTES;
    s->later = free_bytes > SHRINK_FREE_BYTES && free_bytes > file_bytes / 4 && (s->whole || free_bytes <= SHRINK_LIST_BYTES);
    s->now = s->later && (quiet_for_long || free_bytes > file_bytes / 8 * 7);
}

/* Free pages leave the end of the file, or what is live is written anew; it is cut when that has come through the checkpoint. */
static enum grey_error shrink(struct sitedisk *d, struct db *db, struct sitedisk_shrink *s, struct fault *f) {
    uint64_t start_us = now_monotonic_us();
    s->pages = s->pages < SHRINK_PAGES_MIN ? SHRINK_PAGES_MIN : s->pages;
    enum grey_error err = s->whole ? db_rewrite(db, f) : db_shrink(db, s->pages, f);
    uint64_t took_us = now_monotonic_us() - start_us;
    if (!s->whole && took_us > 2 * SLICE_US && s->pages > SHRINK_PAGES_MIN) {
        s->pages /= 2;
    } else if (!s->whole && took_us < SLICE_US / 2 && s->pages < SHRINK_PAGES_MAX) {
        s->pages *= 2;
    }
    look_for_free(d, db, s);
    return err != E_OK || s->now ? err : checkpoint(d, db, f);
}

bool sitedisk_has_chore(struct sitedisk *d) {
    return d->failed == E_OK && now_monotonic_ms() >= d->chore_after_ms &&
           (db_wal_bytes(logdb_db(d->log)) > d->log_wal_bytes_max || db_wal_bytes(statedb_db(d->state)) > d->state_wal_bytes_max ||
            (sweep_open(d) && quiet(d)) || statedb_freed_count(d->state) > FREED_WITH_STORE || d->log_shrink.now ||
            d->state_shrink.now);
}

bool sitedisk_has_later(const struct sitedisk *d) {
    return d->failed == E_OK && (sweep_open(d) || d->log_shrink.later || d->state_shrink.later);
}

static enum grey_error forget_slice(struct sitedisk *d, struct fault *f) {
    uint32_t count = 0;
    enum grey_error err = logdb_begin(d->log, f);
    if (err == E_OK) {
        err = forget_freed(d, SWEEP_ROWS, &count, f);
    }
    if (err != E_OK) {
        logdb_rollback(d->log);
        return err;
    }
    if ((err = logdb_commit(d->log, f)) == E_OK) {
        statedb_forgotten(d->state);
    }
    return err;
}

void sitedisk_relieve(struct sitedisk *d) {
    (void)db_release(logdb_db(d->log));
    uint64_t left_bytes = db_release(statedb_db(d->state));
    bool smaller = malloc_trim(0) == 1;
    log_debug("sitelog", "relieved", "sqlite_bytes=%" PRIu64 " heap=%s", left_bytes, smaller ? "smaller" : "as before");
}

void sitedisk_chore(struct sitedisk *d) {
    struct fault fault = {0};
    struct db *log = logdb_db(d->log), *state = statedb_db(d->state);
    enum grey_error err = E_OK;
    if (d->failed != E_OK) {
        return;
    }
    if (d->usage.disk_full && sitedisk_reserve(d, NULL) == E_OK) {
        d->usage.disk_full = false;
        log_info("sitelog", "disk_has_room", "reserve_bytes=%" PRIu32, d->reserve_bytes);
    }
    if (db_wal_bytes(log) > d->log_wal_bytes_max) {
        err = checkpoint(d, log, &fault);
    } else if (db_wal_bytes(state) > d->state_wal_bytes_max) {
        err = sitedisk_state_checked(d, checkpoint(d, state, &fault), &fault);
    } else if (sweep_open(d) && quiet(d)) {
        err = sweep(d, NULL, &fault);
    } else if (statedb_freed_count(d->state) > FREED_WITH_STORE) {
        err = forget_slice(d, &fault);
    } else if (d->log_shrink.now) {
        err = shrink(d, log, &d->log_shrink, &fault);
    } else if (d->state_shrink.now) {
        err = sitedisk_state_checked(d, shrink(d, state, &d->state_shrink, &fault), &fault);
    }
    d->measured_ms = 0; /* on a quiet node no other job would come to see what became free */
    /* What could not be done now is not tried again at once. */
    bool stuck = err != E_OK || db_wal_bytes(log) / 2 > d->log_wal_bytes_max;
    d->chore_after_ms = stuck ? now_monotonic_ms() + CHORE_PAUSE_MS : 0;
    if (cleaned(d, err, &fault) != E_OK) {
        log_limited(LOG_ERROR, "sitelog", "clean_up", "error=%s %s", error_name(err), fault.text);
    }
}

void sitedisk_measure(struct sitedisk *d) {
    struct db_counts counts;
    if (d->state == NULL) {
        return;
    }
    db_count(&counts);
    d->usage.syncs = counts.syncs;
    d->usage.written_bytes = counts.written_bytes;
    d->usage.wal_bytes = db_wal_bytes(logdb_db(d->log)) + db_wal_bytes(statedb_db(d->state));
    uint64_t now_ms = now_monotonic_ms();
    if (d->measured_ms == 0 || now_ms - d->measured_ms >= MEASURE_EVERY_MS) {
        d->measured_ms = now_ms;
        d->usage.log_bytes = db_file_bytes(logdb_db(d->log));
        d->usage.state_bytes = db_file_bytes(statedb_db(d->state));
        look_for_free(d, logdb_db(d->log), &d->log_shrink);
        look_for_free(d, statedb_db(d->state), &d->state_shrink);
        d->usage.snapshot_bytes = 0;
        for (size_t i = 0; i < d->snapshots.count; i++) {
            d->usage.snapshot_bytes += d->snapshots.at[i].file_bytes;
        }
    }
}
