/* The directory of state images: what is there, what may go, and what is being received. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/store/datadir.h"
#include "agent/store/snapshot.h"
#include "platform/log.h"

#define PATH_BYTES (LIMIT_PATH_BYTES + 96u)

static bool ends_with(const char *name, const char *suffix) {
    size_t size = strlen(name), tail = strlen(suffix);
    return size > tail && strcmp(name + size - tail, suffix) == 0;
}

static void remove_file(const char *dir, const struct sitelog_snapshot_info *info) {
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s/%s", dir, info->name);
    (void)unlink(path);
}

/* The oldest one has to go when there are too many: what is not listed would never be removed. */
static void list_insert(const char *dir, struct snapshot_list *list, const struct sitelog_snapshot_info *info) {
    size_t at = 0;
    while (at < list->count && list->at[at].point.index > info->point.index) {
        at++;
    }
    if (list->count == SITELOG_SNAPSHOTS_MAX) {
        remove_file(dir, at == SITELOG_SNAPSHOTS_MAX ? info : &list->at[SITELOG_SNAPSHOTS_MAX - 1]);
        list->count--;
    }
    if (at < SITELOG_SNAPSHOTS_MAX) {
        memmove(&list->at[at + 1], &list->at[at], (list->count - at) * sizeof list->at[0]);
        list->at[at] = *info;
    }
    list->count++;
}

/* Head and last bytes only: the blocks between are verified when the image is read. */
static void list_file(const char *dir, const char *name, struct snapshot_list *list) {
    char path[PATH_BYTES];
    struct sitelog_snapshot_info info;
    struct fault f = {0};
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    struct snapshot_reader *r = snapshot_open(path, &f);
    if (r != NULL) {
        snapshot_info(r, &info);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && strcmp(info.name, name) == 0 && info.file_bytes > DIGEST_BYTES &&
            pread(fd, info.checksum, DIGEST_BYTES, (off_t)(info.file_bytes - DIGEST_BYTES)) == DIGEST_BYTES) {
            list_insert(dir, list, &info);
        }
        if (fd >= 0) {
            close(fd);
        }
        snapshot_close(r);
    } else {
        log_warn("snapshot", "unreadable", "%s", f.text);
    }
}

enum grey_error snapshot_list_load(const char *dir, struct snapshot_list *list, struct fault *f) {
    char path[PATH_BYTES];
    list->count = 0;
    enum grey_error err = datadir_make(dir, f);
    if (err != E_OK) {
        return err;
    }
    DIR *d = opendir(dir);
    if (d == NULL) {
        return fault_errno(f, E_IO, "opening %s", dir);
    }
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        if (ends_with(e->d_name, ".tmp")) {
            (void)snprintf(path, sizeof path, "%s/%.64s", dir, e->d_name);
            (void)unlink(path);
        } else if (ends_with(e->d_name, ".snap") && strlen(e->d_name) < sizeof list->at[0].name) {
            list_file(dir, e->d_name, list);
        }
    }
    closedir(d);
    return E_OK;
}

static void list_drop(struct snapshot_list *list, size_t at) {
    list->count--;
    memmove(&list->at[at], &list->at[at + 1], (list->count - at) * sizeof list->at[0]);
}

void snapshot_list_remove(const char *dir, struct snapshot_list *list, const char *name) {
    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(list->at[i].name, name) == 0) {
            remove_file(dir, &list->at[i]);
            list_drop(list, i);
            return;
        }
    }
}

void snapshot_list_add(const char *dir, struct snapshot_list *list, const struct sitelog_snapshot_info *info, uint32_t kept) {
    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(list->at[i].name, info->name) == 0) { /* was written anew */
            list_drop(list, i);
            break;
        }
    }
    list_insert(dir, list, info);
    uint32_t seen = 0;
    for (size_t i = 0; i < list->count;) {
        seen += list->at[i].self_contained == info->self_contained;
        if (list->at[i].self_contained == info->self_contained && seen > (kept == 0 ? 1 : kept)) {
            remove_file(dir, &list->at[i]);
            list_drop(list, i);
        } else {
            i++;
        }
    }
}

const struct sitelog_snapshot_info *snapshot_list_find(const struct snapshot_list *list, raft_index index) {
    const struct sitelog_snapshot_info *found = NULL;
    for (size_t i = 0; i < list->count; i++) {
        if (list->at[i].point.index == index && (found == NULL || found->file_bytes > list->at[i].file_bytes)) {
            found = &list->at[i];
        }
    }
    return found;
}

/* --- receiving --------------------------------------------------------------------------------------------------------------------------- */
static void part_name(const struct raft_point *point, char *out, size_t size) {
    (void)snprintf(out, size, "%020" PRIu64 "-%08" PRIx32 ".part", point->index,
                   (uint32_t)point->hash[0] << 24 | (uint32_t)point->hash[1] << 16 | (uint32_t)point->hash[2] << 8 |
                       point->hash[3]);
}

void snapshot_part_path(const char *dir, const struct raft_point *point, char *out, size_t size) {
    char name[64];
    part_name(point, name, sizeof name);
    (void)snprintf(out, size, "%s/%s", dir, name);
}

static void remove_other_parts(const char *dir, const char *keep) {
    char path[PATH_BYTES];
    DIR *d = opendir(dir);
    for (struct dirent *e = d == NULL ? NULL : readdir(d); e != NULL; e = readdir(d)) {
        if (ends_with(e->d_name, ".part") && (keep == NULL || strcmp(e->d_name, keep) != 0)) {
            (void)snprintf(path, sizeof path, "%s/%.64s", dir, e->d_name);
            (void)unlink(path);
        }
    }
    if (d != NULL) {
        closedir(d);
    }
}

enum grey_error snapshot_receive(const char *dir, const struct raft_point *point, uint64_t offset, uint64_t total_bytes,
                                 struct bytes chunk, uint64_t *there, struct fault *f) {
    char path[PATH_BYTES], name[64];
    struct stat st;
    part_name(point, name, sizeof name);
    snapshot_part_path(dir, point, path, sizeof path);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || fstat(fd, &st) != 0) {
        enum grey_error err = fault_errno(f, E_IO, "opening %s", path);
        if (fd >= 0) {
            close(fd);
        }
        return err;
    }
    if (st.st_size == 0) {
        remove_other_parts(dir, name);
    }
    enum grey_error err = E_OK;
    *there = (uint64_t)st.st_size;
    if (chunk.size > 0 && offset == *there && chunk.size <= total_bytes && offset <= total_bytes - chunk.size) {
        ssize_t n = pwrite(fd, chunk.data, chunk.size, st.st_size);
        if (n != (ssize_t)chunk.size) {
            errno = n < 0 ? errno : ENOSPC;
            err = fault_errno(f, E_IO, "writing %s", path);
            if (ftruncate(fd, st.st_size) != 0) {
                (void)unlink(path); /* its length would be a lie */
            }
        } else {
            *there += chunk.size;
        }
        if (err == E_OK && *there == total_bytes && fsync(fd) != 0) {
            err = fault_errno(f, E_IO, "syncing %s", path);
        }
    }
    close(fd);
    return err;
}

enum grey_error snapshot_adopt(const char *dir, const struct raft_point *point, struct sitelog_snapshot_info *info,
                               struct fault *f) {
    char from[PATH_BYTES], to[PATH_BYTES];
    snapshot_part_path(dir, point, from, sizeof from);
    (void)snprintf(to, sizeof to, "%s/%s", dir, info->name);
    if (rename(from, to) != 0) {
        return fault_errno(f, E_IO, "naming %s", to);
    }
    remove_other_parts(dir, NULL);
    return datadir_sync(dir, f);
}
