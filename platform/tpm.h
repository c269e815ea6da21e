/* tpm.h: a TPM 2.0, through tpm2-tss (ESYS).  One connection in one thread; each call leaves no object and no session behind, also when it
 * fails.  Calls take what the chip takes: some hardware needs a second for a key.
 *
 * The library and the OpenSSL that it pulls in cost 4 MiB, so nothing but grey-tpm links this; it runs, answers and ends. */
#ifndef PLATFORM_TPM_H
#define PLATFORM_TPM_H

#include "platform/credential.h"
#include "platform/digest.h"

#define TPM_PCR_COUNT 24u
#define TPM_KEY_HANDLE 0x81018001u /* where the attestation key is kept: in the range for keys of the endorsement hierarchy */
#define TPM_PUBLIC_BYTES_MAX 512u
#define TPM_POINT_BYTES 64u /* of P-256: two numbers */

struct tpm;

/* tpm_open: way: "device:/dev/tpmrm0", "swtpm:path=...", "swtpm:host=...,port=..." (as tpm2-tss has it).  NULL: E_TPM. */
struct tpm *tpm_open(const char *way, struct fault *f);
void tpm_close(struct tpm *t); /* NULL is allowed */

/* tpm_read_endorsement: appends the endorsement certificate (DER) of the RSA-2048 key, without the bytes that fill its NV index.  E_NOT_FOUND
 * when the maker left none. */
enum grey_error tpm_read_endorsement(struct tpm *t, struct builder *der, struct fault *f);

/* tpm_key: appends the TPMT_PUBLIC of the attestation key at this persistent handle; makes it when it is not there: P-256, restricted, under
 * the endorsement key, whose hierarchy lets a quote tell clock and firmware as they are.  *made says so. */
enum grey_error tpm_key(struct tpm *t, uint32_t handle, struct builder *public_area, bool *made, struct fault *f);

/* tpm_forget_key: the handle is free afterwards, also when it was before. */
enum grey_error tpm_forget_key(struct tpm *t, uint32_t handle, struct fault *f);

/* tpm_activate: what is in the credential, if it was made for this TPM's endorsement key and that attestation key.  E_ATTEST_UNPROVEN: it
 * was not. */
enum grey_error tpm_activate(struct tpm *t, uint32_t handle, const struct credential *c, uint8_t secret[CREDENTIAL_SECRET_BYTES],
                             struct fault *f);

/* tpm_read_pcrs: of the SHA-256 bank; zeros outside the mask. */
enum grey_error tpm_read_pcrs(struct tpm *t, uint32_t mask, uint8_t values[TPM_PCR_COUNT][DIGEST_SHA256_BYTES], struct fault *f);
enum grey_error tpm_extend(struct tpm *t, uint32_t pcr, const uint8_t digest[DIGEST_SHA256_BYTES], struct fault *f);

/* tpm_quote: appends a TPMS_ATTEST and a TPMT_SIGNATURE. */
enum grey_error tpm_quote(struct tpm *t, uint32_t handle, uint32_t mask, const uint8_t qualify[DIGEST_SHA256_BYTES],
                          struct builder *quote, struct builder *signature, struct fault *f);

/* tpm_signing_key: public half (x and y) of the P-256 key at this persistent handle, which signs any hash; makes it, below the storage key, when
 * there is none and make says so.  E_NOT_FOUND; E_KEY: another kind of key is there. */
enum grey_error tpm_signing_key(struct tpm *t, uint32_t handle, bool make, uint8_t point[TPM_POINT_BYTES], struct fault *f);
/* tpm_sign: r and s.  E_NOT_FOUND. */
enum grey_error tpm_sign(struct tpm *t, uint32_t handle, const uint8_t hash[DIGEST_SHA256_BYTES],
                         uint8_t signature[TPM_POINT_BYTES], struct fault *f);

/* tpm_seal: appends a blob that only this TPM opens, and only while the registers of the mask (0: any) hold what they hold now.  secret: up to 128
 * bytes. */
enum grey_error tpm_seal(struct tpm *t, uint32_t mask, struct bytes secret, struct builder *blob, struct fault *f);
/* tpm_unseal: E_SEAL: the registers are others now; E_CORRUPT: no blob of this TPM. */
enum grey_error tpm_unseal(struct tpm *t, struct bytes blob, struct builder *secret, struct fault *f);

/* tpm_count_left: transient objects and loaded sessions that are in the TPM now, whoever made them. */
enum grey_error tpm_count_left(struct tpm *t, uint32_t *objects, uint32_t *sessions, struct fault *f);

#endif
