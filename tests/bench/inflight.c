/* inflight.c DIRECTORY IN_FLIGHT PROPOSALS: what consensus and storage do without HTTP in front.  Three nodes with their own disks,
 * storage threads and TCP links in one process and on one loop; the leader always has IN_FLIGHT proposals of 256 bytes under way.
 * One line of JSON: commits per second, latency from proposal to applied, and what all three nodes together used meanwhile. */
#include <inttypes.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "platform/now.h"
#include "tests/unit/node_rig.h"

#define NODES 3
#define VALUE_BYTES 256
#define KEYS 1000
#define WARM_UP 500u

struct bench {
    struct loop *loop;
    struct node *nodes[NODES];
    struct node *leader;
    uint64_t in_flight, wanted, proposed, done, failed;
    uint64_t begin_us, end_us;
    struct rusage begin_use, end_use; /* of the whole process: all three nodes */
    uint32_t *latency_us;
    struct loop_timer timer;
};

struct one {
    struct bench *bench;
    uint64_t sent_us;
};

static void propose(struct bench *b);

static void applied(void *context, const struct node_answer *a) {
    struct one *one = context;
    struct bench *b = one->bench;
    uint64_t now_us = now_monotonic_us();
    if (a->err != E_OK && b->failed++ == 0) {
        (void)fprintf(stderr, "inflight: proposal %" PRIu64 ": %s: %s\n", b->done, error_sentence(a->err),
                      a->detail == NULL ? "" : a->detail);
    }
    if (b->done >= WARM_UP) {
        b->latency_us[b->done - WARM_UP] = (uint32_t)(now_us - one->sent_us);
    }
    if (++b->done == WARM_UP) {
        b->begin_us = now_us;
        (void)getrusage(RUSAGE_SELF, &b->begin_use);
    }
    mem_free(one);
    if (b->done == b->wanted + WARM_UP) {
        b->end_us = now_us;
        (void)getrusage(RUSAGE_SELF, &b->end_use);
        loop_stop(b->loop);
    } else if (b->proposed < b->wanted + WARM_UP) {
        propose(b);
    }
}

static void propose(struct bench *b) {
    uint8_t value[VALUE_BYTES];
    char key[16];
    struct builder payload;
    memset(value, 'x', sizeof value);
    (void)snprintf(key, sizeof key, "bench%05u", (unsigned)(b->proposed * 7919u % KEYS));
    builder_init(&payload, 4096);
    payload_kv(&payload, false, bytes_str(key), KV_ALWAYS, 0, bytes_of(NULL, 0), bytes_of(value, sizeof value));
    struct blob *blob = builder_blob(&payload);
    struct one *one = mem_new(1, sizeof *one);
    must(blob != NULL && one != NULL);
    *one = (struct one){b, now_monotonic_us()};
    b->proposed++;
    node_propose(b->leader, ENTRY_KV, blob, true, applied, one);
    blob_unref(blob);
    builder_free(&payload);
}

/* Until all three are voters; then the load begins. */
static void look(void *context) {
    struct bench *b = context;
    for (int i = 0; i < NODES; i++) {
        struct raft_status s;
        uint32_t voters = 0;
        node_raft_status(b->nodes[i], &s);
        for (uint32_t k = 0; k < s.members->count; k++) {
            voters += s.members->at[k].voter;
        }
        if (s.role == RAFT_LEADER && voters == NODES && s.members_committed) {
            b->leader = b->nodes[i];
            for (uint64_t k = 0; k < b->in_flight; k++) {
                propose(b);
            }
            return;
        }
    }
    loop_timer_after(b->loop, &b->timer, 50);
}

static void leading(void *context, bool leads, grey_epoch epoch) {
    (void)context, (void)leads, (void)epoch;
}

static void failed(void *context, enum grey_error err, const char *detail) {
    struct bench *b = context;
    (void)fprintf(stderr, "inflight: %s: %s\n", error_sentence(err), detail);
    b->failed++;
    loop_stop(b->loop);
}

static double cpu_seconds(const struct rusage *use) {
    return (double)(use->ru_utime.tv_sec + use->ru_stime.tv_sec) + (double)(use->ru_utime.tv_usec + use->ru_stime.tv_usec) / 1e6;
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
    static struct bench b;
    static const struct node_events events = {.leading = leading, .failed = failed};
    struct fault f = {0};
    if (argc != 4 || (b.in_flight = strtoul(argv[2], NULL, 10)) < 1 || (b.wanted = strtoul(argv[3], NULL, 10)) < b.in_flight) {
        (void)fprintf(stderr, "usage: inflight DIRECTORY IN_FLIGHT PROPOSALS\n");
        return 2;
    }
    log_configure(LOG_ERROR, LOG_PRETTY);
    b.latency_us = mem_new(b.wanted, sizeof *b.latency_us);
    b.loop = loop_new(&f);
    struct conn_context x = {b.loop, worker_new(b.loop, "crypto", 64, NULL, NULL, &f)};
    int port = 20000 + (int)(now_monotonic_us() % 20000);
    for (int i = 0; i < NODES; i++) {
        char dir[512], log_dir[600], address[40], seeds[40], name[8];
        (void)snprintf(dir, sizeof dir, "%s/inflight%d", argv[1], i);
        (void)snprintf(log_dir, sizeof log_dir, "%s/log", dir);
        (void)snprintf(address, sizeof address, "127.0.0.1:%d", port + i);
        (void)snprintf(seeds, sizeof seeds, "127.0.0.1:%d", port);
        (void)snprintf(name, sizeof name, "%d", i + 1);
        struct node_options o = node_rig_options(name, dir, log_dir);
        o.peer_listen_address = o.peer_address = address;
        o.seeds = i == 0 ? "" : seeds;
        o.bootstrap = i == 0;
        b.nodes[i] = node_new(&x, &o, &events, &b, &f);
        if (b.nodes[i] == NULL) {
            (void)fprintf(stderr, "inflight: %s: %s\n", error_sentence(f.code), f.text);
            return 1;
        }
    }
    b.timer = (struct loop_timer){.fire = look, .context = &b};
    loop_timer_after(b.loop, &b.timer, 50);
    loop_run(b.loop);
    double seconds = (double)(b.end_us - b.begin_us) / 1e6;
    qsort(b.latency_us, b.wanted, sizeof *b.latency_us, compare);
    if (b.failed == 0) {
        (void)printf("{\"rate\": %.1f, \"p50_us\": %u, \"p99_us\": %u, \"cpu_s\": %.3f, \"disk_bytes\": %lld}\n",
                     (double)b.wanted / seconds, b.latency_us[b.wanted / 2], b.latency_us[b.wanted - 1 - b.wanted / 100],
                     cpu_seconds(&b.end_use) - cpu_seconds(&b.begin_use),
                     (long long)(b.end_use.ru_oublock - b.begin_use.ru_oublock) * 512);
    }
    for (int i = 0; i < NODES; i++) {
        node_free(b.nodes[i]);
    }
    worker_stop(x.crypto);
    loop_free(b.loop);
    mem_free(b.latency_us);
    return b.failed > 0;
}
