/* seal.h: a gateway's word for the log up to an index: an Ed25519 signature over the chain hash there (DECISIONS 4).  Pure.
 *
 * Because each entry's hash holds that of the entry before, one seal vouches for everything up to its index.  Seals stand beside the
 * log, not in it.  docs/FORMATS.md, "Seals". */
#ifndef FEDERATION_SEAL_H
#define FEDERATION_SEAL_H

#include "include/grey/entry.h"
#include "platform/keys.h"

struct seal {
    raft_index index;
    grey_epoch epoch; /* of the leader that made it: not below that of the entry at index */
    raft_id signer;   /* that leader */
    uint8_t hash[DIGEST_BYTES];
    uint8_t signature[KEYS_ED25519_SIGNATURE_BYTES];
};

/* seal_sign: fills signature.  The cluster id is signed as well, so that no seal passes for one of another site. */
void seal_sign(struct seal *s, uint64_t cluster_id, const uint8_t secret_key[KEYS_ED25519_SECRET_BYTES]);
bool seal_verify(const struct seal *s, uint64_t cluster_id, const uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES]);

#endif
