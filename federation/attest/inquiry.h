/* inquiry.h: what a verifier asks of a gateway, and how the agent hands that to grey-tpm.  Pure. */
#ifndef FEDERATION_ATTEST_INQUIRY_H
#define FEDERATION_ATTEST_INQUIRY_H

#include "federation/attest/evidence.h"

#define INQUIRY_BYTES_MAX 64u
#define INQUIRY_ORDER_BYTES_MAX 512u

struct inquiry {
    uint8_t nonce[ATTEST_NONCE_BYTES];
    uint32_t pcr_mask;
    bool boot_log_known; /* it need not be sent again while the registers are as they were */
};

void inquiry_put(struct builder *b, const struct inquiry *i);
enum grey_error inquiry_get(struct bytes in, struct inquiry *out); /* E_ATTEST_FORMAT */

/* What the agent gives to grey-tpm: who it is, which kind of TPM it has, and for a quote the inquiry as it came (else empty). */
struct inquiry_order {
    enum attest_type type;
    struct attest_identity who;
    struct bytes inquiry;
};

void inquiry_put_order(struct builder *b, const struct inquiry_order *o);
enum grey_error inquiry_get_order(struct bytes in, struct inquiry_order *out); /* E_ATTEST_FORMAT */

#endif
