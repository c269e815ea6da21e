/* Connections: if these lose or mix bytes, or take a stranger's certificate, nothing above can be
 * trusted. */
#include <malloc.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
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

static const struct conn_events events = {
    .on_open = on_open, .on_bytes = on_bytes, .on_drained = on_drained, .on_closed = on_closed};

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
    client->conn = c; /* the other side may be done before this one is open */
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

/* --- one side scripted by hand ------------------------------------------------------------------------------------------------------------ */

struct probe {
    struct loop *loop;
    struct conn *conn;
    uint8_t *got;
    size_t got_size, use_max;
    bool open, closed, stop_at_close, close_at_open, close_at_bytes, finish_at_bytes;
    uint32_t calls;
    enum grey_error why;
    char detail[240];
};

static void probe_open(void *context, struct conn *c) {
    struct probe *p = context;
    p->conn = c;
    p->open = true;
    if (p->close_at_open) {
        p->conn = NULL;
        conn_close(c);
    }
}

static size_t probe_bytes(void *context, struct conn *c, struct bytes in) {
    struct probe *p = context;
    p->calls++;
    if (p->close_at_bytes) {
        p->conn = NULL;
        conn_close(c);
        return 0;
    }
    if (p->finish_at_bytes) {
        assert_int_equal(conn_write(c, bytes_str("answer")), E_OK);
        conn_finish(c);
        assert_int_equal(conn_write(c, bytes_str("more")), E_CLOSED);
        return in.size;
    }
    size_t use = in.size < p->use_max ? in.size : p->use_max;
    p->got = realloc(p->got, p->got_size + use + 1);
    memcpy(p->got + p->got_size, in.data, use);
    p->got_size += use;
    return use;
}

static void probe_closed(void *context, struct conn *c, enum grey_error why, const char *detail) {
    struct probe *p = context;
    assert_false(p->closed);
    assert_true(c != NULL);
    p->conn = NULL;
    p->closed = true;
    p->why = why;
    (void)snprintf(p->detail, sizeof p->detail, "%s", detail);
    if (p->stop_at_close) {
        loop_stop(p->loop);
    }
}

static const struct conn_events probe_events = {.on_open = probe_open, .on_bytes = probe_bytes, .on_closed = probe_closed};

static struct probe probes[128]; /* [0 .. accepted_count): the accepted ones; the dialling side has one of its own */
static uint32_t accepted_count;
static const struct conn_tls *probe_tls;
static struct conn_context rig;
static struct conn_listener *rig_listener;
static char rig_address[120];

static bool probe_accepted(void *context, struct conn_options *o) {
    (void)context;
    if (accepted_count == sizeof probes / sizeof probes[0]) {
        return false;
    }
    struct probe *p = &probes[accepted_count++];
    p->loop = rig.loop;
    p->use_max = p->use_max == 0 ? SIZE_MAX : p->use_max;
    *o = (struct conn_options){
        .tls = probe_tls, .input_limit_bytes = 100000, .output_limit_bytes = 1u << 20, .events = &probe_events, .context = p};
    return true;
}

static void rig_start(const char *address, const struct conn_tls *t) {
    struct fault f = {0};
    memset(probes, 0, sizeof probes);
    accepted_count = 0;
    probe_tls = t;
    rig.loop = loop_new(&f);
    rig.crypto = worker_new(rig.loop, "crypto", 128, NULL, NULL, &f);
    rig_listener = conn_listen(&rig, address, probe_accepted, NULL, &f);
    assert_non_null(rig_listener);
    (void)snprintf(rig_address, sizeof rig_address, "%s", address);
    if (conn_listener_port(rig_listener) != 0) {
        (void)snprintf(rig_address, sizeof rig_address, "127.0.0.1:%u", conn_listener_port(rig_listener));
    }
}

static void rig_end(void) {
    conn_listener_close(rig_listener);
    rig_listener = NULL;
    for (uint32_t i = 0; i < accepted_count; i++) {
        conn_close(probes[i].conn);
        free(probes[i].got);
    }
    worker_stop(rig.crypto);
    loop_free(rig.loop);
}

static void rig_run(uint32_t ms) {
    struct loop_timer timer = {.fire = give_up, .context = rig.loop};
    loop_timer_after(rig.loop, &timer, ms);
    loop_run(rig.loop);
    loop_timer_cancel(rig.loop, &timer);
}

/* However busy the machine is. */
#define RIG_UNTIL(condition)                                                                                                       \
    for (unsigned turn = 0; turn < 20000 && !(condition); turn++) {                                                                \
        rig_run(1);                                                                                                                \
    }

static struct conn *dial(struct probe *p, const char *address, const struct conn_tls *t) {
    struct fault f = {0};
    p->loop = rig.loop;
    p->use_max = p->use_max == 0 ? SIZE_MAX : p->use_max;
    struct conn_options o = {.tls = t,
                             .input_limit_bytes = 1u << 20,
                             .output_limit_bytes = 1u << 20,
                             .open_timeout_ms = 3000,
                             .events = &probe_events,
                             .context = p};
    p->conn = conn_dial(&rig, address, &o, &f);
    assert_non_null(p->conn);
    return p->conn;
}

static int raw_client(void) {
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(conn_listener_port(rig_listener)), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

/* If greyd.sock did not know who calls, everybody on the gateway could administrate it. */
static void unix_sockets_tell_the_caller(void **state) {
    (void)state;
    char address[150];
    struct stat s;
    struct probe client = {0};
    uint32_t uid = 0;
    (void)snprintf(address, sizeof address, "unix:%s/one.sock", dir);
    rig_start(address, NULL);
    assert_int_equal(stat(address + 5, &s), 0);
    assert_int_equal(s.st_mode & 0777, 0660);
    dial(&client, address, NULL);
    RIG_UNTIL(client.open && probes[0].open);
    assert_true(client.open && probes[0].open);
    assert_true(conn_peer_uid(probes[0].conn, &uid));
    assert_int_equal(uid, getuid());
    assert_string_equal(conn_peer_address(probes[0].conn), "local");
    assert_string_equal(conn_peer_uri(probes[0].conn), "");
    conn_close(client.conn);
    rig_end();
    assert_int_equal(stat(address + 5, &s), -1); /* tidied away */
}

/* If a slip in the configuration made greyd delete a file that is no socket, a typing error would cost data; if it took a living
 * socket, two agents would fight; if a dead one stopped it, it would not start after a power cut. */
static void listening_takes_only_what_is_free(void **state) {
    (void)state;
    char address[150], path[120];
    struct fault f = {0};
    (void)snprintf(path, sizeof path, "%s/precious", dir);
    (void)snprintf(address, sizeof address, "unix:%s", path);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    (void)fclose(file);
    rig_start("127.0.0.1:0", NULL);
    assert_null(conn_listen(&rig, address, probe_accepted, NULL, &f));
    assert_int_equal(f.code, E_ADDRESS_IN_USE);
    assert_int_equal(access(path, F_OK), 0);
    assert_null(conn_listen(&rig, rig_address, probe_accepted, NULL, &f));
    assert_int_equal(f.code, E_ADDRESS_IN_USE);
    assert_non_null(strstr(f.text, "test_conn (pid ")); /* its owner is this very program */
    assert_int_equal(unlink(path), 0);
    struct conn_listener *one = conn_listen(&rig, address, probe_accepted, NULL, &f);
    assert_non_null(one);
    assert_null(conn_listen(&rig, address, probe_accepted, NULL, &f));
    assert_int_equal(f.code, E_ADDRESS_IN_USE);
    conn_listener_close(one);
    struct sockaddr_un u = {.sun_family = AF_UNIX}; /* as a power cut leaves it: there, and nobody behind it */
    memcpy(u.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&u, sizeof u), 0);
    (void)close(fd);
    one = conn_listen(&rig, address, probe_accepted, NULL, &f);
    assert_non_null(one);
    conn_listener_close(one);
    static const char *const wrong[] = {"127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000", "unix:", ""};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        f.code = E_OK;
        assert_null(conn_listen(&rig, wrong[i], probe_accepted, NULL, &f));
        assert_int_equal(f.code, E_CONNECT);
    }
    rig_end();
}

/* If dialling a dead or unknown address hung or had no name, the site engineer would look in the wrong place. */
static void failing_to_connect_has_a_name(void **state) {
    (void)state;
    char address[60];
    rig_start("127.0.0.1:0", NULL);
    (void)snprintf(address, sizeof address, "127.0.0.1:%u", conn_listener_port(rig_listener));
    conn_listener_close(rig_listener); /* nobody is there now */
    rig_listener = NULL;
    const char *const nowhere[] = {address, "no-such-host.invalid:1", "unix:/nonexistent/socket"};
    for (size_t i = 0; i < sizeof nowhere / sizeof nowhere[0]; i++) {
        struct probe client = {.stop_at_close = true};
        dial(&client, nowhere[i], NULL);
        rig_run(10000);
        assert_true(client.closed && !client.open);
        assert_int_equal(client.why, E_CONNECT);
        assert_true(strlen(client.detail) > 0);
    }
    rig_end();
}

/* If a listener that swallows the greeting held a TLS client for ever, a link would never be tried again. */
static void silence_ends_in_time(void **state) {
    (void)state;
    struct conn_tls *t = tls("good", "ca");
    rig_start("127.0.0.1:0", NULL); /* takes everything, says nothing */
    struct probe client = {.stop_at_close = true};
    dial(&client, rig_address, t);
    uint64_t start_ms = now_monotonic_ms();
    rig_run(10000);
    assert_int_equal(client.why, E_TLS);
    assert_in_range(now_monotonic_ms() - start_ms, 2900, 4500);
    rig_end();
    conn_tls_free(t);
}

/* If a sender could fill the memory of the other side, one broken client would take the gateway down. */
static void buffers_are_bounded(void **state) {
    (void)state;
    static uint8_t room[1u << 20];
    struct probe client = {0};
    rig_start("127.0.0.1:0", NULL);
    probes[0].stop_at_close = true;
    probes[0].use_max = 1; /* takes one byte at a time and lets the rest pile up */
    dial(&client, rig_address, NULL);
    RIG_UNTIL(client.open && probes[0].open);
    assert_int_equal(conn_write(client.conn, bytes_of(room, sizeof room)), E_OK);
    rig_run(5000);
    assert_true(probes[0].closed);
    assert_int_equal(probes[0].why, E_TOO_LARGE);
    conn_close(client.conn);
    struct probe writer = {0};
    dial(&writer, rig_address, NULL);
    RIG_UNTIL(writer.open && probes[1].open);
    conn_pause(probes[1].conn);
    enum grey_error err = E_OK;
    size_t written = 0;
    for (int i = 0; i < 100 && err == E_OK; i++) { /* nobody reads: the socket fills, then the buffer */
        err = conn_write(writer.conn, bytes_of(room, sizeof room));
        written += err == E_OK ? sizeof room : 0;
        rig_run(1);
    }
    assert_int_equal(err, E_BUSY);
    assert_true(conn_output_bytes(writer.conn) <= 1u << 20);
    conn_resume(probes[1].conn);
    for (int i = 0; i < 200 && probes[1].got_size < written; i++) {
        rig_run(20);
    }
    assert_int_equal(probes[1].got_size, written); /* and nothing of what was taken is lost */
    conn_close(writer.conn);
    rig_end();
}

/* If a conn could not be closed in its own callbacks, every error path above would be a crash. */
static void closing_is_safe_in_every_callback(void **state) {
    (void)state;
    struct conn_tls *t = tls("good", "ca");
    for (int secure = 0; secure < 2; secure++) {
        const struct conn_tls *use = secure ? t : NULL;
        rig_start("127.0.0.1:0", use);
        struct probe a = {.close_at_open = true}, b = {.close_at_bytes = true}, c = {0};
        dial(&a, rig_address, use);
        RIG_UNTIL(a.open && probes[0].closed);
        assert_true(a.open && !a.closed && probes[0].closed);
        dial(&b, rig_address, use);
        RIG_UNTIL(b.open && probes[1].open);
        assert_int_equal(conn_write(probes[1].conn, bytes_str("bytes")), E_OK);
        RIG_UNTIL(probes[1].closed);
        assert_true(b.calls == 1 && !b.closed && probes[1].closed);
        assert_int_equal(probes[1].why, E_CLOSED);
        dial(&c, rig_address, use);
        conn_close(c.conn); /* before anything happened */
        dial(&c, rig_address, use);
        rig_run(1); /* somewhere in the handshake */
        conn_close(c.conn);
        rig_run(100);
        assert_false(c.closed);
        rig_end();
    }
    conn_tls_free(t);
}

/* If the end of a listener forgot those who still shake hands, stopping greyd at that moment would be a crash. */
static void a_listener_takes_its_guests_along(void **state) {
    (void)state;
    struct conn_tls *t = tls("good", "ca");
    struct probe client = {0};
    rig_start("127.0.0.1:0", t);
    int silent = raw_client();
    dial(&client, rig_address, t);
    for (int i = 0; i < 1000 && accepted_count < 2; i++) {
        rig_run(1);
    }
    assert_int_equal(accepted_count, 2);
    conn_listener_close(rig_listener);
    rig_listener = NULL;
    for (uint32_t i = 0; i < 2; i++) {
        assert_true(probes[i].open || (probes[i].closed && probes[i].why == E_STOPPING));
    }
    assert_true(probes[0].closed); /* the silent one at least */
    conn_close(client.conn);
    rig_end();
    (void)close(silent);
    conn_tls_free(t);
}

/* If strangers who connect and say nothing cost memory or kept others out, anyone on the network could stop the site. */
static void silent_strangers_give_way(void **state) {
    (void)state;
    int silent[100];
    struct conn_tls *t = tls("good", "ca");
    struct probe client = {0};
    rig_start("127.0.0.1:0", t);
    size_t before = mallinfo2().uordblks;
    for (int i = 0; i < 100; i++) {
        silent[i] = raw_client();
        rig_run(1);
    }
    rig_run(50);
    size_t cost = mallinfo2().uordblks - before;
    assert_int_equal(accepted_count, 100);
    uint32_t gone = 0;
    for (uint32_t i = 0; i < 100; i++) {
        gone += probes[i].closed && probes[i].why == E_BUSY;
    }
    assert_int_equal(gone, 36); /* 64 may wait */
    assert_true(probes[0].closed && !probes[99].closed);
#if !defined(__SANITIZE_ADDRESS__)
    assert_in_range(cost, 0, 64 * 1024); /* not 36 KiB each */
#else
    (void)cost;
#endif
    dial(&client, rig_address, t);
    RIG_UNTIL(client.open);
    assert_true(client.open);
    conn_close(client.conn);
    for (int i = 0; i < 100; i++) {
        (void)close(silent[i]);
    }
    rig_end();
    conn_tls_free(t);
}

/* If an idle connection cost much, a few hundred HTTP clients would eat the memory of a small gateway. */
static void idle_connections_are_small(void **state) {
    (void)state;
#if defined(__SANITIZE_ADDRESS__)
    print_message("# SKIP idle_connections_are_small: the sanitizer's own memory would be measured\n");
    skip();
#endif
    int clients[100];
    rig_start("127.0.0.1:0", NULL);
    clients[0] = raw_client();
    RIG_UNTIL(accepted_count == 1);
    size_t before = mallinfo2().uordblks;
    for (int i = 1; i < 100; i++) {
        clients[i] = raw_client();
    }
    RIG_UNTIL(accepted_count == 100);
    for (int i = 0; i < 100; i++) { /* buffers come and go */
        assert_int_equal(write(clients[i], "something", 9), 9);
    }
    RIG_UNTIL(probes[99].got_size == 9);
    assert_int_equal(accepted_count, 100);
    assert_int_equal(probes[99].got_size, 9);
    assert_in_range(mallinfo2().uordblks - before, 0, 99 * 1024);
    for (int i = 0; i < 100; i++) {
        (void)close(clients[i]);
    }
    rig_end();
}

/* If an answer were cut off because the client is still sending, a refused upload would end in "connection reset" and not in a reason. */
static void finishing_delivers_the_answer(void **state) {
    (void)state;
    static uint8_t room[200000];
    struct conn_tls *t = tls("good", "ca");
    for (int secure = 0; secure < 2; secure++) {
        const struct conn_tls *use = secure ? t : NULL;
        struct probe client = {.stop_at_close = true};
        rig_start("127.0.0.1:0", use);
        probes[0].finish_at_bytes = true;
        dial(&client, rig_address, use);
        RIG_UNTIL(client.open && probes[0].open);
        assert_int_equal(conn_write(client.conn, bytes_of(room, sizeof room)), E_OK);
        rig_run(3000);
        assert_int_equal(client.why, E_CLOSED);
        assert_int_equal(client.got_size, 6);
        assert_memory_equal(client.got, "answer", 6);
        free(client.got);
        RIG_UNTIL(probes[0].closed);
        assert_true(probes[0].closed);
        assert_int_equal(probes[0].calls, 1); /* what came after the end is not shown */
        rig_end();
    }
    rig_start("127.0.0.1:0", NULL); /* a client that stays is left after two seconds */
    probes[0].finish_at_bytes = probes[0].stop_at_close = true;
    int stays = raw_client();
    assert_int_equal(write(stays, "x", 1), 1);
    uint64_t start_ms = now_monotonic_ms();
    rig_run(5000);
    assert_true(probes[0].closed);
    assert_in_range(now_monotonic_ms() - start_ms, 1900, 5000);
    (void)close(stays);
    rig_end();
    conn_tls_free(t);
}

/* If a paused conn lost the TLS bytes that were read ahead, a busy broker would freeze the uplink. */
static void pausing_loses_nothing(void **state) {
    (void)state;
    static uint8_t room[300000];
    struct conn_tls *t = tls("good", "ca");
    for (int secure = 0; secure < 2; secure++) {
        const struct conn_tls *use = secure ? t : NULL;
        struct probe client = {0};
        rig_start("127.0.0.1:0", use);
        dial(&client, rig_address, use);
        RIG_UNTIL(client.open && probes[0].open);
        for (size_t i = 0; i < sizeof room; i++) {
            room[i] = (uint8_t)(i * 2654435761u >> 11);
        }
        conn_pause(probes[0].conn);
        assert_int_equal(conn_write(client.conn, bytes_of(room, sizeof room)), E_OK);
        rig_run(50);
        assert_int_equal(probes[0].got_size, 0);
        for (int i = 0; i < 500 && probes[0].got_size < sizeof room; i++) {
            conn_resume(probes[0].conn);
            rig_run(1);
            conn_pause(probes[0].conn);
        }
        assert_int_equal(probes[0].got_size, sizeof room);
        assert_memory_equal(probes[0].got, room, sizeof room);
        conn_close(client.conn);
        rig_end();
    }
    conn_tls_free(t);
}

static size_t allowance, granted, asked;

static size_t gate(void *context, size_t wanted) {
    assert_ptr_equal(context, &allowance);
    asked++;
    size_t grant = wanted < allowance ? wanted : allowance;
    allowance -= grant;
    granted += grant;
    return grant;
}

/* If one byte passed the gate unasked, the thin uplink would cost more than the customer allowed. */
static void the_gate_holds_every_byte(void **state) {
    (void)state;
    static uint8_t room[60000];
    struct conn_tls *t = tls("good", "ca");
    for (int secure = 0; secure < 2; secure++) {
        const struct conn_tls *use = secure ? t : NULL;
        struct probe client = {0};
        rig_start("127.0.0.1:0", use);
        dial(&client, rig_address, use);
        RIG_UNTIL(client.open && probes[0].open);
        allowance = granted = asked = 0;
        uint64_t before = conn_counted(client.conn).out_bytes;
        conn_set_gate(client.conn, gate, &allowance);
        assert_int_equal(conn_write(client.conn, bytes_of(room, sizeof room)), E_OK);
        rig_run(20);
        assert_int_equal(conn_counted(client.conn).out_bytes, before);
        assert_in_range(asked, 1, 3); /* parked, not turning */
        for (int i = 0; i < 2000 && probes[0].got_size < sizeof room; i++) {
            allowance += 1500;
            conn_gate_open(client.conn);
            rig_run(1);
            assert_int_equal(conn_counted(client.conn).out_bytes - before, granted);
        }
        assert_int_equal(probes[0].got_size, sizeof room);
        assert_int_equal(conn_write(client.conn, bytes_str("waits")), E_OK);
        allowance = 0;
        assert_int_equal(conn_write(client.conn, bytes_of(room, sizeof room)), E_OK);
        conn_set_gate(client.conn, NULL, NULL); /* opens */
        RIG_UNTIL(probes[0].got_size == 2 * sizeof room + 5);
        assert_int_equal(probes[0].got_size, 2 * sizeof room + 5);
        conn_close(client.conn);
        rig_end();
    }
    conn_tls_free(t);
}

/* If bytes were lost where socket buffers are tiny, as on the modems of the field, messages would break at random. */
static void tls_survives_tiny_socket_buffers(void **state) {
    (void)state;
    struct conn_tls *t = tls("good", "ca");
    struct probe client = {0};
    static uint8_t room[10000];
    rig_start("127.0.0.1:0", t);
    dial(&client, rig_address, t);
    RIG_UNTIL(client.open && probes[0].open);
    int size = 2048, limit = 0;
    for (int fd = 3; fd < 64; fd++) { /* every socket of this process */
        limit += setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size) == 0;
    }
    assert_true(limit >= 2);
    size_t written = 0;
    while (written < 1000000) {
        for (size_t i = 0; i < sizeof room; i++) {
            room[i] = (uint8_t)((written + i) * 2654435761u >> 13);
        }
        if (conn_write(client.conn, bytes_of(room, 1 + written % (sizeof room - 1))) == E_OK) {
            written += 1 + written % (sizeof room - 1);
        } else {
            rig_run(2);
        }
    }
    for (int i = 0; i < 5000 && probes[0].got_size < written; i++) {
        rig_run(5);
    }
    assert_int_equal(probes[0].got_size, written);
    for (size_t i = 0; i < written; i++) {
        assert_int_equal(probes[0].got[i], (uint8_t)(i * 2654435761u >> 13));
    }
    conn_close(client.conn);
    rig_end();
    conn_tls_free(t);
}

/* If a peer without a certificate, or one that speaks no TLS, were let in or had no named error, nobody could trust or mend a link. */
static void nameless_peers_are_refused(void **state) {
    (void)state;
    struct conn_tls *t = tls("good", "ca");
    char command[300];
    rig_start("127.0.0.1:0", t);
    probes[0].stop_at_close = probes[1].stop_at_close = true;
    (void)snprintf(command, sizeof command, "openssl s_client -tls1_2 -connect %s </dev/null >/dev/null 2>&1 &", rig_address);
    assert_int_equal(system(command), 0);
    rig_run(10000);
    assert_true(probes[0].closed && !probes[0].open);
    assert_int_equal(probes[0].why, E_CERT);
    int fd = raw_client();
    assert_int_equal(write(fd, "GET / HTTP/1.1\r\n\r\n", 18), 18);
    rig_run(10000);
    assert_true(probes[1].closed && !probes[1].open);
    assert_int_equal(probes[1].why, E_TLS);
    (void)close(fd);
    rig_end();
    conn_tls_free(t);
}

/* If a changed byte of a record went through, or ended without a name, the seal of the link would be worth nothing. */
static void a_forged_record_ends_the_link(void **state) {
    (void)state;
    struct conn_tls *t = tls("good", "ca");
    struct probe client = {0};
    rig_start("127.0.0.1:0", t);
    probes[0].stop_at_close = true;
    dial(&client, rig_address, t);
    RIG_UNTIL(client.open && probes[0].open);
    assert_true(client.open && probes[0].open);
    uint8_t forged[40] = {0x17, 3, 3, 0, 35};
    bool sent = false;
    for (int fd = 3; fd < 64 && !sent; fd++) { /* the client's end, found by whom it talks to */
        struct sockaddr_in to;
        socklen_t size = sizeof to;
        if (getpeername(fd, (struct sockaddr *)&to, &size) == 0 && to.sin_port == htons(conn_listener_port(rig_listener))) {
            assert_int_equal(write(fd, forged, sizeof forged), sizeof forged);
            sent = true;
        }
    }
    assert_true(sent);
    rig_run(5000);
    assert_true(probes[0].closed);
    assert_int_equal(probes[0].why, E_TLS);
    assert_int_equal(probes[0].got_size, 0);
    conn_close(client.conn);
    rig_end();
    conn_tls_free(t);
}

/* If bad files were taken, or the error did not name the file, nobody could mend them at 3 a.m. */
static void bad_certificate_files_are_named(void **state) {
    (void)state;
    char ca[100], crt[100], key[100], other[100];
    struct fault f = {0};
    (void)snprintf(ca, sizeof ca, "%s/ca.crt", dir);
    (void)snprintf(crt, sizeof crt, "%s/good.crt", dir);
    (void)snprintf(key, sizeof key, "%s/good.key", dir);
    (void)snprintf(other, sizeof other, "%s/old.key", dir);
    assert_null(conn_tls_new("/nonexistent", crt, key, &f));
    assert_true(f.code == E_CERT && strstr(f.text, "/nonexistent: No such file or directory") != NULL);
    assert_null(conn_tls_new(ca, key, key, &f));
    assert_true(f.code == E_CERT && strstr(f.text, "good.key") != NULL);
    assert_null(conn_tls_new(ca, crt, ca, &f));
    assert_true(f.code == E_KEY && strstr(f.text, "ca.crt") != NULL);
    assert_null(conn_tls_new(ca, crt, other, &f));
    assert_true(f.code == E_KEY && strstr(f.text, "old.key") != NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(plain_bytes_come_back),
                                       cmocka_unit_test(tls_bytes_come_back),
                                       cmocka_unit_test(strangers_are_refused),
                                       cmocka_unit_test(weak_tls_is_refused),
                                       cmocka_unit_test(unix_sockets_tell_the_caller),
                                       cmocka_unit_test(listening_takes_only_what_is_free),
                                       cmocka_unit_test(failing_to_connect_has_a_name),
                                       cmocka_unit_test(silence_ends_in_time),
                                       cmocka_unit_test(buffers_are_bounded),
                                       cmocka_unit_test(closing_is_safe_in_every_callback),
                                       cmocka_unit_test(a_listener_takes_its_guests_along),
                                       cmocka_unit_test(silent_strangers_give_way),
                                       cmocka_unit_test(idle_connections_are_small),
                                       cmocka_unit_test(finishing_delivers_the_answer),
                                       cmocka_unit_test(pausing_loses_nothing),
                                       cmocka_unit_test(the_gate_holds_every_byte),
                                       cmocka_unit_test(tls_survives_tiny_socket_buffers),
                                       cmocka_unit_test(nameless_peers_are_refused),
                                       cmocka_unit_test(a_forged_record_ends_the_link),
                                       cmocka_unit_test(bad_certificate_files_are_named)};
    return cmocka_run_group_tests(tests, make_certificates, remove_certificates);
}
