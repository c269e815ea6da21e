/* dedup.h: which event ids the site has seen, so that a repeat takes effect once (DECISIONS 17).  Internal to the state.
 *
 * Ids are kept in three slots, one after the other: all rows of a slot are forgotten together by one range deletion, which is cheap on
 * disk, and needs no second index by age.  A row is dug up by asking all three, so what an entry wants follows from the entry alone.
 * The oldest slot is given up only when the other two cover DEDUP_AGE_MS or hold DEDUP_IDS: at least that much is always remembered,
 * and at most three times DEDUP_IDS rows exist.  A row older than DEDUP_AGE_MS counts as forgotten, to the millisecond. */
#ifndef AGENT_DEDUP_H
#define AGENT_DEDUP_H

#include "agent/table/table.h"
#include "include/grey/event.h"
#include "platform/fault.h"

#define DEDUP_SLOTS 3u
#define DEDUP_KEY_BYTES 17u /* slot, hash */
#define DEDUP_AGE_MS (8ull * 24 * 3600 * 1000)
#define DEDUP_IDS 8000000ull

struct dedup {
    uint64_t ids_max; /* DEDUP_IDS, but in tests */
    uint8_t current, live;
    bool turned; /* the entry being applied opened the current slot: rows in the table are of its former life */
    struct {
        int64_t opened_ms;
        uint64_t count;
    } slots[DEDUP_SLOTS];
};

struct dedup_row {
    enum event_priority priority;
    grey_seq seq;
    raft_index index;
    int64_t time_ms;
    uint8_t body[8]; /* head of the body's hash */
};

struct dedup_id {
    uint8_t hash[16], body[8];
};

void dedup_hash(struct bytes source, struct bytes id, uint8_t out[16]);
/* dedup_body: hash over what makes a repeat a repeat: type, subject, time, content type, priority and data.  A proxy may give a repeat
 * another trace, and a node may have taken the first one provisionally: those do not count. */
void dedup_body(const struct event *e, uint8_t out[8]);
void dedup_key(const uint8_t hash[16], unsigned slot, uint8_t out[DEDUP_KEY_BYTES]);

enum grey_error dedup_load(struct dedup *d, struct table *t, struct fault *f); /* E_CORRUPT */
/* Opens the next slot when it is time to (true: dedup_save is due).  Before the first dedup_find of an entry. */
bool dedup_turn(struct dedup *d, int64_t now_ms, struct builder *changes);
/* The youngest row of this id that is not forgotten.  E_NOT_FOUND; E_BUG: a row was not loaded; E_CORRUPT: a row is damaged. */
enum grey_error dedup_find(const struct dedup *d, struct table *t, const uint8_t hash[16], int64_t now_ms, struct dedup_row *out);
/* Remembers an id that dedup_find did not find, or found in another slot's or a forgotten row. */
void dedup_put(struct dedup *d, struct table *t, const uint8_t hash[16], const struct dedup_row *row, struct builder *changes);
void dedup_save(const struct dedup *d, struct builder *changes); /* the META row, once per entry */

#endif
