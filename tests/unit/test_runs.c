/* If this failed, a task could run twice under one token, outlive its lease or its stop, or leave output that fills the disk. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/launch/capture.h"
#include "agent/launch/runs.h"

static struct {
    char dir[64];
    struct loop *loop;
    struct cages cages; /* none: rlimits, so that this test needs no right */
    struct runs *runs;
    struct launch_message last;
    enum launch_state until;
    struct loop_timer limit, turn;
} rig;

static void changed(void *context, const struct launch_message *m) {
    (void)context;
    rig.last = *m;
    if (m->state == rig.until) {
        loop_stop(rig.loop);
    }
}

static void too_late(void *context) {
    (void)context;
    fail_msg("the run did not come to the state %d within 20 s", (int)rig.until);
}

static void turn_over(void *context) {
    (void)context;
    loop_stop(rig.loop);
}

static void on_child(void *context, int number) {
    (void)context, (void)number;
    runs_reap(rig.runs);
}

static void open_runs(void) {
    struct fault f = {0};
    rig.loop = loop_new(&f);
    assert_non_null(rig.loop);
    rig.cages = (struct cages){.kind = LAUNCH_LIMITS_RLIMITS};
    struct runs_options o = {.loop = rig.loop, .dir = rig.dir, .cages = &rig.cages, .changed = changed};
    rig.runs = runs_new(&o, &f);
    assert_non_null(rig.runs);
    loop_signal(rig.loop, SIGCHLD, on_child, NULL);
    rig.limit = (struct loop_timer){.fire = too_late};
    rig.turn = (struct loop_timer){.fire = turn_over};
}

static void close_runs(void) {
    runs_free(rig.runs);
    loop_free(rig.loop);
}

static int setup(void **state) {
    (void)state;
    (void)snprintf(rig.dir, sizeof rig.dir, "/tmp/grey-runs-XXXXXX");
    assert_non_null(mkdtemp(rig.dir));
    open_runs();
    return 0;
}

static int teardown(void **state) {
    char command[96];
    (void)state;
    close_runs();
    (void)snprintf(command, sizeof command, "rm -rf %s", rig.dir);
    return system(command);
}

static void wait_for(enum launch_state s) {
    rig.until = s;
    if (rig.last.state == s && rig.last.kind == LAUNCH_STATE) {
        return;
    }
    loop_timer_after(rig.loop, &rig.limit, 20000);
    loop_run(rig.loop);
    loop_timer_cancel(rig.loop, &rig.limit);
}

static void start(uint64_t token, const char *script, bool leased) {
    struct launch_message m = {.kind = LAUNCH_START, .scope = 7, .token = token, .id = bytes_str("t"), .leased = leased};
    m.command = (struct launch_texts){.count = 3, .at = {bytes_str("/bin/sh"), bytes_str("-c"), bytes_str(script)}};
    rig.last = (struct launch_message){.kind = LAUNCH_KIND_COUNT};
    runs_start(rig.runs, &m);
}

static void ends(enum launch_end end, int32_t status) {
    wait_for(LAUNCH_ENDED);
    assert_int_equal(rig.last.end, end);
    assert_int_equal(rig.last.status, status);
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
                                       cmocka_unit_test_setup_teardown(test_no_rights, setup, teardown),
                                       cmocka_unit_test_setup_teardown(test_bounded_output, setup, teardown),
                                       cmocka_unit_test_setup_teardown(test_capture, setup, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
