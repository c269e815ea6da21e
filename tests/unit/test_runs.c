/* If this failed, a task could run twice under one token, outlive its lease or its stop, or leave output that fills the disk. */
#include <fcntl.h>

#include "agent/launch/capture.h"
#include "tests/unit/runs_rig.h"

static void start(uint64_t token, const char *script, bool leased) {
    struct launch_message m = {.kind = LAUNCH_START, .scope = 7, .token = token, .id = bytes_str("t"), .leased = leased};
    m.command = (struct launch_texts){.count = 3, .at = {bytes_str("/bin/sh"), bytes_str("-c"), bytes_str(script)}};
    rig.last = (struct launch_message){.kind = LAUNCH_KIND_COUNT};
    runs_start(rig.runs, &m);
}

static void test_ends(void **state) {
    (void)state;
    start(1, "exit 0", false);
    ends(LAUNCH_END_EXIT, 0);
    start(2, "exit 7", false);
    ends(LAUNCH_END_EXIT, 7);
    start(3, "kill -KILL $$", false);
    ends(LAUNCH_END_SIGNAL, SIGKILL);
}

/* After a power cut without a site to ask, what may go on does; what may not, or has ended, does not. */
static void test_again(void **state) {
    struct builder text;
    uint64_t from, end;
    struct launch_message m = {.kind = LAUNCH_START, .scope = 7, .token = 1, .id = bytes_str("t"), .again = true};
    (void)state;
    start(1, "touch left; echo first; sleep 60", false);
    wait_for(LAUNCH_RUNNING);
    builder_init(&text, 1024);
    struct launch_message read = {.scope = 7, .token = 1, .size = 1024};
    while (runs_read(rig.runs, &read, &text, &from, &end) == E_OK && end == 0) {
        rig.until = LAUNCH_STATE_COUNT;
        loop_timer_after(rig.loop, &rig.turn, 20);
        loop_run(rig.loop);
    }
    close_runs();
    open_runs();
    start(1, "echo second", false);
    wait_for(LAUNCH_USED);
    m.command = (struct launch_texts){.count = 3, .at = {bytes_str("/bin/sh"), bytes_str("-c"), bytes_str("ls; echo second")}};
    runs_start(rig.runs, &m);
    ends(LAUNCH_END_EXIT, 0);
    builder_reset(&text);
    assert_int_equal(runs_read(rig.runs, &read, &text, &from, &end), E_OK);
    assert_true(bytes_equal_str(builder_bytes(&text), "first\nleft\nsecond\n")); /* in its directory, behind what it wrote */
    runs_forget(rig.runs, 7, 1);
    close_runs();
    open_runs();
    runs_start(rig.runs, &m); /* the site has its end */
    wait_for(LAUNCH_USED);
    builder_free(&text);
}

static void start_watched(uint64_t token, const char *script, const char *probe, uint64_t disk_bytes) {
    struct launch_message m = {.kind = LAUNCH_START, .scope = 7, .token = token, .id = bytes_str("t"), .disk_bytes = disk_bytes};
    m.command = (struct launch_texts){.count = 3, .at = {bytes_str("/bin/sh"), bytes_str("-c"), bytes_str(script)}};
    m.probe = (struct launch_probe){.interval_ms = 100, .timeout_ms = 300, .failures = 2};
    m.probe.command = (struct launch_texts){.count = probe == NULL ? 0 : 3,
                                            .at = {bytes_str("/bin/sh"), bytes_str("-c"), bytes_str(probe == NULL ? "" : probe)}};
    rig.last = (struct launch_message){.kind = LAUNCH_KIND_COUNT};
    runs_start(rig.runs, &m);
}

/* One that answers nobody any more, or fills the disk, must not go on as if it did its work. */
static void test_watched(void **state) {
    (void)state;
    start_watched(1, "touch well; sleep 1; rm well; sleep 60", "[ -e well ]", 0); /* it asks in the directory of the run */
    ends(LAUNCH_END_PROBE, SIGTERM);
    assert_true(rig.last.use.wall_ms >= 1000);
    start_watched(2, "sleep 60", "sleep 60", 0); /* no answer is none */
    ends(LAUNCH_END_PROBE, SIGTERM);
    start_watched(3, "sleep 1; exit 5", "exit 0", 0);
    ends(LAUNCH_END_EXIT, 5);
    start_watched(4, "for i in 1 2 3 4; do head -c 40000 /dev/zero >f$i; done; sleep 60", NULL, 100000);
    ends(LAUNCH_END_DISK, SIGTERM);
    start_watched(5, "truncate -s 100000 f && ! truncate -s 100001 f", NULL, 100000); /* one file is cut at once */
    ends(LAUNCH_END_EXIT, 0);
}

static bool is_there(uint64_t token, const char *name) {
    char path[160];
    (void)snprintf(path, sizeof path, "%s/runs/%016x-%u/%s", rig.dir, 7, (unsigned)token, name);
    return access(path, F_OK) == 0;
}

static void cleared(uint64_t token) {
    assert_false(is_there(token, "work")); /* at once, so that it may be made anew */
    for (unsigned tries = 0; is_there(token, "gone"); tries++) {
        assert_in_range(tries, 0, 2000);
        (void)usleep(10000);
    }
}

#define DEEP "i=0; while [ $i -lt 300 ]; do mkdir e d; touch e/f; cd d; i=$((i+1)); done; "

/* What is deep, or many, counts like what is large, and is cleared away, or tasks fill the disk of a gateway beyond all bounds. */
static void test_deep(void **state) {
    (void)state;
    start(1, DEEP, false);
    ends(LAUNCH_END_EXIT, 0);
    cleared(1);
    start_watched(2, DEEP "sleep 60", NULL, 1u << 30);
    ends(LAUNCH_END_DISK, SIGTERM);
    cleared(2);
    start_watched(3, "i=0; while [ $i -lt 100 ]; do i=$((i+1)); : >$i; done; sleep 60", NULL, 100000);
    ends(LAUNCH_END_DISK, SIGTERM);
    start(4, "exit 0", false);
    ends(LAUNCH_END_EXIT, 0);
    char command[256]; /* as a launcher that lost its power while it cleared away would leave it */
    (void)snprintf(command, sizeof command, "cd %s/runs/%016x-4 && mkdir -p gone/0/1/2 gone/7/1/2 && touch gone/0/1/f gone/8",
                   rig.dir, 7);
    assert_int_equal(system(command), 0);
    close_runs();
    open_runs();
    cleared(4);
}

/* Proofs name what a run used and what it wrote. */
static void test_use(void **state) {
    uint8_t zeros[100000] = {0}, hash[DIGEST_SHA256_BYTES];
    (void)state;
    start(1, "head -c 100000 /dev/zero; i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done", false);
    ends(LAUNCH_END_EXIT, 0);
    digest_sha256(bytes_of(zeros, sizeof zeros), hash);
    assert_int_equal(rig.last.use.output_bytes[LAUNCH_STDOUT], sizeof zeros);
    assert_memory_equal(rig.last.use.output_hash[LAUNCH_STDOUT], hash, sizeof hash);
    digest_sha256(bytes_of(NULL, 0), hash);
    assert_memory_equal(rig.last.use.output_hash[LAUNCH_STDERR], hash, sizeof hash);
    assert_true(rig.last.use.cpu_us > 1000 && rig.last.use.memory_peak_bytes > 65536);
    start(2, "while :; do :; done", false);
    wait_for(LAUNCH_RUNNING);
    do { /* what it uses is told while it goes on */
        runs_measure(rig.runs);
        assert_int_equal(rig.last.kind, LAUNCH_USE);
    } while (rig.last.use.cpu_us == 0 || rig.last.use.memory_bytes == 0);
}

static void test_once(void **state) {
    struct builder text;
    uint64_t from, end;
    (void)state;
    start(1, "echo ran", false);
    ends(LAUNCH_END_EXIT, 0);
    start(1, "echo ran", false); /* its end is known still: that is told */
    ends(LAUNCH_END_EXIT, 0);
    close_runs(); /* as if it had died: nothing is known but the mark */
    open_runs();
    start(1, "echo ran", false);
    wait_for(LAUNCH_USED);
    builder_init(&text, 65536);
    struct launch_message read = {.kind = LAUNCH_READ, .scope = 7, .token = 1, .stream = LAUNCH_STDOUT, .size = 65536};
    assert_int_equal(runs_read(rig.runs, &read, &text, &from, &end), E_OK);
    builder_add_byte(&text, 0);
    assert_string_equal((char *)text.data, "ran\n");
    builder_free(&text);
}

static void test_stop(void **state) {
    (void)state;
    char mark[128];
    (void)snprintf(mark, sizeof mark, "%s/runs/%016x-%d/work/deaf", rig.dir, 7, 1);
    start(1, "trap '' TERM; touch deaf; while :; do sleep 0.05; done", false);
    wait_for(LAUNCH_RUNNING);
    for (unsigned tries = 0; access(mark, F_OK) != 0; tries++) {
        assert_in_range(tries, 0, 2000);
        (void)usleep(10000);
    }
    runs_stop(rig.runs, 7, 1, 300); /* it does not listen to TERM */
    ends(LAUNCH_END_STOPPED, SIGKILL);
}

static void test_lease(void **state) {
    (void)state;
    start(1, "sleep 100", true);
    wait_for(LAUNCH_LATER); /* nobody has given a lease */
    runs_lease(rig.runs, loop_now_ms(rig.loop) + 700);
    start(1, "sleep 100", true); /* so it was not marked */
    wait_for(LAUNCH_RUNNING);
    runs_lease(rig.runs, loop_now_ms(rig.loop)); /* does not shorten it */
    uint64_t before_ms = loop_now_ms(rig.loop);
    ends(LAUNCH_END_STOPPED, SIGTERM);
    assert_in_range(loop_now_ms(rig.loop) - before_ms, 300, 5000);
}

static struct {
    int word[2];
    struct loop_fd link;
    struct loop_timer stall;
} slow;

static void word_came(void *context, uint32_t events) {
    char byte;
    (void)context, (void)events;
    assert_int_equal(read(slow.link.fd, &byte, 1), 1);
    runs_lease(rig.runs, loop_now_ms(rig.loop) + 60000);
}

static void stall(void *context) {
    (void)context;
    (void)usleep(800000);
    assert_int_equal(write(slow.word[1], "!", 1), 1);
}

/* A disk that is slow for longer than a lease must not end tasks whose lease was renewed meanwhile: the word lies there, unread. */
static void test_stall(void **state) {
    (void)state;
    assert_int_equal(pipe(slow.word), 0);
    slow.link = (struct loop_fd){.ready = word_came};
    slow.stall = (struct loop_timer){.fire = stall};
    assert_int_equal(loop_fd_add(rig.loop, &slow.link, slow.word[0], EPOLLIN, NULL), E_OK);
    uint64_t until_ms = loop_now_ms(rig.loop) + 5000;
    runs_lease(rig.runs, until_ms);
    start(1, "sleep 100", true);
    wait_for(LAUNCH_RUNNING);
    rig.until = LAUNCH_ENDED;
    loop_timer_set(rig.loop, &slow.stall, until_ms - 500);
    loop_timer_set(rig.loop, &rig.turn, until_ms + 1500);
    loop_run(rig.loop);
    assert_int_equal(rig.last.state, LAUNCH_RUNNING);
    loop_fd_remove(rig.loop, &slow.link);
    (void)close(slow.word[0]);
    (void)close(slow.word[1]);
}

static void test_no_rights(void **state) {
    (void)state;
    start(1, "grep -q '^NoNewPrivs:.1' /proc/self/status && grep -q '^Seccomp:.2' /proc/self/status && ! unshare -U true", false);
    ends(LAUNCH_END_EXIT, 0);
    int inherited = open("/dev/null", O_RDONLY); /* as whoever started the launcher may have left one open */
    assert_true(inherited > STDERR_FILENO);
    start(2, "[ $(ls /proc/self/fd | wc -l) -eq 4 ]", false); /* 0 to 2 and the one of ls: nothing of the launcher's leaks */
    ends(LAUNCH_END_EXIT, 0);
    (void)close(inherited);
}

static void test_bounded_output(void **state) {
    char path[128];
    unsigned there = 0;
    (void)state;
    start(100, "head -c 1048576 /dev/zero", false); /* the oldest, but it may be asked for again: the site has not its end */
    ends(LAUNCH_END_EXIT, 0);
    for (uint64_t token = 1; token <= 72; token++) { /* 1 MiB each, 8 more than are kept */
        start(token, "head -c 1048576 /dev/zero", false);
        ends(LAUNCH_END_EXIT, 0);
        rig.until = LAUNCH_STATE_COUNT;
        runs_forget(rig.runs, 7, token);
        loop_timer_after(rig.loop, &rig.turn, 150);
        loop_run(rig.loop);
    }
    for (unsigned token = 1; token <= 72; token++) {
        (void)snprintf(path, sizeof path, "%s/runs/%016x-%u/out.1", rig.dir, 7, token);
        there += access(path, F_OK) == 0;
        assert_true(token > 8 || access(path, F_OK) != 0); /* the oldest left */
    }
    assert_int_equal(there, 64);
    close_runs();
    open_runs();
    start(100, "exit 0", false);
    wait_for(LAUNCH_USED);
}

static void test_capture(void **state) {
    struct capture c;
    struct builder out;
    uint64_t from, end;
    static uint8_t block[10000];
    (void)state;
    int folder = open(rig.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(folder >= 0);
    capture_init(&c, folder, "out");
    for (unsigned i = 0; i < 200; i++) {
        memset(block, (int)i, sizeof block);
        capture_write(&c, bytes_of(block, sizeof block));
    }
    capture_close(&c);
    assert_true(c.written == 2000000 && !c.failed);
    builder_init(&out, CAPTURE_FILES * CAPTURE_FILE_BYTES);
    assert_int_equal(capture_read(folder, "out", 0, out.limit_bytes, &out, &from, &end), E_OK);
    assert_true(end == 2000000 && from == end - out.size && from % CAPTURE_FILE_BYTES == 0);
    assert_in_range(out.size, CAPTURE_FILE_BYTES, CAPTURE_FILES * CAPTURE_FILE_BYTES);
    for (size_t i = 0; i < out.size; i += 777) { /* each byte says where it was written */
        assert_int_equal(out.data[i], (from + i) / sizeof block);
    }
    builder_reset(&out);
    assert_int_equal(capture_read(folder, "out", 3000000, 10, &out, &from, &end), E_OK); /* beyond its end */
    assert_true(from == end && out.size == 0);
    assert_int_equal(capture_read(folder, "err", 0, 10, &out, &from, &end), E_OK); /* nothing was written */
    assert_true(from == 0 && end == 0 && out.size == 0);
    builder_free(&out);
    (void)close(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(test_ends, setup, teardown),
                                       cmocka_unit_test_setup_teardown(test_once, setup, teardown),
                                       cmocka_unit_test_setup_teardown(test_stop, setup, teardown),
                                       cmocka_unit_test_setup_teardown(test_lease, setup, teardown),
                                       cmocka_unit_test_setup_teardown(test_stall, setup, teardown),
                                       cmocka_unit_test_setup_teardown(test_deep, setup, teardown),
                                       cmocka_unit_test_setup_teardown(test_no_rights, setup, teardown),
                                       cmocka_unit_test_setup_teardown(test_bounded_output, setup, teardown),
                                       cmocka_unit_test_setup_teardown(test_watched, setup, teardown),
                                       cmocka_unit_test_setup_teardown(test_again, setup, teardown),
                                       cmocka_unit_test_setup_teardown(test_use, setup, teardown),
                                       cmocka_unit_test_setup_teardown(test_capture, setup, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
