/* Each call of SQLite to a gateway's disk fails once, and from then on: the n-th read, write, truncation, sync or removal, as a faulty medium, a full
 * one, want of memory, or a lock.  If this failed, an error at the wrong moment would cost what was promised, or a gateway would need a hand
 * although its disk is well again.  GREY_CUTS=all: each call, not some. */
#include "agent/store/salvage.h"
#include <limits.h>

#include "tests/unit/scarce_rig.h"
#include "tests/unit/sitelog_rig.h"

struct nth {
    bool memory; /* not calls of SQLite, but allocations of all libraries: in the storage thread, and while a disk is opened */
    enum db_io io;
    enum grey_error answer;
    unsigned left;
    bool for_ever, hit;
};

struct promise {
    raft_term term;
    raft_index last, applied;
    uint64_t receipt;
};

static const char *doing; /* for messages */

static enum grey_error fail_nth(void *context, enum db_io io, const char *path, uint64_t offset, struct bytes data) {
    (void)path, (void)offset, (void)data;
    struct nth *n = context;
    if (n->memory || io != n->io || (n->hit && !n->for_ever)) {
        return E_OK;
    }
    if (n->left > 0) {
        n->left--;
        return E_OK;
    }
    n->hit = true;
    return n->answer;
}

static enum grey_error keep_batch(struct disk *d, uint64_t *receipt) {
    uint8_t id[KEEPDB_ID_BYTES] = {(uint8_t)*receipt};
    struct sitelog_keep job = {.kind = SITELOG_KEEP_ADD, .batch = blob_copy(bytes_str("a batch"))};
    builder_init(&job.ids, 64);
    builder_add(&job.ids, bytes_of(id, sizeof id));
    (void)keep(d, &job);
    blob_unref(job.batch);
    builder_free(&job.ids);
    if (job.err == E_OK) {
        *receipt = job.receipt;
    }
    return job.err;
}

static enum grey_error write_image(struct disk *d, struct raft_point *point) {
    struct sitelog_snapshot job = {.kind = SITELOG_SNAPSHOT_WRITE};
    (void)snapshot(d, &job);
    *point = job.info.point;
    return job.err;
}

/* A store that met a full disk keeps what it was given. */
static enum grey_error store_some(struct disk *d, uint32_t count, raft_term term) {
    struct wait w = {.loop = d->loop};
    struct sitelog_store job = {0};
    struct raft_point before = d->last;
    store_give(d, &w, &job, make_entries(d, count, 200, term), count);
    loop_run(d->loop);
    d->fault = job.fault;
    if (job.err == E_DISK_FULL) {
        for (uint32_t i = 0; i < count; i++) {
            blob_unref(job.entries[i].payload);
        }
        mem_free(job.entries);
        builder_free(&job.wants);
    }
    d->last = job.err == E_OK ? d->last : before;
    return job.err;
}

static enum grey_error vote_for(struct disk *d, raft_term term) {
    struct wait w = {.loop = d->loop};
    struct sitelog_store job = {.vote_given = true, .term = term, .vote = term * 3};
    store_give(d, &w, &job, NULL, 0);
    loop_run(d->loop);
    d->fault = job.fault;
    if (job.err == E_DISK_FULL) {
        builder_free(&job.wants);
    }
    return job.err;
}

/* Until the first error, as greyd: then it is closed.  Full disks are outlived. */
static enum grey_error work(struct disk *d, struct promise *p, raft_term from) {
    enum grey_error err = E_OK;
    for (raft_term term = from; term < from + 4 && err == E_OK; term++) {
        doing = "vote";
        err = vote_for(d, term);
        p->term = err == E_OK ? term : p->term;
        doing = err == E_OK ? "store" : doing;
        err = err != E_OK ? err : store_some(d, 1 + (uint32_t)term % 5 * 3, term);
        p->last = err == E_OK ? d->last.index : p->last;
        for (uint64_t i = 0; i < 5 && err == E_OK; i++) {
            put_row(d, TABLE_KV, term * 7919 + i * 104729, "some value of a key", 0);
            put_row(d, TABLE_OUTBOX, d->last.index, "x", d->last.index);
        }
        doing = err == E_OK ? "flush" : doing;
        err = err != E_OK ? err : flush(d, NULL, NULL, 0);
        p->applied = err == E_OK ? d->last.index : p->applied;
        doing = err == E_OK ? "keep" : doing;
        err = err != E_OK ? err : keep_batch(d, &p->receipt);
        if (err == E_OK && term % 2 == 0) {
            struct raft_point point;
            doing = "image";
            err = write_image(d, &point);
            doing = err == E_OK ? "compaction" : doing;
            err = err != E_OK ? err : compact(d, point);
        }
    }
    return err;
}

static enum grey_error claim(struct disk *d) {
    struct grey_name node = {"n1"}, site = {"site"};
    return sitelog_claim(d->log, &node, &site, &d->fault);
}

static void give_up(struct disk *d) {
    table_free(d->table);
    loop_free(d->loop);
}

/* The disk is well again: the gateway starts by itself, as agent/node/mending.h does where a read seemed to find damage.  False: a new one, which
 * promised nothing yet, may be refused. */
static bool start_again(struct disk *d, bool promised, const char *what) {
    char wal_dir[96];
    struct fault f = {0};
    (void)snprintf(wal_dir, sizeof wal_dir, "%s/log", d->dir);
    enum grey_error err = open_disk(d);
    if (err == E_CORRUPT && salvage_marked(wal_dir)) {
        give_up(d);
        struct salvage *s = salvage_open(d->dir, wal_dir, &f);
        if (s == NULL && !promised) {
            return false;
        }
        if (s == NULL || salvage_missing(s) != 0 || salvage_finish(s, &f) != E_OK) {
            fail_msg("%s: mending: %s", what, f.text);
        }
        salvage_close(s);
        err = open_disk(d);
    }
    if (err != E_OK) {
        fail_msg("%s: %s: %s", what, error_name(err), d->fault.text);
    }
    return true;
}

/* A state that seemed damaged is built anew from an image, and the entries behind that are applied again. */
static void check(struct disk *d, const struct promise *p, bool rebuilt, const char *what) {
    raft_index last = d->start.raft.window_base.index + d->start.raft.entry_count;
    if (d->start.raft.term < p->term || (d->start.raft.term > 0 && d->start.raft.vote != d->start.raft.term * 3) ||
        last < p->last ||
        (d->start.applied.index < p->applied && !(rebuilt && d->start.raft.window_base.index <= d->start.applied.index))) {
        fail_msg("%s: term %" PRIu64 " of %" PRIu64 ", entries to %" PRIu64 " of %" PRIu64 ", applied %" PRIu64 " of %" PRIu64,
                 what, d->start.raft.term, p->term, last, p->last, d->start.applied.index, p->applied);
    }
    d->last = d->start.raft.window_base;
    if (d->start.raft.entry_count > 0) {
        const struct entry *e = &d->start.raft.entries[d->start.raft.entry_count - 1];
        d->last = (struct raft_point){.index = e->index, .term = e->term, .time_ms = e->time_ms};
        memcpy(d->last.hash, e->hash, DIGEST_BYTES);
    }
    struct promise more = *p;
    if (work(d, &more, d->start.raft.term + 1) != E_OK || more.receipt < p->receipt + 4) {
        fail_msg("%s: it does not go on: %s", what, d->fault.text);
    }
}

/* What the storage asks for itself may fail; what the test needs must not. */
static enum grey_error open_scarce(struct disk *d) {
    char wal_dir[80];
    (void)snprintf(wal_dir, sizeof wal_dir, "%s/log", d->dir);
    struct sitelog_options o = {.data_dir = d->dir,
                                .wal_dir = wal_dir,
                                .window_entries = d->window,
                                .window_bytes = d->window_bytes,
                                .snapshots_kept = 3,
                                .damaged = on_damaged,
                                .context = d,
                                .reserve_bytes = d->reserve_bytes};
    d->loop = loop_new(NULL);
    d->table = table_new(1 << 20);
    scarce_exempt--;
    d->log = sitelog_open(d->loop, &o, d->table, &d->start, &d->fault);
    scarce_exempt++;
    return d->log == NULL ? d->fault.code : E_OK;
}

/* False: there are fewer such calls. */
static bool try_one(struct nth *n, bool twice, const char *what) {
    struct disk d;
    struct promise p = {0};
    make_dir(&d);
    if (access("/dev/shm", W_OK) == 0) { /* what is tried here is not how long a disk takes */
        remove_dir(&d);
        (void)strcpy(d.dir, "/dev/shm/grey-errors-XXXXXX");
        assert_non_null(mkdtemp(d.dir));
    }
    d.window = 100000;
    if (twice) { /* the faulty start is the second one */
        assert_int_equal(open_disk(&d), E_OK);
        assert_int_equal(claim(&d), E_OK);
        assert_int_equal(work(&d, &p, 1), E_OK);
        close_disk(&d);
    }
    db_inject(&(struct db_faults){.ask = fail_nth, .context = n});
    if (n->memory) {
        scarce_begin((long)n->left + 1, n->for_ever ? LONG_MAX : 1);
    }
    doing = "opening";
    enum grey_error err = n->memory ? open_scarce(&d) : open_disk(&d);
    if (err == E_OK) {
        err = claim(&d);
        err = err != E_OK ? err : work(&d, &p, p.term + 1);
        if (err == E_DISK_FULL && !n->for_ever) { /* there is room again, and it goes on */
            if (d.start.raft.entry_count > 0 || p.last > 0) {
                err = work(&d, &p, p.term + 2);
            }
        }
        close_disk(&d);
    } else {
        give_up(&d);
    }
    if (err != E_OK && err != n->answer && !(err == E_IO && n->answer != E_DISK_FULL) && err != E_CORRUPT) {
        fail_msg("%s: %s ended with %s: %s", what, doing, error_name(err), d.fault.text);
    }
    if (err != E_OK && strlen(d.fault.text) < 5) {
        fail_msg("%s: no word about %s of %s", what, error_name(err), doing);
    }
    db_inject(NULL);
    n->hit = n->memory ? scarce_end() : n->hit;
    if (start_again(&d, p.term > 0, what)) {
        check(&d, &p, n->answer == E_CORRUPT, what);
        close_disk(&d);
    }
    remove_dir(&d);
    return n->hit;
}

static void each_call_fails(enum db_io io, const char *name, const enum grey_error *answers, size_t answer_count) {
    const char *all = getenv("GREY_CUTS");
    unsigned step = all != NULL && strcmp(all, "all") == 0 ? 1 : 0, tried = 0;
    for (size_t a = 0; a < answer_count; a++) {
        for (int for_ever = 0; for_ever < 2; for_ever++) {
            for (int twice = 0; twice < 2; twice++) {
                bool hit = true;
                for (unsigned n = step == 0 ? (unsigned)(a * 5 + (unsigned)for_ever * 3) : 0; hit;
                     n += step == 0 ? 1 + n / 3 + 7 : step) {
                    char what[160];
                    struct nth nth = {.io = io, .answer = answers[a], .left = n, .for_ever = for_ever == 1};
                    (void)snprintf(what, sizeof what, "%s %u of a %s start answers %s %s", name, n, twice ? "second" : "first",
                                   error_name(answers[a]), for_ever ? "for ever" : "once");
                    hit = try_one(&nth, twice == 1, what);
                    tried++;
                }
            }
        }
    }
    print_message("%s: %u failures\n", name, tried);
    assert_true(tried > answer_count * 4);
}

static void reads_fail(void **state) {
    (void)state;
    static const enum grey_error answers[] = {E_IO, E_CORRUPT, E_NO_MEMORY};
    each_call_fails(DB_IO_READ, "read", answers, 3);
}

static void writes_fail(void **state) {
    (void)state;
    static const enum grey_error answers[] = {E_IO, E_DISK_FULL, E_NO_MEMORY};
    each_call_fails(DB_IO_WRITE, "write", answers, 3);
}

static void truncations_fail(void **state) {
    (void)state;
    static const enum grey_error answers[] = {E_IO, E_DISK_FULL};
    each_call_fails(DB_IO_TRUNCATE, "truncation", answers, 2);
}

static void syncs_fail(void **state) {
    (void)state;
    static const enum grey_error answers[] = {E_IO, E_DISK_FULL};
    each_call_fails(DB_IO_SYNC, "sync", answers, 2);
}

static void removals_fail(void **state) {
    (void)state;
    static const enum grey_error answers[] = {E_IO};
    each_call_fails(DB_IO_DELETE, "removal", answers, 1);
}

/* As above, and nothing of what was given before is kept. */
static void allocations_fail(void **state) {
    (void)state;
    const char *all = getenv("GREY_CUTS");
    bool each = all != NULL && strcmp(all, "all") == 0;
    unsigned tried = 0;
    scarce_exempt++;
    for (int twice = 0; twice < 2; twice++) {
        for (int for_ever = 0; for_ever < 2; for_ever++) {
            bool hit = true;
            for (unsigned n = 0; hit; n += each ? 1 : 1 + n / 8) {
                char what[160];
                (void)snprintf(what, sizeof what, "allocation %u of a %s start fails %s", n, twice ? "second" : "first",
                               for_ever ? "for ever" : "once");
                long kept[2] = {0, 0};
                for (int again = 0; again < 2 && (again == 0 || kept[0] != 0);
                     again++) { /* once a library may keep something for itself */
                    struct nth nth = {.memory = true, .answer = E_NO_MEMORY, .left = n, .for_ever = for_ever == 1};
                    long before = atomic_load(&scarce_live);
                    hit = try_one(&nth, twice == 1, what);
                    kept[again] = atomic_load(&scarce_live) - before;
                    tried++;
                }
                if (kept[0] > 0 && kept[1] > 0) {
                    fail_msg("%s: %ld blocks are not given back", what, kept[1]);
                }
            }
        }
    }
    scarce_exempt--;
    print_message("allocations: %u failures\n", tried);
    assert_true(tried > 100);
}

static void locks_fail(void **state) {
    (void)state;
    static const enum grey_error answers[] = {E_LOCKED, E_IO};
    each_call_fails(DB_IO_LOCK, "lock", answers, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_fail),       cmocka_unit_test(writes_fail),   cmocka_unit_test(truncations_fail),
        cmocka_unit_test(syncs_fail),       cmocka_unit_test(removals_fail), cmocka_unit_test(locks_fail),
        cmocka_unit_test(allocations_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
