/* The slow reading through of a gateway's databases, and the one place where damage is told, whoever met it. */
#include "tests/unit/sitelog_rig.h"

#define SLICE 4096u
#define PAGE 1024

struct slice {
    uint64_t bytes;
    bool more;
};

static void look_at_slice(struct sitelog_read *job, void *context) {
    struct slice *s = context;
    s->bytes += job->checked_bytes;
    s->more = job->more;
}

static void stop_now(void *context) {
    loop_stop(context);
}

/* Some turns of the loop: what was met is told. */
static void settle(struct disk *d) {
    struct loop_timer timer = {.fire = stop_now, .context = d->loop};
    loop_timer_after(d->loop, &timer, 2);
    loop_run(d->loop);
}

static enum grey_error check_slice(struct disk *d, struct slice *s) {
    struct sitelog_read job = {.kind = SITELOG_CHECK, .bytes_max = SLICE};
    return read_job(d, &job, look_at_slice, s);
}

/* Slices until a round has ended. */
static enum grey_error check_round(struct disk *d, struct slice *s, unsigned *slices) {
    enum grey_error worst = E_OK;
    *s = (struct slice){.more = true};
    for (*slices = 0; s->more && *slices < 10000; ++*slices) {
        enum grey_error err = check_slice(d, s);
        worst = err != E_OK ? err : worst;
    }
    assert_false(s->more);
    settle(d);
    return worst;
}

/* 400 entries, of which rows refer to some of the first; the log begins behind the first 200. */
static void make_disk(struct disk *d) {
    make_dir(d);
    d->rejoins = true;
    d->window_bytes = 0; /* a start reads little */
    assert_int_equal(open_disk(d), E_OK);
    assert_int_equal(store(d, make_entries(d, 200, 300, 1), 200), E_OK);
    struct raft_point point = d->last;
    for (raft_index i = 1; i <= 200; i += 2) {
        put_row(d, TABLE_OUTBOX, i, "an event", i);
    }
    for (uint64_t i = 0; i < 900; i++) {
        put_row(d, TABLE_KV, i, "a row of some length, so that there are pages of them", 0);
    }
    assert_int_equal(store(d, make_entries(d, 200, 300, 1), 200), E_OK);
    assert_int_equal(flush(d, NULL, NULL, 0), E_OK);
    reopen(d); /* all of it in the files, and none of it in memory */
    assert_int_equal(compact(d, point), E_OK);
}

static void path_of(const struct disk *d, const char *name, char out[96]) {
    (void)snprintf(out, 96, "%s/%s", d->dir, name);
}

/* If this failed, the check would call a sound disk damaged while it is written, and stop a gateway for nothing. */
static void a_sound_disk_passes_whatever_happens_meanwhile(void **state) {
    (void)state;
    struct disk d;
    struct slice s = {0};
    unsigned slices = 0;
    make_disk(&d);
    assert_int_equal(check_round(&d, &s, &slices), E_OK);
    assert_true(slices >= 20 && s.bytes > 300 * 300); /* 300 payloads at least, in slices */
    uint64_t before = s.bytes;
    assert_int_equal(check_round(&d, &s, &slices), E_OK);
    assert_int_equal(s.bytes, before); /* a round is a round */
    struct raft_point fork = {0};
    for (unsigned i = 0; i < 120; i++) {
        assert_int_equal(check_slice(&d, &s), E_OK);
        if (i % 10 == 3) {
            fork = d.last;
            assert_int_equal(store(&d, make_entries(&d, 8, 300, 1 + i), 8), E_OK);
        } else if (i % 10 == 6) { /* another leader's entries come in the places of those */
            struct wait w = {.loop = d.loop};
            struct sitelog_store job = {.truncate_from = fork.index + 1};
            d.last = fork;
            store_give(&d, &w, &job, make_entries(&d, 5, 200, 2 + i), 5);
            loop_run(d.loop);
            assert_int_equal(job.err, E_OK);
        } else if (i % 10 == 9) {
            assert_int_equal(flush(&d, NULL, NULL, 0), E_OK);
            assert_int_equal(compact(&d, d.last), E_OK);
        }
    }
    assert_int_equal(check_round(&d, &s, &slices), E_OK);
    assert_int_equal(d.damages, 0);
    close_disk(&d);
    remove_dir(&d);
}

/* If this failed, damage would show when somebody needs the page, perhaps after the last good copy is gone. */
static void damage_on_any_page_of_rows_is_found_and_told(void **state) {
    (void)state;
    static const char *const files[] = {"log/log.db", "state.db"};
    struct disk d;
    make_disk(&d);
    close_disk(&d);
    for (int file = 0; file < 2; file++) {
        char path[96], mark[96];
        struct stat st;
        unsigned found = 0, fatal = 0, harmless = 0;
        path_of(&d, files[file], path);
        path_of(&d, "state.damaged", mark);
        assert_int_equal(stat(path, &st), 0);
        for (off_t page = 1; page < st.st_size / PAGE; page += 3) {
            off_t at = page * PAGE + (page * 331) % PAGE;
            struct slice s;
            unsigned slices;
            d.damages = 0;
            flip(path, at);
            if (open_disk(&d) != E_OK) {
                fatal++; /* a start reads it */
                table_free(d.table);
                loop_free(d.loop);
                d.table = NULL;
            } else {
                if (check_round(&d, &s, &slices) == E_OK) {
                    assert_int_equal(d.damages, 0);
                    harmless++;
                } else {
                    assert_true(d.damages > 0 && d.damage == (file == 0 ? SITELOG_DAMAGE_LOG : SITELOG_DAMAGE_STATE));
                    assert_non_null(strstr(d.damage_text, file == 0 ? "log.db" : "state.db"));
                    assert_int_equal(access(mark, F_OK) == 0, file == 1);
                    found++;
                }
                close_disk(&d);
            }
            flip(path, at);
            (void)unlink(mark);
            char note[96]; /* of a start that failed */
            path_of(&d, "log/log.mend", note);
            (void)unlink(note);
        }
        print_message("%s: %u damaged pages found, %u met by the start, %u hold nothing\n", files[file], found, fatal, harmless);
        assert_true(found > 20 && harmless < found / 4);
    }
    remove_dir(&d);
}

/* If this failed, a gateway would help others with what it has and never hear that it lost some of it itself. */
static void damage_is_told_also_when_the_job_does_without(void **state) {
    (void)state;
    struct disk d;
    char path[96];
    make_disk(&d);
    path_of(&d, "log/log.db", path);
    for (off_t page = 20; page < 120; page++) {
        flip(path, page * PAGE + 600);
    }
    struct sitelog_read job = {.kind = SITELOG_READABLE, .from = 201, .to = 400, .bytes_max = 1 << 20};
    assert_int_equal(read_job(&d, &job, NULL, NULL), E_OK);
    settle(&d);
    assert_int_equal(d.damages, 1);
    assert_int_equal(d.damage, SITELOG_DAMAGE_LOG);
    struct sitelog_read values = {.kind = SITELOG_PAYLOADS, .index_count = 200, .indexes = mem_new(200, sizeof(raft_index))};
    for (uint32_t i = 0; i < 200; i++) {
        values.indexes[i] = i + 201;
    }
    assert_int_equal(read_job(&d, &values, NULL, NULL), E_CORRUPT);
    assert_non_null(strstr(d.fault.text, "log.db"));
    settle(&d);
    assert_int_equal(d.damages, 2);
    close_disk(&d);
    remove_dir(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_disk_passes_whatever_happens_meanwhile),
        cmocka_unit_test(damage_on_any_page_of_rows_is_found_and_told),
        cmocka_unit_test(damage_is_told_also_when_the_job_does_without),
    };
    return cmocka_run_group_tests_name("disk check", tests, NULL, NULL);
}
