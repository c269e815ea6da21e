/* Errands: a service that hangs, dies, floods or is not there must not stop or fill the one who sent it. */
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

#include "platform/errand.h"

static struct loop *loop;
static struct errand errand;
static enum grey_error last;
static struct builder output, heard;
static char words[ERRAND_WORDS_BYTES], folder[] = "/tmp/grey-errand-XXXXXX", path[64];
static uint32_t rounds;
static int door = -1;

/* The service: answers one caller with what `reply` says, as soon as it has heard all; nothing and no end while `hangs`. */
static struct loop_fd bell, caller;
static struct bytes reply;
static bool hangs;

static void on_order(void *context, uint32_t events) {
    uint8_t room[8192];
    (void)context, (void)events;
    ssize_t got = read(caller.fd, room, sizeof room);
    if (got > 0) {
        builder_add(&heard, bytes_of(room, (size_t)got));
        return;
    }
    if (hangs) {
        loop_fd_events(loop, &caller, EPOLLERR);
        return;
    }
    while (reply.size > 0) { /* the reader is on the same loop: no more at once than the socket takes */
        ssize_t wrote = send(caller.fd, reply.data, reply.size, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (wrote <= 0) {
            loop_fd_events(loop, &caller, EPOLLIN | EPOLLOUT);
            return;
        }
        reply = bytes_of(reply.data + wrote, reply.size - (size_t)wrote);
    }
    int fd = caller.fd;
    loop_fd_remove(loop, &caller);
    assert_int_equal(close(fd), 0);
}

static void hang_up(void) {
    if (caller.events != 0) {
        int fd = caller.fd;
        loop_fd_remove(loop, &caller);
        assert_int_equal(close(fd), 0);
    }
}

static void on_bell(void *context, uint32_t events) {
    (void)context, (void)events;
    hang_up();
    builder_reset(&heard);
    int fd = accept(door, NULL, NULL);
    assert_true(fd >= 0);
    caller = (struct loop_fd){.ready = on_order, .fd = -1};
    assert_int_equal(loop_fd_add(loop, &caller, fd, EPOLLIN, NULL), E_OK);
}

static void done(void *context, enum grey_error err, struct bytes out, const char *said) {
    (void)context;
    last = err;
    builder_reset(&output);
    builder_add(&output, out);
    (void)snprintf(words, sizeof words, "%s", said);
    loop_stop(loop);
}

static enum grey_error run(struct bytes answer, const char *input, size_t output_max, uint32_t limit_ms) {
    struct fault f;
    reply = answer;
    assert_int_equal(errand_start(&errand, loop, path, "quote", bytes_str(input), output_max, limit_ms, done, NULL, &f), E_OK);
    assert_int_equal(errand_start(&errand, loop, path, "quote", bytes_str(input), output_max, limit_ms, done, NULL, &f), E_BUSY);
    loop_run(loop);
    assert_false(errand.busy);
    return last;
}

static int begin(void **state) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)state;
    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/door", folder);
    memcpy(address.sun_path, path, strlen(path) + 1);
    door = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(door, (const struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(door, 4), 0);
    bell = (struct loop_fd){.ready = on_bell, .fd = -1};
    builder_init(&heard, 1u << 20);
    return loop_fd_add(loop, &bell, door, EPOLLIN, NULL) == E_OK ? 0 : -1;
}

static int end(void **state) {
    (void)state;
    hang_up();
    loop_fd_remove(loop, &bell);
    builder_free(&heard);
    return close(door) == 0 && unlink(path) == 0 && rmdir(folder) == 0 ? 0 : -1;
}

/* If this failed, what grey-tpm hears or says would be cut or mixed up. */
static void what_goes_in_comes_out(void **state) {
    static uint8_t large[300001];
    (void)state;
    assert_int_equal(run(bytes_of("\0EVIDENCE", 9), "evidence", 100, 60000), E_OK);
    assert_true(bytes_equal_str(builder_bytes(&output), "EVIDENCE"));
    assert_true(bytes_equal_str(builder_bytes(&heard), "quote\nevidence"));
    assert_int_equal(run(bytes_of(large, sizeof large), "", 300000, 60000), E_OK);
    assert_int_equal(output.size, 300000);
    assert_int_equal(run(bytes_of("\0", 1), "", 100, 60000), E_OK);
    assert_int_equal(output.size, 0);
}

/* If this failed, a broken service would pass for a good one. */
static void failures_are_told(void **state) {
    static uint8_t large[5001];
    uint8_t input[ERRAND_INPUT_BYTES_MAX] = {0};
    struct fault f;
    (void)state;
    assert_int_equal(run(bytes_of("\1the TPM is gone", 16), "", 100, 60000), E_SYSTEM);
    assert_string_equal(words, "the TPM is gone");
    assert_int_equal(output.size, 0);
    assert_int_equal(run(bytes_of(NULL, 0), "", 100, 60000), E_SYSTEM); /* it died */
    assert_non_null(strstr(words, "without a word"));
    assert_int_equal(run(bytes_of("\7what", 5), "", 100, 60000), E_SYSTEM);
    assert_int_equal(run(bytes_of(large, 2001), "", 1999, 60000), E_TOO_LARGE);
    memset(large, 'x', sizeof large);
    large[0] = ERRAND_FAILED;
    assert_int_equal(run(bytes_of(large, sizeof large), "", 6000, 60000), E_SYSTEM);
    assert_int_equal(strlen(words), ERRAND_WORDS_BYTES - 1);
    assert_int_equal(errand_start(&errand, loop, "/nonexistent/door", "quote", bytes_str(""), 10, 60000, done, NULL, &f), E_SYSTEM);
    assert_non_null(strstr(f.text, "/nonexistent/door"));
    assert_int_equal(errand_start(&errand, loop, path, "quote", bytes_of(input, sizeof input - 5), 10, 60000, done, NULL, &f),
                     E_TOO_LARGE);
    assert_false(errand.busy);
}

/* If this failed, a TPM that hangs would hang attestation for good. */
static void what_hangs_is_ended(void **state) {
    (void)state;
    hangs = true;
    assert_int_equal(run(bytes_of(NULL, 0), "", 100, 50), E_TIMEOUT);
    assert_int_equal(errand_start(&errand, loop, path, "quote", bytes_str(""), 10, 60000, done, NULL, NULL), E_OK);
    errand_stop(&errand); /* and one that is not wanted any more */
    errand_stop(&errand);
    assert_false(errand.busy);
    hangs = false;
}

static void once_more(void *context, enum grey_error err, struct bytes out, const char *said) {
    (void)context, (void)out, (void)said;
    assert_int_equal(err, E_OK);
    if (++rounds == 3) {
        loop_stop(loop);
        return;
    }
    reply = bytes_of("\0", 1);
    assert_int_equal(errand_start(&errand, loop, path, "activate", bytes_str(""), 10, 60000, once_more, NULL, NULL), E_OK);
}

/* If this failed, one step of attestation could not follow the other. */
static void one_follows_the_other(void **state) {
    (void)state;
    once_more(NULL, E_OK, bytes_of(NULL, 0), "");
    loop_run(loop);
    assert_int_equal(rounds, 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_goes_in_comes_out), cmocka_unit_test(failures_are_told),
                                       cmocka_unit_test(what_hangs_is_ended), cmocka_unit_test(one_follows_the_other)};
    struct fault f;
    loop = loop_new(&f);
    builder_init(&output, 1u << 20);
    int failed = loop == NULL ? 1 : cmocka_run_group_tests(tests, begin, end);
    builder_free(&output);
    loop_free(loop);
    return failed;
}
