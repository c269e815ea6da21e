/* The door to SQLite: durable commits, named errors, damage found, faults survived. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/db.h"

static const struct db_options options = {.page_bytes = 1024, .cache_bytes = 64 * 1024};
static char dir[64], path[96], wal[96];

static int set_up(void **state) {
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/grey-db-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/x.db", dir);
    snprintf(wal, sizeof wal, "%s/x.db-wal", dir);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    char command[96];
    db_inject(NULL);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

static struct db *open_it(struct fault *f) {
    bool created;
    struct db *d = db_open(path, &options, &created, f);
    if (d != NULL && created) {
        assert_int_equal(db_exec(d, "CREATE TABLE t(k INTEGER PRIMARY KEY, v BLOB)", f), E_OK);
    }
    return d;
}

/* Rows k = from .. to - 1 with 200 bytes each, in one transaction. */
static enum grey_error put(struct db *d, int64_t from, int64_t to, struct fault *f) {
    struct db_statement *st;
    uint8_t v[200];
    memset(v, (int)from, sizeof v);
    enum grey_error err = db_begin(d, f);
    if (err == E_OK) {
        err = db_prepare(d, "INSERT INTO t VALUES(?1, ?2)", &st, f);
    }
    for (int64_t k = from; k < to && err == E_OK; k++) {
        db_bind_int(st, 1, k);
        db_bind_bytes(st, 2, bytes_of(v, sizeof v));
        err = db_run(st, f);
    }
    err = err == E_OK ? db_commit(d, f) : err;
    if (err != E_OK) {
        db_rollback(d);
    }
    return err;
}

static int64_t rows(struct db *d) {
    int64_t count;
    return db_ask(d, "SELECT count(*) FROM t", &count, NULL) == E_OK ? count : -1;
}

/* If this failed, what a node stored would not be there, or would be readable by others. */
static void what_is_committed_is_there(void **state) {
    (void)state;
    struct fault f = {0};
    struct db *d = open_it(&f);
    struct stat st;
    assert_int_equal(put(d, 0, 100, &f), E_OK);
    assert_int_equal(db_begin(d, &f), E_OK);
    assert_int_equal(db_exec(d, "DELETE FROM t", &f), E_OK);
    assert_true(db_in_transaction(d));
    db_rollback(d);
    assert_false(db_in_transaction(d));
    db_close(d);
    d = open_it(&f);
    assert_int_equal(rows(d), 100);
    int64_t size;
    assert_int_equal(db_ask(d, "SELECT length(v) FROM t WHERE k = 7", &size, &f), E_OK);
    assert_int_equal(size, 200);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(stat(wal, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    db_close(d);
}

/* If this failed, a commit could be answered before it is on the disk, or each would cost more syncs than it must. */
static void a_commit_costs_one_sync(void **state) {
    (void)state;
    struct fault f;
    struct db *d = open_it(&f);
    struct db_counts before, after;
    assert_int_equal(put(d, 0, 1, &f), E_OK);
    db_count(&before);
    for (int64_t i = 1; i <= 50; i++) {
        assert_int_equal(put(d, i, i + 1, &f), E_OK);
    }
    db_count(&after);
    assert_int_equal(after.syncs - before.syncs, 50);
    db_close(d);
}

/* If this failed, errors would be without a name, and the remedy would be guesswork. */
static void errors_have_names(void **state) {
    (void)state;
    struct fault f;
    bool created;
    struct db *d = open_it(&f);
    assert_int_equal(db_exec(d, "SELEKT", &f), E_BUG);
    assert_non_null(strstr(f.text, "SELEKT"));
    assert_null(db_open(path, &options, &created, &f));
    assert_int_equal(f.code, E_LOCKED);
    db_close(d);
    struct db_options other = {.page_bytes = 4096, .cache_bytes = 65536};
    assert_null(db_open(path, &other, &created, &f));
    assert_int_equal(f.code, E_DISK_VERSION);
    assert_null(db_open("/nonexistent/x.db", &options, &created, &f));
    assert_int_equal(f.code, E_IO);
}

static uint64_t read_all(struct db *d, struct fault *f, enum grey_error *err) {
    struct db_statement *st;
    uint64_t sum = 0;
    bool row = true;
    *err = db_prepare(d, "SELECT k, v FROM t", &st, f);
    while (*err == E_OK && (*err = db_step(st, &row, f)) == E_OK && row) {
        struct bytes v = db_bytes(st, 1);
        sum = sum * 31 + (uint64_t)db_int(st, 0);
        for (size_t i = 0; i < v.size; i++) {
            sum = sum * 31 + v.data[i];
        }
    }
    return sum;
}

/* If a link above the file were refused, a data directory that was moved to a larger disk would keep the gateway from starting;
 * if the file itself could be one, whoever may write beside it would choose what greyd overwrites. */
static void folders_may_be_links_and_files_may_not(void **state) {
    (void)state;
    char link[96], behind[128], planted[128];
    struct fault f = {0};
    bool created;
    (void)snprintf(link, sizeof link, "%s-link", dir);
    (void)snprintf(behind, sizeof behind, "%s/x.db", link);
    (void)snprintf(planted, sizeof planted, "%s/planted.db", link);
    struct db *d = open_it(&f);
    assert_non_null(d);
    db_close(d);
    (void)unlink(link);
    assert_int_equal(symlink(dir, link), 0);
    assert_int_equal(symlink("x.db", planted), 0);
    d = db_open(behind, &options, &created, &f);
    assert_non_null(d);
    db_close(d);
    assert_null(db_open(planted, &options, &created, &f));
    assert_int_equal(f.code, E_IO);
    assert_int_equal(unlink(link), 0);
}

/* If this failed, one bad bit on a card would turn into wrong state instead of an error (FAULTS P10). */
static void a_flipped_bit_is_found_in_every_page(void **state) {
    (void)state;
    struct fault f;
    struct db *d = open_it(&f);
    struct stat st;
    enum grey_error err;
    assert_int_equal(put(d, 0, 60, &f), E_OK);
    uint64_t sum = read_all(d, &f, &err);
    db_close(d);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size % 1024, 0);
    unsigned found = 0;
    for (off_t at = 0; at < st.st_size; at += at < 100 ? 1 : 37) {
        uint8_t byte;
        int fd = open(path, O_RDWR);
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        uint8_t bad = byte ^ 4;
        assert_int_equal(pwrite(fd, &bad, 1, at), 1);
        d = open_it(&f);
        if (d == NULL) {
            assert_true(f.code == E_CORRUPT || f.code == E_DISK_VERSION);
            found++;
        } else {
            bool same = read_all(d, &f, &err) == sum;
            if (err != E_OK) {
                assert_int_equal(err, E_CORRUPT);
                assert_non_null(strstr(f.text, "page"));
                found++;
            } else if (!same) {
                fail_msg("byte %ld: other rows", (long)at);
            }
            db_close(d);
        }
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        close(fd);
    }
    assert_true(found > 10);
}

/* If this failed, damage in the middle of the log would be taken for its end, and promised commits would vanish (FAULTS P10). */
static void damage_inside_the_log_is_not_its_end(void **state) {
    (void)state;
    struct fault f;
    char copy[512];
    struct db *d = open_it(&f);
    for (int64_t i = 0; i < 10; i++) {
        assert_int_equal(put(d, i, i + 1, &f), E_OK);
    }
    /* A copy while it is open is what a power cut leaves. */
    snprintf(copy, sizeof copy, "cd %s && for i in x.db x.db-wal; do cp $i saved-$i; done", dir);
    assert_int_equal(system(copy), 0);
    db_close(d);
    snprintf(copy, sizeof copy, "cd %s && for i in x.db x.db-wal; do cp saved-$i $i; done", dir);
    struct stat st;
    char saved[112];
    snprintf(saved, sizeof saved, "%s/saved-x.db-wal", dir);
    assert_int_equal(stat(saved, &st), 0);
    unsigned refused = 0, shorter = 0;
    for (off_t at = 40; at < st.st_size; at += 211) {
        uint8_t byte;
        assert_int_equal(system(copy), 0);
        int fd = open(wal, O_RDWR);
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        byte ^= 1;
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        close(fd);
        d = open_it(&f);
        if (d == NULL) {
            assert_int_equal(f.code, E_CORRUPT);
            refused++;
        } else {
            /* Only in the last commit it looks as a cut during it does. */
            assert_int_equal(rows(d), 9);
            assert_true(at > st.st_size - 6 * 1048);
            shorter++;
            db_close(d);
        }
    }
    assert_true(refused > 10 && shorter > 0);
    assert_int_equal(system(copy), 0);
    assert_int_equal(truncate(wal, st.st_size - 10), 0); /* the last commit was cut */
    d = open_it(&f);
    assert_int_equal(rows(d), 9);
    db_close(d);
}

struct nth {
    unsigned left;
    enum grey_error answer;
    enum db_io io;
    bool for_ever, hit;
};

static enum grey_error fail_nth(void *context, enum db_io io, const char *name, uint64_t offset, struct bytes data) {
    (void)name, (void)offset, (void)data;
    struct nth *n = context;
    if (io != n->io || (n->hit && !n->for_ever)) {
        return E_OK;
    }
    if (n->left > 0) {
        n->left--;
        return E_OK;
    }
    n->hit = true;
    return n->answer;
}

/* If this failed, an error of the disk at the wrong moment would lose or invent rows (FAULTS P3, P4). */
static void every_failing_call_is_survived(void **state) {
    (void)state;
    static const struct {
        enum db_io io;
        enum grey_error answer;
    } cases[] = {{DB_IO_WRITE, E_IO}, {DB_IO_WRITE, E_DISK_FULL}, {DB_IO_SYNC, E_IO}, {DB_IO_READ, E_IO}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        for (int for_ever = 0; for_ever < 2; for_ever++) {
            for (unsigned n = 0; n < 200; n++) {
                struct fault f = {0};
                struct nth nth = {.left = n, .answer = cases[c].answer, .io = cases[c].io, .for_ever = for_ever == 1};
                int64_t promised = 0;
                tear_down(NULL);
                set_up(NULL);
                db_inject(&(struct db_faults){.ask = fail_nth, .context = &nth});
                bool created;
                struct db *d = db_open(path, &options, &created, &f);
                enum grey_error err =
                    d == NULL ? f.code : db_exec(d, "CREATE TABLE IF NOT EXISTS t(k INTEGER PRIMARY KEY, v BLOB)", &f);
                for (int64_t i = 0; i < 4 && err == E_OK; i++) {
                    err = put(d, i * 10, i * 10 + 10, &f);
                    promised += err == E_OK ? 10 : 0;
                    err = err == E_OK && i == 1 ? db_checkpoint(d, &f) : err;
                }
                if (nth.hit && err != E_OK) {
                    assert_int_equal(err, cases[c].answer);
                }
                if (err == E_DISK_FULL && d != NULL && for_ever == 0 && promised > 0) { /* goes on when there is room again */
                    assert_int_equal(put(d, 1000, 1010, &f), E_OK);
                    promised += 10;
                }
                db_close(d);
                db_inject(NULL);
                d = open_it(&f);
                if (d == NULL) {
                    fail_msg("case %zu call %u: %s", c, n, f.text);
                }
                int64_t there = rows(d);
                if (promised > 0 || there != -1) {
                    assert_true(there >= promised);
                    assert_int_equal(there % 10, 0);
                }
                db_close(d);
                if (!nth.hit) {
                    break;
                }
                assert_true(n < 199);
            }
        }
    }
}

/* If this failed, the log file would grow for ever, or space would not come back. */
static void space_comes_back(void **state) {
    (void)state;
    struct fault f;
    struct db *d = open_it(&f);
    for (int64_t i = 0; i < 100; i++) {
        assert_int_equal(put(d, i * 50, i * 50 + 50, &f), E_OK);
    }
    assert_true(db_wal_bytes(d) > 1000000);
    assert_int_equal(db_checkpoint(d, &f), E_OK);
    assert_int_equal(db_wal_bytes(d), 0);
    uint64_t full = db_file_bytes(d);
    assert_int_equal(db_exec(d, "DELETE FROM t WHERE k >= 100", &f), E_OK);
    assert_true(db_free_bytes(d) > full * 3 / 4);
    while (db_free_bytes(d) > 0) {
        assert_int_equal(db_shrink(d, 64, &f), E_OK);
    }
    assert_true(db_file_bytes(d) < full / 4);
    assert_int_equal(db_checkpoint(d, &f), E_OK);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, db_file_bytes(d));
    db_close(d);
}

/* If this failed, what is left of a drained queue would lose its sums, or a power cut while it is written anew would lose it. */
static void little_that_is_left_is_written_anew(void **state) {
    (void)state;
    struct fault f;
    struct db *d = open_it(&f);
    struct db_statement *count = NULL;
    bool row = false;
    for (int64_t i = 0; i < 100; i++) {
        assert_int_equal(put(d, i * 50, i * 50 + 50, &f), E_OK);
    }
    assert_int_equal(db_prepare(d, "SELECT count(*) FROM t", &count, &f), E_OK);
    assert_int_equal(db_exec(d, "DELETE FROM t WHERE k < 4900", &f), E_OK);
    assert_int_equal(db_checkpoint(d, &f), E_OK);
    uint64_t full = db_file_bytes(d), live = db_live_bytes(d);
    assert_true(live < full - db_free_bytes(d) - full / 1000); /* else a large file with nothing in it would seem to hold its map */
    assert_int_equal(db_rewrite(d, &f), E_OK);
    assert_true(db_file_bytes(d) <= live + 2048);
    assert_int_equal(db_free_bytes(d), 0);
    assert_true(db_file_bytes(d) < full / 10);
    assert_int_equal(db_step(count, &row, &f), E_OK); /* statements of before hold */
    assert_int_equal(db_int(count, 0), 100);
    db_reset(count);
    assert_int_equal(db_checkpoint(d, &f), E_OK);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, db_file_bytes(d));
    assert_int_equal(put(d, 6000, 6100, &f), E_OK);
    assert_int_equal(db_exec(d, "DELETE FROM t WHERE k >= 6000", &f), E_OK);
    uint64_t free_bytes = db_free_bytes(d);
    assert_int_equal(db_shrink(d, 4, &f), E_OK); /* it still knows whose page is whose */
    assert_true(db_free_bytes(d) < free_bytes);
    db_close(d);
    assert_non_null(d = open_it(&f));
    assert_int_equal(rows(d), 100);
    db_close(d);
    uint32_t page_bytes = 0; /* and each page carries its sum */
    int fd = open(path, O_RDWR);
    uint8_t size[2];
    assert_true(fd >= 0 && pread(fd, size, 2, 16) == 2);
    page_bytes = (uint32_t)size[0] << 8 | size[1];
    uint8_t byte;
    off_t at = (off_t)page_bytes * 4 + 200;
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 4;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    (void)close(fd);
    d = open_it(&f);
    assert_true(d == NULL || rows(d) < 0);
    db_close(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_is_committed_is_there, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_commit_costs_one_sync, set_up, tear_down),
        cmocka_unit_test_setup_teardown(errors_have_names, set_up, tear_down),
        cmocka_unit_test_setup_teardown(folders_may_be_links_and_files_may_not, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_flipped_bit_is_found_in_every_page, set_up, tear_down),
        cmocka_unit_test_setup_teardown(damage_inside_the_log_is_not_its_end, set_up, tear_down),
        cmocka_unit_test_setup_teardown(every_failing_call_is_survived, set_up, tear_down),
        cmocka_unit_test_setup_teardown(space_comes_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(little_that_is_left_is_written_anew, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
