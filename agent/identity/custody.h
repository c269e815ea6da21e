/* custody.h: the orders of grey-tpm about keys that its TPM keeps for the gateway (their callers: platform/vault.h).  Thread: its only one.
 *
 * Numbers are big-endian.  A caller may use the handles of this range and no other: what else the TPM keeps is not lent. */
#ifndef AGENT_CUSTODY_H
#define AGENT_CUSTODY_H

#include "platform/tpm.h"

#define CUSTODY_INPUT_BYTES_MAX 2048u
#define CUSTODY_OUTPUT_BYTES_MAX 2048u

/* in: handle u32.  out: the point (x, y) of the P-256 key there.  make: there is one afterwards.  E_NOT_FOUND, E_BAD_MESSAGE. */
enum grey_error custody_public(struct tpm *t, struct bytes in, struct builder *out, struct fault *f);
enum grey_error custody_make(struct tpm *t, struct bytes in, struct builder *out, struct fault *f);
/* in: handle u32 and a hash of 32 bytes.  out: r and s. */
enum grey_error custody_sign(struct tpm *t, struct bytes in, struct builder *out, struct fault *f);
/* A secret of up to 128 bytes becomes a blob that only this TPM opens, whatever its registers hold: an update must not lock a gateway out of its
 * own keys; what runs on it is for attestation to judge.  E_VAULT_OTHER: a blob of another TPM. */
enum grey_error custody_seal(struct tpm *t, struct bytes in, struct builder *out, struct fault *f);
enum grey_error custody_unseal(struct tpm *t, struct bytes in, struct builder *out, struct fault *f);

#endif
