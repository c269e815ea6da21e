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

struct store_options {
    /* Several cores share the database and take turns at what the broker has: frames of a site come out of order, and what lies beyond a
     * hole is kept aside for a while.  Otherwise a hole means that something was lost. */
    bool shared;
    /* Directory where a file remembers how far the store was (core/store_restored.h), best one that is not kept and put back with the store;
     * NULL: none.  Borrowed for the store's life. */
    const char *mark_dir;
};
/* where: "sqlite:PATH" or "postgresql://...".  E_USAGE for another kind. */
struct store *store_open(const char *where, const struct store_options *o, struct fault *f);
bool store_is_postgres(const char *where);
void store_close(struct store *s);
const char *store_name(struct store *s); /* for people, without secrets; lends until the next call */

enum grey_error store_begin(struct store *s, struct fault *f);
enum grey_error store_commit(struct store *s, struct fault *f);
void store_rollback(struct store *s);
/* The transaction failed for a reason that lies in the past (lost connection, deadlock): do all of it again.  What it did may have been
 * committed all the same; done again it finds that and changes nothing. */
bool store_again(enum grey_error err);
/* First thing in a transaction that takes from many sites: has them to itself until the end.  Unknown ones are passed over. */
enum grey_error store_lock(struct store *s, const char *const *sites, size_t count, struct fault *f);

/* A site has connected.  Registers it, its incarnation and the gateway that speaks, raises its epoch; positions: what the core has of
 * each channel.  Where the site has freed more than the core has (a core restored from a backup), the difference becomes a gap.
 * rolled_back: the core has numbers that the site has not given yet; nothing is changed by that, the site must not go on.
 * E_STALE_MEMBER: lower epoch. */
/* How a message of this site came.  E_DENIED: plain, of a site that has said a sealed hello before: whoever sends this is not the site. */
enum store_manner { STORE_PLAIN, STORE_SEALED, STORE_HELLO_SEALED };
enum grey_error store_manner(struct store *s, const char *site, enum store_manner m, int64_t now_ms, struct fault *f);

enum grey_error store_hello(struct store *s, const char *site, const struct sync_hello *h, int64_t now_ms,
                            grey_seq positions[CHANNEL_COUNT], bool *rolled_back, struct fault *f);

/* Events of one frame.  Each number is kept once, whatever is sent again.  position: the contiguous prefix afterwards.
 *
 * A frame that starts beyond a hole is kept aside when the store is shared (STORE_AHEAD_FRAMES and _BYTES for each channel of a site, the
 * rest is dropped) and taken when the hole has closed; a hello empties what is kept aside, for the site then sends all of it again.
 * ask_again: the site must be asked to (DOWN_RESYNC), and by this core: the hole has been there for STORE_HOLE_MS, or something was
 * dropped, and no core has asked within STORE_ASK_MS.  E_STALE_MEMBER: lower epoch; E_NOT_FOUND: no hello of this incarnation. */
#define STORE_AHEAD_FRAMES 64u
#define STORE_AHEAD_BYTES (8u * 1024u * 1024u)
#define STORE_HOLE_MS 2000
#define STORE_ASK_MS 3000
struct store_taken {
    grey_seq position;
    uint32_t fresh, repeated;
    uint32_t unreadable; /* of the fresh ones: kept as they came, but they are no records */
    bool beyond_hole, kept_ahead, ask_again;
    bool first_ahead; /* kept, and nothing was before: call store_hole for it in STORE_HOLE_MS */
};
enum grey_error store_events(struct store *s, const char *site, const struct sync_events *e, int64_t now_ms,
                             struct store_taken *taken, struct fault *f);

/* A frame was kept ahead some time ago.  Sets position and ask_again as store_events does; *wait_ms: look again then, for
 * there is a younger hole; 0: no need to. */
struct store_hole {
    const char *site;
    uint64_t incarnation;
    grey_epoch epoch;
    enum event_channel channel;
};
enum grey_error store_hole(struct store *s, const struct store_hole *hole, int64_t now_ms, struct store_taken *taken,
                           uint32_t *wait_ms, struct fault *f);

/* Where the core stands with a site, for DOWN_RESYNC: of its latest incarnation. */
struct store_stand {
    struct grey_name site;
    struct sync_welcome at;
    int64_t no; /* the store's own */
};
/* The next sites in order of their names behind `after` ("": from the first) that a core which comes back should ask; *count of at most max,
 * fewer only at the end.  It has then to ask them.  Of a shared store, sites that were heard or asked within STORE_ASK_ALL_MS are passed
 * over: another core looks after them. */
#define STORE_ASK_ALL_MS 10000
enum grey_error store_stands(struct store *s, const char *after, int64_t now_ms, struct store_stand *out, size_t max, size_t *count,
                             struct fault *f);

#endif
