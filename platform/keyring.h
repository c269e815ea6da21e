/* keyring.h: a gateway's P-256 key by the name that its configuration gives it:
 *
 *     /path                 PEM in a file
 *     tpm:0x81008001        a key that lies in the TPM at this handle and never leaves it; signing is asked of platform/vault.h
 *     tpm:/path             in a file that only this machine's TPM opens; in memory while it is used
 *
 * The latter two may end in "@/path/of/socket" of the service that holds the TPM.  Calls block on files and on that service: on a worker, or at
 * the start of a program.  Thread: any. */
#ifndef PLATFORM_KEYRING_H
#define PLATFORM_KEYRING_H

#include "platform/keysign.h"

#define KEYRING_TEXT_BYTES_MAX 65536u /* of a file */

bool keyring_in_tpm(const char *where);   /* at a handle: it cannot be read, only used */
bool keyring_with_tpm(const char *where); /* at a handle, or in a file that the TPM opens */
/* The socket that where names; "": none. */
const char *keyring_socket(const char *where);

/* The key itself, for a TLS library: PEM with a NUL behind it, or DER.  Appended; the caller wipes it.  E_NOT_FOUND, E_KEY, E_VAULT_... */
enum grey_error keyring_read(const char *where, struct builder *key, struct fault *f);
/* For signing.  Of a key in the TPM the public half is read now.  E_NOT_FOUND, E_KEY, E_VAULT_... */
enum grey_error keyring_open(const char *where, struct keysign *out, struct fault *f);
/* A key is there afterwards, this one when there was none; *made says so.  Files get mode 0600. */
enum grey_error keyring_make(const char *where, bool *made, struct fault *f);

#endif
