/* Connections: if these lose or mix bytes, or take a stranger's certificate, nothing above can be
 * trusted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "platform/cert.h"
#include "platform/conn.h"
#include "platform/keys.h"
#include "platform/now.h"

#define BIG_BYTES (10u * 1024u * 1024u)

static char dir[] = "/tmp/grey-conn-XXXXXX";

static void save(const char *name, const struct builder *b) {
    char path[200];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(b->data, 1, b->size, f), b->size);
    (void)fclose(f);
}

static void issue(const char *name, struct builder *ca, struct builder *ca_key, const char *uri, int64_t from_s, int64_t to_s) {
    struct builder key, crt;
    char file[100];
    builder_init(&key, 10000);
    builder_init(&crt, 10000);
    assert_int_equal(keys_new_p256(&key, NULL), E_OK);
    (void)snprintf(file, sizeof file, "%s.key", name);
    save(file, &key);
    builder_add_byte(&key, 0);
    struct cert_request q = {.subject = "CN=test",
                             .key_pem = (char *)key.data,
                             .server = true,
                             .client = true,
                             .not_before_s = from_s,
                             .not_after_s = to_s};
    if (ca->size > 0) {
        q.issuer_pem = (char *)ca->data, q.issuer_key_pem = (char *)ca_key->data;
        q.names[q.name_count++] = (struct cert_name){CERT_NAME_DNS, "localhost"};
        q.names[q.name_count++] = (struct cert_name){CERT_NAME_IP, "127.0.0.1"};
        q.names[q.name_count++] = (struct cert_name){CERT_NAME_URI, uri};
    } else {
        q.server = q.client = false;
    }
    struct fault f = {0};
    assert_int_equal(cert_issue(&q, &crt, &f), E_OK);
    (void)snprintf(file, sizeof file, "%s.crt", name);
    save(file, &crt);
    if (ca->size == 0) {
        builder_add(ca, builder_bytes(&crt));
        builder_add_byte(ca, 0);
        builder_add(ca_key, builder_bytes(&key));
    }
    builder_free(&key);
    builder_free(&crt);
}

static int make_certificates(void **state) {
    (void)state;
    int64_t now_s = now_wall_ms() / 1000;
    struct builder ca, ca_key, other, other_key;
    assert_non_null(mkdtemp(dir));
    builder_init(&ca, 20000), builder_init(&ca_key, 20000), builder_init(&other, 20000), builder_init(&other_key, 20000);
    issue("ca", &ca, &ca_key, "", now_s - 100, now_s + 10000);
    issue("good", &ca, &ca_key, "grey://site/1", now_s - 100, now_s + 1000);
    issue("old", &ca, &ca_key, "grey://site/2", now_s - 1000, now_s - 100);
    issue("otherca", &other, &other_key, "", now_s - 100, now_s + 10000);
    issue("stranger", &other, &other_key, "grey://site/3", now_s - 100, now_s + 1000);
    builder_free(&ca), builder_free(&ca_key), builder_free(&other), builder_free(&other_key);
    char command[400];
    (void)snprintf(command, sizeof command, "openssl verify -CAfile %s/ca.crt %s/good.crt >/dev/null 2>&1", dir, dir);
    assert_int_equal(system(command), 0);
    return 0;
}

static int remove_certificates(void **state) {
    (void)state;
    char command[100];
    (void)snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static struct conn_tls *tls(const char *name, const char *ca) {
    char a[100], b[100], c[100];
    struct fault f = {0};
    (void)snprintf(a, sizeof a, "%s/%s.crt", dir, ca);
    (void)snprintf(b, sizeof b, "%s/%s.crt", dir, name);
    (void)snprintf(c, sizeof c, "%s/%s.key", dir, name);
    struct conn_tls *t = conn_tls_new(a, b, c, &f);
    assert_non_null(t);
    return t;
}

struct side {
    struct loop *loop;
    struct conn *conn;
    size_t to_send, sent, received;
    uint32_t sum;
    bool open, echo;
    enum grey_error why;
    char detail[200], uri[100];
    struct side *peer;
};

static void more(struct side *s) {
    uint8_t room[50000];
    while (s->sent < s->to_send) {
        size_t size = s->to_send - s->sent < sizeof room ? s->to_send - s->sent : sizeof room;
        for (size_t i = 0; i < size; i++) {
            room[i] = (uint8_t)((s->sent + i) * 2654435761u >> 13);
        }
        if (conn_write(s->conn, bytes_of(room, size)) != E_OK) {
            return;
        }
        s->sent += size;
    }
}

static void on_open(void *context, struct conn *c) {
    struct side *s = context;
    s->conn = c;
    s->open = true;
    (void)snprintf(s->uri, sizeof s->uri, "%s", conn_peer_uri(c));
    more(s);
}

static size_t on_bytes(void *context, struct conn *c, struct bytes in) {
    struct side *s = context;
    if (s->echo) {
        if (conn_write(c, in) != E_OK) { /* no room: go on when the other side has read */
            conn_pause(c);
            return 0;
        }
        return in.size;
    }
    size_t use =
        in.size > 7 && s->received + in.size < s->to_send ? in.size - in.size % 3 : in.size; /* what is not used comes again */
    for (size_t i = 0; i < use; i++) {
        assert_int_equal(in.data[i], (uint8_t)((s->received + i) * 2654435761u >> 13));
    }
    s->received += use;
    if (s->received == s->to_send) {
        loop_stop(s->loop);
    }
    return use;
}

static void on_drained(void *context, struct conn *c) {
    struct side *s = context;
    if (s->echo) {
        conn_resume(c);
    } else {
        more(s);
    }
}

static void on_closed(void *context, struct conn *c, enum grey_error why, const char *detail) {
    struct side *s = context;
    (void)c;
    s->conn = NULL;
    s->why = why;
    (void)snprintf(s->detail, sizeof s->detail, "%s", detail);
    if (s->peer == NULL || s->peer->why != E_OK || !s->peer->open) {
        loop_stop(s->loop);
    }
}

static const struct conn_events events = {on_open, on_bytes, on_drained, on_closed};

struct listening {
    const struct conn_tls *tls;
    struct side *side;
};

static bool accepted(void *context, struct conn_options *o) {
    struct listening *l = context;
    *o = (struct conn_options){
        .tls = l->tls, .input_limit_bytes = 1u << 20, .output_limit_bytes = 1u << 20, .events = &events, .context = l->side};
    return true;
}

static void give_up(void *context) {
    loop_stop(context);
}

/* Runs one connection between two sides until it is done or refused. */
static void run_pair(const struct conn_tls *client_tls, const struct conn_tls *server_tls, const char *host, size_t bytes,
                     struct side *client, struct side *server) {
    struct fault f = {0};
    struct loop *loop = loop_new(&f);
    struct conn_context x = {loop, worker_new(loop, "crypto", 16, NULL, NULL, &f)};
    struct listening l = {server_tls, server};
    struct conn_listener *listener = conn_listen(&x, "127.0.0.1:0", accepted, &l, &f);
    assert_non_null(listener);
    char address[40];
    (void)snprintf(address, sizeof address, "127.0.0.1:%u", conn_listener_port(listener));
    *client = (struct side){.loop = loop, .to_send = bytes, .peer = server};
    *server = (struct side){.loop = loop, .echo = true};
    struct conn_options o = {.tls = client_tls,
                             .expected_host = host,
                             .input_limit_bytes = 1u << 20,
                             .output_limit_bytes = 1u << 20,
                             .events = &events,
                             .context = client};
    struct conn *c = conn_dial(&x, address, &o, &f);
    assert_non_null(c);
    struct loop_timer timer = {.fire = give_up, .context = loop};
    loop_timer_after(loop, &timer, 20000);
    loop_run(loop);
    loop_timer_cancel(loop, &timer);
    conn_close(client->conn);
    conn_close(server->conn);
    conn_listener_close(listener);
    worker_stop(x.crypto);
    loop_free(loop);
}

static void plain_bytes_come_back(void **state) {
    (void)state;
    struct side client, server;
    run_pair(NULL, NULL, NULL, BIG_BYTES, &client, &server);
    assert_int_equal(client.received, BIG_BYTES);
}

static void tls_bytes_come_back(void **state) {
    (void)state;
    struct side client, server;
    struct conn_tls *t = tls("good", "ca");
    run_pair(t, t, "localhost", BIG_BYTES, &client, &server);
    assert_int_equal(client.received, BIG_BYTES);
    assert_string_equal(client.uri, "grey://site/1");
    assert_string_equal(server.uri, "grey://site/1");
    conn_tls_free(t);
}

static void strangers_are_refused(void **state) {
    (void)state;
    struct side client, server;
    struct conn_tls *good = tls("good", "ca"), *old = tls("old", "ca"), *stranger = tls("stranger", "otherca"),
                    *trusting = tls("stranger", "ca");
    run_pair(good, old, NULL, 1000, &client, &server);
    assert_false(client.open);
    assert_int_equal(client.why, E_CERT); /* expired */
    run_pair(good, stranger, NULL, 1000, &client, &server);
    assert_false(client.open);
    assert_int_equal(client.why, E_CERT); /* another CA */
    run_pair(trusting, good, NULL, 1000, &client, &server);
    assert_false(server.open); /* the server does not take the stranger, even one that would take it */
    run_pair(good, good, "elsewhere.example", 1000, &client, &server);
    assert_false(client.open);
    assert_int_equal(client.why, E_CERT); /* another name */
    run_pair(NULL, good, NULL, 1000, &client, &server);
    assert_false(server.open); /* no TLS at all */
    conn_tls_free(good), conn_tls_free(old), conn_tls_free(stranger), conn_tls_free(trusting);
}

static void weak_tls_is_refused(void **state) {
    (void)state;
    static const char *const offers[] = {"-tls1", "-tls1_1", "-tls1_2 -cipher ECDHE-ECDSA-AES128-SHA",
                                         "-tls1_2 -cipher AES128-GCM-SHA256"};
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(listener >= 0);
    (void)close(listener);
    for (size_t i = 0; i < sizeof offers / sizeof offers[0]; i++) {
        struct fault f = {0};
        struct side server = {0};
        struct loop *loop = loop_new(&f);
        struct conn_context x = {loop, worker_new(loop, "crypto", 16, NULL, NULL, &f)};
        struct conn_tls *t = tls("good", "ca");
        struct listening l = {t, &server};
        server.loop = loop;
        struct conn_listener *at = conn_listen(&x, "127.0.0.1:0", accepted, &l, &f);
        char command[500];
        (void)snprintf(command, sizeof command,
                       "openssl s_client %s -connect 127.0.0.1:%u -cert %s/good.crt -key %s/good.key </dev/null >/dev/null 2>&1 &",
                       offers[i], conn_listener_port(at), dir, dir);
        assert_int_equal(system(command), 0);
        struct loop_timer timer = {.fire = give_up, .context = loop};
        loop_timer_after(loop, &timer, 10000);
        loop_run(loop);
        assert_false(server.open);
        loop_timer_cancel(loop, &timer);
        conn_listener_close(at);
        worker_stop(x.crypto);
        loop_free(loop);
        conn_tls_free(t);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(plain_bytes_come_back), cmocka_unit_test(tls_bytes_come_back),
                                       cmocka_unit_test(strangers_are_refused), cmocka_unit_test(weak_tls_is_refused)};
    return cmocka_run_group_tests(tests, make_certificates, remove_certificates);
}
