/* slotfill.h: how bundles are looked at and copied, for slots.c and slotfill.c (slots that are folders) and slotroot.c (slots that are partitions), and nobody else. */
#ifndef AGENT_SLOTFILL_H
#define AGENT_SLOTFILL_H

#include "agent/slots/slots.h"

/* Without following links, and files only.  -1: f says why. */
int slotfill_open(const char *path, struct fault *f);
/* Reads and believes the header, and the hashes of all files, or says why not. */
enum grey_error slotfill_judge(const struct slots *s, int bundle, const struct slots_wants *w, uint8_t header[UPDATE_HEADER_BYTES],
                               struct update_manifest *m, struct fault *f);
/* Whether the files of a slot are those that were installed: a card may lose what it had confirmed. */
bool slotfill_is_whole(const char *folder);
enum grey_error slotfill_write_failed(const char *path, struct fault *f); /* by errno: E_DISK_FULL, E_IO */

#endif
