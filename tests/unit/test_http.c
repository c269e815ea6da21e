/* The HTTP server: the one door for people and devices.  What it mistakes, or hangs on, they see at once. */
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "include/grey/limits.h"
#include "platform/http.h"
#include "platform/http_fetch.h"
#include "platform/http_wire.h"
#include "platform/now.h"

#define BODY_MAX 1000000u

/* --- the reader alone ------------------------------------------------------------------------------------------------------------------- */

#define HOST "Host: a\r\n"
#define LONG16 "0123456789abcdef"
#define LONG256 LONG16 LONG16 LONG16 LONG16 LONG16 LONG16 LONG16 LONG16 LONG16 LONG16 LONG16 LONG16 LONG16 LONG16 LONG16 LONG16
#define LONG4K                                                                                                                     \
    LONG256 LONG256 LONG256 LONG256 LONG256 LONG256 LONG256 LONG256 LONG256 LONG256 LONG256 LONG256 LONG256 LONG256 LONG256 LONG256

static const struct {
    const char *text;
    int status;
} refused[] = {
    /* lines */
    {"GET / HTTP/1.1\nHost: a\n\n", 400},
    {"GET / HTTP/1.1\r\nHost: a\n\r\n", 400},
    {"GET / HTTP/1.1\r\nHost: a\r\n\n", 400},
    {"\nGET / HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST "A: b\rC: d\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\r\n" HOST "\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST " folded: x\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST "A: b\r\n\tc\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400},
    /* request line */
    {"\x16\x03\x01\x02\r\n\r\n", 400},
    {"GET\r\n" HOST "\r\n", 400},
    {"GET /\r\n" HOST "\r\n", 400},
    {"GET  HTTP/1.1\r\n" HOST "\r\n", 400},
    {"get / HTTP/1.1\r\n" HOST "\r\n", 400},
    {"BREW / HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET / HTTP/1.1 x\r\n" HOST "\r\n", 400},
    {"GET / HTTP/2.0\r\n" HOST "\r\n", 505},
    {"GET / HTTP/1.2\r\n" HOST "\r\n", 505},
    {"GET / HTTP/0.9\r\n" HOST "\r\n", 505},
    {"GET / HTTX/1.1\r\n" HOST "\r\n", 400},
    {"GET / http/1.1\r\n" HOST "\r\n", 400},
    {"GET a HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET ../etc HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET * HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET ?a=b HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET http://a HTTP/1.1\r\n" HOST "\r\n", 400},
    {"CONNECT a:443 HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET /\xc3\xa4 HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET /\x01 HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET /\x7f HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET /a\tb HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET /% HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET /%4 HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET /%zz HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET /?k=%zz HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET /?k=%4 HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET /?k=a%00b HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET /%00 HTTP/1.1\r\n" HOST "\r\n", 400},
    {"GET /a%00b HTTP/1.1\r\n" HOST "\r\n", 400},
    {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
    /* header lines */
    {"GET / HTTP/1.1\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST HOST "\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST "A : b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST "A\t: b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST ": b\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST "A\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST "A B: c\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST "A(: c\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST "\xc3\xa4: c\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST "A: \x01\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST "A: \x7f\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST "\"A\": b\r\n\r\n", 400},
    /* lengths */
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 3, 3\r\n\r\nabc", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: +3\r\n\r\nabc", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: -1\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 0x3\r\n\r\nabc", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 3 4\r\n\r\nabc", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: \r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length:\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 3a\r\n\r\nabc", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length : 3\r\n\r\nabc", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 1000001\r\n\r\n", 413},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 18446744073709551614\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 18446744073709551615\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 18446744073709551616\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 99999999999999999999999\r\n\r\n", 400},
    {"GET / HTTP/1.1\r\n" HOST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: identity\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding:\x0b"
     "chunked\r\n\r\n0\r\n\r\n",
     400},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding:\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400},
    {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
/* chunks */
#define CHUNKED "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"
    {CHUNKED "x\r\n", 400},
    {CHUNKED "\r\n", 400},
    {CHUNKED " 3\r\nabc\r\n0\r\n\r\n", 400},
    {CHUNKED "+3\r\nabc\r\n0\r\n\r\n", 400},
    {CHUNKED "-1\r\nabc\r\n0\r\n\r\n", 400},
    {CHUNKED "0x3\r\nabc\r\n0\r\n\r\n", 400},
    {CHUNKED "3 \r\nabc\r\n0\r\n\r\n", 400},
    {CHUNKED "3\nabc\r\n0\r\n\r\n", 400},
    {CHUNKED "3\rX\nabc\r\n0\r\n\r\n", 400},
    {CHUNKED "3\r\nabcXX0\r\n\r\n", 400},
    {CHUNKED "3\r\nabc\n0\r\n\r\n", 400},
    {CHUNKED "3\r\nabcd\r\n0\r\n\r\n", 400},
    {CHUNKED "3\r\nabc\r\n0\r\nA: b\n\r\n", 400},
    {CHUNKED "3;" LONG256 "\r\nabc\r\n0\r\n\r\n", 400},
    {CHUNKED "f4241\r\n", 413},
    {CHUNKED "ffffffff\r\n", 413},
    {CHUNKED "100000000\r\n", 413},
    {CHUNKED "10000000000000003\r\nabc\r\n0\r\n\r\n", 413},
    /* sizes */
    {"GET /" LONG4K LONG4K " HTTP/1.1\r\n" HOST "\r\n", 414},
    {"GET /" LONG4K LONG4K LONG4K LONG4K " HTTP/1.1\r\n" HOST "\r\n", 414},
    {"GET / HTTP/1.1\r\n" HOST "A: " LONG4K "\r\nB: " LONG4K "\r\nC: " LONG4K "\r\nD: " LONG4K "\r\n\r\n", 431},
};

/* The result for all of text at once, or in steps; the request is left in w. */
static enum http_wire_result read_text(struct http_wire *w, struct bytes text, size_t step, size_t *used) {
    size_t shown = 0, one = 0;
    enum http_wire_result result = HTTP_WIRE_MORE;
    *used = 0;
    while (result == HTTP_WIRE_MORE && shown < text.size) {
        shown = shown + step > text.size ? text.size : shown + step;
        /* a copy of exact size, so that a sanitizer sees each byte read too far */
        size_t size = shown - *used;
        uint8_t *copy = malloc(size > 0 ? size : 1);
        memcpy(copy, text.data + *used, size);
        result = http_wire_read(w, bytes_of(copy, size), &one);
        free(copy);
        assert_true(one <= size);
        *used += one;
    }
    return result;
}

/* If the server took what other readers take differently, a request could be smuggled past whoever stands in front of it. */
static void malformed_requests_are_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        struct bytes text = bytes_str(refused[i].text);
        for (int way = 0; way < 2; way++) { /* whole, and byte by byte */
            struct http_wire w = {.body_bytes_max = BODY_MAX};
            size_t used;
            enum http_wire_result result = read_text(&w, text, way == 0 ? text.size : text.size > 5000 ? 97 : 1, &used);
            if (result != HTTP_WIRE_REFUSED || w.status != refused[i].status) {
                print_error("case %zu (way %d): result %d status %d, wanted %d: %.60s\n", i, way, (int)result, w.status,
                            refused[i].status, refused[i].text);
            }
            assert_int_equal(result, HTTP_WIRE_REFUSED);
            assert_int_equal(w.status, refused[i].status);
            assert_true(w.detail != NULL && w.why != E_OK);
            http_wire_free(&w);
        }
    }
    assert_true(sizeof refused / sizeof refused[0] >= 100);
}

static const struct {
    const char *text, *method, *path, *query, *body;
    bool keep_alive;
} taken[] = {
    {"GET / HTTP/1.1\r\n" HOST "\r\n", "GET", "/", "", "", true},
    {"\r\n\r\nGET / HTTP/1.1\r\n" HOST "\r\n", "GET", "/", "", "", true},
    {"GET / HTTP/1.0\r\n\r\n", "GET", "/", "", "", false},
    {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "GET", "/", "", "", true},
    {"GET / HTTP/1.1\r\nhost:a\r\nConnection: close\r\n\r\n", "GET", "/", "", "", false},
    {"HEAD /a%2Fb%20c?x=%41&y HTTP/1.1\r\n" HOST "\r\n", "HEAD", "/a/b c", "x=%41&y", "", true},
    {"GET /+?+ HTTP/1.1\r\n" HOST "\r\n", "GET", "/+", "+", "", true},
    {"GET http://other/p?q HTTP/1.1\r\n" HOST "\r\n", "GET", "/p", "q", "", true},
    {"GET /%c3%a4 HTTP/1.1\r\n" HOST "\r\n", "GET", "/\xc3\xa4", "", "", true},
    {"DELETE /v1/kv/k HTTP/1.1\r\n" HOST "\r\n", "DELETE", "/v1/kv/k", "", "", true},
    {"PUT / HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n", "PUT", "/", "", "", true},
    {"PUT / HTTP/1.1\r\n" HOST "Content-Length: 5  \r\n\r\nhello", "PUT", "/", "", "hello", true},
    {"PUT / HTTP/1.1\r\n" HOST "content-LENGTH:\t005\r\n\r\nh\r\n\r\n", "PUT", "/", "", "h\r\n\r\n", true},
    {"GET / HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello", "GET", "/", "", "hello", true},
    {"POST / HTTP/1.1\r\n" HOST "Empty:\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", "POST", "/", "", "", true},
    {CHUNKED "0\r\n\r\n", "POST", "/", "", "", true},
    {CHUNKED "3\r\nabc\r\n10;name=\"v\"\r\n0123456789abcdef\r\n000\r\n\r\n", "POST", "/", "", "abc0123456789abcdef", true},
    {CHUNKED "2\r\n\r\n\r\n0\r\nTrailer: x\r\nOther: y\r\n\r\n", "POST", "/", "", "\r\n", true},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: Chunked \r\n\r\nA\r\n0123456789\r\n0\r\n\r\n", "POST", "/", "", "0123456789",
     true},
};

static bool is_text(const struct http_wire_request *q, struct http_wire_span span, const char *text) {
    return bytes_equal(bytes_of(q->text + span.at, span.size), bytes_str(text));
}

/* If how the network cuts a request into packets changed its meaning, errors would come and go with the weather. */
static void requests_read_alike_in_any_pieces(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++) {
        char twice[2000]; /* the next request begins right behind */
        (void)snprintf(twice, sizeof twice, "%s%s", taken[i].text, "GET /next HTTP/1.1\r\n" HOST "\r\n");
        for (size_t step = 1; step <= strlen(twice); step++) {
            struct http_wire w = {.body_bytes_max = BODY_MAX};
            size_t used, used_next;
            enum http_wire_result result = read_text(&w, bytes_str(twice), step, &used);
            if (result != HTTP_WIRE_WHOLE) {
                print_error("case %zu step %zu: %s %s\n", i, step, w.detail, taken[i].text);
            }
            assert_int_equal(result, HTTP_WIRE_WHOLE);
            assert_int_equal(used, strlen(taken[i].text));
            struct http_wire_request *q = w.request;
            assert_string_equal(q->method, taken[i].method);
            assert_true(is_text(q, q->path, taken[i].path));
            assert_true(is_text(q, q->query, taken[i].query));
            assert_true(is_text(q, q->body, taken[i].body));
            assert_int_equal(q->keep_alive, taken[i].keep_alive);
            assert_int_equal(q->is_head, strcmp(taken[i].method, "HEAD") == 0);
            mem_free(q);
            w.request = NULL;
            assert_int_equal(read_text(&w, bytes_of(twice + used, strlen(twice) - used), step, &used_next), HTTP_WIRE_WHOLE);
            assert_true(is_text(w.request, w.request->path, "/next"));
            http_wire_free(&w);
        }
    }
}

/* If memory were given for what a client only announces, a few hundred heads could take the gateway's memory. */
static void an_announced_body_costs_nothing(void **state) {
    (void)state;
    struct http_wire w = {.body_bytes_max = BODY_MAX};
    struct bytes head = bytes_str("PUT / HTTP/1.1\r\n" HOST "Content-Length: 1000000\r\n\r\n");
    size_t used;
    assert_int_equal(http_wire_read(&w, head, &used), HTTP_WIRE_MORE);
    assert_int_equal(used, head.size);
    assert_true(w.request->capacity < 5000);
    static uint8_t part[1000];
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(http_wire_read(&w, bytes_of(part, sizeof part), &used), i < 999 ? HTTP_WIRE_MORE : HTTP_WIRE_WHOLE);
        struct http_wire_request *q = w.request;
        assert_true(q->capacity <= 2 * q->size + 5000);
    }
    assert_int_equal(w.request->body.size, 1000000);
    assert_int_equal(w.request->capacity, head.size + 1000000);
    http_wire_free(&w);
}

static void more_than_64_headers_are_refused(void **state) {
    (void)state;
    for (int count = 64; count <= 65; count++) { /* with Host among them */
        struct builder b;
        struct http_wire w = {.body_bytes_max = BODY_MAX};
        size_t used;
        builder_init(&b, 10000);
        builder_add_str(&b, "GET / HTTP/1.1\r\n" HOST);
        for (int i = 1; i < count; i++) {
            builder_addf(&b, "H%d: %d\r\n", i, i);
        }
        builder_add_str(&b, "\r\n");
        assert_int_equal(http_wire_read(&w, builder_bytes(&b), &used), count == 64 ? HTTP_WIRE_WHOLE : HTTP_WIRE_REFUSED);
        assert_int_equal(w.status, count == 64 ? 0 : 431);
        if (count == 64) {
            assert_true(bytes_equal_str(http_wire_header(w.request, "h63"), "63"));
            assert_int_equal(http_wire_header(w.request, "h64").size, 0);
        }
        http_wire_free(&w);
        builder_free(&b);
    }
}

/* --- the server, from outside ------------------------------------------------------------------------------------------------------------- */

static struct loop *loop;
static struct conn_context rig;
static struct http_server *server;
static int port;
static char socket_path[100];
static struct http_request *held[16];
static int held_count, handled;

static void handle(void *context, struct http_request *q) {
    struct bytes path = http_path(q);
    char value[20];
    uint32_t uid;
    (void)context;
    handled++;
    if (bytes_equal_str(path, "/hold")) {
        held[held_count++] = q;
    } else if (bytes_equal_str(path, "/echo")) {
        static char text[BODY_MAX];
        size_t size = http_body(q).size;
        memcpy(text, http_body(q).data, size);
        http_reply(q, 200, "text/plain", bytes_of(text, size), NULL, 0);
    } else if (bytes_equal_str(path, "/body")) {
        http_reply(q, 200, "text/plain", http_body(q), NULL, 0); /* straight out of the request */
    } else if (bytes_equal_str(path, "/json") || bytes_equal_str(path, "/json/full")) {
        struct builder out;
        builder_init(&out, bytes_equal_str(path, "/json") ? 8 : 4);
        builder_add_str(&out, "{\"a\":1}");
        http_reply_json(q, 201, &out, NULL, 0);
        builder_free(&out);
    } else if (bytes_equal_str(path, "/error")) {
        http_reply_error(q, E_NO_QUORUM, "only \"node1\"\n answers");
    } else if (bytes_equal_str(path, "/method")) {
        http_reply(q, 200, "text/plain", bytes_str(http_method(q)), NULL, 0);
    } else if (bytes_equal_str(path, "/allow")) {
        http_allow(q, "PUT");
        http_allow(q, "GET");
        http_allow(q, "PUT");
        http_reply_error(q, E_METHOD, "");
    } else if (bytes_equal_str(path, "/query")) {
        bool has = http_query(q, "k", value, sizeof value);
        http_reply(q, has ? 200 : 404, "text/plain", bytes_str(has ? value : ""), NULL, 0);
    } else if (bytes_equal_str(path, "/inject")) {
        struct http_extra extra = {"X-Grey", "a\r\nSet-Cookie: b"};
        http_reply(q, 200, "text/plain\r\nX-Evil: 1", bytes_str("x"), &extra, 1);
    } else if (bytes_equal_str(path, "/empty")) {
        http_reply(q, 204, NULL, bytes_str(""), NULL, 0);
    } else if (bytes_equal_str(path, "/huge")) {
        static uint8_t huge[17u << 20];
        http_reply(q, 200, "application/octet-stream", bytes_of(huge, sizeof huge), NULL, 0);
    } else if (bytes_equal_str(path, "/large")) {
        static uint8_t large[100000];
        http_reply(q, 200, "application/octet-stream", bytes_of(large, sizeof large), NULL, 0);
    } else if (bytes_equal_str(path, "/uid")) {
        bool has = http_peer_uid(q, &uid);
        (void)snprintf(value, sizeof value, "%u", has ? uid : 99999u);
        http_reply(q, 200, "text/plain", bytes_str(value), NULL, 0);
    } else {
        http_reply(q, 200, "text/plain", path, NULL, 0);
    }
}

static void start(const struct http_limits *limits) {
    struct fault f = {0};
    held_count = handled = 0;
    loop = loop_new(&f);
    rig = (struct conn_context){loop, worker_new(loop, "crypto", 16, NULL, NULL, &f)};
    server = http_server_new(&rig, limits, handle, NULL);
    for (port = 18500; port < 18600; port++) {
        char address[40];
        (void)snprintf(address, sizeof address, "127.0.0.1:%d", port);
        if (http_server_listen(server, address, NULL, &f) == E_OK) {
            break;
        }
    }
    (void)snprintf(socket_path, sizeof socket_path, "/tmp/grey-http-%d.sock", (int)getpid());
    char address[120];
    (void)snprintf(address, sizeof address, "unix:%s", socket_path);
    assert_int_equal(http_server_listen(server, address, NULL, &f), E_OK);
}

static int begin(void **state) {
    static const struct http_limits limits = {
        .connections_max = 8, .body_bytes_max = BODY_MAX, .idle_timeout_ms = 60000, .request_timeout_ms = 60000};
    (void)state;
    start(&limits);
    return 0;
}

static int begin_impatient(void **state) {
    static const struct http_limits limits = {
        .connections_max = 8, .body_bytes_max = BODY_MAX, .idle_timeout_ms = 1500, .request_timeout_ms = 200};
    (void)state;
    start(&limits);
    return 0;
}

static int end(void **state) {
    (void)state;
    http_server_free(server);
    for (int i = 0; i < held_count; i++) { /* those who answer after the end do no harm */
        if (held[i] != NULL) {
            assert_true(http_client_gone(held[i]));
            http_reply(held[i], 200, NULL, bytes_str(""), NULL, 0);
        }
    }
    worker_stop(rig.crypto);
    loop_free(loop);
    return 0;
}

static void give_up(void *context) {
    loop_stop(context);
}

static void turn(uint32_t ms) {
    struct loop_timer timer = {.fire = give_up, .context = loop};
    loop_timer_after(loop, &timer, ms);
    loop_run(loop);
    loop_timer_cancel(loop, &timer);
}

/* On a loaded machine a turn is over before what it waits for. */
#define TURN_UNTIL(condition)                                                                                                      \
    for (int turns = 0; turns < 500 && !(condition); turns++) {                                                                    \
        turn(10);                                                                                                                  \
    }

static int client(void) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

static void say(int fd, const char *text) {
    size_t size = strlen(text);
    assert_int_equal(send(fd, text, size, MSG_NOSIGNAL), (ssize_t)size);
}

static char heard[400000];
static bool at_end;

/* All that comes until `wanted` stands in it that often, or the end, or two seconds. */
static const char *hear(int fd, const char *wanted, int times) {
    size_t size = 0;
    at_end = false;
    for (int i = 0; i < 400; i++) {
        turn(5);
        ssize_t got = 1;
        while (size + 1 < sizeof heard && (got = recv(fd, heard + size, sizeof heard - 1 - size, MSG_DONTWAIT)) > 0) {
            size += (size_t)got;
        }
        heard[size] = 0;
        at_end = got == 0;
        int count = 0;
        for (const char *at = heard; wanted != NULL && (at = strstr(at, wanted)) != NULL; at++) {
            count++;
        }
        if (at_end || (wanted != NULL && count >= times)) {
            break;
        }
    }
    return heard;
}

static void is_reply(const char *all, int status, const char *body) {
    char first[40];
    (void)snprintf(first, sizeof first, "HTTP/1.1 %d ", status);
    assert_memory_equal(all, first, strlen(first));
    const char *at = strstr(all, "\r\n\r\n");
    assert_non_null(at);
    if (body != NULL) {
        assert_string_equal(at + 4, body);
    }
}

/* If pipelined requests were mixed up, a client would take the answer to one write for the answer to another. */
static void pipelined_requests_are_answered_in_order(void **state) {
    (void)state;
    int fd = client();
    say(fd, "GET /a HTTP/1.1\r\n" HOST "\r\nGET /hold HTTP/1.1\r\n" HOST "\r\nPUT /echo HTTP/1.1\r\n" HOST
            "Content-Length: 5\r\n\r\nhelloGET /c HTTP/1.1\r\n" HOST "\r\n");
    is_reply(hear(fd, "/a", 1), 200, "/a");
    assert_int_equal(held_count, 1);
    assert_int_equal(handled, 2); /* the third waits for the second */
    say(fd, "GET /d HTTP/1.1\r\n" HOST "\r\n");
    turn(20);
    assert_int_equal(handled, 2);
    http_reply(held[0], 200, "text/plain", bytes_str("held"), NULL, 0);
    held[0] = NULL;
    const char *all = hear(fd, "/d", 1);
    const char *places[] = {strstr(all, "held"), strstr(all, "hello"), strstr(all, "/c"), strstr(all, "/d")};
    for (int i = 0; i < 4; i++) {
        assert_non_null(places[i]);
        assert_true(i == 0 || places[i] > places[i - 1]);
    }
    assert_int_equal(handled, 5);
    assert_int_equal(http_server_connections(server), 1);
    (void)close(fd);
    TURN_UNTIL(http_server_connections(server) == 0);
    assert_int_equal(http_server_connections(server), 0);
}

/* If the forms of an answer were off, clients would hang or misread: HEAD, 204, problems, lengths, closing. */
static void answers_have_the_right_form(void **state) {
    (void)state;
    int fd = client();
    say(fd, "HEAD /abc HTTP/1.1\r\n" HOST "\r\n");
    is_reply(hear(fd, "\r\n\r\n", 1), 200, "");
    assert_non_null(strstr(heard, "Content-Length: 4\r\n"));
    say(fd, "GET /empty HTTP/1.1\r\n" HOST "\r\n");
    is_reply(hear(fd, "\r\n\r\n", 1), 204, "");
    assert_null(strstr(heard, "Content-Length"));
    say(fd, "GET /error HTTP/1.1\r\n" HOST "\r\n");
    is_reply(hear(fd, "}\n", 1), 503, NULL);
    assert_non_null(strstr(heard, "Content-Type: application/problem+json\r\n"));
    assert_non_null(strstr(heard, "Retry-After: 1\r\n"));
    assert_non_null(strstr(heard, "\"type\":\"/errors/GREY-1001\""));
    assert_non_null(strstr(heard, "\"detail\":\"only \\\"node1\\\"\\u000a answers\""));
    assert_non_null(strstr(heard, "\"remedy\":\""));
    say(fd, "GET /query?a=1&k=%41+b HTTP/1.1\r\n" HOST "\r\n");
    is_reply(hear(fd, "\r\n\r\nA b", 1), 200, "A b");
    say(fd, "GET /query?kk=1&k=" LONG16 LONG16 " HTTP/1.1\r\n" HOST "\r\n");
    is_reply(hear(fd, "\r\n\r\n", 1), 404, "");
    say(fd, "HEAD /method HTTP/1.1\r\n" HOST "\r\n");
    is_reply(hear(fd, "\r\n\r\n", 1), 200, "");
    assert_non_null(strstr(heard, "Content-Length: 3\r\n"));
    say(fd, "GET /allow HTTP/1.1\r\n" HOST "\r\n");
    is_reply(hear(fd, "}\n", 1), 405, NULL);
    assert_non_null(strstr(heard, "\r\nAllow: PUT, GET, HEAD\r\n"));
    say(fd, "GET /inject HTTP/1.1\r\n" HOST "\r\n");
    is_reply(hear(fd, "\r\n\r\nx", 1), 200, "x");
    assert_null(strstr(heard, "\nSet-Cookie"));
    assert_null(strstr(heard, "\nX-Evil"));
    say(fd, "PUT /body HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nabcde");
    is_reply(hear(fd, "abcde", 1), 200, "abcde");
    say(fd, "GET /large HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n");
    is_reply(hear(fd, NULL, 0), 200, NULL);
    assert_true(at_end);
    assert_non_null(strstr(heard, "Connection: close\r\n"));
    assert_non_null(strstr(heard, "Content-Length: 100000\r\n"));
    (void)close(fd);
    fd = client();
    say(fd, "GET /old HTTP/1.0\r\n\r\n");
    is_reply(hear(fd, NULL, 0), 200, "/old");
    assert_true(at_end);
    (void)close(fd);
}

/* If chunks or "100 Continue" did not work, curl could not upload. */
static void uploads_work(void **state) {
    (void)state;
    int fd = client();
    say(fd, CHUNKED "5\r\nhello\r\n");
    turn(10);
    say(fd, "6\r\n world\r\n0\r\n\r\n");
    is_reply(hear(fd, "\r\n\r\n/", 1), 200, "/");
    say(fd, "PUT /echo HTTP/1.1\r\n" HOST "Content-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    assert_string_equal(hear(fd, "\r\n\r\n", 1), "HTTP/1.1 100 Continue\r\n\r\n");
    say(fd, "abc");
    is_reply(hear(fd, "abc", 1), 200, "abc");
    say(fd, "PUT /echo HTTP/1.1\r\n" HOST "Content-Length: 3\r\nExpect: 100-continue\r\n\r\nxyz"); /* it did not wait */
    is_reply(hear(fd, "xyz", 1), 200, "xyz");
    say(fd, "PUT /echo HTTP/1.1\r\n" HOST "Content-Length: 300000\r\n\r\n");
    static char part[1001];
    memset(part, 'p', 1000);
    for (int i = 0; i < 300; i++) {
        say(fd, part);
        turn(1);
    }
    const char *all = hear(fd, part, 300 * 1000 - 999);
    is_reply(all, 200, NULL);
    assert_int_equal(strlen(strstr(all, "\r\n\r\n") + 4), 300000);
    (void)close(fd);
}

/* If a refusal did not reach a client that is still sending, people would see "connection reset" and not the limit. */
static void refusals_reach_the_client(void **state) {
    (void)state;
    int fd = client();
    say(fd, "PUT /echo HTTP/1.1\r\n" HOST "Content-Length: 1000001\r\n\r\n");
    static char part[50001];
    memset(part, 'p', 50000);
    say(fd, part);
    turn(20);
    say(fd, part); /* after the refusal */
    is_reply(hear(fd, NULL, 0), 413, NULL);
    assert_true(at_end);
    assert_non_null(strstr(heard, "GREY-1011"));
    assert_int_equal(handled, 0);
    (void)close(fd);
    fd = client();
    say(fd, "GET /a HTTP/1.1\r\n" HOST "\r\nGARBAGE\r\n\r\nGET /never HTTP/1.1\r\n" HOST "\r\n");
    const char *all = hear(fd, NULL, 0); /* the good one is answered, then the bad one, then nothing */
    is_reply(all, 200, NULL);
    assert_non_null(strstr(all, "HTTP/1.1 400 "));
    assert_null(strstr(all, "/never"));
    assert_true(at_end);
    assert_int_equal(handled, 1);
    (void)close(fd);
    TURN_UNTIL(http_server_connections(server) == 0);
    assert_int_equal(http_server_connections(server), 0);
}

/* If an answer for a client that has left touched freed memory, one impatient browser would stop the agent. */
static void leaving_before_the_answer_is_harmless(void **state) {
    (void)state;
    struct linger hard = {.l_onoff = 1};
    int fd = client();
    say(fd, "GET /hold HTTP/1.1\r\n" HOST "\r\n");
    TURN_UNTIL(held_count == 1);
    assert_int_equal(held_count, 1);
    assert_false(http_client_gone(held[0]));
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    (void)close(fd); /* by a reset */
    TURN_UNTIL(http_client_gone(held[0]));
    assert_true(http_client_gone(held[0]));
    assert_true(bytes_equal_str(http_path(held[0]), "/hold")); /* still lent */
    assert_int_equal(http_server_connections(server), 0);
    http_reply(held[0], 200, "text/plain", bytes_str("late"), NULL, 0);
    held[0] = NULL;
    fd = client(); /* who has only ended his side still gets his answer */
    say(fd, "GET /hold HTTP/1.1\r\n" HOST "\r\n");
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    TURN_UNTIL(held_count == 2);
    assert_int_equal(held_count, 2);
    http_reply(held[1], 200, "text/plain", bytes_str("late"), NULL, 0);
    held[1] = NULL;
    is_reply(hear(fd, NULL, 0), 200, "late");
    assert_true(at_end);
    (void)close(fd);
    fd = client(); /* left to end(): the server goes first */
    say(fd, "GET /hold HTTP/1.1\r\n" HOST "\r\n");
    TURN_UNTIL(held_count == 3);
    assert_int_equal(held_count, 3);
    (void)close(fd);
}

/* If a change that was made were answered as one that was certainly not, its caller would make it again under another name. */
static void what_is_done_is_never_answered_as_not_done(void **state) {
    (void)state;
    int fd = client();
    say(fd, "PUT /json HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n");
    is_reply(hear(fd, "}\n", 1), 201, "{\"a\":1}\n");
    say(fd, "PUT /json/full HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n");
    assert_non_null(strstr(hear(fd, "}\n", 1), "\"status\":504,\"detail\":\"it is done, and no memory was left"));
    assert_non_null(strstr(heard, "\"type\":\"/errors/GREY-1003#outcome-unknown\""));
    say(fd, "GET /json/full HTTP/1.1\r\n" HOST "\r\n");
    assert_non_null(strstr(hear(fd, "}\n", 1), "\"status\":413,\"detail\":\"the answer grew too large"));
    (void)close(fd);
}

/* If half an answer were taken for a whole one, a client would store broken data. */
static void an_answer_that_does_not_fit_ends_the_connection(void **state) {
    (void)state;
    int fd = client();
    say(fd, "GET /huge HTTP/1.1\r\n" HOST "\r\nGET /a HTTP/1.1\r\n" HOST "\r\n");
    (void)hear(fd, NULL, 0);
    assert_true(at_end);
    assert_null(strstr(heard, "/a"));
    (void)close(fd);
}

/* If a client that does not read could pile up answers, one stuck dashboard would take the gateway's memory. */
static void who_does_not_read_is_not_served_on(void **state) {
    (void)state;
    int fd = client(), size = 65536;
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    for (int i = 0; i < 300; i++) {
        say(fd, "GET /large HTTP/1.1\r\n" HOST "\r\n");
    }
    turn(200);
    int early = handled;
    assert_in_range(early, 1, 150);                     /* what the socket buffers take, and one more */
    for (int i = 0; i < 100000 && handled < 300; i++) { /* and on it goes, when he reads */
        (void)!recv(fd, heard, sizeof heard, MSG_DONTWAIT);
        turn(1);
    }
    assert_int_equal(handled, 300);
    (void)close(fd);
}

/* If slow senders kept their places, a thousand of them would keep the health check out (slow loris). */
static void slow_senders_are_cut_off(void **state) {
    (void)state;
    int slow = client(), idle = client();
    say(slow, "GET /a HTTP/1.1\r\nHo");
    uint64_t start_ms = now_monotonic_ms();
    while (now_monotonic_ms() - start_ms < 1400 && http_server_connections(server) != 1) {
        (void)send(slow, "s", 1, MSG_NOSIGNAL); /* a byte now and then does not help */
        turn(50);
    }
    assert_int_equal(http_server_connections(server), 1);
    assert_string_equal(hear(slow, NULL, 0), "");
    assert_true(at_end || true); /* cut, by an end or a reset */
    turn(2200);
    assert_int_equal(http_server_connections(server), 0); /* the idle one went by its own limit */
    (void)close(slow), (void)close(idle);
}

/* If connections were not bounded, or the bound hit the wrong ones, many clients would be worse than none. */
static void the_number_of_connections_is_bounded(void **state) {
    (void)state;
    int fds[40];
    for (int i = 0; i < 8; i++) {
        fds[i] = client();
        say(fds[i], i < 2 ? "GET /hold HTTP/1.1\r\n" HOST "\r\n" : "GET /a HTTP/1.1\r\n" HOST "\r\n");
        turn(10);
    }
    assert_int_equal(http_server_connections(server), 8);
    say(fds[2], "GET /b HTTP/1.1\r\n" HOST "\r\n"); /* the third has spoken last; the fourth is longest idle */
    turn(10);
    int ninth = client();
    say(ninth, "GET /ninth HTTP/1.1\r\n" HOST "\r\n");
    is_reply(hear(ninth, "/ninth", 1), 200, "/ninth");
    assert_int_equal(http_server_connections(server), 8);
    (void)hear(fds[3], NULL, 0);
    assert_true(at_end);
    (void)hear(fds[2], "/b", 1);
    assert_false(at_end);
    for (int i = 2; i < 8; i++) { /* all busy with requests that do not end */
        (void)close(fds[i]);
        fds[i] = client();
        say(fds[i], "GET /slow HTTP/1.1\r\nHo");
        turn(5);
    }
    turn(600);
    int healthy = client();
    say(healthy, "GET /health HTTP/1.1\r\n" HOST "\r\n");
    is_reply(hear(healthy, "/health", 1), 200, "/health");
    (void)close(ninth);
    for (int i = 2; i < 8; i++) { /* all places held by requests that are being handled: said, not dropped */
        (void)close(fds[i]);
        fds[i] = client();
        say(fds[i], "GET /hold HTTP/1.1\r\n" HOST "\r\n");
        turn(5);
    }
    (void)close(healthy);
    TURN_UNTIL(http_server_connections(server) == 8);
    assert_int_equal(http_server_connections(server), 8);
    int refused_one = client();
    is_reply(hear(refused_one, NULL, 0), 503, NULL);
    assert_non_null(strstr(heard, "Retry-After: 1"));
    assert_true(at_end);
    (void)close(refused_one);
    for (int i = 0; i < 8; i++) {
        (void)close(fds[i]);
    }
}

/* If the socket of the command line did not tell who asks, rights could not be given by account. */
static void unix_clients_are_known(void **state) {
    (void)state;
    struct sockaddr_un u = {.sun_family = AF_UNIX};
    char mine[20];
    memcpy(u.sun_path, socket_path, strlen(socket_path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&u, sizeof u), 0);
    say(fd, "GET /uid HTTP/1.1\r\n" HOST "\r\n");
    (void)snprintf(mine, sizeof mine, "%u", getuid());
    is_reply(hear(fd, "\r\n\r\n", 1), 200, mine);
    (void)close(fd);
    fd = client();
    say(fd, "GET /uid HTTP/1.1\r\n" HOST "\r\n");
    is_reply(hear(fd, "\r\n\r\n", 1), 200, "99999");
    (void)close(fd);
}

int main(void) {
#define SERVED(f) cmocka_unit_test_setup_teardown(f, begin, end)
    const struct CMUnitTest tests[] = {cmocka_unit_test(malformed_requests_are_refused),
                                       cmocka_unit_test(requests_read_alike_in_any_pieces),
                                       cmocka_unit_test(an_announced_body_costs_nothing),
                                       cmocka_unit_test(more_than_64_headers_are_refused),
                                       SERVED(pipelined_requests_are_answered_in_order),
                                       SERVED(answers_have_the_right_form),
                                       SERVED(uploads_work),
                                       SERVED(refusals_reach_the_client),
                                       SERVED(leaving_before_the_answer_is_harmless),
                                       SERVED(what_is_done_is_never_answered_as_not_done),
                                       SERVED(an_answer_that_does_not_fit_ends_the_connection),
                                       SERVED(who_does_not_read_is_not_served_on),
                                       cmocka_unit_test_setup_teardown(slow_senders_are_cut_off, begin_impatient, end),
                                       SERVED(the_number_of_connections_is_bounded),
                                       SERVED(unix_clients_are_known)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
