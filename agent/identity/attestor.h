/* attestor.h: gets this gateway attested: asks the verifier, answers what it wants to know with the help of grey-tpm, keeps the result.
 *
 * It asks when it starts, each period, when half of a result's time is over, when the core is heard again (attestor_ask) and after a
 * refusal, sooner first and then less often.  It gives grey-tpm one order at a time, at the socket of `grey-tpm serve`, and waits 30 s at
 * most.  Thread: the loop's. */
#ifndef AGENT_ATTESTOR_H
#define AGENT_ATTESTOR_H

#include "federation/attest/exchange.h"
#include "federation/attest/verdict.h"
#include "platform/loop.h"

struct attestor;

struct attestor_options { /* copied, but for texts, which are borrowed for its life */
    enum attest_type type;
    const char *socket;                            /* of grey-tpm serve; for types with a TPM */
    const char *document;                          /* file with the identity document, for ATTEST_INSTANCE; NULL: none */
    const char *data_dir;                          /* the result is kept here, over restarts */
    struct attest_identity who;                    /* its names are borrowed too */
    uint8_t secret_key[KEYS_ED25519_SECRET_BYTES]; /* to who.signing_key; for types without a TPM */
    uint8_t verifier_key[KEYS_ED25519_PUBLIC_BYTES];
    uint32_t period_s;
};

enum attestor_state { ATTESTOR_PENDING, ATTESTOR_TRUSTED, ATTESTOR_FAILED, ATTESTOR_EXPIRED };
const char *attestor_state_name(enum attestor_state s); /* as the API says it: pending, trusted, failed, expired */

struct attestor_facts {
    enum attestor_state state;
    enum attest_type type;
    uint8_t status;          /* of the result: enum appraise_tier */
    int64_t from_s, until_s; /* Unix seconds; 0: there is no result */
    enum grey_error why;     /* why not; E_OK */
    const char *detail;      /* lent until the next turn */
};

/* say: hands a message to the verifier: true when it is on its way.  It may be called from within attestor_hear and attestor_ask. */
struct attestor *attestor_new(struct loop *l, const struct attestor_options *o,
                              bool (*say)(void *context, enum exchange_word word, struct bytes body), void *context,
                              struct fault *f);
void attestor_free(struct attestor *a); /* NULL is allowed */
void attestor_ask(struct attestor *a);  /* now, unless an answer is being made */
void attestor_hear(struct attestor *a, enum exchange_word word, struct bytes body);
void attestor_facts(const struct attestor *a, struct attestor_facts *out);

#endif
