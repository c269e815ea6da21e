/* vault.h: keys that lie in this machine's TPM, used through the service that holds it (grey-tpm serve; the words are those of
 * platform/errand.h, the orders those of agent/identity/custody.h).
 *
 * Each call waits for the service, VAULT_WAIT_MS at the most, so it belongs on a worker or into the start of a program.  Thread: any.
 * Errors: E_VAULT_AWAY: nobody answers, or not in time; E_VAULT_OTHER: this TPM has no such key, or the secret was sealed by another;
 * or what the service says, with its words. */
#ifndef PLATFORM_VAULT_H
#define PLATFORM_VAULT_H

#include "platform/bytes.h"
#include "platform/digest.h"
#include "platform/fault.h"

#define VAULT_SOCKET "/run/grey-tpm/tpm.sock" /* where none is named */
#define VAULT_HANDLE_FIRST 0x81008000u        /* where in a TPM keys of gateways lie: in the owner's range */
#define VAULT_HANDLE_LAST 0x810080ffu
#define VAULT_HANDLE_TLS 0x81008001u
#define VAULT_WAIT_MS 5000
#define VAULT_MAKE_WAIT_MS 30000 /* some chips need as much for a new key */
#define VAULT_PAIR_BYTES 64u     /* a point (x, y), or a signature (r, s), of P-256 */
#define VAULT_SECRET_BYTES_MAX 128u

enum grey_error vault_public(const char *socket_path, uint32_t handle, uint8_t point[VAULT_PAIR_BYTES], struct fault *f);
/* The same; where there is no key one is made. */
enum grey_error vault_make(const char *socket_path, uint32_t handle, uint8_t point[VAULT_PAIR_BYTES], struct fault *f);
enum grey_error vault_sign(const char *socket_path, uint32_t handle, const uint8_t hash[DIGEST_SHA256_BYTES],
                           uint8_t signature[VAULT_PAIR_BYTES], struct fault *f);

/* Files that only this machine's TPM opens: one line, "grey-sealed 1 " and the blob in hexadecimal digits.  secret: up to
 * VAULT_SECRET_BYTES_MAX.  The line is appended. */
enum grey_error vault_seal(const char *socket_path, struct bytes secret, struct builder *line, struct fault *f);
bool vault_is_sealed(struct bytes text);
enum grey_error vault_unseal(const char *socket_path, struct bytes text, struct builder *secret, struct fault *f);

#endif
