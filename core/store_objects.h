/* store_objects.h: configs, policies and data that the core gives to sites: versions, chunks, which one each site is to have, and what each
 * has.  Thread: the core's storage thread; writing calls between store_begin and store_commit. */
#ifndef CORE_STORE_OBJECTS_H
#define CORE_STORE_OBJECTS_H

#include "core/rollout.h"
#include "core/store.h"
#include "federation/supply.h"
#include "platform/json.h"

struct store_object {
    uint64_t version, issue;
    int64_t created_ms;
    uint64_t size;
    char content_type[OBJECT_TYPE_BYTES_MAX + 1];
};

/* A new version of an object, which all sites are to have; what is the same as the newest one makes none. */
enum grey_error store_object_put(struct store *s, enum object_kind kind, const char *name, const char *content_type,
                                 struct bytes content, int64_t now_ms, struct store_object *out, struct fault *f);
/* version 0: the newest.  content: appended, or NULL.  E_NOT_FOUND; E_CORRUPT: a chunk is missing. */
enum grey_error store_object_get(struct store *s, enum object_kind kind, const char *name, uint64_t version,
                                 struct store_object *out, struct builder *content, struct fault *f);
/* An array of the objects of a kind: name, version, issue, size, since when; and how many sites have it in force. */
enum grey_error store_object_list(struct store *s, enum object_kind kind, struct json_writer *w, struct fault *f);

/* A site says what it has in force.  E_NOT_FOUND: no such site; E_STALE_MEMBER: its session is over. */
enum grey_error store_holdings(struct store *s, const char *site, const struct supply_holdings *h, int64_t now_ms, struct fault *f);
/* What sites are to have gets issues above those that they hold and that were never given here: what a store that was put back to an older
 * copy has is newer from now on. */
enum grey_error store_holdings_outdo(struct store *s, int64_t now_ms, struct fault *f);
/* What the site should have in another issue than it has: sign is called for each, with hashes and all but site filled in; false: enough.
 * m is lent during the call. */
enum grey_error store_offers(struct store *s, const char *site, bool (*sign)(void *context, struct object_manifest *m),
                             void *context, struct fault *f);
/* E_NOT_FOUND: nobody has put such a chunk here. */
enum grey_error store_chunk(struct store *s, struct bytes hash, struct builder *out, struct fault *f);

/* A number above all issues that were ever said, for what is said next; by a store that lost some, too. */
enum grey_error store_next_issue(struct store *s, int64_t now_ms, int64_t *issue, struct fault *f);

/* Sites that take objects, in order of their names behind `after`; *count of at most max, fewer only at the end. */
enum grey_error store_supplied(struct store *s, const char *after, struct store_stand *out, size_t max, size_t *count,
                               struct fault *f);

/* "objects" of a site as JSON: an array of kind, name, version, issue, health, since when. */
enum grey_error store_site_objects(struct store *s, const char *site, struct json_writer *w, struct fault *f);

#endif
