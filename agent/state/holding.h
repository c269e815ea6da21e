/* holding.h: what the site holds from the core (federation/object.h): for each object the version in force, and the one that is coming.
 * Part of the state machine; pure.
 *
 * An offer names the chunks of a version.  Those that the site has for another version, or another object, need not come again; the
 * others come one by one, each an entry of its own, so what has come survives restarts and changes of leader.  With the last one the version is
 * in force, on all gateways with the same entry.  What was in force stays so until then, and for ever when nothing comes.  Chunks that no
 * version names any more go with the entry that replaces it.
 *
 * Who proposes must have checked the signature: the state takes what the log says. */
#ifndef AGENT_HOLDING_H
#define AGENT_HOLDING_H

#include "agent/table/table.h"
#include "federation/supply.h"
#include "include/grey/entry.h"
#include "platform/fault.h"

/* Payloads of ENTRY_OBJECT. */
/* manifest: signed.  content: of the only chunk, or empty: it is to come. */
void payload_offer(struct builder *out, struct bytes manifest, struct bytes content);
void payload_chunk(struct builder *out, struct bytes content);
/* Who uses the object says how it does.  Of an issue that is not in force: refused. */
void payload_health(struct builder *out, enum object_kind kind, struct bytes name, uint64_t issue, enum supply_health health);

/* Applies an ENTRY_OBJECT.  site: this one's name.  Refusals: E_CONDITION (nothing newer, or nothing that is in force), E_NOT_FOUND (no
 * object names this chunk), E_WRONG_SITE, E_KV_FULL (LIMIT_OBJECTS, LIMIT_OBJECT_CHUNKS), E_BAD_CBOR, E_BAD_MESSAGE; E_CORRUPT, E_NO_MEMORY. */
enum grey_error holding_apply(struct table *t, const char *site, const struct entry *e, int64_t now_ms, struct builder *changes,
                              struct fault *f);

/* An object of the site; lent until the next entry. */
struct holding {
    struct bytes signed_force, signed_coming; /* manifests; empty: none */
    struct object_manifest force, coming;     /* version 0: none */
    int64_t since_ms;                         /* log time at which it came into force */
    enum supply_health health;                /* of the one in force */
};
/* The first object behind `after` (a row key, at first empty), in order of kind and name; false: there is none.  key: of the row. */
bool holding_next(struct table *t, struct bytes after, struct bytes *key, struct holding *out);
bool holding_find(struct table *t, enum object_kind kind, struct bytes name, struct holding *out);
/* Index of the entry whose payload has the chunk (holding_content); 0: not here. */
raft_index holding_chunk(struct table *t, struct bytes hash);
struct bytes holding_content(struct bytes payload); /* lends; empty: the payload has none */
/* Chunks of m that are not here, from chunk `from` on: the first one's number, or object_chunk_count(m). */
uint32_t holding_missing(struct table *t, const struct object_manifest *m, uint32_t from);

#endif
