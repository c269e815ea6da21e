/* origin.h: who asked for a change and from where, as it stands in the log before what was asked.
 *
 * An entry's payload is a CBOR array; one that a client asked for may have a map before it: {0: who, 1: role, 2: address, 3: gateway}.
 * It was written by the gateway that took the call, is covered by the entry's digest, and so by the chain and the seals. */
#ifndef FEDERATION_ORIGIN_H
#define FEDERATION_ORIGIN_H

#include "federation/access.h"

struct origin {
    struct bytes who, address, node; /* up to ACCESS_WHO_BYTES, ACCESS_ADDRESS_BYTES, LIMIT_NAME_BYTES; borrowed */
    enum access_role role;
};

/* brief: members that are as usual (`anyone` with the role admin from 127.0.0.1) are left out, which only readers of
 * FEATURE_LEVEL_BRIEF_ORIGIN take. */
void origin_put(struct builder *out, const struct origin *o, bool brief);
/* What follows the origin; all of it when there is none.  o may be NULL; empty texts when there is none.  A map that is not an origin is left
 * where it is, so that no reader of payloads takes it. */
struct bytes origin_skip(struct bytes payload, struct origin *o);

#endif
