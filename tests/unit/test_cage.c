/* If this failed, one task could take a machine's memory, processors or disks from all others, or die without anybody being told why.
 * Needs control groups that may be written (root); without them it is skipped.  GREY_CAGE names the version that must be there. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/launch/runs.h"

static struct {
    char dir[64];
    struct loop *loop;
    struct cages cages;
    struct runs *runs;
    struct launch_message last;
    bool told;
    struct loop_timer limit;
} rig;

static void changed(void *context, const struct launch_message *m) {
    (void)context;
    rig.last = *m;
    rig.told = true;
    if (m->kind == LAUNCH_STATE && m->state == LAUNCH_ENDED) {
        loop_stop(rig.loop);
    }
}

static void on_limit(void *context) {
    (void)context;
    loop_stop(rig.loop);
}

static void on_child(void *context, int number) {
    (void)context, (void)number;
    runs_reap(rig.runs);
}

static int setup(void **state) {
    struct fault f = {0};
    char missing[64];
    const char *wanted = getenv("GREY_CAGE");
    (void)state;
    (void)snprintf(rig.dir, sizeof rig.dir, "/tmp/grey-cage-XXXXXX");
    assert_non_null(mkdtemp(rig.dir));
    rig.loop = loop_new(&f);
    assert_non_null(rig.loop);
    cage_find(&rig.cages, strrchr(rig.dir, '-') + 1, missing, sizeof missing);
    assert_true(wanted == NULL || (int)rig.cages.kind == atoi(wanted));
    struct runs_options o = {.loop = rig.loop, .dir = rig.dir, .cages = &rig.cages, .changed = changed};
    rig.runs = runs_new(&o, &f);
    assert_non_null(rig.runs);
    loop_signal(rig.loop, SIGCHLD, on_child, NULL);
    rig.limit = (struct loop_timer){.fire = on_limit};
    return 0;
}

static int teardown(void **state) {
    char command[128];
    (void)state;
    runs_free(rig.runs);
    loop_free(rig.loop);
    (void)snprintf(command, sizeof command, "rm -rf %s", rig.dir);
    return system(command); /* NOLINT(cert-env33-c): a fixed command over a name that was made here */
}

/* Until it has ended, but so long at the most. */
static void run(const char *script, uint32_t cpu_millicores, uint64_t memory_bytes, uint64_t limit_ms) {
    struct launch_message m = {.kind = LAUNCH_START,
                               .scope = 7,
                               .token = 1,
                               .id = bytes_str("t"),
                               .cpu_millicores = cpu_millicores,
                               .memory_bytes = memory_bytes};
    if (rig.cages.kind == LAUNCH_LIMITS_RLIMITS) {
        skip();
    }
    m.command = (struct launch_texts){.count = 3, .at = {bytes_str("/bin/sh"), bytes_str("-c"), bytes_str(script)}};
    runs_start(rig.runs, &m);
    loop_timer_after(rig.loop, &rig.limit, limit_ms);
    loop_run(rig.loop);
    loop_timer_cancel(rig.loop, &rig.limit);
}

/* Its directory lies on a disk of this machine, whole or a part, and writes go there when they are asked to. */
static bool on_a_disk(void) {
    struct stat st;
    char path[64];
    assert_int_equal(stat(rig.dir, &st), 0);
    (void)snprintf(path, sizeof path, "/sys/dev/block/%u:%u", major(st.st_dev), minor(st.st_dev));
    return access(path, F_OK) == 0;
}

static void disks_are_bounded(void **state) {
    static const char write_through[] = "exec dd if=/dev/zero of=f bs=256k count=12 oflag=direct 2>/dev/null";
    struct launch_message m = {.kind = LAUNCH_START, .scope = 7, .token = 1, .id = bytes_str("t"), .io_write_bps = 1u << 20};
    struct cage g;
    struct fault f = {0};
    (void)state;
    if (rig.cages.kind == LAUNCH_LIMITS_RLIMITS) {
        skip();
    }
    assert_int_equal(cage_make(&g, &rig.cages, 7, 9, 0, 0, &f), E_OK);
    bool can = cage_bound_io(&g, 1u << 20, 1u << 20);
    assert_true(cage_remove(&g));
    if (!can || !on_a_disk()) {
        print_message("# not tried: there is no disk here, or nothing that bounds it: the launcher says so for each such task\n");
        return;
    }
    run(write_through, 0, 0, 60000);
    if (rig.last.end != LAUNCH_END_EXIT || rig.last.status != 0) {
        print_message("# not tried: this file system does not write through\n");
        return;
    }
    m.token = 2;
    m.command = (struct launch_texts){.count = 3, .at = {bytes_str("/bin/sh"), bytes_str("-c"), bytes_str(write_through)}};
    runs_start(rig.runs, &m);
    loop_timer_after(rig.loop, &rig.limit, 60000);
    loop_run(rig.loop);
    assert_true(rig.last.end == LAUNCH_END_EXIT && rig.last.status == 0);
    assert_true(rig.last.use.wall_ms >= 2000); /* 3 MiB at 1 MiB/s, of which the kernel lets some go at first */
}

static void a_hog_is_ended_at_its_memory(void **state) {
    (void)state;
    run("x=x; while :; do x=$x$x; done", 1000, 32u << 20, 60000);
    assert_int_equal(rig.last.state, LAUNCH_ENDED);
    assert_int_equal(rig.last.end, LAUNCH_END_MEMORY);
    assert_true(rig.last.use.memory_peak_bytes <= 32u << 20);
}

static void processors_are_bounded(void **state) {
    (void)state;
    run("while :; do :; done & while :; do :; done", 300, 32u << 20, 3000);
    rig.told = false;
    runs_measure(rig.runs);
    assert_true(rig.told && rig.last.kind == LAUNCH_USE);
    uint64_t most_us = rig.last.use.wall_ms * 300u, slack_us = most_us / 20 + 30000u;
    if (getenv("GREY_CAGE") != NULL) { /* an emulated processor may stand still, which its kernel counts as used */
        slack_us = most_us;
    }
    assert_true(rig.last.use.cpu_us > 0 && rig.last.use.cpu_us <= most_us + slack_us); /* a period's part, too */
}

/* With as many others as it may have, a shell can make no more: it ends, and says how many there were. */
static void processes_are_bounded(void **state) {
    (void)state;
    if (rig.cages.kind == LAUNCH_LIMITS_CGROUP1 && rig.cages.base[CAGE_PIDS][0] == 0) {
        skip();
    }
    run("trap 'exit $((i / 10))' EXIT; mkfifo p; exec 3<>p; i=0; while [ $i -lt 1100 ]; do (read x <&3) & i=$((i + 1)); done", 0, 0,
        120000);
    assert_int_equal(rig.last.end, LAUNCH_END_EXIT);
    assert_int_equal(rig.last.status, (CAGE_PIDS_MAX - 1) / 10);
}

static void nothing_is_left_of_a_run(void **state) {
    (void)state;
    run("(setsid sleep 1000 &) ; sleep 0.2; exit 4", 1000, 32u << 20, 60000);
    assert_int_equal(rig.last.end, LAUNCH_END_EXIT);
    assert_int_equal(rig.last.status, 4);
    for (unsigned i = 0; i < 200 && runs_live(rig.runs) > 0; i++) { /* also what left its session */
        loop_timer_after(rig.loop, &rig.limit, 50);
        loop_run(rig.loop);
    }
    assert_int_equal(runs_live(rig.runs), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(disks_are_bounded, setup, teardown),
                                       cmocka_unit_test_setup_teardown(a_hog_is_ended_at_its_memory, setup, teardown),
                                       cmocka_unit_test_setup_teardown(processors_are_bounded, setup, teardown),
                                       cmocka_unit_test_setup_teardown(processes_are_bounded, setup, teardown),
                                       cmocka_unit_test_setup_teardown(nothing_is_left_of_a_run, setup, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
