/* shelf.h: artifacts that greyd brought, under their SHA-256 in DIR/artifacts, once for all runs of this gateway.  What was not used for
 * longest leaves when there is too much.  Nothing comes on it whose hash is another. */
#ifndef AGENT_LAUNCH_SHELF_H
#define AGENT_LAUNCH_SHELF_H

#include "agent/launch/launchwire.h"
#include "platform/digest.h"

#define SHELF_BYTES_DEFAULT (256ull * 1024 * 1024)

struct shelf {
    int folder; /* -1: closed */
    uint64_t bytes_max, bytes;
    /* the one that comes */
    int fd; /* -1: none */
    uint64_t size, have;
    uint8_t hash[DIGEST_SHA256_BYTES];
    struct digest_stream digest;
};

enum grey_error shelf_open(struct shelf *s, const char *parent, uint64_t bytes_max, struct fault *f); /* makes parent/artifacts */
void shelf_close(struct shelf *s);                                                                    /* harmless when closed */
/* Takes one part; parts come in order, and one that begins at 0 begins anew.  True: that was the last, *how says how it went. */
bool shelf_store(struct shelf *s, const struct launch_message *part, enum launch_stored *how);
int shelf_take(struct shelf *s, struct bytes hash);  /* a descriptor to read, the caller's; -1: it is not here */
void shelf_drop(struct shelf *s, struct bytes hash); /* what lies there is not what it was; harmless otherwise */

#endif
