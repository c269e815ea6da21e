#include "agent/slots/packing.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "federation/imagemap.h"

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

static enum grey_error write_all(const struct update_manifest *m, char *const *paths, uint32_t count,
                                 const uint8_t header[UPDATE_HEADER_BYTES], FILE *to, struct fault *f) {
    enum grey_error err = fwrite(header, 1, UPDATE_HEADER_BYTES, to) == UPDATE_HEADER_BYTES ? E_OK : failed("writing", f);
    for (uint32_t i = 0; i < count && err == E_OK; i++) {
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
    char part[LIMIT_PATH_BYTES + 8]; /* half a bundle must not look like one, and a file to be packed may have the bundle's name */
    (void)snprintf(part, sizeof part, "%.900s.part", out);
    FILE *to = fopen(part, "wbe");
    if (to == NULL) {
        return failed(part, f);
    }
    err = write_all(m, paths, count, header, to, f);
    err = fclose(to) != 0 && err == E_OK ? failed(part, f) : err;
    err = err == E_OK && rename(part, out) != 0 ? failed(out, f) : err;
    if (err != E_OK) {
        (void)unlink(part);
    }
    return err;
}

/* --- images ------------------------------------------------------------------------------------------------------------------------- */

static bool is_empty(const uint8_t block[IMAGEMAP_BLOCK_BYTES]) {
    static const uint8_t nothing[IMAGEMAP_BLOCK_BYTES];
    return memcmp(block, nothing, sizeof nothing) == 0;
}

/* Appends what is in the image to `blocks`, and where it was to `runs`. */
static enum grey_error sift(FILE *image, FILE *blocks, struct imagemap *map, struct builder *runs, struct fault *f) {
    uint8_t block[IMAGEMAP_BLOCK_BYTES];
    struct imagemap_run run = {0};
    struct digest_stream d;
    uint64_t at = 0;
    size_t got;
    digest_stream_begin(&d);
    while ((got = fread(block, 1, sizeof block, image)) == sizeof block) {
        digest_stream_add(&d, bytes_of(block, sizeof block));
        bool empty = is_empty(block);
        if (run.count > 0 && empty) {
            imagemap_add_run(runs, run);
            run.count = 0;
        } else if (!empty && run.count++ == 0) {
            run.first = (uint32_t)at;
        }
        if (!empty && fwrite(block, 1, sizeof block, blocks) != sizeof block) {
            return failed("writing blocks", f);
        }
        if (++at > IMAGEMAP_IMAGE_BYTES_MAX / IMAGEMAP_BLOCK_BYTES) {
            break;
        }
    }
    if (run.count > 0) {
        imagemap_add_run(runs, run);
    }
    digest_stream_end(&d, map->hash);
    map->size = at * IMAGEMAP_BLOCK_BYTES;
    map->runs = builder_bytes(runs);
    if (ferror(image) != 0) {
        return failed("reading the image", f);
    }
    return got == 0 && runs->err == E_OK && runs->size > 0
               ? E_OK
               : fault_set(f, E_UPDATE_FORMAT,
                           "an image is of whole blocks of %u bytes, of which some hold something, in at most %u runs",
                           IMAGEMAP_BLOCK_BYTES, IMAGEMAP_RUNS_MAX);
}

static enum grey_error write_parts(const char *image, const char *map_path, const char *blocks_path, struct fault *f) {
    struct imagemap map = {0};
    struct builder runs, text;
    FILE *from = fopen(image, "rbe"), *blocks = fopen(blocks_path, "wbe"), *to = fopen(map_path, "wbe");
    builder_init(&runs, 8u * IMAGEMAP_RUNS_MAX);
    builder_init(&text, IMAGEMAP_BYTES_MAX);
    enum grey_error err = from == NULL                   ? failed(image, f)
                          : blocks == NULL || to == NULL ? failed("making parts", f)
                                                         : sift(from, blocks, &map, &runs, f);
    if (err == E_OK) {
        imagemap_put(&text, &map);
        err = text.err == E_OK && fwrite(text.data, 1, text.size, to) == text.size ? E_OK : failed(map_path, f);
    }
    FILE *const all[] = {from, blocks, to};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (all[i] != NULL && fclose(all[i]) != 0 && err == E_OK) {
            err = failed("writing parts", f);
        }
    }
    builder_free(&runs);
    builder_free(&text);
    return err;
}

enum grey_error packing_image(struct update_manifest *m, const char *image, const uint8_t secret_key[KEYS_ED25519_SECRET_BYTES],
                              const char *out, struct fault *f) {
    char folder[LIMIT_PATH_BYTES + 8], map[LIMIT_PATH_BYTES + 16], blocks[LIMIT_PATH_BYTES + 16];
    char *const paths[] = {map, blocks};
    (void)snprintf(folder, sizeof folder, "%.900s.parts", out);
    (void)snprintf(map, sizeof map, "%s/" UPDATE_MAP, folder);
    (void)snprintf(blocks, sizeof blocks, "%s/" UPDATE_BLOCKS, folder);
    if (mkdir(folder, 0700) != 0 && errno != EEXIST) { /* of one that was interrupted */
        return failed(folder, f);
    }
    enum grey_error err = write_parts(image, map, blocks, f);
    err = err == E_OK ? packing_write(m, paths, 2, secret_key, out, f) : err;
    (void)unlink(map);
    (void)unlink(blocks);
    (void)rmdir(folder);
    return err;
}
