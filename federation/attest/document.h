/* document.h: an instance's identity document: the word of somebody trusted (who set the machine up, or a cloud's agent) that the holder
 * of a signing key is a certain instance.  Pure.  docs/FORMATS.md, "Identity document". */
#ifndef FEDERATION_ATTEST_DOCUMENT_H
#define FEDERATION_ATTEST_DOCUMENT_H

#include "federation/attest/evidence.h"
#include "platform/fault.h"

#define DOCUMENT_INSTANCE_BYTES 128u

struct document {
    struct bytes instance;   /* its name where it runs, 1 to DOCUMENT_INSTANCE_BYTES.  Borrows */
    struct bytes site, node; /* as in attest_identity */
    uint8_t signing_key[KEYS_ED25519_PUBLIC_BYTES];
    int64_t from_s, until_s; /* Unix seconds */
};

/* document_sign: appends the signed document.  The builder's error. */
enum grey_error document_sign(struct builder *out, const struct document *d, const uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES],
                              const uint8_t secret_key[KEYS_ED25519_SECRET_BYTES]);

/* document_judge: E_ATTEST_DOCUMENT unless one of the keys signed it, it is about this gateway, and it is valid now. */
enum grey_error document_judge(struct bytes in, const struct attest_identity *who,
                               const uint8_t (*public_keys)[KEYS_ED25519_PUBLIC_BYTES], uint32_t key_count, int64_t now_ms,
                               struct fault *f);

#endif
