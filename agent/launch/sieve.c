#include "agent/launch/sieve.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "platform/bytes.h"

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

/* Ready to be loaded: a task's process, which has no memory to ask for, makes one system call. */
struct sieve {
    struct sock_fprog program;
};

static int fill(scmp_filter_ctx x) {
    int bad = 0;
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
    return bad == 0 ? seccomp_rule_add(x, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0) : bad;
}

/* What libseccomp would load, as it writes it to a file. */
static int translate(scmp_filter_ctx x, struct sieve *s) {
    int fd = memfd_create("sieve", MFD_CLOEXEC), bad = fd < 0 ? -errno : seccomp_export_bpf(x, fd);
    off_t size = bad == 0 ? lseek(fd, 0, SEEK_END) : 0;
    if (bad == 0 &&
        (size <= 0 || size % (off_t)sizeof(struct sock_filter) != 0 || size / (off_t)sizeof(struct sock_filter) > BPF_MAXINSNS)) {
        bad = -EINVAL;
    }
    if (bad == 0) {
        s->program.len = (unsigned short)(size / (off_t)sizeof(struct sock_filter));
        s->program.filter = mem_new(s->program.len, sizeof(struct sock_filter));
        bad = s->program.filter == NULL ? -ENOMEM : pread(fd, s->program.filter, (size_t)size, 0) == size ? 0 : -EIO;
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return bad;
}

struct sieve *sieve_new(struct fault *f) {
    struct sieve *s = mem_new(1, sizeof *s);
    scmp_filter_ctx x = s == NULL ? NULL : seccomp_init(SCMP_ACT_ALLOW);
    int bad = x == NULL ? -ENOMEM : fill(x);
    bad = bad == 0 ? translate(x, s) : bad;
    if (x != NULL) {
        seccomp_release(x);
    }
    if (bad != 0) {
        errno = -bad;
        (void)fault_errno(f, E_SYSTEM, "the filter of system calls");
        sieve_free(s);
        return NULL;
    }
    return s;
}

bool sieve_load(const struct sieve *s) {
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &s->program, 0, 0) == 0;
}

void sieve_free(struct sieve *s) {
    if (s != NULL) {
        mem_free(s->program.filter);
        mem_free(s);
    }
}
