/* unpack.h: the core's ends of the sessions in which sites send squeezed events (federation/squeeze.h).
 *
 * A session holds SQUEEZE_BYTES_MAX at most, from its first squeezed frame on.  As many sites have one as there is room for; to the
 * others the core does not offer the coding, and they send LZ4.  A site that has been silent for UNPACK_IDLE_MS makes room.
 * Thread: one. */
#ifndef CORE_UNPACK_H
#define CORE_UNPACK_H

#include "federation/squeeze.h"

#define UNPACK_SITES_MAX 1024u /* 64 MiB */
#define UNPACK_IDLE_MS 600000u
#define UNPACK_TELL_MS 3000u

struct unpack;

struct unpack *unpack_new(uint32_t sites_max); /* NULL: out of memory */
void unpack_free(struct unpack *p);            /* NULL is allowed */

/* A site has said hello: may it squeeze? */
bool unpack_admit(struct unpack *p, const char *site, uint64_t now_ms);

enum unpack_verdict {
    UNPACK_TAKEN,   /* content is what the site squeezed, an UP_EVENTS message that nobody has checked yet */
    UNPACK_REPEAT,  /* it was here before */
    UNPACK_AGAIN,   /* not what follows in this session: the site must say hello again */
    UNPACK_IGNORED, /* the same, and that was said within UNPACK_TELL_MS: what was on the way comes to nothing */
    UNPACK_STALE,   /* of an epoch that is over */
};
/* content: appended. */
enum unpack_verdict unpack_frame(struct unpack *p, const char *site, const struct sync_squeezed *q, uint64_t now_ms,
                                 struct builder *content);

uint32_t unpack_sessions(const struct unpack *p); /* that hold memory */

#endif
