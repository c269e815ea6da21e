#include "agent/launch/runs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/launch/capture.h"
#include "agent/launch/rundir.h"
#include "platform/log.h"

#define LOOK_MS 100u         /* while something is to be killed or removed */
#define LEASE_GRACE_MS 1000u /* between TERM and KILL when the lease is over */

static const char *const stream_names[LAUNCH_STREAM_COUNT] = {[LAUNCH_STDOUT] = "out", [LAUNCH_STDERR] = "err"};

struct run {
    struct run *next;
    struct runs *runs;
    struct launch_message state; /* a LAUNCH_STATE; no slices */
    char id[LIMIT_NAME_BYTES + 1];
    pid_t pid; /* 0: it was reaped */
    bool leased, stopping, killed, forgotten, caged;
    uint64_t kill_at_ms;
    struct cage cage;
    int folder; /* -1: closed */
    struct loop_fd status, streams[LAUNCH_STREAM_COUNT];
    struct capture captures[LAUNCH_STREAM_COUNT];
};

struct runs {
    struct runs_options o;
    char dir[CAGE_PATH_BYTES];
    struct rundir folders;
    struct run *first;
    uint32_t count;
    uint64_t lease_until_ms; /* 0: nobody has said */
    struct sieve *sieve;
    struct loop_timer timer;
};

static struct run *find(const struct runs *r, uint64_t scope, uint64_t token) {
    struct run *x = r->first;
    while (x != NULL && (x->state.scope != scope || x->state.token != token)) {
        x = x->next;
    }
    return x;
}

static void close_if(int fd) {
    if (fd >= 0) {
        (void)close(fd);
    }
}

/* --- Life of one ------------------------------------------------------------------------------------------------------------------------- */

static void look_soon(struct runs *r) {
    if (r->timer.place == 0) {
        loop_timer_after(r->o.loop, &r->timer, LOOK_MS);
    }
}

static void close_watch(struct runs *r, struct loop_fd *w) {
    if (w->fd >= 0) {
        int fd = w->fd;
        loop_fd_remove(r->o.loop, w);
        (void)close(fd);
        w->fd = -1;
    }
}

static void tell(struct run *x) {
    x->runs->o.changed(x->runs->o.context, &x->state);
}

static void signal_run(struct run *x, int number) {
    if (x->pid > 0) {
        (void)kill(-x->pid, number); /* its group; it leads a session of its own */
        (void)kill(x->pid, number);  /* before it does */
    }
    if (number == SIGKILL && x->caged) {
        cage_kill(&x->cage);
    }
}

static void drain(struct run *x, enum launch_stream s) {
    uint8_t room[16384];
    ssize_t got;
    unsigned turns = 0;
    while (x->streams[s].fd >= 0 && turns++ < 16 && (got = read(x->streams[s].fd, room, sizeof room)) != 0) {
        if (got < 0) {
            if (errno != EAGAIN && errno != EINTR) {
                close_watch(x->runs, &x->streams[s]);
            }
            return;
        }
        bool failed = x->captures[s].failed;
        capture_write(&x->captures[s], bytes_of(room, (size_t)got));
        if (x->captures[s].failed && !failed) {
            log_warn("launch", "capture", "task=%s stream=%s: the disk takes no more of what it writes", x->id, stream_names[s]);
        }
    }
    if (turns <= 16) {
        close_watch(x->runs, &x->streams[s]);
    }
}

static void out_ready(void *context, uint32_t events) {
    (void)events;
    drain(context, LAUNCH_STDOUT);
}

static void err_ready(void *context, uint32_t events) {
    (void)events;
    drain(context, LAUNCH_STDERR);
}

static void ended(struct run *x, enum launch_end end, int32_t status) {
    x->state.state = LAUNCH_ENDED;
    x->state.end = end;
    x->state.status = status;
    close_watch(x->runs, &x->status);
    for (unsigned s = 0; s < LAUNCH_STREAM_COUNT; s++) {
        drain(x, (enum launch_stream)s);
        close_watch(x->runs, &x->streams[s]); /* what its children still write is not its output any more */
        capture_close(&x->captures[s]);
    }
    if (x->folder >= 0) {
        rundir_work_done(x->folder);
        (void)close(x->folder);
        x->folder = -1;
    }
    log_info("launch", "end", "task=%s token=%" PRIu64 " end=%d status=%d", x->id, x->state.token, (int)end, status);
    tell(x);
    look_soon(x->runs); /* its group is removed there */
}

/* Ends without a word when the program has begun. */
static void status_ready(void *context, uint32_t events) {
    struct run *x = context;
    int why = 0;
    (void)events;
    ssize_t got = read(x->status.fd, &why, sizeof why);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    close_watch(x->runs, &x->status);
    if (got == (ssize_t)sizeof why) {
        x->state.end = LAUNCH_END_START; /* told when it is reaped */
        x->state.status = why;
    } else if (x->state.state == LAUNCH_STARTING) {
        x->state.state = LAUNCH_RUNNING;
        tell(x);
    }
}

static void judge(struct run *x, int status) {
    if (x->status.fd >= 0) {
        status_ready(x, 0); /* its last word may wait there */
    }
    x->pid = 0;
    bool by_signal = WIFSIGNALED(status);
    int32_t number = by_signal ? WTERMSIG(status) : WEXITSTATUS(status);
    bool memory = by_signal && number == SIGKILL && x->caged && cage_hit_memory(&x->cage);
    if (x->caged) {
        cage_kill(&x->cage); /* a run ends with its first process */
    }
    if (x->state.end == LAUNCH_END_START) {
        ended(x, LAUNCH_END_START, x->state.status);
    } else if (x->stopping) {
        ended(x, LAUNCH_END_STOPPED, number);
    } else {
        ended(x, memory ? LAUNCH_END_MEMORY : by_signal ? LAUNCH_END_SIGNAL : LAUNCH_END_EXIT, number);
    }
}

void runs_reap(struct runs *r) {
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) { /* also what a task left behind: the launcher inherits it */
        for (struct run *x = r->first; x != NULL; x = x->next) {
            if (x->pid == pid) {
                (void)kill(-pid, SIGKILL);
                judge(x, status);
                break;
            }
        }
    }
}

/* --- Start ---------------------------------------------------------------------------------------------------------------------------------- */

static int input_of(struct bytes text) {
    if (text.size == 0) {
        return open("/dev/null", O_RDONLY | O_CLOEXEC);
    }
    int fd = memfd_create("stdin", MFD_CLOEXEC);
    bool well = fd >= 0 && write(fd, text.data, text.size) == (ssize_t)text.size && lseek(fd, 0, SEEK_SET) == 0;
    if (!well && fd >= 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

static bool watch_stream(struct run *x, enum launch_stream s, int *task_end) {
    static void (*const readers[LAUNCH_STREAM_COUNT])(void *, uint32_t) = {out_ready, err_ready};
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return false;
    }
    *task_end = ends[1];
    x->streams[s].ready = readers[s];
    bool well =
        fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0 && loop_fd_add(x->runs->o.loop, &x->streams[s], ends[0], EPOLLIN, NULL) == E_OK;
    if (!well) {
        (void)close(ends[0]);
    }
    return well;
}

/* Everything up to the process; 0, or the errno of what failed. */
static int begin(struct run *x, const struct launch_message *start) {
    struct runs *r = x->runs;
    char work[CAGE_PATH_BYTES + 2 * RUNDIR_NAME_BYTES], name[RUNDIR_NAME_BYTES];
    int input = -1, ends[LAUNCH_STREAM_COUNT] = {-1, -1}, folder = -1, status_fd = -1;
    struct fault f = {0};
    rundir_name(name, x->state.scope, x->state.token);
    (void)snprintf(work, sizeof work, "%s/runs/%s/work", r->dir, name);
    x->caged = r->o.cages->kind != LAUNCH_LIMITS_RLIMITS && cage_make(&x->cage, r->o.cages, x->state.scope, x->state.token,
                                                                      start->cpu_millicores, start->memory_bytes, &f) == E_OK;
    if (r->o.cages->kind != LAUNCH_LIMITS_RLIMITS && !x->caged) {
        int why = errno;
        log_error("launch", "group", "task=%s %s", x->id, f.text);
        return why;
    }
    folder = openat(x->folder, "work", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    input = input_of(start->standard_input);
    bool well = folder >= 0 && input >= 0 && watch_stream(x, LAUNCH_STDOUT, &ends[0]) && watch_stream(x, LAUNCH_STDERR, &ends[1]) &&
                (!r->o.user.change || fchown(folder, r->o.user.uid, r->o.user.gid) == 0);
    if (well) {
        struct child_plan p = {.start = start,
                               .cage = x->caged ? &x->cage : NULL,
                               .sieve = r->sieve,
                               .user = &r->o.user,
                               .work_folder = folder,
                               .work_path = work,
                               .input = input,
                               .output = ends[0],
                               .errors = ends[1]};
        pid_t pid = child_start(&p, &status_fd);
        well = pid > 0;
        x->pid = well ? pid : 0;
    }
    int why = well ? 0 : errno != 0 ? errno : EIO;
    close_if(folder);
    close_if(input);
    close_if(ends[0]);
    close_if(ends[1]);
    x->status.ready = status_ready;
    if (well && loop_fd_add(r->o.loop, &x->status, status_fd, EPOLLIN, NULL) != E_OK) {
        (void)close(status_fd);
        signal_run(x, SIGKILL); /* its end is reported when it is reaped */
    }
    return why;
}

static struct run *run_new(struct runs *r, const struct launch_message *start) {
    struct run *x = mem_new(1, sizeof *x);
    if (x == NULL) {
        return NULL;
    }
    x->runs = r;
    x->folder = -1;
    x->leased = start->leased;
    x->state =
        (struct launch_message){.kind = LAUNCH_STATE, .scope = start->scope, .token = start->token, .state = LAUNCH_STARTING};
    memcpy(x->id, start->id.data, start->id.size); /* a name, so it has room */
    x->status = (struct loop_fd){.context = x, .fd = -1};
    for (unsigned s = 0; s < LAUNCH_STREAM_COUNT; s++) {
        x->streams[s] = (struct loop_fd){.context = x, .fd = -1};
    }
    x->next = r->first;
    r->first = x;
    r->count++;
    return x;
}

static void run_free(struct runs *r, struct run *x) {
    struct run **at = &r->first;
    while (*at != x) {
        at = &(*at)->next;
    }
    *at = x->next;
    r->count--;
    close_watch(r, &x->status);
    for (unsigned s = 0; s < LAUNCH_STREAM_COUNT; s++) {
        close_watch(r, &x->streams[s]);
        capture_close(&x->captures[s]);
    }
    close_if(x->folder);
    mem_free(x);
}

static void answer(struct runs *r, const struct launch_message *start, enum launch_state state) {
    struct launch_message m = {.kind = LAUNCH_STATE, .scope = start->scope, .token = start->token, .state = state};
    r->o.changed(r->o.context, &m);
}

static bool lease_holds(const struct runs *r) {
    return loop_now_ms(r->o.loop) < r->lease_until_ms;
}

void runs_start(struct runs *r, const struct launch_message *start) {
    struct run *x = find(r, start->scope, start->token);
    if (x != NULL) {
        tell(x);
        return;
    }
    x = r->count < RUNS_MAX && (!start->leased || lease_holds(r)) ? run_new(r, start) : NULL;
    if (x == NULL) { /* nothing was marked: another START may come */
        answer(r, start, LAUNCH_LATER);
        return;
    }
    enum grey_error err = rundir_make(&r->folders, start->scope, start->token, &x->folder);
    if (err == E_CONDITION) {
        run_free(r, x);
        answer(r, start, LAUNCH_USED);
        return;
    }
    for (unsigned s = 0; s < LAUNCH_STREAM_COUNT; s++) {
        capture_init(&x->captures[s], x->folder, stream_names[s]);
    }
    int why = err == E_OK ? begin(x, start) : EIO;
    log_info("launch", "start", "task=%s token=%" PRIu64 " pid=%d error=%d", x->id, x->state.token, (int)x->pid, why);
    if (why != 0) {
        ended(x, LAUNCH_END_START, why);
    }
}

/* --- Stop ------------------------------------------------------------------------------------------------------------------------------------ */

static void stop(struct run *x, uint32_t grace_ms) {
    uint64_t at_ms = loop_now_ms(x->runs->o.loop) + grace_ms;
    if (x->pid == 0) {
        return;
    }
    if (!x->stopping) {
        x->stopping = true;
        x->kill_at_ms = at_ms;
        signal_run(x, SIGTERM);
        log_info("launch", "stop", "task=%s token=%" PRIu64 " grace_ms=%" PRIu32, x->id, x->state.token, grace_ms);
    }
    x->kill_at_ms = at_ms < x->kill_at_ms ? at_ms : x->kill_at_ms; /* never later than was said first */
    look_soon(x->runs);
}

void runs_stop(struct runs *r, uint64_t scope, uint64_t token, uint32_t grace_ms) {
    struct run *x = find(r, scope, token);
    if (x != NULL) {
        stop(x, grace_ms);
    }
}

void runs_stop_all(struct runs *r, uint32_t grace_ms) {
    for (struct run *x = r->first; x != NULL; x = x->next) {
        stop(x, grace_ms);
    }
}

void runs_lease(struct runs *r, uint64_t until_ms) {
    r->lease_until_ms = until_ms > r->lease_until_ms ? until_ms : r->lease_until_ms; /* a restarted greyd knows less for a while */
    look_soon(r);
}

static void look(void *context) {
    struct runs *r = context;
    uint64_t now_ms = loop_now_ms(r->o.loop);
    bool again = false;
    for (struct run *x = r->first, *next; x != NULL; x = next) {
        next = x->next;
        if (x->pid > 0 && x->leased && !x->stopping && !lease_holds(r)) {
            log_warn("launch", "lease", "task=%s token=%" PRIu64 ": its lease is over", x->id, x->state.token);
            stop(x, LEASE_GRACE_MS);
        }
        if (x->pid > 0 && x->stopping && now_ms >= x->kill_at_ms) {
            signal_run(x, SIGKILL);
        }
        if (x->pid == 0 && x->caged) {
            cage_kill(&x->cage);
            x->caged = !cage_remove(&x->cage);
        }
        again = again || x->caged || (x->pid > 0 && (x->stopping || x->leased));
        if (x->forgotten && x->pid == 0 && !x->caged) {
            run_free(r, x);
        }
    }
    if (again) {
        loop_timer_after(r->o.loop, &r->timer, LOOK_MS);
    }
}

void runs_forget(struct runs *r, uint64_t scope, uint64_t token) {
    struct run *x = find(r, scope, token);
    if (x == NULL || x->pid == 0) { /* x NULL: of a launcher before this one */
        rundir_over(&r->folders, scope, token);
    }
    if (x != NULL && x->pid == 0) {
        x->forgotten = true;
        look_soon(r);
    }
}

/* --- Questions ------------------------------------------------------------------------------------------------------------------------------ */

void runs_tell(struct runs *r) {
    for (struct run *x = r->first; x != NULL; x = x->next) {
        if (!x->forgotten) {
            tell(x);
        }
    }
}

uint32_t runs_live(const struct runs *r) {
    uint32_t count = 0;
    for (const struct run *x = r->first; x != NULL; x = x->next) {
        count += x->pid > 0 || x->caged;
    }
    return count;
}

enum grey_error runs_read(struct runs *r, const struct launch_message *read, struct builder *data, uint64_t *from, uint64_t *end) {
    int folder = rundir_find(&r->folders, read->scope, read->token);
    *from = *end = 0;
    if (folder < 0) {
        return E_NOT_FOUND;
    }
    enum grey_error err = capture_read(folder, stream_names[read->stream], read->offset, read->size, data, from, end);
    (void)close(folder);
    return err;
}

struct runs *runs_new(const struct runs_options *o, struct fault *f) {
    struct runs *r = mem_new(1, sizeof *r);
    if (r == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "runs");
        return NULL;
    }
    r->o = *o;
    r->folders.folder = -1;
    (void)snprintf(r->dir, sizeof r->dir, "%s", o->dir);
    r->timer = (struct loop_timer){.fire = look, .context = r};
    r->sieve = rundir_open(&r->folders, o->dir, f) == E_OK ? sieve_new(f) : NULL;
    if (r->sieve == NULL) {
        runs_free(r);
        return NULL;
    }
    cage_sweep(o->cages);
    return r;
}

void runs_free(struct runs *r) {
    if (r == NULL) {
        return;
    }
    loop_timer_cancel(r->o.loop, &r->timer);
    while (r->first != NULL) {
        struct run *x = r->first;
        signal_run(x, SIGKILL);
        run_free(r, x);
    }
    cage_sweep(r->o.cages);
    sieve_free(r->sieve);
    rundir_close(&r->folders);
    mem_free(r);
}
