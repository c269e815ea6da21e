/* State images: written, carried to another node, installed, restored from; and a damaged state built anew from one. */
#include "tests/unit/power_rig.h"
#include "tests/unit/sitelog_rig.h"

static struct blob *some_members(void) {
    struct raft_members members = {.count = 1,
                                   .at[0] = {.id = 9, .voter = true, .node = {"a"}, .peer_address = "a:1", .http_address = "a:2"}};
    struct builder b;
    builder_init(&b, 4096);
    raft_members_encode(&members, &b);
    struct blob *blob = builder_blob(&b);
    builder_free(&b);
    assert_non_null(blob);
    return blob;
}

/* A site with 2000 entries, of which every tenth of the first 1500 is still queued; written as an image at 1500 and compacted. */
static void make_source(struct disk *d, bool self_contained, struct sitelog_snapshot_info *info) {
    struct blob *members = some_members();
    make_dir(d);
    assert_int_equal(open_disk(d), E_OK);
    assert_int_equal(store(d, make_entries(d, 1500, 500, 2), 1500), E_OK);
    for (uint64_t i = 10; i <= 1500; i += 10) {
        put_row(d, TABLE_OUTBOX, i, "waiting", i);
    }
    for (uint64_t i = 0; i < 3000; i++) {
        put_row(d, TABLE_KV, i, "a key with a value that is not short", 0);
    }
    for (uint64_t i = 0; i < 400; i++) {
        put_row(d, TABLE_DEDUP, i, "an id that was seen", 0);
    }
    put_row(d, TABLE_META, 1, "meta", 0);
    put_row(d, TABLE_SEGMENT, 1, "segment", 0);
    assert_int_equal(flush(d, NULL, members, 3), E_OK);
    blob_unref(members);
    struct sitelog_snapshot job = {.kind = SITELOG_SNAPSHOT_WRITE, .self_contained = self_contained};
    assert_int_equal(snapshot(d, &job), E_OK);
    *info = job.info;
    assert_int_equal(info->point.index, 1500);
    assert_int_equal(compact(d, info->point), E_OK);
    assert_int_equal(store(d, make_entries(d, 500, 500, 2), 500), E_OK);
}

static void fetch_image(struct disk *from, struct disk *to, const struct raft_point *point, uint64_t stop_at) {
    struct sitelog_snapshot ask = {.kind = SITELOG_SNAPSHOT_RECEIVE, .point = *point};
    assert_int_equal(snapshot(to, &ask), E_OK);
    for (uint64_t offset = ask.resume_offset, total = UINT64_MAX; offset < total && offset < stop_at;) {
        struct sitelog_snapshot give = {.kind = SITELOG_SNAPSHOT_READ, .point = *point, .offset = offset, .bytes_max = 3000};
        assert_int_equal(snapshot(from, &give), E_OK);
        total = give.total_bytes;
        struct sitelog_snapshot take = {
            .kind = SITELOG_SNAPSHOT_RECEIVE, .point = *point, .offset = offset, .total_bytes = total, .chunk = give.chunk};
        assert_int_equal(snapshot(to, &take), E_OK);
        assert_int_equal(take.resume_offset, offset + blob_bytes(give.chunk).size);
        offset = take.resume_offset;
        blob_unref(give.chunk);
    }
}

static void keep_live(struct sitelog_read *job, void *context) {
    struct sitelog_snapshot *take = context;
    take->entries = mem_new(job->entry_count + 1, sizeof *take->entries);
    take->entry_count = job->entry_count;
    for (uint32_t i = 0; i < job->entry_count; i++) { /* as a message carries it: index and payload */
        take->entries[i] = (struct entry){.index = job->entries[i].index, .payload = blob_ref(job->entries[i].payload)};
    }
    take->resume_offset = job->more;
}

static void fetch_payloads(struct disk *from, struct disk *to, const struct raft_point *point) {
    for (raft_index at = 1;;) {
        struct sitelog_read live = {.kind = SITELOG_LIVE, .from = at, .to = point->index, .bytes_max = 20000};
        struct sitelog_snapshot take = {.kind = SITELOG_SNAPSHOT_PAYLOADS, .point = *point};
        assert_int_equal(read_job(from, &live, keep_live, &take), E_OK);
        bool more = take.resume_offset != 0;
        at = take.entry_count == 0 ? at : take.entries[take.entry_count - 1].index + 1;
        assert_int_equal(snapshot(to, &take), E_OK);
        if (!more) {
            return;
        }
    }
}

static void count_rows(struct sitelog_read *job, void *context) {
    *(size_t *)context = sitelog_row_count(job->rows);
}

static size_t rows_of(struct disk *d, enum table_id id) {
    size_t count = 0;
    struct sitelog_read scan = {.kind = SITELOG_SCAN, .table = id, .rows_max = 10000};
    assert_int_equal(read_job(d, &scan, count_rows, &count), E_OK);
    return count;
}

static void check_target(struct disk *d, const struct sitelog_snapshot_info *info) {
    assert_int_equal(d->start.raft.base.index, 1500);
    assert_memory_equal(d->start.raft.base.hash, info->point.hash, DIGEST_BYTES);
    assert_int_equal(d->start.applied.index, 1500);
    assert_int_equal(d->start.raft.entry_count, 0);
    struct bytes value;
    uint8_t key[8];
    bytes_put_be64(key, 1);
    assert_int_equal(table_get(d->table, TABLE_SEGMENT, bytes_of(key, 8), &value), TABLE_FOUND);
    assert_int_equal(rows_of(d, TABLE_KV), 3000);
    assert_int_equal(rows_of(d, TABLE_OUTBOX), 150);
    assert_int_equal(rows_of(d, TABLE_DEDUP), 400); /* without them a client's repeat would be done twice (FAULTS 2b, 38) */
    for (raft_index i = 10; i <= 1500; i += 10) {
        assert_true(has_payload(d, i));
    }
    /* What no row refers to goes when the storage has time for it. */
    for (int i = 0; i < 50 && (has_payload(d, 11) || has_payload(d, 301)); i++) {
    }
    assert_false(has_payload(d, 11) || has_payload(d, 301) || has_payload(d, 1499));
}

/* If this failed, a node that was away for long could not come back, or would come back without the queued events. */
static void an_image_travels_to_another_node(void **state) {
    (void)state;
    struct disk from, to;
    struct sitelog_snapshot_info info, listed[4];
    make_source(&from, false, &info);
    assert_int_equal(sitelog_snapshots(from.log, listed, 4), 1);
    assert_memory_equal(&listed[0], &info, sizeof info);
    reopen(&from);
    assert_int_equal(sitelog_snapshots(from.log, listed, 4), 1);
    assert_memory_equal(&listed[0].checksum, &info.checksum, sizeof info.checksum);

    make_dir(&to);
    assert_int_equal(open_disk(&to), E_OK);
    struct disk other = {0}; /* a follower that has a beginning of its own, and an end that was never agreed on */
    assert_int_equal(store(&to, make_entries(&other, 300, 100, 1), 300), E_OK);
    struct raft_point applied = {.index = 0};
    put_row(&to, TABLE_META, 7, "old", 0);
    assert_int_equal(flush(&to, &applied, NULL, 0), E_OK);
    fetch_image(&from, &to, &info.point, 5000);
    reopen(&to); /* goes on where it was */
    struct sitelog_snapshot ask = {.kind = SITELOG_SNAPSHOT_RECEIVE, .point = info.point};
    assert_int_equal(snapshot(&to, &ask), E_OK);
    assert_true(ask.resume_offset >= 5000);
    fetch_image(&from, &to, &info.point, UINT64_MAX);
    fetch_payloads(&from, &to, &info.point);
    struct sitelog_snapshot install = {.kind = SITELOG_SNAPSHOT_INSTALL, .point = info.point};
    enum grey_error err = snapshot(&to, &install);
    if (err != E_OK) {
        fail_msg("%s: %s", error_name(err), to.fault.text);
    }
    assert_int_equal(install.offset, 2);
    assert_int_equal(install.members.count, 1);
    assert_int_equal(install.info.members_index, 3);
    assert_int_equal(install.state_hash[0], 0x5a);
    assert_int_equal(sitelog_snapshots(to.log, listed, 4), 1);
    /* The log goes on behind the image. */
    to.last = info.point;
    assert_int_equal(store(&to, make_entries(&to, 1, 100, 3), 1), E_OK);
    struct wait w = {.loop = to.loop};
    struct sitelog_store cut = {.truncate_from = 1501};
    store_give(&to, &w, &cut, NULL, 0);
    loop_run(to.loop);
    reopen(&to);
    check_target(&to, &info);
    close_disk(&from);
    close_disk(&to);
    remove_dir(&from);
    remove_dir(&to);
}

static void image_path(const struct disk *d, const char *name, char *out, size_t size) {
    snprintf(out, size, "%s/snapshots/%s", d->dir, name);
}

/* If this failed, a lost site could not be built again from a backup, or would be built from a damaged one. */
static void a_self_contained_image_makes_a_node(void **state) {
    (void)state;
    struct disk from, to;
    struct sitelog_snapshot_info info;
    make_source(&from, true, &info);
    close_disk(&from);
    make_dir(&to);
    char image[160], wal_dir[80];
    image_path(&from, info.name, image, sizeof image);
    snprintf(wal_dir, sizeof wal_dir, "%s/log", to.dir);
    for (int i = 0; i < 24; i++) {
        off_t at = (off_t)info.file_bytes / 24 * i + i;
        flip(image, at);
        assert_int_equal(sitelog_restore(image, to.dir, wal_dir, &to.fault), E_CORRUPT);
        flip(image, at);
    }
    enum grey_error err = sitelog_restore(image, to.dir, wal_dir, &to.fault);
    if (err != E_OK) {
        fail_msg("%s: %s", error_name(err), to.fault.text);
    }
    assert_int_equal(sitelog_restore(image, to.dir, wal_dir, &to.fault), E_CONFIG);
    assert_int_equal(open_disk(&to), E_OK);
    assert_true(to.start.fresh && to.start.restored);
    assert_null(to.start.raft.members);
    assert_int_equal(to.start.raft.term, 2);
    check_target(&to, &info);
    close_disk(&to);
    remove_dir(&from);
    remove_dir(&to);
}

/* If this failed, a damaged image would become a node's state. */
static void a_damaged_image_is_not_installed(void **state) {
    (void)state;
    struct disk from, to;
    struct sitelog_snapshot_info info;
    make_source(&from, false, &info);
    make_dir(&to);
    assert_int_equal(open_disk(&to), E_OK);
    fetch_image(&from, &to, &info.point, UINT64_MAX);
    char part[200], name[64];
    snprintf(name, sizeof name, "%020" PRIu64 "-%02x%02x%02x%02x.part", info.point.index, info.point.hash[0], info.point.hash[1],
             info.point.hash[2], info.point.hash[3]);
    image_path(&to, name, part, sizeof part);
    flip(part, (off_t)info.file_bytes - 100);
    struct sitelog_snapshot install = {.kind = SITELOG_SNAPSHOT_INSTALL, .point = info.point};
    assert_int_equal(snapshot(&to, &install), E_CORRUPT);
    assert_int_equal(access(part, F_OK), -1);
    reopen(&to);
    assert_int_equal(to.start.applied.index, 0);
    /* And one that went bad on the giver's disk is not given. */
    char image[160];
    image_path(&from, info.name, image, sizeof image);
    flip(image, 3000);
    struct sitelog_snapshot give = {.kind = SITELOG_SNAPSHOT_READ, .point = info.point, .bytes_max = 10};
    reopen(&from);
    assert_int_equal(snapshot(&from, &give), E_CORRUPT);
    assert_int_equal(snapshot(&from, &give), E_NOT_FOUND);
    close_disk(&from);
    close_disk(&to);
    remove_dir(&from);
    remove_dir(&to);
}

/* If this failed, one bad sector in state.db would need a person (PAINS 20). */
static void a_damaged_state_is_built_again(void **state) {
    (void)state;
    struct disk d;
    struct sitelog_snapshot_info info;
    char path[128];
    unsigned rebuilt = 0;
    make_source(&d, false, &info);
    close_disk(&d);
    snprintf(path, sizeof path, "%s/state.db", d.dir);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    for (off_t page = 0; page < st.st_size / 1024; page += 7) {
        flip(path, page * 1024 + 300);
        enum grey_error err = open_disk(&d);
        for (int again = 0; again < 2 && err == E_CORRUPT; again++) {
            table_free(d.table);
            loop_free(d.loop);
            err = open_disk(&d);
        }
        if (err != E_OK) {
            fail_msg("page %ld: %s: %s", (long)page + 1, error_name(err), d.fault.text);
        }
        for (int table = TABLE_META; table <= TABLE_SEGMENT; table++) { /* some damage shows only when a page is read */
            struct sitelog_read scan = {.kind = SITELOG_SCAN, .table = (enum table_id)table, .rows_max = 10000};
            err = read_job(&d, &scan, NULL, NULL);
            if (err != E_OK) {
                assert_int_equal(err, E_CORRUPT);
                reopen(&d);
                rebuilt++;
                assert_int_equal(read_job(&d, &scan, NULL, NULL), E_OK);
            }
        }
        assert_int_equal(d.start.applied.index, 1500);
        assert_int_equal(d.start.raft.entry_count, 500);
        close_disk(&d);
    }
    assert_true(rebuilt > 5);
    remove_dir(&d);
}

struct countdown {
    unsigned calls; /* writes, syncs, deletions until the process dies */
};

static enum grey_error die_at_zero(void *context, enum db_io io, const char *path, uint64_t offset, struct bytes data) {
    (void)path, (void)offset, (void)data;
    struct countdown *left = context;
    if (io == DB_IO_SYNC && left->calls-- == 0) {
        _exit(7);
    }
    return E_OK;
}

/* If this failed, a cut while a snapshot is installed would leave a node that is neither the old nor the new (FAULTS P2). */
static void a_cut_while_installing_leaves_old_or_new(void **state) {
    (void)state;
    struct disk from;
    struct sitelog_snapshot_info info;
    make_source(&from, false, &info);
    unsigned old = 0, new = 0;
    for (unsigned cut = 0; cut < 60 && new < 2; cut++) {
        struct disk to;
        make_dir(&to);
        assert_int_equal(open_disk(&to), E_OK);
        fetch_image(&from, &to, &info.point, UINT64_MAX);
        fetch_payloads(&from, &to, &info.point);
        close_disk(&to);
        pid_t child = fork();
        if (child == 0) {
            if (open_disk(&to) != E_OK) {
                _exit(9);
            }
            struct countdown left = {.calls = cut};
            db_inject(&(struct db_faults){.ask = die_at_zero, .context = &left});
            struct sitelog_snapshot install = {.kind = SITELOG_SNAPSHOT_INSTALL, .point = info.point};
            _exit(snapshot(&to, &install) == E_OK ? 0 : 1);
        }
        int status;
        waitpid(child, &status, 0);
        assert_true(WIFEXITED(status) && (WEXITSTATUS(status) == 7 || WEXITSTATUS(status) == 0));
        enum grey_error err = open_disk(&to);
        if (err != E_OK) {
            fail_msg("cut %u: %s: %s", cut, error_name(err), to.fault.text);
        }
        if (to.start.applied.index == 0) {
            old++;
            assert_int_equal(to.start.raft.base.index, 0);
            assert_int_equal(new, 0);
        } else {
            new ++;
            check_target(&to, &info);
        }
        close_disk(&to);
        remove_dir(&to);
    }
    assert_true(old > 3 && new > 0);
    close_disk(&from);
    remove_dir(&from);
}

struct installing {
    const struct sitelog_snapshot_info *info;
    unsigned old, whole;
};

static void is_old_or_new(const struct power_cut *cut, void *context) {
    struct installing *i = context;
    struct disk d;
    memset(&d, 0, sizeof d);
    (void)snprintf(d.dir, sizeof d.dir, "%s", cut->dir);
    d.window = 1000;
    d.window_bytes = 16u << 20;
    d.reserve_bytes = 65536;
    if (open_disk(&d) != E_OK) {
        fail_msg("%s: %s", cut->what, d.fault.text);
    }
    if (d.start.applied.index != 0) {
        i->whole++;
        check_target(&d, i->info);
    } else if (cut->promise != NULL || d.start.raft.base.index != 0) {
        fail_msg("%s: applied is 0, the base %" PRIu64, cut->what, d.start.raft.base.index);
    } else {
        i->old++;
    }
    close_disk(&d);
}

/* The same with what a disk may lose, tear and turn round of its files and names, from the first byte that comes. */
static void a_power_cut_while_installing_leaves_old_or_new(void **state) {
    (void)state;
    struct disk from, to;
    struct sitelog_snapshot_info info;
    struct installing i = {.info = &info};
    make_source(&from, false, &info);
    make_dir(&to);
    assert_int_equal(open_disk(&to), E_OK);
    close_disk(&to);
    power_watch(to.dir);
    assert_int_equal(open_disk(&to), E_OK);
    fetch_image(&from, &to, &info.point, UINT64_MAX);
    fetch_payloads(&from, &to, &info.point);
    struct sitelog_snapshot install = {.kind = SITELOG_SNAPSHOT_INSTALL, .point = info.point};
    assert_int_equal(snapshot(&to, &install), E_OK);
    power_promise("installed", 10);
    close_disk(&to);
    struct power_tally t = power_cuts(power_boundaries(35), is_old_or_new, &i);
    print_message("%zu file calls, %zu cuts at %zu boundaries: %u old, %u new\n", t.calls, t.cuts, t.boundaries, i.old, i.whole);
    assert_true(t.calls > 200 && i.old > 10 && i.whole > 5);
    close_disk(&from);
    remove_dir(&from);
    remove_dir(&to);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_image_travels_to_another_node),
        cmocka_unit_test(a_self_contained_image_makes_a_node),
        cmocka_unit_test(a_damaged_image_is_not_installed),
        cmocka_unit_test(a_damaged_state_is_built_again),
        cmocka_unit_test(a_cut_while_installing_leaves_old_or_new),
        cmocka_unit_test(a_power_cut_while_installing_leaves_old_or_new),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
