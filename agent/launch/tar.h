/* tar.h: reads tar archives in order: ustar, and of GNU tar and pax (POSIX.1-2017, pax, "ustar Interchange Format", "pax Interchange
 * Format") long names, long links and sizes.  Takes nothing that it reads for true but bounds. */
#ifndef AGENT_LAUNCH_TAR_H
#define AGENT_LAUNCH_TAR_H

#include <sys/types.h>

#include "platform/bytes.h"

#define TAR_PATH_BYTES 4096u

enum tar_kind { TAR_FILE, TAR_HARD_LINK, TAR_SYMBOLIC_LINK, TAR_FOLDER, TAR_OTHER };

struct tar_entry {
    char path[TAR_PATH_BYTES + 1], link[TAR_PATH_BYTES + 1];
    enum tar_kind kind; /* OTHER: devices and what else there may be */
    uint64_t size;      /* of the content, which tar_read gives */
    uint32_t mode;
};

struct tar {
    ssize_t (*read)(void *context, uint8_t *out, size_t size); /* up to size; 0: the end; -1 */
    bool (*skip)(void *context, uint64_t size);
    void *context;
    uint64_t left, padding; /* of the current entry */
};

/* 1: *e is the next one; 0: the end; -1: this is no tar, or the source failed. */
int tar_next(struct tar *t, struct tar_entry *e);
ssize_t tar_read(struct tar *t, uint8_t *out, size_t size); /* of the current entry's content; 0: its end */

#endif
