/* giver.h: gives sites what they should have: answers UP_HOLDINGS with signed offers and UP_PULL with chunks (federation/supply.h), and tells
 * all sites in contact when there is news; takes rollouts on and back.  Keeps to what a site's link allows; forgets what does not go, for sites ask again.
 * Thread: the loop's. */
#ifndef CORE_GIVER_H
#define CORE_GIVER_H

#include "core/ingest.h"
#include "platform/keys.h"

struct giver;

/* Everything is borrowed for its life. */
struct giver *giver_new(struct loop *loop, struct worker *storage, struct ingest *ingest,
                        const uint8_t secret_key[KEYS_ED25519_SECRET_BYTES], struct fault *f);
void giver_stop(struct giver *g); /* says nothing more; before the storage thread is stopped.  NULL is allowed */
void giver_free(struct giver *g); /* after it was, and before ingest_free */
void giver_news(struct giver *g); /* something was put: sites are offered it */

#endif
