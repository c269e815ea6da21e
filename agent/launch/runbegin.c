#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "agent/launch/isolate.h"
#include "agent/launch/runs_core.h"
#include "platform/log.h"

#define RUN_PATH_BYTES (CAGE_PATH_BYTES + 2 * RUNDIR_NAME_BYTES)

static void close_if(int fd) {
    if (fd >= 0) {
        (void)close(fd);
    }
}

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
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return false;
    }
    *task_end = ends[1];
    bool well =
        fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0 && loop_fd_add(x->runs->o.loop, &x->streams[s], ends[0], EPOLLIN, NULL) == E_OK;
    if (!well) {
        (void)close(ends[0]);
    }
    return well;
}

static void path_of(const struct run *x, const char *folder, char out[RUN_PATH_BYTES]) {
    char name[RUNDIR_NAME_BYTES];
    rundir_name(name, x->state.scope, x->state.token);
    (void)snprintf(out, RUN_PATH_BYTES, "%s/runs/%s/%s", x->runs->dir, name, folder);
}

/* Said each time: whoever asked for a bound must not think that there is one. */
static void bound_io(const struct run *x, const struct launch_message *start) {
    bool asked = start->io_read_bps > 0 || start->io_write_bps > 0;
    if (asked && (!x->caged || !cage_bound_io(&x->cage, start->io_read_bps, start->io_write_bps))) {
        log_warn("launch", "limits",
                 "task=%s token=%" PRIu64 ": nothing here bounds what it reads and writes, so it runs without that bound", x->id,
                 x->state.token);
    }
}

int runbegin_lacks(struct runs *r, const struct launch_message *start) {
    for (uint32_t i = 0; i < start->files.count; i++) {
        int fd = start->files.at[i].source == LAUNCH_FILE_STORED ? shelf_take(&r->shelf, start->files.at[i].hash) : -1;
        if (fd < 0 && start->files.at[i].source == LAUNCH_FILE_STORED) {
            return (int)i;
        }
        close_if(fd);
    }
    return -1;
}

static bool open_stored(struct run *x, const struct launch_message *start, int stored[LAUNCHWIRE_FILES_MAX]) {
    bool well = true;
    for (uint32_t i = 0; i < LAUNCHWIRE_FILES_MAX; i++) {
        bool wanted = i < start->files.count && start->files.at[i].source == LAUNCH_FILE_STORED;
        stored[i] = wanted ? shelf_take(&x->runs->shelf, start->files.at[i].hash) : -1;
        well = well && wanted == (stored[i] >= 0);
        if (wanted) {
            builder_add(&x->given, start->files.at[i].hash);
        }
    }
    return well;
}

/* Everything up to the process; 0, or the errno of what failed. */
int runbegin(struct run *x, const struct launch_message *start) {
    struct runs *r = x->runs;
    char work[RUN_PATH_BYTES], image[RUN_PATH_BYTES], runs_path[RUN_PATH_BYTES];
    int input = -1, ends[LAUNCH_STREAM_COUNT] = {-1, -1}, folder = -1, status_fd = -1, stored[LAUNCHWIRE_FILES_MAX];
    struct fault f = {0};
    path_of(x, RUNDIR_WORK, work);
    path_of(x, RUNDIR_IMAGE, image);
    (void)snprintf(runs_path, sizeof runs_path, "%s/runs", r->dir);
    x->caged = r->o.cages->kind != LAUNCH_LIMITS_RLIMITS && cage_make(&x->cage, r->o.cages, x->state.scope, x->state.token,
                                                                      start->cpu_millicores, start->memory_bytes, &f) == E_OK;
    if (r->o.cages->kind != LAUNCH_LIMITS_RLIMITS && !x->caged) {
        int why = errno;
        log_error("launch", "group", "task=%s %s", x->id, f.text);
        return why;
    }
    bound_io(x, start);
    folder = openat(x->folder, RUNDIR_WORK, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    bool given = open_stored(x, start, stored);
    input = input_of(start->standard_input);
    bool well = folder >= 0 && given && input >= 0 && watch_stream(x, LAUNCH_STDOUT, &ends[0]) &&
                watch_stream(x, LAUNCH_STDERR, &ends[1]) &&
                (!r->o.user.change || fchown(folder, r->o.user.uid, r->o.user.gid) == 0) &&
                (start->image.size == 0 || rundir_make_image(x->folder, r->o.user.change, r->o.user.uid, r->o.user.gid));
    if (well) {
        struct child_plan p = {.start = start,
                               .cage = x->caged ? &x->cage : NULL,
                               .sieve = r->sieve,
                               .user = &r->o.user,
                               .work_folder = folder,
                               .work_path = work,
                               .input = input,
                               .output = ends[0],
                               .errors = ends[1],
                               .stored = stored,
                               .runs_path = runs_path,
                               .image_path = image};
        pid_t pid = child_start(&p, &status_fd);
        well = pid > 0;
        x->pid = well ? pid : 0;
    }
    int why = well ? 0 : errno != 0 ? errno : EIO;
    close_if(folder);
    close_if(input);
    close_if(ends[0]);
    close_if(ends[1]);
    for (uint32_t i = 0; i < LAUNCHWIRE_FILES_MAX; i++) {
        close_if(stored[i]);
    }
    if (well && loop_fd_add(r->o.loop, &x->status, status_fd, EPOLLIN, NULL) != E_OK) {
        (void)close(status_fd);
        (void)kill(x->pid, SIGKILL); /* its end is reported when it is reaped */
    }
    return why;
}

/* Beside the run, in its group and with its rights; what it says goes nowhere. */
bool runbegin_probe(struct run *x) {
    static char self[] = "/proc/self/exe";
    struct runs *r = x->runs;
    struct launch_message start;
    char work[RUN_PATH_BYTES];
    bool readable = launchwire_decode(builder_bytes(&x->order), &start) == E_OK;
    start.command = start.probe.command;
    start.isolate |= start.image.size > 0 ? LAUNCH_ISOLATE_PID : 0; /* as its own child had it */
    start.image = bytes_of(NULL, 0);
    pid_t beside = isolate_inside(x->pid, start.isolate);
    if (beside == 0) { /* its end is on its way to be seen */
        log_limited(LOG_INFO, "launch", "probe", "task=%s token=%" PRIu64 ": nothing of it is there to be asked", x->id,
                    x->state.token);
        x->probe_at_ms = loop_now_ms(r->o.loop) + x->probe.interval_ms;
        return true;
    }
    int status_fd = -1, null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int folder = openat(x->folder, RUNDIR_WORK, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    path_of(x, RUNDIR_WORK, work);
    struct child_plan p = {.start = &start,
                           .cage = x->caged ? &x->cage : NULL,
                           .sieve = r->sieve,
                           .user = &r->o.user,
                           .work_folder = folder,
                           .work_path = work,
                           .input = null,
                           .output = null,
                           .errors = null,
                           .self_path = self,
                           .beside = beside};
    pid_t pid = readable && null >= 0 && folder >= 0 ? child_start(&p, &status_fd) : -1;
    close_if(status_fd);
    close_if(null);
    close_if(folder);
    x->probe_pid = pid > 0 ? pid : 0;
    x->probe_at_ms = loop_now_ms(r->o.loop) + x->probe.timeout_ms;
    return pid > 0;
}

bool runbegin_watch(struct run *x, const struct launch_message *start) {
    x->disk_bytes = start->disk_bytes;
    x->stop_signal = start->stop_signal > 0 ? start->stop_signal : SIGTERM;
    x->grace_ms = start->stop_signal > 0 ? start->grace_ms : LAUNCHWIRE_GRACE_MS_MAX;
    x->probe = start->probe;
    x->probe_at_ms = x->begun_ms + start->probe.delay_ms;
    builder_init(&x->given, sizeof start->files.at / sizeof start->files.at[0] * LAUNCHWIRE_HASH_BYTES);
    builder_init(&x->order, LAUNCHWIRE_BYTES_MAX);
    if (x->probe.command.count > 0) {
        struct launch_message m = *start;
        m.standard_input = bytes_of(NULL, 0);
        m.files.count = 0;
        launchwire_encode(&x->order, &m);
    }
    return x->order.err == E_OK;
}
