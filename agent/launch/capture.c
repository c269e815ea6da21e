#include "agent/launch/capture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void file_name(char out[32], const char *name, uint64_t number) {
    (void)snprintf(out, 32, "%s.%" PRIu64, name, number);
}

void capture_init(struct capture *c, int folder, const char *name) {
    *c = (struct capture){.folder = folder, .fd = -1};
    (void)snprintf(c->name, sizeof c->name, "%s", name);
}

void capture_close(struct capture *c) {
    if (c->fd >= 0) {
        (void)close(c->fd);
        c->fd = -1;
    }
}

static bool next_file(struct capture *c) {
    char name[32];
    uint64_t number = c->written / CAPTURE_FILE_BYTES;
    capture_close(c);
    file_name(name, c->name, number);
    c->fd = openat(c->folder, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (c->fd >= 0 && number >= CAPTURE_FILES) {
        file_name(name, c->name, number - CAPTURE_FILES);
        (void)unlinkat(c->folder, name, 0);
    }
    return c->fd >= 0;
}

void capture_write(struct capture *c, struct bytes data) {
    while (data.size > 0 && !c->failed) {
        size_t room = CAPTURE_FILE_BYTES - c->written % CAPTURE_FILE_BYTES;
        size_t size = data.size < room ? data.size : room;
        if (room == CAPTURE_FILE_BYTES && !next_file(c)) {
            c->failed = true;
            return;
        }
        ssize_t put = write(c->fd, data.data, size);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put <= 0) {
            c->failed = true;
            return;
        }
        c->written += (uint64_t)put;
        data = bytes_of(data.data + put, data.size - (size_t)put);
    }
}

/* Numbers of the oldest and newest file; false: nothing was written. */
static bool span(int folder, const char *name, uint64_t *oldest, uint64_t *newest) {
    int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    size_t size = strlen(name);
    bool any = false;
    if (d == NULL && fd >= 0) {
        (void)close(fd);
    }
    for (struct dirent *e = d == NULL ? NULL : readdir(d); e != NULL; e = readdir(d)) {
        char *rest;
        if (strncmp(e->d_name, name, size) != 0 || e->d_name[size] != '.') {
            continue;
        }
        uint64_t number = strtoull(e->d_name + size + 1, &rest, 10);
        if (*rest == 0) {
            *oldest = any && *oldest < number ? *oldest : number;
            *newest = any && *newest > number ? *newest : number;
            any = true;
        }
    }
    if (d != NULL) {
        (void)closedir(d);
    }
    return any;
}

enum grey_error capture_read(int folder, const char *name, uint64_t offset, size_t size, struct builder *out, uint64_t *from,
                             uint64_t *end) {
    uint64_t oldest = 0, newest = 0;
    char file[32];
    struct stat st;
    *from = *end = 0;
    if (!span(folder, name, &oldest, &newest)) {
        return E_OK;
    }
    file_name(file, name, newest);
    if (fstatat(folder, file, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        return E_IO;
    }
    *end = newest * CAPTURE_FILE_BYTES + (uint64_t)st.st_size;
    uint64_t at = offset < oldest * CAPTURE_FILE_BYTES ? oldest * CAPTURE_FILE_BYTES : offset;
    *from = at < *end ? at : *end;
    at = *from;
    while (size > 0 && at < *end) {
        file_name(file, name, at / CAPTURE_FILE_BYTES);
        int fd = openat(folder, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        size_t want = CAPTURE_FILE_BYTES - at % CAPTURE_FILE_BYTES;
        uint8_t room[16384];
        want = want < size ? want : size;
        want = want < sizeof room ? want : sizeof room;
        ssize_t got = fd < 0 ? -1 : pread(fd, room, want, (off_t)(at % CAPTURE_FILE_BYTES));
        if (fd >= 0) {
            (void)close(fd);
        }
        if (got <= 0) {
            break;
        }
        builder_add(out, bytes_of(room, (size_t)got));
        at += (uint64_t)got;
        size -= (size_t)got;
    }
    return out->err;
}
