/* runs_rig.h: runs of a launcher without control groups, for tests; as root, they run as another user. */
#ifndef TESTS_UNIT_RUNS_RIG_H
#define TESTS_UNIT_RUNS_RIG_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/launch/runs.h"

#define RIG_USER 65534u
#define RIG_SHELF_BYTES (1024u * 1024u)

static struct {
    char dir[64];
    struct loop *loop;
    struct cages cages; /* none: rlimits, so that this test needs no right */
    struct runs *runs;
    struct launch_message last;
    enum launch_stored stored[64]; /* what was said of artifacts */
    unsigned told;
    enum launch_state until;
    struct loop_timer limit, turn;
} rig;

static void changed(void *context, const struct launch_message *m) {
    (void)context;
    if (m->kind == LAUNCH_STORED) {
        assert_true(rig.told < sizeof rig.stored / sizeof rig.stored[0]);
        rig.stored[rig.told++] = m->stored;
        return;
    }
    rig.last = *m;
    if (m->state == rig.until) {
        loop_stop(rig.loop);
    }
}

/* How long a hang may last: 20 s, or what GREY_PATIENCE_S says, for machines that are only emulated. */
static uint64_t patience_ms(void) {
    const char *text = getenv("GREY_PATIENCE_S");
    unsigned long seconds = text == NULL ? 0 : strtoul(text, NULL, 10);
    return seconds > 0 ? seconds * 1000u : 20000u;
}

static void too_late(void *context) {
    (void)context;
    fail_msg("the run did not come to the state %d in time", (int)rig.until);
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
    struct runs_options o = {.loop = rig.loop,
                             .dir = rig.dir,
                             .cages = &rig.cages,
                             .user = {.change = geteuid() == 0, .uid = RIG_USER, .gid = RIG_USER},
                             .artifact_bytes_max = RIG_SHELF_BYTES,
                             .changed = changed};
    rig.runs = runs_new(&o, &f);
    assert_non_null(rig.runs);
    loop_signal(rig.loop, SIGCHLD, on_child, NULL);
    rig.limit = (struct loop_timer){.fire = too_late};
    rig.turn = (struct loop_timer){.fire = turn_over};
}

static void close_runs(void) {
    runs_free(rig.runs);
    while (wait(NULL) > 0) { /* what it killed, and what clears away behind it */
    }
    loop_free(rig.loop);
}

static int setup(void **state) {
    (void)state;
    (void)snprintf(rig.dir, sizeof rig.dir, "/tmp/grey-runs-XXXXXX");
    assert_non_null(mkdtemp(rig.dir));
    assert_int_equal(chmod(rig.dir, 0711), 0);
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
    loop_timer_after(rig.loop, &rig.limit, patience_ms());
    loop_run(rig.loop);
    loop_timer_cancel(rig.loop, &rig.limit);
}

static void ends(enum launch_end end, int32_t status) {
    wait_for(LAUNCH_ENDED);
    assert_int_equal(rig.last.end, end);
    assert_int_equal(rig.last.status, status);
}

#endif
