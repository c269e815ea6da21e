#include "agent/launch/provide.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/digest.h"

#define STEP_BYTES 65536u

static bool refuse(const struct launch_file *file, const char *why) {
    (void)dprintf(STDERR_FILENO, "grey-launch: %.*s: %s\n", (int)file->name.size, (const char *)file->name.data, why);
    return false;
}

static int open_new(const struct launch_file *file) {
    char name[LIMIT_NAME_BYTES + 1];
    memcpy(name, file->name.data, file->name.size); /* a name, so it has room */
    name[file->name.size] = 0;
    (void)unlink(name); /* of a former life of this run */
    int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd >= 0 && fchmod(fd, (mode_t)file->mode) == 0 ? fd : -1;
}

static int open_source(const struct launch_file *file, int stored) {
    char path[LIMIT_PATH_BYTES + 1];
    struct stat st;
    if (file->source == LAUNCH_FILE_STORED) {
        return stored;
    }
    memcpy(path, file->text.data, file->text.size);
    path[file->text.size] = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK); /* a pipe would keep it waiting */
    if (fd >= 0 && (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))) {
        (void)close(fd);
        errno = EINVAL;
        return -1;
    }
    return fd;
}

/* Copies and hashes in one pass, so that what was checked is what the run has. */
static bool copy(const struct launch_file *file, int from, int to, uint64_t *left) {
    uint8_t room[STEP_BYTES], hash[DIGEST_SHA256_BYTES];
    struct digest_stream digest;
    ssize_t got;
    digest_stream_begin(&digest);
    while ((got = read(from, room, sizeof room)) > 0) {
        if ((uint64_t)got > *left) {
            return refuse(file, "does not fit into the bytes of disk that the task may use");
        }
        *left -= (uint64_t)got;
        digest_stream_add(&digest, bytes_of(room, (size_t)got));
        if (write(to, room, (size_t)got) != got) {
            return refuse(file, strerror(errno));
        }
    }
    if (got < 0) {
        return refuse(file, strerror(errno));
    }
    digest_stream_end(&digest, hash);
    return memcmp(hash, file->hash.data, sizeof hash) == 0 || refuse(file, "differs: it has not the SHA-256 that the task names");
}

static bool provide(const struct launch_file *file, int stored, uint64_t *left) {
    int to = open_new(file), from = -1;
    bool well = to >= 0 || refuse(file, strerror(errno));
    if (well && file->source == LAUNCH_FILE_TEXT) {
        well = file->text.size <= *left || refuse(file, "does not fit into the bytes of disk that the task may use");
        well = well && (write(to, file->text.data, file->text.size) == (ssize_t)file->text.size || refuse(file, strerror(errno)));
        *left -= well ? file->text.size : 0;
    } else if (well) {
        from = open_source(file, stored);
        well = from >= 0 ? copy(file, from, to, left) : refuse(file, strerror(errno));
    }
    if (to >= 0) {
        (void)close(to);
    }
    if (from >= 0) {
        (void)close(from);
    }
    return well;
}

bool provide_files(const struct launch_files *files, const int stored[LAUNCHWIRE_FILES_MAX], uint64_t bytes_max) {
    uint64_t left = bytes_max > 0 ? bytes_max : UINT64_MAX;
    bool well = true;
    for (uint32_t i = 0; well && i < files->count; i++) {
        well = provide(&files->at[i], stored[i], &left);
    }
    return well;
}
