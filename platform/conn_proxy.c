#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "platform/conn_core.h"

#define CREDENTIALS_BYTES_MAX 512u

/* False: c has failed. */
static bool add_authorization(struct conn *c, struct builder *out) {
    uint8_t line[CREDENTIALS_BYTES_MAX];
    const char *path = c->o.proxy->auth_path;
    if (path == NULL || path[0] == 0) {
        return true;
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, line, sizeof line);
    if (got < 0) {
        conn_fail_errno(c, E_CONNECT, path);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    if (got < 0) {
        return false;
    }
    size_t size = 0;
    while (size < (size_t)got && line[size] != '\n' && line[size] != '\r') {
        size++;
    }
    if (size == sizeof line || memchr(line, ':', size) == NULL) {
        char text[200];
        (void)snprintf(text, sizeof text, "%.120s does not begin with a line user:password", path);
        conn_fail(c, E_CONNECT, text);
        return false;
    }
    builder_add_str(out, "Proxy-Authorization: Basic ");
    builder_add_base64(out, bytes_of(line, size));
    builder_add_str(out, "\r\n");
    return true;
}

void conn_proxy_ask(struct conn *c) {
    struct builder ask;
    const char *address = conn_peer_address(c);
    builder_init(&ask, 4096);
    c->state = CONN_PROXY;
    builder_add_str(&ask, "CONNECT ");
    builder_add_str(&ask, address);
    builder_add_str(&ask, " HTTP/1.1\r\nHost: ");
    builder_add_str(&ask, address);
    builder_add_str(&ask, "\r\n");
    if (add_authorization(c, &ask)) {
        builder_add_str(&ask, "\r\n");
        if (ask.err != E_OK) {
            conn_fail(c, ask.err, "CONNECT");
        } else if (conn_socket_send(c, ask.data, ask.size) != (ssize_t)ask.size) { /* a fresh socket takes it all, or is broken */
            conn_fail_errno(c, E_CONNECT, "CONNECT to the proxy");
        } else {
            (void)conn_watch(c, EPOLLIN | EPOLLRDHUP);
        }
    }
    builder_free(&ask);
}

/* "HTTP/1.1 200 Connection established": the number, or 0. */
static int status_of(struct bytes head) {
    const uint8_t *d = head.data;
    if (head.size < 12 || memcmp(d, "HTTP/1.", 7) != 0 || d[8] != ' ') {
        return 0;
    }
    for (int i = 9; i < 12; i++) {
        if (d[i] < '0' || d[i] > '9') {
            return 0;
        }
    }
    return (d[9] - '0') * 100 + (d[10] - '0') * 10 + (d[11] - '0');
}

static void judge(struct conn *c, struct bytes head) {
    char text[240], reason[64];
    int status = status_of(head);
    if (status >= 200 && status < 300) {
        builder_free(&c->dialling->proxy_answer);
        conn_reached(c);
        return;
    }
    size_t size = 0;
    while (size < sizeof reason - 1 && 13 + size < head.size && head.data[13 + size] >= 0x20 && head.data[13 + size] < 0x7f) {
        reason[size] = (char)head.data[13 + size];
        size++;
    }
    reason[size] = 0;
    if (status == 0) {
        (void)snprintf(text, sizeof text, "the proxy %.100s does not speak HTTP", c->o.proxy->address);
    } else {
        (void)snprintf(text, sizeof text, "the proxy %.80s refused with status %d %s%s", c->o.proxy->address, status, reason,
                       status == 407 ? ": check federation.proxy.auth_file" : "");
    }
    conn_fail(c, E_CONNECT, text);
}

/* Looks before it takes, so that nothing behind the answer's head is lost: it belongs to the other side. */
void conn_proxy_read(struct conn *c) {
    uint8_t room[1024];
    struct builder *answer = &c->dialling->proxy_answer;
    ssize_t seen = recv(c->fd, room, sizeof room, MSG_PEEK);
    if (seen < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (seen <= 0) {
        conn_fail(c, E_CONNECT, "the proxy closed the connection");
        return;
    }
    size_t before = answer->size, end = 0;
    builder_add(answer, bytes_of(room, (size_t)seen));
    if (answer->err != E_OK) {
        conn_fail(c, E_CONNECT, "the proxy's answer is too long");
        return;
    }
    for (size_t i = before < 3 ? 0 : before - 3; i + 4 <= answer->size && end == 0; i++) {
        end = memcmp(answer->data + i, "\r\n\r\n", 4) == 0 ? i + 4 : 0;
    }
    size_t take = end == 0 ? (size_t)seen : end - before;
    if (conn_socket_receive(c, room, take) != (ssize_t)take) {
        conn_fail_errno(c, E_CONNECT, "the proxy's answer");
        return;
    }
    if (end > 0) {
        judge(c, bytes_of(answer->data, end));
    }
}
