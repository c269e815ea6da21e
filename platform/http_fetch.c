#include "platform/http_fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <http_parser.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "platform/address.h"
#include "platform/fetch_tls.h"
#include "platform/keys.h"
#include "platform/now.h"
#include "platform/pinned.h"

/* Plain, or TLS to a server that is known by its CA. */
struct stream {
    int fd;
    struct pinned *tls;        /* NULL: plain, or that of a gateway: */
    struct fetch_tls *gateway; /* NULL: none */
};

struct reading {
    struct http_answer *answer;
    char field[32];
    size_t field_size;
    bool done, head;
};

static ssize_t stream_send(const struct stream *s, struct bytes out) {
    return s->gateway != NULL ? fetch_tls_send(s->gateway, out)
           : s->tls != NULL   ? pinned_send(s->tls, out)
                              : send(s->fd, out.data, out.size, MSG_NOSIGNAL);
}

static ssize_t stream_receive(const struct stream *s, void *room, size_t size) {
    return s->gateway != NULL ? fetch_tls_receive(s->gateway, room, size)
           : s->tls != NULL   ? pinned_receive(s->tls, room, size)
                              : recv(s->fd, room, size, 0);
}

static bool wait_for(int fd, short events, uint64_t deadline_ms) {
    uint64_t now_ms = now_monotonic_ms();
    struct pollfd p = {.fd = fd, .events = events};
    return now_ms < deadline_ms && poll(&p, 1, (int)(deadline_ms - now_ms)) > 0;
}

static int dial(const struct sockaddr *to, socklen_t size, uint64_t deadline_ms) {
    int fd = socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), number = 0;
    socklen_t number_size = sizeof number;
    if (fd >= 0 && connect(fd, to, size) != 0) {
        if (errno != EINPROGRESS && errno != EAGAIN) {
            number = errno;
        } else if (!wait_for(fd, POLLOUT, deadline_ms)) {
            number = ETIMEDOUT;
        } else {
            (void)getsockopt(fd, SOL_SOCKET, SO_ERROR, &number, &number_size);
        }
        if (number != 0) {
            (void)close(fd);
            errno = number;
            return -1;
        }
    }
    return fd;
}

static int open_stream(const struct http_fetch *q, uint64_t deadline_ms, struct fault *f) {
    int fd = -1;
    if (strncmp(q->address, "unix:", 5) == 0) {
        struct sockaddr_un u = {.sun_family = AF_UNIX};
        if (strlen(q->address + 5) >= sizeof u.sun_path) {
            (void)fault_set(f, E_USAGE, "the path of the socket is too long: %.100s", q->address);
            return -1;
        }
        memcpy(u.sun_path, q->address + 5, strlen(q->address + 5) + 1);
        fd = dial((const struct sockaddr *)&u, sizeof u, deadline_ms);
    } else if (strncmp(q->address, "http://", 7) == 0 || strncmp(q->address, "https://", 8) == 0) {
        bool tls = q->address[4] == 's';
        const char *name = q->address + (tls ? 8 : 7);
        char host[256] = "", port[8] = "80";
        size_t size = strcspn(name, "/");
        const char *colon = memrchr(name, ':', size);
        size_t host_size = colon == NULL ? size : (size_t)(colon - name);
        (void)snprintf(port, sizeof port, "%s", tls ? "443" : "80");
        if (host_size >= sizeof host || (colon != NULL && size - host_size - 1 >= sizeof port)) {
            (void)fault_set(f, E_USAGE, "'%.100s' is not http://host:port or https://host:port", q->address);
            return -1;
        }
        memcpy(host, name, host_size);
        if (colon != NULL) {
            memcpy(port, colon + 1, size - host_size - 1);
            port[size - host_size - 1] = 0;
        }
        struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *list = NULL;
        int code = address_resolve(host, port, &hints, &list);
        if (code != 0) {
            (void)fault_set(f, E_CONNECT, "%.100s: %s", q->address, gai_strerror(code));
            return -1;
        }
        for (const struct addrinfo *a = list; a != NULL && fd < 0; a = a->ai_next) {
            fd = dial(a->ai_addr, a->ai_addrlen, deadline_ms);
        }
        freeaddrinfo(list);
    } else {
        (void)fault_set(f, E_USAGE, "'%.100s': expected http://host:port, https://host:port or unix:/path", q->address);
        return -1;
    }
    if (fd < 0) {
        (void)fault_errno(f, E_CONNECT, "%.100s", q->address);
    }
    return fd;
}

static enum grey_error send_all(const struct stream *s, struct bytes out, uint64_t deadline_ms, struct fault *f) {
    while (out.size > 0) {
        ssize_t sent = stream_send(s, out);
        if (sent > 0) {
            out = bytes_of(out.data + sent, out.size - (size_t)sent);
        } else if (errno != EAGAIN && errno != EINTR) {
            return fault_errno(f, E_CONNECT, "sending the request");
        } else if (!wait_for(s->fd, POLLOUT, deadline_ms)) {
            return fault_set(f, E_TIMEOUT, "the request could not be sent in time");
        }
    }
    return E_OK;
}

/* --- the answer ------------------------------------------------------------------------------------------------------------------------ */

static int on_field(http_parser *p, const char *at, size_t size) {
    struct reading *r = p->data;
    r->field_size = size < sizeof r->field ? size : 0;
    memcpy(r->field, at, r->field_size);
    return 0;
}

static int on_value(http_parser *p, const char *at, size_t size) {
    struct reading *r = p->data;
    const struct {
        const char *name;
        char *out;
        size_t room;
    } kept[] = {{"content-type", r->answer->content_type, sizeof r->answer->content_type},
                {"etag", r->answer->etag, sizeof r->answer->etag},
                {"x-grey-leader", r->answer->leader, sizeof r->answer->leader},
                {"x-grey-end", r->answer->end, sizeof r->answer->end},
                {"x-grey-token", r->answer->token, sizeof r->answer->token}};
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
        if (strlen(kept[i].name) == r->field_size && strncasecmp(kept[i].name, r->field, r->field_size) == 0 &&
            size < kept[i].room) {
            memcpy(kept[i].out, at, size);
            kept[i].out[size] = 0;
        }
    }
    return 0;
}

static int on_headers(http_parser *p) {
    struct reading *r = p->data;
    r->answer->status = (int)p->status_code;
    return r->head ? 1 : 0;
}

static int on_body(http_parser *p, const char *at, size_t size) {
    struct reading *r = p->data;
    builder_add(&r->answer->body, bytes_of(at, size));
    return r->answer->body.err != E_OK;
}

static int on_complete(http_parser *p) {
    struct reading *r = p->data;
    r->done = p->status_code >= 200;
    return 0;
}

static enum grey_error receive(const struct stream *s, struct reading *r, uint64_t deadline_ms, struct fault *f) {
    static const http_parser_settings settings = {.on_header_field = on_field,
                                                  .on_header_value = on_value,
                                                  .on_headers_complete = on_headers,
                                                  .on_body = on_body,
                                                  .on_message_complete = on_complete};
    http_parser parser;
    char room[16384];
    http_parser_init(&parser, HTTP_RESPONSE);
    parser.data = r;
    while (!r->done) {
        ssize_t got = stream_receive(s, room, sizeof room);
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
            if (!wait_for(s->fd, POLLIN, deadline_ms)) {
                return fault_set(f, E_TIMEOUT, "no answer in time");
            }
            continue;
        }
        if (got < 0) {
            return fault_errno(f, E_CONNECT, "receiving the answer");
        }
        size_t used = http_parser_execute(&parser, &settings, room, (size_t)got);
        if (r->answer->body.err != E_OK) {
            return fault_set(f, r->answer->body.err, "the answer is too large");
        }
        if (!r->done && (used != (size_t)got || got == 0)) {
            return fault_set(f, got == 0 ? E_CLOSED : E_BAD_HTTP, "the answer ends too early or is not HTTP");
        }
    }
    return E_OK;
}

enum grey_error http_fetch(const struct http_fetch *q, struct http_answer *a, struct fault *f) {
    uint64_t deadline_ms = now_monotonic_ms() + q->timeout_ms;
    struct fault own = {0};
    f = f == NULL ? &own : f;
    memset(a, 0, sizeof *a);
    builder_init(&a->body, q->answer_bytes_max);
    if (strncmp(q->address, "https://", 8) == 0 && q->pin == NULL && q->tls == NULL) {
        return fault_set(f, E_USAGE, "'%.100s': this program speaks TLS only to a server whose CA it was told", q->address);
    }
    int fd = open_stream(q, deadline_ms, f);
    if (fd < 0) {
        return f->code;
    }
    struct stream stream = {.fd = fd};
    if (strncmp(q->address, "https://", 8) == 0) {
        if (q->tls != NULL) {
            stream.gateway = fetch_tls_open(q->tls, fd, deadline_ms, f);
        } else {
            stream.tls = pinned_open(fd, q->pin, deadline_ms, f);
        }
        if (stream.tls == NULL && stream.gateway == NULL) {
            (void)close(fd);
            return f->code;
        }
    }
    struct builder head;
    builder_init(&head, 64u * 1024u);
    builder_addf(&head, "%s %s HTTP/1.1\r\nHost: grey\r\nConnection: close\r\n", q->method, q->path);
    if (q->body.size > 0 || strcmp(q->method, "PUT") == 0 || strcmp(q->method, "POST") == 0) {
        builder_addf(&head, "Content-Length: %zu\r\n", q->body.size);
    }
    if (q->body_type != NULL) {
        builder_addf(&head, "Content-Type: %s\r\n", q->body_type);
    }
    for (size_t i = 0; q->headers != NULL && q->headers[i] != NULL; i++) {
        builder_addf(&head, "%s\r\n", q->headers[i]);
    }
    builder_add_str(&head, "\r\n");
    enum grey_error err = head.err != E_OK ? fault_set(f, head.err, "the request is too large")
                                           : send_all(&stream, builder_bytes(&head), deadline_ms, f);
    struct fault sending = {0};
    if (err == E_OK && q->body.size > 0) {
        (void)send_all(&stream, q->body, deadline_ms, &sending); /* a server that refuses early still says why */
    }
    keys_wipe(head.data, head.size); /* a token stands in it */
    builder_free(&head);
    if (err == E_OK) {
        struct reading r = {.answer = a, .head = strcmp(q->method, "HEAD") == 0};
        err = receive(&stream, &r, deadline_ms, f);
    }
    pinned_close(stream.tls);
    fetch_tls_close(stream.gateway);
    (void)close(fd);
    return err;
}
