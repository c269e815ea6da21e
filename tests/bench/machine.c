/* machine.c DIRECTORY: what this machine allows, in the same run: one fdatasync of an overwritten block and of an appended one, one
 * SQLite commit (WAL, FULL, 300-byte row), the second of three such commits that three processes begin at once (what a majority of
 * three gateways on this one disk takes, without any network), one round trip on loopback.  As one line of JSON: of each the tenth percentile, which is
 * what the machine can do (other work only adds to it), and the median, which tells how busy it was meanwhile. */
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 500

static uint32_t times[ROUNDS];

static uint64_t now_us(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static void print(const char *name, const char *end) {
    qsort(times, ROUNDS, sizeof *times, compare);
    (void)printf("\"%s_us\": %u, \"%s_median_us\": %u%s", name, times[ROUNDS / 10], name, times[ROUNDS / 2], end);
}

/* A block that lies in the file already, or one more at its end, which also changes the file's size. */
static void time_sync(const char *directory, bool append) {
    char path[1024], block[4096] = {0};
    (void)snprintf(path, sizeof path, "%s/limits.sync", directory);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    for (int i = 0; i < 64; i++) {
        (void)!write(fd, block, sizeof block);
    }
    (void)fsync(fd);
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t begin_us = now_us();
        block[0] = (char)i;
        (void)!pwrite(fd, block, sizeof block, (off_t)(append ? 64 + i : i % 64) * 4096);
        (void)fdatasync(fd);
        times[i] = (uint32_t)(now_us() - begin_us);
    }
    (void)close(fd);
    (void)unlink(path);
}

struct rows {
    sqlite3 *db;
    sqlite3_stmt *insert;
    char path[1024];
};

static void rows_open(struct rows *r, const char *directory, int number) {
    (void)snprintf(r->path, sizeof r->path, "%s/limits%d.db", directory, number);
    (void)unlink(r->path);
    if (sqlite3_open(r->path, &r->db) != SQLITE_OK ||
        sqlite3_exec(r->db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t(k INTEGER PRIMARY KEY, v BLOB)", NULL,
                     NULL, NULL) != SQLITE_OK ||
        sqlite3_prepare_v2(r->db, "INSERT INTO t VALUES(NULL, zeroblob(300))", -1, &r->insert, NULL) != SQLITE_OK) {
        fprintf(stderr, "machine: %s\n", sqlite3_errmsg(r->db));
        exit(1);
    }
}

static void rows_commit(struct rows *r) {
    (void)sqlite3_step(r->insert);
    (void)sqlite3_reset(r->insert);
}

static void rows_close(struct rows *r) {
    (void)sqlite3_finalize(r->insert);
    (void)sqlite3_close(r->db);
    (void)unlink(r->path);
}

static void time_commit(const char *directory) {
    struct rows rows;
    rows_open(&rows, directory, 0);
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t begin_us = now_us();
        rows_commit(&rows);
        times[i] = (uint32_t)(now_us() - begin_us);
    }
    rows_close(&rows);
}

/* Another process: a byte in, a commit, a byte out; until there are no more. */
static void commit_on_demand(const char *directory, int number, int in, int out) {
    struct rows rows;
    char byte;
    rows_open(&rows, directory, number);
    while (read(in, &byte, 1) == 1) {
        rows_commit(&rows);
        (void)!write(out, &byte, 1);
    }
    rows_close(&rows);
    _exit(0);
}

static void time_majority(const char *directory) {
    int go[2][2], done[2];
    pid_t children[2];
    struct rows rows;
    char byte = 0;
    (void)!pipe(done);
    for (int i = 0; i < 2; i++) {
        (void)!pipe(go[i]);
        if ((children[i] = fork()) == 0) {
            (void)close(go[i][1]);
            if (i > 0) {
                (void)close(go[0][1]);
            }
            commit_on_demand(directory, 1 + i, go[i][0], done[1]);
        }
    }
    rows_open(&rows, directory, 0);
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t begin_us = now_us();
        (void)!write(go[0][1], &byte, 1);
        (void)!write(go[1][1], &byte, 1);
        rows_commit(&rows);
        (void)!read(done[0], &byte, 1);
        times[i] = (uint32_t)(now_us() - begin_us);
        (void)!read(done[0], &byte, 1);
    }
    rows_close(&rows);
    for (int i = 0; i < 2; i++) {
        (void)close(go[i][1]);
        (void)waitpid(children[i], NULL, 0);
    }
}

static void *echo(void *context) {
    int fd = accept(*(int *)context, NULL, NULL), on = 1;
    char room[300];
    ssize_t got;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    while ((got = recv(fd, room, sizeof room, 0)) > 0) {
        (void)send(fd, room, (size_t)got, 0);
    }
    (void)close(fd);
    return NULL;
}

static void time_round_trip(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    int server = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    pthread_t thread;
    char room[256] = {0};
    (void)bind(server, (struct sockaddr *)&at, sizeof at);
    (void)listen(server, 1);
    (void)getsockname(server, (struct sockaddr *)&at, &size);
    (void)pthread_create(&thread, NULL, echo, &server);
    (void)connect(client, (struct sockaddr *)&at, sizeof at);
    (void)setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t begin_us = now_us();
        (void)send(client, room, sizeof room, 0);
        (void)recv(client, room, sizeof room, MSG_WAITALL);
        times[i] = (uint32_t)(now_us() - begin_us);
    }
    (void)close(client);
    (void)pthread_join(thread, NULL);
    (void)close(server);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: machine DIRECTORY\n");
        return 2;
    }
    (void)printf("{");
    time_sync(argv[1], false);
    print("fdatasync", ", ");
    time_sync(argv[1], true);
    print("append", ", ");
    time_commit(argv[1]);
    print("sqlite_commit", ", ");
    time_majority(argv[1]);
    print("majority", ", ");
    time_round_trip();
    print("round_trip", "}\n");
    return 0;
}
