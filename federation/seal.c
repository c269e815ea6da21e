#include "federation/seal.h"

#include <string.h>

#define SEAL_LABEL "grey-seal-1" /* with its NUL: what is signed for one purpose must not pass for another */
#define SEAL_SIGNED_BYTES (sizeof SEAL_LABEL + 4u * 8u + DIGEST_BYTES)

static void signed_bytes(const struct seal *s, uint64_t cluster_id, uint8_t out[SEAL_SIGNED_BYTES]) {
    memcpy(out, SEAL_LABEL, sizeof SEAL_LABEL);
    uint8_t *at = out + sizeof SEAL_LABEL;
    bytes_put_be64(at, cluster_id);
    bytes_put_be64(at + 8, s->index);
    bytes_put_be64(at + 16, s->epoch);
    bytes_put_be64(at + 24, s->signer);
    memcpy(at + 32, s->hash, DIGEST_BYTES);
}

void seal_sign(struct seal *s, uint64_t cluster_id, const uint8_t secret_key[KEYS_ED25519_SECRET_BYTES]) {
    uint8_t message[SEAL_SIGNED_BYTES];
    signed_bytes(s, cluster_id, message);
    keys_sign_ed25519(bytes_of(message, sizeof message), secret_key, s->signature);
}

bool seal_verify(const struct seal *s, uint64_t cluster_id, const uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES]) {
    uint8_t message[SEAL_SIGNED_BYTES];
    signed_bytes(s, cluster_id, message);
    return keys_verify_ed25519(bytes_of(message, sizeof message), public_key, s->signature);
}
