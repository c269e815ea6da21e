/* entry.h: what stands in the site's log.  Payload formats: docs/FORMATS.md. */
#ifndef GREY_ENTRY_H
#define GREY_ENTRY_H

#include "include/grey/ids.h"
#include "include/grey/slice.h"

/* An unknown kind or schema fences the node (DECISIONS 5); numbers are never reused. */
enum entry_kind {
    ENTRY_NOOP = 0,     /* first entry of a term; no payload */
    ENTRY_CONFIG = 1,   /* membership (federation/raft/member.h) */
    ENTRY_SITE = 2,     /* site id, cluster id, incarnation, feature level: once, at bootstrap */
    ENTRY_CLOCK = 3,    /* ClockSet: a correction of log time above 60 s */
    ENTRY_KV = 4,       /* put or delete of one key, with its condition */
    ENTRY_EVENTS = 5,   /* one batch of events, all or nothing */
    ENTRY_ACK = 6,      /* the core's cumulative acknowledgement of a channel */
    ENTRY_LIMITS = 7,   /* bounds that decide what the state does (queue size), so that all nodes use the same */
    ENTRY_EXPIRE = 8,   /* events that have lived for their time leave the queue; no payload: the entry's time decides */
    ENTRY_TASK = 9,     /* what is asked or said of a task, or a step of the scheduler; feature level 2, as the next two */
    ENTRY_QUOTA = 10,   /* shares of tenants and namespaces, bounds of the scheduler */
    ENTRY_NODE = 11,    /* what a node has for tasks, and whether it takes any */
    ENTRY_OBJECT = 12,  /* configs, policies and data of the core (agent/state/holding.h); feature level 3 */
    ENTRY_TOKEN = 13,   /* a token of the API is granted or revoked; feature level 4, as the next one */
    ENTRY_NOTE = 14,    /* what an operator ordered that makes no entry in his name: for the audit trail; changes nothing */
    ENTRY_VERDICT = 15, /* what the core's verifier said of a gateway (agent/state/verdicts.h); feature level 6 */
    ENTRY_UPDATE = 17,  /* a gateway's word or turn in an update (agent/state/updating.h); feature level 6 */
    ENTRY_KIND_COUNT
};

#define ENTRY_SCHEMA 1 /* schema of all kinds so far */

#define DIGEST_BYTES 32u

/* One log entry.  `digest` = SHA-256 of the payload; `hash` = SHA-256 of the header encoding, which holds the previous entry's hash
 * (federation/raft/entries.h), so hash vouches for everything before.  payload: a reference of its own, NULL when empty. */
struct entry {
    raft_index index;
    raft_term term;
    grey_epoch epoch;
    int64_t time_ms; /* log time, Unix milliseconds; never goes back */
    uint16_t kind, schema;
    uint32_t
        stripped_bytes; /* a witness holds headers only: size of the payload that is not here, which digest stands for; else 0 */
    uint8_t digest[DIGEST_BYTES];
    uint8_t hash[DIGEST_BYTES];
    struct blob *payload;
};

#endif
