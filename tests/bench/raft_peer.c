/* raft_peer.c DIRECTORY processes|together IN_FLIGHT PROPOSALS: the work of inflight.c, done by libraft 0.15 with its own libuv backend.
 *
 * Three nodes on loopback; the leader always has IN_FLIGHT proposals of 256 bytes under way; applying counts them.  "processes": each
 * node in a process of its own, as in use; "together": all on one loop, as in inflight.c.  Time-outs, heartbeat and snapshot threshold
 * are those of greyd.  libraft writes with O_DSYNC, so a commit is as durable as one of ours; its links are plain TCP.
 *
 * Speaks with bench.py in lines, so that both peers are measured by the same reader of /proc:
 *   out {"pids": [...], "leader": PID}     a leader stands, both followers have its log, and WARM_UP proposals are done
 *   in  (a line)                           begin
 *   out {"rate": ..., "p50_us": ..., "p99_us": ...}
 *   in  (end of file)                      stop
 * By hand: echo | raft_peer ...  Nothing outlives it: children die with their parent, and all of it after BOUND_SECONDS. */
#include <raft.h>
#include <raft/uv.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NODES 3
#define VALUE_BYTES 256
#define WARM_UP 500u
#define IN_FLIGHT_MAX 4096u
#define BOUND_SECONDS 150u

struct node {
    struct raft_uv_transport transport;
    struct raft_io io;
    struct raft_fsm fsm;
    struct raft raft;
};

struct proposal {
    struct raft_apply request;
    uint64_t sent_us;
};

static struct node nodes[NODES];
static struct proposal proposals[IN_FLIGHT_MAX];
static struct raft *leader;
static uint64_t in_flight, wanted, target, proposed, done, applied_count, begin_us;
static uint32_t *latency_us;
static bool measuring;
static uv_timer_t look_timer;
static uv_poll_t input;
static int *pids; /* shared, so that whichever process leads can name them all */

static uint64_t now_us(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void die(const char *what, const char *why) {
    (void)fprintf(stderr, "raft_peer: %s: %s\n", what, why);
    _exit(1);
}

static void check(int rc, const char *what) {
    if (rc != 0) {
        die(what, raft_strerror(rc));
    }
}

/* The state machine: counts. */
static int fsm_apply(struct raft_fsm *fsm, const struct raft_buffer *buf, void **result) {
    (void)fsm;
    applied_count += buf->len == VALUE_BYTES;
    *result = NULL;
    return 0;
}

static int fsm_snapshot(struct raft_fsm *fsm, struct raft_buffer *bufs[], unsigned *n_bufs) {
    (void)fsm;
    *bufs = raft_malloc(sizeof **bufs);
    void *base = raft_calloc(1, 8);
    if (*bufs == NULL || base == NULL) {
        return RAFT_NOMEM;
    }
    **bufs = (struct raft_buffer){base, 8};
    *n_bufs = 1;
    return 0;
}

static int fsm_restore(struct raft_fsm *fsm, struct raft_buffer *buf) {
    (void)fsm;
    raft_free(buf->base);
    return 0;
}

static void ran(void);

static void propose(struct proposal *p);

static void applied(struct raft_apply *request, int status, void *result) {
    (void)result;
    struct proposal *p = request->data;
    check(status, "a proposal failed");
    if (measuring) {
        latency_us[done] = (uint32_t)(now_us() - p->sent_us);
    }
    if (++done == target) {
        ran();
    } else if (proposed < target) {
        propose(p);
    }
}

static void propose(struct proposal *p) {
    struct raft_buffer buf = {raft_malloc(VALUE_BYTES), VALUE_BYTES};
    if (buf.base == NULL) {
        die("propose", "no memory");
    }
    memset(buf.base, 'x', VALUE_BYTES);
    *p = (struct proposal){.request = {.data = p}, .sent_us = now_us()};
    proposed++;
    check(raft_apply(leader, &p->request, &buf, 1, applied), "raft_apply");
}

static void run(uint64_t count) {
    proposed = done = 0;
    target = count;
    begin_us = now_us();
    for (uint64_t i = 0; i < in_flight && i < count; i++) {
        propose(&proposals[i]);
    }
}

/* A line: begin.  End of file: stop. */
static void input_ready(uv_poll_t *poll, int status, int events) {
    char line[64];
    (void)status, (void)events;
    if (read(STDIN_FILENO, line, sizeof line) <= 0) {
        _exit(0);
    }
    (void)uv_poll_stop(poll);
    measuring = true;
    run(wanted);
}

static void ran(void) {
    if (measuring) {
        double seconds = (double)(now_us() - begin_us) / 1e6;
        qsort(latency_us, wanted, sizeof *latency_us, compare);
        (void)printf("{\"rate\": %.1f, \"p50_us\": %u, \"p99_us\": %u}\n", (double)wanted / seconds, latency_us[wanted / 2],
                     latency_us[wanted - 1 - wanted / 100]);
        measuring = false;
    } else {
        (void)printf("{\"pids\": [");
        for (int i = 0; i < NODES && pids[i] != 0; i++) {
            (void)printf("%s%d", i > 0 ? ", " : "", pids[i]);
        }
        (void)printf("], \"leader\": %d}\n", (int)getpid());
    }
    (void)fflush(stdout);
    (void)uv_poll_start(&input, UV_READABLE, input_ready);
}

/* Until one of this process's nodes leads and both followers have its whole log. */
static void look(uv_timer_t *timer) {
    for (int i = 0; i < NODES; i++) {
        struct raft *r = &nodes[i].raft;
        if (r->io == NULL || raft_state(r) != RAFT_LEADER) {
            continue;
        }
        for (int k = 0; k < NODES; k++) {
            if (r->leader_state.progress[k].match_index != raft_last_index(r)) {
                return;
            }
        }
        leader = r;
        (void)uv_timer_stop(timer);
        run(WARM_UP);
        return;
    }
}

static void start_node(uv_loop_t *loop, const char *directory, int which, int port) {
    struct node *n = &nodes[which];
    struct raft_configuration members;
    char path[512], address[NODES][32];
    (void)snprintf(path, sizeof path, "%s/raft%d", directory, which + 1);
    if (mkdir(path, 0700) != 0) {
        die("mkdir", path);
    }
    raft_configuration_init(&members);
    for (int i = 0; i < NODES; i++) {
        (void)snprintf(address[i], sizeof address[i], "127.0.0.1:%d", port + i);
        check(raft_configuration_add(&members, (raft_id)i + 1, address[i], RAFT_VOTER), "raft_configuration_add");
    }
    n->fsm = (struct raft_fsm){.version = 1, .apply = fsm_apply, .snapshot = fsm_snapshot, .restore = fsm_restore};
    check(raft_uv_tcp_init(&n->transport, loop), "raft_uv_tcp_init");
    check(raft_uv_init(&n->io, loop, path, &n->transport), "raft_uv_init");
    raft_uv_set_connect_retry_delay(&n->io, 50);
    check(raft_init(&n->raft, &n->io, &n->fsm, (raft_id)which + 1, address[which]), "raft_init");
    raft_set_election_timeout(&n->raft, 300);
    raft_set_heartbeat_timeout(&n->raft, 150);
    raft_set_snapshot_threshold(&n->raft, 10000);
    raft_set_snapshot_trailing(&n->raft, 10000);
    raft_set_pre_vote(&n->raft, true);
    check(raft_bootstrap(&n->raft, &members), "raft_bootstrap");
    raft_configuration_close(&members);
    check(raft_start(&n->raft), "raft_start");
}

static void serve(const char *directory, int first, int last, int port) {
    uv_loop_t loop;
    (void)alarm(BOUND_SECONDS);
    check(uv_loop_init(&loop), "uv_loop_init");
    for (int i = first; i <= last; i++) {
        start_node(&loop, directory, i, port);
    }
    (void)uv_timer_init(&loop, &look_timer);
    (void)uv_timer_start(&look_timer, look, 50, 50);
    if (uv_poll_init(&loop, &input, STDIN_FILENO) != 0) {
        die("standard input", "must be a pipe or a terminal");
    }
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    die("loop", "ended");
}

int main(int argc, char **argv) {
    bool together = argc == 5 && strcmp(argv[2], "together") == 0;
    if (argc != 5 || (!together && strcmp(argv[2], "processes") != 0) || (in_flight = strtoul(argv[3], NULL, 10)) < 1 ||
        in_flight > IN_FLIGHT_MAX || (wanted = strtoul(argv[4], NULL, 10)) < in_flight) {
        (void)fprintf(stderr, "usage: raft_peer DIRECTORY processes|together IN_FLIGHT PROPOSALS\n");
        return 2;
    }
    latency_us = calloc(wanted, sizeof *latency_us);
    pids = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (latency_us == NULL || pids == MAP_FAILED) {
        die("start", "no memory");
    }
    int port = 20000 + (int)(now_us() % 10000), status, worst = 0;
    if (together) {
        pids[0] = (int)getpid();
        serve(argv[1], 0, NODES - 1, port);
    }
    pid_t parent = getpid();
    for (int i = 0; i < NODES; i++) {
        pid_t child = fork();
        if (child == 0) {
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (getppid() != parent) {
                _exit(1);
            }
            serve(argv[1], i, i, port);
        }
        if (child < 0) {
            die("fork", "failed");
        }
        pids[i] = (int)child;
    }
    /* The first that ends is the leader, told to stop, or one that failed; the others end with it. */
    (void)wait(&status);
    worst = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    for (int i = 0; i < NODES; i++) {
        (void)kill(pids[i], SIGKILL);
    }
    while (wait(&status) > 0) {
    }
    return worst;
}
