/* signer.h: the gateway's own Ed25519 key, with which it signs what it vouches for (seals of the log).
 *
 * data_dir/signer.key, mode 0600, one line: "grey-ed25519-secret 1 " and 128 hexadecimal digits (the secret key, then the public one, as
 * in RFC 8032 and libsodium).  Made at the first start.  It outlives a log that is set aside (agent/store/setaside.h), not a wiped directory. */
#ifndef AGENT_SIGNER_H
#define AGENT_SIGNER_H

#include "platform/fault.h"
#include "platform/keys.h"

struct signer {
    uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES];
    uint8_t secret_key[KEYS_ED25519_SECRET_BYTES];
};

/* Reads the key, or makes one and makes it durable.  vault: socket of the service that seals it to the machine's TPM; NULL: a plain file.
 * Blocks; start of the program.  E_KEY: not a key, or others may read it; E_IO,
 * E_SYSTEM, E_DISK_FULL, E_VAULT_AWAY, E_VAULT_OTHER. */
enum grey_error signer_open(const char *data_dir, const char *vault, struct signer *s, struct fault *f);

#endif
