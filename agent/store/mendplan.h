/* mendplan.h: what a damaged log lacks, and what of another gateway's may take its place (pure; the copy itself is agent/store/salvage.h).
 *
 *   - entries above the log's base are missed one by one ("lost").  What another gateway has in their places is the same if
 *       - it is of the term that the lost one was of, which is known where the entries before and behind the hole are of one term, or
 *       - the other has an entry of the same term at a later place (the anchor) that is readable here (both: Raft's Log Matching), or
 *       - it is committed there and here;
 *   - at and below the base, payloads that rows of the state refer to ("live").
 *
 * Entries that the state stands for already can be done without (mendplan_forgo): the log's base moves up to that position. */
#ifndef AGENT_MENDPLAN_H
#define AGENT_MENDPLAN_H

#include "federation/raft/raft.h"
#include "platform/fault.h"

#define MENDPLAN_MISSING_MAX 65536u /* more: the log is taken anew, that is quicker */
#define MENDPLAN_ASK_MAX 256u       /* indexes in one question */

struct mendplan_list { /* indexes, ascending */
    raft_index *at;
    uint32_t count, capacity;
};

struct mendplan_log {                                                  /* how the log is looked into */
    bool (*term_of)(void *context, raft_index index, raft_term *term); /* true: its head is readable, with or without its payload */
    void *context;
};

/* What to ask for first. */
struct mendplan_need {
    raft_index from, to;
    raft_index anchor; /* 0: of live payloads, which are committed for sure */
    raft_term anchor_term;
};

struct mendplan {
    struct mendplan_log log;
    struct raft_point base, applied; /* of the log, and what the state stands for */
    raft_index last;
    struct mendplan_list live, lost;
    raft_index want;               /* the entry that should come next while the log is looked through */
    bool forgo;                    /* of what the state stands for, more is missing than can be asked for */
    struct mendplan_need asked;    /* the last need */
    raft_index hole_from, hole_to; /* of it */
    raft_term hole_term;           /* what was lost there was of this term; 0: it is not known */
    uint32_t vain;                 /* answers in a row that brought nothing */
};

/* What another gateway has of a need. */
struct mendplan_offer {
    raft_index from, to; /* it looked at all of these */
    raft_index certain;  /* committed for sure, there */
    raft_index anchor;   /* 0, or an entry that has there ... */
    bool same;           /* ... the same term as here */
    bool whole;          /* its own log is not damaged: what it lacks of the committed entries, nothing refers to any more */
    const struct entry *entries; /* header fields without hash, payload */
    uint32_t entry_count;
};

void mendplan_begin(struct mendplan *p, struct mendplan_log log, struct raft_point base, raft_index last,
                    struct raft_point applied); /* *p: zero or another plan */
void mendplan_end(struct mendplan *p);          /* frees the lists */

/* Looking through the log: each readable row above the base, ascending; holds: with its payload.  E_CORRUPT: too much is missing. */
enum grey_error mendplan_row(struct mendplan *p, raft_index index, bool holds, struct fault *f);
enum grey_error mendplan_looked(const struct mendplan *p, struct fault *f);           /* E_CORRUPT: the end could not be read */
enum grey_error mendplan_live(struct mendplan *p, raft_index index, struct fault *f); /* that payload is missed; ascending */

uint32_t mendplan_missing(const struct mendplan *p);
bool mendplan_need(struct mendplan *p, struct mendplan_need *need); /* false: nothing is missing */

/* May that entry of the offer, with its digest, take the place of what was lost?  Then it counts as there from now on.  here: the head that
 * is left of it, NULL when there is none. */
bool mendplan_take(struct mendplan *p, const struct mendplan_offer *o, const struct entry *e, const struct entry *here);
uint32_t mendplan_freed(struct mendplan *p,
                        const struct mendplan_offer *o); /* live payloads that nobody needs any more; how many */

/* True: it answers the last need, not an earlier one: an answer may come late, or twice.  After some in vain another anchor is asked
 * for: the others are damaged as well. */
bool mendplan_answered(struct mendplan *p, const struct mendplan_offer *o, uint32_t taken);

bool mendplan_may_forgo(const struct mendplan *p); /* that makes a difference */
void mendplan_forgo(struct mendplan *p);           /* the caller looks for live payloads from the old base up, then */

#endif
