/* node.h: one gateway of the site: turns events of the loop into inputs of the Raft core, and its outputs into deeds
 * (store, send, apply, answer).  Owns the state, the storage thread and the links to the other gateways.  Thread: the loop's.
 *
 * The way of a proposal: node_propose -> (a follower forwards it to the leader) -> batch of the turn -> raft_step -> storage and peers
 * side by side -> commit -> the rows it needs are in memory -> state_apply -> done. */
#ifndef AGENT_NODE_H
#define AGENT_NODE_H

#include "agent/node/peers.h"
#include "agent/node/signer.h"
#include "agent/state/standing.h"
#include "agent/state/state.h"
#include "agent/store/sitelog.h"
#include "agent/store/wear.h"
#include "federation/offload.h"
#include "federation/proof.h"

struct node;

struct node_options {
    const char *node, *site;
    const char *data_dir, *wal_dir;
    const char *vault; /* socket of the service that seals the signing key to the TPM; NULL: the key is in a plain file */
    const char *peer_listen_address;         /* NULL: a group of one without peers */
    const char *peer_address, *http_address; /* what others are told */
    const char *seeds;                       /* --join: addresses, comma separated; may be empty */
    bool bootstrap;                          /* acts on an empty directory only, and only when no seed answers with a cluster */
    const struct conn_tls *tls;              /* for peers; NULL: plain */
    uint32_t heartbeat_ms, election_timeout_ms_min, election_timeout_ms_max;
    bool witness;     /* votes, holds headers only, never leads, answers no client */
    bool lease_reads; /* as leader, answer reads without asking while a majority has promised to follow (federation/raft/read.c) */
    uint32_t clock_drift_percent;
    uint32_t snapshot_threshold_entries, snapshot_interval_s, snapshots_kept;
    uint32_t check_interval_s;        /* all that is on disk is verified once in so long; 0: never */
    uint64_t write_bytes_per_day_max; /* above it what can wait shares its writes; 0: no bound */
    uint32_t commit_delay_ms;         /* events below critical may wait this long to share a commit */
    uint32_t seal_interval_ms;        /* the leader signs what is committed this often, when there is something new */
    uint32_t request_timeout_ms;      /* without a leader, requests wait this long; then 503 */
    struct queue_limits queue;        /* proposed as ENTRY_LIMITS by a leader that finds others in force */
    uint32_t offline_hours_max;       /* an alarm when something has waited longer for the core; 0: never */
    bool offers_work; /* tasks may be placed here, within these bounds, once something can run them: node_can_work */
    uint64_t task_cpu_millicores, task_memory_bytes;
    uint32_t proof_s;      /* how long proofs of runs are kept; 0: none are made; proposed likewise */
    bool has_verifier_key; /* results of attestation are checked with it; without it none counts here */
    uint8_t verifier_key[KEYS_ED25519_PUBLIC_BYTES];
    uint32_t tasks_max; /* of the site at a time; proposed by a leader that finds another value in force */
    bool overcommit;    /* shares may add up to more than there is; likewise */
    enum {
        OFFLOAD_WHEN_NEVER,
        OFFLOAD_WHEN_ALWAYS,
        OFFLOAD_WHEN_HIGH_LOAD,
        OFFLOAD_WHEN_SCHEDULED
    } offload_when;            /* the leader's counts */
    const char *offload_hours; /* of SCHEDULED: five fields of a crontab */
    uint32_t burst_s;          /* how long a tenant may be above its share; likewise */
};

struct node_events {
    void (*leading)(void *context, bool leads,
                    grey_epoch epoch); /* this node became or ceased to be a leader that has applied an entry of its term */
    void (*applied)(void *context, const struct entry *e); /* after each entry; may be NULL */
    void (*asked)(
        void *context, raft_id from,
        const struct message *m); /* of a member: MESSAGE_OUTPUT_FETCH, _OUTPUT, _REACH_ASK, _REACH, _LINK_ASK, _LINK, _ATTEST */
    void (*failed)(void *context, enum grey_error err, const char *detail); /* the node must stop: disk, damage, unknown entry */
};

/* Opens the disk (blocks) and starts.  NULL and fault on error. */
struct node *node_new(const struct conn_context *x, const struct node_options *o, const struct node_events *events, void *context,
                      struct fault *f);
void node_leave_leadership(struct node *n); /* takes no more requests; hands leadership on if there is someone to take it */
void node_free(struct node *n);             /* finishes storage jobs; pending requests are answered E_STOPPING */

/* --- requests: each calls done exactly once, on a later turn ------------------------------------------------------------------- */
struct node_answer { /* lent during done */
    enum grey_error err;
    const char *detail;
    uint64_t receipt;    /* > 0: events that are kept on this gateway until the site has a leader; there is no answer yet */
    raft_index index;    /* of the entry, or the index a read may be served at */
    grey_epoch epoch;    /* of the leader that proposed the entry: a fencing token.  0: there is no entry */
    bool lease;          /* a read: answered from this node's lease as leader */
    struct bytes answer; /* CBOR of agent/state/state.h */
};
typedef void node_done(void *context, const struct node_answer *a);

/* Proposes one entry; payload: borrowed (a reference is taken).  urgent: never waits for company.
 * E_OK (committed and applied), what the state refused (E_CONDITION ...), E_NO_QUORUM, E_LOG_FULL, E_BUSY (certainly not proposed),
 * E_OUTCOME_UNKNOWN. */
void node_propose(struct node *n, enum entry_kind kind, struct blob *payload, bool urgent, node_done *done, void *context);
/* Done with E_OK when this node has applied all that was committed anywhere before the call (ReadIndex). */
void node_read_barrier(struct node *n, node_done *done, void *context);
void node_check_certificates(struct node *n); /* lists of revoked ones were read: see peers.h */
/* What an operator orders.  Any node takes it; the leader carries it out.  A removal is one change, joint when it concerns several
 * voters; done when it is committed.  Those invited are dialled by the leader for ten minutes and join by themselves.
 * E_NOT_FOUND, E_MEMBERSHIP, E_MEMBER_CHANGE_PENDING, and those of node_propose. */
struct node_order {
    bool force; /* remove although too few of those who stay answer */
    uint32_t remove_count, invite_count;
    struct grey_name remove[LIMIT_MEMBERS];
    struct {
        struct grey_name name;
        char address[LIMIT_ADDRESS_BYTES + 1];
    } invite[LIMIT_MEMBERS];
    bool transfer;       /* instead: hand leadership on */
    struct grey_name to; /* to whom; empty: the best follower */
};
void node_order(struct node *n, const struct node_order *o, node_done *done, void *context);
/* Makes and signs the proof of a run that has ended here: of facts, the task, the token, indexes of its steps, the end, output and use.
 * done is called once, at once or later; proof (lent) is NULL when the order cannot be read any more, or there is no memory. */
typedef void node_proved(void *context, struct blob *proof);
void node_prove(struct node *n, const struct proof *facts, node_proved *done, void *context);
/* Whether tasks can be run on this machine now; nobody has said so at the start.  Those that are here already stay. */
void node_can_work(struct node *n, bool can);
/* What tasks use here, in permille of what they may use; hot: the machine has no room for more, whatever they asked for. */
#define NODE_USE_PERMILLE_MAX 100000u
struct node_use {
    uint32_t cpu_permille, memory_permille;
    bool hot;
};
void node_measured(struct node *n, const struct node_use *use);
raft_id node_fenced(const struct node *n); /* leader: the member whose state differed; 0: none */
bool node_removed(const struct node *n);   /* the site goes on without this node, for good */

/* Events that this gateway keeps until the site has a leader again (agent/node/provisional.c).  receipt 0: it keeps no such event. */
void node_provisional_find(struct node *n, struct bytes source, struct bytes id,
                           void (*done)(void *context, uint64_t receipt, uint32_t element), void *context);
/* Something on this disk is not what was written to it.  As soon as the site can spare this node it stops, to be mended at the next start
 * (from the others, where it takes them); until then it goes on as well as it can.  What reading meets comes here by itself; call it for what
 * only shows when things are compared. */
void node_damaged(struct node *n, enum sitelog_damage what, const char *detail);
struct disk_facts {
    const char *damage;          /* what waits to be mended; lent; NULL: nothing */
    uint32_t checked_percent;    /* of the databases, in this round */
    uint64_t rounds;             /* since the start */
    int64_t round_ended_unix_ms; /* 0: none has */
};
void node_disk_facts(const struct node *n, struct disk_facts *out);
const struct wear *node_wear(const struct node *n); /* lent */
void node_provisional_facts(const struct node *n, uint64_t *events, uint64_t *bytes);

/* Makes rows of the state readable by state_*: done when they are in memory.  wants: see sitelog_want; taken. */
void node_fetch_rows(struct node *n, struct builder *wants, node_done *done, void *context);
/* Rows of one table with low <= key < high in key order, from memory and disk merged, at most rows_max. */
struct node_row {
    struct bytes key, value;
    raft_index ref;
};
void node_scan(struct node *n, enum table_id id, struct bytes low, struct bytes high, uint32_t rows_max,
               void (*done)(void *context, enum grey_error err, const struct node_row *rows, size_t count, bool more),
               void *context);
/* The payload of a committed entry, from memory or disk.  E_NOT_FOUND: it is gone, nothing refers to it any more; E_CORRUPT, E_NO_MEMORY,
 * E_BUSY.  payload: lent during done; NULL unless E_OK. */
typedef void node_payload_done(void *context, enum grey_error err, const char *detail, struct blob *payload);
void node_payload(struct node *n, raft_index index, node_payload_done *done, void *context);
struct blob *node_payload_in_memory(struct node *n, raft_index index); /* lends for this turn; NULL: not in memory */

/* Writes a snapshot now; self_contained: one that `greyd restore` can use. */
void node_snapshot(struct node *n, bool self_contained,
                   void (*done)(void *context, enum grey_error err, const struct sitelog_snapshot_info *info, const char *detail),
                   void *context);

/* --- questions ------------------------------------------------------------------------------------------------------------------ */
struct state *node_state(struct node *n);
struct table *node_table(struct node *n);
struct sitelog *node_log(struct node *n);
struct peers *node_peers(struct node *n);
void node_raft_status(const struct node *n, struct raft_status *s);
const struct raft_member *node_member(const struct node *n, raft_id id); /* of the latest membership; NULL */
const char *node_leader_name(const struct node *n);                      /* "" when unknown; lends until the next turn */
raft_index node_applied(const struct node *n);
bool node_is_witness(const struct node *n);
/* As leader: no other gateway that holds data keeps up, so what is answered lies on this disk only (and on a witness that vouches for
 * it).  False on others, who cannot know. */
bool node_on_one_disk(const struct node *n);
bool node_has_quorum(const struct node *n); /* leader: a majority answers; follower: it hears a leader */
const char *node_name(const struct node *n);
const char *node_site(const struct node *n);
uint64_t node_cluster_id(const struct node *n);
uint32_t node_requests_waiting(const struct node *n);
/* Of the uplink: it can reach a core that has a worker for tasks; and what became of one.  r is lent. */
void node_core_worker(struct node *n, bool there);
void node_task_result(struct node *n, const struct offload_result *r);
void node_core_time(struct node *n, int64_t time_ms); /* the core's wall time, as it said over its authenticated channel */
/* How far each member may be trusted, as this gateway judges; lends until the next turn.  Empty on a witness. */
const struct standings *node_standings(const struct node *n);
bool node_quarantined(const struct node *n);            /* this gateway is, as it judges itself */
const struct signer *node_signer(const struct node *n); /* this gateway's own key; lends for the node's life */
/* The newest seal of the log that is known to hold here (index 0: none), and who made it. */
void sealing_status(const struct node *n, struct seal *newest, struct sealdb_signer *signer);
const char *node_clock_source(const struct node *n); /* whom this gateway's idea of the time comes from: "core", "site", "unsure" */
bool node_overdue(const struct node *n);             /* something has waited longer than offline_hours_max */
int64_t node_site_time_ms(const struct node *n);     /* log time now, as far as this node knows */
/* How long tasks that may not outlive the contact with the site may still run here, if no more is heard: half the time after which the
 * others take this node for lost and begin them elsewhere.  0: no contact. */
uint32_t node_work_lease_ms(const struct node *n);
/* How sure this leader is that a member is gone (agent/work/phi.h), in thousandths of phi; false: nothing can be said, for this gateway
 * does not lead, or has heard too little of that one. */
bool node_phi_milli(const struct node *n, raft_id id, uint32_t *milli);

#endif
