#include "agent/launch/isolate.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/launch/launchwire.h"

#define PATH_BYTES_MAX 1024u
#define ENDED_BADLY 125 /* as others say it of a run that was not begun */

static bool write_all(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool well = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    int why = errno;
    if (fd >= 0) {
        (void)close(fd);
    }
    errno = why;
    return well;
}

/* One user and one group, who have the same number inside, or are root there. */
static bool map_user(uid_t uid, gid_t gid, bool as_root) {
    char users[64], groups[64];
    (void)snprintf(users, sizeof users, "%u %u 1\n", as_root ? 0u : (unsigned)uid, (unsigned)uid);
    (void)snprintf(groups, sizeof groups, "%u %u 1\n", as_root ? 0u : (unsigned)gid, (unsigned)gid);
    return write_all("/proc/self/setgroups", "deny") && write_all("/proc/self/uid_map", users) &&
           write_all("/proc/self/gid_map", groups);
}

static bool raise_loopback(void) {
    struct ifreq q = {.ifr_name = "lo"};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool well = fd >= 0 && ioctl(fd, SIOCGIFFLAGS, &q) == 0;
    if (well) {
        q.ifr_flags = (short)(q.ifr_flags | IFF_UP);
        well = ioctl(fd, SIOCSIFFLAGS, &q) == 0;
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return well;
}

static int kinds_of(uint32_t flags) {
    int kinds = CLONE_NEWUSER;
    kinds |= (flags & LAUNCH_ISOLATE_NETWORK) != 0 ? CLONE_NEWNET : 0;
    kinds |= (flags & (LAUNCH_ISOLATE_MOUNT | LAUNCH_ISOLATE_PID)) != 0 ? CLONE_NEWNS : 0; /* processes have their own /proc */
    return kinds;
}

bool isolate_enter(uint32_t flags, bool as_root) {
    uid_t uid = geteuid();
    gid_t gid = getegid();
    int kinds = kinds_of(flags) | ((flags & LAUNCH_ISOLATE_PID) != 0 ? CLONE_NEWPID | CLONE_NEWIPC : 0);
    /* Its files in /proc belong to its user only while it is dumpable, which the change of user ended. */
    bool well = prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0 && unshare(kinds) == 0 && map_user(uid, gid, as_root);
    int why = errno;
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    errno = why;
    return well && ((flags & LAUNCH_ISOLATE_NETWORK) == 0 || raise_loopback());
}

static pid_t first_child(pid_t pid) {
    char path[64], text[32];
    (void)snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)pid, (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0) {
        (void)close(fd);
    }
    text[size > 0 ? size : 0] = 0;
    return (pid_t)strtol(text, NULL, 10);
}

pid_t isolate_inside(pid_t pid, uint32_t flags) {
    for (unsigned i = 0; (flags & LAUNCH_ISOLATE_PID) != 0 && i < 2 && pid > 0;
         i++) { /* the first of its namespace, then the task */
        pid = first_child(pid);
    }
    return pid;
}

bool isolate_join(pid_t pid, uint32_t flags) {
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    bool well = fd >= 0 && setns(fd, kinds_of(flags)) == 0;
    int why = errno;
    if (fd >= 0) {
        (void)close(fd);
    }
    errno = why;
    return well;
}

/* --- Files ---------------------------------------------------------------------------------------------------------------------------------- */

static bool make_path(const char *path) {
    char part[PATH_BYTES_MAX];
    if (strlen(path) >= sizeof part) {
        errno = ENAMETOOLONG;
        return false;
    }
    for (size_t i = 1; i <= strlen(path); i++) {
        if (path[i] == '/' || path[i] == 0) {
            memcpy(part, path, i);
            part[i] = 0;
            (void)mkdir(part, 0755); /* what is there already may not be ours */
        }
    }
    return true;
}

bool isolate_mounts(uint32_t flags, const char *runs_path, const char *work_path) {
    static const unsigned long quiet = MS_NOSUID | MS_NODEV;
    bool well = mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
    if ((flags & LAUNCH_ISOLATE_PID) != 0) {
        well = well && mount("proc", "/proc", "proc", quiet | MS_NOEXEC, NULL) == 0;
    }
    if ((flags & LAUNCH_ISOLATE_MOUNT) != 0) {
        well = well && mount("tmpfs", "/tmp", "tmpfs", quiet, "mode=1777") == 0;
        if (well && access(runs_path, F_OK) == 0) { /* else it was in /tmp */
            well = mount("tmpfs", runs_path, "tmpfs", quiet, "mode=0711") == 0;
        }
        well = well && make_path(work_path) && mount(".", work_path, NULL, MS_BIND, NULL) == 0 && chdir(work_path) == 0;
    }
    return well;
}

/* --- Processes ------------------------------------------------------------------------------------------------------------------------------- */

/* As the task ended, so that whoever waits for this process sees it. */
static _Noreturn void end_like(int status) {
    if (WIFSIGNALED(status)) {
        sigset_t one;
        int number = WTERMSIG(status);
        (void)sigemptyset(&one);
        (void)sigaddset(&one, number);
        (void)signal(number, SIG_DFL);
        (void)raise(number);
        (void)sigprocmask(SIG_UNBLOCK, &one, NULL);
        _exit(128 + number);
    }
    _exit(WEXITSTATUS(status));
}

static void close_from(unsigned first) {
    if (close_range(first, UINT_MAX, 0) != 0) {
        for (int fd = (int)first; fd < (int)sysconf(_SC_OPEN_MAX); fd++) {
            (void)close(fd);
        }
    }
}

/* Orders to stop are for the task, which is in the same group. */
static _Noreturn void keep(pid_t first, int end_fd) {
    int status = ENDED_BADLY << 8, last = 0;
    sigset_t all;
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, NULL);
    (void)dup2(end_fd, 0);
    close_from(1);
    bool told = read(0, &status, sizeof status) == (ssize_t)sizeof status;
    (void)waitpid(first, &last, 0);
    end_like(told ? status : last);
}

bool isolate_split(int *end_fd) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return false;
    }
    pid_t first = fork();
    if (first > 0) {
        keep(first, ends[0]);
    }
    (void)close(ends[0]);
    *end_fd = ends[1];
    struct pollfd keeper = {.fd = ends[1]};
    /* Its death is known by the pipe, if it came before this was asked for. */
    return first == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0 && poll(&keeper, 1, 0) == 0;
}

bool isolate_attend(int end_fd, const int close_fd[2]) {
    pid_t task = fork(), ended;
    int status = 0;
    if (task <= 0) {
        return task == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0;
    }
    (void)close(close_fd[0]); /* it would hold open what says that the task has begun */
    (void)close(close_fd[1]);
    while ((ended = wait(&status)) != task) { /* also what the task left behind */
        if (ended < 0 && errno != EINTR) {
            _exit(ENDED_BADLY);
        }
    }
    (void)!write(end_fd, &status, sizeof status);
    _exit(0);
}
