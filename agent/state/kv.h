/* kv.h: the keys of the site: versions, conditions, bounds.  Internal to the state. */
#ifndef AGENT_KV_H
#define AGENT_KV_H

#include "agent/table/table.h"
#include "include/grey/entry.h"
#include "platform/fault.h"

struct kv {
    uint64_t count, bytes; /* keys; sizes of keys and values */
};

enum grey_error kv_load(struct kv *k, struct table *t, struct fault *f); /* E_CORRUPT */
void kv_wants(struct bytes payload, void (*want)(void *context, enum table_id id, struct bytes key), void *context);
/* Applies an ENTRY_KV: appends to changes and changes *k, or refuses and leaves what it began to the caller to throw away. */
enum grey_error kv_apply(struct kv *k, struct table *t, const struct entry *e, struct builder *changes, struct builder *answer,
                         struct fault *f);

#endif
