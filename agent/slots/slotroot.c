/* The root of an image, in a bundle, becomes the content of a partition.  The bundle lies in a folder of an account without rights: its map is hashed as it is read, and the image
 * as it lies in the partition, before anything is told to start it. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "agent/slots/slotfill.h"
#include "federation/imagemap.h"

enum { PIECE_BYTES = 65536, PIECE_BLOCKS = PIECE_BYTES / IMAGEMAP_BLOCK_BYTES };

/* A bundle on its way into a partition. */
struct pouring {
    struct slots *s;
    int from, to;
    uint64_t from_at; /* of the next block that holds something */
    uint64_t size;    /* of the image */
    uint8_t hash[DIGEST_SHA256_BYTES];
    struct builder map_bytes;
    struct imagemap map; /* no runs: the whole image is there */
};

/* Block `block` of the image is the next one of the bundle; `run` is where the last one was found, and moves on. */
static bool is_there(const struct imagemap *map, uint64_t block, uint32_t *run) {
    while (*run < imagemap_run_count(map)) {
        struct imagemap_run at = imagemap_run_at(map, *run);
        if (block < (uint64_t)at.first + at.count) {
            return block >= at.first;
        }
        ++*run;
    }
    return false;
}

static enum grey_error read_whole(int fd, uint64_t at, uint8_t *to, size_t size, struct fault *f) {
    while (size > 0) {
        ssize_t got = pread(fd, to, size, (off_t)at);
        if (got <= 0) {
            return got == 0 ? fault_set(f, E_UPDATE_CONTENT, "it ends too early") : fault_errno(f, E_IO, "reading");
        }
        to += got;
        at += (uint64_t)got;
        size -= (size_t)got;
    }
    return E_OK;
}

static enum grey_error next_piece(struct pouring *p, uint64_t at, uint32_t *run, uint8_t piece[PIECE_BYTES], size_t size,
                                  struct fault *f) {
    enum grey_error err = E_OK;
    if (p->map.runs.size == 0) {
        return read_whole(p->from, p->from_at + at, piece, size, f);
    }
    memset(piece, 0, size);
    for (size_t done = 0; done < size && err == E_OK; done += IMAGEMAP_BLOCK_BYTES) {
        if (is_there(&p->map, (at + done) / IMAGEMAP_BLOCK_BYTES, run)) {
            err = read_whole(p->from, p->from_at, piece + done, IMAGEMAP_BLOCK_BYTES, f);
            p->from_at += IMAGEMAP_BLOCK_BYTES;
        }
    }
    return err;
}

static enum grey_error pour(struct pouring *p, struct fault *f) {
    uint8_t piece[PIECE_BYTES], hash[DIGEST_SHA256_BYTES];
    struct digest_stream d;
    uint32_t run = 0;
    enum grey_error err = E_OK;
    for (uint64_t at = 0; at < p->size && err == E_OK; at += PIECE_BYTES) {
        size_t size = p->size - at < PIECE_BYTES ? (size_t)(p->size - at) : PIECE_BYTES;
        err = next_piece(p, at, &run, piece, size, f);
        slots_step(p->s, "write");
        if (err == E_OK && pwrite(p->to, piece, size, (off_t)at) != (ssize_t)size) {
            err = slotfill_write_failed("the slot", f);
        }
    }
    slots_step(p->s, "sync");
    if (err == E_OK && fsync(p->to) != 0) {
        err = slotfill_write_failed("the slot", f);
    }
    (void)posix_fadvise(p->to, 0, 0, POSIX_FADV_DONTNEED); /* read from the device, as far as the kernel can be asked for that */
    digest_stream_begin(&d);
    for (uint64_t at = 0; at < p->size && err == E_OK; at += PIECE_BYTES) {
        size_t size = p->size - at < PIECE_BYTES ? (size_t)(p->size - at) : PIECE_BYTES;
        err = read_whole(p->to, at, piece, size, f);
        digest_stream_add(&d, bytes_of(piece, size));
    }
    digest_stream_end(&d, hash);
    if (err == E_OK && memcmp(hash, p->hash, sizeof hash) != 0) {
        err = fault_set(f, E_UPDATE_CONTENT, "the image as it lies in the slot is another");
    }
    return err;
}

static enum grey_error load_map(struct pouring *p, const struct update_manifest *m, struct fault *f) {
    const struct update_file *file = &m->files[0];
    uint8_t hash[DIGEST_SHA256_BYTES];
    if (file->size > IMAGEMAP_BYTES_MAX) {
        return fault_set(f, E_UPDATE_FORMAT, "the map is too large");
    }
    builder_init(&p->map_bytes, IMAGEMAP_BYTES_MAX);
    uint8_t *room = builder_room(&p->map_bytes, (size_t)file->size);
    enum grey_error err = room == NULL ? fault_set(f, p->map_bytes.err, "the map of an image")
                                       : read_whole(p->from, update_offset(m, 0), room, (size_t)file->size, f);
    if (err == E_OK) {
        digest_sha256(builder_bytes(&p->map_bytes), hash);
        if (memcmp(hash, file->hash, sizeof hash) != 0) {
            err = fault_set(f, E_UPDATE_CONTENT, "the map");
        } else if (imagemap_read(builder_bytes(&p->map_bytes), &p->map) != E_OK || imagemap_bytes(&p->map) != m->files[1].size) {
            err = fault_set(f, E_UPDATE_FORMAT, "the map is none of these blocks");
        }
    }
    return err;
}

static enum grey_error unpack(struct slots *s, int bundle, const struct update_manifest *m, const char *out, struct fault *f) {
    struct pouring p = {.s = s, .from = bundle, .to = -1};
    bool mapped = imagemap_is_image(m);
    enum grey_error err = E_OK;
    if (!mapped && m->file_count != 1) {
        return fault_set(f, E_UPDATE_PRODUCT, "an image is one file, or a map and its blocks; this bundle has %u",
                         (unsigned)m->file_count);
    }
    p.from_at = update_offset(m, mapped ? 1 : 0);
    p.size = m->files[0].size;
    memcpy(p.hash, m->files[0].hash, sizeof p.hash);
    if (mapped) {
        err = load_map(&p, m, f);
        p.size = p.map.size;
        memcpy(p.hash, p.map.hash, sizeof p.hash);
    }
    if (err == E_OK) {
        p.to = open(out, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        err = p.to < 0 ? slotfill_write_failed(out, f) : pour(&p, f);
    }
    if (p.to >= 0) {
        (void)close(p.to);
    }
    builder_free(&p.map_bytes);
    return err;
}

enum grey_error slots_unpack(const char *bundle, const struct slots_wants *w, const char *out, uint8_t header[UPDATE_HEADER_BYTES],
                             struct update_manifest *m, struct fault *f) {
    struct slots s = {.dir = ""}; /* whoever calls keeps the state */
    *m = (struct update_manifest){0};
    int from = slotfill_open(bundle, f);
    if (from < 0) {
        return f->code;
    }
    enum grey_error err = slotfill_judge(&s, from, w, header, m, f);
    err = err == E_OK ? unpack(&s, from, m, out, f) : err;
    (void)close(from);
    return err;
}

/* --- The state ----------------------------------------------------------------------------------------------------------------------- */

static enum grey_error tell(struct slots *s, const struct slots_chooser *c, enum slots_word word, enum slots_place p,
                            struct fault *f) {
    slots_step(s, "choice");
    return c->tell(c->context, word, p, f);
}

static enum grey_error install(struct slots *s, const struct slots_chooser *c, int bundle, const struct update_manifest *m,
                               struct fault *f) {
    char path[LIMIT_PATH_BYTES + 1];
    struct slots_state next = s->state;
    enum slots_place to = next.keep == SLOTS_A ? SLOTS_B : SLOTS_A;
    if (next.try != SLOTS_NONE) {
        return fault_set(f, E_UPDATE_BUSY, "slot %s", slots_name(next.try));
    }
    if (next.keep == SLOTS_BASE) {
        return fault_set(f, E_UPDATE_SLOTS, "which slot runs is not known: grey-update boot --roots was not called");
    }
    slots_path(s, to, path);
    if (access(path, W_OK) != 0) { /* else a file in memory would take its place */
        return fault_set(f, E_UPDATE_SLOTS, "there is no partition for slot %s", slots_name(to));
    }
    /* What is half written must not be started: another one may be chosen, and this one run because that was spoiled. */
    enum grey_error err = tell(s, c, SLOTS_KEEP, next.keep, f);
    err = err == E_OK ? unpack(s, bundle, m, path, f) : err;
    next.try = to;
    memcpy(next.try_id, m->id, UPDATE_ID_BYTES);
    next.try_counter = m->counter;
    next.left = SLOTS_UNARMED;
    return err == E_OK ? slots_save(s, &next, f) : err;
}

static enum grey_error arm(struct slots *s, const struct slots_chooser *c, struct fault *f) {
    struct slots_state next = s->state;
    enum grey_error err = tell(s, c, SLOTS_TRY, next.try, f);
    next.left = SLOTS_STARTS;
    return err == E_OK ? slots_save(s, &next, f) : err;
}

enum grey_error slots_fill_root(struct slots *s, const struct slots_chooser *c, const char *bundle, const struct slots_wants *w,
                                uint8_t header[UPDATE_HEADER_BYTES], struct update_manifest *m, struct fault *f) {
    const struct slots_state *now = &s->state;
    *m = (struct update_manifest){0};
    int fd = slotfill_open(bundle, f);
    if (fd < 0) {
        return f->code;
    }
    enum grey_error err = slotfill_judge(s, fd, w, header, m, f);
    bool kept = err == E_OK && now->try == SLOTS_NONE && memcmp(now->keep_id, m->id, UPDATE_ID_BYTES) == 0;
    bool tried = err == E_OK && now->try != SLOTS_NONE && memcmp(now->try_id, m->id, UPDATE_ID_BYTES) == 0;
    if (err == E_OK && !kept && !tried && memcmp(now->failed_id, m->id, UPDATE_ID_BYTES) == 0) {
        err = fault_set(f, E_UPDATE_UNHEALTHY, "it was left here before"); /* its bundle still lies there after the start */
    } else if (err == E_OK && !kept && !tried) {
        err = install(s, c, fd, m, f);
    }
    (void)close(fd);
    return err == E_OK && now->left == SLOTS_UNARMED ? arm(s, c, f) : err;
}

/* The choice is told first: a start between the two finds the new root, still on trial, and it is confirmed again. */
enum grey_error slots_confirm_root(struct slots *s, const struct slots_chooser *c, const uint8_t id[UPDATE_ID_BYTES],
                                   struct fault *f) {
    const struct slots_state *now = &s->state;
    bool tried = now->try != SLOTS_NONE && memcmp(now->try_id, id, UPDATE_ID_BYTES) == 0;
    enum grey_error err = tried ? tell(s, c, SLOTS_KEEP, now->try, f) : E_OK;
    return err == E_OK ? slots_confirm(s, id, f) : err;
}

/* Likewise: a start between the two finds the old root, and what was on trial not running. */
enum grey_error slots_revert_root(struct slots *s, const struct slots_chooser *c, uint32_t why, struct fault *f) {
    struct slots_state next = s->state;
    enum grey_error err = tell(s, c, SLOTS_KEEP, next.keep, f);
    if (err != E_OK || next.try == SLOTS_NONE) {
        return err;
    }
    slots_leave(&next, why);
    return slots_save(s, &next, f);
}

enum grey_error slots_started(struct slots *s, const struct slots_chooser *c, enum slots_place running, struct fault *f) {
    struct slots_state next = s->state;
    bool on_trial = next.try == running, known = next.keep == running, left = next.try != SLOTS_NONE && !on_trial;
    bool changed = left || (on_trial ? next.left != SLOTS_STARTS : !known);
    if (on_trial) {
        next.left = SLOTS_STARTS; /* the chooser knows of it, and counts */
    } else if (left && next.left == SLOTS_UNARMED) {
        next.try = SLOTS_NONE; /* the power went before the chooser was told: it is installed again */
        next.left = 0;
    } else if (left) {
        slots_leave(&next, (uint32_t)error_id(E_UPDATE_UNHEALTHY));
    }
    if (!on_trial && !known) { /* at first, by hand, or because the other one is spoiled */
        next.keep = running;
        memset(next.keep_id, 0, UPDATE_ID_BYTES);
    }
    enum grey_error err = left ? tell(s, c, SLOTS_KEEP, running, f) : E_OK;
    err = err == E_OK && changed ? slots_save(s, &next, f) : err;
    enum grey_error pointed = slots_point(s, running, f);
    return err != E_OK ? err : pointed;
}
