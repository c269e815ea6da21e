/* The core and its worker: if this failed, a task that must run once would run twice because a worker lost its memory, a site could order what
 * no site may, or a core would hang for minutes behind a worker that stands still. */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "core/commission.h"
#include "core/offloads.h"
#include "core/store_offloads.h"
#include "platform/json.h"
#include "platform/now.h"
#include "tests/unit/store_rig.h"

#define ONCE "{\"command\":[\"a\"],\"delivery\":\"at-most-once\"}"
#define OFTEN "{\"command\":[\"a\"],\"delivery\":\"at-least-once\"}"
#define REQUEST_BYTES 4096u

/* The worker: a thread that answers one request after the other as `answer` says; with NULL it closes without a word. */
static struct {
    pthread_t thread;
    int door;
    char address[128];
    _Atomic unsigned posts, gets, calls;
    _Atomic(const char *) post, get;
    _Atomic unsigned pause_ms;
    char body[REQUEST_BYTES]; /* of the last order; the thread's until it has ended */
} worker;

/* The site, in place of ingest: what it was told last. */
static struct {
    unsigned told;
    enum offload_end end;
    int32_t exit_status;
} site;

void ingest_has_worker(struct ingest *g) {
    (void)g;
}

uint64_t ingest_pace_us(struct ingest *g, const char *name, size_t bytes) {
    (void)g, (void)name, (void)bytes;
    return 0;
}

enum grey_error ingest_tell(struct ingest *g, const struct grey_name *name, struct bytes content) {
    (void)g, (void)name;
    struct offload_result r;
    assert_int_equal(offload_get_result(content, &r), E_OK);
    site.told++;
    site.end = r.end;
    site.exit_status = r.exit_status;
    return E_OK;
}

static void pause_ms(unsigned ms) {
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    (void)nanosleep(&t, NULL);
}

/* All of a request: what follows the empty line is as long as it says. */
static bool hear(int fd, char *text, size_t room) {
    size_t size = 0;
    for (;;) {
        ssize_t got = read(fd, text + size, room - 1 - size);
        if (got <= 0) {
            return false;
        }
        size += (size_t)got;
        text[size] = 0;
        const char *end = strstr(text, "\r\n\r\n"), *length = strstr(text, "Content-Length: ");
        size_t body = length == NULL ? 0 : strtoul(length + 16, NULL, 10);
        if (end != NULL && strlen(end + 4) >= body) {
            return true;
        }
    }
}

static void *serve(void *context) {
    (void)context;
    for (;;) {
        char text[REQUEST_BYTES], out[REQUEST_BYTES];
        int fd = accept(worker.door, NULL, NULL);
        if (fd < 0) {
            return NULL;
        }
        if (hear(fd, text, sizeof text)) {
            bool post = text[0] == 'P';
            const char *what = post ? worker.post : strstr(text, "/logs") || strstr(text, "/proof") ? "404 {}" : worker.get;
            if (post) {
                (void)strcpy(worker.body, strstr(text, "\r\n\r\n") + 4);
            }
            worker.posts += post;
            worker.gets += !post;
            worker.calls++;
            pause_ms(worker.pause_ms);
            if (what != NULL) {
                int size =
                    snprintf(out, sizeof out, "HTTP/1.1 %.3s x\r\nContent-Length: %zu\r\n\r\n%s", what, strlen(what + 4), what + 4);
                (void)!write(fd, out, (size_t)size);
            }
        }
        (void)close(fd);
    }
}

static void worker_says(const char *post, const char *get, unsigned ms) {
    worker.post = post;
    worker.get = get;
    worker.pause_ms = ms;
    worker.posts = worker.gets = worker.calls = 0;
    site.told = 0;
}

static void worker_open(void) {
    struct sockaddr_un u = {.sun_family = AF_UNIX};
    (void)snprintf(u.sun_path, sizeof u.sun_path, "%s/worker", dir);
    (void)snprintf(worker.address, sizeof worker.address, "unix:%s/worker", dir);
    worker.door = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(worker.door, (struct sockaddr *)&u, sizeof u), 0);
    assert_int_equal(listen(worker.door, 64), 0);
    assert_int_equal(pthread_create(&worker.thread, NULL, serve, NULL), 0);
}

static void worker_close(void) {
    (void)shutdown(worker.door, SHUT_RDWR);
    (void)pthread_join(worker.thread, NULL);
    (void)close(worker.door);
}

/* The core. */
static struct loop *loop;
static struct store *store;
static struct worker *storage;
static struct offloads *offloads;
static struct loop_timer look;
static bool (*awaited)(void);

static void core_start(void) {
    struct fault f = {0};
    loop = loop_new(&f);
    store = open_store();
    storage = worker_new(loop, "storage", BATCH_JOBS_MAX, batch_run, store, &f);
    offloads = offloads_new(loop, storage, NULL, worker.address, &f);
    assert_non_null(offloads);
}

static void core_stop(void) {
    offloads_stop(offloads);
    worker_stop(storage);
    offloads_free(offloads);
    store_close(store);
    loop_free(loop);
}

static void on_look(void *context) {
    (void)context;
    if (awaited()) {
        loop_stop(loop);
    } else {
        loop_timer_after(loop, &look, 5);
    }
}

static void run_until(bool (*what)(void)) {
    awaited = what;
    look = (struct loop_timer){.fire = on_look};
    loop_timer_after(loop, &look, 0);
    loop_run(loop);
}

static void site_gives(unsigned count, const char *errand) {
    struct store *s = open_store();
    site_hello(s, "plant");
    for (unsigned i = 1; i <= count; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "press/%u", i);
        site_says(s, "plant", i, OFFLOAD_GIVEN, name, errand);
    }
    store_close(s);
}

static bool has_looked_twice(void) {
    return worker.gets >= 2;
}

static bool was_told(void) {
    return site.told > 0;
}

static bool has_called(void) {
    return worker.calls > 0;
}

static bool has_called_three_times(void) {
    return worker.calls >= 3;
}

static void taken_then_forgotten(const char *errand) {
    site_gives(1, errand);
    worker_open();
    worker_says("201 {}", "200 {\"state\":\"running\"}", 0);
    core_start();
    run_until(has_looked_twice);
    assert_int_equal(worker.posts, 1); /* from then on it only asks */
    core_stop();
    worker_says("400 {}", "404 {}", 0); /* the worker's disk was exchanged, say; and the core begins anew */
    core_start();
    run_until(was_told);
    core_stop();
    worker_close();
    assert_int_equal(worker.posts, 0);
}

static void what_was_taken_is_not_refused_later(void **state) {
    (void)state;
    taken_then_forgotten(ONCE);
    assert_true(site.end == OFFLOAD_FAILED && site.exit_status != 0); /* it may have run: the site must not run it */
}

static void what_may_run_again_comes_back(void **state) {
    (void)state;
    taken_then_forgotten(OFTEN);
    assert_int_equal(site.end, OFFLOAD_REFUSED);
}

/* The answer to the first order was lost, and the second does not please: it runs there all the same. */
static void a_refusal_counts_only_when_it_is_not_there(void **state) {
    (void)state;
    site_gives(1, ONCE);
    worker_open();
    worker_says("409 {}", "200 {\"state\":\"completed\",\"exit_status\":0}", 0);
    core_start();
    run_until(was_told);
    core_stop();
    assert_int_equal(site.end, OFFLOAD_COMPLETED);
    worker_close();
}

static void what_was_never_taken_is_refused(void **state) {
    (void)state;
    site_gives(1, ONCE);
    worker_open();
    worker_says("413 {}", "404 {}", 0);
    core_start();
    run_until(was_told);
    core_stop();
    assert_int_equal(site.end, OFFLOAD_REFUSED);
    worker_close();
}

/* The worker is a place that all sites share: none may choose a name there, act for another tenant, or reach what only its operator may. */
static void a_site_says_only_what_a_site_may(void **state) {
    (void)state;
    site_gives(1,
               "{\"id\":\"mine\",\"tenant\":\"other\",\"namespace\":\"x\",\"artifact\":{\"name\":\"a\"},\"schedule\":\"* * * * *\","
               "\"resources\":{\"cpu_millicores\":5,\"gpu\":1},\"command\":[\"a\",\"\\u00e9\"],\"env\":{\"K\":\"v\"},"
               "\"stdin\":\"in\",\"lane\":\"bulk\",\"delivery\":\"at-most-once\",\"timeout_seconds\":9}");
    worker_open();
    worker_says("201 {}", "200 {\"state\":\"running\"}", 0);
    core_start();
    run_until(has_looked_twice);
    core_stop();
    worker_close();
    struct fault f = {0};
    json_t *doc = json_read(bytes_str(worker.body), &f);
    const char *id = json_string_value(json_object_get(doc, "id"));
    assert_true(id != NULL && strncmp(id, "offload-", 8) == 0);
    assert_string_equal(json_string_value(json_object_get(doc, "tenant")), "plant");
    assert_string_equal(json_string_value(json_array_get(json_object_get(doc, "command"), 1)), "\xc3\xa9");
    assert_string_equal(json_string_value(json_object_get(json_object_get(doc, "env"), "K")), "v");
    assert_string_equal(json_string_value(json_object_get(doc, "stdin")), "in");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(doc, "resources"), "cpu_millicores")), 5);
    assert_int_equal(json_object_size(json_object_get(doc, "resources")), 1);
    assert_int_equal(json_object_size(doc), 9); /* and nothing else */
    json_decref(doc);
}

static void what_is_no_errand_is_none(void **state) {
    (void)state;
    static const char *const broken[] = {"", "{", "[]", "{\"command\":[\"a\"]},\"tenant\":\"x\"}", "{\"a\":1,\"a\":2}"};
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        struct builder out;
        struct fault f = {0};
        builder_init(&out, 1024);
        assert_int_not_equal(commission_write(&out, "x", NULL, bytes_str(broken[i]), &f), E_OK);
        assert_true(commission_is_once(bytes_str(broken[i])));
        builder_free(&out);
    }
    assert_true(commission_is_once(bytes_str(ONCE)));
    assert_false(commission_is_once(bytes_str(OFTEN)));
}

/* Rounds are a second apart: three calls that nobody answered are three rounds. */
static void a_round_ends_with_the_first_call_that_is_not_answered(void **state) {
    (void)state;
    site_gives(8, OFTEN);
    worker_open();
    worker_says(NULL, NULL, 0);
    core_start();
    uint64_t since_ms = now_monotonic_ms();
    run_until(has_called_three_times);
    assert_true(now_monotonic_ms() - since_ms >= 2000);
    core_stop();
    worker_close();
}

static void a_core_that_stops_waits_for_one_call_only(void **state) {
    (void)state;
    site_gives(16, OFTEN);
    worker_open();
    worker_says("201 {}", "200 {\"state\":\"running\"}", 300);
    core_start();
    run_until(has_called);
    core_stop();
    assert_true(worker.calls < 16);
    worker_close();
}

#define ON(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {ON(what_was_taken_is_not_refused_later),
                                       ON(what_may_run_again_comes_back),
                                       ON(a_refusal_counts_only_when_it_is_not_there),
                                       ON(what_was_never_taken_is_refused),
                                       ON(a_site_says_only_what_a_site_may),
                                       cmocka_unit_test(what_is_no_errand_is_none),
                                       ON(a_round_ends_with_the_first_call_that_is_not_answered),
                                       ON(a_core_that_stops_waits_for_one_call_only)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
