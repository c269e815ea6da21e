/* Dialling through an HTTP proxy: if this loses a byte behind the proxy's answer, or waits for ever on one that says nothing useful, a site
 * in a customer's network never speaks with its core. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "platform/conn.h"

/* A proxy of one manner, and what came of dialling through it. */
struct world {
    struct conn_context x;
    const char *answer; /* to CONNECT, byte by byte */
    struct conn *proxy, *client;
    struct loop_timer drip, end;
    size_t given;
    char asked[1024], got[200], why[300];
    bool open, closed;
};

static void on_drip(void *context) {
    struct world *w = context;
    if (w->proxy != NULL && w->given < strlen(w->answer)) {
        assert_int_equal(conn_write(w->proxy, bytes_of((const uint8_t *)w->answer + w->given++, 1)), E_OK);
        loop_timer_after(w->x.loop, &w->drip, 0);
    }
}

static void proxy_open(void *context, struct conn *c) {
    struct world *w = context;
    w->proxy = c;
}

static size_t proxy_bytes(void *context, struct conn *c, struct bytes in) {
    struct world *w = context;
    (void)c;
    if (in.size < 4 || memcmp(in.data + in.size - 4, "\r\n\r\n", 4) != 0) {
        return 0;
    }
    assert_in_range(in.size, 1, sizeof w->asked - 1);
    memcpy(w->asked, in.data, in.size);
    loop_timer_after(w->x.loop, &w->drip, 0);
    return in.size;
}

static void proxy_closed(void *context, struct conn *c, enum grey_error why, const char *detail) {
    struct world *w = context;
    (void)c, (void)why, (void)detail;
    w->proxy = NULL;
}

static const struct conn_events proxy_events = {.on_open = proxy_open, .on_bytes = proxy_bytes, .on_closed = proxy_closed};

static bool accepted(void *context, struct conn_options *o) {
    *o = (struct conn_options){.events = &proxy_events, .context = context, .input_limit_bytes = 4096, .output_limit_bytes = 65536};
    return true;
}

static void client_open(void *context, struct conn *c) {
    struct world *w = context;
    (void)c;
    w->open = true;
}

static size_t client_bytes(void *context, struct conn *c, struct bytes in) {
    struct world *w = context;
    (void)c;
    assert_true(w->open);
    (void)strncat(w->got, (const char *)in.data, in.size);
    return in.size;
}

static void client_closed(void *context, struct conn *c, enum grey_error why, const char *detail) {
    struct world *w = context;
    (void)c;
    assert_int_equal(why, E_CONNECT);
    (void)snprintf(w->why, sizeof w->why, "%s", detail);
    w->closed = true;
    w->client = NULL;
    loop_stop(w->x.loop);
}

static const struct conn_events client_events = {.on_open = client_open, .on_bytes = client_bytes, .on_closed = client_closed};

static void on_end(void *context) {
    struct world *w = context;
    loop_stop(w->x.loop);
}

/* Dials core.example:443 through the proxy, and looks for so long. */
static void dial(struct world *w, const char *answer, const char *auth_path, uint32_t ms, uint32_t timeout_ms) {
    struct fault f = {0};
    char address[40];
    *w = (struct world){.answer = answer};
    w->drip = (struct loop_timer){.fire = on_drip, .context = w};
    w->end = (struct loop_timer){.fire = on_end, .context = w};
    w->x.loop = loop_new(&f);
    w->x.crypto = worker_new(w->x.loop, "crypto", 8, NULL, NULL, &f);
    struct conn_listener *l = conn_listen(&w->x, "127.0.0.1:0", accepted, w, &f);
    assert_non_null(l);
    (void)snprintf(address, sizeof address, "127.0.0.1:%u", conn_listener_port(l));
    struct conn_proxy proxy = {.address = address, .auth_path = auth_path};
    struct conn_options o = {.events = &client_events,
                             .context = w,
                             .input_limit_bytes = 4096,
                             .output_limit_bytes = 4096,
                             .open_timeout_ms = timeout_ms,
                             .proxy = &proxy};
    w->client = conn_dial(&w->x, "core.example:443", &o, &f);
    assert_non_null(w->client);
    loop_timer_after(w->x.loop, &w->end, ms);
    loop_run(w->x.loop);
    conn_close(w->client);
    conn_close(w->proxy);
    conn_listener_close(l);
    worker_stop(w->x.crypto);
    loop_free(w->x.loop);
}

static void the_way_is_asked_for_and_nothing_is_lost(void **state) {
    (void)state;
    struct world w;
    dial(&w, "HTTP/1.1 200 OK\r\nA: b\r\n\r\nfirst words", NULL, 300, 0);
    assert_string_equal(w.asked, "CONNECT core.example:443 HTTP/1.1\r\nHost: core.example:443\r\n\r\n");
    assert_true(w.open && !w.closed);
    assert_string_equal(w.got, "first words");
}

static void credentials_are_read_from_their_file(void **state) {
    (void)state;
    char path[] = "/tmp/grey-auth-XXXXXX";
    struct world w;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "Aladdin:open sesame\r\nmore\n", 26), 26);
    (void)close(fd);
    dial(&w, "HTTP/1.0 200 \r\n\r\n", path, 200, 0);
    assert_non_null(strstr(w.asked, "\r\nProxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n")); /* RFC 7617, 2 */
    assert_true(w.open);
    (void)unlink(path);
    dial(&w, "HTTP/1.0 200 \r\n\r\n", path, 2000, 0);
    assert_true(w.closed && strstr(w.why, path) != NULL);
}

static void refusals_are_named(void **state) {
    (void)state;
    static char endless[10000] = "HTTP/1.1 200 OK\r\nX: ";
    memset(endless + strlen(endless), 'x', sizeof endless - 1 - strlen(endless));
    static const struct {
        const char *answer, *says;
    } table[] = {
        {"HTTP/1.1 407 Who are you\r\n\r\n", "refused with status 407 Who are you: check federation.proxy.auth_file"},
        {"HTTP/1.1 502 Bad\x1b[31m gateway\r\n\r\n", "refused with status 502 Bad"},
        {"HTTP/1.1 100 Continue\r\n\r\n", "refused with status 100"},
        {"SSH-2.0-OpenSSH_9\r\n\r\n", "does not speak HTTP"},
        {"HTTP/1.1 2x0 OK\r\n\r\n", "does not speak HTTP"},
        {"\r\n\r\n", "does not speak HTTP"},
        {endless, "too long"},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct world w;
        dial(&w, table[i].answer, NULL, 5000, 0);
        assert_true(w.closed && !w.open);
        if (strstr(w.why, table[i].says) == NULL || strchr(w.why, '\x1b') != NULL) {
            fail_msg("'%.30s' said: %s", table[i].answer, w.why);
        }
    }
    struct world w;
    dial(&w, "HTTP/1.1 200 OK\r\n", NULL, 5000, 150); /* and no more */
    assert_true(w.closed);
    assert_string_equal(w.why, "the proxy does not answer in time");
}

static void it_can_be_given_up_while_it_asks(void **state) {
    (void)state;
    struct world w;
    dial(&w, "", NULL, 50, 0);
    assert_true(w.asked[0] != 0 && !w.open && !w.closed);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_way_is_asked_for_and_nothing_is_lost),
        cmocka_unit_test(credentials_are_read_from_their_file),
        cmocka_unit_test(refusals_are_named),
        cmocka_unit_test(it_can_be_given_up_while_it_asks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
