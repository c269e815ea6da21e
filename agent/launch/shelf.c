#include "agent/launch/shelf.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "platform/log.h"

#define NAME_BYTES (2 * DIGEST_SHA256_BYTES + 1)
#define COMING "coming" /* no name of a finished one */

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
    while ((s->bytes = look_through(s, oldest)) + more > s->bytes_max && oldest[0] != 0) {
        log_info("launch", "artifact", "%.16s leaves, for room", oldest);
        if (unlinkat(s->folder, oldest, 0) != 0) {
            return;
        }
    }
}

static void stop_coming(struct shelf *s) {
    if (s->fd >= 0) {
        (void)close(s->fd);
        (void)unlinkat(s->folder, COMING, 0);
        s->fd = -1;
    }
}

static bool begin_coming(struct shelf *s, const struct launch_message *part) {
    stop_coming(s);
    s->fd = openat(s->folder, COMING, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    s->size = part->end_offset;
    s->have = 0;
    memcpy(s->hash, part->hash.data, sizeof s->hash);
    digest_stream_begin(&s->digest);
    return s->fd >= 0;
}

static enum launch_stored finish(struct shelf *s) {
    uint8_t hash[DIGEST_SHA256_BYTES];
    char name[NAME_BYTES];
    digest_stream_end(&s->digest, hash);
    if (memcmp(hash, s->hash, sizeof hash) != 0) {
        return LAUNCH_STORED_DIFFERS;
    }
    bytes_hex(s->hash, sizeof s->hash, name);
    bool well = fsync(s->fd) == 0 && renameat(s->folder, COMING, s->folder, name) == 0 && fsync(s->folder) == 0;
    return well ? LAUNCH_STORED_WELL : LAUNCH_STORED_FAILED;
}

bool shelf_store(struct shelf *s, const struct launch_message *part, enum launch_stored *how) {
    *how = LAUNCH_STORED_FAILED;
    if (part->end_offset > s->bytes_max) {
        *how = LAUNCH_STORED_TOO_LARGE;
        return true;
    }
    if (part->offset == 0) {
        make_room(s, part->end_offset);
        if (!begin_coming(s, part)) {
            return true;
        }
    }
    bool fits = s->fd >= 0 && memcmp(s->hash, part->hash.data, sizeof s->hash) == 0 && part->offset == s->have &&
                part->end_offset == s->size && part->data.size <= s->size - s->have;
    if (!fits || (part->data.size > 0 && write(s->fd, part->data.data, part->data.size) != (ssize_t)part->data.size)) {
        stop_coming(s);
        return true;
    }
    digest_stream_add(&s->digest, part->data);
    s->have += part->data.size;
    if (s->have < s->size) {
        return false;
    }
    *how = finish(s);
    stop_coming(s); /* its name is another by now, if it went well */
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

enum grey_error shelf_open(struct shelf *s, const char *parent, uint64_t bytes_max, struct fault *f) {
    char path[1024];
    *s = (struct shelf){.folder = -1, .fd = -1, .bytes_max = bytes_max};
    int size = snprintf(path, sizeof path, "%s/artifacts", parent);
    if (size >= (int)sizeof path || (mkdir(path, 0700) != 0 && errno != EEXIST) ||
        (s->folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0) {
        return fault_errno(f, E_IO, "%s", path);
    }
    (void)unlinkat(s->folder, COMING, 0);
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
