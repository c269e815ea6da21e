#include "agent/run/launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/launch/launchlink.h"
#include "include/grey/limits.h"
#include "platform/log.h"

#define RETRY_MS 500u
#define RETRY_LATER_MS 5000u /* where nobody answered RETRIES times */
#define RETRIES 20u
#define OWN "own"
#define OWN_IDLE_S "60" /* one that was started from here ends so long after its last task and the last greyd */
#define PROGRAM "grey-launch"

struct launcher {
    struct loop *loop;
    const struct launcher_events *events;
    void *context;
    bool own;    /* it is started from here */
    bool missed; /* it was said that nobody answers */
    uint32_t failures;
    bool spawned; /* it was, and has not been met yet */
    char dir[LIMIT_PATH_BYTES + 16];
    struct sockaddr_un at;
    struct launchlink link;
    struct loop_timer timer;
};

/* Beside this program, else wherever the path leads. */
static void program_path(char out[PATH_MAX]) {
    ssize_t size = readlink("/proc/self/exe", out, PATH_MAX - sizeof PROGRAM - 1);
    char *slash = size <= 0 ? NULL : memrchr(out, '/', (size_t)size);
    if (slash != NULL) {
        memcpy(slash + 1, PROGRAM, sizeof PROGRAM);
    }
    if (slash == NULL || access(out, X_OK) != 0) {
        memcpy(out, PROGRAM, sizeof PROGRAM);
    }
}

/* In a session of its own and nobody's child, so that it outlives this process. */
static void spawn(struct launcher *l) {
    char path[PATH_MAX];
    char *const arguments[] = {PROGRAM, "--dir", l->dir, "--idle-exit", OWN_IDLE_S, NULL};
    program_path(path);
    if (!l->spawned) {
        log_warn("launcher", "own", "scheduler.launcher is \"own\", so %s is started with this process's rights: %s", PROGRAM,
                 geteuid() == 0 ? "root's, of which tasks get none; better let it be a service of its own, and greyd no root"
                                : "tasks run as the user of greyd itself, bounded by rlimits alone");
    }
    l->spawned = true;
    pid_t pid = fork();
    if (pid == 0) {
        sigset_t none;
        (void)sigemptyset(&none);
        (void)sigprocmask(SIG_SETMASK, &none, NULL);
        int in = open("/dev/null", O_RDWR); /* its log goes where ours goes */
        if (setsid() < 0 || in < 0 || dup2(in, STDIN_FILENO) < 0 || dup2(in, STDOUT_FILENO) < 0 || fork() != 0) {
            _exit(0);
        }
        (void)execvp(path, arguments);
        (void)dprintf(STDERR_FILENO, "greyd: %s: %s\n", path, strerror(errno));
        _exit(127);
    }
    if (pid > 0) {
        (void)waitpid(pid, NULL, 0); /* the first child ends at once */
    }
}

static void on_message(void *context, struct bytes message) {
    struct launcher *l = context;
    struct launch_message m;
    enum grey_error err = launchwire_decode(message, &m);
    if (err == E_OK && !launchwire_is_order(m.kind)) {
        l->events->message(l->context, &m);
        return;
    }
    log_error("launcher", "message", "not understood: GREY-%d; is it of another version?", error_id(E_BAD_MESSAGE));
    launchlink_close(&l->link);
    loop_timer_after(l->loop, &l->timer, RETRY_MS);
    l->events->down(l->context);
}

static void on_closed(void *context) {
    struct launcher *l = context;
    log_warn("launcher", "down", "%s closed the connection", l->at.sun_path);
    loop_timer_after(l->loop, &l->timer, RETRY_MS);
    l->events->down(l->context);
}

static void dial(void *context) {
    struct launcher *l = context;
    struct fault f = {0};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&l->at, sizeof l->at) != 0) {
        int why = errno;
        if (fd >= 0) {
            (void)close(fd);
        }
        if (l->own && (why == ENOENT || why == ECONNREFUSED)) {
            spawn(l); /* a second one ends at the lock of the first */
        } else if (!l->missed) {
            l->missed = true;
            log_warn("launcher", "connect",
                     "no launcher answers at %s (%s), so this gateway takes no tasks: start grey-launch there, or set "
                     "scheduler.launcher; scheduler.enabled: false ends this warning",
                     l->at.sun_path, strerror(why));
        }
        l->failures++;
        loop_timer_after(l->loop, &l->timer, l->failures < RETRIES ? RETRY_MS : RETRY_LATER_MS);
        return;
    }
    if (launchlink_open(&l->link, l->loop, fd, &f) != E_OK) {
        log_warn("launcher", "connect", "%s", f.text);
        loop_timer_after(l->loop, &l->timer, RETRY_MS);
        return;
    }
    l->spawned = l->missed = false;
    l->failures = 0;
    launcher_send(l, &(struct launch_message){.kind = LAUNCH_LIST});
    l->events->up(l->context);
}

struct launcher *launcher_new(const struct launcher_options *o, const struct launcher_events *events, void *context,
                              struct fault *f) {
    struct launcher *l = mem_new(1, sizeof *l);
    char path[PATH_MAX], dir[PATH_MAX];
    if (l == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "launcher");
        return NULL;
    }
    *l = (struct launcher){.loop = o->loop, .events = events, .context = context, .own = strcmp(o->socket_path, OWN) == 0};
    l->link = (struct launchlink){.message = on_message, .closed = on_closed, .context = l};
    l->timer = (struct loop_timer){.fire = dial, .context = l};
    l->at.sun_family = AF_UNIX;
    if (realpath(o->data_dir, dir) == NULL) {
        (void)fault_errno(f, E_IO, "%s", o->data_dir);
        mem_free(l);
        return NULL;
    }
    int size = snprintf(l->dir, sizeof l->dir, "%.1024s/tasks", dir);
    bool beside = l->own || o->socket_path[0] == 0;
    int used = snprintf(path, sizeof path, "%s%s", beside ? l->dir : o->socket_path, beside ? "/launch.sock" : "");
    bool fits = size < (int)sizeof l->dir && used < (int)sizeof l->at.sun_path;
    if (!fits && beside && !l->own) { /* nobody asked for it */
        log_warn("launcher", "none",
                 "%.150s is too long for a socket's name, so this gateway takes no tasks: set scheduler.launcher", path);
        return l;
    }
    if (!fits) {
        (void)fault_set(f, E_CONFIG, "%.150s is longer than the %zu bytes that a socket's name may have; see scheduler.launcher",
                        path, sizeof l->at.sun_path - 1);
        mem_free(l);
        return NULL;
    }
    memcpy(l->at.sun_path, path, (size_t)used + 1);
    loop_timer_after(l->loop, &l->timer, 0);
    return l;
}

void launcher_free(struct launcher *l) {
    if (l != NULL) {
        loop_timer_cancel(l->loop, &l->timer);
        launchlink_close(&l->link);
        mem_free(l);
    }
}

bool launcher_up(const struct launcher *l) {
    return launchlink_is_open(&l->link);
}

size_t launcher_queued(const struct launcher *l) {
    return launchlink_queued(&l->link);
}

void launcher_send(struct launcher *l, const struct launch_message *m) {
    struct builder b;
    builder_init(&b, LAUNCHWIRE_BYTES_MAX);
    launchwire_encode(&b, m);
    if (b.err == E_OK) {
        launchlink_send(&l->link, builder_bytes(&b));
    } else {
        log_error("launcher", "send", "kind=%d error=GREY-%d", (int)m->kind, error_id(b.err));
    }
    builder_free(&b);
}
