/* supply.h: how objects (federation/object.h) come down, as CBOR arrays [kind, ...] inside Grey frames over MQTT; beside sync.h.
 *
 * In each session whose welcome offers CODING_OBJECTS the site says UP_HOLDINGS: what it has in force, and how that does.  The core notes it
 * and answers with a DOWN_OFFER for each object that the site should have in another issue.  The site asks for the chunks that it lacks
 * (UP_PULL), and each comes as a DOWN_CHUNK.  When that changes what is in force, the site says UP_HOLDINGS again.  Nothing of this
 * waits anywhere on the way: what was lost is asked for again. */
#ifndef FEDERATION_SUPPLY_H
#define FEDERATION_SUPPLY_H

#include "federation/object.h"
#include "include/grey/protocol.h"

#define SUPPLY_HOLDINGS_MAX LIMIT_OBJECTS
#define SUPPLY_PULLS_MAX 8u

/* What the site says of an object in force. */
enum supply_health { SUPPLY_UNKNOWN = 0, SUPPLY_HEALTHY = 1, SUPPLY_FAILED = 2 }; /* numbers stand in state rows */

struct supply_holding {
    enum object_kind kind;
    struct bytes name;
    uint64_t version, issue;
    enum supply_health health;
};

struct supply_holdings {
    uint64_t incarnation;
    grey_epoch epoch;
    struct supply_holding *at;
    uint32_t count;
};

struct supply_pull {
    uint64_t incarnation;
    grey_epoch epoch;
    uint8_t hashes[SUPPLY_PULLS_MAX][OBJECT_HASH_BYTES];
    uint32_t count;
};

struct supply_offer {
    uint64_t incarnation;
    grey_epoch epoch;
    struct bytes manifest; /* signed */
    struct bytes content;  /* of the only chunk, when it is small; else empty: it is asked for */
};

struct supply_chunk {
    uint64_t incarnation;
    grey_epoch epoch;
    struct bytes content;
};

const char *supply_health_name(enum supply_health h);

void supply_put_holdings(struct builder *out, const struct supply_holdings *h);
void supply_put_pull(struct builder *out, const struct supply_pull *p);
void supply_put_offer(struct builder *out, const struct supply_offer *o);
void supply_put_chunk(struct builder *out, const struct supply_chunk *c);

/* Slices borrow from content.  E_BAD_CBOR, E_BAD_MESSAGE.  at: room for SUPPLY_HOLDINGS_MAX, filled and pointed to by h. */
enum grey_error supply_get_holdings(struct bytes content, struct supply_holdings *h, struct supply_holding *at);
enum grey_error supply_get_pull(struct bytes content, struct supply_pull *p);
enum grey_error supply_get_offer(struct bytes content, struct supply_offer *o);
enum grey_error supply_get_chunk(struct bytes content, struct supply_chunk *c);

#endif
