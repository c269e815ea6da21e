/* slots_rig.h: the power goes at a step of what a gateway does to its slots. */
#ifndef TESTS_SLOTS_RIG_H
#define TESTS_SLOTS_RIG_H

#include <stdbool.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/slots/slots.h"

#define CUT_STATUS 77

static inline void count_down(void *context, const char *step) {
    unsigned *left = context;
    (void)step;
    if (*left == 0) {
        _exit(CUT_STATUS);
    }
    (*left)--;
}

/* The deed, in a process that ends at its n-th step.  False: it came through. */
static inline bool cut_at(const char *dir, const char *base, unsigned n, enum grey_error (*deed)(struct slots *s)) {
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct slots s;
        struct fault f;
        if (slots_open(&s, dir, base, &f) != E_OK) {
            _exit(1);
        }
        s.before = count_down;
        s.context = &n;
        _exit(deed(&s) == E_OK ? 0 : 2);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == CUT_STATUS));
    return WEXITSTATUS(status) == CUT_STATUS;
}

#endif
