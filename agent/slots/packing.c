#include "agent/slots/packing.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static enum grey_error failed(const char *path, struct fault *f) {
    return fault_errno(f, E_SYSTEM, "%s", path);
}

/* Hashes a file, and appends it to `to` unless that is NULL. */
static enum grey_error stream(const char *path, FILE *to, struct update_file *file, struct fault *f) {
    uint8_t piece[65536];
    struct digest_stream d;
    size_t got;
    FILE *from = fopen(path, "rbe");
    if (from == NULL) {
        return failed(path, f);
    }
    digest_stream_begin(&d);
    file->size = 0;
    enum grey_error err = E_OK;
    while (err == E_OK && (got = fread(piece, 1, sizeof piece, from)) > 0) {
        digest_stream_add(&d, bytes_of(piece, got));
        file->size += got;
        err = to == NULL || fwrite(piece, 1, got, to) == got ? E_OK : failed("writing the bundle", f);
    }
    digest_stream_end(&d, file->hash);
    err = err == E_OK && ferror(from) != 0 ? failed(path, f) : err;
    (void)fclose(from);
    return err;
}

static enum grey_error pad(FILE *to, uint64_t bytes, struct fault *f) {
    static const uint8_t zeros[UPDATE_ALIGN_BYTES];
    return fwrite(zeros, 1, (size_t)bytes, to) == bytes ? E_OK : failed("writing the bundle", f);
}

static enum grey_error write_all(const struct update_manifest *m, char *const *paths, const uint8_t header[UPDATE_HEADER_BYTES],
                                 FILE *to, struct fault *f) {
    enum grey_error err = fwrite(header, 1, UPDATE_HEADER_BYTES, to) == UPDATE_HEADER_BYTES ? E_OK : failed("writing", f);
    for (uint32_t i = 0; i < m->file_count && err == E_OK; i++) {
        struct update_file again = {.size = 0};
        err = stream(paths[i], to, &again, f);
        if (err == E_OK && (again.size != m->files[i].size || memcmp(again.hash, m->files[i].hash, sizeof again.hash) != 0)) {
            err = fault_set(f, E_UPDATE_CONTENT, "%s changed while it was packed", paths[i]);
        }
        err = err == E_OK ? pad(to, update_offset(m, i + 1) - update_offset(m, i) - m->files[i].size, f) : err;
    }
    return err;
}

enum grey_error packing_write(struct update_manifest *m, char *const *paths, uint32_t count,
                              const uint8_t secret_key[KEYS_ED25519_SECRET_BYTES], const char *out, struct fault *f) {
    uint8_t header[UPDATE_HEADER_BYTES];
    enum grey_error err = E_OK;
    if (count == 0 || count > UPDATE_FILES_MAX) {
        return fault_set(f, E_USAGE, "a bundle has 1 to %u files", UPDATE_FILES_MAX);
    }
    for (uint32_t i = 0; i < count && err == E_OK; i++) {
        const char *slash = strrchr(paths[i], '/');
        m->files[i].name = bytes_str(slash == NULL ? paths[i] : slash + 1);
        err = stream(paths[i], NULL, &m->files[i], f);
    }
    m->file_count = count;
    if (err == E_OK && update_sign(m, secret_key, header) != E_OK) {
        err = fault_set(f, E_UPDATE_FORMAT,
                        "words are 1 to 64 of A-Z a-z 0-9 . _ -, files are not empty and differ in name, the counter is above 0");
    }
    if (err != E_OK) {
        return err;
    }
    FILE *to = fopen(out, "wbe");
    if (to == NULL) {
        return failed(out, f);
    }
    err = write_all(m, paths, header, to, f);
    return fclose(to) != 0 && err == E_OK ? failed(out, f) : err;
}
