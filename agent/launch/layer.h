/* layer.h: unpacks the layers of an image one over the other (OCI image-spec, layer.md).  Nothing is written outside the folder, whatever
 * names and links an archive holds: each path is resolved by the kernel with that folder as its root (openat2(2), RESOLVE_IN_ROOT). */
#ifndef AGENT_LAUNCH_LAYER_H
#define AGENT_LAUNCH_LAYER_H

#include "agent/launch/layout.h"

#define LAYER_BYTES_MAX (8ull << 30) /* unpacked, of all layers of one image, unless the task may use less */
#define LAYER_ENTRIES_MAX 500000u
#define LAYER_DEPTH_MAX 64u /* names in one path */

struct layer_room { /* what may still be unpacked */
    uint64_t bytes;
    uint32_t entries;
};

/* Unpacks the layer that the descriptor names into root, over what is there.  Its digest is checked before anything is written.  Devices are
 * left out: a task has those of crun.  false and a fault: E_CORRUPT, E_TOO_LARGE, E_IO, E_NOT_FOUND, E_BAD_JSON. */
bool layer_unpack(const struct layout *l, const json_t *descriptor, int root, struct layer_room *room, struct fault *f);

#endif
