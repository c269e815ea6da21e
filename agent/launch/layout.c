#include "agent/launch/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STEP_BYTES 65536u
#define INDEX_DEPTH_MAX 3u /* an index may name another */

#if defined(__x86_64__)
#define ARCHITECTURE "amd64"
#elif defined(__aarch64__)
#define ARCHITECTURE "arm64"
#elif defined(__arm__)
#define ARCHITECTURE "arm"
#else
#define ARCHITECTURE "unknown"
#endif

bool layout_open(struct layout *l, const char *path, struct fault *f) {
    struct stat st;
    l->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (l->fd < 0 || fstat(l->fd, &st) != 0 || (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode))) {
        (void)fault_errno(f, E_IO, "%s", path);
        layout_close(l);
        return false;
    }
    l->archive = S_ISREG(st.st_mode);
    return true;
}

void layout_close(struct layout *l) {
    if (l->fd >= 0) {
        (void)close(l->fd);
        l->fd = -1;
    }
}

/* --- Where a part of it is -------------------------------------------------------------------------------------------------------------- */

struct walk { /* through an archive */
    int fd;
    uint64_t at;
};

static ssize_t walk_read(void *context, uint8_t *out, size_t size) {
    struct walk *w = context;
    ssize_t got = pread(w->fd, out, size, (off_t)w->at);
    w->at += got > 0 ? (uint64_t)got : 0;
    return got;
}

static bool walk_skip(void *context, uint64_t size) {
    struct walk *w = context;
    w->at += size;
    return true;
}

static bool find_in_archive(const struct layout *l, const char *name, uint64_t *offset, uint64_t *size) {
    struct walk w = {.fd = l->fd};
    struct tar t = {.read = walk_read, .skip = walk_skip, .context = &w};
    struct tar_entry *e = mem_new(1, sizeof *e);
    bool found = false;
    while (e != NULL && !found && tar_next(&t, e) == 1) {
        const char *path = strncmp(e->path, "./", 2) == 0 ? e->path + 2 : e->path;
        found = e->kind == TAR_FILE && strcmp(path, name) == 0;
        *offset = w.at;
        *size = e->size;
    }
    mem_free(e);
    return found;
}

static bool open_part(const struct layout *l, const char *name, struct layout_blob *b, struct fault *f) {
    struct stat st;
    *b = (struct layout_blob){.fd = -1};
    if (l->archive) {
        b->fd = find_in_archive(l, name, &b->offset, &b->left) ? fcntl(l->fd, F_DUPFD_CLOEXEC, 3) : -1;
    } else {
        b->fd = openat(l->fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        bool file = b->fd >= 0 && fstat(b->fd, &st) == 0 && S_ISREG(st.st_mode);
        b->left = file ? (uint64_t)st.st_size : 0;
    }
    digest_stream_begin(&b->digest);
    if (b->fd < 0) {
        (void)fault_set(f, E_NOT_FOUND, "%s: there is none in this %s", name, l->archive ? "archive" : "directory");
    }
    return b->fd >= 0;
}

ssize_t layout_blob_read(void *blob, uint8_t *out, size_t size) {
    struct layout_blob *b = blob;
    size_t most = size < b->left ? size : (size_t)b->left;
    ssize_t got = most == 0 ? 0 : pread(b->fd, out, most, (off_t)b->offset);
    if (got == 0 && most > 0) {
        errno = EBADMSG;
        return -1;
    }
    if (got > 0) {
        b->offset += (uint64_t)got;
        b->left -= (uint64_t)got;
        digest_stream_add(&b->digest, bytes_of(out, (size_t)got));
    }
    return got;
}

/* "sha256:" and 64 digits; others are not taken. */
static bool read_digest(const json_t *descriptor, uint8_t hash[DIGEST_SHA256_BYTES], char name[80], struct fault *f) {
    static const char head[] = "sha256:";
    const char *text = json_string_value(json_object_get(descriptor, "digest"));
    bool well = text != NULL && strncmp(text, head, strlen(head)) == 0 && strlen(text) == strlen(head) + 2 * DIGEST_SHA256_BYTES &&
                bytes_unhex(text + strlen(head), DIGEST_SHA256_BYTES, hash);
    if (!well) {
        (void)fault_set(f, E_BAD_JSON, "\"%.80s\" is no sha256 digest", text == NULL ? "" : text);
        return false;
    }
    char hex[2 * DIGEST_SHA256_BYTES + 1];
    bytes_hex(hash, DIGEST_SHA256_BYTES, hex); /* as it was written, a path could be hidden in it */
    (void)snprintf(name, 80, "blobs/sha256/%s", hex);
    return true;
}

bool layout_blob(const struct layout *l, const json_t *descriptor, struct layout_blob *b, struct fault *f) {
    uint8_t hash[DIGEST_SHA256_BYTES];
    char name[80];
    if (!read_digest(descriptor, hash, name, f) || !open_part(l, name, b, f)) {
        return false;
    }
    memcpy(b->wanted, hash, sizeof hash);
    return true;
}

bool layout_blob_end(struct layout_blob *b, struct fault *f) {
    uint8_t room[STEP_BYTES], hash[DIGEST_SHA256_BYTES];
    while (layout_blob_read(b, room, sizeof room) > 0) {
    }
    digest_stream_end(&b->digest, hash);
    bool well = b->left == 0 && memcmp(hash, b->wanted, sizeof hash) == 0;
    if (!well) {
        char hex[2 * DIGEST_SHA256_BYTES + 1];
        bytes_hex(b->wanted, sizeof b->wanted, hex);
        (void)fault_set(f, E_CORRUPT, "sha256:%.16s... differs: it has not the digest under which it is named", hex);
    }
    (void)close(b->fd);
    b->fd = -1;
    return well;
}

/* --- Documents ------------------------------------------------------------------------------------------------------------------------------- */

static json_t *read_document(struct layout_blob *b, bool checked, struct fault *f) {
    struct builder text;
    json_t *document = NULL;
    builder_init(&text, LAYOUT_TEXT_BYTES_MAX);
    uint8_t room[4096];
    ssize_t got = 0;
    while (text.err == E_OK && (got = layout_blob_read(b, room, sizeof room)) > 0) {
        builder_add(&text, bytes_of(room, (size_t)got));
    }
    bool whole = text.err == E_OK && got == 0;
    if (!whole) {
        (void)fault_set(f, text.err != E_OK ? text.err : E_IO, "a document of the image cannot be read");
    }
    if (checked) {
        whole = layout_blob_end(b, f) && whole;
    } else {
        (void)close(b->fd);
    }
    document = whole ? json_read(builder_bytes(&text), f) : NULL;
    builder_free(&text);
    return document;
}

json_t *layout_document(const struct layout *l, const json_t *descriptor, struct fault *f) {
    struct layout_blob b;
    return layout_blob(l, descriptor, &b, f) ? read_document(&b, true, f) : NULL;
}

/* Of several, the one for this machine; one that says nothing of machines is for all. */
static const json_t *choose(const json_t *index) {
    const json_t *manifests = json_object_get(index, "manifests"), *any = NULL;
    for (size_t i = 0; i < json_array_size(manifests); i++) {
        const json_t *m = json_array_get(manifests, i), *platform = json_object_get(m, "platform");
        const char *machine = json_string_value(json_object_get(platform, "architecture"));
        if (machine != NULL && strcmp(machine, ARCHITECTURE) == 0) {
            return m;
        }
        any = machine == NULL && any == NULL ? m : any;
    }
    return any;
}

json_t *layout_manifest(const struct layout *l, struct fault *f) {
    struct layout_blob b;
    json_t *document = open_part(l, "index.json", &b, f) ? read_document(&b, false, f) : NULL;
    for (unsigned depth = 0; document != NULL && json_object_get(document, "layers") == NULL; depth++) {
        const json_t *next = choose(document);
        json_t *found = NULL;
        if (next == NULL || depth == INDEX_DEPTH_MAX) {
            (void)fault_set(f, E_NOT_FOUND, "the image has nothing for " ARCHITECTURE);
        } else {
            found = layout_document(l, next, f);
        }
        json_decref(document);
        document = found;
    }
    return document;
}
