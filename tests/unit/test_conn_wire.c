/* What the network carries of a connection: a mistake here and the ledger of the link says something else than the provider's bill. */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "platform/conn.h"
#include "platform/conn_core.h"

struct end {
    struct conn *conn;
    size_t received;
};

static struct conn_context x;
static struct end near_end, far_end;

static void on_open(void *context, struct conn *c) {
    struct end *e = context;
    e->conn = c;
}

static size_t on_bytes(void *context, struct conn *c, struct bytes in) {
    struct end *e = context;
    (void)c;
    e->received += in.size;
    return in.size;
}

static void on_closed(void *context, struct conn *c, enum grey_error why, const char *detail) {
    struct end *e = context;
    (void)why, (void)detail;
    e->conn = e->conn == c ? NULL : e->conn;
}

static const struct conn_events events = {.on_open = on_open, .on_bytes = on_bytes, .on_closed = on_closed};

static struct conn_options options(struct end *e) {
    return (struct conn_options){
        .input_limit_bytes = 1u << 20, .output_limit_bytes = 8u << 20, .open_timeout_ms = 3000, .events = &events, .context = e};
}

static bool accepted(void *context, struct conn_options *o) {
    (void)context;
    *o = options(&far_end);
    return true;
}

static void on_time(void *context) {
    loop_stop(context);
}

static void run(uint32_t ms) {
    struct loop_timer t = {.fire = on_time, .context = x.loop};
    loop_timer_after(x.loop, &t, ms);
    loop_run(x.loop);
    loop_timer_cancel(x.loop, &t);
}

static struct conn_listener *begin(const char *address) {
    struct fault f = {0};
    char target[200];
    near_end = far_end = (struct end){0};
    x.loop = loop_new(&f);
    x.crypto = worker_new(x.loop, "crypto", 16, NULL, NULL, &f);
    struct conn_listener *l = conn_listen(&x, address, accepted, NULL, &f);
    assert_non_null(l);
    (void)snprintf(target, sizeof target, "%s", address);
    if (conn_listener_port(l) != 0) {
        (void)snprintf(target, sizeof target, "%.*s:%u", address[0] == '[' ? 5 : 9, address, conn_listener_port(l));
    }
    struct conn_options o = options(&near_end);
    assert_non_null(conn_dial(&x, target, &o, &f));
    for (int i = 0; i < 100 && (near_end.conn == NULL || far_end.conn == NULL); i++) {
        run(10);
    }
    assert_true(near_end.conn != NULL && far_end.conn != NULL);
    return l;
}

static void end(struct conn_listener *l) {
    conn_close(near_end.conn);
    conn_close(far_end.conn);
    conn_listener_close(l);
    worker_stop(x.crypto);
    loop_free(x.loop);
}

/* Nothing is lost on the way here, so what one end sent is what the other got, to the byte, headers and acknowledgements too; but that
 * the end that was dialled did not exist yet when its first segment left. */
static void both_ends_count_the_same(void **state) {
    (void)state;
    static uint8_t room[300000];
    static const struct {
        const char *address;
        uint32_t header_bytes_min;
    } ways[] = {{"127.0.0.1:0", 40}, {"[::1]:0", 60}};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        struct conn_listener *l = begin(ways[i].address);
        for (size_t size = 1; size <= sizeof room; size = size * 7 + 1) {
            assert_int_equal(conn_write(near_end.conn, bytes_of(room, size)), E_OK);
            run(20);
            assert_int_equal(conn_write(far_end.conn, bytes_of(room, size / 3 + 1)), E_OK);
            run(20);
        }
        run(300); /* acknowledgements that are put off */
        struct conn_wire a, b;
        assert_true(conn_wired(near_end.conn, &a) && conn_wired(far_end.conn, &b));
        assert_int_equal(a.out_bytes, b.in_bytes);
        assert_int_equal(a.in_bytes, b.out_bytes + a.header_bytes);
        assert_true(a.header_bytes == ways[i].header_bytes_min + 12 || a.header_bytes == ways[i].header_bytes_min);
        assert_in_range(a.segment_bytes, 500, 65535);
        assert_int_equal(a.unsent_bytes, 0);
        uint64_t payload = conn_counted(near_end.conn).out_bytes;
        assert_in_range(a.out_bytes, payload + 8 * a.header_bytes, payload + 100 * a.header_bytes + 8);
        struct conn_wire sum = {.out_bytes = 1000, .resent_bytes = 5};
        conn_wire_add(&sum, near_end.conn);
        assert_true(sum.out_bytes == a.out_bytes + 1000 && sum.in_bytes == a.in_bytes && sum.resent_bytes == a.resent_bytes + 5);
        end(l);
    }
}

static void a_socket_of_this_machine_has_no_wire(void **state) {
    (void)state;
    char address[80];
    (void)snprintf(address, sizeof address, "unix:/tmp/grey-test-wire-%d", (int)getpid());
    struct conn_listener *l = begin(address);
    struct conn_wire w = {.out_bytes = 1};
    assert_false(conn_wired(near_end.conn, &w));
    assert_int_equal(w.out_bytes, 0);
    conn_set_unsent_max(near_end.conn, 1500); /* harmless */
    end(l);
}

/* What waits in the socket cannot be overtaken, and leaves in a burst when the network allows. */
static void little_waits_in_the_socket(void **state) {
    (void)state;
    static uint8_t room[4000000];
    uint64_t waits[2];
    for (int bounded = 0; bounded < 2; bounded++) {
        struct conn_listener *l = begin("127.0.0.1:0");
        struct conn_wire w;
        conn_set_unsent_max(near_end.conn, bounded ? 20000 : 0);
        conn_pause(far_end.conn); /* reads nothing */
        assert_int_equal(conn_write(near_end.conn, bytes_of(room, sizeof room)), E_OK);
        run(100);
        assert_true(conn_wired(near_end.conn, &w));
        waits[bounded] = w.unsent_bytes;
        conn_resume(far_end.conn);
        for (int i = 0; i < 300 && far_end.received < sizeof room; i++) {
            run(10);
        }
        assert_int_equal(far_end.received, sizeof room); /* and it does not stand still */
        end(l);
    }
    assert_true(waits[0] > 300000);
    assert_in_range(waits[1], 0, 20000 + 65536); /* the last write is taken whole */
}

static void congestion_is(const char *wanted) {
    char name[16] = {0};
    socklen_t size = sizeof name - 1;
    assert_return_code(getsockopt(near_end.conn->fd, IPPROTO_TCP, TCP_CONGESTION, name, &size), errno);
    assert_string_equal(name, wanted);
}

/* On a link that is calm and shaped, BBR's looking for the bare round trip shows as pauses; on one that loses packets, what the operator
 * of the machine chose is in force again. */
static void a_calm_link_has_another_congestion_control(void **state) {
    (void)state;
    struct conn_listener *l = begin("127.0.0.1:0");
    char system[16] = {0};
    socklen_t size = sizeof system - 1;
    assert_return_code(getsockopt(near_end.conn->fd, IPPROTO_TCP, TCP_CONGESTION, system, &size), errno);
    conn_set_calm(near_end.conn, false);
    congestion_is(system);
    for (int i = 0; i < 2; i++) {
        conn_set_calm(near_end.conn, true);
        congestion_is("reno");
        assert_int_equal(conn_write(near_end.conn, bytes_of("goes on", 7)), E_OK);
        conn_set_calm(near_end.conn, false);
        congestion_is(system);
        assert_int_equal(conn_write(near_end.conn, bytes_of("goes on", 7)), E_OK);
    }
    run(50);
    assert_int_equal(far_end.received, 28);
    end(l);
}

static void carry(const char *interface, bool on) {
    struct ifreq r = {0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    (void)snprintf(r.ifr_name, sizeof r.ifr_name, "%s", interface);
    assert_return_code(ioctl(fd, SIOCGIFFLAGS, &r), errno);
    r.ifr_flags = (short)(on ? r.ifr_flags | IFF_UP : r.ifr_flags & ~IFF_UP);
    assert_return_code(ioctl(fd, SIOCSIFFLAGS, &r), errno);
    assert_return_code(close(fd), errno);
}

/* If this failed, a gateway would show another whose power failed as healthy, for a quarter of an hour: nobody says that it is gone, and what
 * was sent to it is only sent again. */
static void who_vanishes_without_a_word_is_found_out(void **state) {
    (void)state;
    int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (unshare(CLONE_NEWNET) != 0) {
        print_message("no network of its own can be made here: %s\n", strerror(errno));
        (void)close(own);
        skip();
    }
    for (int busy = 0; busy < 2; busy++) {
        carry("lo", true);
        struct conn_listener *l = begin("127.0.0.1:0");
        conn_set_patience(near_end.conn, 1500);
        run(2500);
        assert_non_null(near_end.conn); /* a quiet one that is there is kept */
        carry("lo", false);
        if (busy == 1) {
            assert_int_equal(conn_write(near_end.conn, bytes_of("anybody there?", 14)), E_OK);
        }
        for (int i = 0; i < 300 && near_end.conn != NULL; i++) {
            run(100);
        }
        assert_null(near_end.conn);
        assert_non_null(far_end.conn); /* which had no such patience set */
        conn_close(far_end.conn);
        conn_listener_close(l);
        worker_stop(x.crypto);
        loop_free(x.loop);
    }
    assert_return_code(setns(own, CLONE_NEWNET), errno);
    (void)close(own);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ends_count_the_same),
        cmocka_unit_test(a_socket_of_this_machine_has_no_wire),
        cmocka_unit_test(little_waits_in_the_socket),
        cmocka_unit_test(a_calm_link_has_another_congestion_control),
        cmocka_unit_test(who_vanishes_without_a_word_is_found_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
