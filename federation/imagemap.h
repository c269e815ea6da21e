/* imagemap.h: the root of an image in a bundle (federation/update.h), without what is empty of it.
 *
 * Such a bundle has two files: UPDATE_MAP, which says where the blocks of the image are, and UPDATE_BLOCKS, the blocks that hold anything, in
 * their order.  A file system is mostly empty, and one file of it that grows moves what lies behind it by whole blocks; so blocks are what a gateway looks for in the root
 * that it runs, before it asks the core for them (agent/uplink/uplink_nearby.c).
 * docs/FORMATS.md, "Bundles". */
#ifndef FEDERATION_IMAGEMAP_H
#define FEDERATION_IMAGEMAP_H

#include "federation/update.h"

#define UPDATE_MAP "map"
#define UPDATE_BLOCKS "blocks"
#define IMAGEMAP_BLOCK_BYTES 4096u
#define IMAGEMAP_RUNS_MAX 8192u
#define IMAGEMAP_BYTES_MAX (64u + 8u * IMAGEMAP_RUNS_MAX)
#define IMAGEMAP_IMAGE_BYTES_MAX (16ull << 30) /* block numbers have 32 bits */

struct imagemap {
    uint64_t size;                     /* of the image: whole blocks */
    uint8_t hash[DIGEST_SHA256_BYTES]; /* of the image, empty blocks included */
    struct bytes runs;                 /* of blocks that hold something: first block u32, blocks u32 of each */
};

struct imagemap_run {
    uint32_t first, count; /* blocks */
};

static inline uint32_t imagemap_run_count(const struct imagemap *m) {
    return (uint32_t)(m->runs.size / 8u);
}
static inline struct imagemap_run imagemap_run_at(const struct imagemap *m, uint32_t i) {
    return (struct imagemap_run){bytes_get_be32(m->runs.data + (size_t)i * 8u), bytes_get_be32(m->runs.data + (size_t)i * 8u + 4u)};
}
/* Appends a run, for the maker; runs: of a map that is being made. */
void imagemap_add_run(struct builder *runs, struct imagemap_run run);

void imagemap_put(struct builder *out, const struct imagemap *m);
/* m borrows.  Runs ascend, do not touch each other and lie in the image.  E_UPDATE_FORMAT. */
enum grey_error imagemap_read(struct bytes in, struct imagemap *m);
uint64_t imagemap_bytes(const struct imagemap *m); /* of UPDATE_BLOCKS */

/* Whether the bundle's files are a map and blocks. */
bool imagemap_is_image(const struct update_manifest *m);

#endif
