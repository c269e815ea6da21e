/* invite.h: enrolment tokens as people carry them: one line of text that names the site, proves the right to enrol there, and names the CA.
 *
 *     grey1:SITE:SECRET:FINGERPRINT        SECRET 32 hexadecimal digits, FINGERPRINT 64: SHA-256 of the root certificate
 *
 * The core keeps SHA-256 of the secret only.  docs/IDENTITY.md.  Pure. */
#ifndef FEDERATION_INVITE_H
#define FEDERATION_INVITE_H

#include "include/grey/ids.h"
#include "platform/digest.h"
#include "platform/fault.h"

#define INVITE_SECRET_BYTES 16u
#define INVITE_TEXT_BYTES                                                                                                          \
    (6u + LIMIT_NAME_BYTES + 1u + 2u * INVITE_SECRET_BYTES + 1u + 2u * DIGEST_SHA256_BYTES + 1u) /* with the NUL */

struct invite {
    struct grey_name site;
    uint8_t secret[INVITE_SECRET_BYTES];
    uint8_t fingerprint[DIGEST_SHA256_BYTES];
};

void invite_write(const struct invite *i, char out[INVITE_TEXT_BYTES]);
/* E_TOKEN_UNKNOWN: not such a text, with what is wrong.  Blanks around it are passed over. */
enum grey_error invite_read(const char *text, struct invite *out, struct fault *f);

/* A gateway that comes in by its TPM: the secret of its token is made of what its challenge held (core/registrar.h). */
void invite_of_challenge(const uint8_t challenge[DIGEST_SHA256_BYTES], uint8_t secret[INVITE_SECRET_BYTES]);

#endif
