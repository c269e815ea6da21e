/* object.h: what the core gives to sites: configs, policies and reference data.  Signed, in numbered chunks that are known by their
 * hashes, so that a site fetches only those that it does not have, in any order, and goes on where it stopped.
 *
 * A manifest is CBOR, signed by the core for one site: what was given to another site, or altered on the way, does not pass.  `version` is what
 * people count; `issue` is what sites compare: it rises with everything that the core says of this object, a return to an older version
 * included, so that nothing old can be played to a site again.  docs/FORMATS.md, "Objects". */
#ifndef FEDERATION_OBJECT_H
#define FEDERATION_OBJECT_H

#include "include/grey/ids.h"
#include "platform/codec.h"
#include "platform/digest.h"
#include "platform/keys.h"

enum object_kind {
    OBJECT_CONFIG = 1,
    OBJECT_POLICY = 2,
    OBJECT_DATA = 3,
    OBJECT_UPDATE = 4 /* a bundle (federation/update.h); feature level 6 */
};                    /* numbers stand in state rows and in the core's store */

#define OBJECT_HASH_BYTES DIGEST_SHA256_BYTES
#define OBJECT_CHUNK_BYTES_MIN 4096u /* a small change of a text of some KiB costs one of these */
#define OBJECT_CHUNK_BYTES_MAX (32u * 1024u)
#define OBJECT_CHUNKS_MAX 1024u
#define OBJECT_BYTES_MAX (OBJECT_CHUNK_BYTES_MAX * OBJECT_CHUNKS_MAX)
#define OBJECT_TYPE_BYTES_MAX 128u
#define OBJECT_SIGNED_BYTES_MAX (OBJECT_CHUNKS_MAX * OBJECT_HASH_BYTES + 512u)

struct object_manifest {
    enum object_kind kind;
    struct bytes name, site, content_type;
    uint64_t version, issue; /* above 0 */
    uint64_t size;
    uint32_t chunk_bytes; /* of each chunk but the last */
    struct bytes hashes;  /* SHA-256 of each chunk, one behind the other */
};

const char *object_kind_name(enum object_kind k); /* "config", "policy", "data", "update" */

uint32_t object_chunk_bytes(uint64_t size); /* into which a core cuts something of this size */
static inline uint32_t object_chunk_count(const struct object_manifest *m) {
    return (uint32_t)(m->hashes.size / OBJECT_HASH_BYTES);
}
static inline struct bytes object_hash(const struct object_manifest *m, uint32_t chunk) {
    return bytes_of(m->hashes.data + (size_t)chunk * OBJECT_HASH_BYTES, OBJECT_HASH_BYTES);
}
uint32_t object_size_of(const struct object_manifest *m, uint32_t chunk); /* bytes of this chunk */
/* Appends the hashes of content, cut into chunks of chunk_bytes. */
void object_cut(struct bytes content, uint32_t chunk_bytes, struct builder *hashes);

/* Appends the signed manifest. */
void object_sign(const struct object_manifest *m, const uint8_t secret_key[KEYS_ED25519_SECRET_BYTES], struct builder *out);
/* Reads a signed manifest; m borrows.  The signature is not looked at.  E_BAD_CBOR, E_BAD_MESSAGE. */
enum grey_error object_read(struct bytes in, struct object_manifest *m);
/* The same, and true only when it was signed with that key. */
bool object_verify(struct bytes in, const uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES], struct object_manifest *m);

#endif
