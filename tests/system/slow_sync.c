/* slow_sync.c: a library for LD_PRELOAD: syncs of a process take as many milliseconds as the file $SLOW_SYNC says; none, when it is not there.
 * For the test of slow disks (tests/system/test_slow_disk.py); the program under test is the shipped one. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static long now_ms(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void wait_as_told(void) {
    const char *path = getenv("SLOW_SYNC");
    FILE *file = path == NULL ? NULL : fopen(path, "re");
    long ms = 0;
    if (file != NULL) {
        if (fscanf(file, "%ld", &ms) != 1) {
            ms = 0;
        }
        (void)fclose(file);
    }
    long end_ms = now_ms() + ms;                                     /* by the clock: naps are longer on a busy machine */
    while (ms > 0 && now_ms() < end_ms && access(path, F_OK) == 0) { /* the disk is well again when the file is gone */
        struct timespec t = {.tv_nsec = 10000000};
        (void)nanosleep(&t, NULL);
    }
}

int fsync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    wait_as_told();
    return real(fd);
}

int fdatasync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    wait_as_told();
    return real(fd);
}
