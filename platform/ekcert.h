/* ekcert.h: endorsement certificates of TPMs: judged against the roots of their makers.  Reads no clock.  Thread: any.
 *
 * Source: TCG EK Credential Profile for TPM Family 2.0.  Only RSA-2048 keys with the default template (L-1, which every TPM 2.0 has at
 * 0x81010001 or can make) are taken: what MakeCredential needs besides the modulus follows from that template. */
#ifndef PLATFORM_EKCERT_H
#define PLATFORM_EKCERT_H

#include "platform/bytes.h"
#include "platform/fault.h"

#define EKCERT_BYTES_MAX 4096u /* NV indices of TPMs hold 2048 at most; the certificates in them are of 700 to 1,600 */
#define EKCERT_MODULUS_BYTES 256u

struct ekcert {
    uint8_t modulus[EKCERT_MODULUS_BYTES]; /* of the endorsement key */
    uint32_t exponent;
    uint8_t fingerprint[32]; /* SHA-256 of the certificate */
};

/* ekcert_judge: der is one certificate, and nothing behind it; roots_pem the certificates that are trusted: roots and whatever lies
 * between, each of them an anchor.  now_s: Unix seconds.  E_ATTEST_EK unless it is signed by one of them (over any number), all are
 * valid now, it is meant for endorsement keys (extended key usage 2.23.133.8.1), is none that signs others, and its key is RSA-2048;
 * E_CONFIG when the roots cannot be read. */
enum grey_error ekcert_judge(struct bytes der, const char *roots_pem, int64_t now_s, struct ekcert *out, struct fault *f);

/* Can these be read as certificates that sign others?  E_CONFIG. */
enum grey_error ekcert_roots(const char *roots_pem, struct fault *f);

#endif
