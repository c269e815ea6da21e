#include "federation/imagemap.h"

#include <string.h>

enum { HEAD_BYTES = 8 + 8 + DIGEST_SHA256_BYTES, RUN_BYTES = 8 };
static const char magic[8] = {'G', 'R', 'E', 'Y', 'M', 'A', 'P', '1'};

void imagemap_add_run(struct builder *runs, struct imagemap_run run) {
    uint8_t one[RUN_BYTES];
    bytes_put_be32(one, run.first);
    bytes_put_be32(one + 4, run.count);
    builder_add(runs, bytes_of(one, sizeof one));
}

void imagemap_put(struct builder *out, const struct imagemap *m) {
    uint8_t size[8];
    bytes_put_be64(size, m->size);
    builder_add(out, bytes_of(magic, sizeof magic));
    builder_add(out, bytes_of(size, sizeof size));
    builder_add(out, bytes_of(m->hash, sizeof m->hash));
    builder_add(out, m->runs);
}

enum grey_error imagemap_read(struct bytes in, struct imagemap *m) {
    *m = (struct imagemap){0};
    if (in.size < HEAD_BYTES || in.size > IMAGEMAP_BYTES_MAX || (in.size - HEAD_BYTES) % RUN_BYTES != 0 ||
        memcmp(in.data, magic, sizeof magic) != 0) {
        return E_UPDATE_FORMAT;
    }
    struct imagemap found = {.size = bytes_get_be64(in.data + sizeof magic),
                             .runs = bytes_of(in.data + HEAD_BYTES, in.size - HEAD_BYTES)};
    memcpy(found.hash, in.data + sizeof magic + 8, sizeof found.hash);
    bool good = found.size > 0 && found.size <= IMAGEMAP_IMAGE_BYTES_MAX && found.size % IMAGEMAP_BLOCK_BYTES == 0 &&
                imagemap_run_count(&found) > 0 && imagemap_run_count(&found) <= IMAGEMAP_RUNS_MAX;
    uint64_t blocks = found.size / IMAGEMAP_BLOCK_BYTES, free_from = 0;
    for (uint32_t i = 0; good && i < imagemap_run_count(&found); i++) {
        struct imagemap_run run = imagemap_run_at(&found, i);
        good = run.count > 0 && run.first >= free_from && (uint64_t)run.first + run.count <= blocks;
        free_from = (uint64_t)run.first + run.count + 1; /* else it would be the same run */
    }
    if (good) {
        *m = found;
    }
    return good ? E_OK : E_UPDATE_FORMAT;
}

uint64_t imagemap_bytes(const struct imagemap *m) {
    uint64_t blocks = 0;
    for (uint32_t i = 0; i < imagemap_run_count(m); i++) {
        blocks += imagemap_run_at(m, i).count;
    }
    return blocks * IMAGEMAP_BLOCK_BYTES;
}

bool imagemap_is_image(const struct update_manifest *m) {
    return m->file_count == 2 && bytes_equal_str(m->files[0].name, UPDATE_MAP) && bytes_equal_str(m->files[1].name, UPDATE_BLOCKS);
}
