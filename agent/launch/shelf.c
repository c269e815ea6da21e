#include "agent/launch/shelf.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/launch/tree.h"
#include "platform/log.h"

#define NAME_BYTES (2 * DIGEST_SHA256_BYTES + 1)
#define COMING "coming." /* and the keeper's process: no name of a finished one */

static DIR *list_of(const struct shelf *s) {
    int fd = openat(s->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = fd < 0 ? NULL : fdopendir(fd);
    if (list == NULL && fd >= 0) {
        (void)close(fd);
    }
    return list;
}

/* What lies there, in bytes, and which of it was not used for longest; *oldest is empty when nothing does. */
static uint64_t look_through(const struct shelf *s, char oldest[NAME_BYTES]) {
    DIR *list = list_of(s);
    struct timespec first = {0};
    struct stat st;
    uint64_t sum = 0;
    oldest[0] = 0;
    for (struct dirent *e = list == NULL ? NULL : readdir(list); e != NULL; e = readdir(list)) {
        if (strlen(e->d_name) != NAME_BYTES - 1 || fstatat(s->folder, e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
            continue;
        }
        sum += (uint64_t)st.st_size;
        bool older = oldest[0] == 0 || st.st_mtim.tv_sec < first.tv_sec ||
                     (st.st_mtim.tv_sec == first.tv_sec && st.st_mtim.tv_nsec < first.tv_nsec);
        if (older) {
            first = st.st_mtim;
            (void)snprintf(oldest, NAME_BYTES, "%s", e->d_name);
        }
    }
    if (list != NULL) {
        (void)closedir(list);
    }
    return sum;
}

/* Until there is room for so much more. */
static void make_room(struct shelf *s, uint64_t more) {
    char oldest[NAME_BYTES];
    while (look_through(s, oldest) + more > s->bytes_max && oldest[0] != 0) {
        log_info("launch", "artifact", "%.16s leaves, for room", oldest);
        if (unlinkat(s->folder, oldest, 0) != 0) {
            return;
        }
    }
}

/* --- The keeper's -------------------------------------------------------------------------------------------------------------------------- */

/* What keepers before this one left; one that is being killed finds its own gone. */
static void sweep_coming(const struct shelf *s) {
    DIR *list = list_of(s);
    for (struct dirent *e = list == NULL ? NULL : readdir(list); e != NULL; e = readdir(list)) {
        if (strncmp(e->d_name, COMING, strlen(COMING)) == 0) {
            (void)unlinkat(s->folder, e->d_name, 0);
        }
    }
    if (list != NULL) {
        (void)closedir(list);
    }
}

/* All of it, from the socket into the file, hashed on its way.  False: it ended before, or the disk takes no more. */
static bool copy(const struct shelf *s, int from, int to, uint8_t hash[DIGEST_SHA256_BYTES]) {
    uint8_t room[LAUNCHWIRE_PART_BYTES_MAX];
    struct digest_stream digest;
    digest_stream_begin(&digest);
    for (uint64_t left = s->size; left > 0;) {
        ssize_t got = read(from, room, sizeof room < left ? sizeof room : (size_t)left);
        if (got <= 0 || write(to, room, (size_t)got) != got) {
            return false;
        }
        digest_stream_add(&digest, bytes_of(room, (size_t)got));
        left -= (uint64_t)got;
    }
    digest_stream_end(&digest, hash);
    return true;
}

static enum launch_stored keep(struct shelf *s, int from) {
    uint8_t hash[DIGEST_SHA256_BYTES];
    char coming[32], name[NAME_BYTES];
    s->folder = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* tree_fork left us one descriptor */
    if (s->folder < 0) {
        return LAUNCH_STORED_FAILED;
    }
    sweep_coming(s);
    make_room(s, s->size);
    (void)snprintf(coming, sizeof coming, COMING "%d", (int)getpid());
    bytes_hex(s->hash, sizeof s->hash, name);
    int fd = openat(s->folder, coming, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    enum launch_stored how = fd >= 0 && copy(s, from, fd, hash) ? LAUNCH_STORED_WELL : LAUNCH_STORED_FAILED;
    if (how == LAUNCH_STORED_WELL && memcmp(hash, s->hash, sizeof hash) != 0) {
        how = LAUNCH_STORED_DIFFERS;
    }
    if (how == LAUNCH_STORED_WELL &&
        (fsync(fd) != 0 || renameat(s->folder, coming, s->folder, name) != 0 || fsync(s->folder) != 0)) {
        how = LAUNCH_STORED_FAILED;
    }
    if (how != LAUNCH_STORED_WELL) {
        (void)unlinkat(s->folder, coming, 0);
    }
    return how;
}

/* --- The launcher's ------------------------------------------------------------------------------------------------------------------------ */

static void close_pipe(struct shelf *s) {
    int fd = s->to_keeper.fd;
    if (fd >= 0) {
        loop_fd_remove(s->loop, &s->to_keeper);
        (void)close(fd);
        s->to_keeper.fd = -1;
    }
    builder_free(&s->queue);
    s->sent = 0;
    s->held = false;
}

static void stop_coming(struct shelf *s) {
    close_pipe(s);
    if (s->keeper > 0) {
        (void)kill(s->keeper, SIGKILL);
        s->keeper = 0;
    }
}

static void tell(struct shelf *s, struct bytes hash, uint64_t size, enum launch_stored how) {
    struct launch_message m = {.kind = LAUNCH_STORED, .hash = hash, .end_offset = size, .stored = how};
    s->told(s->context, &m);
}

static void feed(void *context, uint32_t events) {
    struct shelf *s = context;
    (void)events;
    while (s->sent < s->queue.size) {
        ssize_t put = send(s->to_keeper.fd, s->queue.data + s->sent, s->queue.size - s->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0 && errno == EAGAIN) {
            return;
        }
        if (put < 0) { /* the keeper has ended; why is known when it is reaped */
            close_pipe(s);
            return;
        }
        s->sent += (size_t)put;
    }
    builder_reset(&s->queue);
    s->sent = 0;
    if (s->have == s->size) {
        close_pipe(s);
        return;
    }
    loop_fd_events(s->loop, &s->to_keeper, 0);
    if (s->held) {
        s->held = false;
        tell(s, bytes_of(s->hash, sizeof s->hash), s->size, LAUNCH_STORED_GO_ON);
    }
}

static bool begin_coming(struct shelf *s, const struct launch_message *part) {
    int ends[2];
    stop_coming(s);
    s->size = part->end_offset;
    s->have = 0;
    memcpy(s->hash, part->hash.data, sizeof s->hash);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
        return false;
    }
    builder_init(&s->queue, SHELF_QUEUE_BYTES_MAX);
    s->to_keeper = (struct loop_fd){.ready = feed, .context = s, .fd = -1};
    bool well = loop_fd_add(s->loop, &s->to_keeper, ends[1], 0, NULL) == E_OK;
    if (!well) {
        (void)close(ends[1]);
    }
    pid_t pid = well ? tree_fork(ends[0]) : -1;
    if (pid == 0) {
        _exit((int)keep(s, ends[0]));
    }
    (void)close(ends[0]);
    s->keeper = pid > 0 ? pid : 0;
    return pid > 0;
}

void shelf_store(struct shelf *s, const struct launch_message *part) {
    if (part->end_offset > s->bytes_max) {
        tell(s, part->hash, part->end_offset, LAUNCH_STORED_TOO_LARGE);
        return;
    }
    bool begun = part->offset > 0 || begin_coming(s, part);
    bool fits = begun && s->keeper > 0 && memcmp(s->hash, part->hash.data, sizeof s->hash) == 0 && part->offset == s->have &&
                part->end_offset == s->size && part->data.size <= s->size - s->have;
    if (!fits) {
        stop_coming(s);
        tell(s, part->hash, part->end_offset, LAUNCH_STORED_FAILED);
        return;
    }
    s->have += part->data.size;
    if (s->to_keeper.fd < 0) { /* it has ended; that is told when it is reaped */
        return;
    }
    builder_add(&s->queue, part->data);
    if (s->queue.err != E_OK) {
        stop_coming(s);
        tell(s, part->hash, part->end_offset, LAUNCH_STORED_FAILED);
        return;
    }
    loop_fd_events(s->loop, &s->to_keeper, EPOLLOUT);
    if (!s->held && s->have < s->size && s->queue.size - s->sent > SHELF_HOLD_BYTES) {
        s->held = true;
        tell(s, part->hash, part->end_offset, LAUNCH_STORED_HOLD);
    }
}

bool shelf_reap(struct shelf *s, pid_t pid, int status) {
    if (s->keeper == 0 || pid != s->keeper) {
        return false;
    }
    s->keeper = 0;
    close_pipe(s);
    int word = WIFEXITED(status) ? WEXITSTATUS(status) : LAUNCH_STORED_FAILED;
    tell(s, bytes_of(s->hash, sizeof s->hash), s->size,
         word == LAUNCH_STORED_WELL || word == LAUNCH_STORED_DIFFERS ? (enum launch_stored)word : LAUNCH_STORED_FAILED);
    return true;
}

int shelf_take(struct shelf *s, struct bytes hash) {
    char name[NAME_BYTES];
    bytes_hex(hash.data, DIGEST_SHA256_BYTES, name);
    int fd = openat(s->folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0) {
        (void)futimens(fd, NULL); /* it was used now */
    }
    return fd;
}

void shelf_drop(struct shelf *s, struct bytes hash) {
    char name[NAME_BYTES];
    bytes_hex(hash.data, DIGEST_SHA256_BYTES, name);
    (void)unlinkat(s->folder, name, 0);
}

enum grey_error shelf_open(struct shelf *s, struct loop *loop, const char *parent, uint64_t bytes_max, shelf_told *told,
                           void *context, struct fault *f) {
    *s = (struct shelf){
        .folder = -1, .bytes_max = bytes_max, .loop = loop, .told = told, .context = context, .to_keeper = {.fd = -1}};
    int size = snprintf(s->path, sizeof s->path, "%s/artifacts", parent);
    if (size >= (int)sizeof s->path || (mkdir(s->path, 0700) != 0 && errno != EEXIST) ||
        (s->folder = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
        return fault_errno(f, E_IO, "%s", s->path);
    }
    sweep_coming(s);
    make_room(s, 0);
    return E_OK;
}

void shelf_close(struct shelf *s) {
    if (s->folder >= 0) {
        stop_coming(s);
        (void)close(s->folder);
        s->folder = -1;
    }
}
