/* http.h: a bounded HTTP/1.1 server (parser: http_parser) on top of conn.
 *
 * A request is handed to the handler whole (head and body).  The handler must call http_reply exactly once, at once or later on the
 * loop's thread; if the client has gone meanwhile the reply is dropped.  Keep-alive and pipelining are kept in order: the next
 * request of a connection is handled after the reply.  Bad input is answered 400, 413, 414, 431 or 505 as problem+json here. */
#ifndef PLATFORM_HTTP_H
#define PLATFORM_HTTP_H

#include "platform/conn.h"

struct http_server;
struct http_request;

struct http_limits {
    uint32_t connections_max; /* above: the one longest idle gives way, then one slow to send its request; else 503 */
    size_t body_bytes_max;
    uint32_t idle_timeout_ms;    /* keep-alive without a request */
    uint32_t request_timeout_ms; /* first byte to last byte of a request: slow senders are cut off */
};

typedef void http_handler(void *context, struct http_request *q);

struct http_server *http_server_new(const struct conn_context *x, const struct http_limits *limits, http_handler *handler,
                                    void *context);
/* May be called for several addresses.  tls NULL: plain. */
enum grey_error http_server_listen(struct http_server *s, const char *address, const struct conn_tls *tls, struct fault *f);
void http_server_free(struct http_server *s); /* closes all connections; requests not replied to yet become no-ops at http_reply */
/* On listeners with TLS, clients that show no certificate are let in as well: the handler judges. */
void http_server_admit_guests(struct http_server *s);
uint32_t http_server_connections(const struct http_server *s);

/* Lent until http_reply. */
const char *http_method(const struct http_request *q); /* "GET", also for HEAD: that is answered alike, without the body */
struct bytes http_path(const struct http_request *q);  /* percent-decoded, starts with "/", no NUL inside */
bool http_query(const struct http_request *q, const char *name, char *value,
                size_t value_size);                                       /* decoded; false: absent or too long */
struct bytes http_header(const struct http_request *q, const char *name); /* case-insensitive; empty when absent */
struct bytes http_body(const struct http_request *q);
bool http_peer_uid(const struct http_request *q, uint32_t *uid);     /* true on a unix socket */
bool http_peer_in_group(const struct http_request *q, uint32_t gid); /* false on any other */
struct http_peer {
    const char *address;           /* "10.0.0.7:4711", "local" on a unix socket */
    const char *uri, *name, *role; /* of the certificate (platform/conn.h); "" each without one */
    bool tls;
};
void http_peer(const struct http_request *q, struct http_peer *out); /* lent while the handler is on the stack */
bool http_peer_uid(const struct http_request *q, uint32_t *uid);     /* true on a unix socket */
const char *http_peer_address(const struct http_request *q);         /* "" when the client has gone */
bool http_client_gone(const struct http_request *q);

struct http_extra {
    const char *name, *value;
};
/* Takes q.  content_type NULL: no body.  extra: borrowed array of header lines. */
void http_reply(struct http_request *q, int status, const char *content_type, struct bytes body, const struct http_extra *extra,
                size_t extra_count);
/* Takes q.  The JSON in `out`, and the end of its line.  When it did not fit memory, or grew beyond its bound: why not; but what is asked
 * otherwise than with GET is done by now, so that is answered E_OUTCOME_UNKNOWN. */
void http_reply_json(struct http_request *q, int status, struct builder *out, const struct http_extra *extra, size_t extra_count);
/* One more method that the path takes, "GET": an answer 405 names them all (Allow: RFC 9110, 15.5.6). */
#define HTTP_METHODS_BYTES 40u
void http_allow(struct http_request *q, const char *method);
/* Takes q.  application/problem+json (RFC 9457) with type "/errors/GREY-nnnn" (E_OUTCOME_UNKNOWN adds "#outcome-unknown"), the error's title and status, the detail and remedy;
 * 503 and 429 carry Retry-After: 1; 401 asks for a bearer token (RFC 6750, 3). */
void http_reply_error(struct http_request *q, enum grey_error err, const char *detail);
void http_reply_wait(struct http_request *q, enum grey_error err, const char *detail,
                     uint64_t wait_ms); /* the same, with that time */

#endif
