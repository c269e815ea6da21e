/* The storage of a witness: headers that chain as the data does, a base without a state, and small files. */
#include "agent/store/logdb.h"
#include "platform/codec.h"
#include "tests/unit/sitelog_rig.h"

static struct entry *make_headers(struct disk *d, uint32_t count, raft_term term) {
    struct entry *list = make_entries(d, count, 100, term);
    for (uint32_t i = 0; i < count; i++) {
        struct blob *payload = list[i].payload;
        entry_strip(&list[i]);
        blob_unref(payload);
    }
    return list;
}

static void open_witness(struct disk *d) {
    make_dir(d);
    d->witness = true;
    d->reserve_bytes = 0;
    assert_int_equal(open_disk(d), E_OK);
}

static struct blob *members_of(raft_id self, struct raft_members *m) {
    struct raft_member gateway = {.id = self ^ 1, .voter = true, .node = {"gateway"}};
    struct raft_member witness = {.id = self, .voter = true, .witness = true, .node = {"witness"}};
    struct builder b;
    *m = (struct raft_members){0};
    assert_int_equal(raft_members_put(m, &gateway), E_OK);
    assert_int_equal(raft_members_put(m, &witness), E_OK);
    builder_init(&b, 65536);
    raft_members_encode(m, &b);
    struct blob *blob = builder_blob(&b);
    builder_free(&b);
    return blob;
}

static struct raft_point far_point(void) {
    return (struct raft_point){.index = 5000, .term = 9, .time_ms = 1700000900000, .hash = {1, 2, 3}};
}

static void assert_based(const struct disk *d, const struct raft_members *m, uint32_t entries) {
    const struct raft_start *r = &d->start.raft;
    assert_int_equal(r->base.index, 5000);
    assert_int_equal(r->base.term, 9);
    assert_memory_equal(r->base.hash, far_point().hash, DIGEST_BYTES);
    assert_int_equal(r->applied_index, 5000);
    assert_int_equal(r->members_index, 4321);
    assert_int_equal(r->members->count, m->count);
    assert_true(raft_members_find(r->members, d->start.self)->witness);
    assert_int_equal(r->entry_count, entries);
}

/* If this failed, a witness would forget after a power cut what it acknowledged, and help a gateway to lead that lacks it. */
static void headers_are_there_after_a_restart(void **state) {
    (void)state;
    struct disk d;
    open_witness(&d);
    assert_int_equal(store(&d, make_headers(&d, 300, 3), 300), E_OK);
    reopen(&d);
    assert_int_equal(d.start.raft.entry_count, 300);
    for (uint32_t i = 0; i < 300; i++) {
        assert_null(d.start.raft.entries[i].payload);
        assert_int_equal(d.start.raft.entries[i].stripped_bytes, 100);
    }
    assert_memory_equal(d.start.raft.entries[299].hash, d.last.hash, DIGEST_BYTES); /* the chain that the gateways have */
    close_disk(&d);
    remove_dir(&d);
}

/* If this failed, damage in a witness's log would vouch for another history than the one it acknowledged. */
static void damage_in_a_header_is_found(void **state) {
    (void)state;
    struct disk d;
    open_witness(&d);
    assert_int_equal(store(&d, make_headers(&d, 200, 3), 200), E_OK);
    close_disk(&d);
    char path[96];
    snprintf(path, sizeof path, "%s/log/log.db", d.dir);
    bool created;
    struct db *db = db_open(path, &(struct db_options){.page_bytes = 1024, .cache_bytes = 65536}, &created, NULL);
    assert_non_null(db); /* the size that stands for the payload: 100, now 101 */
    assert_int_equal(
        db_exec(db, "UPDATE entry SET head = CAST(substr(head, 1, length(head) - 1) || x'65' AS BLOB) WHERE idx = 70", NULL), E_OK);
    db_close(db);
    assert_int_equal(open_disk(&d), E_CORRUPT);
    assert_non_null(strstr(d.fault.text, "chain"));
    table_free(d.table);
    loop_free(d.loop);
    remove_dir(&d);
}

/* If this failed, a witness that was away for long would be of no use when it returns, or not start again. */
static void a_new_base_takes_the_place_of_the_log(void **state) {
    (void)state;
    struct disk d;
    struct raft_members m;
    open_witness(&d);
    assert_int_equal(store(&d, make_headers(&d, 100, 3), 100), E_OK);
    struct wait w = {.loop = d.loop};
    struct sitelog_store rebase = {.rebase = true,
                                   .point = far_point(),
                                   .members = members_of(d.start.self, &m),
                                   .members_index = 4321},
                         next = {0};
    d.last = far_point();
    store_give(&d, &w, &rebase, NULL, 0);
    store_give(&d, &w, &next, make_headers(&d, 10, 9), 10); /* in one transaction with it */
    loop_run(d.loop);
    assert_int_equal(rebase.err, E_OK);
    assert_int_equal(next.err, E_OK);
    reopen(&d);
    assert_based(&d, &m, 10);
    assert_memory_equal(d.start.raft.entries[9].hash, d.last.hash, DIGEST_BYTES);
    /* And life goes on: flushed further, and cut. */
    assert_int_equal(store(&d, make_headers(&d, 500, 9), 500), E_OK);
    struct raft_point here = d.last;
    struct blob *members = members_of(d.start.self, &m);
    assert_int_equal(flush(&d, NULL, members, 4321), E_OK);
    blob_unref(members);
    assert_int_equal(compact(&d, here), E_OK);
    reopen(&d);
    assert_int_equal(d.start.raft.base.index, here.index);
    assert_int_equal(d.start.raft.entry_count, 0);
    close_disk(&d);
    remove_dir(&d);
}

/* If this failed, power lost between the two databases would leave a witness that never starts again. */
static void a_base_half_taken_is_taken_at_the_next_start(void **state) {
    (void)state;
    struct disk d;
    struct raft_members m;
    struct fault f = {0};
    open_witness(&d);
    assert_int_equal(store(&d, make_headers(&d, 100, 3), 100), E_OK);
    struct blob *members = members_of(d.start.self, &m);
    close_disk(&d);
    char path[96];
    snprintf(path, sizeof path, "%s/log/log.db", d.dir);
    struct logdb *log = logdb_open(path, &f); /* log.db has it, state.db does not */
    assert_non_null(log);
    struct raft_point point = far_point();
    struct builder b;
    builder_init(&b, 65536);
    codec_put_array(&b, 2);
    codec_put_uint(&b, 4321);
    codec_put_bytes(&b, blob_bytes(members));
    struct entry note = {.index = point.index, .term = point.term, .kind = ENTRY_CONFIG, .payload = builder_blob(&b)};
    builder_free(&b);
    assert_int_equal(logdb_begin(log, &f), E_OK);
    assert_int_equal(logdb_replace(log, &point, 0, &f), E_OK);
    assert_int_equal(logdb_installed(log, &f), E_OK);
    assert_int_equal(logdb_receive(log, &note, &f), E_OK);
    assert_int_equal(logdb_commit(log, &f), E_OK);
    logdb_close(log);
    blob_unref(note.payload);
    blob_unref(members);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(open_disk(&d), E_OK);
        assert_based(&d, &m, 0);
        close_disk(&d);
    }
    d.witness = false; /* a gateway that holds data has no use for such a base, and must not start from it */
    snprintf(path, sizeof path, "%s/state.db", d.dir);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(open_disk(&d), E_CORRUPT);
    table_free(d.table);
    loop_free(d.loop);
    remove_dir(&d);
}

/* If this failed, the small board would run out of storage in the middle of the night. */
static void files_stay_small(void **state) {
    (void)state;
    struct disk d;
    struct raft_members m;
    open_witness(&d);
    struct blob *members = members_of(d.start.self, &m);
    struct raft_point before = {0};
    for (int round = 0; round < 10; round++) {
        assert_int_equal(store(&d, make_headers(&d, 2000, 3), 2000), E_OK);
        assert_int_equal(flush(&d, NULL, members, 1), E_OK);
        if (round > 0) {
            assert_int_equal(compact(&d, before), E_OK);
        }
        before = d.last;
    }
    blob_unref(members);
    uint64_t bytes = 0;
    static const char *const names[] = {"log/log.db", "log/log.db-wal", "state.db", "state.db-wal"};
    for (size_t i = 0; i < 4; i++) {
        char path[96];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", d.dir, names[i]);
        bytes += stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
    }
    assert_true(bytes < 2u * 1024u * 1024u);
    close_disk(&d);
    remove_dir(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_are_there_after_a_restart),
        cmocka_unit_test(damage_in_a_header_is_found),
        cmocka_unit_test(a_new_base_takes_the_place_of_the_log),
        cmocka_unit_test(a_base_half_taken_is_taken_at_the_next_start),
        cmocka_unit_test(files_stay_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
