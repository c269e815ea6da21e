#include "agent/launch/sieve.h"

#include <errno.h>
#include <sched.h>
#include <seccomp.h>
#include <string.h>

static const char *const refused[] = {
    "acct",
    "add_key",
    "adjtimex",
    "bpf",
    "chroot",
    "clock_adjtime",
    "clock_settime",
    "create_module",
    "delete_module",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "init_module",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mount",
    "mount_setattr",
    "move_mount",
    "name_to_handle_at",
    "nfsservctl",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pivot_root",
    "process_madvise",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "setdomainname",
    "sethostname",
    "setns",
    "settimeofday",
    "stime",
    "swapoff",
    "swapon",
    "syslog",
    "umount",
    "umount2",
    "unshare",
    "uselib",
    "userfaultfd",
    "vhangup",
    NULL,
};

/* The flags of clone that make namespaces; clone3 takes its flags in memory, where a filter cannot look, so libc is told to use clone. */
#define NAMESPACES (CLONE_NEWCGROUP | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUSER | CLONE_NEWUTS)

const char *const *sieve_refused(void) {
    return refused;
}

uint32_t sieve_namespaces(void) {
    return (uint32_t)NAMESPACES;
}

struct sieve *sieve_new(struct fault *f) {
    scmp_filter_ctx x = seccomp_init(SCMP_ACT_ALLOW);
    int bad = x == NULL ? -ENOMEM : 0;
    for (size_t i = 0; bad == 0 && refused[i] != NULL; i++) {
        int number = seccomp_syscall_resolve_name(refused[i]);
        bad = number == __NR_SCMP_ERROR ? 0 : seccomp_rule_add(x, SCMP_ACT_ERRNO(EPERM), number, 0);
    }
    for (unsigned bit = 0; bad == 0 && bit < 32; bit++) {
        scmp_datum_t flag = (scmp_datum_t)1 << bit;
        if ((flag & (scmp_datum_t)NAMESPACES) != 0) {
            bad = seccomp_rule_add(x, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1, SCMP_A0(SCMP_CMP_MASKED_EQ, flag, flag));
        }
    }
    bad = bad == 0 ? seccomp_rule_add(x, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0) : bad;
    if (bad != 0) {
        errno = -bad;
        (void)fault_errno(f, E_SYSTEM, "the filter of system calls");
        if (x != NULL) {
            seccomp_release(x);
        }
        return NULL;
    }
    (void)seccomp_attr_set(x, SCMP_FLTATR_CTL_NNP, 0); /* whoever loads it has done that */
    return (struct sieve *)x;
}

bool sieve_load(const struct sieve *s) {
    return seccomp_load((scmp_filter_ctx)(uintptr_t)s) == 0;
}

void sieve_free(struct sieve *s) {
    if (s != NULL) {
        seccomp_release((scmp_filter_ctx)s);
    }
}
