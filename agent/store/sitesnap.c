/* What the storage thread does with snapshot jobs, and how a received state takes the place of state.db.
 *
 * Installing: the image is read, verified and built into state-new.db beside the live file.  Then three steps, each durable before the
 * next: log.db gets the new base and the mark `installing`; state.db's log is removed and state-new.db takes its name; the mark goes.
 * A crash before the first leaves all as it was; after it, the next open does the rest. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/store/datadir.h"
#include "agent/store/sitedisk.h"
#include "include/grey/must.h"
#include "platform/db.h"
#include "platform/log.h"
#include "platform/now.h"

#define WALK_BYTES 65536u /* 64 KiB: rows of one slice */
#define PAYLOADS_PER_SLICE 64u
#define WAL_BYTES_MAX 1048576u /* 1 MiB */
#define PATH_BYTES (LIMIT_PATH_BYTES + 96u)

/* A job between two slices. */
struct sitedisk_slice {
    struct snapshot_writer *writer;
    struct snapshot_reader *reader;
    struct statedb *building;
    bool rows_done;
    enum table_id id; /* the last row that was written */
    uint8_t key[LIMIT_KEY_BYTES];
    size_t key_size;
    raft_index next_payload;
    raft_index of; /* the applied position that is being written */
};

static enum grey_error slice_begin(struct sitelog_snapshot *job) {
    job->slot.slice = mem_new(1, sizeof(struct sitedisk_slice));
    return job->slot.slice == NULL ? fault_set(&job->fault, E_NO_MEMORY, "a snapshot") : E_OK;
}

void sitedisk_snapshot_end(struct sitelog_snapshot *job) {
    struct sitedisk_slice *s = job->slot.slice;
    if (s != NULL) {
        snapshot_abandon(s->writer);
        snapshot_close(s->reader);
        statedb_close(s->building);
        mem_free(s);
        job->slot.slice = NULL;
    }
}

/* --- write ------------------------------------------------------------------------------------------------------------------------------ */
static enum grey_error write_begin(struct sitedisk *d, struct sitelog_snapshot *job) {
    const struct statedb_facts *state = statedb_facts(d->state);
    struct snapshot_head head = {.point = state->applied,
                                 .members_index = state->members_index,
                                 .members = state->members,
                                 .made_unix_ms = now_wall_ms(),
                                 .self_contained = job->self_contained};
    memcpy(head.state_hash, state->state_hash, DIGEST_BYTES);
    if (state->applied.index == 0) {
        return fault_set(&job->fault, E_NOT_FOUND, "nothing was flushed yet that a snapshot could hold");
    }
    enum grey_error err = slice_begin(job);
    if (err == E_OK) {
        job->slot.slice->writer = snapshot_create(d->snapshot_dir, &head, &job->fault);
        err = job->slot.slice->writer == NULL ? job->fault.code : E_OK;
        job->slot.slice->of = head.point.index;
    }
    return err;
}

static enum grey_error write_rows(struct sitedisk *d, struct sitelog_snapshot *job, struct sitedisk_slice *s) {
    struct sitelog_row_set *set = rowset_new();
    bool more = false;
    enum grey_error err = set == NULL ? fault_set(&job->fault, E_NO_MEMORY, "a snapshot") : E_OK;
    if (err == E_OK) {
        err = statedb_walk(d->state, s->id, bytes_of(s->key, s->key_size), WALK_BYTES, set, &more, &job->fault);
    }
    for (size_t i = 0; err == E_OK && i < sitelog_row_count(set); i++) {
        struct sitelog_row row;
        sitelog_row_get(set, i, &row);
        err = snapshot_put_row(s->writer, &row, &job->fault);
        if (row.key.size > sizeof s->key) {
            err = fault_set(&job->fault, E_CORRUPT, "state.db: a key of %zu bytes", row.key.size);
        } else {
            s->id = row.id;
            s->key_size = row.key.size;
            memcpy(s->key, row.key.data, row.key.size);
        }
    }
    rowset_free(set);
    s->rows_done = !more;
    s->next_payload = 1;
    return err;
}

static enum grey_error write_payloads(struct sitedisk *d, struct sitelog_snapshot *job, struct sitedisk_slice *s) {
    for (uint32_t i = 0; i < PAYLOADS_PER_SLICE && s->next_payload != 0; i++) {
        raft_index at = 0;
        struct entry e;
        enum grey_error err =
            sitedisk_state_checked(d, statedb_live_next(d->state, s->next_payload, &at, &job->fault), &job->fault);
        if (err != E_OK || at == 0) {
            s->next_payload = 0;
            return err;
        }
        if ((err = sitedisk_log_checked(d, logdb_payload(d->log, at, &e, &job->fault), &job->fault)) == E_OK) {
            err = snapshot_put_payload(s->writer, &e, &job->fault);
            blob_unref(e.payload);
        }
        if (err != E_OK) {
            return err;
        }
        s->next_payload = at + 1;
    }
    return E_OK;
}

static enum grey_error write_slice(struct sitedisk *d, struct sitelog_snapshot *job) {
    enum grey_error err = job->slot.slice == NULL ? write_begin(d, job) : E_OK;
    struct sitedisk_slice *s = job->slot.slice;
    if (err != E_OK) {
        return err;
    }
    if (s->of != statedb_facts(d->state)->applied.index) {
        return fault_set(&job->fault, E_BUSY, "the state was flushed while its snapshot was written");
    }
    if (!s->rows_done) {
        err = write_rows(d, job, s);
    } else if (job->self_contained && s->next_payload != 0) {
        err = write_payloads(d, job, s);
    } else {
        struct snapshot_writer *w = s->writer;
        s->writer = NULL;
        if ((err = snapshot_finish(w, &job->info, &job->fault)) == E_OK) {
            snapshot_list_add(d->snapshot_dir, &d->snapshots, &job->info, d->snapshots_kept);
        }
        return err;
    }
    job->slot.again = err == E_OK;
    return err;
}

/* --- read for a peer --------------------------------------------------------------------------------------------------------------------- */
/* A file is verified once before it is given away, block by block. */
static enum grey_error verify_slice(struct sitedisk *d, struct sitelog_snapshot *job, const char *path, const char *name,
                                    bool *whole) {
    struct sitelog_row_set *rows = NULL;
    struct entry *entries = NULL;
    uint32_t count = 0;
    enum grey_error err = job->slot.slice == NULL ? slice_begin(job) : E_OK;
    struct sitedisk_slice *s = job->slot.slice;
    if (err == E_OK && s->reader == NULL) {
        s->reader = snapshot_open(path, &job->fault);
        err = s->reader == NULL ? job->fault.code : E_OK;
    }
    if (err == E_OK) {
        err = snapshot_next(s->reader, &rows, &entries, &count, whole, &job->fault);
        rowset_free(rows);
        logdb_entries_free(entries, count);
    }
    if (err == E_CORRUPT) {
        log_error("snapshot", "damaged", "file=%s %s", name, job->fault.text);
        char copy[sizeof d->verified];
        (void)snprintf(copy, sizeof copy, "%s", name);
        snapshot_list_remove(d->snapshot_dir, &d->snapshots, copy);
    }
    return err;
}

static enum grey_error read_chunk(struct sitelog_snapshot *job, const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return fault_errno(&job->fault, errno == ENOENT ? E_NOT_FOUND : E_IO, "opening %s", path);
    }
    uint64_t left = job->offset < job->total_bytes ? job->total_bytes - job->offset : 0;
    size_t size = (size_t)(left < job->bytes_max ? left : job->bytes_max);
    enum grey_error err = E_OK;
    job->chunk = blob_new(size);
    if (job->chunk == NULL) {
        err = fault_set(&job->fault, E_NO_MEMORY, "reading %s", path);
    } else if (pread(fd, job->chunk->data, size, (off_t)job->offset) != (ssize_t)size) {
        err = fault_errno(&job->fault, E_IO, "reading %s", path);
        blob_unref(job->chunk);
        job->chunk = NULL;
    }
    close(fd);
    return err;
}

static enum grey_error read_slice(struct sitedisk *d, struct sitelog_snapshot *job) {
    char path[PATH_BYTES];
    const struct sitelog_snapshot_info *info = snapshot_list_find(&d->snapshots, job->point.index);
    if (info == NULL) {
        return fault_set(&job->fault, E_NOT_FOUND, "no snapshot of entry %" PRIu64, job->point.index);
    }
    (void)snprintf(path, sizeof path, "%s/%s", d->snapshot_dir, info->name);
    job->total_bytes = info->file_bytes;
    job->info = *info;
    if (strcmp(d->verified, info->name) != 0) {
        bool whole = false;
        enum grey_error err = verify_slice(d, job, path, info->name, &whole);
        if (err != E_OK) {
            return err;
        }
        if (!whole) {
            job->slot.again = true;
            return E_OK;
        }
        (void)snprintf(d->verified, sizeof d->verified, "%s", job->info.name);
    }
    return read_chunk(job, path);
}

/* --- receive ------------------------------------------------------------------------------------------------------------------------------ */
static enum grey_error payloads_take(struct sitedisk *d, struct sitelog_snapshot *job) {
    enum grey_error err = logdb_begin(d->log, &job->fault);
    for (uint32_t i = 0; i < job->entry_count && err == E_OK; i++) {
        err = logdb_receive(d->log, &job->entries[i], &job->fault);
    }
    if (err != E_OK) {
        logdb_rollback(d->log);
    } else {
        err = logdb_commit(d->log, &job->fault);
    }
    if (err != E_CORRUPT) { /* that says something of what came, not of our disk */
        (void)sitedisk_write_failed(d, err);
    }
    if (err != E_DISK_FULL) {
        logdb_entries_free(job->entries, job->entry_count);
        job->entries = NULL;
        job->entry_count = 0;
    }
    return err;
}

/* --- building a state from an image -------------------------------------------------------------------------------------------------------- */
static void state_remove(const char *path) {
    char file[PATH_BYTES];
    static const char *const suffixes[] = {"", "-wal", "-journal"};
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        (void)snprintf(file, sizeof file, "%s%s", path, suffixes[i]);
        (void)unlink(file);
    }
}

/* One block of the image goes into `into`, and payloads into the log. */
static enum grey_error build_block(struct logdb *log, struct statedb *into, struct snapshot_reader *r, bool *end, struct fault *f) {
    struct sitelog_row_set *rows = NULL;
    struct entry *entries = NULL;
    uint32_t count = 0;
    enum grey_error err = snapshot_next(r, &rows, &entries, &count, end, f);
    if (err == E_OK && rows != NULL) {
        err = statedb_fill(into, rows, f);
    }
    if (err == E_OK && count > 0 && (err = logdb_begin(log, f)) == E_OK) {
        for (uint32_t i = 0; i < count && err == E_OK; i++) {
            err = logdb_receive(log, &entries[i], f);
        }
        if (err == E_OK) {
            err = logdb_commit(log, f);
        } else {
            logdb_rollback(log);
        }
    }
    rowset_free(rows);
    logdb_entries_free(entries, count);
    if (err == E_OK && db_wal_bytes(statedb_db(into)) > WAL_BYTES_MAX) {
        err = db_checkpoint(statedb_db(into), f);
    }
    if (err == E_OK && db_wal_bytes(logdb_db(log)) > WAL_BYTES_MAX) {
        err = db_checkpoint(logdb_db(log), f);
    }
    return err;
}

static enum grey_error build_end(struct statedb *into, const struct snapshot_head *head, bool with_members, struct fault *f) {
    struct statedb_facts facts = {.applied = head->point,
                                  .members = with_members ? head->members : NULL,
                                  .members_index = with_members ? head->members_index : 0};
    memcpy(facts.state_hash, head->state_hash, DIGEST_BYTES);
    enum grey_error err = statedb_fill_done(into, &facts, f);
    return err == E_OK ? db_checkpoint(statedb_db(into), f) : err; /* all in the file, synced: its log may be lost */
}

/* Puts state-new.db in the place of state.db; neither is open. */
static enum grey_error swap(const struct sitedisk *d, struct fault *f) {
    char file[PATH_BYTES];
    (void)snprintf(file, sizeof file, "%s-wal", d->new_state_path);
    (void)unlink(file);
    (void)snprintf(file, sizeof file, "%s-wal", d->state_path);
    if (unlink(file) != 0 && errno != ENOENT) {
        return fault_errno(f, E_IO, "removing %s", file);
    }
    /* The old log must be gone for sure before the new file has the name: SQLite would play it into the new one. */
    enum grey_error err = datadir_sync(d->data_dir, f);
    if (err == E_OK && rename(d->new_state_path, d->state_path) != 0) {
        err = fault_errno(f, E_IO, "naming %s", d->state_path);
    }
    return err == E_OK ? datadir_sync(d->data_dir, f) : err;
}

enum grey_error sitedisk_finish_install(struct sitedisk *d, struct fault *f) {
    struct stat st;
    if (!logdb_facts(d->log)->installing) {
        state_remove(d->new_state_path); /* what was begun and not decided */
        return E_OK;
    }
    enum grey_error err = stat(d->new_state_path, &st) == 0 ? swap(d, f) : E_OK;
    if (err == E_OK && (err = logdb_begin(d->log, f)) == E_OK && (err = logdb_installed(d->log, f)) == E_OK) {
        err = logdb_commit(d->log, f);
    }
    log_info("sitelog", "install_finished", "index=%" PRIu64 " error=%s", logdb_facts(d->log)->base.index, error_name(err));
    return err;
}

/* From here on there is no way back: an error is final and the next open goes on. */
static enum grey_error install_switch(struct sitedisk *d, struct sitelog_snapshot *job, struct sitedisk_slice *s) {
    struct fault *f = &job->fault;
    raft_index certain = statedb_facts(d->state)->applied.index;
    enum grey_error err = logdb_begin(d->log, f);
    if (err == E_OK && (err = logdb_replace(d->log, &snapshot_head(s->reader)->point, certain, f)) != E_OK) {
        logdb_rollback(d->log);
    }
    if (err != E_OK || (err = logdb_commit(d->log, f)) != E_OK) {
        return err;
    }
    statedb_close(d->state);
    d->state = NULL;
    if ((err = sitedisk_finish_install(d, f)) == E_OK) {
        d->state = statedb_open(d->state_path, f);
        err = d->state == NULL ? f->code : E_OK;
    }
    if (err != E_OK) {
        err = err == E_DISK_FULL ? fault_set(f, E_IO, "the disk is full in the middle of an installation") : err;
        d->failed = err;
    }
    return err;
}

static enum grey_error install_results(struct sitedisk *d, struct sitelog_snapshot *job) {
    const struct statedb_facts *state = statedb_facts(d->state);
    struct fault ignored;
    memcpy(job->state_hash, state->state_hash, DIGEST_BYTES);
    if (state->members != NULL && raft_members_decode(blob_bytes(state->members), &job->members) != E_OK) {
        return fault_set(&job->fault, E_CORRUPT, "the membership in the snapshot is damaged");
    }
    job->rows = rowset_new();
    enum grey_error err = job->rows == NULL ? fault_set(&job->fault, E_NO_MEMORY, "loading the state") : E_OK;
    for (enum table_id id = TABLE_META; err == E_OK && id <= TABLE_ID_MAX; id++) {
        bool more = false;
        if (!table_pinned(id)) {
            continue;
        }
        err = statedb_scan(d->state, id, bytes_of(NULL, 0), bytes_of(NULL, 0), UINT32_MAX, job->rows, &more, &job->fault);
    }
    if (err == E_OK && snapshot_adopt(d->snapshot_dir, &job->point, &job->info, &ignored) == E_OK) {
        snapshot_list_add(d->snapshot_dir, &d->snapshots, &job->info, d->snapshots_kept);
    }
    return err;
}

static enum grey_error install_begin(struct sitedisk *d, struct sitelog_snapshot *job, const char *part) {
    enum grey_error err = slice_begin(job);
    if (err != E_OK) {
        return err;
    }
    struct sitedisk_slice *s = job->slot.slice;
    s->reader = snapshot_open(part, &job->fault);
    if (s->reader == NULL) {
        return job->fault.code;
    }
    const struct raft_point *point = &snapshot_head(s->reader)->point;
    if (point->index != job->point.index || memcmp(point->hash, job->point.hash, DIGEST_BYTES) != 0) {
        return fault_set(&job->fault, E_CORRUPT, "the received snapshot is of entry %" PRIu64, point->index);
    }
    if (point->index <= logdb_facts(d->log)->base.index) {
        return fault_set(&job->fault, E_BUG, "the snapshot is older than the log");
    }
    state_remove(d->new_state_path);
    s->building = statedb_open(d->new_state_path, &job->fault);
    return s->building == NULL ? job->fault.code : E_OK;
}

static enum grey_error install_slice(struct sitedisk *d, struct sitelog_snapshot *job) {
    char part[PATH_BYTES];
    bool end = false;
    snapshot_part_path(d->snapshot_dir, &job->point, part, sizeof part);
    enum grey_error err = job->slot.slice == NULL ? install_begin(d, job, part) : E_OK;
    struct sitedisk_slice *s = job->slot.slice;
    if (err == E_OK) {
        err = build_block(d->log, s->building, s->reader, &end, &job->fault);
    }
    if (err == E_OK && end && (err = build_end(s->building, snapshot_head(s->reader), true, &job->fault)) == E_OK) {
        statedb_close(s->building);
        s->building = NULL;
        snapshot_info(s->reader, &job->info);
        err = install_switch(d, job, s);
        return err == E_OK ? install_results(d, job) : err;
    }
    job->slot.again = err == E_OK;
    if (err != E_OK) {
        if (err == E_CORRUPT) {
            (void)unlink(part); /* what came is no good: it is fetched anew */
        }
        if (s != NULL) {
            statedb_close(s->building);
            s->building = NULL;
        }
        state_remove(d->new_state_path);
    }
    return err;
}

/* --- the job ------------------------------------------------------------------------------------------------------------------------------- */
void sitedisk_snapshot(struct sitedisk *d, struct sitelog_snapshot *job) {
    struct fault *f = &job->fault;
    job->slot.again = false;
    if (d->failed != E_OK) {
        job->err = fault_set(f, d->failed, "an earlier write failed; start again from the disk");
    } else if (job->kind == SITELOG_SNAPSHOT_WRITE) {
        job->err = write_slice(d, job);
    } else if (job->kind == SITELOG_SNAPSHOT_READ) {
        job->err = read_slice(d, job);
    } else if (job->kind == SITELOG_SNAPSHOT_RECEIVE) {
        job->err = snapshot_receive(d->snapshot_dir, &job->point, job->offset, job->total_bytes, blob_bytes(job->chunk),
                                    &job->resume_offset, f);
    } else if (job->kind == SITELOG_SNAPSHOT_PAYLOADS) {
        job->err = payloads_take(d, job);
    } else {
        job->err = install_slice(d, job);
        if (job->err == E_IO) {
            (void)sitedisk_write_failed(d, job->err);
        }
    }
    if (!job->slot.again) {
        sitedisk_snapshot_end(job);
    }
}

size_t sitedisk_snapshots(const struct sitedisk *d, struct sitelog_snapshot_info *out, size_t max) {
    size_t count = d->snapshots.count < max ? d->snapshots.count : max;
    memcpy(out, d->snapshots.at, count * sizeof *out);
    return count;
}

/* --- rebuilding and restoring, at start ------------------------------------------------------------------------------------------------------ */
static enum grey_error build_whole(struct logdb *log, const char *image, const char *state_path, bool restore, struct fault *f) {
    struct snapshot_reader *r = snapshot_open(image, f);
    if (r == NULL) {
        return f->code;
    }
    enum grey_error err = E_OK;
    if (restore && !snapshot_head(r)->self_contained) {
        err = fault_set(f, E_CONFIG, "%s is not self-contained; make one with 'greyctl snapshot create'", image);
    }
    state_remove(state_path);
    struct statedb *into = err == E_OK ? statedb_open(state_path, f) : NULL;
    err = err == E_OK && into == NULL ? f->code : err;
    for (bool end = false; err == E_OK && !end;) {
        err = build_block(log, into, r, &end, f);
    }
    if (err == E_OK) {
        err = build_end(into, snapshot_head(r), !restore, f);
    }
    if (err == E_OK && restore && (err = logdb_begin(log, f)) == E_OK) {
        /* No later term was seen, so the vote of that one is gone as well. */
        if ((err = logdb_vote(log, snapshot_head(r)->point.term, 0, f)) == E_OK &&
            (err = logdb_replace(log, &snapshot_head(r)->point, 0, f)) == E_OK && (err = logdb_installed(log, f)) == E_OK) {
            err = logdb_commit(log, f);
        } else {
            logdb_rollback(log);
        }
    }
    statedb_close(into);
    snapshot_close(r);
    if (err != E_OK) {
        state_remove(state_path);
    }
    return err;
}

/* The newest image that the log can go on from. */
enum grey_error sitedisk_rebuild_state(struct sitedisk *d, struct fault *f) {
    char path[PATH_BYTES];
    const struct logdb_facts *log = logdb_facts(d->log);
    for (size_t i = 0; i < d->snapshots.count; i++) {
        const struct sitelog_snapshot_info *info = &d->snapshots.at[i];
        struct raft_point here;
        struct fault why = {0};
        if (info->point.index < log->base.index || info->point.index > log->last ||
            logdb_point(d->log, info->point.index, &here, &why) != E_OK || memcmp(here.hash, info->point.hash, DIGEST_BYTES) != 0) {
            continue;
        }
        (void)snprintf(path, sizeof path, "%s/%s", d->snapshot_dir, info->name);
        enum grey_error err = build_whole(d->log, path, d->new_state_path, false, &why);
        if (err == E_OK) {
            statedb_close(d->state);
            d->state = NULL;
            if ((err = swap(d, f)) != E_OK) {
                return err;
            }
            log_warn("sitelog", "state_rebuilt", "index=%" PRIu64 " from=%s because=%s", info->point.index, info->name, f->text);
            return E_OK;
        }
        log_warn("sitelog", "snapshot_unusable", "file=%s %s", info->name, why.text);
    }
    return E_NOT_FOUND;
}

enum grey_error sitelog_restore(const char *file, const char *data_dir, const char *wal_dir, struct fault *f) {
    char log_path[PATH_BYTES], state_path[PATH_BYTES];
    struct fault unheard = {0};
    struct stat st;
    int lock_fd = -1;
    f = f == NULL ? &unheard : f;
    wal_dir = wal_dir == NULL || wal_dir[0] == '\0' ? data_dir : wal_dir;
    enum grey_error err = datadir_make(data_dir, f);
    if (err != E_OK || (err = datadir_make(wal_dir, f)) != E_OK || (err = datadir_lock(data_dir, &lock_fd, f)) != E_OK) {
        return err;
    }
    (void)snprintf(log_path, sizeof log_path, "%s/log.db", wal_dir);
    (void)snprintf(state_path, sizeof state_path, "%s/state.db", data_dir);
    if (stat(log_path, &st) == 0 || stat(state_path, &st) == 0) {
        err = fault_set(f, E_CONFIG, "%s holds the data of a node already", data_dir);
    } else {
        struct logdb *log = logdb_open(log_path, f);
        err = log == NULL ? f->code : build_whole(log, file, state_path, true, f);
        logdb_close(log);
        if (err != E_OK) {
            state_remove(log_path);
        }
    }
    close(lock_fd);
    return err;
}
