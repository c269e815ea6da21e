/* store_offloads.h: tasks that sites handed over (federation/offload.h), until they are settled.  Thread: the core's storage thread; all
 * between store_begin and store_commit. */
#ifndef CORE_STORE_OFFLOADS_H
#define CORE_STORE_OFFLOADS_H

#include "core/store.h"
#include "federation/offload.h"
#include "platform/digest.h"

enum store_offload_state {
    STORE_OFFLOAD_GIVEN = 0,
    STORE_OFFLOAD_ENDED = 1,
    STORE_OFFLOAD_SETTLED = 2,
    STORE_OFFLOAD_ACCEPTED = 3 /* the worker has taken it, so it may have run */
};

struct store_offload {
    struct grey_name site, task;
    int64_t inc;          /* the store's number of the incarnation */
    uint64_t incarnation; /* the site's */
    grey_epoch epoch;     /* of its last session */
    uint64_t token;
    enum store_offload_state state;
    enum offload_end end; /* of one that has ended */
    int32_t exit_status;
    uint8_t output_hash[DIGEST_SHA256_BYTES];
    uint64_t output_bytes;
    struct blob *errand, *output; /* the caller's; output NULL: it did not run */
};

/* An event of a site, just stored: of those of offload.h takes note.  Others, and what cannot be read, are passed over. */
enum grey_error store_offload_event(struct store *s, int64_t inc, const struct event *e, int64_t now_ms, struct fault *f);
/* At most max that were not looked at for pause_ms, the longest ago first; they count as looked at now. */
enum grey_error store_offloads_due(struct store *s, int64_t now_ms, int64_t pause_ms, struct store_offload *out, size_t max,
                                   size_t *count, struct fault *f);
/* Keeps that it was accepted, or how it ended; or forgets one that is settled.  One that was settled meanwhile stays so. */
enum grey_error store_offload_put(struct store *s, const struct store_offload *o, struct fault *f);

#endif
