/* load.c: N keep-alive HTTP connections in a closed loop; rate and latency.
 *
 *   load grey|etcd ADDRESS:PORT CONNECTIONS REQUESTS VALUE_BYTES   -> one line of JSON
 *
 * grey: PUT /v1/kv/{key} with the raw value; etcd: POST /v3/kv/put with base64 in JSON (its HTTP gateway).  Both are durable writes on a
 * majority.  Keys come from a set of 1,000. */
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

static char *value;
static size_t value_bytes;
static bool etcd;

static void send_request(struct client *c, uint64_t number) {
    static char out[1 << 20];
    char key[32];
    int key_size = snprintf(key, sizeof key, "bench%05u", (unsigned)(number * 7919u % KEYS));
    size_t size;
    if (etcd) {
        static char body[1 << 19];
        size_t at = (size_t)sprintf(body, "{\"key\":\"");
        at += base64(key, (size_t)key_size, body + at);
        at += (size_t)sprintf(body + at, "\",\"value\":\"");
        at += base64(value, value_bytes, body + at);
        at += (size_t)sprintf(body + at, "\"}");
        size = (size_t)snprintf(
            out, sizeof out, "POST /v3/kv/put HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
            at);
        memcpy(out + size, body, at);
        size += at;
    } else {
        size =
            (size_t)snprintf(out, sizeof out, "PUT /v1/kv/%s HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", key, value_bytes);
        memcpy(out + size, value, value_bytes);
        size += value_bytes;
    }
    c->sent_us = now_us();
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

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "usage: load grey|etcd ADDRESS:PORT CONNECTIONS REQUESTS VALUE_BYTES\n");
        return 2;
    }
    etcd = strcmp(argv[1], "etcd") == 0;
    char *colon = strrchr(argv[2], ':');
    size_t connections = strtoul(argv[3], NULL, 10), requests = strtoul(argv[4], NULL, 10);
    value_bytes = strtoul(argv[5], NULL, 10);
    if (colon == NULL || connections < 1 || connections > CONNECTIONS_MAX || requests < connections || value_bytes > 65536) {
        fprintf(stderr, "load: arguments out of range\n");
        return 2;
    }
    *colon = 0;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10))};
    (void)inet_pton(AF_INET, argv[2], &to.sin_addr);
    value = malloc(value_bytes + 1);
    uint32_t *latency = calloc(requests, sizeof *latency);
    struct client *clients = calloc(connections, sizeof *clients);
    if (value == NULL || latency == NULL || clients == NULL) {
        return 1;
    }
    for (size_t i = 0; i < value_bytes; i++) {
        value[i] = (char)('a' + i * 7 % 26);
    }
    int epoll = epoll_create1(0), on = 1;
    size_t sent = 0, done = 0, failed = 0;
    for (size_t i = 0; i < connections; i++) {
        clients[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        if (clients[i].fd < 0 || connect(clients[i].fd, (struct sockaddr *)&to, sizeof to) != 0) {
            perror("connect");
            return 1;
        }
        (void)setsockopt(clients[i].fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct epoll_event e = {.events = EPOLLIN, .data.u64 = i};
        (void)epoll_ctl(epoll, EPOLL_CTL_ADD, clients[i].fd, &e);
    }
    uint64_t begin_us = now_us();
    for (size_t i = 0; i < connections; i++) {
        send_request(&clients[i], sent++);
    }
    while (done < requests) {
        struct epoll_event events[64];
        int count = epoll_wait(epoll, events, 64, 10000);
        if (count <= 0) {
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
            latency[done++] = (uint32_t)(now_us() - c->sent_us);
            failed += !ok;
            c->in_size = 0;
            if (sent < requests) {
                send_request(c, sent++);
            }
        }
    }
    double seconds = (double)(now_us() - begin_us) / 1e6;
    qsort(latency, requests, sizeof *latency, compare);
    printf("{\"rate\": %.1f, \"p50_us\": %u, \"p99_us\": %u, \"failed\": %zu, \"seconds\": %.3f, \"requests\": %zu}\n",
           (double)requests / seconds, latency[requests / 2], latency[requests - 1 - requests / 100], failed, seconds, requests);
    return failed > 0;
}
