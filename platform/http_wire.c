#include "platform/http_wire.h"

#include <http_parser.h>
#include <string.h>
#include <strings.h>

#include "include/grey/limits.h"
#include "include/grey/must.h"

#define URL_BYTES_MAX 8192u
#define CHUNK_LINE_BYTES_MAX 256u /* size and extensions, which nobody sends and the standard wants skipped */
#define TRAILER_BYTES_MAX 4096u
#define FIRST_BODY_BYTES 4096u /* room that is made before a body came; then it grows with what comes */

static_assert(LIMIT_HTTP_HEAD_BYTES <= UINT16_MAX, "header places are 16 bits wide");

static enum http_wire_result refuse(struct http_wire *w, int status, enum grey_error why, const char *detail) {
    w->status = status;
    w->why = why;
    w->detail = detail;
    return HTTP_WIRE_REFUSED;
}

static enum http_wire_result malformed(struct http_wire *w, const char *detail) {
    return refuse(w, 400, E_BAD_HTTP, detail);
}

/* --- small readers ---------------------------------------------------------------------------------------------------------------------- */

static bool is_token(uint8_t c) {
    static const char others[] = "!#$%&'*+-.^_`|~"; /* RFC 9110, 5.6.2 */
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != 0 && memchr(others, c, sizeof others - 1) != NULL);
}

static int hex(uint8_t c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool http_wire_decode(struct bytes in, bool plus_is_space, uint8_t *out, size_t *out_size) {
    size_t written = 0;
    for (size_t i = 0; i < in.size; i++) {
        uint8_t c = in.data[i];
        if (c == '%') {
            if (in.size - i < 3 || hex(in.data[i + 1]) < 0 || hex(in.data[i + 2]) < 0) {
                return false;
            }
            c = (uint8_t)(hex(in.data[i + 1]) << 4 | hex(in.data[i + 2]));
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

static bool same_word(struct bytes a, const char *word) {
    return a.size == strlen(word) && strncasecmp((const char *)a.data, word, a.size) == 0;
}

static struct bytes value_at(const struct http_wire_request *q, uint32_t i) {
    return bytes_of(q->text + q->headers[i].value_at, q->headers[i].value_size);
}

static bool named(const struct http_wire_request *q, uint32_t i, const char *name) {
    return same_word(bytes_of(q->text + q->headers[i].name_at, q->headers[i].name_size), name);
}

struct bytes http_wire_header(const struct http_wire_request *q, const char *name) {
    for (uint32_t i = 0; i < q->header_count; i++) {
        if (named(q, i, name)) {
            return value_at(q, i);
        }
    }
    return bytes_of(NULL, 0);
}

const char *http_wire_reason(int status) {
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

/* --- the head: line by line, before the lenient parser sees it ------------------------------------------------------------------------------ */

/* method SP target SP HTTP/1.1, and no other blank (RFC 9112, 3). */
static const char *fault_of_request_line(struct bytes line) {
    uint32_t spaces = 0;
    for (size_t i = 0; i < line.size; i++) {
        if (line.data[i] < 0x20 || line.data[i] > 0x7e) {
            return "the request line holds a byte that is not printable ASCII";
        }
        spaces += line.data[i] == ' ';
    }
    const uint8_t *version = line.size < 9 ? NULL : line.data + line.size - 8;
    if (spaces != 2 || !is_token(line.data[0]) || version == NULL || version[-1] != ' ' || memcmp(version, "HTTP/", 5) != 0 ||
        version[6] != '.') {
        return "the request line is not 'method path HTTP/1.1'";
    }
    return NULL;
}

/* One line without its CR LF. */
static const char *fault_of_line(struct bytes line, bool is_first) {
    if (memchr(line.data, '\r', line.size) != NULL || memchr(line.data, 0, line.size) != NULL) {
        return "a line holds a bare CR or a NUL";
    }
    if (is_first) {
        return fault_of_request_line(line);
    }
    if (line.data[0] == ' ' || line.data[0] == '\t') {
        return "folded header lines are not taken";
    }
    size_t i = 0;
    while (i < line.size && is_token(line.data[i])) {
        i++;
    }
    if (i == 0 || i == line.size || line.data[i] != ':') {
        return "a header line is not 'name: value'";
    }
    for (; i < line.size; i++) {
        if ((line.data[i] < 0x20 && line.data[i] != '\t') || line.data[i] == 0x7f) {
            return "the value of a header holds a control character";
        }
    }
    return NULL;
}

struct head_reading {
    struct http_wire *w;
    struct http_wire_request *q;
    struct http_wire_span url;
    bool done, chunked;
    uint64_t content_length; /* UINT64_MAX: none */
    int major, minor;
    bool is_connect;
};

static int on_url(http_parser *p, const char *at, size_t size) {
    struct head_reading *r = p->data;
    if (r->url.size == 0) {
        r->url.at = (uint32_t)(at - (const char *)r->q->text);
    }
    r->url.size += (uint32_t)size;
    return 0;
}

static int on_field(http_parser *p, const char *at, size_t size) {
    struct head_reading *r = p->data;
    struct http_wire_request *q = r->q;
    if (q->header_count == HTTP_WIRE_HEADERS_MAX) {
        (void)refuse(r->w, 431, E_TOO_LARGE, "more than 64 header lines");
        return 1;
    }
    q->headers[q->header_count].name_at = (uint16_t)(at - (const char *)q->text);
    q->headers[q->header_count].name_size = (uint16_t)size;
    q->headers[q->header_count].value_size = 0;
    q->headers[q->header_count].value_at = 0;
    q->header_count++;
    return 0;
}

static int on_value(http_parser *p, const char *at, size_t size) {
    struct head_reading *r = p->data;
    struct http_wire_request *q = r->q;
    while (size > 0 && (at[size - 1] == ' ' || at[size - 1] == '\t')) {
        size--;
    }
    q->headers[q->header_count - 1].value_at = (uint16_t)(at - (const char *)q->text);
    q->headers[q->header_count - 1].value_size = (uint16_t)size;
    return 0;
}

static int on_head(http_parser *p) {
    struct head_reading *r = p->data;
    r->done = true;
    r->chunked = (p->flags & F_CHUNKED) != 0;
    r->content_length = p->content_length;
    r->major = p->http_major, r->minor = p->http_minor;
    r->is_connect = p->method == HTTP_CONNECT;
    r->q->method = http_method_str((enum http_method)p->method);
    r->q->is_head = p->method == HTTP_HEAD;
    r->q->keep_alive = http_should_keep_alive(p) != 0;
    return 1; /* the body is ours */
}

/* A query is decoded piece by piece later: here it is seen that it can be. */
static bool well_encoded(struct bytes text) {
    for (size_t i = 0; i < text.size; i++) {
        if (text.data[i] == '%') {
            if (text.size - i < 3 || hex(text.data[i + 1]) < 0 || hex(text.data[i + 2]) < 0 ||
                (text.data[i + 1] == '0' && text.data[i + 2] == '0')) {
                return false;
            }
            i += 2;
        }
    }
    return true;
}

/* Path and query of "/path?query" or "http://host/path?query", decoded in place. */
static bool split_url(struct http_wire_request *q, struct http_wire_span url) {
    struct bytes text = bytes_of(q->text + url.at, url.size);
    if (text.size > 7 && strncasecmp((const char *)text.data, "http://", 7) == 0) {
        const uint8_t *slash = memchr(text.data + 7, '/', text.size - 7);
        if (slash == NULL) {
            return false;
        }
        text = bytes_of(slash, text.size - (size_t)(slash - text.data));
    }
    uint32_t at = (uint32_t)(text.data - q->text);
    const uint8_t *mark = memchr(text.data, '?', text.size);
    size_t path_size = mark == NULL ? text.size : (size_t)(mark - text.data), decoded;
    if (mark != NULL) {
        q->query = (struct http_wire_span){at + (uint32_t)path_size + 1, (uint32_t)(text.size - path_size - 1)};
    }
    if (!well_encoded(bytes_of(q->text + q->query.at, q->query.size))) {
        return false;
    }
    if (path_size == 0 || text.data[0] != '/' || !http_wire_decode(bytes_of(text.data, path_size), false, q->text + at, &decoded)) {
        return false;
    }
    q->path = (struct http_wire_span){at, (uint32_t)decoded};
    return true;
}

/* What http_parser lets pass and another reader may see otherwise. */
static const char *fault_of_headers(const struct head_reading *r) {
    const struct http_wire_request *q = r->q;
    uint32_t hosts = 0, lengths = 0, codings = 0;
    for (uint32_t i = 0; i < q->header_count; i++) {
        struct bytes value = value_at(q, i);
        if (named(q, i, "Host")) {
            hosts++;
        } else if (named(q, i, "Content-Length")) {
            lengths++;
            for (size_t j = 0; j < value.size; j++) {
                if (value.data[j] < '0' || value.data[j] > '9') {
                    return "Content-Length is not a number";
                }
            }
            if (value.size == 0) {
                return "Content-Length is not a number";
            }
        } else if (named(q, i, "Transfer-Encoding")) {
            codings++;
            if (!same_word(value, "chunked")) {
                return "a transfer coding other than 'chunked' is not taken";
            }
        }
    }
    if (lengths + codings > 1) {
        return "the length of the body is given more than once";
    }
    if (codings == 1 && (r->minor == 0 || !r->chunked)) {
        return "chunks are not HTTP/1.0";
    }
    if ((lengths == 1) != (r->content_length != UINT64_MAX) && codings == 0) {
        return "the length of the body is not clear";
    }
    return hosts > 1 || (hosts == 0 && r->minor == 1) ? "there must be one Host line" : NULL;
}

/* head: whole, with its empty line.  room: for a body that is here already. */
static enum http_wire_result read_head(struct http_wire *w, struct bytes head, size_t room) {
    static const http_parser_settings settings = {
        .on_url = on_url, .on_header_field = on_field, .on_header_value = on_value, .on_headers_complete = on_head};
    struct http_wire_request *q = mem_grow(NULL, 1, sizeof *q + head.size + room);
    if (q == NULL) {
        return refuse(w, 503, E_NO_MEMORY, "");
    }
    w->request = q;
    q->header_count = 0;
    q->path = q->query = q->body = (struct http_wire_span){0, 0};
    q->size = head.size;
    q->capacity = head.size + room;
    memcpy(q->text, head.data, head.size);
    struct head_reading r = {.w = w, .q = q};
    http_parser parser;
    http_parser_init(&parser, HTTP_REQUEST);
    parser.data = &r;
    size_t used = http_parser_execute(&parser, &settings, (const char *)q->text, q->size);
    enum http_errno number = HTTP_PARSER_ERRNO(&parser);
    if (w->status != 0) {
        return HTTP_WIRE_REFUSED;
    }
    if (!r.done) {
        return number == HPE_INVALID_VERSION ? refuse(w, 505, E_BAD_VERSION, "HTTP/1.0 and HTTP/1.1 are spoken here")
                                             : malformed(w, http_errno_description(number));
    }
    must(used <= q->size);
    if (r.major != 1 || r.minor > 1) {
        return refuse(w, 505, E_BAD_VERSION, "HTTP/1.0 and HTTP/1.1 are spoken here");
    }
    if (r.url.size > URL_BYTES_MAX) {
        return refuse(w, 414, E_TOO_LARGE, "the path is longer than 8 KiB");
    }
    const char *fault = fault_of_headers(&r);
    if (fault != NULL || r.is_connect || !split_url(q, r.url)) {
        return malformed(w, fault != NULL ? fault : "the path or its query is malformed");
    }
    if (!r.chunked && r.content_length != UINT64_MAX && r.content_length > w->body_bytes_max) {
        return refuse(w, 413, E_TOO_LARGE, "the body is larger than this API takes");
    }
    q->body.at = (uint32_t)q->size;
    w->left = r.chunked || r.content_length == UINT64_MAX ? 0 : r.content_length;
    w->state = r.chunked ? HTTP_WIRE_CHUNK_SIZE : HTTP_WIRE_BODY;
    w->wants_continue = r.minor == 1 && (r.chunked || w->left > 0) && same_word(http_wire_header(q, "Expect"), "100-continue");
    return HTTP_WIRE_MORE;
}

/* Looks for the empty line, and at each line as it comes. */
static enum http_wire_result find_head(struct http_wire *w, struct bytes in, size_t *used) {
    size_t start = 0;
    while (w->line == 0 && in.size - start >= 2 && in.data[start] == '\r' && in.data[start + 1] == '\n') {
        start += 2; /* empty lines before a request are skipped (RFC 9112, 2.2) */
    }
    *used = start;
    in = bytes_of(in.data + start, in.size - start);
    w->seen = start > 0 ? 0 : w->seen;
    for (;;) {
        const uint8_t *lf = w->seen >= in.size ? NULL : memchr(in.data + w->seen, '\n', in.size - w->seen);
        if (lf == NULL) {
            w->seen = (uint32_t)in.size;
            if (w->line == 0 && in.size > 0 && in.data[0] != '\r' && !is_token(in.data[0])) {
                return malformed(w, "this is no HTTP: TLS is not spoken at this address"); /* no line would ever end */
            }
            return in.size <= LIMIT_HTTP_HEAD_BYTES ? HTTP_WIRE_MORE
                   : w->line == 0                   ? refuse(w, 414, E_TOO_LARGE, "the request line is longer than 16 KiB")
                                                    : refuse(w, 431, E_TOO_LARGE, "the head of the request is larger than 16 KiB");
        }
        uint32_t end = (uint32_t)(lf - in.data) + 1;
        if (end > LIMIT_HTTP_HEAD_BYTES) {
            return w->line == 0 ? refuse(w, 414, E_TOO_LARGE, "the request line is longer than 16 KiB")
                                : refuse(w, 431, E_TOO_LARGE, "the head of the request is larger than 16 KiB");
        }
        struct bytes line = bytes_of(in.data + w->line, end - w->line);
        if (line.size < 2 || line.data[line.size - 2] != '\r') {
            return malformed(w, "a line does not end in CR LF");
        }
        line.size -= 2;
        bool is_first = w->line == 0;
        w->seen = w->line = end;
        if (line.size == 0) { /* not the first: those were skipped */
            w->seen = w->line = 0;
            *used += end;
            size_t rest = in.size - end;
            return read_head(w, bytes_of(in.data, end), rest < FIRST_BODY_BYTES ? rest : FIRST_BODY_BYTES);
        }
        const char *fault = fault_of_line(line, is_first);
        if (fault != NULL) {
            return malformed(w, fault);
        }
    }
}

/* --- the body --------------------------------------------------------------------------------------------------------------------------- */

static enum http_wire_result add_to_body(struct http_wire *w, struct bytes part) {
    struct http_wire_request *q = w->request;
    if (part.size > w->body_bytes_max - q->body.size) {
        return refuse(w, 413, E_TOO_LARGE, "the body is larger than this API takes");
    }
    if (part.size > q->capacity - q->size) {
        size_t room = q->capacity + (q->body.size < FIRST_BODY_BYTES ? FIRST_BODY_BYTES : q->body.size); /* at most doubles */
        size_t most = q->body.at + w->body_bytes_max, exact = q->size + part.size;
        if (w->state == HTTP_WIRE_BODY) {
            most = q->size + (size_t)w->left; /* its length is known, and at most body_bytes_max */
        }
        room = room < exact ? exact : room;
        room = room > most ? most : room;
        q = mem_grow(q, 1, sizeof *q + room);
        if (q == NULL) {
            return refuse(w, 503, E_NO_MEMORY, "");
        }
        w->request = q;
        q->capacity = room;
    }
    memcpy(q->text + q->size, part.data, part.size);
    q->size += part.size;
    q->body.size += (uint32_t)part.size;
    return HTTP_WIRE_MORE;
}

/* A line of the chunk framing, without its CR LF; *size 0 and MORE: not whole yet. */
static enum http_wire_result framing_line(struct http_wire *w, struct bytes in, struct bytes *line, size_t *size) {
    const uint8_t *lf = memchr(in.data, '\n', in.size < CHUNK_LINE_BYTES_MAX ? in.size : CHUNK_LINE_BYTES_MAX);
    *size = 0;
    if (lf == NULL) {
        return in.size < CHUNK_LINE_BYTES_MAX ? HTTP_WIRE_MORE : malformed(w, "a line of the chunk framing is too long");
    }
    *size = (size_t)(lf - in.data) + 1;
    if (*size < 2 || in.data[*size - 2] != '\r' || memchr(in.data, '\r', *size) != in.data + *size - 2) {
        return malformed(w, "a line of the chunk framing does not end in CR LF");
    }
    *line = bytes_of(in.data, *size - 2);
    return HTTP_WIRE_MORE;
}

static enum http_wire_result chunk_size(struct http_wire *w, struct bytes line) {
    size_t digits = 0;
    uint64_t value = 0;
    while (digits < line.size && hex(line.data[digits]) >= 0) {
        value = value << 4 | (uint64_t)hex(line.data[digits]);
        if (++digits > 8) { /* far above any limit, and no way to overflow */
            return refuse(w, 413, E_TOO_LARGE, "the body is larger than this API takes");
        }
    }
    if (digits == 0 || (digits < line.size && line.data[digits] != ';')) {
        return malformed(w, "the size of a chunk is not a number");
    }
    if (value > w->body_bytes_max - w->request->body.size) {
        return refuse(w, 413, E_TOO_LARGE, "the body is larger than this API takes");
    }
    w->left = value;
    w->state = value == 0 ? HTTP_WIRE_TRAILER : HTTP_WIRE_CHUNK;
    return HTTP_WIRE_MORE;
}

/* One step in chunks; *step 0 with MORE: bytes are missing.  *whole: the body has ended. */
static enum http_wire_result chunk_step(struct http_wire *w, struct bytes in, size_t *step, bool *whole) {
    struct bytes line = {0};
    enum http_wire_result result = framing_line(w, in, &line, step);
    if (result != HTTP_WIRE_MORE || *step == 0) {
        return result;
    }
    if (w->state == HTTP_WIRE_CHUNK_SIZE) {
        return chunk_size(w, line);
    }
    if (w->state == HTTP_WIRE_CHUNK_END) {
        w->state = HTTP_WIRE_CHUNK_SIZE;
        return line.size == 0 ? HTTP_WIRE_MORE : malformed(w, "a chunk is longer than it says");
    }
    w->trailer_bytes += (uint32_t)*step; /* what trailers say is not used */
    *whole = line.size == 0;
    return w->trailer_bytes > TRAILER_BYTES_MAX ? refuse(w, 431, E_TOO_LARGE, "too many trailers") : HTTP_WIRE_MORE;
}

static enum http_wire_result read_body(struct http_wire *w, struct bytes in, size_t *used) {
    for (;;) {
        struct bytes rest = bytes_of(in.data + *used, in.size - *used);
        bool counted = w->state == HTTP_WIRE_BODY || w->state == HTTP_WIRE_CHUNK, whole = false;
        size_t step = 0;
        enum http_wire_result result = HTTP_WIRE_MORE;
        if (counted) {
            step = rest.size < w->left ? rest.size : (size_t)w->left;
            result = step > 0 ? add_to_body(w, bytes_of(rest.data, step)) : HTTP_WIRE_MORE;
            w->left -= step;
            whole = w->state == HTTP_WIRE_BODY && w->left == 0;
            if (w->state == HTTP_WIRE_CHUNK && w->left == 0) {
                w->state = HTTP_WIRE_CHUNK_END;
            }
        } else if (rest.size > 0) {
            result = chunk_step(w, rest, &step, &whole);
        }
        *used += step;
        if (result == HTTP_WIRE_REFUSED) {
            return result;
        }
        if (whole) {
            *w = (struct http_wire){.body_bytes_max = w->body_bytes_max, .request = w->request};
            return HTTP_WIRE_WHOLE;
        }
        if (step == 0) {
            return HTTP_WIRE_MORE;
        }
    }
}

enum http_wire_result http_wire_read(struct http_wire *w, struct bytes in, size_t *used) {
    *used = 0;
    if (w->status != 0) {
        return HTTP_WIRE_REFUSED;
    }
    if (w->state == HTTP_WIRE_HEAD) {
        if (in.size == 0) {
            return HTTP_WIRE_MORE;
        }
        enum http_wire_result result = find_head(w, in, used);
        if (result == HTTP_WIRE_REFUSED || w->request == NULL) {
            return result;
        }
        w->wants_continue = w->wants_continue && *used == in.size;
    }
    return read_body(w, in, used);
}

void http_wire_free(struct http_wire *w) {
    mem_free(w->request);
    w->request = NULL;
}
