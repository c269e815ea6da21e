/* store.h: what the core keeps: sites, their events, gaps and positions.  What is kept is decided here, once for all
 * databases (core/store_backend.h); questions are answered by core/store_answers.h.
 *
 * All calls may wait for the disk: they run on the core's storage thread only.  Writing calls belong between store_begin and
 * store_commit; positions told to a site come from after the commit. */
#ifndef CORE_STORE_H
#define CORE_STORE_H

#include "federation/sync.h"
#include "platform/fault.h"

struct store;

/* where: "sqlite:PATH".  E_USAGE for another kind. */
struct store *store_open(const char *where, struct fault *f);
void store_close(struct store *s);

enum grey_error store_begin(struct store *s, struct fault *f);
enum grey_error store_commit(struct store *s, struct fault *f);
void store_rollback(struct store *s);

/* A site has connected.  Registers it, its incarnation and the gateway that speaks, raises its epoch; positions: what the core has of
 * each channel.  Where the site has freed more than the core has (a core restored from a backup), the difference becomes a gap.
 * rolled_back: the core has numbers that the site has not given yet; nothing is changed by that, the site must not go on.
 * E_STALE_MEMBER: lower epoch. */
enum grey_error store_hello(struct store *s, const char *site, const struct sync_hello *h, int64_t now_ms,
                            grey_seq positions[CHANNEL_COUNT], bool *rolled_back, struct fault *f);

/* Events of one frame.  Each number is kept once, whatever is sent again.  *position: the contiguous prefix afterwards.  A frame that
 * starts behind a hole is not kept.  E_STALE_MEMBER: lower epoch; E_NOT_FOUND: no hello of this incarnation. */
struct store_taken {
    grey_seq position;
    uint32_t fresh, repeated;
    uint32_t unreadable; /* of the fresh ones: kept as they came, but they are no records */
    bool beyond_hole;
};
enum grey_error store_events(struct store *s, const char *site, const struct sync_events *e, int64_t now_ms,
                             struct store_taken *taken, struct fault *f);

/* Where the core stands with a site, for DOWN_RESYNC: of its latest incarnation. */
struct store_stand {
    struct grey_name site;
    struct sync_welcome at;
};
/* Sites in order of their names behind `after` ("": from the first); *count of at most max. */
enum grey_error store_stands(struct store *s, const char *after, struct store_stand *out, size_t max, size_t *count,
                             struct fault *f);

#endif
