/* load.c: N keep-alive HTTP connections; rate and latency.
 *
 *   load KIND ADDRESS:PORT CONNECTIONS REQUESTS VALUE_BYTES [PER_SECOND]   -> one line of JSON
 *
 * KIND grey: PUT /v1/kv/{key} with the raw value; etcd: POST /v3/kv/put with base64 in JSON (its HTTP gateway); critical, high, normal,
 * low: POST /v1/events, one event of that priority with VALUE_BYTES of data and an id of its own.  All are durable writes on a majority.
 * Keys come from a set of 1,000.
 *
 * Without PER_SECOND the loop is closed: each connection sends again when it was answered.  With it, requests are due at even distances,
 * and a request's latency counts from when it was due, so that a server that stalls is not spared (coordinated omission). */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS_MAX 1024
#define KEYS 1000
#define VALUE_BYTES_MAX 65536
#define SILENCE_US 10000000u /* without any answer for so long: give up */

enum kind { KIND_GREY, KIND_ETCD, KIND_EVENT };

struct client {
    int fd;
    char in[8192];
    size_t in_size;
    uint64_t sent_us;
};

static uint64_t now_us(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static size_t base64(const char *in, size_t size, char *out) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t at = 0;
    for (size_t i = 0; i < size; i += 3) {
        uint32_t v = (uint32_t)(uint8_t)in[i] << 16 | (i + 1 < size ? (uint32_t)(uint8_t)in[i + 1] << 8 : 0) |
                     (i + 2 < size ? (uint32_t)(uint8_t)in[i + 2] : 0);
        out[at++] = digits[v >> 18];
        out[at++] = digits[v >> 12 & 63];
        out[at++] = i + 1 < size ? digits[v >> 6 & 63] : '=';
        out[at++] = i + 2 < size ? digits[v & 63] : '=';
    }
    return at;
}

static enum kind kind;
static char *value;
static const char *priority; /* of events */
static uint64_t noise = 88172645463325252u;
static size_t value_bytes;
static uint64_t run_number; /* makes the ids of events differ from those of earlier runs */

/* A new value for each request that no compression can make much smaller: the bytes on a wire are compared with it. */
static void draw_value(void) {
    for (size_t i = 0; i < value_bytes; i++) {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        value[i] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"[noise >> 58];
    }
}

static void build_request(char *out, size_t out_size, size_t *size, uint64_t number) {
    static char body[2 * VALUE_BYTES_MAX];
    char key[32];
    size_t at = 0;
    int key_size = snprintf(key, sizeof key, "bench%05u", (unsigned)(number * 7919u % KEYS));
    draw_value();
    const char *head = "POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
    switch (kind) {
    case KIND_GREY:
        *size =
            (size_t)snprintf(out, out_size, "PUT /v1/kv/%s HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", key, value_bytes);
        memcpy(out + *size, value, value_bytes);
        *size += value_bytes;
        return;
    case KIND_ETCD:
        head = "POST /v3/kv/put HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
        at = (size_t)sprintf(body, "{\"key\":\"");
        at += base64(key, (size_t)key_size, body + at);
        at += (size_t)sprintf(body + at, "\",\"value\":\"");
        at += base64(value, value_bytes, body + at);
        at += (size_t)sprintf(body + at, "\"}");
        break;
    case KIND_EVENT:
        at = (size_t)sprintf(body,
                             "{\"id\":\"%llx-%llu\",\"source\":\"load\",\"type\":\"bench\",\"priority\":\"%s\",\"data\":\"%.*s\"}",
                             (unsigned long long)run_number, (unsigned long long)number, priority, (int)value_bytes, value);
        break;
    }
    *size = (size_t)snprintf(out, out_size, "%sContent-Length: %zu\r\n\r\n", head, at);
    memcpy(out + *size, body, at);
    *size += at;
}

static void send_request(struct client *c, uint64_t number, uint64_t due_us) {
    static char out[4 * VALUE_BYTES_MAX];
    size_t size;
    build_request(out, sizeof out, &size, number);
    c->sent_us = due_us;
    if (send(c->fd, out, size, MSG_NOSIGNAL) != (ssize_t)size) {
        perror("send");
        exit(1);
    }
}

/* Whether a whole answer is there; *ok: status 2xx. */
static bool whole_answer(struct client *c, bool *ok) {
    c->in[c->in_size] = 0;
    char *end = strstr(c->in, "\r\n\r\n");
    if (end == NULL) {
        return false;
    }
    char *length = strcasestr(c->in, "content-length:");
    size_t body = length != NULL && length < end ? strtoul(length + 15, NULL, 10) : 0;
    *ok = c->in[9] == '2';
    return c->in_size >= (size_t)(end + 4 - c->in) + body;
}

static bool parse(int argc, char **argv, struct sockaddr_in *to, size_t *connections, size_t *requests, double *per_second) {
    char *colon = argc > 2 ? strrchr(argv[2], ':') : NULL;
    if ((argc != 6 && argc != 7) || colon == NULL) {
        return false;
    }
    kind = strcmp(argv[1], "grey") == 0 ? KIND_GREY : strcmp(argv[1], "etcd") == 0 ? KIND_ETCD : KIND_EVENT;
    priority = argv[1];
    *connections = strtoul(argv[3], NULL, 10);
    *requests = strtoul(argv[4], NULL, 10);
    value_bytes = strtoul(argv[5], NULL, 10);
    *per_second = argc == 7 ? strtod(argv[6], NULL) : 0;
    *colon = 0;
    *to = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10))};
    return inet_pton(AF_INET, argv[2], &to->sin_addr) == 1 && *connections >= 1 && *connections <= CONNECTIONS_MAX &&
           *requests >= *connections && value_bytes <= VALUE_BYTES_MAX && *per_second >= 0;
}

int main(int argc, char **argv) {
    struct sockaddr_in to;
    size_t connections, requests;
    double per_second;
    if (!parse(argc, argv, &to, &connections, &requests, &per_second)) {
        fprintf(stderr,
                "usage: load grey|etcd|critical|high|normal|low ADDRESS:PORT CONNECTIONS REQUESTS VALUE_BYTES [PER_SECOND]\n");
        return 2;
    }
    value = malloc(value_bytes + 1);
    uint32_t *latency = calloc(requests, sizeof *latency);
    struct client *clients = calloc(connections, sizeof *clients);
    struct client **idle = calloc(connections, sizeof(struct client *));
    if (value == NULL || latency == NULL || clients == NULL || idle == NULL) {
        return 1;
    }
    int epoll = epoll_create1(0), on = 1;
    size_t sent = 0, done = 0, failed = 0, idle_count = 0;
    for (size_t i = 0; i < connections; i++) {
        clients[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        if (clients[i].fd < 0 || connect(clients[i].fd, (struct sockaddr *)&to, sizeof to) != 0) {
            perror("connect");
            return 1;
        }
        (void)setsockopt(clients[i].fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct epoll_event e = {.events = EPOLLIN, .data.u64 = i};
        (void)epoll_ctl(epoll, EPOLL_CTL_ADD, clients[i].fd, &e);
        idle[idle_count++] = &clients[i];
    }
    uint64_t begin_us = now_us(), answered_us = begin_us;
    run_number = begin_us;
    while (done < requests) {
        uint64_t time_us = now_us(), due_us = time_us;
        while (idle_count > 0 && sent < requests) {
            due_us = per_second > 0 ? begin_us + (uint64_t)((double)sent * 1e6 / per_second) : time_us;
            if (due_us > time_us) {
                break;
            }
            send_request(idle[--idle_count], sent++, per_second > 0 ? due_us : now_us());
        }
        struct epoll_event events[64];
        int wait_ms = due_us > time_us ? (int)((due_us - time_us) / 1000) : 100;
        int count = epoll_wait(epoll, events, 64, wait_ms < 100 ? wait_ms : 100);
        if (idle_count < connections && now_us() - answered_us > SILENCE_US) {
            fprintf(stderr, "load: no answer for 10 s\n");
            return 1;
        }
        for (int i = 0; i < count; i++) {
            struct client *c = &clients[events[i].data.u64];
            ssize_t got = recv(c->fd, c->in + c->in_size, sizeof c->in - 1 - c->in_size, 0);
            bool ok = false;
            if (got <= 0) {
                fprintf(stderr, "load: the server closed a connection\n");
                return 1;
            }
            c->in_size += (size_t)got;
            if (!whole_answer(c, &ok)) {
                continue;
            }
            answered_us = now_us();
            latency[done++] = (uint32_t)(answered_us - c->sent_us);
            failed += !ok;
            c->in_size = 0;
            idle[idle_count++] = c;
        }
    }
    double seconds = (double)(now_us() - begin_us) / 1e6, mean_us = 0;
    for (size_t i = 0; i < requests; i++) {
        mean_us += (double)latency[i] / (double)requests;
    }
    qsort(latency, requests, sizeof *latency, compare);
    printf(
        "{\"rate\": %.1f, \"mean_us\": %.0f, \"p50_us\": %u, \"p99_us\": %u, \"max_us\": %u, \"failed\": %zu, \"seconds\": %.3f, "
        "\"requests\": %zu}\n",
        (double)requests / seconds, mean_us, latency[requests / 2], latency[requests - 1 - requests / 100], latency[requests - 1],
        failed, seconds, requests);
    return failed > 0;
}
