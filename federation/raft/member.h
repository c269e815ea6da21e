/* member.h: who belongs to a Raft group, as one log entry says it (ENTRY_CONFIG); joint-capable (Raft thesis 4.3).
 *
 * A member counts in the incoming set (`voter`), the outgoing set (`voter_old`, only while joint) or neither (learner).  A decision
 * needs a majority of the incoming voters and, while any voter_old is set, of the outgoing voters as well. */
#ifndef FEDERATION_RAFT_MEMBER_H
#define FEDERATION_RAFT_MEMBER_H

#include "include/grey/ids.h"
#include "platform/bytes.h"

#define RAFT_SIGN_KEY_BYTES 32u

struct raft_member {
    raft_id id;
    bool voter, voter_old; /* neither: a learner */
    bool witness;          /* votes and acknowledges headers, holds no payloads, never leads */
    bool leaving;          /* joint only: an outgoing voter that is gone when the joint phase ends; else it stays, a learner */
    struct grey_name node; /* its name; two entries with one name while a wiped node replaces its former self */
    char peer_address[LIMIT_ADDRESS_BYTES + 1], http_address[LIMIT_ADDRESS_BYTES + 1];
    uint8_t sign_key[RAFT_SIGN_KEY_BYTES]; /* its public key (Ed25519), for what it vouches for; zeros: none is known */
};

struct raft_members {
    uint32_t count; /* ascending by id, no id twice */
    struct raft_member at[LIMIT_MEMBERS];
};

const struct raft_member *raft_members_find(const struct raft_members *m, raft_id id); /* NULL: not a member; lends */
const struct raft_member *raft_members_find_node(const struct raft_members *m,
                                                 const char *node); /* the newest: a learner before a voter */
bool raft_members_joint(const struct raft_members *m);
enum grey_error raft_members_put(struct raft_members *m,
                                 const struct raft_member *member); /* adds or replaces by id; E_TOO_LARGE */
void raft_members_remove(struct raft_members *m, raft_id id);       /* harmless when absent */

/* raft_members_check: order, ids, names, addresses, flags that fit together, 1 to LIMIT_VOTERS voters in each set in use, and so few
 * witnesses among them that every majority has a member that holds payloads.  E_BAD_MESSAGE. */
enum grey_error raft_members_check(const struct raft_members *m);

/* raft_members_plan: the configuration to propose next for `now` to become `want` (of which voter_old and leaving are ignored):
 * `want` itself when at most one voter changes, else the joint one (thesis 4.3).  E_BAD_MESSAGE, E_TOO_LARGE. */
enum grey_error raft_members_plan(const struct raft_members *now, const struct raft_members *want, struct raft_members *next);
void raft_members_leave_joint(struct raft_members *m); /* what follows a joint configuration */

/* Payload of ENTRY_CONFIG, deterministic CBOR: an array of [id, flags, node, peer address, HTTP address, public key];
 * flags: 1 voter, 2 voter_old, 4 witness, 8 leaving; the key: 32 bytes, or none.  Entries of five fields are older and have no key.  Reading checks everything (raft_members_check): E_BAD_CBOR, E_BAD_MESSAGE; m is then
 * undefined. */
void raft_members_encode(const struct raft_members *m, struct builder *out);
enum grey_error raft_members_decode(struct bytes in, struct raft_members *m);

#endif
