/* mendask.h: whom a gateway with a damaged log asks for what it lacks, and when it stops asking (pure).
 *
 * What is missing is asked of the other gateways in turn; who could help is asked again.  When none of them has it, or PATIENCE_MS have
 * passed, it does without what its state stands for.  What is missing then cannot be mended: where a majority is whole without this node and
 * has not got it, whatever was committed is there, and this log may be set aside.  Without that majority it waits: its log may hold the last
 * copy of something. */
#ifndef AGENT_MENDASK_H
#define AGENT_MENDASK_H

#include "federation/raft/member.h"

#define MENDASK_ANSWER_MS 3000u    /* then another gateway is asked */
#define MENDASK_PATIENCE_MS 60000u /* then those that do not answer are not waited for any more */

struct mendask_other { /* another member, and whether it could help with what is missing now */
    raft_id id;
    bool voter, voter_old, gateway, up, fruitless, whole; /* up: a link stands */
};

struct mendask {
    struct mendask_other at[LIMIT_MEMBERS];
    uint32_t count, next;
    uint32_t needed,
        needed_old;      /* whole voters among the others for a majority; needed_old of the outgoing ones, 0: there are none */
    raft_id waiting_for; /* 0: nobody */
    uint64_t asked_ms, begun_ms;
};

enum mendask_step {
    MENDASK_WAIT,  /* for an answer, or for links */
    MENDASK_ASK,   /* mendask_whom says whom */
    MENDASK_FORGO, /* do without what the state stands for; then mendask_forgone */
    MENDASK_HOPELESS
};

/* False: there are no others. */
bool mendask_begin(struct mendask *a, const struct raft_members *members, raft_id self, const char *node, uint64_t now_ms);
/* Something is missing: what now?  may_forgo: of what the state stands for. */
enum mendask_step mendask_next(struct mendask *a, bool may_forgo, uint64_t now_ms);
raft_id mendask_whom(struct mendask *a); /* the next gateway whose link stands; 0: none */
void mendask_sent(struct mendask *a, raft_id to, uint64_t now_ms);
void mendask_forgone(struct mendask *a);
/* to_this: to what is asked now, not to an earlier question (mendplan_answered says so) */
void mendask_answered(struct mendask *a, raft_id from, bool whole, bool to_this, uint32_t taken);
void mendask_link(struct mendask *a, raft_id id, bool up);
bool mendask_others_whole(const struct mendask *a); /* the others are a majority that is well without this node */
uint32_t mendask_links(const struct mendask *a);
uint32_t mendask_whole(const struct mendask *a);

#endif
