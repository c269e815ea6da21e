#include "platform/http.h"

#include <http_parser.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "include/grey/limits.h"
#include "include/grey/must.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/now.h"

#define HEADERS_MAX 64u
#define URL_BYTES_MAX 8192u
#define LISTENERS_MAX 8u
#define OUTPUT_BYTES_MAX (16u * 1024u * 1024u)
#define REFUSALS_MAX 16u /* connections above the limit that are told so at one time */
#define SWEEP_MS 1000u
#define SMALL_BODY_BYTES 16384u /* leaves in one write with its head */

static struct metric bad_requests =
    METRIC_COUNTER("grey_http_bad_requests_total", "Requests that were not HTTP/1.1 or broke a limit.");
static struct metric turned_away = METRIC_COUNTER("grey_http_turned_away_total", "Connections refused because too many were open.");

struct session;

/* Head and body lie in one builder, and everything points into it by offset because it moves when it grows. */
struct span {
    uint32_t at, size;
};

struct http_request {
    struct session *session; /* NULL: the client has gone */
    struct builder text;
    struct span url, path, query, body;
    struct {
        struct span name, value;
    } headers[HEADERS_MAX];
    uint32_t header_count;
    bool in_value, keep_alive, is_head, has_uid;
    enum http_method method;
    uint32_t uid;
    uint64_t received_us;
    const char *last_value_end; /* to find folded header lines */
};

struct session {
    struct http_server *server;
    struct conn *conn; /* NULL until open */
    struct session *next, *previous;
    struct http_request *request; /* being read or handled */
    http_parser parser;
    bool handling, parsing, surplus;
    enum grey_error refusal; /* found while parsing */
    const char *refusal_detail;
    uint64_t since_ms; /* of the last change: opened, first byte of a request, reply */
};

struct listener {
    struct http_server *server;
    const struct conn_tls *tls;
    struct conn_listener *conn;
};

struct http_server {
    struct conn_context x;
    struct http_limits limits;
    http_handler *handler;
    void *context;
    struct listener listeners[LISTENERS_MAX];
    uint32_t listener_count, session_count;
    struct session *first, *last; /* oldest activity first, roughly */
    struct loop_timer sweep;
    struct builder out;
};

/* --- parsing ------------------------------------------------------------------------------------------------------------------------------ */

static int refuse(struct session *s, enum grey_error err, const char *detail) {
    s->refusal = err;
    s->refusal_detail = detail;
    return 1;
}

static struct bytes text_of(const struct http_request *q, struct span span) {
    return span.size == 0 ? bytes_of(NULL, 0) : bytes_of(q->text.data + span.at, span.size);
}

/* Appends to the text, as part of the span; the head has a bound of its own. */
static int collect(struct session *s, struct span *span, const char *data, size_t size, bool is_head) {
    struct http_request *q = s->request;
    if (is_head && q->text.size + size > LIMIT_HTTP_HEAD_BYTES) {
        return refuse(s, E_TOO_LARGE, "the head of the request is larger than 16 KiB");
    }
    if (span->size == 0) {
        span->at = (uint32_t)q->text.size;
    }
    builder_add(&q->text, bytes_of(data, size));
    if (q->text.err != E_OK) {
        return refuse(s, q->text.err, "the request is larger than this call allows");
    }
    span->size += (uint32_t)size;
    return 0;
}

static int on_begin(http_parser *p) {
    struct session *s = p->data;
    must(s->request == NULL);
    s->request = mem_new(1, sizeof *s->request);
    if (s->request == NULL) {
        return refuse(s, E_NO_MEMORY, "");
    }
    s->request->session = s;
    builder_init(&s->request->text, LIMIT_HTTP_HEAD_BYTES + s->server->limits.body_bytes_max);
    s->since_ms = loop_now_ms(s->server->x.loop);
    return 0;
}

static int on_url(http_parser *p, const char *at, size_t size) {
    struct session *s = p->data;
    if (s->request->url.size + size > URL_BYTES_MAX) {
        return refuse(s, E_TOO_LARGE, "the path is longer than 8 KiB");
    }
    return collect(s, &s->request->url, at, size, true);
}

static int on_header_field(http_parser *p, const char *at, size_t size) {
    struct session *s = p->data;
    struct http_request *q = s->request;
    if (q->in_value || q->header_count == 0) {
        if (q->header_count == HEADERS_MAX) {
            return refuse(s, E_TOO_LARGE, "more than 64 header lines");
        }
        q->header_count++;
        q->in_value = false;
    }
    return collect(s, &q->headers[q->header_count - 1].name, at, size, true);
}

static int on_header_value(http_parser *p, const char *at, size_t size) {
    struct session *s = p->data;
    struct http_request *q = s->request;
    struct span *value = &q->headers[q->header_count - 1].value;
    if (q->in_value && value->size > 0 && q->last_value_end != NULL && q->last_value_end != at) {
        return refuse(s, E_BAD_HTTP, "folded header lines are not taken");
    }
    q->in_value = true;
    q->last_value_end = at + size;
    return collect(s, value, at, size, true);
}

static int hex(uint8_t c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Percent-decoding in place (out may be in).  False: malformed, or a NUL. */
static bool decode(const uint8_t *in, size_t size, bool plus_is_space, uint8_t *out, size_t *out_size) {
    size_t written = 0;
    for (size_t i = 0; i < size; i++) {
        uint8_t c = in[i];
        if (c == '%') {
            if (i + 2 >= size || hex(in[i + 1]) < 0 || hex(in[i + 2]) < 0) {
                return false;
            }
            c = (uint8_t)(hex(in[i + 1]) << 4 | hex(in[i + 2]));
            i += 2;
        } else if (c == '+' && plus_is_space) {
            c = ' ';
        }
        if (c == 0) {
            return false;
        }
        out[written++] = c;
    }
    *out_size = written;
    return true;
}

static bool split_url(struct http_request *q) {
    uint8_t *url = q->text.data + q->url.at;
    size_t size = q->url.size;
    const uint8_t *mark = memchr(url, '?', size);
    size_t path_size = mark == NULL ? size : (size_t)(mark - url);
    if (mark != NULL) {
        q->query = (struct span){q->url.at + (uint32_t)path_size + 1, (uint32_t)(size - path_size - 1)};
    }
    size_t decoded;
    if (size == 0 || url[0] != '/' || !decode(url, path_size, false, url, &decoded)) {
        return false;
    }
    q->path = (struct span){q->url.at, (uint32_t)decoded};
    return true;
}

static int on_headers_complete(http_parser *p) {
    struct session *s = p->data;
    struct http_request *q = s->request;
    q->method = (enum http_method)p->method;
    if (p->http_major != 1 || p->http_minor > 1) {
        return refuse(s, E_BAD_VERSION, "HTTP/1.0 and HTTP/1.1 are spoken here") ? -1 : 0;
    }
    if (p->upgrade != 0 || !split_url(q)) {
        (void)refuse(s, E_BAD_HTTP, p->upgrade != 0 ? "no other protocol is spoken on this port" : "the path is malformed");
        return -1;
    }
    if (p->content_length != UINT64_MAX && p->content_length > s->server->limits.body_bytes_max) {
        (void)refuse(s, E_TOO_LARGE, "the body is larger than this API takes");
        return -1;
    }
    struct bytes expect = http_header(q, "Expect");
    if (expect.size == 12 && strncasecmp((const char *)expect.data, "100-continue", 12) == 0) {
        (void)conn_write(s->conn, bytes_str("HTTP/1.1 100 Continue\r\n\r\n"));
    }
    return 0;
}

static int on_body(http_parser *p, const char *at, size_t size) {
    struct session *s = p->data;
    struct http_request *q = s->request;
    if (q->body.size + size > s->server->limits.body_bytes_max) {
        return refuse(s, E_TOO_LARGE, "the body is larger than this API takes");
    }
    return collect(s, &q->body, at, size, false);
}

static int on_complete(http_parser *p) {
    struct session *s = p->data;
    s->request->keep_alive = http_should_keep_alive(p) != 0;
    s->handling = true;
    http_parser_pause(p, 1); /* what follows waits for the reply */
    return 0;
}

static const http_parser_settings settings = {.on_message_begin = on_begin,
                                              .on_url = on_url,
                                              .on_header_field = on_header_field,
                                              .on_header_value = on_header_value,
                                              .on_headers_complete = on_headers_complete,
                                              .on_body = on_body,
                                              .on_message_complete = on_complete};

/* --- sessions ----------------------------------------------------------------------------------------------------------------------------- */

static void unlink_session(struct session *s) {
    struct http_server *h = s->server;
    *(s->previous == NULL ? &h->first : &s->previous->next) = s->next;
    *(s->next == NULL ? &h->last : &s->next->previous) = s->previous;
    h->session_count--;
}

static void free_request(struct http_request *q) {
    builder_free(&q->text);
    mem_free(q);
}

/* The conn is closed or about to be; a request under way stays with its handler until it replies. */
static void end_session(struct session *s) {
    unlink_session(s);
    if (s->request != NULL && s->handling) {
        s->request->session = NULL;
    } else if (s->request != NULL) {
        free_request(s->request);
    }
    mem_free(s);
}

static void close_session(struct session *s) {
    struct conn *c = s->conn;
    end_session(s);
    conn_close(c);
}

static int status_of_refusal(const struct session *s) {
    switch (s->refusal) {
    case E_TOO_LARGE:
        return s->request != NULL && s->request->path.size > 0       ? 413
               : s->request != NULL && s->request->header_count == 0 ? 414
                                                                     : 431;
    case E_BAD_VERSION:
        return 505;
    default:
        return error_http_status(s->refusal);
    }
}

static void linger(struct conn *c);
static void problem(struct builder *body, enum grey_error err, int status, const char *detail);
static void write_reply(struct session *s, int status, const char *content_type, struct bytes body, const struct http_extra *extra,
                        size_t extra_count, bool keep_alive, bool is_head);

/* Answers what cannot be understood, and closes: the stream has no known position any more. */
static void turn_down(struct session *s) {
    struct builder body;
    builder_init(&body, 4096);
    int status = status_of_refusal(s);
    metrics_add(&bad_requests, 0, 1);
    problem(&body, s->refusal, status, s->refusal_detail);
    write_reply(s, status, "application/problem+json", builder_bytes(&body), NULL, 0, false, false);
    builder_free(&body);
    struct conn *c = s->conn;
    end_session(s);
    linger(c);
}

static size_t on_bytes(void *context, struct conn *c, struct bytes in) {
    struct session *s = context;
    size_t used = 0;
    s->parsing = true;
    while (used < in.size && !s->handling) {
        used += http_parser_execute(&s->parser, &settings, (const char *)in.data + used, in.size - used);
        if (s->request != NULL) {
            s->request->last_value_end = NULL;
        }
        enum http_errno number = HTTP_PARSER_ERRNO(&s->parser);
        if (number != HPE_OK && number != HPE_PAUSED) {
            if (s->refusal == E_OK) {
                (void)refuse(s, E_BAD_HTTP, http_errno_description(number));
            }
            s->handling = false;
            turn_down(s);
            return in.size;
        }
        if (s->handling) {
            http_parser_pause(&s->parser, 0);
            struct http_request *q = s->request;
            q->is_head = q->method == HTTP_HEAD;
            q->received_us = now_monotonic_us();
            q->has_uid = conn_peer_uid(c, &q->uid);
            s->server->handler(s->server->context, q);
            if (conn_get_context(c) != s) {
                return in.size; /* the reply closed the session */
            }
        }
    }
    s->parsing = false;
    if (s->handling) {
        conn_pause(c);
    }
    return used;
}

static void on_open(void *context, struct conn *c) {
    struct session *s = context;
    s->conn = c;
    if (s->surplus) {
        metrics_add(&turned_away, 0, 1);
        s->refusal = E_BUSY;
        s->refusal_detail = "too many connections are open";
        turn_down(s);
    }
}

static void on_closed(void *context, struct conn *c, enum grey_error why, const char *detail) {
    (void)c;
    if (why != E_CLOSED) {
        log_limited(LOG_DEBUG, "http", "closed", "error=GREY-%d %s: %s", error_id(why), error_sentence(why), detail);
    }
    end_session(context);
}

static const struct conn_events session_events = {.on_open = on_open, .on_bytes = on_bytes, .on_closed = on_closed};

/* After a last reply the socket stays until the client has read it: closing with unread input would cut the reply off. */
static size_t linger_bytes(void *context, struct conn *c, struct bytes in) {
    (void)context, (void)c;
    return in.size;
}

static void linger_closed(void *context, struct conn *c, enum grey_error why, const char *detail) {
    (void)context, (void)c, (void)why, (void)detail;
}

static const struct conn_events linger_events = {.on_bytes = linger_bytes, .on_closed = linger_closed};

static void linger(struct conn *c) {
    conn_set_context(c, &linger_events, NULL);
    conn_finish(c);
}

/* --- replies ------------------------------------------------------------------------------------------------------------------------------ */

static const char *reason(int status) {
    switch (status) {
#define X(number, name, text)                                                                                                      \
    case number:                                                                                                                   \
        return #text;
        HTTP_STATUS_MAP(X)
#undef X
    default:
        return "Status";
    }
}

static void write_reply(struct session *s, int status, const char *content_type, struct bytes body, const struct http_extra *extra,
                        size_t extra_count, bool keep_alive, bool is_head) {
    struct builder *out = &s->server->out;
    builder_reset(out);
    builder_addf(out, "HTTP/1.1 %d %s\r\n", status, reason(status));
    bool no_body = status == 204 || status == 304;
    if (!no_body) {
        builder_addf(out, "Content-Length: %zu\r\n", body.size);
    }
    if (content_type != NULL && !no_body) {
        builder_addf(out, "Content-Type: %s\r\n", content_type);
    }
    for (size_t i = 0; i < extra_count; i++) {
        builder_addf(out, "%s: %s\r\n", extra[i].name, extra[i].value);
    }
    builder_add_str(out, keep_alive ? "\r\n" : "Connection: close\r\n\r\n");
    bool send_body = !no_body && !is_head && body.size > 0;
    if (send_body && body.size <= SMALL_BODY_BYTES) {
        builder_add(out, body);
        send_body = false;
    }
    if (out->err == E_OK && conn_write(s->conn, builder_bytes(out)) == E_OK && send_body) {
        (void)conn_write(s->conn, body);
    }
}

void http_reply(struct http_request *q, int status, const char *content_type, struct bytes body, const struct http_extra *extra,
                size_t extra_count) {
    struct session *s = q->session;
    if (s == NULL) {
        free_request(q);
        return;
    }
    must(s->request == q && s->handling);
    bool keep_alive = q->keep_alive;
    write_reply(s, status, content_type, body, extra, extra_count, keep_alive, q->is_head);
    free_request(q);
    s->request = NULL;
    s->handling = false;
    s->since_ms = loop_now_ms(s->server->x.loop);
    struct conn *c = s->conn;
    if (!keep_alive) {
        end_session(s);
        linger(c);
    } else if (!s->parsing) {
        conn_resume(c);
    }
}

static void put_quoted(struct builder *b, const char *text) {
    builder_add_byte(b, '"');
    for (const char *c = text; *c != 0; c++) {
        if (*c == '"' || *c == '\\') {
            builder_add_byte(b, '\\');
            builder_add_byte(b, (uint8_t)*c);
        } else if ((uint8_t)*c < 0x20) {
            builder_addf(b, "\\u%04x", (unsigned)(uint8_t)*c);
        } else {
            builder_add_byte(b, (uint8_t)*c);
        }
    }
    builder_add_byte(b, '"');
}

static void problem(struct builder *body, enum grey_error err, int status, const char *detail) {
    builder_addf(body, "{\"type\":\"/errors/GREY-%d\",\"title\":", error_id(err));
    put_quoted(body, error_sentence(err));
    builder_addf(body, ",\"status\":%d,\"detail\":", status);
    put_quoted(body, detail == NULL ? "" : detail);
    builder_add_str(body, ",\"remedy\":");
    put_quoted(body, error_remedy(err));
    if (err == E_OUTCOME_UNKNOWN) {
        builder_add_str(body, ",\"outcome\":\"unknown\"");
    }
    builder_add_str(body, "}\n");
}

void http_reply_error(struct http_request *q, enum grey_error err, const char *detail) {
    struct builder body;
    builder_init(&body, 16384);
    int status = error_http_status(err);
    problem(&body, err, status, detail);
    struct http_extra retry = {"Retry-After", "1"};
    http_reply(q, status, "application/problem+json", builder_bytes(&body), &retry, status == 503 || status == 429 ? 1 : 0);
    builder_free(&body);
}

/* --- the server --------------------------------------------------------------------------------------------------------------------------- */

static bool make_room(struct http_server *h) {
    for (struct session *s = h->first; s != NULL; s = s->next) {
        if (s->conn != NULL && s->request == NULL && !s->surplus) {
            close_session(s);
            return true;
        }
    }
    return false;
}

static bool on_accept(void *context, struct conn_options *o) {
    struct listener *l = context;
    struct http_server *h = l->server;
    bool surplus = h->session_count >= h->limits.connections_max && !make_room(h);
    if (surplus && h->session_count >= h->limits.connections_max + REFUSALS_MAX) {
        return false;
    }
    struct session *s = mem_new(1, sizeof *s);
    if (s == NULL) {
        return false;
    }
    s->server = h;
    s->surplus = surplus;
    s->since_ms = loop_now_ms(h->x.loop);
    http_parser_init(&s->parser, HTTP_REQUEST);
    s->parser.data = s;
    s->previous = h->last;
    *(h->last == NULL ? &h->first : &h->last->next) = s;
    h->last = s;
    h->session_count++;
    *o = (struct conn_options){.tls = l->tls,
                               .input_limit_bytes = 64u * 1024u, /* pipelined requests that wait */
                               .output_limit_bytes = OUTPUT_BYTES_MAX,
                               .events = &session_events,
                               .context = s};
    return true;
}

static void on_sweep(void *context) {
    struct http_server *h = context;
    uint64_t now_ms = loop_now_ms(h->x.loop);
    struct session *next;
    for (struct session *s = h->first; s != NULL; s = next) {
        next = s->next;
        if (s->conn == NULL || s->handling) {
            continue;
        }
        uint64_t age_ms = now_ms - s->since_ms;
        if (s->request == NULL ? age_ms > h->limits.idle_timeout_ms : age_ms > h->limits.request_timeout_ms) {
            close_session(s);
        }
    }
    loop_timer_after(h->x.loop, &h->sweep, SWEEP_MS);
}

struct http_server *http_server_new(const struct conn_context *x, const struct http_limits *limits, http_handler *handler,
                                    void *context) {
    metrics_register(&bad_requests);
    metrics_register(&turned_away);
    struct http_server *h = mem_new(1, sizeof *h);
    if (h != NULL) {
        h->x = *x;
        h->limits = *limits;
        h->handler = handler;
        h->context = context;
        h->sweep = (struct loop_timer){.fire = on_sweep, .context = h};
        builder_init(&h->out, LIMIT_HTTP_HEAD_BYTES + SMALL_BODY_BYTES);
        loop_timer_after(x->loop, &h->sweep, SWEEP_MS);
    }
    return h;
}

enum grey_error http_server_listen(struct http_server *h, const char *address, const struct conn_tls *tls, struct fault *f) {
    must(h->listener_count < LISTENERS_MAX);
    struct listener *l = &h->listeners[h->listener_count];
    *l = (struct listener){.server = h, .tls = tls};
    l->conn = conn_listen(&h->x, address, on_accept, l, f);
    if (l->conn == NULL) {
        return f == NULL ? E_SYSTEM : f->code;
    }
    h->listener_count++;
    return E_OK;
}

void http_server_free(struct http_server *h) {
    if (h == NULL) {
        return;
    }
    loop_timer_cancel(h->x.loop, &h->sweep);
    for (uint32_t i = 0; i < h->listener_count; i++) {
        conn_listener_close(h->listeners[i].conn);
    }
    while (h->first != NULL) {
        struct session *s = h->first;
        struct conn *c = s->conn;
        if (c == NULL) { /* still in its handshake: the conn is not ours to close yet, so it is left to its own end */
            unlink_session(s);
            mem_free(s);
            continue;
        }
        end_session(s);
        conn_close(c);
    }
    builder_free(&h->out);
    mem_free(h);
}

uint32_t http_server_connections(const struct http_server *h) {
    return h->session_count;
}

/* --- questions -------------------------------------------------------------------------------------------------------------------------------- */

const char *http_method(const struct http_request *q) {
    return http_method_str(q->method);
}

struct bytes http_path(const struct http_request *q) {
    return text_of(q, q->path);
}

struct bytes http_body(const struct http_request *q) {
    return text_of(q, q->body);
}

struct bytes http_header(const struct http_request *q, const char *name) {
    size_t size = strlen(name);
    for (uint32_t i = 0; i < q->header_count; i++) {
        struct bytes field = text_of(q, q->headers[i].name);
        if (field.size == size && strncasecmp((const char *)field.data, name, size) == 0) {
            return text_of(q, q->headers[i].value);
        }
    }
    return bytes_of(NULL, 0);
}

bool http_query(const struct http_request *q, const char *name, char *value, size_t value_size) {
    struct bytes query = text_of(q, q->query);
    size_t name_size = strlen(name), at = 0;
    while (at < query.size) {
        const uint8_t *start = query.data + at;
        const uint8_t *end = memchr(start, '&', query.size - at);
        size_t size = end == NULL ? query.size - at : (size_t)(end - start);
        const uint8_t *equals = memchr(start, '=', size);
        size_t key_size = equals == NULL ? size : (size_t)(equals - start);
        if (key_size == name_size && memcmp(start, name, name_size) == 0) {
            size_t raw_size = equals == NULL ? 0 : size - key_size - 1, decoded = 0;
            if (raw_size >= value_size || (raw_size > 0 && !decode(equals + 1, raw_size, true, (uint8_t *)value, &decoded))) {
                return false;
            }
            value[decoded] = 0;
            return true;
        }
        at += size + 1;
    }
    return false;
}

bool http_peer_uid(const struct http_request *q, uint32_t *uid) {
    *uid = q->uid;
    return q->has_uid;
}

bool http_client_gone(const struct http_request *q) {
    return q->session == NULL;
}

uint64_t http_received_us(const struct http_request *q) {
    return q->received_us;
}
