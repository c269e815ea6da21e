/* If this fails, systemd kills gateways that are well, or leaves one alone that has hung: the site counts on it and gets nothing. */
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

#include "platform/log.h"
#include "platform/supervise.h"

#define WATCHDOG_USEC "30000" /* a beat each 10 ms */

static struct loop *loop;
static int manager;
static bool gets_on;
static unsigned asked;

static void listen_at(const struct sockaddr_un *address, size_t size) {
    manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    assert_true(manager >= 0);
    assert_int_equal(bind(manager, (const struct sockaddr *)(const void *)address, (socklen_t)size), 0);
}

/* A manager with a name that only this test has. */
static const char *listen_anywhere(void) {
    static char name[sizeof((struct sockaddr_un *)0)->sun_path];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int size = snprintf(name, sizeof name, "@grey-test-supervise-%d", (int)getpid());
    memcpy(address.sun_path + 1, name + 1, (size_t)size - 1);
    listen_at(&address, offsetof(struct sockaddr_un, sun_path) + (size_t)size);
    return name;
}

/* The next word to the manager, "" when there is none. */
static const char *heard(void) {
    static char words[512];
    ssize_t got = recv(manager, words, sizeof words - 1, 0);
    words[got < 0 ? 0 : got] = 0;
    return words;
}

static unsigned count_heard(const char *word) {
    unsigned count = 0;
    for (const char *words = heard(); words[0] != 0; words = heard()) {
        count += strncmp(words, word, strlen(word)) == 0;
    }
    return count;
}

static bool alive(void *context, char *why, size_t size) {
    (void)context;
    asked++;
    (void)snprintf(why, size, "the test says so");
    if (asked == 3) {
        loop_stop(loop);
    }
    return gets_on;
}

static void run_three_beats(void) {
    asked = 0;
    loop_run(loop);
}

static int set_up(void **state) {
    (void)state;
    log_configure(LOG_ERROR, LOG_PRETTY);
    loop = loop_new(NULL);
    gets_on = true;
    manager = -1;
    return loop == NULL;
}

static int tear_down(void **state) {
    (void)state;
    loop_free(loop);
    return manager < 0 ? 0 : close(manager);
}

static void nothing_is_said_without_a_manager(void **state) {
    (void)state;
    struct supervise s;
    struct supervise_options o = {.socket = NULL, .watchdog_usec = WATCHDOG_USEC, .alive = alive};
    assert_int_equal(supervise_begin(&s, loop, &o, NULL), E_OK);
    supervise_ready(&s, "on");
    assert_int_equal(s.timer.place, 0); /* no timer wakes an unsupervised process */
    supervise_stopping(&s);
    supervise_end(&s);
}

static void a_start_asks_for_patience_then_says_ready(void **state) {
    (void)state;
    struct supervise s;
    struct supervise_options o = {.socket = listen_anywhere()};
    assert_int_equal(supervise_begin(&s, loop, &o, NULL), E_OK);
    assert_string_equal(heard(), "EXTEND_TIMEOUT_USEC=600000000");
    supervise_status(&s, "mends its log");
    assert_string_equal(heard(), "STATUS=mends its log");
    supervise_ready(&s, "takes part");
    assert_string_equal(heard(), "READY=1\nSTATUS=takes part");
    assert_string_equal(heard(), ""); /* no watchdog was asked for */
    supervise_reloading(&s);
    assert_memory_equal(heard(), "RELOADING=1\nMONOTONIC_USEC=", 27);
    supervise_ready(&s, "");
    assert_string_equal(heard(), "READY=1");
    supervise_stopping(&s);
    assert_string_equal(heard(), "STOPPING=1");
    supervise_end(&s);
}

static void the_watchdog_is_fed_only_while_work_gets_on(void **state) {
    (void)state;
    struct supervise s;
    struct supervise_options o = {.socket = listen_anywhere(), .watchdog_usec = WATCHDOG_USEC, .alive = alive};
    assert_int_equal(supervise_begin(&s, loop, &o, NULL), E_OK);
    assert_int_equal(s.beat_ms, 10);
    assert_int_equal(count_heard("WATCHDOG=1"), 0); /* not before it is ready */
    supervise_ready(&s, "");
    run_three_beats();
    assert_int_equal(count_heard("WATCHDOG=1"), 4);
    gets_on = false;
    run_three_beats();
    assert_string_equal(heard(), "STATUS=watchdog not fed: the test says so");
    assert_string_equal(heard(), ""); /* said once */
    gets_on = true;
    run_three_beats();
    assert_int_equal(count_heard("WATCHDOG=1"), 3);
    supervise_end(&s);
}

static void a_watchdog_for_another_process_is_left_to_it(void **state) {
    (void)state;
    struct supervise s;
    struct supervise_options o = {.socket = listen_anywhere(), .watchdog_usec = WATCHDOG_USEC, .watchdog_pid = "1", .alive = alive};
    assert_int_equal(supervise_begin(&s, loop, &o, NULL), E_OK);
    assert_int_equal(s.beat_ms, 0);
    supervise_end(&s);
    char own[16];
    (void)snprintf(own, sizeof own, "%d", (int)getpid());
    o.watchdog_pid = own;
    assert_int_equal(supervise_begin(&s, loop, &o, NULL), E_OK);
    assert_int_equal(s.beat_ms, 10);
    supervise_end(&s);
}

static void a_manager_at_a_path_that_goes_away_is_no_fault(void **state) {
    (void)state;
    struct supervise s;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char directory[] = "/tmp/grey-test-XXXXXX";
    assert_non_null(mkdtemp(directory));
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s/notify", directory);
    listen_at(&address, sizeof address);
    struct supervise_options o = {.socket = address.sun_path, .watchdog_usec = WATCHDOG_USEC, .alive = alive};
    assert_int_equal(supervise_begin(&s, loop, &o, NULL), E_OK);
    assert_int_equal(count_heard("EXTEND_TIMEOUT_USEC="), 1);
    (void)close(manager);
    assert_int_equal(unlink(address.sun_path), 0);
    supervise_ready(&s, "");
    run_three_beats(); /* nobody hears them */
    listen_at(&address, sizeof address);
    run_three_beats();
    assert_int_equal(count_heard("WATCHDOG=1"), 3); /* a manager that was restarted hears it again */
    supervise_end(&s);
    (void)unlink(address.sun_path);
    (void)rmdir(directory);
}

static void nonsense_in_the_environment_is_named(void **state) {
    (void)state;
    char long_path[200];
    memset(long_path, 'x', sizeof long_path);
    long_path[0] = '/';
    long_path[sizeof long_path - 1] = 0;
    const struct supervise_options bad[] = {
        {.socket = "notify"},
        {.socket = "@"},
        {.socket = long_path},
        {.socket = "/run/notify", .watchdog_usec = "soon"},
        {.socket = "/run/notify", .watchdog_usec = "-1"},
        {.socket = "/run/notify", .watchdog_usec = "5", .watchdog_pid = "me"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct supervise s;
        struct fault f = {0};
        assert_int_equal(supervise_begin(&s, loop, &bad[i], &f), E_CONFIG);
        assert_true(f.text[0] != 0);
        supervise_ready(&s, "says nothing, to nobody");
        supervise_end(&s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(nothing_is_said_without_a_manager, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_start_asks_for_patience_then_says_ready, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_watchdog_is_fed_only_while_work_gets_on, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_watchdog_for_another_process_is_left_to_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_manager_at_a_path_that_goes_away_is_no_fault, set_up, tear_down),
        cmocka_unit_test_setup_teardown(nonsense_in_the_environment_is_named, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
