/* http_wire.h: one HTTP/1.1 request out of bytes (RFC 9112).  No socket, no clock: bytes in, a request or a refusal out.
 *
 * What the standard leaves to leniency is refused, because two readers that differ in it let requests be smuggled: bare LF, folded
 * lines, space before the colon, two lengths, a length beside chunks, chunk framing that is off by a byte.  http_parser judges the
 * request line and the lengths of a head that has passed these checks. */
#ifndef PLATFORM_HTTP_WIRE_H
#define PLATFORM_HTTP_WIRE_H

#include "platform/bytes.h"

#define HTTP_WIRE_HEADERS_MAX 64u

struct http_wire_span {
    uint32_t at, size; /* in text */
};

/* One allocation: head and body stand behind each other in text.  The caller frees it with mem_free. */
struct http_wire_request {
    const char *method;
    bool keep_alive, is_head;
    uint32_t header_count;
    struct http_wire_span path, query, body; /* path: percent-decoded, starts with "/", no NUL */
    struct {
        uint16_t name_at, name_size, value_at, value_size;
    } headers[HTTP_WIRE_HEADERS_MAX];
    size_t size, capacity; /* of text */
    uint8_t text[];
};

enum http_wire_state {
    HTTP_WIRE_HEAD,
    HTTP_WIRE_BODY,
    HTTP_WIRE_CHUNK_SIZE,
    HTTP_WIRE_CHUNK,
    HTTP_WIRE_CHUNK_END,
    HTTP_WIRE_TRAILER
};

/* A request that is being read.  Start with zeros and body_bytes_max. */
struct http_wire {
    size_t body_bytes_max;
    struct http_wire_request *request; /* NULL until its head is whole */
    uint64_t left;                     /* of the body or the chunk */
    uint32_t seen;                     /* bytes of the unfinished line or head that were looked at already */
    uint32_t line, trailer_bytes;      /* where the line that is being looked at begins */
    enum http_wire_state state;
    bool wants_continue; /* set when a head asks for "100 Continue" and its body is not here; the caller clears it */
    int status;          /* when refused */
    enum grey_error why;
    const char *detail;
};

enum http_wire_result { HTTP_WIRE_MORE, HTTP_WIRE_WHOLE, HTTP_WIRE_REFUSED };

/* in: all bytes not used up so far, the same ones first each time.  *used: how many are done with.
 * WHOLE: w->request is taken by the caller, who sets it NULL before the next call.  REFUSED: status, why, detail; the position in the
 * stream is lost.  MORE: with `in` not empty and request NULL, a head has begun. */
enum http_wire_result http_wire_read(struct http_wire *w, struct bytes in, size_t *used);
void http_wire_free(struct http_wire *w); /* the request under way, if any */

/* Percent-decoding; out may be in.  False: malformed, or a NUL. */
bool http_wire_decode(struct bytes in, bool plus_is_space, uint8_t *out, size_t *out_size);
/* Value of a header, case-insensitive; empty when absent. */
struct bytes http_wire_header(const struct http_wire_request *q, const char *name);
const char *http_wire_reason(int status); /* "OK" for 200 */

#endif
