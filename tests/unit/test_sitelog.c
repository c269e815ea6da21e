/* The storage of a gateway: what it promised is there after any stop, and what is damaged is said. */
#include "tests/unit/sitelog_rig.h"

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

static void count_entries(struct sitelog_read *job, void *context) {
    *(raft_index *)context += job->entry_count;
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
    assert_int_equal(store(&d, make_entries(&d, 1000, 32, 3), 1000), E_OK);
    raft_index at = 1001; /* small entries cost their reading too: a follower far behind must not keep the leader's disk */
    struct sitelog_read small = {.kind = SITELOG_ENTRIES, .from = at, .to = 2000, .bytes_max = 100 * (104 + 32)};
    assert_int_equal(read_job(&d, &small, count_entries, &at), E_OK);
    assert_int_equal(at, 1089); /* behind the last stored hash of the 100 that fit */
    struct sitelog_read beyond = {.kind = SITELOG_ENTRIES, .from = 2001, .to = 2001, .bytes_max = 10};
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
    d.window_bytes = 400; /* large entries must not fill the memory at a start */
    reopen(&d);
    assert_in_range(d.start.raft.window_base.index, 281, 299);
    assert_int_equal(d.start.raft.window_base.index + d.start.raft.entry_count, 310);
    d.window_bytes = 0;
    reopen(&d);
    assert_int_equal(d.start.raft.window_base.index, 300);
    assert_int_equal(d.start.raft.entry_count, 10);
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
    usleep(1100 * 1000); /* while stores come, they take the clean-up along: see below */
    struct sitelog_usage before, after;
    assert_true(has_payload(&d, 1)); /* a job, after which the files are looked at */
    sitelog_usage(d.log, &before);
    assert_true(before.log_bytes > 4000 * 1000);
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
    assert_int_equal(table_delete_range(d.table, TABLE_OUTBOX, bytes_of(low, 8), bytes_of(high, 8)), E_OK);
    assert_int_equal(flush(&d, NULL, NULL, 0), E_OK);
    for (int i = 0; i < 300; i++) {
        assert_int_equal(store(&d, make_entries(&d, 1, 40, 1), 1), E_OK);
    }
    assert_false(has_payload(&d, 200) || has_payload(&d, 4000));
    reopen(&d);
    sitelog_usage(d.log, &after);
    assert_true(after.log_bytes < before.log_bytes / 20);
    close_disk(&d);
    remove_dir(&d);
}

/* If this failed, old payloads would stay on the disk while a site is busy, or after it fell silent; or queued events would go with
 * them. */
static void stores_take_the_clean_up_along(void **state) {
    (void)state;
    struct disk d;
    make_dir(&d);
    assert_int_equal(open_disk(&d), E_OK);
    assert_int_equal(store(&d, make_entries(&d, 1000, 300, 1), 1000), E_OK);
    put_row(&d, TABLE_OUTBOX, 1, "x", 50);
    assert_int_equal(flush(&d, NULL, NULL, 0), E_OK);
    assert_int_equal(compact(&d, d.last), E_OK);
    assert_true(has_payload(&d, 10) && has_payload(&d, 990));
    for (int i = 0; i < 5; i++) {
        assert_int_equal(store(&d, make_entries(&d, 100, 300, 1), 100), E_OK);
    }
    assert_true(has_payload(&d, 50) && has_payload(&d, 990));
    assert_false(has_payload(&d, 10) || has_payload(&d, 490));
    bool there = true;
    for (int i = 0; i < 100 && there; i++) { /* no store comes any more */
        usleep(30 * 1000);
        there = has_payload(&d, 990);
    }
    assert_false(there);
    assert_true(has_payload(&d, 50) && has_payload(&d, 1001));
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
                if (vote(&d, term, term * 3) != E_OK || store(&d, make_entries(&d, count, 200, term), count) != E_OK) {
                    _exit(4);
                }
                uint64_t said[] = {term, d.last.index};
                if (write(ends[1], said, sizeof said) != sizeof said) {
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
        uint64_t said[2], term = 0;
        for (unsigned words = 0; words < 5; words++) { /* at work, however slow the machine is */
            assert_int_equal(read(ends[0], said, sizeof said), sizeof said);
            term = said[0], promised = said[1];
        }
        usleep(13000 * (round * 7 % 12));
        kill(child, SIGKILL);
        int status;
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status));
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
        cmocka_unit_test(compaction_keeps_what_rows_refer_to),     cmocka_unit_test(stores_take_the_clean_up_along),
        cmocka_unit_test(a_killed_process_keeps_its_promises),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
