#include "agent/identity/startfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/store/datadir.h"
#include "include/grey/limits.h"

enum grey_error startfile_read(const char *path, struct builder *out, struct fault *f) {
    uint8_t room[4096];
    ssize_t got;
    size_t total = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return errno == ENOENT ? E_OK : fault_errno(f, E_IO, "%s", path);
    }
    while ((got = read(fd, room, sizeof room)) > 0 && total <= STARTLOG_BYTES_MAX) {
        builder_add(out, bytes_of(room, (size_t)got));
        total += (size_t)got;
    }
    enum grey_error err = got < 0                      ? fault_errno(f, E_IO, "%s", path)
                          : total > STARTLOG_BYTES_MAX ? fault_set(f, E_ATTEST_START_LOG, "%s: it is too large", path)
                          : out->err != E_OK           ? fault_set(f, out->err, "%s", path)
                                                       : E_OK;
    (void)close(fd);
    return err;
}

/* Whole or not at all: a new file takes the place of the old one. */
static enum grey_error replace(const char *path, struct bytes log, struct fault *f) {
    char fresh[LIMIT_PATH_BYTES + 8], folder[LIMIT_PATH_BYTES + 1];
    if (strlen(path) > LIMIT_PATH_BYTES) {
        return fault_set(f, E_USAGE, "%.80s...: the path is too long", path);
    }
    (void)snprintf(fresh, sizeof fresh, "%s.new", path);
    (void)snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash == NULL) {
        memcpy(folder, ".", 2);
    } else {
        slash[slash == folder] = 0;
    }
    int fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return fault_errno(f, E_IO, "%s", fresh);
    }
    bool written = true;
    while (written && log.size > 0) {
        ssize_t wrote = write(fd, log.data, log.size);
        written = wrote >= 0 || errno == EINTR;
        log = wrote > 0 ? bytes_of(log.data + wrote, log.size - (size_t)wrote) : log;
    }
    written = written && fsync(fd) == 0;
    enum grey_error err = written ? E_OK : fault_errno(f, E_IO, "%s", fresh);
    if (close(fd) != 0 && err == E_OK) {
        err = fault_errno(f, E_IO, "%s", fresh);
    }
    if (err == E_OK && rename(fresh, path) != 0) {
        err = fault_errno(f, E_IO, "%s", path);
    }
    return err != E_OK ? err : datadir_sync(folder, f);
}

static bool leads_to(struct bytes log, const uint8_t base[DIGEST_SHA256_BYTES], const uint8_t value[DIGEST_SHA256_BYTES]) {
    uint8_t reached[DIGEST_SHA256_BYTES];
    memcpy(reached, base, sizeof reached);
    return startlog_replay(log, reached) == E_OK && memcmp(reached, value, sizeof reached) == 0;
}

/* The part of the log that the register accounts for: all of it, nothing, all but the last start, or all in doubt. */
static enum grey_error settle(struct bytes log, const uint8_t base[DIGEST_SHA256_BYTES], const uint8_t value[DIGEST_SHA256_BYTES],
                              struct builder *out) {
    if (memcmp(base, value, DIGEST_SHA256_BYTES) == 0) {
        return E_OK;
    }
    if (!leads_to(log, base, value)) {
        size_t before = out->size;
        enum grey_error err = startlog_drop_last(log, out);
        if (err == E_OK && leads_to(bytes_of(out->data + before, out->size - before), base, value)) {
            return E_OK;
        }
        out->size = before;
    }
    builder_add(out, log);
    return out->err;
}

enum grey_error startfile_add(const char *path, struct tpm *t, const uint8_t base[DIGEST_SHA256_BYTES],
                              const struct startlog_start *start, struct fault *f) {
    uint8_t values[TPM_PCR_COUNT][DIGEST_SHA256_BYTES], digest[DIGEST_SHA256_BYTES];
    struct builder log, settled, longer;
    builder_init(&log, 2 * STARTLOG_BYTES_MAX);
    builder_init(&settled, 2 * STARTLOG_BYTES_MAX);
    builder_init(&longer, STARTLOG_BYTES_MAX);
    enum grey_error err = startfile_read(path, &log, f);
    err = err != E_OK ? err : tpm_read_pcrs(t, 1u << STARTLOG_PCR, values, f);
    if (err == E_OK) {
        err = settle(builder_bytes(&log), base, values[STARTLOG_PCR], &settled);
        err = err != E_OK ? err : startlog_add(builder_bytes(&settled), start, &longer);
        err = err == E_OK ? E_OK : fault_set(f, err, "%s: one more start cannot be added", path);
    }
    err = err != E_OK ? err : replace(path, builder_bytes(&longer), f);
    if (err == E_OK) {
        startlog_measure(start, digest);
        err = tpm_extend(t, STARTLOG_PCR, digest, f);
    }
    builder_free(&longer);
    builder_free(&settled);
    builder_free(&log);
    return err;
}
