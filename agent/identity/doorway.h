/* doorway.h: a gateway whose certificate by the core has ended asks for a new one where gateways enrol, by itself: the broker lets it in no more, so the
 * site's link cannot bring one.  With the key that the core knows; no token.  In a thread of its own that lives as long as a try does, for it
 * waits.  Tries are jittered and become rarer, up to one an hour; one costs some packets where nobody answers, and about 4 KiB where
 * somebody does, outside of the uplink's shaping.  Thread: the loop's. */
#ifndef AGENT_DOORWAY_H
#define AGENT_DOORWAY_H

#include "platform/loop.h"

struct doorway;

/* cert_path: beside it lies what `greyd enroll` wrote; without that nothing is tried.  renewed: files are new.  Copies; NULL: E_NO_MEMORY. */
struct doorway *doorway_new(struct loop *loop, const char *cert_path, void (*renewed)(void *context), void *context,
                            struct fault *f);
/* Until when the certificate by the core holds, in Unix seconds. */
void doorway_tell(struct doorway *d, int64_t not_after_s);
void doorway_free(struct doorway *d); /* waits for a try under way, at most as long as one may take.  NULL is allowed */

#endif
