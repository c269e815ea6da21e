/* store_restored.h: a store that was put back to an older copy of itself (a backup, a disk of before) is found, and what it forgot opens no
 * door (docs/SECURITY.md, "An older store").
 *
 * Others remember what it does not: a file store-ID.mark beside the CA, which holds the store's *mark*, a number that rises with every change
 * that matters for security; the list of revoked certificates that the CA signed last (core/revoker.h); and sites, which hold objects of a later issue, or freed
 * events that are not here.  Files speak for all sites; a site speaks for itself alone, so one that lies hurts no other.
 *
 * From then on, for the sites concerned: enrolment tokens of before are refused for good, registered TPMs until an operator has accepted it,
 * and so long no older policy goes out above a newer one.  Thread: the core's storage thread; writing calls between store_begin and
 * store_commit. */
#ifndef CORE_STORE_RESTORED_H
#define CORE_STORE_RESTORED_H

#include "core/store.h"
#include "platform/json.h"

enum restored_by { RESTORED_BY_MARK, RESTORED_BY_LIST, RESTORED_BY_ISSUE, RESTORED_BY_EVENTS };
struct restored_evidence {
    enum restored_by by;
    int64_t known, held; /* how far the store was, and how far who remembers */
};

void store_restored_register(void); /* metrics */

/* A change that must not be forgotten without a word: the mark rises in this transaction, and the file follows its commit, before anybody is
 * answered. */
enum grey_error store_mark(struct store *s, struct fault *f);
void store_mark_keep(struct store *s); /* for store_commit */
/* At the start, in a transaction of its own: is the file ahead of the store?  What is open is logged again. */
enum grey_error store_mark_check(struct store *s, int64_t now_ms, struct fault *f);

/* site "": all of them.  Logged and counted once, until it is accepted; after that, when who remembers is further than was known then. */
enum grey_error store_restored_found(struct store *s, const char *site, const struct restored_evidence *e, int64_t now_ms,
                                     struct fault *f);
/* Something was found of this site or of all, and nobody has accepted it. */
enum grey_error store_restored_doubted(struct store *s, const char *site, bool *doubted, struct fault *f);
enum grey_error store_restored_accept(struct store *s, int64_t now_ms, struct fault *f);
/* An array: site, evidence, known, held, found, accepted. */
enum grey_error store_restored_list(struct store *s, struct json_writer *w, struct fault *f);
bool store_restored_open(void); /* something is open; thread: any */

#endif
