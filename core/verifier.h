/* verifier.h: judges gateways (RFC 9334), one message at a time.
 *
 * What is known of a gateway is bytes that the caller keeps: they go in with each message and come out changed, so any core of several can
 * hear any message, a crash loses nothing but an exchange that the gateway begins again, and the whole can run within one transaction of
 * the store.  Nothing is kept here but policy and keys.  A message takes up to 10 ms of a processor (certificates).  Thread: any, one at a time
 * for each gateway. */
#ifndef CORE_VERIFIER_H
#define CORE_VERIFIER_H

#include "federation/attest/exchange.h"
#include "federation/attest/introduce.h"
#include "federation/attest/verdict.h"

#define VERIFIER_PATIENCE_MS 300000 /* a question that is older is not answered any more */
#define VERIFIER_KEPT_BYTES_MAX 8192u
#define VERIFIER_REPLY_BYTES_MAX 2048u

struct verifier { /* borrowed, and constant while in use */
    const char *name;
    uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES], secret_key[KEYS_ED25519_SECRET_BYTES];
    const char *roots_pem[ATTEST_TYPES]; /* of TPM makers, by type; NULL: none */
    const uint8_t (*document_keys)[KEYS_ED25519_PUBLIC_BYTES];
    uint32_t document_key_count;
    const struct reference *policy;
};

/* What a gateway said, or is told.  site and node: from whose mouth, as the link vouches for it. */
struct verifier_message {
    struct bytes site, node;
    enum exchange_word word;
    struct bytes body;
    bool revoked;              /* its certificate was: it is not judged any more */
    const uint8_t *registered; /* SHA-256 of the endorsement certificate that an operator registered for it; NULL: none was */
};

/* verifier_hear: kept: of this gateway, empty at first; next gets what to keep in its place.  *word and reply: the answer, always one; a
 * REFUSAL has its error returned as well, E_OK else.  E_NO_MEMORY: nothing was changed or said. */
enum grey_error verifier_hear(const struct verifier *v, const struct verifier_message *m, struct bytes kept, int64_t now_ms,
                              struct builder *next, enum exchange_word *word, struct builder *reply, struct fault *f);

enum verifier_state { VERIFIER_UNKNOWN, VERIFIER_PENDING, VERIFIER_TRUSTED, VERIFIER_FAILED, VERIFIER_EXPIRED };
const char *verifier_state_name(enum verifier_state s); /* "none", "pending", "trusted", "failed", "expired" */

/* What is kept, for people and for the fleet's page.  text borrows from kept. */
struct verifier_facts {
    enum verifier_state state;
    enum attest_type type;
    int64_t judged_ms, until_ms; /* Unix milliseconds; 0: never */
    enum grey_error why;         /* of the last refusal since it was trusted; E_OK */
    struct bytes detail;
};
enum grey_error verifier_look(struct bytes kept, int64_t now_ms, struct verifier_facts *out); /* E_ATTEST_FORMAT */
/* What was measured when it was last accepted; false: it never was, or shows no measurements. */
bool verifier_measured(struct bytes kept, struct attested *out);

#endif
