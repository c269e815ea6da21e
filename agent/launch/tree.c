#include "agent/launch/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/log.h"

#define NICENESS 10
#define MOVE_TRIES 8u       /* while sweeps of others take TREE_GONE away under it */
#define STUCK_MAX 64u       /* folders that could not be removed, before a sweep gives up */
#define PASSES_MAX 1000000u /* one for each level: a bound against a process that goes on making folders */

static DIR *list_of(int at, const char *name) {
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *list = fd < 0 ? NULL : fdopendir(fd);
    if (list == NULL && fd >= 0) {
        (void)close(fd);
    }
    return list;
}

/* The next one that is neither the folder itself nor the one above; NULL: the end. */
static const char *next_name(DIR *list) {
    struct dirent *e = readdir(list);
    while (e != NULL && (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)) {
        e = readdir(list);
    }
    return e == NULL ? NULL : e->d_name;
}

/* --- Counting -------------------------------------------------------------------------------------------------------------------------------- */

static bool within(int at, const char *folder, unsigned depth, uint64_t *left) {
    DIR *list = depth == 0 ? NULL : list_of(at, folder);
    bool well = depth > 0;
    struct stat st;
    for (const char *name = list == NULL ? NULL : next_name(list); well && name != NULL; name = next_name(list)) {
        if (fstatat(dirfd(list), name, &st, AT_SYMLINK_NOFOLLOW) != 0) { /* gone by now */
            continue;
        }
        uint64_t bytes = (uint64_t)st.st_blocks * 512u;
        bytes = bytes < TREE_ENTRY_BYTES_LEAST ? TREE_ENTRY_BYTES_LEAST : bytes;
        well = bytes <= *left;
        *left -= well ? bytes : 0;
        well = well && (!S_ISDIR(st.st_mode) || within(dirfd(list), name, depth - 1, left));
    }
    if (list != NULL) {
        (void)closedir(list);
    }
    return well;
}

bool tree_within(int at, const char *name, uint64_t *left) {
    return within(at, name, TREE_DEPTH_MAX, left);
}

/* --- Removal --------------------------------------------------------------------------------------------------------------------------------- */

/* Under a number that is free there. */
static bool move_to(int from, const char *name, int gone, uint32_t *number) {
    char fresh[16];
    do {
        (void)snprintf(fresh, sizeof fresh, "%u", (*number)++);
    } while (renameat(from, name, gone, fresh) != 0 && (errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR) && *number != 0);
    return faccessat(from, name, F_OK, AT_SYMLINK_NOFOLLOW) != 0 && errno == ENOENT;
}

static bool remove_small(int at, const char *name) {
    return unlinkat(at, name, 0) == 0 || errno == ENOENT || unlinkat(at, name, AT_REMOVEDIR) == 0;
}

bool tree_move_away(int at, const char *name) {
    bool away = remove_small(at, name);
    for (unsigned tries = 0; !away && tries < MOVE_TRIES; tries++) {
        uint32_t number = 0;
        int gone = mkdirat(at, TREE_GONE, 0700) == 0 || errno == EEXIST
                       ? openat(at, TREE_GONE, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW)
                       : -1;
        if (gone >= 0) {
            away = move_to(at, name, gone, &number);
            (void)close(gone);
        }
    }
    return away;
}

/* One folder of those that go, after the folders in it became folders beside it. */
static bool remove_one(int gone, const char *folder, uint32_t *number) {
    if (remove_small(gone, folder)) {
        return true;
    }
    DIR *list = list_of(gone, folder);
    for (const char *name = list == NULL ? NULL : next_name(list); name != NULL; name = next_name(list)) {
        if (!remove_small(dirfd(list), name)) {
            (void)move_to(dirfd(list), name, gone, number);
        }
    }
    if (list != NULL) {
        (void)closedir(list);
    }
    return unlinkat(gone, folder, AT_REMOVEDIR) == 0 || errno == ENOENT;
}

bool tree_sweep(int at) {
    uint32_t number = 0, stuck = 0;
    bool removed = true;
    for (uint32_t pass = 0; removed && stuck < STUCK_MAX && pass < PASSES_MAX; pass++) {
        DIR *list = list_of(at, TREE_GONE);
        removed = false;
        for (const char *name = list == NULL ? NULL : next_name(list); name != NULL; name = next_name(list)) {
            bool well = remove_one(dirfd(list), name, &number);
            removed = removed || well;
            stuck += !well;
        }
        if (list != NULL) {
            (void)closedir(list);
        }
    }
    return unlinkat(at, TREE_GONE, AT_REMOVEDIR) == 0 || errno == ENOENT;
}

pid_t tree_fork(int kept_fd) {
    pid_t parent = getpid(), pid = fork();
    if (pid != 0) {
        return pid;
    }
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0 || getppid() != parent) {
        _exit(127);
    }
    (void)!nice(NICENESS);
    if (kept_fd > STDERR_FILENO + 1) { /* before Linux 5.9 they stay open, which does no more than keep them */
        (void)close_range(STDERR_FILENO + 1, (unsigned)kept_fd - 1, 0);
    }
    (void)close_range((unsigned)(kept_fd > STDERR_FILENO ? kept_fd : STDERR_FILENO) + 1, UINT_MAX, 0);
    return 0;
}

void tree_sweep_apart(int at) {
    if (faccessat(at, TREE_GONE, F_OK, AT_SYMLINK_NOFOLLOW) != 0) {
        return;
    }
    pid_t pid = tree_fork(at);
    if (pid > 0) {
        return;
    }
    if (!tree_sweep(at)) {
        log_warn("launch", "sweep", "something that a task left cannot be removed");
    }
    if (pid == 0) {
        _exit(0);
    }
}
