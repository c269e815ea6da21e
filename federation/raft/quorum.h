/* quorum.h: what a majority says, joint configurations included (Raft thesis 4.3). */
#ifndef FEDERATION_RAFT_QUORUM_H
#define FEDERATION_RAFT_QUORUM_H

#include "federation/raft/member.h"

enum quorum_vote { QUORUM_SILENT, QUORUM_YES, QUORUM_NO };
enum quorum_result { QUORUM_PENDING, QUORUM_WON, QUORUM_LOST };

/* quorum_value: the greatest v such that a majority of the incoming voters, and while joint of the outgoing ones as well, has a value
 * of at least v.  value[i] belongs to m->at[i]; learners do not count.  0 when there is no voter. */
uint64_t quorum_value(const struct raft_members *m, const uint64_t value[LIMIT_MEMBERS]);

/* quorum_tally: how a vote stands. */
enum quorum_result quorum_tally(const struct raft_members *m, const enum quorum_vote vote[LIMIT_MEMBERS]);

#endif
