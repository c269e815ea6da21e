/* The storage of a gateway against power cuts, failing syncs, full disks and damage. */
#include "agent/store/salvage.h"
#include "agent/store/setaside.h"
#include "tests/unit/sitelog_rig.h"

#include <sys/time.h>

/* --- power cuts -------------------------------------------------------------------------------------------------------------------- */
/* A mirror of the database files as a disk would hold them after a cut: a write reaches it at the next sync of its file; at the cut,
 * what was written since arrives in part, in any order, and torn. */
struct pending {
    char path[128];
    uint64_t offset;
    uint8_t *data;
    size_t size; /* 0: truncation to offset */
};

struct power {
    char dir[64], mirror[64];
    struct pending list[4096];
    size_t count;
    unsigned syncs_left;
    uint64_t random;
};

static uint64_t next_random(struct power *p) {
    p->random ^= p->random << 13, p->random ^= p->random >> 7, p->random ^= p->random << 17;
    return p->random;
}

static void mirror_apply(const struct power *p, const struct pending *w, size_t size) {
    char path[256];
    snprintf(path, sizeof path, "%s%s", p->mirror, w->path + strlen(p->dir));
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    must(fd >= 0);
    if (w->size == 0) {
        must(ftruncate(fd, (off_t)w->offset) == 0);
    } else {
        must(pwrite(fd, w->data, size, (off_t)w->offset) == (ssize_t)size);
    }
    close(fd);
}

static void power_synced(void *context, const char *path) {
    struct power *p = context;
    size_t kept = 0;
    for (size_t i = 0; i < p->count; i++) {
        if (strcmp(p->list[i].path, path) == 0) {
            mirror_apply(p, &p->list[i], p->list[i].size);
            free(p->list[i].data);
        } else {
            p->list[kept++] = p->list[i];
        }
    }
    p->count = kept;
}

static enum grey_error power_ask(void *context, enum db_io io, const char *path, uint64_t offset, struct bytes data) {
    struct power *p = context;
    if (io == DB_IO_SYNC && p->syncs_left-- == 0) {
        for (size_t i = 0; i < p->count; i++) { /* in order; overwriting parts may be missing anywhere */
            uint64_t chance = next_random(p);
            size_t size = chance % 3 == 0   ? p->list[i].size
                          : chance % 3 == 1 ? (size_t)(p->list[i].size / 512 * (chance >> 8) % 5 * 512)
                                            : 0;
            if (size > 0 && size <= p->list[i].size) {
                mirror_apply(p, &p->list[i], size);
            }
        }
        _exit(7);
    }
    if (io == DB_IO_DELETE) { /* a journal of the first transaction; the directory is synced with the log that is made next */
        char gone[256];
        snprintf(gone, sizeof gone, "%s%s", p->mirror, path + strlen(p->dir));
        (void)unlink(gone);
    }
    if (io == DB_IO_WRITE || io == DB_IO_TRUNCATE) {
        must(p->count < sizeof p->list / sizeof p->list[0]);
        struct pending *w = &p->list[p->count++];
        *w = (struct pending){.offset = offset, .size = data.size};
        snprintf(w->path, sizeof w->path, "%s", path);
        if (data.size > 0) {
            w->data = malloc(data.size);
            must(w->data != NULL);
            memcpy(w->data, data.data, data.size);
        }
    }
    return E_OK;
}

/* What the process did and said until the cut. */
static void work_until_cut(struct disk *d, struct power *p, int say) {
    db_inject(&(struct db_faults){.ask = power_ask, .synced = power_synced, .context = p});
    if (open_disk(d) != E_OK) {
        _exit(3);
    }
    for (raft_term term = 1;; term++) {
        uint32_t count = 1 + (uint32_t)term % 40;
        uint64_t said[3] = {term, 0, 0};
        if (vote(d, term, term * 3) != E_OK || write(say, said, sizeof said) != sizeof said ||
            store(d, make_entries(d, count, 700, term), count) != E_OK) {
            _exit(4);
        }
        said[1] = d->last.index;
        for (uint64_t i = 0; i < 30; i++) {
            put_row(d, TABLE_KV, term * 7919 + i * 104729, "some value of a key", 0);
            put_row(d, TABLE_OUTBOX, d->last.index - i % count, "x", d->last.index - i % count);
        }
        if (term > 3) {
            delete_row(d, TABLE_OUTBOX, d->last.index - 100);
        }
        if (flush(d, NULL, NULL, 0) != E_OK) {
            _exit(5);
        }
        said[2] = d->last.index;
        if (write(say, said, sizeof said) != sizeof said || (term % 10 == 0 && compact(d, d->last) != E_OK)) {
            _exit(6);
        }
    }
}

/* If this failed, a power cut at the wrong moment would cost what was promised, or the node (FAULTS P1, P2, P6). */
static void a_power_cut_at_any_sync_keeps_the_promises(void **state) {
    (void)state;
    for (unsigned cut = 0; cut < 400; cut += cut < 60 ? 1 : 13) {
        struct disk d;
        struct power *p = calloc(1, sizeof *p);
        make_dir(&d);
        snprintf(p->dir, sizeof p->dir, "%s", d.dir);
        snprintf(p->mirror, sizeof p->mirror, "/tmp/grey-mirror-XXXXXX");
        assert_non_null(mkdtemp(p->mirror));
        char log_dir[80];
        snprintf(log_dir, sizeof log_dir, "%s/log", p->mirror);
        assert_int_equal(mkdir(log_dir, 0700), 0);
        p->syncs_left = cut;
        p->random = 88172645463325252u + cut;
        int ends[2];
        assert_int_equal(pipe(ends), 0);
        pid_t child = fork();
        if (child == 0) {
            close(ends[0]);
            work_until_cut(&d, p, ends[1]);
        }
        close(ends[1]);
        uint64_t said[3], promised[3] = {0};
        while (read(ends[0], said, sizeof said) == sizeof said) {
            for (int i = 0; i < 3; i++) {
                promised[i] = said[i] > promised[i] ? said[i] : promised[i];
            }
        }
        close(ends[0]);
        int status;
        waitpid(child, &status, 0);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 7);
        remove_dir(&d);
        snprintf(d.dir, sizeof d.dir, "%s", p->mirror);
        d.window = 100000;
        enum grey_error err = open_disk(&d);
        if (err != E_OK) {
            fail_msg("cut %u: %s: %s", cut, error_name(err), d.fault.text);
        }
        assert_true(d.start.raft.term >= promised[0]);
        assert_true(d.start.raft.vote == d.start.raft.term * 3);
        assert_true(d.start.raft.window_base.index + d.start.raft.entry_count >= promised[1]);
        assert_true(d.start.applied.index >= promised[2]);
        for (int table = TABLE_META; table <= TABLE_SEGMENT; table++) { /* every page is sound */
            struct sitelog_read scan = {.kind = SITELOG_SCAN, .table = (enum table_id)table, .rows_max = 100000};
            assert_int_equal(read_job(&d, &scan, NULL, NULL), E_OK);
        }
        struct sitelog_read live = {.kind = SITELOG_LIVE, .from = 1, .to = d.start.applied.index, .bytes_max = 1 << 30};
        assert_int_equal(read_job(&d, &live, NULL, NULL), E_OK);
        d.last = d.start.applied; /* and it works on */
        close_disk(&d);
        remove_dir(&d);
        free(p);
    }
}

/* --- errors of the disk ---------------------------------------------------------------------------------------------------------------- */
struct once {
    enum db_io io;
    enum grey_error answer;
    unsigned after, times;
};

static enum grey_error fail_once(void *context, enum db_io io, const char *path, uint64_t offset, struct bytes data) {
    (void)path, (void)offset, (void)data;
    struct once *o = context;
    if (io != o->io) {
        return E_OK;
    }
    if (o->after > 0) {
        o->after--;
        return E_OK;
    }
    if (o->times == 0) {
        return E_OK;
    }
    o->times--;
    return o->answer;
}

/* If this failed, data that a failed sync lost would be taken for stored (FAULTS P4: nobody else's database handled it). */
static void a_failed_sync_is_final(void **state) {
    (void)state;
    struct disk d;
    make_dir(&d);
    assert_int_equal(open_disk(&d), E_OK);
    assert_int_equal(store(&d, make_entries(&d, 10, 100, 1), 10), E_OK);
    struct raft_point sound = d.last;
    struct once once = {.io = DB_IO_SYNC, .answer = E_IO, .times = 1};
    db_inject(&(struct db_faults){.ask = fail_once, .context = &once});
    assert_int_equal(store(&d, make_entries(&d, 5, 100, 1), 5), E_IO);
    d.last = sound;
    assert_int_equal(store(&d, make_entries(&d, 5, 100, 1), 5), E_IO); /* the disk is well again, the node is not */
    assert_int_equal(vote(&d, 9, 9), E_IO);
    assert_int_equal(flush(&d, &sound, NULL, 0), E_IO);
    db_inject(NULL);
    reopen(&d);
    assert_true(d.start.raft.entry_count >= 10);
    assert_true(d.start.raft.term == 0);
    close_disk(&d);
    remove_dir(&d);
}

/* If this failed, stores given behind one that found the disk full would leave a hole in the log. */
static void none_overtakes_a_store_that_found_the_disk_full(void **state) {
    (void)state;
    struct disk d;
    make_dir(&d);
    assert_int_equal(open_disk(&d), E_OK);
    assert_int_equal(store(&d, make_entries(&d, 10, 100, 1), 10), E_OK);
    struct once once = {.io = DB_IO_WRITE, .answer = E_DISK_FULL, .times = 1};
    db_inject(&(struct db_faults){.ask = fail_once, .context = &once});
    struct wait w = {.loop = d.loop};
    struct sitelog_store jobs[20] = {{.store_id = 0}};
    for (int i = 0; i < 20; i++) {
        jobs[i].truncate_from = i % 3 == 2 ? d.last.index + 1 : 0; /* several groups */
        store_give(&d, &w, &jobs[i], make_entries(&d, 2, 100, 1), 2);
    }
    loop_run(d.loop);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(jobs[i].err, E_DISK_FULL);
        assert_int_equal(jobs[i].entry_count, 2); /* kept to be given again */
    }
    struct sitelog_usage u;
    sitelog_usage(d.log, &u);
    assert_true(u.disk_full);
    char reserve[96];
    snprintf(reserve, sizeof reserve, "%s/reserve", d.dir);
    assert_int_equal(access(reserve, F_OK), -1);
    struct raft_point early = {.index = d.last.index};
    assert_int_equal(flush(&d, &early, NULL, 0), E_DISK_FULL); /* the state never stands for what the log lacks */
    for (int i = 0; i < 20; i++) {
        struct entry *entries = jobs[i].entries;
        builder_free(&jobs[i].wants);
        memset(&jobs[i], 0, sizeof jobs[i]);
        store_give(&d, &w, &jobs[i], entries, 2);
    }
    loop_run(d.loop);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(jobs[i].err, E_OK);
    }
    db_inject(NULL);
    reopen(&d);
    assert_int_equal(d.start.raft.entry_count, 50);
    assert_int_equal(access(reserve, F_OK), 0); /* there is room: made again */
    close_disk(&d);
    remove_dir(&d);
}

/* If this failed, a full disk would stop the node for good (PAINS 13, FAULTS P5). */
static void a_full_disk_refuses_and_recovers(void **state) {
    (void)state;
    struct disk d;
    make_dir(&d);
    if (mount("tmpfs", d.dir, "tmpfs", 0, "size=12m") != 0) {
        print_message("not tried: mounting a tmpfs: %s\n", strerror(errno));
        remove_dir(&d);
        skip();
    }
    d.reserve_bytes = 4u << 20; /* more than the log that waits for its checkpoint */
    assert_int_equal(open_disk(&d), E_OK);
    struct raft_point sound;
    struct sitelog_usage u;
    enum grey_error err;
    unsigned stored = 0;
    struct entry *refused;
    do {
        sound = d.last;
        struct wait w = {.loop = d.loop};
        struct sitelog_store job = {0};
        store_give(&d, &w, &job, make_entries(&d, 20, 1000, 1), 20);
        loop_run(d.loop);
        err = job.err;
        refused = job.entries;
        stored++;
        builder_free(&job.wants);
        sitelog_usage(d.log, &u);
    } while (err == E_OK && !u.disk_full); /* from then on a node refuses events */
    assert_true(err == E_OK || err == E_DISK_FULL);
    assert_true(stored > 20);
    for (int i = 0; err != E_OK && i < 20; i++) {
        blob_unref(refused[i].payload);
    }
    mem_free(refused);
    d.last = err == E_OK ? d.last : sound;
    /* The reserve lets small things through: an acknowledgement, a vote, a flush. */
    assert_int_equal(vote(&d, 5, 5), E_OK);
    assert_int_equal(store(&d, make_entries(&d, 1, 40, 5), 1), E_OK);
    put_row(&d, TABLE_META, 1, "acked", 0);
    assert_int_equal(flush(&d, NULL, NULL, 0), E_OK);
    assert_true(has_payload(&d, 1)); /* reads go on */
    for (int i = 0; i < 200; i++) {
        assert_int_equal(store(&d, make_entries(&d, 1, 40, 5), 1), E_OK);
    }
    assert_int_equal(flush(&d, NULL, NULL, 0), E_OK);
    /* It stays usable over a restart while full, and cleans up. */
    reopen(&d);
    assert_int_equal(d.start.raft.term, 5);
    assert_int_equal(d.start.applied.index, d.last.index);
    assert_int_equal(compact(&d, d.last), E_OK);
    assert_int_equal(mount("tmpfs", d.dir, "tmpfs", MS_REMOUNT, "size=40m"), 0);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(store(&d, make_entries(&d, 20, 1000, 5), 20), E_OK);
    }
    reopen(&d);
    sitelog_usage(d.log, &u);
    assert_false(u.disk_full);
    close_disk(&d);
    assert_int_equal(umount(d.dir), 0);
    remove_dir(&d);
}

/* --- a slow disk ---------------------------------------------------------------------------------------------------------------------- */
static enum grey_error slow_sync(void *context, enum db_io io, const char *path, uint64_t offset, struct bytes content) {
    (void)context, (void)path, (void)offset, (void)content;
    if (io == DB_IO_SYNC) {
        usleep(150000);
    }
    return E_OK;
}

static void look(void *context) {
    struct disk *d = context;
    struct sitelog_usage u;
    sitelog_usage(d->log, &u);
    d->reserve_bytes = (uint32_t)u.store_waits_ms; /* of no other use here */
}

/* If this failed, a leader whose disk hangs would keep leadership, and the site would stand still with it. */
static void a_store_that_hangs_is_seen_while_it_hangs(void **state) {
    (void)state;
    struct disk d;
    make_dir(&d);
    assert_int_equal(open_disk(&d), E_OK);
    assert_int_equal(store(&d, make_entries(&d, 1, 100, 1), 1), E_OK);
    struct db_faults faults = {.ask = slow_sync};
    struct loop_timer timer = {.fire = look, .context = &d};
    db_inject(&faults);
    loop_timer_after(d.loop, &timer, 100);
    assert_int_equal(store(&d, make_entries(&d, 1, 100, 1), 1), E_OK);
    db_inject(NULL);
    assert_in_range(d.reserve_bytes, 50, 1000);
    look(&d);
    assert_int_equal(d.reserve_bytes, 0);
    close_disk(&d);
    remove_dir(&d);
}

/* --- damage ------------------------------------------------------------------------------------------------------------------------------ */
/* If this failed, a damaged log would be a shorter log, and promises would be gone without a word (FAULTS P10). */
static void a_damaged_log_is_never_a_shorter_one(void **state) {
    (void)state;
    struct disk d;
    make_dir(&d);
    assert_int_equal(open_disk(&d), E_OK);
    assert_int_equal(store(&d, make_entries(&d, 300, 150, 1), 300), E_OK);
    close_disk(&d);
    char path[96], wal_dir[96];
    struct stat st;
    unsigned found = 0, harmless = 0;
    snprintf(path, sizeof path, "%s/log/log.db", d.dir);
    snprintf(wal_dir, sizeof wal_dir, "%s/log", d.dir);
    assert_int_equal(stat(path, &st), 0);
    for (off_t page = 0; page < st.st_size / 2048; page++) {
        off_t at = page * 2048 + (page * 331) % 2048;
        flip(path, at);
        enum grey_error err = open_disk(&d);
        if (err == E_OK) { /* a page that holds nothing which is read */
            assert_int_equal(d.start.raft.entry_count, 300);
            harmless++;
            close_disk(&d);
        } else {
            assert_true(err == E_CORRUPT || err == E_DISK_VERSION);
            assert_true(strlen(d.fault.text) > 10);
            assert_true(err == E_DISK_VERSION || salvage_marked(wal_dir));
            salvage_unmark(wal_dir);
            found++;
            table_free(d.table);
            loop_free(d.loop);
        }
        flip(path, at);
    }
    assert_true(found > (unsigned)(st.st_size / 2048) * 3 / 4);
    print_message("%u damaged pages found, %u harmless\n", found, harmless);
    /* And a log that lost its end altogether is not gone on with. */
    assert_int_equal(open_disk(&d), E_OK);
    assert_int_equal(flush(&d, NULL, NULL, 0), E_OK);
    close_disk(&d);
    char command[256];
    snprintf(command, sizeof command, "rm %s %s-wal", path, path);
    assert_int_equal(system(command), 0);
    assert_int_equal(open_disk(&d), E_CORRUPT);
    assert_non_null(strstr(d.fault.text, "lost its end"));
    table_free(d.table);
    loop_free(d.loop);
    remove_dir(&d);
}

/* If this failed, a damaged gateway would wait for a hand, or come back under its old name with less than it promised. */
static void a_log_that_cannot_be_mended_is_set_aside_where_there_are_others(void **state) {
    (void)state;
    struct disk d;
    char path[96], wal_dir[96], command[512];
    unsigned begun_anew = 0;
    make_dir(&d);
    snprintf(wal_dir, sizeof wal_dir, "%s/log", d.dir);
    snprintf(path, sizeof path, "%s/log/log.db", d.dir);
    for (int round = 0; round < 6; round++) {
        d.rejoins = false;
        d.last = (struct raft_point){0};
        snprintf(command, sizeof command, "rm -f %s %s-wal %s/state.db* %s/log/rejoin", path, path, d.dir, d.dir);
        assert_int_equal(system(command), 0);
        assert_int_equal(open_disk(&d), E_OK);
        raft_id self = d.start.self;
        assert_int_equal(store(&d, make_entries(&d, 300, 150, 1), 300), E_OK);
        close_disk(&d);
        struct stat st;
        assert_int_equal(stat(path, &st), 0);
        flip(path, (off_t)(st.st_size / 1024 * round / 6 * 1024 + 333));
        d.rejoins = true;
        enum grey_error err = open_disk(&d);
        if (err == E_CORRUPT) { /* first it is tried to mend it; what cannot be mended is marked */
            table_free(d.table);
            loop_free(d.loop);
            assert_true(salvage_marked(wal_dir));
            salvage_unmark(wal_dir);
            assert_int_equal(setaside_mark(wal_dir, "a test", NULL), E_OK);
            err = open_disk(&d);
        }
        assert_int_equal(err, E_OK);
        if (d.start.rejoining) {
            assert_int_not_equal(d.start.self, self);
            assert_true(d.start.fresh && !d.start.restored && d.start.raft.entry_count == 0 && d.start.raft.term == 0);
            begun_anew++;
            reopen(&d); /* and it stays so until it is a member */
            assert_true(d.start.rejoining);
            /* What a peer says of the disk counts at the next start, not before. */
            self = d.start.self;
            assert_int_equal(sitelog_mark(d.log, SITELOG_DAMAGE_HISTORY, "a test", NULL), E_OK);
            reopen(&d);
            assert_int_not_equal(d.start.self, self);
        } else {
            assert_int_equal(d.start.raft.entry_count, 300); /* a page that holds nothing which is read */
        }
        close_disk(&d);
    }
    assert_true(begun_anew >= 4);
    snprintf(command, sizeof command, "test $(ls -d %s.damaged-* | wc -l) -eq 2", path);
    assert_int_equal(system(command), 0);
    remove_dir(&d);
}

/* If this failed, a gateway with a week of events behind it would be slow to come back. */
static void a_long_log_opens_quickly(void **state) {
    (void)state;
    struct disk d;
    make_dir(&d);
    assert_int_equal(open_disk(&d), E_OK);
    enum { COUNT = 300000 }; /* what matters is that it does not grow with it: see the two times */
    uint64_t us[2];
    for (int part = 0; part < 2; part++) {
        for (uint32_t n = 0; n < COUNT / 2; n += 5000) {
            assert_int_equal(store(&d, make_entries(&d, 5000, 60, 1), 5000), E_OK);
        }
        assert_int_equal(flush(&d, NULL, NULL, 0), E_OK);
        close_disk(&d);
        struct timeval t0, t1;
        gettimeofday(&t0, NULL);
        assert_int_equal(open_disk(&d), E_OK);
        gettimeofday(&t1, NULL);
        us[part] = (uint64_t)((t1.tv_sec - t0.tv_sec) * 1000000 + t1.tv_usec - t0.tv_usec);
        assert_int_equal(d.start.raft.entry_count, d.window);
    }
    print_message("%d entries: %" PRIu64 " us, %d: %" PRIu64 " us\n", COUNT / 2, us[0], COUNT, us[1]);
    assert_true(us[1] < 1000000);
    close_disk(&d);
    remove_dir(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_power_cut_at_any_sync_keeps_the_promises),
        cmocka_unit_test(a_failed_sync_is_final),
        cmocka_unit_test(none_overtakes_a_store_that_found_the_disk_full),
        cmocka_unit_test(a_full_disk_refuses_and_recovers),
        cmocka_unit_test(a_store_that_hangs_is_seen_while_it_hangs),
        cmocka_unit_test(a_damaged_log_is_never_a_shorter_one),
        cmocka_unit_test(a_log_that_cannot_be_mended_is_set_aside_where_there_are_others),
        cmocka_unit_test(a_long_log_opens_quickly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
