#include "agent/launch/rundir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/launch/tree.h"
#include "platform/log.h"

void rundir_name(char out[RUNDIR_NAME_BYTES], uint64_t scope, uint64_t token) {
    (void)snprintf(out, RUNDIR_NAME_BYTES, "%016" PRIx64 "-%" PRIu64, scope, token);
}

static void close_if(int fd) {
    if (fd >= 0) {
        (void)close(fd);
    }
}

/* What lies in a folder itself: what the run wrote. */
static uint64_t folder_bytes(const struct rundir *d, const char *name) {
    int fd = openat(d->folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *list = fd < 0 ? NULL : fdopendir(fd);
    uint64_t sum = 0;
    struct stat st;
    for (struct dirent *e = list == NULL ? NULL : readdir(list); e != NULL; e = readdir(list)) {
        bool is_file = fstatat(dirfd(list), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
        sum += is_file ? (uint64_t)st.st_size : 0;
    }
    if (list != NULL) {
        (void)closedir(list);
    } else {
        close_if(fd);
    }
    return sum;
}

/* The site has its end: its token will not be asked for again, so the folder may go. */
static bool is_over(const struct rundir *d, const char *name) {
    char path[RUNDIR_NAME_BYTES + 8];
    (void)snprintf(path, sizeof path, "%s/over", name);
    return faccessat(d->folder, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Looks through all folders that may go: how many, and which was begun first. */
static uint32_t look_through(struct rundir *d, char oldest[RUNDIR_NAME_BYTES], uint64_t *bytes) { /* bytes NULL: not asked for */
    struct timespec first = {0};
    uint32_t count = 0;
    int fd = openat(d->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = fd < 0 ? NULL : fdopendir(fd);
    oldest[0] = 0;
    for (struct dirent *e = list == NULL ? NULL : readdir(list); e != NULL; e = readdir(list)) {
        uint64_t scope, token;
        struct stat st;
        if (strlen(e->d_name) >= RUNDIR_NAME_BYTES || sscanf(e->d_name, "%16" SCNx64 "-%" SCNu64, &scope, &token) != 2 ||
            !is_over(d, e->d_name) || fstatat(d->folder, e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
            continue;
        }
        count++;
        if (bytes != NULL) {
            *bytes += folder_bytes(d, e->d_name);
        }
        bool older = oldest[0] == 0 || st.st_mtim.tv_sec < first.tv_sec ||
                     (st.st_mtim.tv_sec == first.tv_sec && st.st_mtim.tv_nsec < first.tv_nsec);
        if (older) {
            first = st.st_mtim;
            (void)snprintf(oldest, RUNDIR_NAME_BYTES, "%s", e->d_name);
        }
    }
    if (list != NULL) {
        (void)closedir(list);
    } else {
        close_if(fd);
    }
    return count;
}

/* What was forgotten leaves, the oldest first, until the rest is within its bounds. */
static void prune(struct rundir *d) {
    char oldest[RUNDIR_NAME_BYTES];
    while (look_through(d, oldest, NULL) > RUNDIR_KEPT_MAX || (d->kept_bytes > RUNDIR_KEPT_BYTES_MAX && oldest[0] != 0)) {
        uint64_t bytes = folder_bytes(d, oldest);
        if (!tree_move_away(d->folder, oldest)) { /* whole, with its mark */
            log_limited(LOG_WARN, "launch", "prune", "%s cannot be removed: %s", oldest, strerror(errno));
            break;
        }
        d->kept_bytes -= bytes < d->kept_bytes ? bytes : d->kept_bytes;
    }
    tree_sweep_apart(d->folder);
}

/* What a launcher before this one moved away and did not remove. */
static void sweep_left(const struct rundir *d) {
    int fd = openat(d->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = fd < 0 ? NULL : fdopendir(fd);
    for (struct dirent *e = list == NULL ? NULL : readdir(list); e != NULL; e = readdir(list)) {
        int folder = e->d_name[0] == '.' ? -1 : openat(d->folder, e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (folder >= 0) {
            tree_sweep_apart(folder);
            (void)close(folder);
        }
    }
    if (list != NULL) {
        (void)closedir(list);
    } else {
        close_if(fd);
    }
}

void rundir_over(struct rundir *d, uint64_t scope, uint64_t token) {
    char name[RUNDIR_NAME_BYTES], path[RUNDIR_NAME_BYTES + 8];
    rundir_name(name, scope, token);
    if (is_over(d, name)) {
        return;
    }
    (void)snprintf(path, sizeof path, "%s/over", name);
    int fd = openat(d->folder, path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0) {
        (void)close(fd);
        int folder = rundir_find(d, scope, token);
        if (folder >= 0) { /* of a launcher that died under it */
            rundir_work_done(folder);
            (void)close(folder);
        }
        d->kept_bytes += folder_bytes(d, name);
        prune(d);
    }
}

int rundir_find(const struct rundir *d, uint64_t scope, uint64_t token) {
    char name[RUNDIR_NAME_BYTES];
    rundir_name(name, scope, token);
    return openat(d->folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
}

enum grey_error rundir_make(struct rundir *d, uint64_t scope, uint64_t token, int *fd) {
    char name[RUNDIR_NAME_BYTES];
    rundir_name(name, scope, token);
    if (mkdirat(d->folder, name, 0711) != 0) {
        *fd = -1;
        return errno == EEXIST ? E_CONDITION : E_IO;
    }
    *fd = rundir_find(d, scope, token);
    return *fd >= 0 && fsync(d->folder) == 0 && mkdirat(*fd, RUNDIR_WORK, 0700) == 0 ? E_OK : E_IO;
}

enum grey_error rundir_again(struct rundir *d, uint64_t scope, uint64_t token, int *fd) {
    char name[RUNDIR_NAME_BYTES];
    rundir_name(name, scope, token);
    *fd = is_over(d, name) ? -1 : rundir_find(d, scope, token);
    if (*fd < 0) {
        return E_CONDITION;
    }
    return mkdirat(*fd, RUNDIR_WORK, 0700) == 0 || errno == EEXIST ? E_OK : E_IO; /* what it kept there is there still */
}

bool rundir_make_image(int fd, bool change, uid_t uid, gid_t gid) {
    bool free = tree_move_away(fd, RUNDIR_IMAGE);
    tree_sweep_apart(fd);
    return free && mkdirat(fd, RUNDIR_IMAGE, 0700) == 0 &&
           (!change || fchownat(fd, RUNDIR_IMAGE, uid, gid, AT_SYMLINK_NOFOLLOW) == 0);
}

bool rundir_image_began(int fd) {
    return faccessat(fd, RUNDIR_IMAGE "/" RUNDIR_BEGAN, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

pid_t rundir_weigh(int fd, uint64_t bytes_max) {
    pid_t pid = tree_fork(fd);
    if (pid == 0) {
        uint64_t left = bytes_max;
        _exit(tree_within(fd, RUNDIR_WORK, &left) && tree_within(fd, RUNDIR_IMAGE, &left) ? 0 : RUNDIR_ABOVE);
    }
    return pid;
}

void rundir_work_done(int fd) {
    bool away = tree_move_away(fd, RUNDIR_WORK);
    if (!tree_move_away(fd, RUNDIR_IMAGE) || !away) {
        log_limited(LOG_WARN, "launch", "clear", "the directory of a run cannot be removed: %s", strerror(errno));
    }
    tree_sweep_apart(fd);
}

enum grey_error rundir_open(struct rundir *d, const char *parent, struct fault *f) {
    char path[1024], oldest[RUNDIR_NAME_BYTES];
    *d = (struct rundir){.folder = -1};
    int size = snprintf(path, sizeof path, "%s/runs", parent);
    if (size >= (int)sizeof path || (mkdir(path, 0711) != 0 && errno != EEXIST) ||
        (d->folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
        return fault_errno(f, E_IO, "%s", path);
    }
    (void)look_through(d, oldest, &d->kept_bytes);
    prune(d);
    sweep_left(d);
    return E_OK;
}

void rundir_close(struct rundir *d) {
    close_if(d->folder);
    d->folder = -1;
}
