#include "agent/store/datadir.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "include/grey/limits.h"

static enum grey_error join(char out[LIMIT_PATH_BYTES + 1], const char *path, const char *name, struct fault *f) {
    int size = snprintf(out, LIMIT_PATH_BYTES + 1, "%s/%s", path, name);
    return size > 0 && size <= (int)LIMIT_PATH_BYTES ? E_OK : fault_set(f, E_CONFIG, "the path %s is too long", path);
}

enum grey_error datadir_make(const char *path, struct fault *f) {
    char part[LIMIT_PATH_BYTES + 1];
    size_t size = strlen(path);
    bool made = false;
    if (size == 0 || size > LIMIT_PATH_BYTES) {
        return fault_set(f, E_CONFIG, "the path of a data directory has %zu bytes", size);
    }
    for (size_t i = 1; i <= size; i++) {
        if (path[i] != '/' && path[i] != '\0') {
            continue;
        }
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, 0700) == 0) {
            made = true;
        } else if (errno != EEXIST) {
            return fault_errno(f, E_SYSTEM, "making the directory %s", part);
        }
    }
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)) {
        return fault_set(f, E_SYSTEM, "%s is not a directory", path);
    }
    if (made) { /* the new names must survive a power cut as what is in them does */
        char *slash = strrchr(memcpy(part, path, size + 1), '/');
        if (slash == NULL) {
            return datadir_sync(".", f);
        }
        slash[slash == part] = '\0';
        return datadir_sync(part, f);
    }
    return E_OK;
}

enum grey_error datadir_lock(const char *path, int *fd, struct fault *f) {
    char file[LIMIT_PATH_BYTES + 1], text[32] = "";
    enum grey_error err = join(file, path, "lock", f);
    if (err != E_OK) {
        return err;
    }
    int lock = open(file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (lock < 0) {
        return fault_errno(f, E_SYSTEM, "opening %s", file);
    }
    if (flock(lock, LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK) {
            ssize_t got = pread(lock, text, sizeof text - 1, 0);
            text[got > 0 ? strcspn(text, "\n") : 0] = '\0';
            err = fault_set(f, E_LOCKED, "%s is used by process %s", path, text[0] == '\0' ? "(unknown)" : text);
        } else {
            err = fault_errno(f, E_SYSTEM, "locking %s", file);
        }
        close(lock);
        return err;
    }
    int size = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(lock, 0) != 0 || pwrite(lock, text, (size_t)size, 0) != size) {
        /* The number only serves the sentence above; a full disk must not keep the node from starting. */
    }
    *fd = lock;
    return E_OK;
}

enum grey_error datadir_sync(const char *path, struct fault *f) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return fault_errno(f, E_IO, "opening %s", path);
    }
    enum grey_error err = fsync(fd) == 0 ? E_OK : fault_errno(f, E_IO, "syncing %s", path);
    close(fd);
    return err;
}

bool datadir_same_device(const char *a, const char *b) {
    struct stat sa, sb;
    return stat(a, &sa) == 0 && stat(b, &sb) == 0 && sa.st_dev == sb.st_dev;
}

enum grey_error datadir_reserve_make(const char *path, uint32_t bytes, struct fault *f) {
    char file[LIMIT_PATH_BYTES + 1];
    struct stat st;
    struct statvfs fs;
    enum grey_error err = join(file, path, "reserve", f);
    if (err != E_OK || bytes == 0 || (stat(file, &st) == 0 && st.st_size == (off_t)bytes)) {
        return err;
    }
    if (statvfs(path, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize < 2 * (uint64_t)bytes) {
        return fault_set(f, E_DISK_FULL, "less than %" PRIu64 " bytes are free below %s", 2 * (uint64_t)bytes, path);
    }
    int fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return fault_errno(f, E_IO, "opening %s", file);
    }
    int code = posix_fallocate(fd, 0, (off_t)bytes); /* returns its errno */
    close(fd);
    if (code != 0) {
        errno = code;
        err = fault_errno(f, E_IO, "reserving %" PRIu32 " bytes in %s", bytes, file);
        (void)unlink(file);
    }
    return err;
}

bool datadir_reserve_drop(const char *path) {
    char file[LIMIT_PATH_BYTES + 1];
    return join(file, path, "reserve", NULL) == E_OK && unlink(file) == 0;
}

enum grey_error datadir_note_write(const char *dir, const char *name, const char *text, struct fault *f) {
    char path[LIMIT_PATH_BYTES + 1];
    if (join(path, dir, name, f) != E_OK) {
        return f == NULL ? E_CONFIG : f->code;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return fault_errno(f, E_IO, "opening %s", path);
    }
    size_t size = strlen(text);
    enum grey_error err =
        write(fd, text, size) == (ssize_t)size && fsync(fd) == 0 ? E_OK : fault_errno(f, E_IO, "writing %s", path);
    (void)close(fd);
    return err == E_OK ? datadir_sync(dir, f) : err;
}

bool datadir_note_read(const char *dir, const char *name, char *text, size_t text_size) {
    char path[LIMIT_PATH_BYTES + 1];
    int fd = join(path, dir, name, NULL) == E_OK ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
    if (fd < 0) {
        return false;
    }
    if (text != NULL) {
        ssize_t got = read(fd, text, text_size - 1);
        text[got > 0 ? got : 0] = '\0';
    }
    (void)close(fd);
    return true;
}
