/* Coming back to a server with a ticket: with TLS 1.2 it comes in the handshake, with TLS 1.3 behind it, between the data.  The server is OpenSSL's. */
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "platform/cert.h"
#include "platform/conn.h"
#include "platform/keys.h"
#include "platform/now.h"
#include "platform/wholefile.h"

#define LINE_IN "0123456789\n"
#define LINE_OUT "9876543210\n"

static char dir[] = "/tmp/grey-session-XXXXXX";
static pid_t server;
static uint16_t port;

static void path_of(const char *name, char out[80]) {
    (void)snprintf(out, 80, "%s/%s", dir, name);
}

static void put(const char *name, const struct builder *text) {
    char path[80];
    struct fault f = {0};
    path_of(name, path);
    assert_int_equal(wholefile_write(path, builder_bytes(text), 0600, &f), E_OK);
}

static int make_certificates(void **state) {
    (void)state;
    struct fault f = {0};
    struct builder ca_key, ca, key, crt;
    int64_t now_s = now_wall_ms() / 1000;
    assert_non_null(mkdtemp(dir));
    builder_init(&ca_key, 4096), builder_init(&ca, 4096), builder_init(&key, 4096), builder_init(&crt, 4096);
    assert_int_equal(keys_new_p256(&ca_key, &f), E_OK);
    assert_int_equal(keys_new_p256(&key, &f), E_OK);
    put("node.key", &key);
    builder_add_byte(&ca_key, 0), builder_add_byte(&key, 0);
    struct cert_request q = {
        .subject = "CN=ca", .key_pem = (const char *)ca_key.data, .not_before_s = now_s - 100, .not_after_s = now_s + 10000};
    assert_int_equal(cert_issue(&q, &ca, &f), E_OK);
    put("ca.crt", &ca);
    builder_add_byte(&ca, 0);
    q = (struct cert_request){.subject = "CN=node",
                              .key_pem = (const char *)key.data,
                              .issuer_pem = (const char *)ca.data,
                              .issuer_key_pem = (const char *)ca_key.data,
                              .server = true,
                              .client = true,
                              .not_before_s = now_s - 100,
                              .not_after_s = now_s + 10000};
    assert_int_equal(cert_issue(&q, &crt, &f), E_OK);
    put("node.crt", &crt);
    builder_free(&ca_key), builder_free(&ca), builder_free(&key), builder_free(&crt);
    return 0;
}

static int remove_certificates(void **state) {
    (void)state;
    char command[100];
    (void)snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command); // NOLINT(cert-env33-c)
}

static void stop_server(void) {
    if (server > 0) {
        (void)kill(server, SIGKILL);
        (void)waitpid(server, NULL, 0);
        server = 0;
    }
}

/* It gives back each line reversed. */
static void start_server(const char *version) {
    char ca[80], crt[80], key[80], accept_at[32];
    path_of("ca.crt", ca), path_of("node.crt", crt), path_of("node.key", key);
    (void)snprintf(accept_at, sizeof accept_at, "127.0.0.1:%u", port);
    server = fork();
    if (server == 0) {
        if (freopen("/dev/null", "w", stdout) == NULL || freopen("/dev/null", "w", stderr) == NULL) {
            _exit(127);
        }
        execlp("openssl", "openssl", "s_server", "-accept", accept_at, "-cert", crt, "-key", key, "-CAfile", ca, "-Verify", "1",
               "-rev", version, (char *)NULL);
        _exit(127);
    }
    assert_true(server > 0);
}

/* --- one visit ------------------------------------------------------------------------------------------------------------------------------ */

struct visit {
    struct loop *loop;
    struct conn *conn;
    bool open, answered;
    enum grey_error why;
    char detail[200];
};

static void on_open(void *context, struct conn *c) {
    struct visit *v = context;
    v->open = true;
    assert_int_equal(conn_write(c, bytes_str(LINE_IN)), E_OK);
}

static size_t on_bytes(void *context, struct conn *c, struct bytes in) {
    struct visit *v = context;
    (void)c;
    if (in.size < sizeof LINE_OUT - 1) {
        return 0;
    }
    v->answered = bytes_equal_str(in, LINE_OUT);
    loop_stop(v->loop);
    return in.size;
}

static void on_closed(void *context, struct conn *c, enum grey_error why, const char *detail) {
    struct visit *v = context;
    (void)c;
    v->conn = NULL;
    v->why = why;
    (void)snprintf(v->detail, sizeof v->detail, "%s", detail);
    loop_stop(v->loop);
}

static const struct conn_events events = {.on_open = on_open, .on_bytes = on_bytes, .on_closed = on_closed};

static void too_late(void *context) {
    struct visit *v = context;
    (void)snprintf(v->detail, sizeof v->detail, "no answer in a minute");
    loop_stop(v->loop);
}

/* True: it was a short handshake. */
static bool visit(const struct conn_tls *tls, struct conn_session *s) {
    struct fault f = {0};
    char address[40];
    (void)snprintf(address, sizeof address, "127.0.0.1:%u", port);
    for (int tries = 0;; tries++) {
        struct visit v = {.loop = loop_new(&f)};
        assert_non_null(v.loop);
        struct conn_context x = {v.loop, worker_new(v.loop, "crypto", 16, NULL, NULL, &f)};
        struct loop_timer limit = {.fire = too_late, .context = &v};
        struct conn_options o = {.tls = tls,
                                 .session = s,
                                 .input_limit_bytes = 4096,
                                 .output_limit_bytes = 4096,
                                 .open_timeout_ms = 60000,
                                 .events = &events,
                                 .context = &v};
        loop_timer_after(v.loop, &limit, 60000);
        v.conn = conn_dial(&x, address, &o, &f);
        assert_non_null(v.conn);
        loop_run(v.loop);
        loop_timer_cancel(v.loop, &limit);
        conn_close(v.conn);
        worker_stop(x.crypto);
        loop_free(v.loop);
        if (v.why == E_CONNECT && tries < 500) { /* it does not listen yet */
            (void)usleep(20000);
            continue;
        }
        if (!v.open || !v.answered) {
            fail_msg("open %d: %s: %s", v.open, error_sentence(v.why), v.detail);
        }
        return conn_session_resumed(s);
    }
}

/* If this failed, each return over a thin link would cost a full handshake; or what comes behind a ticket would wait in the library for ever. */
static void come_back(const char *version) {
    struct fault f = {0};
    char ca[80], crt[80], key[80];
    path_of("ca.crt", ca), path_of("node.crt", crt), path_of("node.key", key);
    struct conn_tls *tls = conn_tls_new(ca, crt, key, &f);
    assert_non_null(tls);
    struct conn_session *s = conn_session_new();
    assert_non_null(s);
    start_server(version);
    assert_false(visit(tls, s));
    for (int i = 0; i < 3; i++) {
        assert_true(visit(tls, s));
    }
    stop_server(); /* with it go the keys of its tickets */
    start_server(version);
    assert_false(visit(tls, s));
    assert_true(visit(tls, s));
    stop_server();
    conn_session_free(s);
    conn_tls_free(tls);
}

static void a_ticket_of_tls_12_is_used(void **state) {
    (void)state;
    come_back("-tls1_2");
}

static void a_ticket_of_tls_13_is_used(void **state) {
    (void)state;
    if (!conn_tls_knows_13()) {
        skip();
    }
    come_back("-tls1_3");
}

static int choose_port(void **state) {
    (void)state;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    port = ntohs(address.sin_port);
    (void)close(fd);
    return 0;
}

static int end_server(void **state) {
    (void)state;
    stop_server();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(a_ticket_of_tls_12_is_used, choose_port, end_server),
                                       cmocka_unit_test_setup_teardown(a_ticket_of_tls_13_is_used, choose_port, end_server)};
    return cmocka_run_group_tests(tests, make_certificates, remove_certificates);
}
