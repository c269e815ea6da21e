/* If this failed, a task that was to be cut off would see the network, the processes or the files of others; one would begin with other files
 * than its order names; or one would be killed before it could put its work in order. */
#include <fcntl.h>
#include <sys/syscall.h>

#include "platform/digest.h"
#include "tests/unit/runs_rig.h"

static struct launch_message order(uint64_t token, const char *script) {
    struct launch_message m = {.kind = LAUNCH_START, .scope = 7, .token = token, .id = bytes_str("t")};
    m.command = (struct launch_texts){.count = 3, .at = {bytes_str("/bin/sh"), bytes_str("-c"), bytes_str(script)}};
    return m;
}

static void begin(const struct launch_message *m) {
    rig.last = (struct launch_message){.kind = LAUNCH_KIND_COUNT};
    rig.until = LAUNCH_STATE_COUNT; /* nothing that is told at once ends a wait that has not begun */
    runs_start(rig.runs, m);
}

/* What a run wrote to that stream so far. */
static const char *written(uint64_t token, enum launch_stream stream) {
    static char text[8192];
    struct builder b;
    uint64_t from, end;
    struct launch_message read = {.scope = 7, .token = token, .stream = stream, .size = sizeof text - 1};
    builder_init(&b, sizeof text - 1);
    assert_int_equal(runs_read(rig.runs, &read, &b, &from, &end), E_OK);
    (void)snprintf(text, sizeof text, "%.*s", (int)b.size, b.size > 0 ? (const char *)b.data : "");
    builder_free(&b);
    return text;
}

static void wait_for_text(uint64_t token, const char *text) {
    for (unsigned tries = 0; strstr(written(token, LAUNCH_STDOUT), text) == NULL; tries++) {
        assert_in_range(tries, 0, patience_ms() / 20);
        rig.until = LAUNCH_STATE_COUNT;
        loop_timer_after(rig.loop, &rig.turn, 20);
        loop_run(rig.loop);
    }
}

static void runs_well(struct launch_message *m) {
    begin(m);
    wait_for(LAUNCH_ENDED);
    if (rig.last.end != LAUNCH_END_EXIT || rig.last.status != 0) {
        fail_msg("end %d status %d: %s", (int)rig.last.end, (int)rig.last.status, written(m->token, LAUNCH_STDERR));
    }
}

/* By the word of another tool: a kernel or a sandbox may forbid users to make namespaces, and tasks that want them do not begin there. */
static bool can_isolate(void) {
    static const char as_root[] = "setpriv --reuid=65534 --regid=65534 --clear-groups unshare -U -r -n -m -p -f --mount-proc true",
                      as_user[] = "unshare -U -r -n -m -p -f --mount-proc true";
    bool can = system(geteuid() == 0 ? as_root : as_user) == 0; /* NOLINT(cert-env33-c): fixed commands */
    if (!can) {
        print_message("# not tried: users may not make namespaces here\n");
    }
    return can;
}

static void test_apart_network(void **state) {
    struct launch_message m;
    (void)state;
    if (!can_isolate()) {
        skip();
    }
    m = order(1, "[ \"$(grep -c : /proc/self/net/dev)\" = 1 ]"); /* lo alone */
    m.isolate = LAUNCH_ISOLATE_NETWORK;
    runs_well(&m);
    m = order(2, "readlink /proc/self/ns/net; readlink /proc/self/ns/pid; readlink /proc/self/ns/mnt");
    runs_well(&m);
    char here[256];
    ssize_t size = readlink("/proc/self/ns/net", here, sizeof here - 1);
    assert_true(size > 0);
    here[size] = 0;
    assert_non_null(strstr(written(2, LAUNCH_STDOUT), here)); /* without the wish, nothing changes */
}

static void test_apart_processes(void **state) {
    struct launch_message m = order(1, "[ $(ls -d /proc/[0-9]* | wc -l) -lt 6 ] && [ $(id -u) = $1 ] && ! unshare -U true");
    char uid[16];
    (void)state;
    if (!can_isolate()) {
        skip();
    }
    (void)snprintf(uid, sizeof uid, "%u", geteuid() == 0 ? RIG_USER : (unsigned)geteuid());
    m.command.at[3] = bytes_str("sh");
    m.command.at[4] = bytes_str(uid);
    m.command.count = 5;
    m.isolate = LAUNCH_ISOLATE_PID;
    runs_well(&m); /* it sees its own, is who it was, and may not go further */
    m = order(2, "kill -KILL $$");
    m.isolate = LAUNCH_ISOLATE_PID;
    begin(&m);
    ends(LAUNCH_END_SIGNAL, SIGKILL); /* it ends as the task did */
    m = order(3, "exit 9");
    m.isolate = LAUNCH_ISOLATE_PID;
    begin(&m);
    ends(LAUNCH_END_EXIT, 9);
    m = order(4, "trap 'echo asked; exit 3' TERM; echo ready; while :; do sleep 0.05; done");
    m.isolate = LAUNCH_ISOLATE_PID;
    begin(&m);
    wait_for_text(4, "ready");
    runs_stop(rig.runs, 7, 4, 20000); /* the order to stop reaches the task, not only who keeps it */
    ends(LAUNCH_END_STOPPED, 3);
    assert_string_equal(written(4, LAUNCH_STDOUT), "ready\nasked\n");
    m = order(5, "exec /no/such/program");
    m.command = (struct launch_texts){.count = 1, .at = {bytes_str("/no/such/program")}};
    m.isolate = LAUNCH_ISOLATE_PID;
    begin(&m);
    wait_for(LAUNCH_ENDED);
    assert_int_equal(rig.last.end, LAUNCH_END_START);
}

/* Waits until a process with the command line `found` is there, or is not.  What forks is seen under its new name a moment later only. */
static void await_process(const char *found, bool there) {
    char command[64];
    (void)snprintf(command, sizeof command, "pgrep -f '^%s$' >/dev/null", found);
    for (unsigned tries = 0; (system(command) == 0) != there; tries++) { /* NOLINT(cert-env33-c) */
        assert_in_range(tries, 0, patience_ms() / 20);
        (void)usleep(20000);
    }
}

/* Nothing of a run goes on when it was killed, whatever it began: the groups that would see to it are not there. */
static void test_apart_nothing_stays(void **state) {
    char script[64], left[32];
    (void)state;
    if (!can_isolate()) {
        skip();
    }
    (void)snprintf(left, sizeof left, "sleep 47%d", (int)getpid()); /* of this run of the tests */
    (void)snprintf(script, sizeof script, "setsid %s & echo ready; wait", left);
    struct launch_message m = order(1, script);
    m.isolate = LAUNCH_ISOLATE_PID;
    begin(&m);
    wait_for_text(1, "ready");
    await_process(left, true);
    runs_stop(rig.runs, 7, 1, 0);
    wait_for(LAUNCH_ENDED);
    await_process(left, false);
}

/* A task without a network would be called dead by a probe that asks outside. */
static void test_probes(void **state) {
    (void)state;
    if (!can_isolate()) {
        skip();
    }
    static const uint32_t kinds[] = {LAUNCH_ISOLATE_NETWORK, LAUNCH_ISOLATE_MOUNT, LAUNCH_ISOLATE_PID, LAUNCH_ISOLATE_ALL};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        uint32_t isolate = kinds[i];
        struct launch_message m = order(isolate, "touch well; sleep 0.7; exit 5");
        m.isolate = isolate;
        m.probe = (struct launch_probe){.delay_ms = 200, .interval_ms = 100, .timeout_ms = 5000, .failures = 2};
        m.probe.command =
            (struct launch_texts){.count = 3, .at = {bytes_str("/bin/sh"), bytes_str("-c"), bytes_str("[ -e well ]")}};
        begin(&m);
        ends(LAUNCH_END_EXIT, 5); /* it was found well, in its directory */
        m.token += 100;
        m.probe.command.at[2] = (isolate & LAUNCH_ISOLATE_NETWORK) != 0 ? bytes_str("[ \"$(ip -o link | wc -l)\" = 1 ] && exit 1")
                                                                        : bytes_str("exit 1");
        if ((isolate & LAUNCH_ISOLATE_NETWORK) == 0 || system("ip -o link >/dev/null 2>&1") == 0) { /* NOLINT(cert-env33-c) */
            begin(&m);
            ends(LAUNCH_END_PROBE, SIGTERM); /* it sees what the task sees, and is believed */
        }
    }
}

static void test_apart_mounts(void **state) {
    char mark[] = "/tmp/grey-apart-XXXXXX", script[512];
    int fd = mkstemp(mark);
    (void)state;
    assert_true(fd >= 0);
    (void)close(fd);
    if (!can_isolate()) {
        (void)unlink(mark);
        skip();
    }
    struct launch_message m = order(1, "sleep 60");
    begin(&m);
    wait_for(LAUNCH_RUNNING);
    (void)snprintf(script, sizeof script,
                   "[ ! -e %s ] && touch %s.inside here && [ \"$(ls -A %s/runs)\" = 0000000000000007-2 ] && cd $HOME && ls here",
                   mark, mark, rig.dir);
    m = order(2, script);
    m.isolate = LAUNCH_ISOLATE_MOUNT;
    runs_well(&m);
    (void)snprintf(script, sizeof script, "%s.inside", mark);
    assert_int_not_equal(access(script, F_OK), 0);
    (void)unlink(mark);
}

static struct launch_file *add_file(struct launch_message *m, const char *name, enum launch_source source, const char *text,
                                    const uint8_t *hash) {
    struct launch_file *file = &m->files.at[m->files.count++];
    *file = (struct launch_file){.name = bytes_str(name), .source = source, .text = bytes_str(text), .mode = 0640};
    file->hash = hash == NULL ? bytes_of(NULL, 0) : bytes_of(hash, LAUNCHWIRE_HASH_BYTES);
    return file;
}

static void test_files(void **state) {
    uint8_t hash[DIGEST_SHA256_BYTES], other[DIGEST_SHA256_BYTES] = {1};
    char path[128];
    (void)state;
    (void)snprintf(path, sizeof path, "%s/source", rig.dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_true(fd >= 0 && write(fd, "content\n", 8) == 8 && fchmod(fd, 0644) == 0);
    (void)close(fd);
    digest_sha256(bytes_str("content\n"), hash);

    struct launch_message m = order(1, "cat a b; stat -c %a a; ./c");
    (void)add_file(&m, "a", LAUNCH_FILE_TEXT, "inline\n", NULL);
    (void)add_file(&m, "b", LAUNCH_FILE_PATH, path, hash);
    add_file(&m, "c", LAUNCH_FILE_TEXT, "#!/bin/sh\necho ran\n", NULL)->mode = 0755;
    runs_well(&m);
    assert_string_equal(written(1, LAUNCH_STDOUT), "inline\ncontent\n640\nran\n");

    m = order(2, "echo began");
    (void)add_file(&m, "b", LAUNCH_FILE_PATH, path, other);
    begin(&m);
    ends(LAUNCH_END_ARTIFACT, 0); /* it does not begin with another */
    assert_non_null(strstr(written(2, LAUNCH_STDERR), "b: differs"));
    assert_string_equal(written(2, LAUNCH_STDOUT), "");

    m = order(3, "echo began");
    m.disk_bytes = 4096;
    static char large[5000];
    memset(large, 'x', sizeof large - 1);
    (void)add_file(&m, "large", LAUNCH_FILE_TEXT, large, NULL);
    begin(&m);
    ends(LAUNCH_END_ARTIFACT, 0);
    assert_non_null(strstr(written(3, LAUNCH_STDERR), "large: does not fit"));

    m = order(4, "echo began");
    (void)add_file(&m, "x", LAUNCH_FILE_PATH, "/no/such/file", hash);
    begin(&m);
    ends(LAUNCH_END_ARTIFACT, 0);
    if (geteuid() == 0) { /* the launcher may read what the task may not */
        assert_int_equal(chmod(path, 0600), 0);
        m = order(5, "echo began");
        (void)add_file(&m, "b", LAUNCH_FILE_PATH, path, hash);
        begin(&m);
        ends(LAUNCH_END_ARTIFACT, 0);
        assert_non_null(strstr(written(5, LAUNCH_STDERR), "denied"));
    }
}

static void send_parts(struct bytes content, const uint8_t *hash, size_t step) {
    struct launch_message m = {.kind = LAUNCH_STORE, .hash = bytes_of(hash, DIGEST_SHA256_BYTES), .end_offset = content.size};
    for (m.offset = 0; m.offset == 0 || m.offset < content.size; m.offset += m.data.size) {
        size_t left = content.size - (size_t)m.offset;
        m.data = bytes_of(content.data + m.offset, left < step ? left : step);
        runs_store(rig.runs, &m);
    }
}

/* How it went in the end; rig.stored has all words on it. */
static enum launch_stored store(struct bytes content, const uint8_t *hash, size_t step) {
    rig.told = 0;
    send_parts(content, hash, step);
    loop_timer_after(rig.loop, &rig.limit, patience_ms());
    while (rig.told == 0 || rig.stored[rig.told - 1] >= LAUNCH_STORED_HOLD) {
        loop_timer_after(rig.loop, &rig.turn, 10);
        loop_run(rig.loop);
    }
    loop_timer_cancel(rig.loop, &rig.limit);
    return rig.stored[rig.told - 1];
}

/* The disk of the keeper: while the gate is shut, no sync of another process than this one comes back from it. */
static int gate[2] = {-1, -1};
static pid_t self;

int fsync(int fd) {
    char byte;
    return gate[0] >= 0 && getpid() != self && read(gate[0], &byte, 1) < 0 ? -1 : (int)syscall(SYS_fsync, fd);
}

/* While the disk takes its time over an artifact, tasks begin and end as ever, and the site's words are heard. */
static void test_slow_shelf(void **state) {
    static uint8_t block[RIG_SHELF_BYTES];
    uint8_t hash[DIGEST_SHA256_BYTES];
    (void)state;
    memset(block, 'x', sizeof block);
    digest_sha256(bytes_of(block, sizeof block), hash);
    self = getpid();
    assert_int_equal(pipe2(gate, O_CLOEXEC), 0);
    assert_int_equal(dup2(gate[0], STDIN_FILENO), STDIN_FILENO); /* the keeper closes all that is above */
    (void)close(gate[0]);
    gate[0] = STDIN_FILENO;
    rig.told = 0;
    send_parts(bytes_of(block, sizeof block), hash, 65536);
    for (uint64_t token = 1; token <= 5; token++) {
        struct launch_message m = order(token, "exit 3");
        begin(&m);
        ends(LAUNCH_END_EXIT, 3);
        for (unsigned i = 0; i < rig.told; i++) {
            assert_true(rig.stored[i] >= LAUNCH_STORED_HOLD); /* it is not on the disk */
        }
    }
    struct launch_message m = order(6, "exit 0");
    (void)add_file(&m, "a", LAUNCH_FILE_STORED, "", hash);
    begin(&m);
    wait_for(LAUNCH_LACKS); /* nor on the shelf */
    (void)close(gate[1]);   /* reads end: the disk is well again */
    rig.told = 0;
    loop_timer_after(rig.loop, &rig.limit, patience_ms());
    while (rig.told == 0) {
        loop_timer_after(rig.loop, &rig.turn, 10);
        loop_run(rig.loop);
    }
    loop_timer_cancel(rig.loop, &rig.limit);
    gate[0] = -1;
    assert_int_equal(rig.stored[0], LAUNCH_STORED_WELL);
    runs_well(&m);
}

/* A disk that does not keep up fills no memory: the sender is told to hold, and to go on. */
static void test_hold(void **state) {
    static uint8_t block[RIG_SHELF_BYTES];
    uint8_t hash[DIGEST_SHA256_BYTES];
    (void)state;
    memset(block, 'y', sizeof block);
    digest_sha256(bytes_of(block, sizeof block), hash);
    assert_int_equal(store(bytes_of(block, sizeof block), hash, 65536),
                     LAUNCH_STORED_WELL); /* without a turn for the keeper between */
    assert_int_equal(rig.told, 2);        /* all came while it was to hold, so there was nothing to go on with */
    assert_int_equal(rig.stored[0], LAUNCH_STORED_HOLD);
    struct launch_message m = {.kind = LAUNCH_STORE, .hash = bytes_of(hash, sizeof hash), .end_offset = sizeof block};
    rig.told = 0;
    while (rig.told == 0 && m.offset + 65536 < sizeof block) {
        m.data = bytes_of(block, 65536);
        runs_store(rig.runs, &m);
        m.offset += m.data.size;
    }
    assert_int_equal(rig.told, 1);
    assert_int_equal(rig.stored[0], LAUNCH_STORED_HOLD);
    loop_timer_after(rig.loop, &rig.limit, patience_ms());
    while (rig.told < 2) {
        loop_timer_after(rig.loop, &rig.turn, 10);
        loop_run(rig.loop);
    }
    assert_int_equal(rig.stored[1], LAUNCH_STORED_GO_ON);
    for (; m.offset < sizeof block; m.offset += m.data.size) {
        m.data = bytes_of(block, 65536);
        runs_store(rig.runs, &m);
    }
    while (rig.told < 3) {
        loop_timer_after(rig.loop, &rig.turn, 10);
        loop_run(rig.loop);
    }
    loop_timer_cancel(rig.loop, &rig.limit);
    assert_int_equal(rig.stored[2], LAUNCH_STORED_WELL);
}

static void test_artifacts(void **state) {
    static uint8_t blocks[5][300000];
    uint8_t hashes[5][DIGEST_SHA256_BYTES];
    (void)state;
    for (unsigned i = 0; i < 5; i++) {
        memset(blocks[i], 'a' + (int)i, sizeof blocks[i]);
        digest_sha256(bytes_of(blocks[i], sizeof blocks[i]), hashes[i]);
    }
    struct launch_message m = order(1, "wc -c <a");
    (void)add_file(&m, "a", LAUNCH_FILE_STORED, "", hashes[0]);
    begin(&m);
    wait_for(LAUNCH_LACKS);
    assert_int_equal(rig.last.status, 0);
    assert_int_equal(store(bytes_of(blocks[1], sizeof blocks[1]), hashes[0], 32768),
                     LAUNCH_STORED_DIFFERS); /* another under its name */
    begin(&m);
    wait_for(LAUNCH_LACKS);
    assert_int_equal(store(bytes_of(blocks[0], sizeof blocks[0]), hashes[0], 32768), LAUNCH_STORED_WELL);
    runs_well(&m); /* LACKS marked nothing, so it may begin */
    assert_string_equal(written(1, LAUNCH_STDOUT), "300000\n");
    m.token = 2;
    runs_well(&m); /* once here for all runs */
    for (unsigned i = 1; i < 3; i++) {
        assert_int_equal(store(bytes_of(blocks[i], sizeof blocks[i]), hashes[i], sizeof blocks[i]), LAUNCH_STORED_WELL);
        (void)usleep(20000);
    }
    m.token = 3;
    runs_well(&m); /* used again, so that the others are older */
    (void)usleep(20000);
    assert_int_equal(store(bytes_of(blocks[3], sizeof blocks[3]), hashes[3], 65536),
                     LAUNCH_STORED_WELL); /* a fourth does not fit */
    m.token = 4;
    runs_well(&m);
    m = order(5, "exit 0");
    (void)add_file(&m, "b", LAUNCH_FILE_STORED, "", hashes[1]);
    begin(&m);
    wait_for(LAUNCH_LACKS); /* the one that was not used for longest left */
    static uint8_t large[RIG_SHELF_BYTES + 1];
    assert_int_equal(store(bytes_of(large, sizeof large), hashes[4], 65536), LAUNCH_STORED_TOO_LARGE);
    close_runs();
    open_runs();
    m = order(6, "exit 0");
    (void)add_file(&m, "a", LAUNCH_FILE_STORED, "", hashes[0]);
    runs_well(&m); /* it outlives the launcher */
    char path[256], hex[65];
    bytes_hex(hashes[0], sizeof hashes[0], hex);
    (void)snprintf(path, sizeof path, "%s/artifacts/%s", rig.dir, hex);
    int fd = open(path, O_WRONLY | O_CLOEXEC); /* a disk that forgot */
    assert_true(fd >= 0 && pwrite(fd, "?", 1, 1000) == 1);
    (void)close(fd);
    m.token = 7;
    begin(&m);
    ends(LAUNCH_END_ARTIFACT, 0);
    m.token = 8;
    begin(&m);
    wait_for(LAUNCH_LACKS); /* so it is brought again, not refused for ever */
}

/* Its own signal, its own time. */
static void test_stop_as_asked(void **state) {
    struct launch_message m = order(1, "trap '' TERM; trap 'echo saved; exit 0' USR1; echo ready; while :; do sleep 0.05; done");
    (void)state;
    m.stop_signal = SIGUSR1;
    m.grace_ms = 20000;
    begin(&m);
    wait_for_text(1, "ready");
    runs_stop(rig.runs, 7, 1, LAUNCHWIRE_GRACE_MS_MAX);
    ends(LAUNCH_END_STOPPED, 0);
    assert_string_equal(written(1, LAUNCH_STDOUT), "ready\nsaved\n");
    m = order(2, "trap '' TERM; echo ready; while :; do sleep 0.05; done");
    m.stop_signal = SIGTERM;
    m.grace_ms = 300;
    begin(&m);
    wait_for_text(2, "ready");
    uint64_t before_ms = loop_now_ms(rig.loop);
    runs_stop(rig.runs, 7, 2, LAUNCHWIRE_GRACE_MS_MAX);
    wait_for(LAUNCH_ENDED);
    assert_int_equal(rig.last.status, SIGKILL);
    assert_true(loop_now_ms(rig.loop) - before_ms >= 300); /* not before its time, and before that of the order */
    m.token = 3;
    m.grace_ms = LAUNCHWIRE_GRACE_MS_MAX;
    begin(&m);
    wait_for_text(3, "ready");
    runs_stop(rig.runs, 7, 3, 100); /* who must be gone at once is, whatever it asked for */
    wait_for(LAUNCH_ENDED);
    assert_int_equal(rig.last.status, SIGKILL);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(test_apart_network, setup, teardown),
                                       cmocka_unit_test_setup_teardown(test_apart_processes, setup, teardown),
                                       cmocka_unit_test_setup_teardown(test_apart_nothing_stays, setup, teardown),
                                       cmocka_unit_test_setup_teardown(test_apart_mounts, setup, teardown),
                                       cmocka_unit_test_setup_teardown(test_probes, setup, teardown),
                                       cmocka_unit_test_setup_teardown(test_files, setup, teardown),
                                       cmocka_unit_test_setup_teardown(test_artifacts, setup, teardown),
                                       cmocka_unit_test_setup_teardown(test_slow_shelf, setup, teardown),
                                       cmocka_unit_test_setup_teardown(test_hold, setup, teardown),
                                       cmocka_unit_test_setup_teardown(test_stop_as_asked, setup, teardown)};
    cmocka_set_test_filter(getenv("GREY_TESTS")); /* NULL: all */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
