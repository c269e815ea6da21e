#include "agent/launch/child.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent/launch/image.h"
#include "agent/launch/isolate.h"
#include "agent/launch/provide.h"
#include "platform/bytes.h"

#define OPEN_FILES_MAX 1024u
#define OWN_VARIABLES 4u
#define IMAGE_VARIABLES 2u /* the first of those */
#define PATH_DEFAULT "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static char *text_of(const char *head, struct bytes tail) {
    size_t size = strlen(head) + tail.size + 1;
    char *text = mem_new(size, 1);
    if (text != NULL) {
        (void)snprintf(text, size, "%s%.*s", head, (int)tail.size,
                       tail.size > 0 ? (const char *)tail.data : ""); /* no NUL inside */
    }
    return text;
}

/* NULL-terminated, first what the launcher says; what is allocated here ends with exec or exit.  NULL: no memory. */
static char **vector_of(const struct launch_texts *t, char *const *own, size_t own_count) {
    char **v = mem_new(own_count + t->count + 1, sizeof *v);
    for (size_t i = 0; v != NULL && i < own_count; i++) {
        v[i] = own[i];
    }
    for (uint32_t i = 0; v != NULL && i < t->count; i++) {
        v[own_count + i] = text_of("", t->at[i]);
        if (v[own_count + i] == NULL) {
            return NULL;
        }
    }
    return v;
}

/* An image has a path and a home of its own. */
static char **environment_of(const struct child_plan *p) {
    char token[24];
    (void)snprintf(token, sizeof token, "%" PRIu64, p->start->token);
    char *own[OWN_VARIABLES] = {text_of("GREY_TASK=", p->start->id), text_of("GREY_TOKEN=", bytes_str(token)),
                                text_of("PATH=", bytes_str(PATH_DEFAULT)), text_of("HOME=", bytes_str(p->work_path))};
    size_t wanted = p->start->image.size > 0 ? IMAGE_VARIABLES : OWN_VARIABLES;
    bool given[OWN_VARIABLES] = {false};
    char *kept[OWN_VARIABLES];
    size_t count = 0;
    for (size_t k = 0; k < wanted; k++) { /* the task's own value comes instead */
        size_t size = own[k] == NULL ? 0 : (size_t)(strchr(own[k], '=') - own[k]) + 1;
        for (uint32_t i = 0; i < p->start->env.count; i++) {
            struct bytes e = p->start->env.at[i];
            given[k] = given[k] || (e.size >= size && size > 0 && memcmp(e.data, own[k], size) == 0);
        }
        if (own[k] == NULL) {
            return NULL;
        }
        if (!given[k]) {
            kept[count++] = own[k];
        }
    }
    return vector_of(&p->start->env, kept, count);
}

static bool limit(int resource, uint64_t most) {
    struct rlimit old;
    if (getrlimit((__rlimit_resource_t)resource, &old) != 0) {
        return false;
    }
    rlim_t value = old.rlim_max != RLIM_INFINITY && old.rlim_max < most ? old.rlim_max : (rlim_t)most;
    struct rlimit fresh = {value, value};
    return setrlimit((__rlimit_resource_t)resource, &fresh) == 0;
}

static bool give_up_rights(const struct child_user *u) {
    if (u->change &&
        (setgroups(0, NULL) != 0 || setresgid(u->gid, u->gid, u->gid) != 0 || setresuid(u->uid, u->uid, u->uid) != 0)) {
        return false;
    }
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}

/* Descriptors 0 to 2 may stand among those that are to take their places, so all go above first. */
static bool place_descriptors(const struct child_plan *p) {
    int fds[3] = {p->input, p->output, p->errors};
    for (int i = 0; i < 3; i++) {
        fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
        if (fds[i] < 0) {
            return false;
        }
    }
    for (int i = 0; i < 3; i++) {
        if (dup2(fds[i], i) < 0) {
            return false;
        }
    }
    return true;
}

/* Nothing that the launcher holds, or was given by whoever started it, is the task's. */
static void close_others(void) {
    if (close_range(3, UINT_MAX, CLOSE_RANGE_CLOEXEC) != 0) { /* before Linux 5.11 */
        for (int fd = 3; fd < (int)sysconf(_SC_OPEN_MAX); fd++) {
            (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
        }
    }
}

/* How far it came; what failed is an errno, or less than 0 an enum launch_end. */
struct becoming {
    const struct child_plan *p;
    const struct launch_message *start;
    char **arguments, **variables;
    int status[2]; /* ends when the program begins */
    int self_fd;   /* of self_path: what it names may not be seen in other namespaces */
    bool inside;   /* of its control group already */
};

static int ended_by(enum launch_end end) {
    return -(int)end;
}

static int fail_of(bool well) {
    return well ? 0 : errno != 0 ? errno : EIO;
}

static bool enter_place(const struct child_plan *p, bool inside) {
    return setsid() >= 0 && (p->cage == NULL || inside || cage_enter(p->cage)) && place_descriptors(p) &&
           fchdir(p->work_folder) == 0;
}

static bool take_limits(const struct child_plan *p) {
    bool bare = p->cage == NULL || p->cage->all->kind == LAUNCH_LIMITS_RLIMITS;
    return limit(RLIMIT_CORE, 0) && limit(RLIMIT_NOFILE, OPEN_FILES_MAX) &&
           (!bare || p->start->memory_bytes == 0 || limit(RLIMIT_AS, p->start->memory_bytes));
}

static bool bound_files(const struct child_plan *p) {
    return p->start->disk_bytes == 0 || limit(RLIMIT_FSIZE, p->start->disk_bytes);
}

/* An image is run among processes of its own, so that none outlives it, whatever becomes of crun. */
static uint32_t namespaces_of(const struct child_plan *p) {
    return p->start->image.size > 0 ? (p->start->isolate | LAUNCH_ISOLATE_PID) & ~LAUNCH_ISOLATE_MOUNT : p->start->isolate;
}

static int begin_command(const struct becoming *b) {
    if (!bound_files(b->p) || !sieve_load(b->p->sieve)) {
        return fail_of(false);
    }
    close_others();
    environ = b->variables;
    if (b->self_fd >= 0) {
        (void)fexecve(b->self_fd, b->arguments, b->variables);
    } else {
        (void)execvp(b->arguments[0], b->arguments);
    }
    return fail_of(false);
}

/* crun makes the filter for what it begins; under it, it could not work. */
static int begin_image(const struct becoming *b) {
    struct image_plan i = {.start = b->start,
                           .folder = b->p->image_path,
                           .work_path = b->p->work_path,
                           .no_root = b->p->user->no_image_root,
                           .variables = b->variables};
    struct fault f = {0};
    if (!image_prepare(&i, &f)) {
        (void)dprintf(STDERR_FILENO, "grey-launch: %s (GREY-%d): %s\n", error_sentence(f.code), error_id(f.code), f.text);
        return ended_by(LAUNCH_END_IMAGE);
    }
    close_others();
    if (bound_files(b->p)) {
        image_run(&i);
    }
    (void)dprintf(STDERR_FILENO, "grey-launch: crun: %s\n", strerror(errno));
    return ended_by(LAUNCH_END_IMAGE);
}

/* In namespaces of its own, if it is to have any. */
static int begin_apart(const struct becoming *b) {
    const struct child_plan *p = b->p;
    uint32_t flags = namespaces_of(p);
    int end_fd = -1;
    bool image = p->start->image.size > 0, processes = (flags & LAUNCH_ISOLATE_PID) != 0;
    if (p->beside > 0 && flags != 0) { /* which takes it out of its directory */
        return isolate_join(p->beside, flags) && fchdir(p->work_folder) == 0 ? begin_command(b) : fail_of(false);
    }
    if (flags != 0) {
        bool well = isolate_enter(flags, image) && (!processes || isolate_split(&end_fd));
        well = well &&
               ((flags & (LAUNCH_ISOLATE_MOUNT | LAUNCH_ISOLATE_PID)) == 0 || isolate_mounts(flags, p->runs_path, p->work_path));
        well = well && (!processes || isolate_attend(end_fd, b->status));
        if (!well) {
            int why = fail_of(false);
            (void)dprintf(STDERR_FILENO, "grey-launch: namespaces of its own cannot be had here: %s\n", strerror(why));
            return why;
        }
    }
    return image ? begin_image(b) : begin_command(b);
}

/* What failed; it returns only then. */
static int become(struct becoming *b, pid_t parent) {
    const struct child_plan *p = b->p;
    sigset_t none;
    (void)sigemptyset(&none);
    b->arguments = vector_of(&p->start->command, NULL, 0);
    b->variables = environment_of(p);
    if (b->arguments == NULL || b->variables == NULL) {
        return ENOMEM;
    }
    (void)umask(027);
    for (int number = 1; number < NSIG; number++) {
        (void)signal(number, SIG_DFL);
    }
    if (p->self_path != NULL && p->start->command.count > 0 && strcmp(b->arguments[0], LAUNCHWIRE_SELF) == 0) {
        b->self_fd = open(p->self_path, O_PATH | O_CLOEXEC); /* not through folders that a task may not enter */
    }
    bool well = enter_place(p, b->inside) && take_limits(p) && give_up_rights(p->user);
    /* After the change of user, which would clear it.  When the launcher dies, nothing goes on that nobody watches. */
    well = well && prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0 && sigprocmask(SIG_SETMASK, &none, NULL) == 0;
    if (!well || getppid() != parent) {
        return fail_of(false);
    }
    if (p->stored != NULL && !provide_files(&p->start->files, p->stored, p->start->disk_bytes)) {
        return ended_by(LAUNCH_END_ARTIFACT);
    }
    return begin_apart(b);
}

/* In its group from the first moment, where the kernel can do that (v2, Linux 5.7); else *inside is false, and it has to enter by itself, for which it
 * may wait some 15 ms (cage_enter). */
static pid_t fork_into(const struct cage *cage, bool *inside) {
    int folder = cage == NULL ? -1 : cage_open(cage);
    *inside = false;
    if (folder >= 0) {
        struct clone_args a = {.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (unsigned)folder};
        long pid = syscall(SYS_clone3, &a, sizeof a);
        (void)close(folder);
        if (pid >= 0) {
            *inside = true;
            return (pid_t)pid;
        }
    }
    return fork();
}

pid_t child_start(const struct child_plan *p, int *status_fd) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
        return -1;
    }
    bool inside;
    pid_t parent = getpid(), pid = fork_into(p->cage, &inside);
    if (pid == 0) {
        int high = fcntl(ends[1], F_DUPFD_CLOEXEC, 3);
        struct becoming b = {.p = p, .start = p->start, .status = {ends[1], high}, .self_fd = -1, .inside = inside};
        int why = become(&b, parent);
        (void)!write(high >= 0 ? high : ends[1], &why, sizeof why);
        _exit(127);
    }
    int why = errno;
    (void)close(ends[1]);
    if (pid < 0) {
        (void)close(ends[0]);
        errno = why;
        return -1;
    }
    *status_fd = ends[0];
    return pid;
}
