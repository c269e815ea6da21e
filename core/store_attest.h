/* store_attest.h: what the core's verifier keeps of each gateway (core/verifier.h), and by which policy a site's are judged.
 *
 * Several cores hear words of the same gateway: what is kept has a revision, and whoever read another one than is there now judges again.
 * Thread: the core's storage thread; writing calls between store_begin and store_commit. */
#ifndef CORE_STORE_ATTEST_H
#define CORE_STORE_ATTEST_H

#include "core/store.h"
#include "core/verifier.h"
#include "platform/json.h"

struct store_gateway {
    const char *site, *node;
};

/* kept: appended; revision 0: nothing is kept.  E_NOT_FOUND: the site has never said hello. */
enum grey_error store_attest_get(struct store *s, const struct store_gateway *g, struct builder *kept, int64_t *revision,
                                 struct fault *f);
/* In place of what had this revision; nothing is changed unless it is STORE_ATTEST_DONE.  The site is known, and locked (store_lock). */
#define STORE_ATTEST_NODES_MAX 64u                                                  /* of a site */
enum store_attest_put { STORE_ATTEST_DONE, STORE_ATTEST_STALE, STORE_ATTEST_FULL }; /* stale: it has another revision by now */
enum grey_error store_attest_put(struct store *s, const struct store_gateway *g, int64_t revision, struct bytes kept,
                                 int64_t now_ms, enum store_attest_put *done, struct fault *f);
/* Forgets a gateway: its TPM, its key, its counters.  E_NOT_FOUND. */
enum grey_error store_attest_forget(struct store *s, const struct store_gateway *g, struct fault *f);

/* The policy by which this site is judged now: the newest, or while that is rolled out in stages and has not reached it, the one before.  serial:
 * rises with all that the core says of it.  content: appended; NULL: not wanted.  E_NOT_FOUND: there is none. */
enum grey_error store_attest_policy(struct store *s, const char *site, uint64_t *serial, struct builder *content, struct fault *f);
enum grey_error store_attest_has_policy(struct store *s, struct fault *f); /* for any site; E_NOT_FOUND */
/* The site says of the policy of this serial that it does not do, for gateways that were good are not by it: a rollout of it goes back; where none is under way nothing changes. */
enum grey_error store_attest_policy_failed(struct store *s, const char *site, uint64_t serial, struct fault *f);

/* An array of what is known of gateways, in order of site and node.  site "": of all; node "": of all of the site; after: "site/node", only those
 * behind it.  *count: how many there were. */
struct store_attest_query {
    const char *site, *node, *after_site, *after_node;
    uint32_t limit;
    int64_t now_ms;
};
enum grey_error store_attest_list(struct store *s, const struct store_attest_query *q, struct json_writer *w, uint32_t *count,
                                  struct fault *f);
/* Calls each for what is kept of every gateway. */
enum grey_error store_attest_each(struct store *s, void (*each)(void *context, struct bytes kept), void *context, struct fault *f);

#endif
