#include "agent/slots/slots.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/slots/slotfill.h"
#include "include/grey/must.h"
#include "platform/wholefile.h"

enum { HEX_BYTES = 2 * UPDATE_ID_BYTES + 1, LINE_BYTES_MAX = 512 };
static const char *const names[] = {[SLOTS_NONE] = "-", [SLOTS_BASE] = "base", [SLOTS_A] = "a", [SLOTS_B] = "b"};

const char *slots_name(enum slots_place p) {
    return names[p];
}

void slots_step(struct slots *s, const char *step) {
    if (s->before != NULL) {
        s->before(s->context, step);
    }
}

void slots_path(const struct slots *s, enum slots_place p, char *path) {
    if (p == SLOTS_BASE) {
        (void)snprintf(path, LIMIT_PATH_BYTES + 1, "%s", s->base);
    } else {
        (void)snprintf(path, LIMIT_PATH_BYTES + 1, "%.900s/%s", s->dir, names[p]);
    }
}

/* --- The state file ---------------------------------------------------------------------------------------------------------------- */

/* "KEEP ID FLOOR TRY ID COUNTER LEFT ID WHY", what the checksum covers. */
static void write_line(const struct slots_state *st, char line[LINE_BYTES_MAX]) {
    char keep[HEX_BYTES], try[HEX_BYTES], failed[HEX_BYTES];
    bytes_hex(st->keep_id, UPDATE_ID_BYTES, keep);
    bytes_hex(st->try_id, UPDATE_ID_BYTES, try);
    bytes_hex(st->failed_id, UPDATE_ID_BYTES, failed);
    (void)snprintf(line, LINE_BYTES_MAX, "%s %s %" PRIu64 " %s %s %" PRIu64 " %" PRIu32 " %s %" PRIu32, names[st->keep], keep,
                   st->floor, names[st->try], try, st->try_counter, st->left, failed, st->failed_why);
}

static bool read_place(const char *word, enum slots_place *out) {
    for (unsigned p = SLOTS_NONE; p <= SLOTS_B; p++) {
        if (strcmp(word, names[p]) == 0) {
            *out = (enum slots_place)p;
            return true;
        }
    }
    return false;
}

static bool read_number(const char *word, uint64_t max, uint64_t *out) {
    char *end;
    errno = 0;
    *out = strtoull(word, &end, 10);
    return errno == 0 && *end == 0 && word[0] >= '0' && word[0] <= '9' && *out <= max;
}

static bool read_id(const char *word, uint8_t id[UPDATE_ID_BYTES]) {
    return strlen(word) == HEX_BYTES - 1 && bytes_unhex(word, UPDATE_ID_BYTES, id);
}

/* text: the file's, is taken apart. */
static bool read_state(char *text, struct slots_state *st) {
    enum { WORDS = 12 };
    char *words[WORDS], line[LINE_BYTES_MAX], *rest = text;
    uint64_t version, sum, left, why;
    uint32_t count = 0;
    for (char *word = strtok_r(text, " \n", &rest); word != NULL && count < WORDS; word = strtok_r(NULL, " \n", &rest)) {
        words[count++] = word;
    }
    if (count != WORDS || strcmp(words[0], "grey-slots") != 0 || !read_number(words[1], 1, &version) || version != 1 ||
        !read_place(words[2], &st->keep) || st->keep == SLOTS_NONE || !read_id(words[3], st->keep_id) ||
        !read_number(words[4], INT64_MAX, &st->floor) || !read_place(words[5], &st->try) || st->try == SLOTS_BASE ||
        !read_id(words[6], st->try_id) || !read_number(words[7], INT64_MAX, &st->try_counter) ||
        !read_number(words[8], SLOTS_UNARMED, &left) || !read_id(words[9], st->failed_id) ||
        !read_number(words[10], UINT32_MAX, &why) || !read_number(words[11], UINT32_MAX, &sum)) {
        return false;
    }
    st->left = (uint32_t)left;
    st->failed_why = (uint32_t)why;
    write_line(st, line);
    return st->try != st->keep && digest_crc32(0, bytes_str(line)) == sum;
}

enum grey_error slots_open(struct slots *s, const char *dir, const char *base, struct fault *f) {
    char path[LIMIT_PATH_BYTES + 1];
    struct builder text;
    *s = (struct slots){.dir = dir, .base = base, .state = {.keep = SLOTS_BASE}};
    (void)snprintf(path, sizeof path, "%.900s/state", dir);
    builder_init(&text, LINE_BYTES_MAX);
    enum grey_error err = wholefile_read(path, &text, f);
    struct slots_state st = {.keep = SLOTS_BASE};
    if (err == E_NOT_FOUND) {
        err = E_OK;
    } else if (err == E_OK && !read_state((char *)text.data, &st)) {
        err = fault_set(f, E_UPDATE_STATE, "%s is damaged", path);
    } else if (err != E_OK && err != E_NO_MEMORY) {
        err = fault_set(f, E_UPDATE_STATE, "%s cannot be read", path);
    }
    if (err == E_OK) {
        s->state = st;
    }
    builder_free(&text);
    return err;
}

enum grey_error slots_save(struct slots *s, const struct slots_state *next, struct fault *f) {
    char path[LIMIT_PATH_BYTES + 1], line[LINE_BYTES_MAX], text[LINE_BYTES_MAX + 64];
    write_line(next, line);
    int size = snprintf(text, sizeof text, "grey-slots 1 %s %" PRIu32 "\n", line, digest_crc32(0, bytes_str(line)));
    must(size > 0 && (size_t)size < sizeof text);
    (void)snprintf(path, sizeof path, "%.900s/state", s->dir);
    slots_step(s, "state");
    enum grey_error err = wholefile_write(path, bytes_of(text, (size_t)size), 0644, f);
    if (err == E_OK) {
        s->state = *next;
    }
    return err;
}

/* --- The choice -------------------------------------------------------------------------------------------------------------------- */

static bool is_whole(const struct slots *s, enum slots_place p) {
    char path[LIMIT_PATH_BYTES + 1];
    slots_path(s, p, path);
    return p == SLOTS_BASE || slotfill_is_whole(path);
}

enum grey_error slots_point(struct slots *s, enum slots_place p, struct fault *f) {
    char link[LIMIT_PATH_BYTES + 1], fresh[LIMIT_PATH_BYTES + 8], now[LIMIT_PATH_BYTES + 1];
    const char *to = p == SLOTS_BASE ? s->base : names[p];
    (void)snprintf(link, sizeof link, "%.900s/current", s->dir);
    (void)snprintf(fresh, sizeof fresh, "%s.new", link);
    ssize_t size = readlink(link, now, sizeof now - 1);
    if (size > 0 && bytes_equal_str(bytes_of(now, (size_t)size), to)) {
        return E_OK;
    }
    slots_step(s, "link");
    if ((unlink(fresh) != 0 && errno != ENOENT) || symlink(to, fresh) != 0) {
        return fault_errno(f, E_SYSTEM, "making %s", fresh);
    }
    slots_step(s, "link moved");
    if (rename(fresh, link) != 0) {
        return fault_errno(f, E_SYSTEM, "moving %s", link);
    }
    int fd = open(s->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum grey_error err = fd >= 0 && fsync(fd) == 0 ? E_OK : fault_errno(f, E_IO, "syncing %s", s->dir);
    if (fd >= 0) {
        (void)close(fd);
    }
    return err;
}

void slots_leave(struct slots_state *st, uint32_t why) {
    memcpy(st->failed_id, st->try_id, UPDATE_ID_BYTES);
    st->failed_why = why;
    st->try = SLOTS_NONE;
    st->left = 0;
}

/* The disk has lost of it what it had confirmed: what the package brought runs, until the site gives this gateway its turn again. */
static void give_up_damaged(const struct slots *s, struct slots_state *next) {
    if (!is_whole(s, next->keep)) {
        next->keep = SLOTS_BASE;
        memset(next->keep_id, 0, UPDATE_ID_BYTES);
    }
}

enum grey_error slots_boot(struct slots *s, struct fault *f) {
    struct slots_state next = s->state;
    bool tries = next.try != SLOTS_NONE;
    if (tries && (next.left == 0 || !is_whole(s, next.try))) {
        slots_leave(&next, (uint32_t)error_id(E_UPDATE_UNHEALTHY));
    } else if (tries) {
        next.left--;
    }
    give_up_damaged(s, &next);
    enum grey_error err = tries || next.keep != s->state.keep ? slots_save(s, &next, f) : E_OK;
    /* A disk that cannot be written does not hold the gateway up: what is kept is started, and nothing is tried. */
    enum grey_error pointed = slots_point(s, err == E_OK && next.try != SLOTS_NONE ? next.try : next.keep, f);
    return err != E_OK ? err : pointed;
}

enum grey_error slots_confirm(struct slots *s, const uint8_t id[UPDATE_ID_BYTES], struct fault *f) {
    struct slots_state next = s->state;
    if (next.try == SLOTS_NONE && memcmp(next.keep_id, id, UPDATE_ID_BYTES) == 0) {
        return E_OK;
    }
    if (next.try == SLOTS_NONE || memcmp(next.try_id, id, UPDATE_ID_BYTES) != 0) {
        return fault_set(f, E_CONDITION, "that version is not on trial");
    }
    next.keep = next.try;
    memcpy(next.keep_id, next.try_id, UPDATE_ID_BYTES);
    next.floor = next.try_counter > next.floor ? next.try_counter : next.floor;
    next.try = SLOTS_NONE;
    next.left = 0;
    memset(next.failed_id, 0, UPDATE_ID_BYTES);
    next.failed_why = 0;
    return slots_save(s, &next, f);
}

enum grey_error slots_revert(struct slots *s, uint32_t why, struct fault *f) {
    struct slots_state next = s->state;
    if (next.try != SLOTS_NONE) {
        slots_leave(&next, why);
        give_up_damaged(s, &next);
        enum grey_error err = slots_save(s, &next, f);
        if (err != E_OK) {
            return err;
        }
    }
    return slots_point(s, next.keep, f);
}

enum grey_error slots_allow(struct slots *s, uint64_t counter, struct fault *f) {
    struct slots_state next = s->state;
    next.floor = counter;
    memset(next.failed_id, 0, UPDATE_ID_BYTES); /* who allows it knows of what failed */
    next.failed_why = 0;
    return slots_save(s, &next, f);
}

enum grey_error slots_to_base(struct slots *s, struct fault *f) {
    struct slots_state next = s->state;
    next.keep = SLOTS_BASE;
    memset(next.keep_id, 0, UPDATE_ID_BYTES);
    next.try = SLOTS_NONE;
    next.left = 0;
    enum grey_error err = slots_save(s, &next, f);
    return err == E_OK ? slots_point(s, SLOTS_BASE, f) : err;
}

enum grey_error slots_note_failed(struct slots *s, const uint8_t id[UPDATE_ID_BYTES], uint32_t why, struct fault *f) {
    struct slots_state next = s->state;
    memcpy(next.failed_id, id, UPDATE_ID_BYTES);
    next.failed_why = why;
    return slots_save(s, &next, f);
}
