/* keyfile.h: Ed25519 keys in files.
 *
 * A secret one: mode 0600, one line: "grey-ed25519-secret 1 " and 128 hexadecimal digits (the secret key, then the public one, as in RFC
 * 8032 and libsodium), or what the TPM made of it.  A public one: "grey-ed25519-public 1 " and 64 digits.  All calls block; start of the program. */
#ifndef PLATFORM_KEYFILE_H
#define PLATFORM_KEYFILE_H

#include "platform/keys.h"

/* Names of the key with which cores sign what they give to sites. */
#define KEYFILE_CORE_SECRET "core-sign.key"
#define KEYFILE_CORE_PUBLIC "core-sign.pub"

struct keyfile {
    uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES];
    uint8_t secret_key[KEYS_ED25519_SECRET_BYTES];
};

/* Reads dir/name, or makes a key and makes it durable.  name: at most 32 bytes.  E_KEY: not a key, or others may read it; E_IO, E_SYSTEM,
 * E_DISK_FULL. */
enum grey_error keyfile_open(const char *dir, const char *name, struct keyfile *s, struct fault *f);
/* The same with a file that only this machine's TPM opens (platform/vault.h; socket_path: of its service, NULL: the usual one).  A plain one that is
 * there is sealed, and replaced.  E_VAULT_AWAY, E_VAULT_OTHER as well. */
enum grey_error keyfile_open_sealed(const char *dir, const char *name, const char *socket_path, struct keyfile *s, struct fault *f);
/* Writes the public half for others to take along. */
enum grey_error keyfile_put_public(const char *dir, const char *name, const struct keyfile *s, struct fault *f);
enum grey_error keyfile_get_public(const char *path, uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES], struct fault *f); /* E_KEY */

#endif
