/* introduce.h: how a verifier comes to know that an attestation key lives in a genuine TPM.  Pure.
 *
 *   gateway -> verifier   introduction: endorsement certificate, attestation key, who it is
 *   verifier -> gateway   challenge: a secret that only that TPM gives back, and only with that key loaded
 *   gateway -> verifier   the secret
 *
 * The endorsement key is taken from the certificate and from nowhere else, so there are no two fields that could differ; a certificate of
 * another TPM gives a challenge that this one cannot answer. */
#ifndef FEDERATION_ATTEST_INTRODUCE_H
#define FEDERATION_ATTEST_INTRODUCE_H

#include "federation/attest/attested.h"
#include "platform/credential.h"
#include "platform/fault.h"

#define INTRODUCE_BYTES_MAX (EKCERT_BYTES_MAX + TPMWIRE_PUBLIC_BYTES_MAX + 512u)
#define INTRODUCE_CHALLENGE_BYTES_MAX 512u
#define INTRODUCE_RANDOM_BYTES (CREDENTIAL_SECRET_BYTES + CREDENTIAL_RANDOM_BYTES)

struct introduction {      /* slices borrow from the message */
    enum attest_type type; /* ATTEST_TPM2 or ATTEST_VTPM */
    struct attest_identity who;
    struct bytes endorsement; /* X.509, DER */
    struct bytes key;         /* TPMT_PUBLIC of the attestation key */
};

void introduce_put(struct builder *b, const struct introduction *i);
enum grey_error introduce_get(struct bytes in, struct introduction *out); /* E_ATTEST_FORMAT */

void introduce_put_challenge(struct builder *b, const struct credential *c);
enum grey_error introduce_get_challenge(struct bytes in, struct credential *out); /* E_ATTEST_FORMAT */

/* What the verifier keeps while it waits for the answer: in memory, for minutes at most. */
struct introduce_pending {
    struct attested claimed;
    uint8_t secret[CREDENTIAL_SECRET_BYTES];
};

/* introduce_judge: of an introduction by the gateway `who`.  roots_pem: makers of chips for ATTEST_TPM2, of virtual ones for
 * ATTEST_VTPM (NULL: this type has none here).  random: fresh, used for this alone.  On success *challenge is to be sent.
 * E_ATTEST_IDENTITY, E_ATTEST_TYPE, E_ATTEST_EK, E_ATTEST_KEY, E_CONFIG. */
enum grey_error introduce_judge(const struct introduction *i, const struct attest_identity *who,
                                const char *const roots_pem[ATTEST_TYPES], int64_t now_s,
                                const uint8_t random[INTRODUCE_RANDOM_BYTES], struct introduce_pending *pending,
                                struct credential *challenge, struct fault *f);

/* introduce_accept: secret: the gateway's answer.  On success *out is to be kept (unseen); E_ATTEST_UNPROVEN.  Either way pending is
 * wiped: one challenge, one answer. */
enum grey_error introduce_accept(struct introduce_pending *pending, struct bytes secret, struct attested *out, struct fault *f);

#endif
