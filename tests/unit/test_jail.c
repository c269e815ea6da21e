/* If this failed, whoever takes over the agent through a fault of ours could run programs and code of his own on the gateway. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "agent/jail.h"

enum { CANNOT = 77 };

/* What becomes of a child that does this in the jail: its exit code, or minus the signal. */
static int in_jail(int (*deed)(void)) {
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        struct fault f = {0};
        _exit(jail_enter(&f) != E_OK ? CANNOT : deed());
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == CANNOT) {
        print_message("# SKIP no process can be jailed here: a sanitizer needs other calls, or the kernel has no seccomp\n");
        skip();
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static int run_program(void) {
    char *const arguments[] = {"true", NULL};
    (void)execv("/bin/true", arguments);
    return 1;
}

static int make_process(void) {
    pid_t pid = fork();
    return pid == 0 ? 0 : 1;
}

static int look_into_others(void) {
    return ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0 ? 0 : 1;
}

static int load_bpf(void) {
    return syscall(__NR_bpf, 0, NULL, 0) >= 0 ? 0 : 1;
}

static int change_user(void) {
    return syscall(__NR_setuid, getuid()) == 0 ? 0 : 1;
}

static void intruders_end(void **state) {
    (void)state;
    int (*const deeds[])(void) = {run_program, make_process, look_into_others, load_bpf, change_user};
    for (size_t i = 0; i < sizeof deeds / sizeof deeds[0]; i++) {
        assert_int_equal(in_jail(deeds[i]), -SIGSYS);
    }
}

static int write_and_run(void) {
    size_t size = 4096;
    void *both = mmap(NULL, size, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void *data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool gained = data != MAP_FAILED && mprotect(data, size, PROT_READ | PROT_EXEC) == 0;
    return both == MAP_FAILED && data != MAP_FAILED && !gained ? 0 : 1;
}

static void no_memory_is_written_and_run(void **state) {
    (void)state;
    assert_int_equal(in_jail(write_and_run), 0);
}

static int unknown_call(void) {
    errno = 0;
    return syscall(__NR_inotify_init1, 0) == -1 && errno == ENOSYS ? 0 : 1;
}

static void a_call_that_is_not_known_is_not_there(void **state) {
    (void)state;
    assert_int_equal(in_jail(unknown_call), 0);
}

static void *thread(void *context) {
    *(int *)context = 5;
    return NULL;
}

static int work_as_usual(void) {
    pthread_t t;
    int value = 0, fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    bool written = fd >= 0 && write(fd, "x", 1) == 1 && close(fd) == 0;
    bool joined = pthread_create(&t, NULL, thread, &value) == 0 && pthread_join(t, NULL) == 0;
    return written && joined && value == 5 && malloc(1 << 20) != NULL ? 0 : 1;
}

static void work_goes_on(void **state) {
    (void)state;
    assert_int_equal(in_jail(work_as_usual), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(intruders_end),
        cmocka_unit_test(no_memory_is_written_and_run),
        cmocka_unit_test(a_call_that_is_not_known_is_not_there),
        cmocka_unit_test(work_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
