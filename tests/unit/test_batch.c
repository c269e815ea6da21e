/* Several cores write what sites sent into one database, each its share, while connections are cut under them.  If this fails, cores that
 * share the work lose events, count them twice, or stand still waiting for each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <time.h>

#include "core/batch.h"
#include "core/store_answers.h"
#include "platform/log.h"
#include "tests/unit/postgres_rig.h"

#define SITES 12
#define FRAMES 60 /* of each site */
#define PER_FRAME 5
#define CORES 3
#define INCARNATION 77u

static char where[300];

static int set_up(void **state) {
    (void)state;
    postgres_database(where, sizeof where);
    return 0;
}

static struct store *open_store(void) {
    struct fault f = {0};
    struct store *s = store_open(where, &(struct store_options){.shared = true}, &f);
    if (s == NULL) {
        fail_msg("%s", f.text);
    }
    return s;
}

/* A write of a site, as ingest.c makes it of a message. */
struct write {
    struct storage_job storage;
    char site[16];
    grey_seq from, to;
    bool hello;
    grey_seq positions[CHANNEL_COUNT];
    struct store_taken taken;
};

static int64_t now_ms(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void run(struct storage_job *job, struct store *store) {
    struct write *w = (struct write *)(void *)job;
    if (w->hello) {
        struct sync_hello h = {.incarnation = INCARNATION, .epoch = 1, .node = bytes_str("1")};
        bool rolled_back;
        h.channels[0].next_seq = h.channels[1].next_seq = h.channels[2].next_seq = FRAMES * PER_FRAME + 1;
        job->err = store_hello(store, w->site, &h, now_ms(), w->positions, &rolled_back, &job->fault);
        return;
    }
    struct sync_item items[FRAMES * PER_FRAME];
    struct sync_events e = {
        .incarnation = INCARNATION, .epoch = 1, .channel = CHANNEL_DATA, .from_seq = w->from, .to_seq = w->to, .items = items};
    for (grey_seq seq = w->from; seq <= w->to; seq++) {
        items[e.item_count++] = (struct sync_item){.seq = seq, .index = seq, .record = bytes_str("as it came")};
    }
    job->err = store_events(store, w->site, &e, now_ms(), &w->taken, &job->fault);
}

static void prepare(struct write *w, int site, grey_seq from, grey_seq to, bool hello) {
    *w = (struct write){.storage = {.is_write = true, .run = run}, .from = from, .to = to, .hello = hello};
    (void)snprintf(w->site, sizeof w->site, "site-%02d", site);
    w->storage.site = w->site;
}

static enum grey_error batch(struct store *s, struct write *writes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        writes[i].storage.job.next = i + 1 < count ? &writes[i + 1].storage.job : NULL;
    }
    assert_null(batch_run(s, &writes[0].storage.job));
    enum grey_error err = E_OK;
    for (size_t i = 0; i < count && err == E_OK; i++) {
        err = writes[i].storage.err;
    }
    return err;
}

/* One core: its share of the frames of all sites, in batches whose sites stand in an order of its own. */
static int core(int number) {
    static struct write writes[SITES * 4];
    struct fault f = {0};
    struct store *s = NULL;
    for (int tries = 0; s == NULL && tries < 20; tries++) { /* one may be cut off while it starts, too */
        s = store_open(where, &(struct store_options){.shared = true}, &f);
    }
    if (s == NULL) {
        return 1;
    }
    srand((unsigned)number + 1);
    for (int frame = 0; frame < FRAMES; frame += 4) {
        size_t count = 0;
        for (int k = 0; k < SITES; k++) {
            int site = number % 2 == 0 ? k : SITES - 1 - k;
            for (int i = frame; i < frame + 4; i++) {
                if ((i + site) % CORES == number) {
                    grey_seq from = (grey_seq)i * PER_FRAME + 1;
                    prepare(&writes[count++], site, from, from + PER_FRAME - 1, false);
                }
            }
        }
        for (int tries = 0; batch(s, writes, count) != E_OK; tries++) {
            if (tries == 20) {
                return 1;
            }
        }
        (void)usleep((unsigned)(rand() % 3000));
    }
    store_close(s);
    return 0;
}

static void each_number_once_whoever_takes_it(void **state) {
    (void)state;
    static struct write writes[SITES];
    struct store *s = open_store();
    for (int i = 0; i < SITES; i++) {
        prepare(&writes[i], i, 0, 0, true);
    }
    assert_int_equal(batch(s, writes, SITES), E_OK);
    pid_t children[CORES];
    for (int i = 0; i < CORES; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            _exit(core(i));
        }
    }
    int left = CORES, failed = 0;
    for (int i = 0; left > 0; i++) {
        int status;
        (void)usleep(40000);
        if (i < 20) {
            postgres_cut(); /* ours as well */
        }
        while (left > 0 && waitpid(-1, &status, WNOHANG) > 0) {
            left--;
            failed += status != 0;
        }
    }
    assert_int_equal(failed, 0);
    /* A core that was cut between commit and answer did it again: so nothing is missing.  What lay beyond a hole and was dropped or is
     * still kept, the site would send again after a hello. */
    for (int i = 0; i < SITES; i++) {
        prepare(&writes[i], i, 0, 0, true);
    }
    assert_int_equal(batch(s, writes, SITES), E_OK);
    for (int i = 0; i < SITES; i++) {
        struct builder b;
        struct json_writer w;
        struct fault f = {0};
        struct store_query q = {.channel = CHANNEL_DATA, .after = "", .limit = 1000};
        assert_int_equal(writes[i].positions[CHANNEL_DATA], FRAMES * PER_FRAME);
        builder_init(&b, 10000000);
        json_writer_init(&w, &b);
        assert_int_equal(store_answers_events(s, writes[i].site, &q, &w, &f), E_OK);
        json_t *answer = json_read(builder_bytes(&b), &f);
        const json_t *events = json_object_get(answer, "events");
        assert_int_equal(json_array_size(events), FRAMES * PER_FRAME);
        for (size_t k = 0; k < json_array_size(events); k++) {
            assert_int_equal(json_integer_value(json_object_get(json_array_get(events, k), "seq")), k + 1);
        }
        json_decref(answer);
        builder_free(&b);
    }
    store_close(s);
}

/* Two transactions that lock sites in opposite order, which batches never do: the server ends one of them, and that one can go on.  It does
 * when the other is done: PostgreSQL gives a row lock to whoever asks next, not to whoever waits for longest (heap_lock_tuple queues only who has
 * to wait), so at once it could take its first site again before the other wakes, and they would stand in the ring a second time. */
static void a_ring_of_locks_is_broken(void **state) {
    (void)state;
    static struct write writes[2];
    struct store *s = open_store();
    for (int i = 0; i < 2; i++) {
        prepare(&writes[i], i, 0, 0, true);
    }
    assert_int_equal(batch(s, writes, 2), E_OK);
    store_close(s);
    int to_child[2], to_parent[2];
    assert_int_equal(pipe(to_child) | pipe(to_parent), 0);
    enum grey_error got[2] = {E_OK, E_OK};
    pid_t child = fork();
    for (int first = child == 0; first >= 0; first = -1) {
        struct fault f = {0};
        struct store *mine = open_store();
        prepare(&writes[0], first, 1, 5, false);
        prepare(&writes[1], 1 - first, 1, 5, false);
        assert_int_equal(store_begin(mine, &f), E_OK);
        run(&writes[0].storage, mine);
        assert_int_equal(writes[0].storage.err, E_OK);
        char byte = 0; /* both hold their first before either goes for its second */
        assert_int_equal(write(child == 0 ? to_parent[1] : to_child[1], &byte, 1), 1);
        assert_int_equal(read(child == 0 ? to_child[0] : to_parent[0], &byte, 1), 1);
        run(&writes[1].storage, mine);
        got[first] = writes[1].storage.err;
        if (got[first] == E_OK) {
            got[first] = store_commit(mine, &f);
        } else {
            store_rollback(mine);
        }
        assert_int_equal(write(child == 0 ? to_parent[1] : to_child[1], &byte, 1), 1); /* its first try is over */
        assert_int_equal(read(child == 0 ? to_child[0] : to_parent[0], &byte, 1), 1);
        if (got[first] != E_OK && (!store_again(got[first]) || batch(mine, writes, 2) != E_OK)) {
            got[first] = E_BUG;
        }
        store_close(mine);
    }
    if (child == 0) {
        _exit(got[1] == E_OK ? 0 : got[1] == E_CONFLICT ? 1 : 2); /* an exit status has a byte */
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    got[1] = WEXITSTATUS(status) == 0 ? E_OK : WEXITSTATUS(status) == 1 ? E_CONFLICT : E_BUG;
    assert_true((got[0] == E_OK && got[1] == E_CONFLICT) || (got[0] == E_CONFLICT && got[1] == E_OK));
}

/* The database is away for longer than a batch waits: nothing is acknowledged, and the next batch finds it again. */
static void a_database_that_is_away_fails_the_batch_only(void **state) {
    (void)state;
    static struct write writes[2];
    char command[120];
    struct store *s = open_store();
    prepare(&writes[0], 0, 0, 0, true);
    assert_int_equal(batch(s, writes, 1), E_OK);
    (void)snprintf(command, sizeof command, "tests/script/postgres.sh crash %s", postgres_dir);
    assert_int_equal(system(command), 0);
    prepare(&writes[0], 0, 1, 5, false);
    enum grey_error err = batch(s, writes, 1);
    assert_true(err == E_CONNECT || err == E_CLOSED);
    (void)snprintf(command, sizeof command, "FSYNC=off tests/script/postgres.sh resume %s >/dev/null", postgres_dir);
    assert_int_equal(system(command), 0);
    assert_int_equal(batch(s, writes, 1), E_OK);
    assert_int_equal(writes[0].taken.position, 5);
    store_close(s);
}

int main(void) {
    log_configure(LOG_ERROR, LOG_PRETTY);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(each_number_once_whoever_takes_it, set_up),
        cmocka_unit_test_setup(a_ring_of_locks_is_broken, set_up),
        cmocka_unit_test_setup(a_database_that_is_away_fails_the_batch_only, set_up),
    };
    return cmocka_run_group_tests(tests, postgres_start, postgres_stop);
}
