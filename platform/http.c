#include "platform/http.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "include/grey/limits.h"
#include "include/grey/must.h"
#include "platform/http_wire.h"
#include "platform/log.h"
#include "platform/metrics.h"

#define LISTENERS_MAX 8u
#define OUTPUT_BYTES_MAX (16u * 1024u * 1024u)
#define OUTPUT_BYTES_PARK (64u * 1024u) /* who does not read his replies gets no further request handled */
#define REFUSALS_MAX 16u                /* connections above the limit that are told so at one time */
#define READING_MS_MIN 500u             /* a request that takes longer to arrive may have to give way */
#define SWEEP_MS 1000u
#define SMALL_BODY_BYTES 16384u /* leaves in one write with its head */

static struct metric bad_requests =
    METRIC_COUNTER("grey_http_bad_requests_total", "Requests that were not HTTP/1.1 or broke a limit.");
static struct metric turned_away = METRIC_COUNTER("grey_http_turned_away_total", "Connections refused because too many were open.");

struct session;

struct http_request {
    struct session *session; /* NULL: the client has gone */
    struct http_wire_request *wire;
    uint32_t uid;
    bool has_uid;
    char methods[HTTP_METHODS_BYTES]; /* see http_allow */
};

struct session {
    struct http_server *server;
    struct conn *conn; /* NULL until open */
    struct session *next, *previous;
    struct http_wire wire;
    struct http_request *request; /* being handled */
    bool reading;                 /* a request has begun to arrive */
    bool looping;                 /* on_bytes is on the stack */
    bool surplus, parked;
    bool leaving; /* the last reply is written */
    bool has_uid;
    uint32_t uid;
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
    bool guests;
    struct session *first, *last; /* the one whose last reply is longest ago first */
    struct loop_timer sweep;
    struct builder out;
};

/* --- sessions ----------------------------------------------------------------------------------------------------------------------------- */

static void link_last(struct session *s) {
    struct http_server *h = s->server;
    s->next = NULL;
    s->previous = h->last;
    *(h->last == NULL ? &h->first : &h->last->next) = s;
    h->last = s;
    h->session_count++;
}

static void unlink_session(struct session *s) {
    struct http_server *h = s->server;
    *(s->previous == NULL ? &h->first : &s->previous->next) = s->next;
    *(s->next == NULL ? &h->last : &s->next->previous) = s->previous;
    h->session_count--;
}

static void free_request(struct http_request *q) {
    mem_free(q->wire);
    mem_free(q);
}

/* The conn is closed or about to be; a request under way stays with its handler until it replies. */
static void end_session(struct session *s) {
    unlink_session(s);
    http_wire_free(&s->wire);
    if (s->request != NULL) {
        s->request->session = NULL;
    }
    mem_free(s);
}

static void close_session(struct session *s) {
    struct conn *c = s->conn;
    end_session(s);
    conn_close(c);
}

/* The last reply is written; the session stays, so that it is counted, until the client has read it or its time is over. */
static void leave(struct session *s) {
    s->leaving = true;
    s->reading = false;
    http_wire_free(&s->wire);
    conn_finish(s->conn);
}

static void problem(struct builder *body, enum grey_error err, int status, const char *detail);
static bool write_reply(struct session *s, int status, const char *content_type, struct bytes body, const struct http_extra *extra,
                        size_t extra_count, bool keep_alive, bool is_head);

/* Answers what cannot be understood, and closes: the stream has no known position any more. */
static void turn_down(struct session *s, int status, enum grey_error err, const char *detail) {
    static const struct http_extra retry = {"Retry-After", "1"};
    struct builder body;
    builder_init(&body, 4096);
    problem(&body, err, status, detail);
    (void)write_reply(s, status, "application/problem+json", builder_bytes(&body), &retry, status == 503, false, false);
    builder_free(&body);
    leave(s);
}

/* False: the session is gone, or leaves. */
static bool handle(struct session *s) {
    struct http_request *q = mem_new(1, sizeof *q);
    if (q == NULL) {
        turn_down(s, 503, E_NO_MEMORY, "");
        return false;
    }
    q->session = s;
    q->wire = s->wire.request;
    s->wire.request = NULL;
    q->uid = s->uid;
    q->has_uid = s->has_uid;
    s->request = q;
    s->reading = false;
    struct conn *c = s->conn;
    s->server->handler(s->server->context, q);
    return conn_get_context(c) == s && !s->leaving; /* a session that ends takes itself out of the conn's context */
}

static size_t on_bytes(void *context, struct conn *c, struct bytes in) {
    struct session *s = context;
    size_t used = 0;
    s->looping = true;
    while (used < in.size && s->request == NULL) {
        if (conn_output_bytes(c) > OUTPUT_BYTES_PARK) {
            s->parked = true;
            break;
        }
        size_t step;
        enum http_wire_result result = http_wire_read(&s->wire, bytes_of(in.data + used, in.size - used), &step);
        used += step;
        if (result == HTTP_WIRE_REFUSED) {
            metrics_add(&bad_requests, 0, 1);
            turn_down(s, s->wire.status, s->wire.why, s->wire.detail);
            return in.size;
        }
        if (!s->reading && (s->wire.request != NULL || used < in.size)) {
            s->reading = true;
            s->since_ms = loop_now_ms(s->server->x.loop);
        }
        if (s->wire.wants_continue) {
            s->wire.wants_continue = false;
            (void)conn_write(c, bytes_str("HTTP/1.1 100 Continue\r\n\r\n"));
        }
        if (result == HTTP_WIRE_MORE) {
            break;
        }
        if (!handle(s)) {
            return in.size;
        }
    }
    s->looping = false;
    if (s->request != NULL || s->parked) {
        conn_pause(c);
    }
    return used;
}

static void on_drained(void *context, struct conn *c) {
    struct session *s = context;
    if (s->parked && s->request == NULL && !s->looping) {
        s->parked = false;
        conn_resume(c);
    }
}

static void on_open(void *context, struct conn *c) {
    struct session *s = context;
    s->conn = c;
    s->has_uid = conn_peer_uid(c, &s->uid);
    if (s->surplus) {
        metrics_add(&turned_away, 0, 1);
        turn_down(s, 503, E_BUSY, "too many connections are open");
    }
}

static void on_closed(void *context, struct conn *c, enum grey_error why, const char *detail) {
    (void)c;
    if (why != E_CLOSED && why != E_STOPPING) {
        log_limited(LOG_DEBUG, "http", "closed", "error=GREY-%d %s: %s", error_id(why), error_sentence(why), detail);
    }
    end_session(context);
}

static const struct conn_events session_events = {
    .on_open = on_open, .on_bytes = on_bytes, .on_drained = on_drained, .on_closed = on_closed};

/* What is left of a conn whose session was ended on its own stack. */
static void gone_closed(void *context, struct conn *c, enum grey_error why, const char *detail) {
    (void)context, (void)c, (void)why, (void)detail;
}

static const struct conn_events gone_events = {.on_closed = gone_closed};

/* --- replies ------------------------------------------------------------------------------------------------------------------------------ */

/* A value from elsewhere must not begin a header line of its own. */
static void add_line(struct builder *out, const char *name, const char *value) {
    builder_add_str(out, name);
    builder_add_str(out, ": ");
    for (const char *c = value; *c != 0; c++) {
        builder_add_byte(out, (uint8_t)*c < 0x20 || *c == 0x7f ? ' ' : (uint8_t)*c);
    }
    builder_add_str(out, "\r\n");
}

/* False: it could not be written whole. */
static bool write_reply(struct session *s, int status, const char *content_type, struct bytes body, const struct http_extra *extra,
                        size_t extra_count, bool keep_alive, bool is_head) {
    struct builder *out = &s->server->out;
    builder_reset(out);
    builder_addf(out, "HTTP/1.1 %d %s\r\n", status, http_wire_reason(status));
    bool no_body = status == 204 || status == 304;
    if (!no_body) {
        builder_addf(out, "Content-Length: %zu\r\n", body.size);
    }
    if (content_type != NULL && !no_body) {
        add_line(out, "Content-Type", content_type);
    }
    for (size_t i = 0; i < extra_count; i++) {
        add_line(out, extra[i].name, extra[i].value);
    }
    builder_add_str(out, keep_alive ? "\r\n" : "Connection: close\r\n\r\n");
    bool send_body = !no_body && !is_head && body.size > 0;
    if (send_body && body.size <= SMALL_BODY_BYTES) {
        builder_add(out, body);
        send_body = false;
    }
    enum grey_error err = out->err;
    err = err == E_OK ? conn_write(s->conn, builder_bytes(out)) : err;
    err = err == E_OK && send_body ? conn_write(s->conn, body) : err;
    if (err != E_OK) {
        log_limited(LOG_WARN, "http", "cut", "status=%d body_bytes=%zu error=GREY-%d %s", status, body.size, error_id(err),
                    error_sentence(err));
    }
    return err == E_OK;
}

void http_reply(struct http_request *q, int status, const char *content_type, struct bytes body, const struct http_extra *extra,
                size_t extra_count) {
    struct session *s = q->session;
    if (s == NULL) {
        free_request(q);
        return;
    }
    must(s->request == q);
    bool keep_alive = q->wire->keep_alive;
    bool written = write_reply(s, status, content_type, body, extra, extra_count, keep_alive, q->wire->is_head);
    s->request = NULL;
    free_request(q); /* after the write: the body may stand in the request */
    s->since_ms = loop_now_ms(s->server->x.loop);
    if (!written) { /* half an answer must not be taken for a whole one */
        conn_set_context(s->conn, &gone_events, NULL);
        close_session(s);
        return;
    }
    unlink_session(s);
    link_last(s);
    if (!keep_alive) {
        leave(s);
    } else if (!s->looping && !s->parked) {
        conn_resume(s->conn);
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
    builder_addf(body, "{\"type\":\"/errors/GREY-%d%s\",\"title\":", error_id(err),
                 err == E_OUTCOME_UNKNOWN ? "#outcome-unknown" : "");
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

void http_allow(struct http_request *q, const char *method) {
    size_t used = strlen(q->methods), size = strlen(method);
    const char *there = strstr(q->methods, method);
    if (there == NULL && used + 2 + size < sizeof q->methods) {
        (void)snprintf(q->methods + used, sizeof q->methods - used, "%s%s", used > 0 ? ", " : "", method);
    }
    if (there == NULL && strcmp(method, "GET") == 0) {
        http_allow(q, "HEAD");
    }
}

void http_reply_wait(struct http_request *q, enum grey_error err, const char *detail, uint64_t wait_ms) {
    struct builder body;
    char seconds[24];
    builder_init(&body, 16384);
    int status = error_http_status(err);
    problem(&body, err, status, detail);
    (void)snprintf(seconds, sizeof seconds, "%llu", (unsigned long long)(wait_ms / 1000 + (wait_ms % 1000 > 0)));
    struct http_extra extra = {"Retry-After", seconds};
    if (status == 401) {
        extra = (struct http_extra){"WWW-Authenticate", "Bearer realm=\"grey\""};
    }
    if (status == 405) {
        extra = (struct http_extra){"Allow", q->methods};
    }
    http_reply(q, status, "application/problem+json", builder_bytes(&body), &extra,
               status == 503 || status == 429 || status == 401 || (status == 405 && q->methods[0] != 0) ? 1 : 0);
    builder_free(&body);
}

void http_reply_error(struct http_request *q, enum grey_error err, const char *detail) {
    http_reply_wait(q, err, detail, 1000);
}

void http_reply_json(struct http_request *q, int status, struct builder *out, const struct http_extra *extra, size_t extra_count) {
    builder_add_byte(out, '\n');
    if (out->err == E_OK) {
        http_reply(q, status, "application/json", builder_bytes(out), extra, extra_count);
    } else if (http_method(q)[0] != 'G') {
        http_reply_error(q, E_OUTCOME_UNKNOWN, "it is done, and no memory was left to say what came of it");
    } else {
        http_reply_error(q, out->err, out->err == E_TOO_LARGE ? "the answer grew too large; ask for less" : "");
    }
}

/* --- the server --------------------------------------------------------------------------------------------------------------------------- */

/* The first of the best kind: one that has its answer, one that is idle, one that takes long to say what it wants. */
static bool make_room(struct http_server *h) {
    struct session *best = NULL;
    int best_rank = 3;
    uint64_t now_ms = loop_now_ms(h->x.loop);
    for (struct session *s = h->first; s != NULL && best_rank > 0; s = s->next) {
        int rank = s->conn == NULL || s->request != NULL                   ? 3
                   : s->leaving                                            ? 0
                   : !s->reading                                           ? 1
                   : now_ms - s->since_ms >= READING_MS_MIN && !s->looping ? 2
                                                                           : 3;
        if (rank < best_rank) {
            best = s;
            best_rank = rank;
        }
    }
    if (best != NULL) {
        close_session(best);
    }
    return best != NULL;
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
    s->wire.body_bytes_max = h->limits.body_bytes_max;
    link_last(s);
    *o = (struct conn_options){.tls = l->tls,
                               .guests = h->guests,
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
        if (s->conn == NULL || s->request != NULL || s->leaving) { /* these have deadlines of their own */
            continue;
        }
        uint64_t age_ms = now_ms - s->since_ms;
        if (s->reading ? age_ms > h->limits.request_timeout_ms : age_ms > h->limits.idle_timeout_ms) {
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
        conn_listener_close(h->listeners[i].conn); /* ends the sessions that are not open yet */
    }
    while (h->first != NULL) {
        close_session(h->first);
    }
    builder_free(&h->out);
    mem_free(h);
}

void http_server_admit_guests(struct http_server *h) {
    h->guests = true;
}

uint32_t http_server_connections(const struct http_server *h) {
    return h->session_count;
}

/* --- questions -------------------------------------------------------------------------------------------------------------------------------- */

static struct bytes text_of(const struct http_request *q, struct http_wire_span span) {
    return bytes_of(q->wire->text + span.at, span.size);
}

const char *http_method(const struct http_request *q) {
    return q->wire->is_head ? "GET" : q->wire->method; /* the same, and http_reply leaves the body out */
}

struct bytes http_path(const struct http_request *q) {
    return text_of(q, q->wire->path);
}

struct bytes http_body(const struct http_request *q) {
    return text_of(q, q->wire->body);
}

struct bytes http_header(const struct http_request *q, const char *name) {
    return http_wire_header(q->wire, name);
}

bool http_query(const struct http_request *q, const char *name, char *value, size_t value_size) {
    struct bytes query = text_of(q, q->wire->query);
    size_t name_size = strlen(name), at = 0;
    while (at < query.size) {
        const uint8_t *start = query.data + at;
        const uint8_t *end = memchr(start, '&', query.size - at);
        size_t size = end == NULL ? query.size - at : (size_t)(end - start);
        const uint8_t *equals = memchr(start, '=', size);
        size_t key_size = equals == NULL ? size : (size_t)(equals - start);
        if (key_size == name_size && memcmp(start, name, name_size) == 0) {
            size_t raw_size = equals == NULL ? 0 : size - key_size - 1, decoded = 0;
            if (raw_size >= value_size ||
                (raw_size > 0 && !http_wire_decode(bytes_of(equals + 1, raw_size), true, (uint8_t *)value, &decoded))) {
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

bool http_peer_in_group(const struct http_request *q, uint32_t gid) {
    return q->has_uid && q->session != NULL && conn_peer_in_group(q->session->conn, gid);
}

void http_peer(const struct http_request *q, struct http_peer *out) {
    *out = (struct http_peer){.address = "?", .uri = "", .name = "", .role = ""};
    if (q->session != NULL) {
        const struct conn *c = q->session->conn;
        *out = (struct http_peer){.address = conn_peer_address(c),
                                  .uri = conn_peer_uri(c),
                                  .name = conn_peer_name(c),
                                  .role = conn_peer_role(c),
                                  .tls = conn_is_tls(c)};
    }
}

const char *http_peer_address(const struct http_request *q) {
    return q->session == NULL ? "" : conn_peer_address(q->session->conn);
}

bool http_client_gone(const struct http_request *q) {
    return q->session == NULL;
}
