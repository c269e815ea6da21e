#include "agent/jail.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "platform/bytes.h"

#if defined(__x86_64__)
#define OUR_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OUR_ARCH AUDIT_ARCH_AARCH64
#elif defined(__arm__) && defined(__ARMEL__)
#define OUR_ARCH AUDIT_ARCH_ARM
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#undef OUR_ARCH
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#undef OUR_ARCH
#endif
#endif

#ifndef PR_SET_MDWE /* Linux 6.3 */
#define PR_SET_MDWE 65
#define PR_MDWE_REFUSE_EXEC_GAIN 1ul
#endif
#define X32_BIT 0x40000000u

#ifndef OUR_ARCH

enum grey_error jail_enter(struct fault *f) {
    return fault_set(f, E_NOT_HERE_YET, "this build knows no list of system calls");
}

#else

/* What greyd and its libraries call, the most frequent ones first: the filter is read from the top (newer kernels remember its answers). */
static const int allowed[] = {
#ifdef __NR_epoll_wait
    __NR_epoll_wait,
#endif
    __NR_epoll_pwait,
    __NR_read,
    __NR_write,
    __NR_clock_gettime,
    __NR_futex,
    __NR_sendto,
    __NR_recvfrom,
    __NR_pwrite64,
    __NR_pread64,
    __NR_fdatasync,
#ifdef __NR_clock_gettime64
    __NR_clock_gettime64,
    __NR_clock_nanosleep_time64,
    __NR_futex_time64,
    __NR_ppoll_time64,
    __NR_pselect6_time64,
    __NR_recvmmsg_time64,
    __NR_clock_getres_time64,
    __NR_utimensat_time64,
#endif
    __NR_epoll_ctl,
    __NR_close,
    __NR_openat,
    __NR_fstat,
    __NR_getrandom,
    __NR_getsockopt,
    __NR_setsockopt,
    __NR_accept4,
    __NR_socket,
    __NR_connect,
    __NR_shutdown,
    __NR_fcntl,
#ifdef __NR_fcntl64
    __NR_fcntl64,
#endif
    /* files */
    __NR_fsync,
    __NR_ftruncate,
    __NR_fallocate,
    __NR_flock,
    __NR_lseek,
#ifdef __NR_newfstatat
    __NR_newfstatat,
#endif
    __NR_statx,
    __NR_statfs,
    __NR_fstatfs,
    __NR_faccessat,
    __NR_fchmod,
    __NR_fchmodat,
    __NR_fchown,
    __NR_fchownat,
    __NR_getdents64,
    __NR_unlinkat,
    __NR_mkdirat,
    __NR_renameat,
    __NR_renameat2,
    __NR_readlinkat,
    __NR_linkat,
    __NR_symlinkat,
    __NR_utimensat,
    __NR_readv,
    __NR_preadv,
    __NR_pwritev,
    __NR_sendfile,
    __NR_copy_file_range,
    __NR_msync,
    __NR_fchdir,
    __NR_chdir,
    __NR_writev,
    __NR_umask,
    __NR_ioctl, /* FIONREAD, terminals */
    __NR_pipe2,
    __NR_dup,
    __NR_dup3,
    __NR_getcwd,
    /* sockets */
    __NR_bind,
    __NR_listen,
    __NR_getsockname,
    __NR_getpeername,
    __NR_sendmsg,
    __NR_recvmsg,
    __NR_sendmmsg,
    __NR_recvmmsg,
    __NR_socketpair,
    __NR_ppoll,
    __NR_pselect6,
    __NR_epoll_create1,
    __NR_eventfd2,
    __NR_timerfd_create,
    __NR_timerfd_settime,
    __NR_signalfd4,
    /* memory and threads */
    __NR_brk,
    __NR_munmap,
    __NR_mremap,
    __NR_madvise,
    __NR_membarrier,
    __NR_set_robust_list,
    __NR_get_robust_list,
    __NR_rseq,
    __NR_set_tid_address,
    __NR_sched_yield,
    __NR_sched_getaffinity,
    __NR_gettid,
    __NR_getpid,
    __NR_exit,
    __NR_exit_group,
    __NR_restart_syscall,
    /* signals and time */
    __NR_rt_sigaction,
    __NR_rt_sigprocmask,
    __NR_rt_sigreturn,
    __NR_rt_sigpending,
    __NR_rt_sigtimedwait,
    __NR_sigaltstack,
    __NR_tgkill, /* abort() */
    __NR_nanosleep,
    __NR_clock_nanosleep,
    __NR_clock_getres,
    __NR_gettimeofday,
    /* who and what we are */
    __NR_getuid,
    __NR_geteuid,
    __NR_getgid,
    __NR_getegid,
    __NR_getppid,
    __NR_getrusage,
    __NR_sysinfo,
    __NR_uname,
    __NR_prlimit64,
    __NR_prctl, /* names of threads; what it could take back cannot be taken back */
#ifdef __NR_getuid32
    __NR_getuid32,
    __NR_geteuid32,
    __NR_getgid32,
    __NR_getegid32,
    __NR_fstat64,
    __NR_stat64,
    __NR_lstat64,
    __NR_fstatat64,
    __NR_statfs64,
    __NR_fstatfs64,
    __NR_ftruncate64,
    __NR__llseek,
    __NR_mmap2,
    __NR_sigreturn,
    __NR_send,
    __NR_recv,
    __NR_chown32,
    __NR_fchown32,
    __NR_ugetrlimit,
    __NR__newselect,
#endif
#ifdef __ARM_NR_BASE
    __ARM_NR_BASE + 2, /* cacheflush */
    __ARM_NR_BASE + 5, /* set_tls */
#endif
#ifdef __NR_open /* processors that still have the calls before the ...at ones */
    __NR_open,
    __NR_stat,
    __NR_lstat,
    __NR_access,
    __NR_poll,
    __NR_unlink,
    __NR_mkdir,
    __NR_rmdir,
    __NR_rename,
    __NR_readlink,
    __NR_link,
    __NR_symlink,
    __NR_creat,
    __NR_lchown,
    __NR_getdents,
    __NR_chmod,
    __NR_chown,
    __NR_dup2,
    __NR_pipe,
    __NR_epoll_create,
    __NR_eventfd,
#endif
#ifdef __NR_faccessat2
    __NR_faccessat2,
#endif
#ifdef __NR_epoll_pwait2
    __NR_epoll_pwait2,
#endif
#ifdef __NR_close_range
    __NR_close_range,
#endif
#ifdef __NR_select
    __NR_select,
#endif
#ifdef __NR_time
    __NR_time,
#endif
#ifdef __NR_getrlimit
    __NR_getrlimit,
#endif
#ifdef __NR_arch_prctl
    __NR_arch_prctl,
#endif
};

/* What only an intruder would make. */
static const int deadly[] = {
    __NR_execve,        __NR_execveat,      __NR_ptrace, __NR_process_vm_readv, __NR_process_vm_writev, __NR_init_module,
    __NR_finit_module,  __NR_delete_module, __NR_bpf,    __NR_perf_event_open,  __NR_userfaultfd,       __NR_keyctl,
    __NR_add_key,       __NR_request_key,   __NR_mount,  __NR_umount2,          __NR_pivot_root,        __NR_chroot,
    __NR_setns,         __NR_unshare,       __NR_reboot, __NR_swapon,           __NR_swapoff,           __NR_settimeofday,
    __NR_clock_settime, __NR_setuid,        __NR_setgid, __NR_setreuid,         __NR_setresuid,         __NR_setgroups,
    __NR_capset,        __NR_sethostname,   __NR_acct,   __NR_syslog,           __NR_io_uring_setup,    __NR_personality,
#ifdef __NR_kexec_load
    __NR_kexec_load,
#endif
#ifdef __NR_fork
    __NR_fork,          __NR_vfork,
#endif
#ifdef __NR_iopl
    __NR_iopl,          __NR_ioperm,
#endif
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define ALLOW SECCOMP_RET_ALLOW
#define REFUSE (SECCOMP_RET_ERRNO | ENOSYS)
#define FORBID (SECCOMP_RET_ERRNO | EPERM)
#define STEPS_MAX (4 * (COUNT(allowed) + COUNT(deadly)) + 64)

struct program {
    struct sock_filter at[STEPS_MAX];
    unsigned short size;
};

static void add(struct program *p, unsigned code, unsigned value, unsigned char yes, unsigned char no) {
    p->at[p->size++] = (struct sock_filter){.code = (unsigned short)code, .jt = yes, .jf = no, .k = value};
}

static void load(struct program *p, size_t offset) {
    add(p, BPF_LD | BPF_W | BPF_ABS, (unsigned)offset, 0, 0);
}

static void answer(struct program *p, unsigned verdict) {
    add(p, BPF_RET | BPF_K, verdict, 0, 0);
}

static void on_call(struct program *p, int number, unsigned verdict) {
    add(p, BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1);
    answer(p, verdict);
}

/* The low half of an argument: flags of 32 bits are all there is in it. */
static size_t argument(unsigned place) {
    bool big_endian = __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__;
    return offsetof(struct seccomp_data, args) + place * sizeof(uint64_t) + (big_endian ? sizeof(uint32_t) : 0);
}

/* A call whose argument decides: it has all of the bits, and then the answer is `with`. */
static void on_bits(struct program *p, int number, unsigned place, unsigned bits, unsigned with, unsigned without) {
    add(p, BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 5);
    load(p, argument(place));
    add(p, BPF_ALU | BPF_AND | BPF_K, bits, 0, 0);
    add(p, BPF_JMP | BPF_JEQ | BPF_K, bits, 0, 1);
    answer(p, with);
    answer(p, without); /* the number is not needed any more */
}

static void build(struct program *p) {
    p->size = 0;
    load(p, offsetof(struct seccomp_data, arch));
    add(p, BPF_JMP | BPF_JEQ | BPF_K, OUR_ARCH, 1, 0);
    answer(p, SECCOMP_RET_KILL_PROCESS); /* calls of another processor's numbers would be read wrongly */
    load(p, offsetof(struct seccomp_data, nr));
#ifdef __x86_64__
    add(p, BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1);
    answer(p, SECCOMP_RET_KILL_PROCESS);
#endif
    for (size_t i = 0; i < COUNT(allowed); i++) {
        on_call(p, allowed[i], ALLOW);
    }
    on_bits(p, __NR_clone, 0, CLONE_THREAD, ALLOW, SECCOMP_RET_KILL_PROCESS); /* threads, no processes */
#ifdef __NR_mmap
    on_bits(p, __NR_mmap, 2, PROT_WRITE | PROT_EXEC, FORBID, ALLOW);
#endif
#ifdef __NR_mmap2
    on_bits(p, __NR_mmap2, 2, PROT_WRITE | PROT_EXEC, FORBID, ALLOW);
#endif
    on_bits(p, __NR_mprotect, 2, PROT_EXEC, FORBID, ALLOW);
    for (size_t i = 0; i < COUNT(deadly); i++) {
        on_call(p, deadly[i], SECCOMP_RET_KILL_PROCESS);
    }
    answer(p, REFUSE); /* clone3 among them: its flags lie where a filter cannot look, and libc takes clone then */
}

enum grey_error jail_enter(struct fault *f) {
    static struct program p; /* 8 bytes each of some hundred: not on a stack */
    build(&p);
    struct sock_fprog program = {.len = p.size, .filter = p.at};
    (void)prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0); /* the filter refuses the same where the kernel does not know it */
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        return fault_errno(f, E_NOT_HERE_YET, "PR_SET_NO_NEW_PRIVS");
    }
    if (syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_LOG, &program) != 0) {
        return fault_errno(f, E_NOT_HERE_YET, "seccomp");
    }
    return E_OK;
}

#endif
