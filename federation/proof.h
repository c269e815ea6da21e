/* proof.h: a gateway's word on one run of a task: what it was given, when the site decided what, how it ended, what it wrote and used.
 * Signed with the gateway's own key (Ed25519), so that it can be checked later, elsewhere and without the site.  Pure.
 *
 * The run is named by cluster, task and token.  Each transition names the log entry that made it and, where the log still had it, that
 * entry's chain hash, which a seal vouches for (seal.h).  The last transition is the entry that holds the proof itself: it cannot stand
 * inside.  docs/FORMATS.md, "Proofs". */
#ifndef FEDERATION_PROOF_H
#define FEDERATION_PROOF_H

#include "include/grey/entry.h"
#include "platform/fault.h"
#include "platform/keys.h"

#define PROOF_BYTES_MAX 1024u
#define PROOF_WORD_BYTES_MAX 32u

enum proof_step { PROOF_SUBMITTED, PROOF_ASSIGNED, PROOF_RUNNING, PROOF_STEPS };
enum { PROOF_STREAMS = 2 }; /* standard output, standard error */

struct proof_transition {
    raft_index index;           /* 0: it was none (a task that ended before its start was told) */
    bool hashed;                /* the log had it when the proof was made */
    uint8_t hash[DIGEST_BYTES]; /* of the chain */
};

struct proof {
    uint64_t cluster_id, token;
    raft_id node;
    struct bytes node_name, task; /* names; borrowed */
    uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES];
    uint8_t input_hash[DIGEST_BYTES]; /* SHA-256 of the order, as it stands in its entry */
    struct proof_transition steps[PROOF_STEPS];
    struct bytes end, reason; /* how it ended and why, in the words of the API; borrowed */
    int32_t status;
    uint64_t output_bytes[PROOF_STREAMS];
    uint8_t output_hash[PROOF_STREAMS][DIGEST_BYTES]; /* SHA-256 of all that it wrote there */
    uint64_t cpu_us, memory_peak_bytes, wall_ms;
};

/* Appends the signed proof.  p->public_key belongs to secret_key. */
void proof_sign(struct builder *out, const struct proof *p, const uint8_t secret_key[KEYS_ED25519_SECRET_BYTES]);
/* The fields, and what is signed and the signature (each may be NULL).  Borrows from in; verifies nothing.  E_BAD_CBOR, E_BAD_MESSAGE. */
enum grey_error proof_read(struct bytes in, struct proof *p, struct bytes *body, struct bytes *signature);
/* From its two halves, as a bundle shows them. */
enum grey_error proof_read_body(struct bytes body, struct proof *p);
/* Was it signed with the key that it names?  Whose that is, the caller knows. */
bool proof_verify(struct bytes body, struct bytes signature, const uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES]);

#endif
