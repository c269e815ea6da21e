#include "agent/launch/runs_core.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "platform/log.h"

#define LOOK_MS 100u         /* while something is to be killed or removed */
#define DISK_MS 2000u        /* between two looks at the working directory of a run that has a bound on it */
#define SICK_GRACE_MS 5000u  /* at most between its signal and KILL, of one that is not well or holds too much */
#define LEASE_GRACE_MS 1000u /* at most between its signal and KILL when the lease is over */

static const char *const stream_names[LAUNCH_STREAM_COUNT] = {[LAUNCH_STDOUT] = "out", [LAUNCH_STDERR] = "err"};

static struct run *find(const struct runs *r, uint64_t scope, uint64_t token) {
    struct run *x = r->first;
    while (x != NULL && (x->state.scope != scope || x->state.token != token)) {
        x = x->next;
    }
    return x;
}

/* --- Life of one ------------------------------------------------------------------------------------------------------------------------- */

static void look_soon(struct runs *r) {
    if (r->timer.place == 0 || r->timer.deadline_ms > loop_now_ms(r->o.loop) + LOOK_MS) {
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
        bool all = kill(-x->pid, number) == 0; /* its group; it leads a session of its own */
        if (!all) {                            /* not yet */
            (void)kill(x->pid, number);
        }
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
        x->state.use.output_bytes[s] = x->captures[s].seen;
        digest_stream_end(&x->captures[s].digest, x->state.use.output_hash[s]);
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
    if (got == (ssize_t)sizeof why) { /* told when it is reaped */
        x->state.end = why < 0 && -why < LAUNCH_END_COUNT ? (enum launch_end) - why : LAUNCH_END_START;
        x->state.status = why < 0 ? 0 : why;
    } else if (x->state.state == LAUNCH_STARTING) {
        x->state.state = LAUNCH_RUNNING;
        look_soon(x->runs); /* at what it is watched for */
        tell(x);
    }
}

/* So far, from its groups; what they do not tell, of its first process. */
static void measure(struct run *x, struct launch_use *u) {
    bool told = x->caged && cage_use(&x->cage, &u->cpu_us, &u->memory_bytes, &u->memory_peak_bytes);
    u->wall_ms = loop_now_ms(x->runs->o.loop) - x->begun_ms;
    for (unsigned s = 0; s < LAUNCH_STREAM_COUNT; s++) {
        u->output_bytes[s] = x->captures[s].seen;
    }
    if (told || x->pid == 0) {
        return;
    }
    char path[48], text[512];
    unsigned long user = 0, system = 0;
    long pages = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)x->pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0) {
        (void)close(fd);
    }
    text[size > 0 ? size : 0] = 0;
    const char *behind = strrchr(text, ')'); /* its name may hold anything */
    if (behind != NULL &&
        sscanf(behind + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d %*d %*d %*u %*u %ld", &user,
               &system, &pages) == 3) {
        u->cpu_us = (uint64_t)(user + system) * 1000000u / (uint64_t)sysconf(_SC_CLK_TCK);
        u->memory_bytes = (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
        u->memory_peak_bytes = u->memory_bytes;
    }
}

/* All that it used: before its groups are gone. */
static void measure_end(struct run *x, const struct rusage *r) {
    struct launch_use *u = &x->state.use;
    measure(x, u);
    uint64_t cpu_us =
        (uint64_t)(r->ru_utime.tv_sec + r->ru_stime.tv_sec) * 1000000u + (uint64_t)(r->ru_utime.tv_usec + r->ru_stime.tv_usec);
    uint64_t peak = (uint64_t)r->ru_maxrss * 1024u;
    u->cpu_us = u->cpu_us > cpu_us ? u->cpu_us : cpu_us;
    u->memory_peak_bytes = u->memory_peak_bytes > 0 ? u->memory_peak_bytes : peak;
    u->memory_bytes = 0;
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
    if (x->state.end != LAUNCH_END_NONE) { /* it did not begin */
        for (size_t i = 0; x->state.end == LAUNCH_END_ARTIFACT && i < x->given.size; i += LAUNCHWIRE_HASH_BYTES) {
            shelf_drop(&x->runs->shelf, bytes_of(x->given.data + i, LAUNCHWIRE_HASH_BYTES)); /* one may not be what it was */
        }
        ended(x, x->state.end, x->state.status);
    } else if (x->stopping) {
        ended(x, x->sick != LAUNCH_END_NONE ? x->sick : LAUNCH_END_STOPPED, number);
    } else if (x->image && !memory && !rundir_image_began(x->folder)) { /* crun's own end; its words are on standard error */
        ended(x, LAUNCH_END_IMAGE, number);
    } else {
        ended(x, memory ? LAUNCH_END_MEMORY : by_signal ? LAUNCH_END_SIGNAL : LAUNCH_END_EXIT, number);
    }
}

static void stop(struct run *x, uint32_t grace_ms);

static void give_up(struct run *x, enum launch_end why) {
    x->sick = x->stopping ? x->sick : why; /* an order to stop came before */
    stop(x, SICK_GRACE_MS);
}

static void probe_ended(struct run *x, bool well) {
    x->probe_pid = 0;
    x->probe_at_ms = loop_now_ms(x->runs->o.loop) + x->probe.interval_ms;
    x->probes_failed = well ? 0 : x->probes_failed + 1;
    if (!well) {
        log_info("launch", "probe", "task=%s token=%" PRIu64 " failed=%" PRIu32 " of=%" PRIu32, x->id, x->state.token,
                 x->probes_failed, x->probe.failures);
    }
    if (x->probes_failed >= x->probe.failures && x->pid > 0) {
        give_up(x, LAUNCH_END_PROBE);
    }
    look_soon(x->runs);
}

static void disk_looked_at(struct run *x, bool above) {
    x->disk_pid = 0;
    if (above && x->pid > 0) {
        log_warn("launch", "disk", "task=%s token=%" PRIu64 ": its working directory is above its bound", x->id, x->state.token);
        give_up(x, LAUNCH_END_DISK);
    }
}

void runs_reap(struct runs *r) {
    int status;
    pid_t pid;
    struct rusage use;
    while ((pid = wait4(-1, &status, WNOHANG, &use)) > 0) { /* also what a task left behind: the launcher inherits it */
        if (shelf_reap(&r->shelf, pid, status)) {
            continue;
        }
        for (struct run *x = r->first; x != NULL; x = x->next) {
            if (x->probe_pid == pid) {
                probe_ended(x, WIFEXITED(status) && WEXITSTATUS(status) == 0);
                break;
            }
            if (x->disk_pid == pid) {
                disk_looked_at(x, WIFEXITED(status) && WEXITSTATUS(status) == RUNDIR_ABOVE);
                break;
            }
            if (x->pid == pid) {
                (void)kill(-pid, SIGKILL);
                measure_end(x, &use);
                judge(x, status);
                break;
            }
        }
    }
}

/* --- Start ---------------------------------------------------------------------------------------------------------------------------------- */

/* Until when nothing is to be done for what this run is watched for. */
static uint64_t watch_run(struct run *x, uint64_t now_ms) {
    uint64_t next_ms = UINT64_MAX;
    if (x->pid == 0 || x->stopping || x->state.state != LAUNCH_RUNNING) {
        return next_ms;
    }
    if (x->disk_bytes > 0) {
        if (now_ms >= x->disk_at_ms) {
            x->disk_at_ms = now_ms + DISK_MS;
            pid_t pid = x->disk_pid > 0 ? x->disk_pid : rundir_weigh(x->folder, x->disk_bytes);
            x->disk_pid = pid > 0 ? pid : 0;
        }
        next_ms = x->disk_at_ms;
    }
    if (x->probe.command.count > 0) {
        if (now_ms >= x->probe_at_ms && x->probe_pid > 0) {
            (void)kill(-x->probe_pid, SIGKILL);
            (void)kill(x->probe_pid, SIGKILL);
            x->probe_at_ms = now_ms + x->probe.timeout_ms; /* its end is seen before */
        } else if (now_ms >= x->probe_at_ms && !runbegin_probe(x)) {
            probe_ended(x, false);
        }
        next_ms = x->probe_at_ms < next_ms ? x->probe_at_ms : next_ms;
    }
    return next_ms;
}

static struct run *run_new(struct runs *r, const struct launch_message *start) {
    static void (*const readers[LAUNCH_STREAM_COUNT])(void *, uint32_t) = {out_ready, err_ready};
    struct run *x = mem_new(1, sizeof *x);
    if (x == NULL) {
        return NULL;
    }
    x->runs = r;
    x->folder = -1;
    x->leased = start->leased;
    x->image = start->image.size > 0;
    x->begun_ms = loop_now_ms(r->o.loop);
    x->state =
        (struct launch_message){.kind = LAUNCH_STATE, .scope = start->scope, .token = start->token, .state = LAUNCH_STARTING};
    memcpy(x->id, start->id.data, start->id.size); /* a name, so it has room */
    x->status = (struct loop_fd){.ready = status_ready, .context = x, .fd = -1};
    for (unsigned s = 0; s < LAUNCH_STREAM_COUNT; s++) {
        x->streams[s] = (struct loop_fd){.ready = readers[s], .context = x, .fd = -1};
        x->captures[s].fd = -1;
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
    if (x->folder >= 0) {
        (void)close(x->folder);
    }
    builder_free(&x->order);
    builder_free(&x->given);
    mem_free(x);
}

static void answer(struct runs *r, const struct launch_message *start, enum launch_state state, int status) {
    struct launch_message m = {
        .kind = LAUNCH_STATE, .scope = start->scope, .token = start->token, .state = state, .status = status};
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
    int lacks = runbegin_lacks(r, start);
    if (lacks >= 0) { /* nothing was marked here either */
        answer(r, start, LAUNCH_LACKS, lacks);
        return;
    }
    x = r->count < RUNS_MAX && (!start->leased || lease_holds(r)) ? run_new(r, start) : NULL;
    if (x == NULL) { /* nothing was marked: another START may come */
        answer(r, start, LAUNCH_LATER, 0);
        return;
    }
    enum grey_error err = rundir_make(&r->folders, start->scope, start->token, &x->folder);
    bool again = err == E_CONDITION && start->again;
    if (again) {
        err = rundir_again(&r->folders, start->scope, start->token, &x->folder);
    }
    if (err == E_CONDITION) {
        run_free(r, x);
        answer(r, start, LAUNCH_USED, 0);
        return;
    }
    bool watched = runbegin_watch(x, start);
    for (unsigned s = 0; s < LAUNCH_STREAM_COUNT; s++) {
        capture_init(&x->captures[s], x->folder, stream_names[s]);
        if (again) {
            capture_resume(&x->captures[s]);
        }
    }
    int why = err != E_OK ? EIO : watched ? runbegin(x, start) : ENOMEM;
    log_info("launch", "start", "task=%s token=%" PRIu64 " pid=%d error=%d", x->id, x->state.token, (int)x->pid, why);
    if (why != 0) {
        ended(x, LAUNCH_END_START, why);
    } else if (x->disk_bytes > 0 || x->probe.command.count > 0) {
        look_soon(r);
    }
}

/* --- Stop ------------------------------------------------------------------------------------------------------------------------------------ */

static void stop(struct run *x, uint32_t most_ms) {
    uint32_t grace_ms = most_ms < x->grace_ms ? most_ms : x->grace_ms;
    uint64_t at_ms = loop_now_ms(x->runs->o.loop) + grace_ms;
    if (x->pid == 0) {
        return;
    }
    if (!x->stopping) {
        x->stopping = true;
        x->kill_at_ms = at_ms;
        signal_run(x, (int)x->stop_signal);
        log_info("launch", "stop", "task=%s token=%" PRIu64 " grace_ms=%" PRIu32, x->id, x->state.token, grace_ms);
    }
    x->kill_at_ms = at_ms < x->kill_at_ms ? at_ms : x->kill_at_ms; /* never later than was said first */
    look_soon(x->runs);
}

void runs_stop(struct runs *r, uint64_t scope, uint64_t token, uint32_t most_ms) {
    struct run *x = find(r, scope, token);
    if (x != NULL) {
        stop(x, most_ms);
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
    uint64_t next_ms = UINT64_MAX;
    /* In a turn timers come before what greyd says: after a stall its word may wait there, so the time that counts is that of the look
     * before, since which it was read. */
    bool over = r->looked_ms >= r->lease_until_ms, at_once = !over && !lease_holds(r);
    bool again = false, waits = false;
    r->looked_ms = now_ms;
    for (struct run *x = r->first, *next; x != NULL; x = next) {
        next = x->next;
        if (x->pid > 0 && x->leased && !x->stopping && over) {
            log_warn("launch", "lease", "task=%s token=%" PRIu64 ": its lease is over", x->id, x->state.token);
            stop(x, LEASE_GRACE_MS);
        }
        if (x->pid > 0 && x->stopping && now_ms >= x->kill_at_ms) {
            signal_run(x, SIGKILL);
        }
        uint64_t at_ms = watch_run(x, now_ms);
        next_ms = at_ms < next_ms ? at_ms : next_ms;
        if (x->pid == 0 && x->probe_pid > 0) {
            (void)kill(x->probe_pid, SIGKILL);
        }
        if (x->pid == 0 && x->caged) {
            cage_kill(&x->cage);
            x->caged = !cage_remove(&x->cage);
        }
        again = again || x->caged || (x->pid > 0 && (x->stopping || x->leased));
        again = again || (x->pid == 0 && x->probe_pid > 0);
        waits = waits || (at_once && x->pid > 0 && x->leased && !x->stopping);
        if (x->forgotten && x->pid == 0 && x->probe_pid == 0 && !x->caged) {
            run_free(r, x);
        }
    }
    if (again) {
        loop_timer_after(r->o.loop, &r->timer, waits ? 0 : LOOK_MS);
    } else if (next_ms != UINT64_MAX) {
        loop_timer_set(r->o.loop, &r->timer, next_ms);
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

void runs_measure(struct runs *r) {
    for (struct run *x = r->first; x != NULL; x = x->next) {
        if (x->pid > 0) {
            struct launch_message m = {.kind = LAUNCH_USE, .scope = x->state.scope, .token = x->state.token};
            measure(x, &m.use);
            r->o.changed(r->o.context, &m);
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

void runs_store(struct runs *r, const struct launch_message *part) {
    shelf_store(&r->shelf, part);
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
    r->shelf.folder = -1;
    bool opened = rundir_open(&r->folders, o->dir, f) == E_OK &&
                  shelf_open(&r->shelf, o->loop, o->dir, o->artifact_bytes_max, o->changed, o->context, f) == E_OK;
    r->sieve = opened ? sieve_new(f) : NULL;
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
    shelf_close(&r->shelf);
    mem_free(r);
}
