/* scarce_unit.c: a library to preload to a unit test: of its allocations, whichever library makes them, the $SCARCE_AT-th fails, and $SCARCE_RUN - 1
 * behind it.  At the end the number of all is written to the file $SCARCE_COUNT.  A crash is told with its place, as addresses to give to
 * addr2line, instead of being caught by the test's frame. */
#define _GNU_SOURCE
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *p, size_t size);

static atomic_long count, first, last;
static pid_t whole;
static _Thread_local int quiet;

static void crashed(int number) {
    void *frames[48];
    char text[64];
    quiet = 1;
    int size = snprintf(text, sizeof text, "scarce: signal %d\n", number);
    if (write(2, text, (size_t)size) == size) {
        backtrace_symbols_fd(frames, backtrace(frames, 48), 2);
    }
    (void)sigaction(number, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
    (void)raise(number);
    _exit(128 + number);
}

__attribute__((constructor)) static void begin(void) {
    const char *at = getenv("SCARCE_AT"), *run = getenv("SCARCE_RUN");
    void *frame;
    (void)backtrace(&frame, 1); /* what it needs is loaded now */
    const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    for (size_t i = 0; i < sizeof crashes / sizeof crashes[0]; i++) {
        (void)sigaction(crashes[i], &(struct sigaction){.sa_handler = crashed}, NULL);
    }
    whole = getpid();
    atomic_store(&count, 0);
    if (at != NULL) {
        atomic_store(&first, atol(at));
        atomic_store(&last, atol(at) + (run == NULL ? 1 : atol(run)) - 1);
    }
}

__attribute__((destructor)) static void end(void) {
    const char *path = getenv("SCARCE_COUNT");
    char text[32];
    if (path != NULL && getpid() == whole) {
        int size = snprintf(text, sizeof text, "%ld\n", atomic_load(&count)), fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        if (fd < 0 || write(fd, text, (size_t)size) != size) {
            perror(path);
        }
    }
}

/* The test's frame must not catch what is looked for. */
typedef void (*handler)(int);
handler signal(int number, handler h) {
    struct sigaction a = {.sa_handler = h}, before = {.sa_handler = SIG_DFL};
    if (number == SIGSEGV || number == SIGBUS || number == SIGFPE || number == SIGILL || number == SIGABRT) {
        return SIG_DFL;
    }
    return sigaction(number, &a, &before) == 0 ? before.sa_handler : SIG_ERR;
}

static int refused(void) {
    if (quiet) {
        return 0;
    }
    long n = atomic_fetch_add(&count, 1) + 1;
    if (n < atomic_load(&first) || n > atomic_load(&last)) {
        return 0;
    }
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size) {
    return refused() ? NULL : __libc_malloc(size);
}

void *calloc(size_t items, size_t size) {
    return refused() ? NULL : __libc_calloc(items, size);
}

void *realloc(void *p, size_t size) {
    return refused() ? NULL : __libc_realloc(p, size);
}
