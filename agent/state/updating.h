/* updating.h: who of a site may change its programs now.  Part of the state machine, and the leader's next step; pure.
 *
 * An update is an object of the core (agent/state/holding.h) in force at the site.  Each gateway says how it stands to it; the leader gives one of those that want
 * it its turn, when all others are well and enough for a quorum without it, itself last and only when it cannot hand leadership over.  The turn
 * is an entry, so that no two leaders give two.  It ends with what that gateway says next, or when its time is over: then the gateway counts as one
 * that failed.  After a failure nobody else begins: the core is told, and it decides (core/rollout.h). */
#ifndef AGENT_UPDATING_H
#define AGENT_UPDATING_H

#include "agent/table/table.h"
#include "federation/supply.h"
#include "include/grey/entry.h"
#include "include/grey/limits.h"
#include "platform/fault.h"

enum updating_phase {
    UPDATING_UNKNOWN = 0,
    UPDATING_WANTS = 1,   /* runs another version, and could take this one */
    UPDATING_CURRENT = 2, /* runs it, and is well */
    UPDATING_FAILED = 3,  /* refused it, or left it again */
    UPDATING_OTHER = 4    /* it is for other gateways: another product or architecture */
};                        /* numbers stand in state rows */

#define UPDATING_TURN_MS_MAX (24ll * 3600 * 1000)

struct updating_report {
    raft_id node;
    enum updating_phase phase;
    uint32_t why;     /* of UPDATING_FAILED: the number of an error */
    int64_t since_ms; /* log time */
};

/* How the site stands to one object. */
struct updating {
    uint64_t issue;
    raft_id turn; /* 0: nobody's */
    uint64_t turn_issue;
    int64_t until_ms; /* log time at which the turn ends */
    uint32_t count;
    struct updating_report at[LIMIT_MEMBERS];
};

const char *updating_phase_name(enum updating_phase p); /* "unknown", "wants", "current", "failed", "other" */

/* Applies an ENTRY_UPDATE.  E_CONDITION: about an issue that is not in force, or what may not follow now; E_UPDATE_BUSY: another has its turn;
 * E_BAD_CBOR, E_BAD_MESSAGE, E_CORRUPT. */
enum grey_error updating_apply(struct table *t, const struct entry *e, int64_t now_ms, struct builder *changes, struct fault *f);

/* --- payloads (docs/FORMATS.md) ----------------------------------------------------------------------------------------------------- */
void payload_update_report(struct builder *out, struct bytes name, uint64_t issue,
                           const struct updating_report *r); /* since_ms: not said */
void payload_update_turn(struct builder *out, struct bytes name, uint64_t issue, raft_id node, int64_t until_ms);

/* --- questions ------------------------------------------------------------------------------------------------------------------------ */
bool updating_find(struct table *t, struct bytes name, struct updating *out); /* false: nobody has said anything of that object */
/* Whether that gateway may go away for an issue now: it has its turn, and at least half of its time is left, so that it does not go late, when another may have
 * its turn.  turn_ms: what a turn takes in all. */
bool updating_may_begin(const struct updating *u, raft_id node, uint64_t issue, int64_t turn_ms, int64_t now_ms);
const struct updating_report *updating_of(const struct updating *u, raft_id node); /* NULL: it has said nothing of this issue */

/* --- the leader's next step ---------------------------------------------------------------------------------------------------------- */
struct updating_peer {
    raft_id id;
    bool voter, witness;
    bool healthy; /* answers, and keeps up */
};

struct updating_view {
    const struct updating *u;
    uint64_t issue; /* in force */
    enum supply_health said;
    struct updating_peer peers[LIMIT_MEMBERS]; /* all members, the leader among them */
    uint32_t peer_count;
    raft_id leader;
    bool steady;     /* no change of members is under way */
    bool other_turn; /* somebody has a turn for another object */
    int64_t now_ms;
};

enum updating_step {
    UPDATING_WAIT,
    UPDATING_TURN,        /* of `node` */
    UPDATING_EXPIRE,      /* `node` is to count as failed */
    UPDATING_FORGET,      /* `node` is no member any more: neither its turn nor its failure concerns the others */
    UPDATING_HAND_OVER,   /* leadership, to `node` */
    UPDATING_SAY_HEALTHY, /* of the object, for the core */
    UPDATING_SAY_FAILED
};
struct updating_decision {
    enum updating_step step;
    raft_id node;
};
struct updating_decision updating_next(const struct updating_view *v);

#endif
