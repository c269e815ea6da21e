/* attesting.h: the verifier at work in a core: gateways' words (UP_ATTEST) in, its answers (DOWN_ATTEST) out.
 *
 *   the loop reads a word -> storage thread: what is kept of the gateway, the site's policy -> own thread: core/verifier.h (up to 10 ms)
 *     -> storage thread: what to keep now, unless another core was faster (then again) -> the loop answers, as fast as the site's link allows
 *
 * One word of a gateway at a time, so many a minute, so many and so many bytes of a site and of all: above that words are dropped, counted, and the
 * gateway says them again.  An answer goes out only when what it promises is kept.  Thread: the loop's. */
#ifndef CORE_ATTESTING_H
#define CORE_ATTESTING_H

#include "core/ingest.h"
#include "core/makers.h"
#include "core/verifier.h"

struct attesting;

struct attesting_options {
    const char *name;          /* of the verifier, in its results; copied */
    const uint8_t *public_key; /* KEYS_ED25519_PUBLIC_BYTES and _SECRET_BYTES: signs results; copied */
    const uint8_t *secret_key;
    struct makers_files makers; /* whose TPMs and documents are trusted */
    bool learn;                 /* without a policy: take what gateways show, and remember it; else judge nobody */
    bool shared;                /* several cores share the store */
};

void attesting_register(void);
/* The rest is borrowed for its life.  E_CONFIG, E_NOT_FOUND, E_SYSTEM: a file; E_NO_MEMORY. */
struct attesting *attesting_new(const struct conn_context *x, const struct attesting_options *o, struct worker *storage,
                                struct ingest *ingest, struct fault *f);
void attesting_stop(struct attesting *a); /* hears and says nothing more; before the storage thread is stopped.  NULL is allowed */
void attesting_free(struct attesting *a); /* after it was */

/* A policy was given: sites are told that this core judges, when they were not yet.  a NULL: this core judges nobody. */
void attesting_policy(struct attesting *a);
struct makers_watch *attesting_makers(struct attesting *a); /* lent for its life; NULL for NULL */
/* What is in force where nobody has given one; NULL: nothing. */
const struct reference *attesting_fallback(const struct attesting *a);

#endif
