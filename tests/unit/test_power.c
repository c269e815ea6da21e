/* A power cut at any file call of what a gateway keeps: its log and state, a state that is put in place, events taken without a leader, space that
 * is given back.  If one of these failed, a cut at the wrong moment would cost what was promised, or a gateway in a plant would not start
 * again without a hand.  GREY_CUTS=all: at each call, not at some. */
#include "tests/unit/power_rig.h"

#include "tests/unit/sitelog_rig.h"

struct promise {
    uint64_t term, last, applied, receipt;
};

static void say(const struct power_tally *t, const char *what) {
    print_message("%s: %zu file calls, %zu of them syncs; %zu cuts at %zu boundaries\n", what, t->calls, t->syncs, t->cuts,
                  t->boundaries);
}

static void at_disk(struct disk *d, const char *dir) {
    memset(d, 0, sizeof *d);
    (void)snprintf(d->dir, sizeof d->dir, "%s", dir);
    d->window = 100000;
    d->window_bytes = 16u << 20;
    d->reserve_bytes = 65536;
}

/* The disk of a cut as a gateway that starts on it. */
static void open_cut(struct disk *d, const struct power_cut *cut) {
    at_disk(d, cut->dir);
    enum grey_error err = open_disk(d);
    if (err != E_OK) {
        fail_msg("%s: %s: %s", cut->what, error_name(err), d->fault.text);
    }
}

/* --- a gateway's life -------------------------------------------------------------------------------------------------------------------------- */
static void keep_batch(struct disk *d, struct promise *p) {
    char text[300];
    payload_text(p->receipt + 1, sizeof text, text);
    struct sitelog_keep job = {.kind = SITELOG_KEEP_ADD, .batch = blob_copy(bytes_of(text, sizeof text))};
    builder_init(&job.ids, 64);
    uint8_t id[KEEPDB_ID_BYTES] = {(uint8_t)p->receipt};
    builder_add(&job.ids, bytes_of(id, sizeof id));
    assert_int_equal(keep(d, &job), E_OK);
    blob_unref(job.batch);
    builder_free(&job.ids);
    p->receipt = job.receipt;
}

static void live(struct disk *d) {
    struct promise p = {0};
    assert_int_equal(open_disk(d), E_OK);
    struct grey_name node = {"n1"}, site = {"site"};
    assert_int_equal(sitelog_claim(d->log, &node, &site, NULL), E_OK);
    for (raft_term term = 1; term <= 12; term++) {
        uint32_t count = 1 + (uint32_t)term * 5 % 23;
        assert_int_equal(vote(d, term, term * 3), E_OK);
        p.term = term;
        power_promise(&p, sizeof p);
        assert_int_equal(store(d, make_entries(d, count, term % 4 == 0 ? 9000 : 300, term), count), E_OK);
        p.last = d->last.index;
        power_promise(&p, sizeof p);
        for (uint64_t i = 0; i < 20; i++) {
            put_row(d, TABLE_KV, term * 7919 + i * 104729, "some value of a key", 0);
            put_row(d, TABLE_OUTBOX, d->last.index - i % count, "x", d->last.index - i % count);
        }
        if (term > 6) {
            delete_row(d, TABLE_OUTBOX, d->last.index - 60);
        }
        assert_int_equal(flush(d, NULL, NULL, 0), E_OK);
        p.applied = d->last.index;
        power_promise(&p, sizeof p);
        keep_batch(d, &p);
        power_promise(&p, sizeof p);
        if (term % 3 == 0) {
            struct sitelog_snapshot image = {.kind = SITELOG_SNAPSHOT_WRITE, .self_contained = term % 2 == 0};
            assert_int_equal(snapshot(d, &image), E_OK);
            assert_int_equal(compact(d, image.info.point), E_OK);
        }
        if (term % 5 == 0) {
            reopen(d); /* checkpoints of both */
        }
    }
    close_disk(d);
}

static void check_row(struct sitelog_read *job, void *context) {
    *(size_t *)context = job->err == E_OK ? sitelog_row_count(job->rows) : 0;
}

static void keeps_its_promises(const struct power_cut *cut, void *context) {
    (void)context;
    static const struct promise none;
    const struct promise *p = cut->promise == NULL ? &none : cut->promise;
    struct disk d;
    open_cut(&d, cut);
    raft_index last = d.start.raft.window_base.index + d.start.raft.entry_count;
    if (d.start.raft.term < p->term || d.start.raft.vote != d.start.raft.term * 3 || last < p->last ||
        d.start.applied.index < p->applied) {
        fail_msg("%s: term %" PRIu64 " of %" PRIu64 ", vote %" PRIu64 ", entries to %" PRIu64 " of %" PRIu64 ", applied %" PRIu64
                 " of %" PRIu64,
                 cut->what, d.start.raft.term, p->term, d.start.raft.vote, last, p->last, d.start.applied.index, p->applied);
    }
    for (int table = TABLE_META; table <= TABLE_SEGMENT; table++) { /* every page is sound */
        size_t rows = 0;
        struct sitelog_read scan = {.kind = SITELOG_SCAN, .table = (enum table_id)table, .rows_max = 100000};
        assert_int_equal(read_job(&d, &scan, check_row, &rows), E_OK);
        assert_true(table != TABLE_KV || rows >= 20 * (p->applied > 0));
    }
    struct sitelog_read live = {.kind = SITELOG_LIVE, .from = 1, .to = d.start.applied.index, .bytes_max = 1 << 30};
    assert_int_equal(read_job(&d, &live, NULL, NULL), E_OK);
    struct sitelog_keep kept = {.kind = SITELOG_KEEP_COUNT};
    if (keep(&d, &kept) != E_OK) {
        fail_msg("%s: %s", cut->what, kept.fault.text);
    }
    for (uint64_t receipt = 0; receipt < p->receipt;) {
        struct sitelog_keep next = {.kind = SITELOG_KEEP_NEXT, .receipt = receipt};
        if (keep(&d, &next) != E_OK) {
            fail_msg("%s: batch %" PRIu64 " of %" PRIu64 " is gone: %s", cut->what, receipt + 1, p->receipt, next.fault.text);
        }
        char text[300];
        payload_text(++receipt, sizeof text, text);
        assert_int_equal(next.receipt, receipt);
        assert_true(bytes_equal(blob_bytes(next.batch), bytes_of(text, sizeof text)));
        blob_unref(next.batch);
    }
    d.last = d.start.raft.window_base; /* and it works on */
    if (d.start.raft.entry_count > 0) {
        const struct entry *e = &d.start.raft.entries[d.start.raft.entry_count - 1];
        d.last = (struct raft_point){.index = e->index, .term = e->term, .time_ms = e->time_ms};
        memcpy(d.last.hash, e->hash, DIGEST_BYTES);
    }
    assert_int_equal(store(&d, make_entries(&d, 3, 500, d.start.raft.term + 1), 3), E_OK);
    close_disk(&d);
}

static void a_gateway_keeps_its_promises(void **state) {
    (void)state;
    struct disk d;
    make_dir(&d);
    power_watch(d.dir);
    live(&d);
    struct power_tally t = power_cuts(power_boundaries(40), keeps_its_promises, NULL);
    say(&t, "log, state, images and batches");
    assert_true(t.calls > 500 && t.syncs > 60);
    remove_dir(&d);
}

/* --- space is given back ------------------------------------------------------------------------------------------------------------------------ */
static const struct db_options shrinking = {.page_bytes = 1024, .cache_bytes = 65536};

static void put_numbers(struct db *d, int64_t from, int64_t to) {
    struct db_statement *put = NULL;
    assert_int_equal(db_prepare(d, "INSERT INTO t VALUES(?1, zeroblob(300))", &put, NULL), E_OK);
    assert_int_equal(db_begin(d, NULL), E_OK);
    for (int64_t i = from; i < to; i++) {
        db_bind_int(put, 1, i);
        assert_int_equal(db_run(put, NULL), E_OK);
        db_reset(put);
    }
    assert_int_equal(db_commit(d, NULL), E_OK);
}

static void holds_its_rows(const struct power_cut *cut, void *context) {
    (void)context;
    const int64_t *promise = cut->promise;
    int64_t low = -1, high = -1, count = -1;
    char path[128];
    bool created;
    struct fault f = {0};
    (void)snprintf(path, sizeof path, "%s/x.db", cut->dir);
    struct db *d = db_open(path, &shrinking, &created, &f);
    if (d == NULL || db_ask(d, "SELECT min(k) FROM t", &low, &f) != E_OK || db_ask(d, "SELECT max(k) FROM t", &high, &f) != E_OK ||
        db_ask(d, "SELECT count(*) FROM t", &count, &f) != E_OK) {
        fail_msg("%s: %s", cut->what, f.text);
    }
    int64_t from = promise == NULL ? 0 : promise[0], to = promise == NULL ? 600 : promise[1];
    if (low < from || high < to - 1 || count != high - low + 1) {
        fail_msg("%s: rows %lld to %lld, promised %lld to %lld", cut->what, (long long)low, (long long)high, (long long)from,
                 (long long)to);
    }
    db_close(d);
}

/* Pages that nobody needs any more leave the file, one by one or all at once, while it goes on being used. */
static void space_that_is_given_back_takes_nothing_along(void **state) {
    (void)state;
    struct disk d;
    char path[128];
    bool created;
    make_dir(&d);
    (void)snprintf(path, sizeof path, "%s/x.db", d.dir);
    struct db *db = db_open(path, &shrinking, &created, NULL);
    assert_non_null(db);
    assert_int_equal(db_exec(db, "CREATE TABLE t(k INTEGER PRIMARY KEY, v BLOB)", NULL), E_OK);
    put_numbers(db, 0, 600);
    db_close(db);
    power_watch(d.dir);
    assert_non_null(db = db_open(path, &shrinking, &created, NULL));
    int64_t promise[2] = {0, 600};
    for (int64_t round = 1; round <= 4; round++) {
        put_numbers(db, promise[1], promise[1] + 40);
        promise[1] += 40;
        power_promise(promise, sizeof promise);
        char sql[64];
        (void)snprintf(sql, sizeof sql, "DELETE FROM t WHERE k < %lld", (long long)round * 150);
        assert_int_equal(db_exec(db, sql, NULL), E_OK);
        promise[0] = round * 150;
        power_promise(promise, sizeof promise);
        assert_int_equal(round % 2 == 0 ? db_rewrite(db, NULL) : db_shrink(db, 30, NULL), E_OK);
        assert_int_equal(round == 3 ? E_OK : db_checkpoint(db, NULL), E_OK);
    }
    db_close(db);
    struct power_tally t = power_cuts(power_boundaries(60), holds_its_rows, NULL);
    say(&t, "space given back");
    assert_true(t.calls > 200);
    remove_dir(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_gateway_keeps_its_promises),
        cmocka_unit_test(space_that_is_given_back_takes_nothing_along),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
