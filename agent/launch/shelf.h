/* shelf.h: artifacts that greyd brought, under their SHA-256 in DIR/artifacts, once for all runs of this gateway.  What was not used for
 * longest leaves when there is too much.  Nothing comes on it whose hash is another.
 *
 * A process of its own, the keeper, writes each one, hashes and syncs it: a disk that is slow holds up neither leases nor stops.  What it
 * has not taken yet waits here, within SHELF_QUEUE_BYTES_MAX: the sender is told to hold, and to go on.  Thread: the loop's. */
#ifndef AGENT_LAUNCH_SHELF_H
#define AGENT_LAUNCH_SHELF_H

#include <sys/types.h>

#include "agent/launch/launchwire.h"
#include "platform/digest.h"
#include "platform/loop.h"

#define SHELF_BYTES_DEFAULT (256ull * 1024 * 1024)
#define SHELF_QUEUE_BYTES_MAX (4u * 1024u * 1024u) /* a sender that does not hold is told that it could not be kept */
#define SHELF_HOLD_BYTES (512u * 1024u)            /* when so much waits; it may go on when nothing does */

/* A LAUNCH_STORED, lent: hold, go on, or how it went. */
typedef void shelf_told(void *context, const struct launch_message *stored);

struct shelf {
    int folder; /* -1: closed */
    char path[1024];
    uint64_t bytes_max;
    struct loop *loop;
    shelf_told *told;
    void *context;
    /* the one that comes */
    pid_t keeper; /* 0: none */
    struct loop_fd to_keeper;
    struct builder queue; /* from sent on */
    size_t sent;
    bool held;
    uint64_t size, have;
    uint8_t hash[DIGEST_SHA256_BYTES];
};

/* Makes parent/artifacts; borrows loop and context. */
enum grey_error shelf_open(struct shelf *s, struct loop *loop, const char *parent, uint64_t bytes_max, shelf_told *told,
                           void *context, struct fault *f);
void shelf_close(struct shelf *s); /* harmless when closed; a keeper that it kills is for the caller's wait(2) */
/* Takes one part; parts come in order, and one that begins at 0 begins anew.  Answered by `told`, at once or later. */
void shelf_store(struct shelf *s, const struct launch_message *part);
bool shelf_reap(struct shelf *s, pid_t pid, int status); /* of wait(2); false: that was not the keeper */
int shelf_take(struct shelf *s, struct bytes hash);      /* a descriptor to read, the caller's; -1: it is not here */
void shelf_drop(struct shelf *s, struct bytes hash);     /* what lies there is not what it was; harmless otherwise */

#endif
