#include "agent/launch/runs.h"

#include <dirent.h>
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
#include "platform/log.h"

#define LOOK_MS 100u         /* while something is to be killed or removed */
#define LEASE_GRACE_MS 1000u /* between TERM and KILL when the lease is over */
#define NAME_BYTES 48u
#define TREE_DEPTH_MAX 64u

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
    int folder;
    struct run *first;
    uint32_t count;
    uint64_t lease_until_ms; /* 0: nobody has said */
    uint64_t kept_bytes;     /* written by runs that are not in memory */
    struct sieve *sieve;
    struct loop_timer timer;
};

static void name_of(char out[NAME_BYTES], uint64_t scope, uint64_t token) {
    (void)snprintf(out, NAME_BYTES, "%016" PRIx64 "-%" PRIu64, scope, token);
}

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

/* --- Folders ---------------------------------------------------------------------------------------------------------------------------- */

/* Removes what a task left, which may be anything but is never followed. */
static void remove_tree(int at, const char *name, unsigned depth) {
    if (unlinkat(at, name, 0) == 0 || errno == ENOENT || depth == 0) {
        return;
    }
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (d == NULL) {
        if (fd >= 0) {
            (void)close(fd);
        }
        return;
    }
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
            remove_tree(dirfd(d), e->d_name, depth - 1);
        }
    }
    (void)closedir(d);
    (void)unlinkat(at, name, AT_REMOVEDIR);
}

/* What lies in a folder itself: what the run wrote. */
static uint64_t folder_bytes(const struct runs *r, const char *name) {
    int fd = openat(r->folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    uint64_t sum = 0;
    struct stat st;
    for (struct dirent *e = d == NULL ? NULL : readdir(d); e != NULL; e = readdir(d)) {
        bool is_file = fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
        sum += is_file ? (uint64_t)st.st_size : 0;
    }
    if (d != NULL) {
        (void)closedir(d);
    } else {
        close_if(fd);
    }
    return sum;
}

/* The site has its end: its token will not be asked for again, so the folder may go. */
static bool is_over(const struct runs *r, const char *name) {
    char path[NAME_BYTES + 8];
    (void)snprintf(path, sizeof path, "%s/over", name);
    return faccessat(r->folder, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static void mark_over(const struct runs *r, const char *name) {
    char path[NAME_BYTES + 8];
    (void)snprintf(path, sizeof path, "%s/over", name);
    close_if(openat(r->folder, path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600)); /* there is no folder: nothing to do */
}

/* Looks through all folders that may go: how many, and which was begun first. */
static uint32_t look_through(struct runs *r, char oldest[NAME_BYTES], uint64_t *bytes) { /* bytes NULL: not asked for */
    struct timespec first = {0};
    uint32_t count = 0;
    int fd = openat(r->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    oldest[0] = 0;
    for (struct dirent *e = d == NULL ? NULL : readdir(d); e != NULL; e = readdir(d)) {
        uint64_t scope, token;
        struct stat st;
        if (strlen(e->d_name) >= NAME_BYTES || sscanf(e->d_name, "%16" SCNx64 "-%" SCNu64, &scope, &token) != 2 ||
            find(r, scope, token) != NULL || !is_over(r, e->d_name) ||
            fstatat(r->folder, e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
            continue;
        }
        count++;
        if (bytes != NULL) {
            *bytes += folder_bytes(r, e->d_name);
        }
        bool older = oldest[0] == 0 || st.st_mtim.tv_sec < first.tv_sec ||
                     (st.st_mtim.tv_sec == first.tv_sec && st.st_mtim.tv_nsec < first.tv_nsec);
        if (older) {
            first = st.st_mtim;
            (void)snprintf(oldest, NAME_BYTES, "%s", e->d_name);
        }
    }
    if (d != NULL) {
        (void)closedir(d);
    } else {
        close_if(fd);
    }
    return count;
}

/* What was forgotten leaves, the oldest first, until the rest is within its bounds. */
static void prune(struct runs *r) {
    char oldest[NAME_BYTES];
    while (look_through(r, oldest, NULL) > RUNS_KEPT_MAX || (r->kept_bytes > RUNS_KEPT_BYTES_MAX && oldest[0] != 0)) {
        uint64_t bytes = folder_bytes(r, oldest);
        remove_tree(r->folder, oldest, TREE_DEPTH_MAX);
        r->kept_bytes -= bytes < r->kept_bytes ? bytes : r->kept_bytes;
        if (faccessat(r->folder, oldest, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
            log_limited(LOG_WARN, "launch", "prune", "%s cannot be removed", oldest);
            return;
        }
    }
}

/* The mark that this token was used.  E_CONDITION: it is there already. */
static enum grey_error make_folder(struct runs *r, struct run *x) {
    char name[NAME_BYTES];
    name_of(name, x->state.scope, x->state.token);
    if (mkdirat(r->folder, name, 0711) != 0) {
        return errno == EEXIST ? E_CONDITION : E_IO;
    }
    x->folder = openat(r->folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return x->folder >= 0 && fsync(r->folder) == 0 && mkdirat(x->folder, "work", 0700) == 0 ? E_OK : E_IO;
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
        remove_tree(x->folder, "work", TREE_DEPTH_MAX);
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
    char work[CAGE_PATH_BYTES + 2 * NAME_BYTES], name[NAME_BYTES];
    int input = -1, ends[LAUNCH_STREAM_COUNT] = {-1, -1}, folder = -1, status_fd = -1;
    struct fault f = {0};
    name_of(name, x->state.scope, x->state.token);
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
    enum grey_error err = make_folder(r, x);
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
    bool again = false, forgot = false;
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
            char name[NAME_BYTES];
            name_of(name, x->state.scope, x->state.token);
            r->kept_bytes += folder_bytes(r, name);
            run_free(r, x);
            forgot = true;
        }
    }
    if (forgot) {
        prune(r);
    }
    if (again) {
        loop_timer_after(r->o.loop, &r->timer, LOOK_MS);
    }
}

void runs_forget(struct runs *r, uint64_t scope, uint64_t token) {
    struct run *x = find(r, scope, token);
    char name[NAME_BYTES];
    name_of(name, scope, token);
    if (x == NULL) { /* of a launcher before this one */
        bool was_over = is_over(r, name);
        mark_over(r, name);
        r->kept_bytes += was_over ? 0 : folder_bytes(r, name);
        prune(r);
    } else if (x->pid == 0) {
        mark_over(r, name);
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
    char name[NAME_BYTES];
    name_of(name, read->scope, read->token);
    int folder = openat(r->folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
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
    char path[CAGE_PATH_BYTES + 8];
    if (r == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "runs");
        return NULL;
    }
    r->o = *o;
    r->folder = -1;
    (void)snprintf(r->dir, sizeof r->dir, "%s", o->dir);
    r->timer = (struct loop_timer){.fire = look, .context = r};
    (void)snprintf(path, sizeof path, "%s/runs", r->dir);
    if ((mkdir(path, 0711) != 0 && errno != EEXIST) || (r->folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
        (void)fault_errno(f, E_IO, "%s", path);
        runs_free(r);
        return NULL;
    }
    r->sieve = sieve_new(f);
    if (r->sieve == NULL) {
        runs_free(r);
        return NULL;
    }
    cage_sweep(o->cages);
    char oldest[NAME_BYTES];
    (void)look_through(r, oldest, &r->kept_bytes);
    prune(r);
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
    close_if(r->folder);
    mem_free(r);
}
