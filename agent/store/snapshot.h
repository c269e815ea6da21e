/* snapshot.h: state images as files: written and read in one pass, block by block, verified by the way.
 *
 * Blocking.  docs/FORMATS.md, "Snapshot image".  A file gets its name when it is whole and synced; other names end in ".tmp" (being
 * written; removed at start) or ".part" (being received; kept, so that receiving can go on). */
#ifndef AGENT_SNAPSHOT_H
#define AGENT_SNAPSHOT_H

#include "agent/store/rowset.h"

struct snapshot_head {
    struct raft_point point;
    raft_index members_index;
    struct blob *members; /* NULL: none */
    uint8_t state_hash[DIGEST_BYTES];
    int64_t made_unix_ms;
    bool self_contained;
};

/* --- the directory ---------------------------------------------------------------------------------------------------------------- */
struct snapshot_list { /* newest first */
    size_t count;
    struct sitelog_snapshot_info at[SITELOG_SNAPSHOTS_MAX];
};

/* Makes the directory, removes what was not finished, lists the rest.  Files that are no images, or not whole, are left out. */
enum grey_error snapshot_list_load(const char *dir, struct snapshot_list *list, struct fault *f);
/* Adds one that was just written, and removes files beyond `kept` of its sort (self-contained or not). */
void snapshot_list_add(const char *dir, struct snapshot_list *list, const struct sitelog_snapshot_info *info, uint32_t kept);
/* The smallest image of that point; NULL: none. */
const struct sitelog_snapshot_info *snapshot_list_find(const struct snapshot_list *list, raft_index index);
void snapshot_list_remove(const char *dir, struct snapshot_list *list, const char *name); /* the file as well */

/* --- writing ---------------------------------------------------------------------------------------------------------------------- */
struct snapshot_writer;

struct snapshot_writer *snapshot_create(const char *dir, const struct snapshot_head *head, struct fault *f);
enum grey_error snapshot_put_row(struct snapshot_writer *w, const struct sitelog_row *row, struct fault *f);
enum grey_error snapshot_put_payload(struct snapshot_writer *w, const struct entry *e, struct fault *f);
/* Ends the file, syncs and names it.  Frees w, also on error. */
enum grey_error snapshot_finish(struct snapshot_writer *w, struct sitelog_snapshot_info *info, struct fault *f);
void snapshot_abandon(struct snapshot_writer *w); /* NULL is allowed; removes the file */

/* --- reading ---------------------------------------------------------------------------------------------------------------------- */
struct snapshot_reader;

/* E_CORRUPT, E_DISK_VERSION, E_NOT_FOUND, E_IO. */
struct snapshot_reader *snapshot_open(const char *path, struct fault *f);
const struct snapshot_head *snapshot_head(const struct snapshot_reader *r); /* lends until close */
/* The next block, checked: rows (a set) or payloads (entries with their digests), both the caller's.  end: all was read, and the
 * digest of the whole is right; nothing may be believed before. */
enum grey_error snapshot_next(struct snapshot_reader *r, struct sitelog_row_set **rows, struct entry **entries, uint32_t *count,
                              bool *end, struct fault *f);
void snapshot_info(const struct snapshot_reader *r, struct sitelog_snapshot_info *info); /* complete only after the end */
void snapshot_close(struct snapshot_reader *r);                                          /* NULL is allowed */

/* --- receiving -------------------------------------------------------------------------------------------------------------------- */
/* Appends chunk at offset to the partial image of point, if that is where it ends; *there: how much there is now.  An image of another
 * point that was begun is removed.  Synced when total_bytes are there. */
enum grey_error snapshot_receive(const char *dir, const struct raft_point *point, uint64_t offset, uint64_t total_bytes,
                                 struct bytes chunk, uint64_t *there, struct fault *f);
void snapshot_part_path(const char *dir, const struct raft_point *point, char *out, size_t size);
/* The received file becomes an image of this node; info as from the reader. */
enum grey_error snapshot_adopt(const char *dir, const struct raft_point *point, struct sitelog_snapshot_info *info,
                               struct fault *f);

#endif
