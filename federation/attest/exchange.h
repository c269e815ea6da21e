/* exchange.h: the messages by which a gateway and a verifier come to a result, one after the other.  Pure.
 *
 *   gateway: ASK           verifier: INTRODUCE or INQUIRY, by what it knows of the gateway
 *   gateway: INTRODUCTION  verifier: CHALLENGE
 *   gateway: SECRET        verifier: INQUIRY
 *   gateway: EVIDENCE      verifier: RESULT or REFUSAL
 *
 * The gateway always begins, so no port is open there.  docs/ATTESTATION.md. */
#ifndef FEDERATION_ATTEST_EXCHANGE_H
#define FEDERATION_ATTEST_EXCHANGE_H

#include "federation/attest/evidence.h"

enum exchange_word {
    EXCHANGE_ASK = 1,      /* inquiry_put_order without an inquiry */
    EXCHANGE_INTRODUCTION, /* introduce_put */
    EXCHANGE_SECRET,       /* CREDENTIAL_SECRET_BYTES */
    EXCHANGE_EVIDENCE,     /* evidence_put */
    EXCHANGE_INTRODUCE,    /* empty */
    EXCHANGE_CHALLENGE,    /* introduce_put_challenge */
    EXCHANGE_INQUIRY,      /* inquiry_put */
    EXCHANGE_RESULT,       /* verdict_sign */
    EXCHANGE_REFUSAL,      /* exchange_put_refusal */
    EXCHANGE_WORDS
};
bool exchange_goes_up(enum exchange_word w); /* the gateway says it */

#define EXCHANGE_DETAIL_BYTES 240u
void exchange_put_refusal(struct builder *b, enum grey_error why,
                          struct bytes detail); /* detail: UTF-8, cut to EXCHANGE_DETAIL_BYTES */
/* *why: E_ATTEST_FORMAT when it is an error that this version does not know.  E_ATTEST_FORMAT: not of this form. */
enum grey_error exchange_get_refusal(struct bytes in, enum grey_error *why, struct bytes *detail);

#endif
