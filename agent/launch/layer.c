#include "agent/launch/layer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "platform/gunzip.h"

#define STEP_BYTES 65536u
#define REMOVE_DEPTH_MAX 128u
#define WHITEOUT ".wh."         /* layer.md, "Whiteouts": .wh.NAME takes NAME of the layers below away */
#define OPAQUE ".wh..wh..opq"   /* and this all that they have in its folder */
#define FOLDER_MODE_LEAST 0700u /* so that its owner can clear it away */

struct work {
    int root;
    struct layer_room *room;
    struct fault *f;
};

static bool failed(const struct work *w, const char *path) {
    (void)fault_errno(w->f, E_IO, "unpacking %.200s", path);
    return false;
}

/* --- Paths ---------------------------------------------------------------------------------------------------------------------------------- */

static int open_inside(int root, const char *path, uint64_t flags) {
    struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    return (int)syscall(SYS_openat2, root, path[0] == 0 ? "." : path, &how, sizeof how);
}

/* Without what stands before and behind; false: it is empty, or has "..", which no honest archive needs. */
static bool clean(char *path) {
    size_t out = 0;
    for (const char *at = path; *at != 0;) {
        size_t size = strcspn(at, "/");
        if (size == 2 && memcmp(at, "..", 2) == 0) {
            return false;
        }
        bool counts = size > 0 && !(size == 1 && at[0] == '.');
        if (counts) {
            if (out > 0) {
                path[out++] = '/';
            }
            memmove(path + out, at, size);
            out += size;
        }
        at += size;
        at += *at == '/';
    }
    path[out] = 0;
    return true;
}

/* The folder of a clean path, made where it lacks, and the name in it. */
static int open_parent(const struct work *w, const char *path, const char **name) {
    char part[TAR_PATH_BYTES + 1];
    const char *slash = strrchr(path, '/');
    size_t size = slash == NULL ? 0 : (size_t)(slash - path);
    *name = slash == NULL ? path : slash + 1;
    memcpy(part, path, size);
    part[size] = 0;
    int fd = open_inside(w->root, part, O_PATH | O_DIRECTORY);
    if (fd >= 0 || errno != ENOENT || size == 0) {
        return fd;
    }
    const char *last;
    int parent = open_parent(w, part, &last); /* LAYER_DEPTH_MAX deep at most */
    if (parent >= 0) {
        (void)mkdirat(parent, last, 0755);
        (void)close(parent);
    }
    return open_inside(w->root, part, O_PATH | O_DIRECTORY);
}

static bool remove_at(int folder, const char *name, unsigned depth);

static bool clear_folder(int fd, unsigned depth) {
    DIR *list = fdopendir(fd);
    bool well = list != NULL;
    if (list == NULL) {
        (void)close(fd);
    }
    for (struct dirent *e = list == NULL ? NULL : readdir(list); e != NULL; e = readdir(list)) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
            well = remove_at(dirfd(list), e->d_name, depth) && well;
        }
    }
    if (list != NULL) {
        (void)closedir(list);
    }
    return well;
}

static bool remove_at(int folder, const char *name, unsigned depth) {
    if (unlinkat(folder, name, 0) == 0 || errno == ENOENT) {
        return true;
    }
    int fd = depth == 0 ? -1 : openat(folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    return fd >= 0 && clear_folder(fd, depth - 1) && unlinkat(folder, name, AT_REMOVEDIR) == 0;
}

/* --- Entries -------------------------------------------------------------------------------------------------------------------------------- */

/* First walk: what this layer takes away of those below. */
static bool take_away(const struct work *w, const struct tar_entry *e) {
    const char *name;
    const char *slash = strrchr(e->path, '/'), *last = slash == NULL ? e->path : slash + 1;
    if (strncmp(last, WHITEOUT, strlen(WHITEOUT)) != 0) {
        return true;
    }
    bool opaque = strcmp(last, OPAQUE) == 0;
    int parent = open_parent(w, e->path, &name);
    if (parent < 0) {
        return failed(w, e->path);
    }
    const char *victim = opaque ? "." : name + strlen(WHITEOUT);
    bool well = victim[0] != 0 && strcmp(victim, "..") != 0 && (opaque || strcmp(victim, ".") != 0);
    errno = EBADMSG;
    if (well && opaque) {
        int fd = openat(parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        well = fd >= 0 && clear_folder(fd, REMOVE_DEPTH_MAX);
    } else if (well) {
        well = remove_at(parent, victim, REMOVE_DEPTH_MAX);
    }
    (void)close(parent);
    return well || failed(w, e->path);
}

static bool write_file(struct tar *t, const struct tar_entry *e, int parent, const char *name) {
    uint8_t room[STEP_BYTES];
    ssize_t got = 0;
    int fd = openat(parent, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool well = fd >= 0;
    while (well && (got = tar_read(t, room, sizeof room)) > 0) {
        well = write(fd, room, (size_t)got) == got;
    }
    well = well && got == 0 && fchmod(fd, e->mode & 0777u) == 0; /* nothing becomes another user by it */
    int why = errno;
    if (fd >= 0) {
        (void)close(fd);
    }
    errno = why;
    return well;
}

static bool make_folder(int parent, const char *name, uint32_t mode) {
    struct stat st;
    if (mkdirat(parent, name, 0700) != 0) {
        bool there = errno == EEXIST && fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
        if (there && S_ISLNK(st.st_mode)) { /* a folder that a layer below has elsewhere: it stays there */
            return true;
        }
        if (!there || (!S_ISDIR(st.st_mode) && (unlinkat(parent, name, 0) != 0 || mkdirat(parent, name, 0700) != 0))) {
            return false;
        }
    }
    return fchmodat(parent, name, (mode & 0777u) | FOLDER_MODE_LEAST, 0) == 0;
}

static bool link_hard(const struct work *w, struct tar_entry *e, int parent, const char *name) {
    const char *target;
    if (!clean(e->link) || e->link[0] == 0) {
        errno = EBADMSG;
        return false;
    }
    int from = open_parent(w, e->link, &target);
    bool well = from >= 0 && linkat(from, target, parent, name, 0) == 0;
    int why = errno;
    if (from >= 0) {
        (void)close(from);
    }
    errno = why;
    return well;
}

/* Second walk: what it has. */
static bool put(const struct work *w, struct tar *t, struct tar_entry *e) {
    const char *name;
    const char *slash = strrchr(e->path, '/');
    if (e->path[0] == 0 || e->kind == TAR_OTHER || strncmp(slash == NULL ? e->path : slash + 1, WHITEOUT, strlen(WHITEOUT)) == 0) {
        return true;
    }
    int parent = open_parent(w, e->path, &name);
    if (parent < 0) {
        return failed(w, e->path);
    }
    bool well = e->kind == TAR_FOLDER || remove_at(parent, name, REMOVE_DEPTH_MAX);
    if (well && e->kind == TAR_FOLDER) {
        well = make_folder(parent, name, e->mode);
    } else if (well && e->kind == TAR_FILE) {
        well = write_file(t, e, parent, name);
    } else if (well && e->kind == TAR_SYMBOLIC_LINK) {
        well = symlinkat(e->link, parent, name) == 0; /* wherever it points: it is resolved with the image as root */
    } else if (well) {
        well = link_hard(w, e, parent, name);
    }
    int why = errno;
    (void)close(parent);
    errno = why;
    return well || failed(w, e->path);
}

/* --- Walks ---------------------------------------------------------------------------------------------------------------------------------- */

struct stream {
    struct layout_blob blob;
    struct gunzip *gunzip; /* NULL: it is not compressed */
};

static ssize_t stream_read(void *context, uint8_t *out, size_t size) {
    struct stream *s = context;
    return s->gunzip != NULL ? gunzip_read(s->gunzip, out, size) : layout_blob_read(&s->blob, out, size);
}

static bool stream_skip(void *context, uint64_t size) {
    uint8_t room[STEP_BYTES];
    while (size > 0) {
        ssize_t got = stream_read(context, room, size < sizeof room ? (size_t)size : sizeof room);
        if (got <= 0) {
            return false;
        }
        size -= (uint64_t)got;
    }
    return true;
}

static bool is_packed(const json_t *descriptor, bool *packed, struct fault *f) {
    static const char *const plain[] = {"application/vnd.oci.image.layer.v1.tar",
                                        "application/vnd.oci.image.layer.nondistributable.v1.tar",
                                        "application/vnd.docker.image.rootfs.diff.tar"};
    static const char *const zipped[] = {"application/vnd.oci.image.layer.v1.tar+gzip",
                                         "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
                                         "application/vnd.docker.image.rootfs.diff.tar.gzip"};
    const char *type = json_string_value(json_object_get(descriptor, "mediaType"));
    for (size_t i = 0; type != NULL && i < sizeof plain / sizeof plain[0]; i++) {
        *packed = strcmp(type, zipped[i]) == 0;
        if (*packed || strcmp(type, plain[i]) == 0) {
            return true;
        }
    }
    (void)fault_set(f, E_BAD_JSON, "a layer is \"%.100s\", and only tar and tar+gzip are unpacked", type == NULL ? "" : type);
    return false;
}

enum walk_kind { WALK_LOOK, WALK_TAKE_AWAY, WALK_PUT };

static bool is_deep(const char *path) {
    unsigned count = 1;
    for (const char *at = path; *at != 0; at++) {
        count += *at == '/';
    }
    return count > LAYER_DEPTH_MAX;
}

/* Is there room for it?  And are its names those of an archive that means well? */
static bool look(struct work *w, struct tar_entry *e, bool counted) {
    bool hard = e->kind == TAR_HARD_LINK;
    if (!clean(e->path) || (hard && !clean(e->link))) {
        (void)fault_set(w->f, E_CORRUPT, "%.200s leads out of the image", e->path);
        return false;
    }
    if (is_deep(e->path) || (hard && is_deep(e->link))) {
        (void)fault_set(w->f, E_CORRUPT, "%.100s lies in more than %u folders", e->path, LAYER_DEPTH_MAX - 1);
        return false;
    }
    if (!counted) {
        return true;
    }
    if (e->size > w->room->bytes || w->room->entries == 0) {
        (void)fault_set(w->f, E_TOO_LARGE,
                        "the image does not fit: unpacked it is larger than the bytes of disk that the task may use");
        return false;
    }
    w->room->bytes -= e->size;
    w->room->entries--;
    return true;
}

static bool walk(struct work *w, const struct layout *l, const json_t *descriptor, bool packed, enum walk_kind kind) {
    struct stream s = {.gunzip = NULL};
    struct tar t = {.read = stream_read, .skip = stream_skip, .context = &s};
    struct tar_entry *e = mem_new(1, sizeof *e);
    if (e == NULL || !layout_blob(l, descriptor, &s.blob, w->f)) {
        mem_free(e);
        return false;
    }
    s.gunzip = packed ? gunzip_new(layout_blob_read, &s.blob) : NULL;
    bool well = !packed || s.gunzip != NULL;
    int found = well ? 1 : 0;
    while (well && (found = tar_next(&t, e)) == 1) {
        well = look(w, e, kind == WALK_LOOK);
        well = well && (kind != WALK_TAKE_AWAY || take_away(w, e)) && (kind != WALK_PUT || put(w, &t, e));
    }
    if (found < 0) {
        (void)fault_errno(w->f, E_CORRUPT, "a layer is no whole archive");
    }
    gunzip_free(s.gunzip);
    well = well && found == 0;
    if (well) {
        well = layout_blob_end(&s.blob, w->f);
    } else {
        (void)close(s.blob.fd);
    }
    mem_free(e);
    return well;
}

bool layer_unpack(const struct layout *l, const json_t *descriptor, int root, struct layer_room *room, struct fault *f) {
    struct work w = {.root = root, .room = room, .f = f};
    bool packed;
    return is_packed(descriptor, &packed, f) && walk(&w, l, descriptor, packed, WALK_LOOK) &&
           walk(&w, l, descriptor, packed, WALK_TAKE_AWAY) && walk(&w, l, descriptor, packed, WALK_PUT);
}
