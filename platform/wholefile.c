#include "platform/wholefile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "include/grey/limits.h"
#include "platform/keys.h"

enum grey_error wholefile_read(const char *path, struct builder *out, struct fault *f) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return fault_errno(f, errno == ENOENT ? E_NOT_FOUND : E_SYSTEM, "%s", path);
    }
    uint8_t room[4096];
    size_t before = out->size;
    ssize_t got;
    while ((got = read(fd, room, sizeof room)) > 0 && out->err == E_OK) {
        builder_add(out, bytes_of(room, (size_t)got));
    }
    keys_wipe(room, sizeof room); /* it may have been a key */
    enum grey_error err = got < 0 ? fault_errno(f, E_SYSTEM, "%s", path) : E_OK;
    (void)close(fd);
    if (err == E_OK && out->err == E_OK && out->size > before && memchr(out->data + before, 0, out->size - before) != NULL) {
        err = fault_set(f, E_BAD_MESSAGE, "%s is no text", path);
    }
    builder_add_byte(out, 0);
    return err != E_OK ? err : out->err == E_OK ? E_OK : fault_set(f, out->err, "%s", path);
}

static enum grey_error sync_folder_of(const char *path, struct fault *f) {
    char folder[LIMIT_PATH_BYTES + 1];
    const char *slash = strrchr(path, '/');
    (void)snprintf(folder, sizeof folder, "%.*s",
                   slash == NULL   ? 1
                   : slash == path ? 1
                                   : (int)(slash - path),
                   slash == NULL ? "." : path);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum grey_error err = fd >= 0 && fsync(fd) == 0 ? E_OK : fault_errno(f, E_IO, "syncing %s", folder);
    if (fd >= 0) {
        (void)close(fd);
    }
    return err;
}

static enum grey_error put(const char *path, struct bytes text, mode_t mode, bool first, struct fault *f) {
    char part[LIMIT_PATH_BYTES + 16];
    uint32_t chance; /* others may write the same file now */
    if (strlen(path) > LIMIT_PATH_BYTES) {
        return fault_set(f, E_SYSTEM, "%.100s...: too long", path);
    }
    keys_random(&chance, sizeof chance);
    (void)snprintf(part, sizeof part, "%s.%08" PRIx32, path, chance);
    int fd = open(part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0) {
        return fault_errno(f, E_SYSTEM, "making %s", part);
    }
    enum grey_error err = E_OK;
    errno = ENOSPC; /* what a short write means, and does not say */
    if (write(fd, text.data, text.size) != (ssize_t)text.size || fchmod(fd, mode) != 0 || fsync(fd) != 0) {
        err = fault_errno(f, errno == ENOSPC ? E_DISK_FULL : E_IO, "writing %s", part);
    } else if ((first ? link(part, path) : rename(part, path)) != 0) {
        err = first && errno == EEXIST ? E_CONDITION : fault_errno(f, E_SYSTEM, "making %s", path);
    }
    (void)close(fd);
    if (first || err != E_OK) {
        (void)unlink(part);
    }
    return err != E_OK ? err : sync_folder_of(path, f);
}

enum grey_error wholefile_leave(const char *path, struct bytes text, mode_t mode, struct fault *f) {
    char fresh[LIMIT_PATH_BYTES + 16];
    if (strlen(path) > LIMIT_PATH_BYTES) {
        return fault_set(f, E_SYSTEM, "%.100s...: too long", path);
    }
    (void)snprintf(fresh, sizeof fresh, "%s.new", path);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd >= 0) {
        errno = ENOSPC; /* what a short write means, and does not say */
    }
    bool written = fd >= 0 && write(fd, text.data, text.size) == (ssize_t)text.size;
    written = fd >= 0 && close(fd) == 0 && written;
    return written && rename(fresh, path) == 0 ? E_OK : fault_errno(f, E_SYSTEM, "leaving %s", path);
}

enum grey_error wholefile_write(const char *path, struct bytes text, mode_t mode, struct fault *f) {
    return put(path, text, mode, false, f);
}

enum grey_error wholefile_make(const char *path, struct bytes text, mode_t mode, struct fault *f) {
    return put(path, text, mode, true, f);
}

enum grey_error wholefile_remove(const char *path, struct fault *f) {
    if (unlink(path) != 0) {
        return errno == ENOENT ? E_OK : fault_errno(f, E_SYSTEM, "removing %s", path);
    }
    return sync_folder_of(path, f);
}

bool wholefile_exists(const char *path) {
    return access(path, F_OK) == 0;
}
