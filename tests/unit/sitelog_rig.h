/* sitelog_rig.h: a gateway's disk in a temporary directory with a loop, and jobs as plain calls; for the tests of the storage. */
#ifndef TESTS_SITELOG_RIG_H
#define TESTS_SITELOG_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/store/sitelog.h"
#include "federation/raft/entries.h"
#include "include/grey/must.h"
#include "platform/db.h"
#include "platform/loop.h"

/* --- a gateway's disk and its loop ------------------------------------------------------------------------------------------------ */
struct disk {
    char dir[64];
    struct loop *loop;
    struct table *table;
    struct sitelog *log;
    struct sitelog_start start;
    struct fault fault;
    struct raft_point last; /* of the chain that the test builds */
    uint32_t window, window_bytes, reserve_bytes;
    bool witness, rejoins;
    unsigned damages; /* that were told, and the last of them */
    enum sitelog_damage damage;
    char damage_text[240];
};

static inline void make_dir(struct disk *d) {
    memset(d, 0, sizeof *d);
    snprintf(d->dir, sizeof d->dir, "/tmp/grey-sitelog-XXXXXX");
    assert_non_null(mkdtemp(d->dir));
    d->window = 1000;
    d->window_bytes = 16u << 20;
    d->reserve_bytes = 65536;
}

static inline void on_damaged(void *context, enum sitelog_damage what, const char *detail) {
    struct disk *d = context;
    d->damages++;
    d->damage = what;
    (void)snprintf(d->damage_text, sizeof d->damage_text, "%s", detail);
}

static inline enum grey_error open_disk(struct disk *d) {
    char wal_dir[80];
    snprintf(wal_dir, sizeof wal_dir, "%s/log", d->dir);
    struct sitelog_options o = {.data_dir = d->dir,
                                .wal_dir = wal_dir,
                                .window_entries = d->window,
                                .window_bytes = d->window_bytes,
                                .snapshots_kept = 3,
                                .witness = d->witness,
                                .rejoins = d->rejoins,
                                .damaged = on_damaged,
                                .context = d,
                                .reserve_bytes = d->reserve_bytes};
    d->loop = loop_new(NULL);
    assert_non_null(d->loop);
    d->table = table_new(1 << 20);
    d->log = sitelog_open(d->loop, &o, d->table, &d->start, &d->fault);
    return d->log == NULL ? d->fault.code : E_OK;
}

static inline void close_disk(struct disk *d) {
    sitelog_start_free(&d->start);
    sitelog_close(d->log);
    table_free(d->table);
    loop_free(d->loop);
    d->log = NULL;
    d->table = NULL;
    d->loop = NULL;
}

static inline void reopen(struct disk *d) {
    close_disk(d);
    enum grey_error err = open_disk(d);
    if (err != E_OK) {
        fail_msg("%s: %s", error_name(err), d->fault.text);
    }
}

static inline void remove_dir(struct disk *d) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", d->dir);
    assert_int_equal(system(command), 0);
}

static inline void payload_text(raft_index index, size_t size, char *out) {
    int n = snprintf(out, size, "payload %" PRIu64 " ", index);
    memset(out + n, 'a' + (int)(index % 26), size - (size_t)n);
}

/* The next `count` entries of the chain, with payloads of `size` bytes that follow from the index. */
static inline struct entry *make_entries(struct disk *d, uint32_t count, size_t size, raft_term term) {
    struct entry *list = mem_new(count, sizeof *list);
    for (uint32_t i = 0; i < count; i++) {
        struct entry *e = &list[i];
        *e = (struct entry){.index = d->last.index + 1,
                            .term = term,
                            .epoch = term,
                            .time_ms = 1700000000000 + (int64_t)d->last.index,
                            .kind = 5,
                            .schema = 1};
        e->payload = size == 0 ? NULL : blob_new(size);
        if (size > 0) {
            payload_text(e->index, size, (char *)e->payload->data);
        }
        entry_seal(e, d->last.hash);
        d->last = (struct raft_point){.index = e->index, .term = e->term, .time_ms = e->time_ms};
        memcpy(d->last.hash, e->hash, DIGEST_BYTES);
    }
    return list;
}

struct wait {
    struct loop *loop;
    unsigned left;
};

static inline void stop_when_done(struct wait *w) {
    if (--w->left == 0) {
        loop_stop(w->loop);
    }
}

static inline void store_done(void *context, struct sitelog_store *job) {
    (void)job;
    stop_when_done(context);
}

static inline void flush_done(void *context, struct sitelog_flush *job) {
    (void)job;
    stop_when_done(context);
}

static inline void compact_done(void *context, struct sitelog_compact *job) {
    (void)job;
    stop_when_done(context);
}

static inline void store_give(struct disk *d, struct wait *w, struct sitelog_store *job, struct entry *entries, uint32_t count) {
    job->entries = entries;
    job->entry_count = count;
    job->done = store_done;
    job->context = w;
    builder_init(&job->wants, 1 << 20);
    assert_int_equal(sitelog_store(d->log, job), E_OK);
    w->left++;
}

static inline enum grey_error store(struct disk *d, struct entry *entries, uint32_t count) {
    struct wait w = {.loop = d->loop};
    struct sitelog_store job = {0};
    store_give(d, &w, &job, entries, count);
    loop_run(d->loop);
    d->fault = job.fault;
    return job.err;
}

static inline enum grey_error vote(struct disk *d, raft_term term, raft_id whom) {
    struct wait w = {.loop = d->loop};
    struct sitelog_store job = {.vote_given = true, .term = term, .vote = whom};
    store_give(d, &w, &job, NULL, 0);
    loop_run(d->loop);
    d->fault = job.fault;
    return job.err;
}

/* Flushes what the table holds, as of the end of the chain, or of `applied` when given. */
static inline enum grey_error flush(struct disk *d, const struct raft_point *applied, struct blob *members,
                                    raft_index members_index) {
    struct wait w = {.loop = d->loop, .left = 1};
    struct sitelog_flush job = {.applied = applied == NULL ? d->last : *applied,
                                .members = members,
                                .members_index = members_index,
                                .done = flush_done,
                                .context = &w};
    memset(job.state_hash, 0x5a, sizeof job.state_hash);
    assert_int_equal(table_flush_begin(d->table, &job.changes), E_OK);
    assert_int_equal(sitelog_flush(d->log, &job), E_OK);
    loop_run(d->loop);
    if (job.changes.count > 0) {
        table_flush_done(d->table, job.err == E_OK);
    }
    d->fault = job.fault;
    return job.err;
}

static inline enum grey_error compact(struct disk *d, struct raft_point point) {
    struct wait w = {.loop = d->loop, .left = 1};
    struct sitelog_compact job = {.point = point, .done = compact_done, .context = &w};
    assert_int_equal(sitelog_compact(d->log, &job), E_OK);
    loop_run(d->loop);
    d->fault = job.fault;
    return job.err;
}

/* A read whose results the test looks at in a callback. */
struct reading {
    struct wait w;
    void (*look)(struct sitelog_read *job, void *context);
    void *context;
    enum grey_error err;
    struct fault fault;
};

static inline void keep_done(void *context, struct sitelog_keep *job) {
    (void)job;
    stop_when_done(context);
}

static inline enum grey_error keep(struct disk *d, struct sitelog_keep *job) {
    struct wait w = {.loop = d->loop, .left = 1};
    job->done = keep_done;
    job->context = &w;
    assert_int_equal(sitelog_keep(d->log, job), E_OK);
    loop_run(d->loop);
    d->fault = job->fault;
    return job->err;
}

static inline void snapshot_done(void *context, struct sitelog_snapshot *job) {
    if (job->chunk != NULL && job->kind == SITELOG_SNAPSHOT_READ) {
        (void)blob_ref(job->chunk);
    }
    if (job->kind == SITELOG_SNAPSHOT_INSTALL) { /* for the test: the number of rows instead of the rows */
        job->offset = sitelog_row_count(job->rows);
    }
    stop_when_done(context);
}

static inline enum grey_error snapshot(struct disk *d, struct sitelog_snapshot *job) {
    struct wait w = {.loop = d->loop, .left = 1};
    job->done = snapshot_done;
    job->context = &w;
    assert_int_equal(sitelog_snapshot(d->log, job), E_OK);
    loop_run(d->loop);
    d->fault = job->fault;
    return job->err;
}

static inline void read_done(void *context, struct sitelog_read *job) {
    struct reading *r = context;
    r->err = job->err;
    r->fault = job->fault;
    if (r->look != NULL) {
        r->look(job, r->context);
    }
    stop_when_done(&r->w);
}

static inline enum grey_error read_job(struct disk *d, struct sitelog_read *job, void (*look)(struct sitelog_read *, void *),
                                       void *context) {
    struct reading r = {.w = {.loop = d->loop, .left = 1}, .look = look, .context = context};
    job->done = read_done;
    job->context = &r;
    assert_int_equal(sitelog_read(d->log, job), E_OK);
    loop_run(d->loop);
    d->fault = r.fault;
    return r.err;
}

static inline void count_payloads(struct sitelog_read *job, void *context) {
    uint32_t *there = context;
    for (uint32_t i = 0; job->err == E_OK && i < job->index_count; i++) {
        *there += job->payloads[i] != NULL;
    }
}

static inline bool has_payload(struct disk *d, raft_index index) {
    struct sitelog_read job = {.kind = SITELOG_PAYLOADS, .index_count = 1, .indexes = mem_new(1, sizeof(raft_index))};
    uint32_t there = 0;
    job.indexes[0] = index;
    assert_int_equal(read_job(d, &job, count_payloads, &there), E_OK);
    return there == 1;
}

static inline void put_row(struct disk *d, enum table_id id, uint64_t key, const char *value, raft_index ref) {
    uint8_t k[8];
    bytes_put_be64(k, key);
    assert_int_equal(table_put(d->table, id, bytes_of(k, 8), bytes_str(value), ref), E_OK);
}

static inline void delete_row(struct disk *d, enum table_id id, uint64_t key) {
    uint8_t k[8];
    bytes_put_be64(k, key);
    assert_int_equal(table_delete(d->table, id, bytes_of(k, 8)), E_OK);
}

static inline void flip(const char *path, off_t at) {
    uint8_t byte;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 0x10;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

#endif
