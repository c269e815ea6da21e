/* scarce_memory.c: a library to preload: some allocations of the process fail.  The file $SCARCE_FILE holds two numbers (8 bytes each, this machine's
 * order): each allocation takes one off the first, and the one that makes it 0 fails, and as many behind it as the second says, which is counted
 * down as well.  Below 1 nothing is counted.  A test may write other numbers at any time: the second first. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *p, size_t size);

static _Atomic(long) *left;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("SCARCE_FILE");
    int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    void *p = fd < 0 ? MAP_FAILED : mmap(NULL, 2 * sizeof *left, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    left = p == MAP_FAILED ? NULL : p;
    if (fd >= 0) {
        (void)close(fd);
    }
}

static int refused(void) {
    if (left == NULL) {
        return 0;
    }
    long now = atomic_load(&left[0]);
    bool more = now == 0 && atomic_load(&left[1]) > 0 && atomic_fetch_sub(&left[1], 1) > 0;
    if (!more && (now <= 0 || atomic_fetch_sub(&left[0], 1) != 1)) {
        return 0;
    }
    errno = ENOMEM;
    return 1;
}

void *malloc(size_t size) {
    return refused() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    return refused() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *p, size_t size) {
    return refused() ? NULL : __libc_realloc(p, size);
}
