/* The storage of a gateway: what it promised is there after any stop, and what is damaged is said. */
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

#include "agent/sitelog.h"
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
    uint32_t window;
};

static void make_dir(struct disk *d) {
    memset(d, 0, sizeof *d);
    snprintf(d->dir, sizeof d->dir, "/tmp/grey-sitelog-XXXXXX");
    assert_non_null(mkdtemp(d->dir));
    d->window = 1000;
}

static enum grey_error open_disk(struct disk *d) {
    char wal_dir[80];
    snprintf(wal_dir, sizeof wal_dir, "%s/log", d->dir);
    struct sitelog_options o = {
        .data_dir = d->dir, .wal_dir = wal_dir, .window_entries = d->window, .snapshots_kept = 3, .reserve_bytes = 65536};
    d->loop = loop_new(NULL);
    assert_non_null(d->loop);
    d->table = table_new(1 << 20);
    d->log = sitelog_open(d->loop, &o, d->table, &d->start, &d->fault);
    return d->log == NULL ? d->fault.code : E_OK;
}

static void close_disk(struct disk *d) {
    sitelog_start_free(&d->start);
    sitelog_close(d->log);
    table_free(d->table);
    loop_free(d->loop);
    d->log = NULL;
    d->table = NULL;
    d->loop = NULL;
}

static void reopen(struct disk *d) {
    close_disk(d);
    enum grey_error err = open_disk(d);
    if (err != E_OK) {
        fail_msg("%s: %s", error_name(err), d->fault.text);
    }
}

static void remove_dir(struct disk *d) {
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", d->dir);
    assert_int_equal(system(command), 0);
}

static void payload_text(raft_index index, size_t size, char *out) {
    int n = snprintf(out, size, "payload %" PRIu64 " ", index);
    memset(out + n, 'a' + (int)(index % 26), size - (size_t)n);
}

/* The next `count` entries of the chain, with payloads of `size` bytes that follow from the index. */
static struct entry *make_entries(struct disk *d, uint32_t count, size_t size, raft_term term) {
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

static void stop_when_done(struct wait *w) {
    if (--w->left == 0) {
        loop_stop(w->loop);
    }
}

static void store_done(void *context, struct sitelog_store *job) {
    (void)job;
    stop_when_done(context);
}

static void flush_done(void *context, struct sitelog_flush *job) {
    (void)job;
    stop_when_done(context);
}

static void compact_done(void *context, struct sitelog_compact *job) {
    (void)job;
    stop_when_done(context);
}

static void store_give(struct disk *d, struct wait *w, struct sitelog_store *job, struct entry *entries, uint32_t count) {
    job->entries = entries;
    job->entry_count = count;
    job->done = store_done;
    job->context = w;
    builder_init(&job->wants, 1 << 20);
    assert_int_equal(sitelog_store(d->log, job), E_OK);
    w->left++;
}

static enum grey_error store(struct disk *d, struct entry *entries, uint32_t count) {
    struct wait w = {.loop = d->loop};
    struct sitelog_store job = {0};
    store_give(d, &w, &job, entries, count);
    loop_run(d->loop);
    d->fault = job.fault;
    return job.err;
}

static enum grey_error vote(struct disk *d, raft_term term, raft_id whom) {
    struct wait w = {.loop = d->loop};
    struct sitelog_store job = {.vote_given = true, .term = term, .vote = whom};
    store_give(d, &w, &job, NULL, 0);
    loop_run(d->loop);
    d->fault = job.fault;
    return job.err;
}

/* Flushes what the table holds, as of the end of the chain, or of `applied` when given. */
static enum grey_error flush(struct disk *d, const struct raft_point *applied, struct blob *members, raft_index members_index) {
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

static enum grey_error compact(struct disk *d, struct raft_point point) {
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

static void read_done(void *context, struct sitelog_read *job) {
    struct reading *r = context;
    r->err = job->err;
    r->fault = job->fault;
    if (r->look != NULL) {
        r->look(job, r->context);
    }
    stop_when_done(&r->w);
}

static enum grey_error read_job(struct disk *d, struct sitelog_read *job, void (*look)(struct sitelog_read *, void *),
                                void *context) {
    struct reading r = {.w = {.loop = d->loop, .left = 1}, .look = look, .context = context};
    job->done = read_done;
    job->context = &r;
    assert_int_equal(sitelog_read(d->log, job), E_OK);
    loop_run(d->loop);
    d->fault = r.fault;
    return r.err;
}

static void count_payloads(struct sitelog_read *job, void *context) {
    uint32_t *there = context;
    for (uint32_t i = 0; job->err == E_OK && i < job->index_count; i++) {
        *there += job->payloads[i] != NULL;
    }
}

static bool has_payload(struct disk *d, raft_index index) {
    struct sitelog_read job = {.kind = SITELOG_PAYLOADS, .index_count = 1, .indexes = mem_new(1, sizeof(raft_index))};
    uint32_t there = 0;
    job.indexes[0] = index;
    assert_int_equal(read_job(d, &job, count_payloads, &there), E_OK);
    return there == 1;
}

static void put_row(struct disk *d, enum table_id id, uint64_t key, const char *value, raft_index ref) {
    uint8_t k[8];
    bytes_put_be64(k, key);
    assert_int_equal(table_put(d->table, id, bytes_of(k, 8), bytes_str(value), ref), E_OK);
}

static void delete_row(struct disk *d, enum table_id id, uint64_t key) {
    uint8_t k[8];
    bytes_put_be64(k, key);
    assert_int_equal(table_delete(d->table, id, bytes_of(k, 8)), E_OK);
}

/* --- opening ------------------------------------------------------------------------------------------------------------------------ */
/* If this failed, a gateway would forget who it is, or its vote, at the next start. */
static void what_was_said_is_there_after_a_restart(void **state) {
    (void)state;
    struct disk d;
    make_dir(&d);
    assert_int_equal(open_disk(&d), E_OK);
    assert_true(d.start.fresh);
    assert_true(d.start.self != 0);
    assert_int_equal(d.start.start_count, 1);
    raft_id self = d.start.self;
    struct grey_name node = {"gw-1"}, site = {"plant"};
    assert_int_equal(sitelog_claim(d.log, &node, &site, &d.fault), E_OK);
    assert_int_equal(vote(&d, 7, 0xfedcba9876543210), E_OK);
    assert_int_equal(store(&d, make_entries(&d, 200, 100, 7), 200), E_OK);
    reopen(&d);
    assert_false(d.start.fresh);
    assert_int_equal(d.start.self, self);
    assert_int_equal(d.start.start_count, 2);
    assert_string_equal(d.start.node.text, "gw-1");
    assert_string_equal(d.start.site.text, "plant");
    assert_int_equal(d.start.raft.term, 7);
    assert_true(d.start.raft.vote == 0xfedcba9876543210);
    assert_int_equal(d.start.raft.entry_count, 200);
    assert_null(d.start.raft.members);
    assert_memory_equal(d.start.raft.entries[199].hash, d.last.hash, DIGEST_BYTES);
    assert_int_equal(d.start.raft.entries[199].time_ms, d.last.time_ms);
    struct stat st;
    char path[128];
    snprintf(path, sizeof path, "%s/log/log.db", d.dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    snprintf(path, sizeof path, "%s/log/log.db-wal", d.dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    snprintf(path, sizeof path, "%s/log/log.db-shm", d.dir);
    assert_int_equal(stat(path, &st), -1);
    close_disk(&d);
    remove_dir(&d);
}

/* If this failed, two greyd on one directory would ruin it. */
static void a_second_process_is_refused(void **state) {
    (void)state;
    struct disk d;
    make_dir(&d);
    assert_int_equal(open_disk(&d), E_OK);
    struct disk other = d;
    assert_int_equal(open_disk(&other), E_LOCKED);
    char pid[32];
    snprintf(pid, sizeof pid, "process %ld", (long)getpid());
    assert_non_null(strstr(other.fault.text, pid));
    table_free(other.table);
    loop_free(other.loop);
    close_disk(&d);
    remove_dir(&d);
}

/* If this failed, a follower would keep entries that the site never agreed on. */
static void truncation_and_new_entries_are_one_deed(void **state) {
    (void)state;
    struct disk d;
    make_dir(&d);
    assert_int_equal(open_disk(&d), E_OK);
    assert_int_equal(store(&d, make_entries(&d, 100, 40, 1), 100), E_OK);
    struct raft_point at_100 = d.last;
    assert_int_equal(store(&d, make_entries(&d, 50, 40, 1), 50), E_OK);
    d.last = at_100;
    struct wait w = {.loop = d.loop};
    struct sitelog_store job = {.truncate_from = 101};
    store_give(&d, &w, &job, make_entries(&d, 10, 40, 2), 10);
    loop_run(d.loop);
    assert_int_equal(job.err, E_OK);
    assert_null(job.entries);
    reopen(&d);
    assert_int_equal(d.start.raft.entry_count, 110);
    assert_int_equal(d.start.raft.entries[109].term, 2);
    close_disk(&d);
    remove_dir(&d);
}

/* If this failed, each waiting request would cost a sync of its own: slow answers and worn flash. */
static void waiting_stores_share_one_sync(void **state) {
    (void)state;
    struct disk d;
    make_dir(&d);
    assert_int_equal(open_disk(&d), E_OK);
    assert_int_equal(store(&d, make_entries(&d, 1, 300, 1), 1), E_OK); /* the file has its first log by now */
    enum { ROUNDS = 5, JOBS = 64 };
    struct sitelog_store jobs[JOBS];
    for (int round = 0; round < ROUNDS; round++) {
        struct db_counts before, after;
        struct sitelog_usage u0, u1;
        struct wait w = {.loop = d.loop};
        sitelog_usage(d.log, &u0);
        db_count(&before);
        memset(jobs, 0, sizeof jobs);
        for (int i = 0; i < JOBS; i++) {
            store_give(&d, &w, &jobs[i], make_entries(&d, 1, 300, 1), 1);
        }
        loop_run(d.loop);
        db_count(&after);
        sitelog_usage(d.log, &u1);
        assert_int_equal(after.syncs - before.syncs, u1.stores - u0.stores);
        assert_true(u1.stores - u0.stores < JOBS / 4);
        for (int i = 0; i < JOBS; i++) {
            assert_int_equal(jobs[i].err, E_OK);
        }
    }
    reopen(&d);
    assert_int_equal(d.start.raft.entry_count, 1 + ROUNDS * JOBS);
    close_disk(&d);
    remove_dir(&d);
}

static void look_at_entries(struct sitelog_read *job, void *context) {
    raft_index from = *(raft_index *)context;
    assert_int_equal(job->err, E_OK);
    assert_true(job->entry_count >= 1);
    for (uint32_t i = 0; i < job->entry_count; i++) {
        char text[300];
        payload_text(from + i, sizeof text, text);
        assert_int_equal(job->entries[i].index, from + i);
        assert_int_equal(job->entries[i].payload->size, sizeof text);
        assert_memory_equal(job->entries[i].payload->data, text, sizeof text);
    }
    *(raft_index *)context = from + job->entry_count;
}

/* If this failed, a follower that lags could not catch up from the leader's disk. */
static void entries_are_read_back_verified(void **state) {
    (void)state;
    struct disk d;
    make_dir(&d);
    assert_int_equal(open_disk(&d), E_OK);
    assert_int_equal(store(&d, make_entries(&d, 1000, 300, 3), 1000), E_OK);
    for (raft_index at = 1; at <= 1000;) {
        struct sitelog_read job = {.kind = SITELOG_ENTRIES, .from = at, .to = 1000, .bytes_max = 10000};
        assert_int_equal(read_job(&d, &job, look_at_entries, &at), E_OK);
    }
    struct sitelog_read beyond = {.kind = SITELOG_ENTRIES, .from = 1001, .to = 1001, .bytes_max = 10};
    assert_int_equal(read_job(&d, &beyond, NULL, NULL), E_NOT_FOUND);
    close_disk(&d);
    remove_dir(&d);
}

/* --- state ---------------------------------------------------------------------------------------------------------------------------- */
static void look_at_rows(struct sitelog_read *job, void *context) {
    struct sitelog_row row;
    (void)context;
    assert_int_equal(sitelog_row_count(job->rows), 3);
    sitelog_row_get(job->rows, 0, &row);
    assert_true(row.found && bytes_equal_str(row.value, "five") && row.ref == 5 && row.key.size == 8);
    sitelog_row_get(job->rows, 1, &row);
    assert_false(row.found);
    sitelog_row_get(job->rows, 2, &row);
    assert_true(row.found && row.value.size == 0 && row.ref == 0);
}

static void look_at_scan(struct sitelog_read *job, void *context) {
    struct sitelog_row row;
    (void)context;
    assert_int_equal(sitelog_row_count(job->rows), 10);
    assert_true(job->more);
    sitelog_row_get(job->rows, 0, &row);
    assert_int_equal(bytes_get_be64(row.key.data), 105);
    sitelog_row_get(job->rows, 9, &row);
    assert_int_equal(bytes_get_be64(row.key.data), 114);
}

/* If this failed, the state would not be what the applied position says, and the node would drift from its site. */
static void flushed_rows_and_their_position_come_back(void **state) {
    (void)state;
    struct disk d;
    make_dir(&d);
    assert_int_equal(open_disk(&d), E_OK);
    assert_int_equal(store(&d, make_entries(&d, 300, 40, 1), 300), E_OK);
    put_row(&d, TABLE_KV, 5, "five", 5);
    put_row(&d, TABLE_KV, 6, "six", 6);
    put_row(&d, TABLE_KV, 7, "", 0);
    put_row(&d, TABLE_META, 1, "meta", 0);
    for (uint64_t i = 0; i < 200; i++) {
        put_row(&d, TABLE_OUTBOX, i, "x", i + 1);
    }
    struct raft_members members = {.count = 1,
                                   .at[0] = {.id = 9, .voter = true, .node = {"a"}, .peer_address = "a:1", .http_address = "a:2"}};
    struct builder b;
    builder_init(&b, 4096);
    raft_members_encode(&members, &b);
    struct blob *blob = builder_blob(&b);
    builder_free(&b);
    assert_int_equal(flush(&d, NULL, blob, 4), E_OK);
    blob_unref(blob);
    delete_row(&d, TABLE_KV, 6);
    uint8_t low[8], high[8];
    bytes_put_be64(low, 20), bytes_put_be64(high, 30);
    assert_int_equal(table_delete_range(d.table, TABLE_OUTBOX, bytes_of(low, 8), bytes_of(high, 8)), E_OK);
    assert_int_equal(flush(&d, NULL, NULL, 0), E_OK);
    struct raft_point applied = d.last;
    assert_int_equal(store(&d, make_entries(&d, 10, 40, 1), 10), E_OK);
    d.window = 20;
    reopen(&d);
    assert_int_equal(d.start.applied.index, applied.index);
    assert_memory_equal(d.start.applied.hash, applied.hash, DIGEST_BYTES);
    assert_int_equal(d.start.state_hash[31], 0x5a);
    assert_int_equal(d.start.raft.members->count, 1);
    assert_int_equal(d.start.raft.members_index, 4);
    assert_int_equal(d.start.raft.window_base.index, 280);
    assert_int_equal(d.start.raft.entry_count, 30);
    struct bytes value;
    uint8_t key[8];
    bytes_put_be64(key, 1);
    assert_int_equal(table_get(d.table, TABLE_META, bytes_of(key, 8), &value), TABLE_FOUND);
    assert_true(bytes_equal_str(value, "meta"));

    struct sitelog_read rows = {.kind = SITELOG_ROWS};
    builder_init(&rows.wants, 1000);
    for (uint64_t i = 5; i <= 7; i++) {
        bytes_put_be64(key, i);
        sitelog_want(&rows.wants, TABLE_KV, bytes_of(key, 8));
    }
    assert_int_equal(read_job(&d, &rows, look_at_rows, NULL), E_OK);
    struct sitelog_read scan = {.kind = SITELOG_SCAN, .table = TABLE_OUTBOX, .low_size = 8, .high_size = 0, .rows_max = 10};
    bytes_put_be64(scan.low, 105);
    assert_int_equal(read_job(&d, &scan, look_at_scan, NULL), E_OK);
    close_disk(&d);
    remove_dir(&d);
}

static void look_at_live(struct sitelog_read *job, void *context) {
    raft_index *sum = context;
    for (uint32_t i = 0; i < job->entry_count; i++) {
        sum[0] += job->entries[i].index;
        sum[1]++;
    }
}

/* If this failed, queued events would lose their data at a compaction, or the disk would fill with what nobody needs. */
static void compaction_keeps_what_rows_refer_to(void **state) {
    (void)state;
    struct disk d;
    make_dir(&d);
    assert_int_equal(open_disk(&d), E_OK);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(store(&d, make_entries(&d, 1000, 1000, 1), 1000), E_OK);
    }
    for (uint64_t i = 100; i <= 4000; i += 100) {
        put_row(&d, TABLE_OUTBOX, 2 * i, "x", i); /* two rows share a payload */
        put_row(&d, TABLE_OUTBOX, 2 * i + 1, "y", i);
    }
    assert_int_equal(flush(&d, NULL, NULL, 0), E_OK);
    struct raft_point point = d.last;
    assert_int_equal(store(&d, make_entries(&d, 10, 100, 1), 10), E_OK);
    assert_int_equal(compact(&d, point), E_OK);
    assert_true(has_payload(&d, 100) && has_payload(&d, 4000) && has_payload(&d, 4001));
    assert_false(has_payload(&d, 101) || has_payload(&d, 3999));
    raft_index sum[2] = {0};
    struct sitelog_read live = {.kind = SITELOG_LIVE, .from = 1, .to = 3000, .bytes_max = 1 << 20};
    assert_int_equal(read_job(&d, &live, look_at_live, sum), E_OK);
    assert_int_equal(sum[1], 30);
    struct sitelog_read gone = {.kind = SITELOG_ENTRIES, .from = 4000, .to = 4001, .bytes_max = 10};
    assert_int_equal(read_job(&d, &gone, NULL, NULL), E_NOT_FOUND);

    /* One row goes: the other keeps the payload.  Both: it goes with a later store. */
    delete_row(&d, TABLE_OUTBOX, 200);
    assert_int_equal(flush(&d, &d.last, NULL, 0), E_OK);
    assert_int_equal(store(&d, make_entries(&d, 1, 100, 1), 1), E_OK);
    assert_true(has_payload(&d, 100));
    delete_row(&d, TABLE_OUTBOX, 201);
    assert_int_equal(flush(&d, &d.last, NULL, 0), E_OK);
    reopen(&d); /* the note of it survives */
    assert_true(has_payload(&d, 100));
    assert_int_equal(store(&d, make_entries(&d, 1, 100, 1), 1), E_OK);
    assert_false(has_payload(&d, 100));
    reopen(&d);
    assert_int_equal(d.start.raft.base.index, 4000);
    assert_memory_equal(d.start.raft.base.hash, point.hash, DIGEST_BYTES);
    assert_int_equal(d.start.raft.entry_count, 12);
    assert_true(has_payload(&d, 200));

    /* The rest goes: the file gives its pages back. */
    uint8_t low[8] = {0}, high[8];
    memset(high, 0xff, 8);
    struct sitelog_usage before, after;
    sitelog_usage(d.log, &before);
    assert_int_equal(table_delete_range(d.table, TABLE_OUTBOX, bytes_of(low, 8), bytes_of(high, 8)), E_OK);
    assert_int_equal(flush(&d, NULL, NULL, 0), E_OK);
    for (int i = 0; i < 300; i++) {
        assert_int_equal(store(&d, make_entries(&d, 1, 40, 1), 1), E_OK);
    }
    assert_false(has_payload(&d, 200) || has_payload(&d, 4000));
    reopen(&d);
    sitelog_usage(d.log, &after);
    assert_true(after.log_bytes < before.log_bytes / 2);
    close_disk(&d);
    remove_dir(&d);
}

/* --- crashes ---------------------------------------------------------------------------------------------------------------------- */
/* If this failed, a power cut or a kill would take back what peers and clients were promised (FAULTS P1, P15). */
static void a_killed_process_keeps_its_promises(void **state) {
    (void)state;
    struct disk d;
    make_dir(&d);
    raft_index promised = 0;
    for (unsigned round = 0; round < 12; round++) {
        int ends[2];
        assert_int_equal(pipe(ends), 0);
        pid_t child = fork();
        if (child == 0) {
            close(ends[0]);
            if (open_disk(&d) != E_OK) {
                dprintf(2, "%s\n", d.fault.text);
                _exit(3);
            }
            d.last = d.start.raft.base;
            if (d.start.raft.entry_count > 0) {
                const struct entry *e = &d.start.raft.entries[d.start.raft.entry_count - 1];
                d.last = (struct raft_point){.index = e->index, .term = e->term, .time_ms = e->time_ms};
                memcpy(d.last.hash, e->hash, DIGEST_BYTES);
            }
            for (raft_term term = d.start.raft.term + 1;; term++) {
                uint32_t count = 1 + (uint32_t)term % 7;
                raft_term t = term;
                if (vote(&d, term, term * 3) != E_OK || store(&d, make_entries(&d, count, 200, term), count) != E_OK ||
                    write(ends[1], &t, sizeof t) != sizeof t || write(ends[1], &d.last.index, 8) != 8) {
                    _exit(4);
                }
                if (term % 5 == 0) {
                    put_row(&d, TABLE_KV, term, "v", d.last.index);
                    if (flush(&d, NULL, NULL, 0) != E_OK) {
                        _exit(5);
                    }
                }
                if (term % 40 == 0 && compact(&d, d.last) != E_OK) {
                    _exit(6);
                }
            }
        }
        close(ends[1]);
        usleep(20000 + 13000 * (round * 7 % 12));
        kill(child, SIGKILL);
        int status;
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status));
        uint64_t said[2], term = 0;
        while (read(ends[0], said, sizeof said) == sizeof said) {
            term = said[0], promised = said[1];
        }
        close(ends[0]);
        enum grey_error err = open_disk(&d);
        if (err != E_OK) {
            fail_msg("%s: %s", error_name(err), d.fault.text);
        }
        assert_true(d.start.raft.term >= term);
        assert_true(d.start.raft.vote == d.start.raft.term * 3);
        assert_true(d.start.raft.window_base.index + d.start.raft.entry_count >= promised);
        close_disk(&d);
    }
    assert_true(promised > 100);
    remove_dir(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_said_is_there_after_a_restart),  cmocka_unit_test(a_second_process_is_refused),
        cmocka_unit_test(truncation_and_new_entries_are_one_deed), cmocka_unit_test(waiting_stores_share_one_sync),
        cmocka_unit_test(entries_are_read_back_verified),          cmocka_unit_test(flushed_rows_and_their_position_come_back),
        cmocka_unit_test(compaction_keeps_what_rows_refer_to),     cmocka_unit_test(a_killed_process_keeps_its_promises),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
