/* power_rig.h: the power fails at any file call.  While it watches a folder, every call that changes a file or a name below it is written down,
 * whichever library made it (the calls of the C library are taken here, so one program, one such rig).  Afterwards the folder is laid out anew
 * as a disk may hold it when the power went before, between or behind any of those calls, and a judge looks at it.
 *
 * What a disk owes: data of a file after fsync or fdatasync of it; names (made, renamed, removed) after fsync of a folder, and in the order in
 * which they were changed (as ext4, XFS and Btrfs do).  Whatever was not synced may be there, missing, or torn; see power_modes. */
#ifndef TESTS_POWER_RIG_H
#define TESTS_POWER_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "include/grey/must.h"

enum power_kind {
    POWER_MAKE,    /* path: a new file, of number `file` */
    POWER_WRITE,   /* file: data at offset */
    POWER_SIZE,    /* file: it has `offset` bytes now */
    POWER_SYNC,    /* file */
    POWER_NAMES,   /* a folder was synced */
    POWER_LINK,    /* path: another name of file */
    POWER_RENAME,  /* path is called `to` now */
    POWER_UNLINK,  /* path */
    POWER_MKDIR,   /* path */
    POWER_RMDIR,   /* path */
    POWER_SYMLINK, /* path leads to `to` */
    POWER_PROMISE, /* data: what the test's subject has promised by now */
};

struct power_call {
    enum power_kind kind;
    int file;
    uint64_t offset;
    size_t size;
    uint8_t *data;
    char *path, *to;
};

/* What of the calls that no sync made durable reached the disk. */
enum power_mode {
    POWER_ALL,
    POWER_NONE,
    POWER_NAMES_ONLY, /* a file that was renamed before its data came is empty */
    POWER_DATA_ONLY,
    POWER_LAST_ONLY, /* the last write overtook all others */
    POWER_TORN_512,  /* of each write nothing, all, or a part that ends at a sector; of the names the first ones */
    POWER_TORN_4096,
    POWER_MODES
};
static const char *const power_modes[POWER_MODES] = {
    "all of what was not synced", "nothing of what was not synced", "names but no data",        "data but no names",
    "only the last write",        "writes torn at 512 bytes",       "writes torn at 4096 bytes"};

struct power_entry { /* of the disk's name space */
    char *path;
    int file;   /* -1: a folder or a link */
    char *link; /* where a symbolic link leads */
};

struct power_disk {
    struct power_entry *names;
    size_t name_count, name_room;
    struct power_file {
        uint8_t *data;
        size_t size;
    } * files;
    size_t file_count;
};

static struct {
    bool on;
    char root[PATH_MAX];
    size_t root_size;
    struct power_call *calls;
    size_t count, room;
    struct power_disk begin, now; /* now: names only */
    int next_file;
    struct {
        int file; /* -2: a folder, -1: not ours */
    } open[1024];
    pthread_mutex_t lock;
} power = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* --- a disk --------------------------------------------------------------------------------------------------------------------------------- */
static inline char *power_text(const char *text) {
    char *copy = text == NULL ? NULL : strdup(text);
    must(text == NULL || copy != NULL);
    return copy;
}

static inline struct power_entry *power_find(struct power_disk *d, const char *path) {
    for (size_t i = 0; i < d->name_count; i++) {
        if (strcmp(d->names[i].path, path) == 0) {
            return &d->names[i];
        }
    }
    return NULL;
}

static inline void power_drop(struct power_disk *d, const char *path) {
    struct power_entry *e = power_find(d, path);
    if (e != NULL) {
        free(e->path), free(e->link);
        memmove(e, e + 1, (size_t)(d->names + d->name_count - (e + 1)) * sizeof *e); /* in order: folders before what is in them */
        d->name_count--;
    }
}

static inline void power_add(struct power_disk *d, const char *path, int file, const char *leads_to) {
    power_drop(d, path);
    if (d->name_count == d->name_room) {
        d->name_room = d->name_room * 2 + 64;
        d->names = realloc(d->names, d->name_room * sizeof *d->names);
        must(d->names != NULL);
    }
    d->names[d->name_count++] = (struct power_entry){.path = power_text(path), .file = file, .link = power_text(leads_to)};
}

static inline struct power_file *power_file(struct power_disk *d, int file) {
    if ((size_t)file >= d->file_count) {
        size_t count = (size_t)file + 16;
        d->files = realloc(d->files, count * sizeof *d->files);
        must(d->files != NULL);
        memset(d->files + d->file_count, 0, (count - d->file_count) * sizeof *d->files);
        d->file_count = count;
    }
    return &d->files[file];
}

static inline void power_resize(struct power_file *f, size_t size) {
    if (size > f->size) {
        f->data = realloc(f->data, size);
        must(f->data != NULL);
        memset(f->data + f->size, 0, size - f->size);
    }
    f->size = size;
}

static inline void power_copy(struct power_disk *to, const struct power_disk *from) {
    memset(to, 0, sizeof *to);
    for (size_t i = 0; i < from->name_count; i++) {
        power_add(to, from->names[i].path, from->names[i].file, from->names[i].link);
    }
    for (size_t i = 0; i < from->file_count; i++) {
        struct power_file *f = power_file(to, (int)i);
        power_resize(f, from->files[i].size);
        if (f->size > 0) {
            memcpy(f->data, from->files[i].data, f->size);
        }
    }
}

static inline void power_free(struct power_disk *d) {
    while (d->name_count > 0) {
        power_drop(d, d->names[d->name_count - 1].path);
    }
    for (size_t i = 0; i < d->file_count; i++) {
        free(d->files[i].data);
    }
    free(d->names);
    free(d->files);
    memset(d, 0, sizeof *d);
}

static inline bool power_is_data(const struct power_call *c) {
    return c->kind == POWER_WRITE || c->kind == POWER_SIZE;
}

/* The call happens to this disk; of a write its first `size` bytes. */
static inline void power_apply(struct power_disk *d, const struct power_call *c, size_t size) {
    size_t length;
    switch (c->kind) {
    case POWER_MAKE:
    case POWER_LINK:
        power_add(d, c->path, c->file, NULL);
        break;
    case POWER_WRITE:
        if (size > 0) {
            struct power_file *f = power_file(d, c->file);
            if (f->size < c->offset + size) {
                power_resize(f, (size_t)c->offset + size);
            }
            memcpy(f->data + c->offset, c->data, size);
        }
        break;
    case POWER_SIZE:
        power_resize(power_file(d, c->file), (size_t)c->offset);
        break;
    case POWER_RENAME: /* with all that lies in it */
        length = strlen(c->path);
        if (power_find(d, c->path) == NULL) {
            break;
        }
        power_drop(d, c->to);
        for (size_t i = 0; i < d->name_count; i++) {
            char *tail = d->names[i].path + length;
            if (strncmp(d->names[i].path, c->path, length) == 0 && (*tail == '/' || *tail == 0)) {
                char path[PATH_MAX * 2];
                (void)snprintf(path, sizeof path, "%s%s", c->to, tail);
                free(d->names[i].path);
                d->names[i].path = power_text(path);
            }
        }
        break;
    case POWER_UNLINK:
    case POWER_RMDIR:
        power_drop(d, c->path);
        break;
    case POWER_MKDIR:
        power_add(d, c->path, -1, NULL);
        break;
    case POWER_SYMLINK:
        power_add(d, c->path, -1, c->to);
        break;
    case POWER_SYNC:
    case POWER_NAMES:
    case POWER_PROMISE:
        break;
    }
}

/* --- watching --------------------------------------------------------------------------------------------------------------------------------- */
#define POWER_REAL(name, result, ...)                                                                                              \
    static result (*real)(__VA_ARGS__);                                                                                            \
    if (real == NULL) {                                                                                                            \
        *(void **)(void *)&real = dlsym(RTLD_NEXT, name);                                                                          \
        must(real != NULL);                                                                                                        \
    }

static inline void power_note(struct power_call c, const char *path, const char *to) {
    (void)pthread_mutex_lock(&power.lock);
    if (power.count == power.room) {
        power.room = power.room * 2 + 1024;
        power.calls = realloc(power.calls, power.room * sizeof *power.calls);
        must(power.calls != NULL);
    }
    if (c.data != NULL) {
        uint8_t *copy = malloc(c.size + 1);
        must(copy != NULL);
        memcpy(copy, c.data, c.size);
        c.data = copy;
    }
    c.path = power_text(path);
    c.to = power_text(to);
    if (!power_is_data(&c)) {
        power_apply(&power.now, &c, 0);
    }
    power.calls[power.count++] = c;
    (void)pthread_mutex_unlock(&power.lock);
}

/* The name below the watched folder ("" itself), or NULL: elsewhere, or nothing is watched. */
static inline const char *power_below(const char *path) {
    return power.on && strncmp(path, power.root, power.root_size) == 0 &&
                   (path[power.root_size] == '/' || path[power.root_size] == 0)
               ? path + power.root_size
               : NULL;
}

static inline const char *power_at(int folder, const char *path, char out[PATH_MAX * 2]) {
    char link[64], base[PATH_MAX];
    if (!power.on || path[0] == '/' || folder == AT_FDCWD) {
        return power_below(path);
    }
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t size = readlink(link, base, sizeof base - 1);
    must(size > 0);
    base[size] = 0;
    (void)snprintf(out, PATH_MAX * 2, "%s/%s", base, path);
    return power_below(out);
}

static inline int power_opened(int fd, int flags) {
    if (!power.on || fd < 0) {
        return fd;
    }
    char link[64], path[PATH_MAX];
    struct stat st;
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    must(size > 0 && (size_t)fd < sizeof power.open / sizeof power.open[0] && fstat(fd, &st) == 0);
    path[size] = 0;
    const char *name = power_below(path);
    power.open[fd].file = -1;
    if (name == NULL) {
        return fd;
    }
    if (S_ISDIR(st.st_mode)) {
        power.open[fd].file = -2;
        return fd;
    }
    (void)pthread_mutex_lock(&power.lock);
    const struct power_entry *e = power_find(&power.now, name);
    int file = e == NULL ? power.next_file++ : e->file;
    bool made = e == NULL;
    (void)pthread_mutex_unlock(&power.lock);
    if (made) {
        power_note((struct power_call){.kind = POWER_MAKE, .file = file}, name, NULL);
    } else if ((flags & O_TRUNC) != 0) {
        power_note((struct power_call){.kind = POWER_SIZE, .file = file}, NULL, NULL);
    }
    power.open[fd].file = file;
    return fd;
}

static inline int power_of(int fd) {
    return power.on && fd >= 0 && (size_t)fd < sizeof power.open / sizeof power.open[0] ? power.open[fd].file : -1;
}

#define POWER_MODE(flags, mode)                                                                                                    \
    mode_t mode = 0;                                                                                                               \
    if (((flags) & (O_CREAT | O_TMPFILE)) != 0) {                                                                                  \
        va_list list;                                                                                                              \
        va_start(list, flags);                                                                                                     \
        mode = (mode_t)va_arg(list, unsigned);                                                                                     \
        va_end(list);                                                                                                              \
    }
#define POWER_OPEN(label, symbol)                                                                                                  \
    int label(const char *path, int flags, ...) __asm__(symbol);                                                                   \
    int label(const char *path, int flags, ...) {                                                                                  \
        POWER_REAL(symbol, int, const char *, int, ...)                                                                            \
        POWER_MODE(flags, mode)                                                                                                    \
        return power_opened(real(path, flags, mode), flags);                                                                       \
    }
#define POWER_OPENAT(label, symbol)                                                                                                \
    int label(int folder, const char *path, int flags, ...) __asm__(symbol);                                                       \
    int label(int folder, const char *path, int flags, ...) {                                                                      \
        POWER_REAL(symbol, int, int, const char *, int, ...)                                                                       \
        POWER_MODE(flags, mode)                                                                                                    \
        return power_opened(real(folder, path, flags, mode), flags);                                                               \
    }
POWER_OPEN(power_open, "open")
POWER_OPEN(power_open64, "open64")
POWER_OPENAT(power_openat, "openat")
POWER_OPENAT(power_openat64, "openat64")

static inline void power_wrote(int fd, const void *data, ssize_t size, off_t at) {
    int file = power_of(fd);
    if (file >= 0 && size > 0) {
        power_note((struct power_call){.kind = POWER_WRITE,
                                       .file = file,
                                       .offset = (uint64_t)at,
                                       .size = (size_t)size,
                                       .data = (uint8_t *)(uintptr_t)data},
                   NULL, NULL);
    }
}

ssize_t power_write(int fd, const void *data, size_t size) __asm__("write");
ssize_t power_write(int fd, const void *data, size_t size) {
    POWER_REAL("write", ssize_t, int, const void *, size_t)
    off_t at = power_of(fd) >= 0 ? lseek(fd, 0, SEEK_CUR) : 0;
    ssize_t done = real(fd, data, size);
    power_wrote(fd, data, done, at);
    return done;
}
#define POWER_PWRITE(label, symbol)                                                                                                \
    ssize_t label(int fd, const void *data, size_t size, off_t at) __asm__(symbol);                                                \
    ssize_t label(int fd, const void *data, size_t size, off_t at) {                                                               \
        POWER_REAL("pwrite64", ssize_t, int, const void *, size_t, off_t)                                                          \
        ssize_t done = real(fd, data, size, at);                                                                                   \
        power_wrote(fd, data, done, at);                                                                                           \
        return done;                                                                                                               \
    }
POWER_PWRITE(power_pwrite64, "pwrite64")

int power_ftruncate(int fd, off_t size) __asm__("ftruncate64");
int power_ftruncate(int fd, off_t size) {
    POWER_REAL("ftruncate64", int, int, off_t)
    int done = real(fd, size);
    if (done == 0 && power_of(fd) >= 0) {
        power_note((struct power_call){.kind = POWER_SIZE, .file = power_of(fd), .offset = (uint64_t)size}, NULL, NULL);
    }
    return done;
}

int power_allocate(int fd, off_t at, off_t size) __asm__("posix_fallocate64");
int power_allocate(int fd, off_t at, off_t size) {
    POWER_REAL("posix_fallocate64", int, int, off_t, off_t)
    int done = real(fd, at, size);
    struct stat st;
    if (done == 0 && power_of(fd) >= 0 && fstat(fd, &st) == 0) {
        power_note((struct power_call){.kind = POWER_SIZE, .file = power_of(fd), .offset = (uint64_t)st.st_size}, NULL, NULL);
    }
    return done;
}

#define POWER_FSYNC(label, symbol)                                                                                                 \
    int label(int fd) __asm__(symbol);                                                                                             \
    int label(int fd) {                                                                                                            \
        POWER_REAL(symbol, int, int)                                                                                               \
        int done = real(fd), file = power_of(fd);                                                                                  \
        if (done == 0 && file != -1) {                                                                                             \
            power_note((struct power_call){.kind = file == -2 ? POWER_NAMES : POWER_SYNC, .file = file}, NULL, NULL);              \
        }                                                                                                                          \
        return done;                                                                                                               \
    }
POWER_FSYNC(power_fsync, "fsync")
POWER_FSYNC(power_fdatasync, "fdatasync")

int power_rename(const char *from, const char *to) __asm__("rename");
int power_rename(const char *from, const char *to) {
    POWER_REAL("rename", int, const char *, const char *)
    int done = real(from, to);
    if (done == 0 && power_below(from) != NULL) {
        must(power_below(to) != NULL);
        power_note((struct power_call){.kind = POWER_RENAME}, power_below(from), power_below(to));
    }
    return done;
}

int power_unlink(const char *path) __asm__("unlink");
int power_unlink(const char *path) {
    POWER_REAL("unlink", int, const char *)
    int done = real(path);
    if (done == 0 && power_below(path) != NULL) {
        power_note((struct power_call){.kind = POWER_UNLINK}, power_below(path), NULL);
    }
    return done;
}

int power_unlinkat(int folder, const char *path, int flags) __asm__("unlinkat");
int power_unlinkat(int folder, const char *path, int flags) {
    POWER_REAL("unlinkat", int, int, const char *, int)
    char whole[PATH_MAX * 2];
    const char *name = power_at(folder, path, whole);
    int done = real(folder, path, flags);
    if (done == 0 && name != NULL) {
        power_note((struct power_call){.kind = POWER_UNLINK}, name, NULL);
    }
    return done;
}

int power_rmdir(const char *path) __asm__("rmdir");
int power_rmdir(const char *path) {
    POWER_REAL("rmdir", int, const char *)
    int done = real(path);
    if (done == 0 && power_below(path) != NULL) {
        power_note((struct power_call){.kind = POWER_RMDIR}, power_below(path), NULL);
    }
    return done;
}

int power_mkdir(const char *path, mode_t mode) __asm__("mkdir");
int power_mkdir(const char *path, mode_t mode) {
    POWER_REAL("mkdir", int, const char *, mode_t)
    int done = real(path, mode);
    if (done == 0 && power_below(path) != NULL) {
        power_note((struct power_call){.kind = POWER_MKDIR}, power_below(path), NULL);
    }
    return done;
}

int power_link(const char *from, const char *to) __asm__("link");
int power_link(const char *from, const char *to) {
    POWER_REAL("link", int, const char *, const char *)
    int done = real(from, to);
    if (done == 0 && power_below(to) != NULL) {
        const struct power_entry *e = power_find(&power.now, power_below(from));
        must(e != NULL);
        power_note((struct power_call){.kind = POWER_LINK, .file = e->file}, power_below(to), NULL);
    }
    return done;
}

int power_symlink(const char *to, const char *path) __asm__("symlink");
int power_symlink(const char *to, const char *path) {
    POWER_REAL("symlink", int, const char *, const char *)
    int done = real(to, path);
    if (done == 0 && power_below(path) != NULL) {
        power_note((struct power_call){.kind = POWER_SYMLINK}, power_below(path), to);
    }
    return done;
}

/* What was there before is durable. */
static int power_seen(const char *path, const struct stat *st, int type, struct FTW *where) {
    (void)where;
    const char *name = path + power.root_size;
    if (type == FTW_D || type == FTW_SL) {
        char to[PATH_MAX] = "";
        must(type == FTW_D || readlink(path, to, sizeof to - 1) > 0);
        power_add(&power.begin, name, -1, type == FTW_D ? NULL : to);
        return 0;
    }
    struct power_file *f = power_file(&power.begin, power.next_file);
    power_resize(f, (size_t)st->st_size);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    must(fd >= 0 && read(fd, f->data, f->size) == (ssize_t)f->size);
    (void)close(fd);
    power_add(&power.begin, name, power.next_file++, NULL);
    return 0;
}

/* Files below root that are open now are not watched. */
static inline void power_watch(const char *root) {
    must(!power.on && power.count == 0 && realpath(root, power.root) != NULL);
    power.root_size = strlen(power.root);
    must(nftw(power.root, power_seen, 16, FTW_PHYS) == 0);
    power_copy(&power.now, &power.begin);
    for (size_t i = 0; i < sizeof power.open / sizeof power.open[0]; i++) {
        power.open[i].file = -1;
    }
    power.on = true;
}

static inline void power_promise(const void *promise, size_t size) {
    power_note((struct power_call){.kind = POWER_PROMISE, .size = size, .data = (uint8_t *)(uintptr_t)promise}, NULL, NULL);
}

/* --- the cuts ----------------------------------------------------------------------------------------------------------------------------------- */
static inline uint64_t power_chance(uint64_t *seed) {
    *seed ^= *seed << 13, *seed ^= *seed >> 7, *seed ^= *seed << 17;
    return *seed;
}

/* What of a write arrives: nothing, all, or a part that ends where a block of the disk does. */
static inline size_t power_tear(const struct power_call *c, size_t block, uint64_t *seed) {
    uint64_t chance = power_chance(seed) >> 8;
    if (c->kind == POWER_SIZE || chance % 3 != 0) {
        return chance % 3 == 1 ? c->size : 0;
    }
    size_t blocks = (size_t)((c->offset + c->size) / block - c->offset / block);
    if (blocks == 0) {
        return (chance & 64) != 0 ? c->size : 0;
    }
    uint64_t end = (c->offset / block + 1 + (chance >> 8) % blocks) * block;
    return end >= c->offset + c->size ? c->size : (size_t)(end - c->offset);
}

static inline void power_lay_out(const struct power_disk *d, const char *dir) {
    char path[PATH_MAX * 2];
    for (size_t depth = 1; depth < 8; depth++) { /* a folder before what is in it */
        for (size_t i = 0; i < d->name_count; i++) {
            const struct power_entry *e = &d->names[i];
            size_t slashes = 0;
            for (const char *at = e->path; *at != 0; at++) {
                slashes += *at == '/';
            }
            (void)snprintf(path, sizeof path, "%s%s", dir, e->path);
            must(e->file >= 0 || slashes != depth || (e->link == NULL ? mkdir(path, 0700) : symlink(e->link, path)) == 0);
        }
    }
    for (size_t i = 0; i < d->name_count; i++) {
        const struct power_entry *e = &d->names[i];
        if (e->file < 0) {
            continue;
        }
        (void)snprintf(path, sizeof path, "%s%s", dir, e->path);
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        const struct power_file *f = (size_t)e->file < d->file_count ? &d->files[e->file] : NULL;
        must(fd >= 0 && (f == NULL || write(fd, f->data, f->size) == (ssize_t)f->size));
        (void)close(fd);
    }
}

struct power_cut {
    const char *dir;     /* the disk as it was found; removed afterwards */
    const void *promise; /* the last one; NULL: none yet */
    char what[160];      /* for messages */
};

struct power_tally {
    size_t calls, syncs, boundaries, cuts;
};

static inline void power_one(const struct power_disk *durable, size_t from, const bool *pending, size_t at, enum power_mode mode,
                             const void *promise, void (*judge)(const struct power_cut *cut, void *context), void *context) {
    struct power_disk d;
    char dir[64] = "/dev/shm/grey-power-XXXXXX", command[128];
    uint64_t seed = 88172645463325252u + at * 977 + mode;
    size_t last = SIZE_MAX, names = SIZE_MAX;
    if (access("/dev/shm", W_OK) != 0) {
        (void)strcpy(dir, "/tmp/grey-power-XXXXXX");
    }
    must(mkdtemp(dir) != NULL);
    power_copy(&d, durable);
    for (size_t i = from; i < at; i++) {
        last = pending[i] && power.calls[i].kind == POWER_WRITE ? i : last;
    }
    if (mode == POWER_TORN_512 || mode == POWER_TORN_4096) {
        names = (size_t)(power_chance(&seed) % (at - from + 1)) + from;
    }
    for (size_t i = from; i < at; i++) {
        const struct power_call *c = &power.calls[i];
        if (!pending[i]) {
            continue;
        }
        bool data = power_is_data(c);
        bool whole = mode == POWER_ALL || (mode == POWER_NAMES_ONLY && !data) || (mode == POWER_DATA_ONLY && data) ||
                     (mode == POWER_LAST_ONLY && (!data || i == last)) || (names != SIZE_MAX && !data && i < names);
        if (whole) {
            power_apply(&d, c, c->size);
        } else if (names != SIZE_MAX && data) {
            size_t size = power_tear(c, mode == POWER_TORN_512 ? 512 : 4096, &seed);
            if (c->kind == POWER_WRITE || (power_chance(&seed) & 256) != 0) {
                power_apply(&d, c, size);
            }
        }
    }
    power_lay_out(&d, dir);
    power_free(&d);
    struct power_cut cut = {.dir = dir, .promise = promise};
    (void)snprintf(cut.what, sizeof cut.what, "cut behind call %zu of %zu, with %s", at, power.count, power_modes[mode]);
    judge(&cut, context);
    (void)snprintf(command, sizeof command, "rm -rf %s", dir);
    must(system(command) == 0);
}

/* Ends watching, cuts at `boundaries` of the calls (0: at each), spread evenly, and has each of the disks judged. */
static inline struct power_tally power_cuts(size_t boundaries, void (*judge)(const struct power_cut *cut, void *context),
                                            void *context) {
    power.on = false;
    struct power_tally t = {.calls = power.count};
    struct power_disk durable;
    bool *pending = calloc(power.count + 1, sizeof *pending);
    size_t from = 0, real = 0, step, next = 0;
    const void *promise = NULL;
    must(pending != NULL);
    power_copy(&durable, &power.begin);
    for (size_t i = 0; i < power.count; i++) {
        real += power.calls[i].kind != POWER_PROMISE;
    }
    t.calls = real;
    step = boundaries == 0 || real <= boundaries ? 1 : real / boundaries;
    for (size_t at = 0, seen = 0; at <= power.count; at++) {
        bool counts = at == power.count || power.calls[at].kind != POWER_PROMISE;
        if (counts && (seen >= next || at == power.count)) {
            next = seen + step;
            t.boundaries++;
            size_t data = 0, names = 0;
            for (size_t i = from; i < at; i++) {
                data += pending[i] && power_is_data(&power.calls[i]);
                names += pending[i] && !power_is_data(&power.calls[i]);
            }
            for (int mode = 0; mode < POWER_MODES; mode++) { /* but not the same disk twice */
                if ((mode == POWER_NONE && data + names == 0) || (mode == POWER_NAMES_ONLY && (names == 0 || data == 0)) ||
                    (mode == POWER_DATA_ONLY && (names == 0 || data == 0)) || (mode == POWER_LAST_ONLY && data < 2) ||
                    (mode >= POWER_TORN_512 && data == 0 && names < 2)) {
                    continue;
                }
                t.cuts++;
                power_one(&durable, from, pending, at, (enum power_mode)mode, promise, judge, context);
            }
        }
        if (at == power.count) {
            break;
        }
        const struct power_call *c = &power.calls[at];
        seen += counts;
        if (c->kind == POWER_PROMISE) {
            promise = c->data;
        } else if (c->kind != POWER_SYNC && c->kind != POWER_NAMES) {
            pending[at] = true;
        } else {
            t.syncs++;
            for (size_t i = from; i < at; i++) {
                const struct power_call *p = &power.calls[i];
                if (pending[i] && (c->kind == POWER_SYNC ? power_is_data(p) && p->file == c->file : !power_is_data(p))) {
                    power_apply(&durable, p, p->size);
                    pending[i] = false;
                }
            }
            while (from < at && !pending[from]) {
                from++;
            }
        }
    }
    free(pending);
    power_free(&durable);
    power_free(&power.begin);
    power_free(&power.now);
    for (size_t i = 0; i < power.count; i++) {
        free(power.calls[i].data), free(power.calls[i].path), free(power.calls[i].to);
    }
    free(power.calls);
    power.calls = NULL;
    power.count = power.room = 0;
    power.next_file = 0;
    return t;
}

/* How many boundaries are tried: GREY_CUTS, "all", or this many. */
static inline size_t power_boundaries(size_t otherwise) {
    const char *text = getenv("GREY_CUTS");
    return text == NULL ? otherwise : strcmp(text, "all") == 0 ? 0 : (size_t)strtoul(text, NULL, 10);
}

#endif
