/* layout.h: an OCI image layout (image-spec, image-layout.md), a directory or a tar archive of one: its blobs by their digest, each
 * checked against it. */
#ifndef AGENT_LAUNCH_LAYOUT_H
#define AGENT_LAUNCH_LAYOUT_H

#include "agent/launch/tar.h"
#include "platform/digest.h"
#include "platform/fault.h"
#include "platform/json.h"

#define LAYOUT_TEXT_BYTES_MAX (4u * 1024u * 1024u) /* of an index, a manifest, a configuration */
#define LAYOUT_LAYERS_MAX 128u

struct layout {
    int fd; /* of the directory, or of the archive */
    bool archive;
};

bool layout_open(struct layout *l, const char *path, struct fault *f);
void layout_close(struct layout *l);

/* Documents; the caller's (json_decref); NULL: f says why. */
json_t *layout_manifest(const struct layout *l, struct fault *f); /* of the image for this machine's architecture */
json_t *layout_document(const struct layout *l, const json_t *descriptor, struct fault *f);

/* The bytes of a blob, one after the other, hashed on their way. */
struct layout_blob {
    int fd;
    uint64_t offset, left;
    uint8_t wanted[DIGEST_SHA256_BYTES];
    struct digest_stream digest;
};
bool layout_blob(const struct layout *l, const json_t *descriptor, struct layout_blob *b, struct fault *f);
ssize_t layout_blob_read(void *blob, uint8_t *out, size_t size);
bool layout_blob_end(struct layout_blob *b,
                     struct fault *f); /* reads the rest; false: it is not what its digest names.  Closes it. */

#endif
