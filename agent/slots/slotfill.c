/* A bundle becomes the content of the slot that does not run.  The bundle lies in a folder of an account without rights, so nothing of it is believed: it is opened
 * without following links, its header is read once, and what counts are the hashes of the files as they were written. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/slots/slotfill.h"

enum { PIECE_BYTES = 65536 };
static const char part_suffix[] = ".part", header_name[] = ".header";

static enum grey_error sync_folder(const char *path, struct fault *f) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum grey_error err = fd >= 0 && fsync(fd) == 0 ? E_OK : fault_errno(f, E_IO, "syncing %s", path);
    if (fd >= 0) {
        (void)close(fd);
    }
    return err;
}

enum grey_error slotfill_write_failed(const char *path, struct fault *f) {
    return fault_errno(f, errno == ENOSPC || errno == EDQUOT ? E_DISK_FULL : E_IO, "writing %s", path);
}

/* Hashes `size` bytes of in from `at` on, and copies them to out unless that is -1; s: of out. */
static enum grey_error stream(struct slots *s, int in, uint64_t at, uint64_t size, int out, uint8_t hash[DIGEST_SHA256_BYTES],
                              struct fault *f) {
    uint8_t piece[PIECE_BYTES];
    struct digest_stream d;
    digest_stream_begin(&d);
    while (size > 0) {
        size_t want = size < sizeof piece ? (size_t)size : sizeof piece;
        ssize_t got = pread(in, piece, want, (off_t)at);
        if (got <= 0) {
            return got == 0 ? fault_set(f, E_UPDATE_CONTENT, "it ends too early") : fault_errno(f, E_IO, "reading");
        }
        digest_stream_add(&d, bytes_of(piece, (size_t)got));
        if (out >= 0) {
            slots_step(s, "write");
            if (write(out, piece, (size_t)got) != got) {
                return slotfill_write_failed("the slot", f);
            }
        }
        at += (uint64_t)got;
        size -= (uint64_t)got;
    }
    digest_stream_end(&d, hash);
    return E_OK;
}

static enum grey_error check_file(int in, uint64_t at, const struct update_file *file, struct fault *f) {
    uint8_t hash[DIGEST_SHA256_BYTES];
    enum grey_error err = stream(&(struct slots){.dir = ""}, in, at, file->size, -1, hash, f);
    if (err == E_OK && memcmp(hash, file->hash, sizeof hash) != 0) {
        err = fault_set(f, E_UPDATE_CONTENT, "file %.*s", (int)file->name.size, file->name.data);
    }
    return err;
}

static enum grey_error copy_file(struct slots *s, int bundle, uint64_t at, const struct update_file *file, const char *folder,
                                 struct fault *f) {
    char path[LIMIT_PATH_BYTES + UPDATE_WORD_BYTES_MAX + 16];
    uint8_t hash[DIGEST_SHA256_BYTES];
    (void)snprintf(path, sizeof path, "%s/%.*s", folder, (int)file->name.size, file->name.data);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0755);
    if (fd < 0) {
        return slotfill_write_failed(path, f);
    }
    enum grey_error err = stream(s, bundle, at, file->size, fd, hash, f);
    slots_step(s, "sync");
    if (err == E_OK && (fchmod(fd, 0755) != 0 || fsync(fd) != 0)) {
        err = slotfill_write_failed(path, f);
    }
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED); /* read from the device, as far as the kernel can be asked for that */
    err = err == E_OK ? check_file(fd, 0, file, f) : err;
    (void)close(fd);
    return err;
}

/* Folders of slots are flat: the names of a manifest hold no slash.  What somebody else left there, or a header that is damaged, must not keep
 * updates away for ever. */
static enum grey_error clear_folder(struct slots *s, const char *folder, struct fault *f) {
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    enum grey_error err = E_OK;
    if (dir == NULL) {
        return errno == ENOENT ? E_OK : fault_errno(f, E_SYSTEM, "clearing %s", folder);
    }
    while (err == E_OK && (entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        slots_step(s, "clear");
        if (unlinkat(dirfd(dir), entry->d_name, 0) != 0 && errno != ENOENT) {
            err = fault_errno(f, E_SYSTEM, "removing %s/%s", folder, entry->d_name);
        }
    }
    (void)closedir(dir);
    slots_step(s, "clear folder");
    return err == E_OK && rmdir(folder) != 0 && errno != ENOENT ? fault_errno(f, E_SYSTEM, "clearing %s", folder) : err;
}

static enum grey_error fill(struct slots *s, int bundle, const struct update_manifest *m, const uint8_t header[UPDATE_HEADER_BYTES],
                            const char *folder, struct fault *f) {
    char path[LIMIT_PATH_BYTES + 32];
    slots_step(s, "folder");
    if (mkdir(folder, 0755) != 0 || chmod(folder, 0755) != 0) {
        return slotfill_write_failed(folder, f);
    }
    (void)snprintf(path, sizeof path, "%s/%s", folder, header_name);
    slots_step(s, "header");
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    enum grey_error err = fd >= 0 && write(fd, header, UPDATE_HEADER_BYTES) == (ssize_t)UPDATE_HEADER_BYTES && fsync(fd) == 0
                              ? sync_folder(folder, f)
                              : slotfill_write_failed(path, f);
    if (fd >= 0) {
        (void)close(fd);
    }
    for (uint32_t i = 0; i < m->file_count && err == E_OK; i++) {
        err = copy_file(s, bundle, update_offset(m, i), &m->files[i], folder, f);
    }
    slots_step(s, "sync folder");
    return err == E_OK ? sync_folder(folder, f) : err;
}

bool slotfill_is_whole(const char *folder) {
    char path[LIMIT_PATH_BYTES + UPDATE_WORD_BYTES_MAX + 16];
    uint8_t header[UPDATE_HEADER_BYTES];
    struct update_manifest m;
    struct fault f = {0};
    (void)snprintf(path, sizeof path, "%s/%s", folder, header_name);
    int fd = slotfill_open(path, &f);
    bool whole = fd >= 0 && pread(fd, header, sizeof header, 0) == (ssize_t)sizeof header &&
                 update_read(bytes_of(header, sizeof header), &m) == E_OK;
    if (fd >= 0) {
        (void)close(fd);
    }
    for (uint32_t i = 0; whole && i < m.file_count; i++) {
        (void)snprintf(path, sizeof path, "%s/%.*s", folder, (int)m.files[i].name.size, m.files[i].name.data);
        fd = slotfill_open(path, &f);
        whole = fd >= 0 && check_file(fd, 0, &m.files[i], &f) == E_OK;
        if (fd >= 0) {
            (void)close(fd);
        }
    }
    return whole;
}

enum grey_error slotfill_judge(const struct slots *s, int bundle, const struct slots_wants *w, uint8_t header[UPDATE_HEADER_BYTES],
                               struct update_manifest *m, struct fault *f) {
    if (pread(bundle, header, UPDATE_HEADER_BYTES, 0) != (ssize_t)UPDATE_HEADER_BYTES) {
        return fault_set(f, E_UPDATE_FORMAT, "the file is shorter than a header");
    }
    struct bytes head = bytes_of(header, UPDATE_HEADER_BYTES);
    enum grey_error err = update_verify(head, w->public_key, m);
    if (err != E_OK) {
        (void)update_read(head, m); /* so that whoever sent it can be told which one it was */
        return fault_set(f, err, "nothing was written");
    }
    err = update_fits(m, w->product, w->architecture, w->floor > s->state.floor ? w->floor : s->state.floor);
    if (err != E_OK) {
        return fault_set(f, err, "%.*s %.*s for %.*s, counter %llu", (int)m->product.size, m->product.data, (int)m->version.size,
                         m->version.data, (int)m->architecture.size, m->architecture.data, (unsigned long long)m->counter);
    }
    for (uint32_t i = 0; i < m->file_count && err == E_OK; i++) {
        err = check_file(bundle, update_offset(m, i), &m->files[i], f);
    }
    return err;
}

static enum grey_error install(struct slots *s, int bundle, const struct update_manifest *m,
                               const uint8_t header[UPDATE_HEADER_BYTES], struct fault *f) {
    char folder[LIMIT_PATH_BYTES + 1], part[LIMIT_PATH_BYTES + 16];
    struct slots_state next = s->state;
    enum slots_place to = next.keep == SLOTS_A ? SLOTS_B : SLOTS_A;
    enum grey_error err = E_OK;
    slots_path(s, to, folder);
    (void)snprintf(part, sizeof part, "%s%s", folder, part_suffix);
    if (next.try != SLOTS_NONE) { /* what is on trial runs */
        return fault_set(f, E_UPDATE_BUSY, "slot %s", slots_name(next.try));
    }
    err = clear_folder(s, part, f);
    err = err == E_OK ? clear_folder(s, folder, f) : err;
    err = err == E_OK ? fill(s, bundle, m, header, part, f) : err;
    if (err != E_OK) {
        return err;
    }
    slots_step(s, "rename");
    if (rename(part, folder) != 0) {
        return fault_errno(f, E_SYSTEM, "naming %s", folder);
    }
    slots_step(s, "sync slots");
    err = sync_folder(s->dir, f);
    next.try = to;
    memcpy(next.try_id, m->id, UPDATE_ID_BYTES);
    next.try_counter = m->counter;
    next.left = SLOTS_STARTS;
    return err == E_OK ? slots_save(s, &next, f) : err;
}

int slotfill_open(const char *path, struct fault *f) {
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        (void)fault_errno(f, errno == ENOENT ? E_NOT_FOUND : E_SYSTEM, "%s", path);
    } else if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        (void)fault_set(f, E_UPDATE_FORMAT, "%s is no file", path);
        (void)close(fd);
        fd = -1;
    }
    return fd;
}

enum grey_error slots_fill(struct slots *s, const char *bundle, const struct slots_wants *w, uint8_t header[UPDATE_HEADER_BYTES],
                           struct update_manifest *m, struct fault *f) {
    *m = (struct update_manifest){0};
    int fd = slotfill_open(bundle, f);
    if (fd < 0) {
        return f->code;
    }
    enum grey_error err = slotfill_judge(s, fd, w, header, m, f);
    if (err == E_OK) {
        const struct slots_state *now = &s->state;
        bool kept = now->try == SLOTS_NONE && now->keep != SLOTS_BASE && memcmp(now->keep_id, m->id, UPDATE_ID_BYTES) == 0;
        bool tried = now->try != SLOTS_NONE && memcmp(now->try_id, m->id, UPDATE_ID_BYTES) == 0;
        if (!kept && !tried) {
            err = install(s, fd, m, header, f);
        }
    }
    (void)close(fd);
    return err;
}
