/* raft.h: one member of one Raft group, without I/O (Raft: Ongaro's thesis; pre-vote 9.6, check-quorum 6.2, ReadIndex 6.4,
 * leader writes its disk in parallel 10.2.1, membership 4.3, transfer 3.10).
 *
 * The same code runs within a site and among sites, in greyd and in the simulator.  The owner gives inputs one by one and carries
 * out what each output says.  No system call, no clock, no logging: time is in->now_ms, chance comes from config.seed.  Memory is
 * allocated in raft_new and for entries (bounded by window_*), nowhere else.
 *
 * now_ms must be read after the message arrived, or the client's read was taken up, that the input is about: a lease, and a follower's
 * promise behind it, are worth as much as these times (read.c).
 *
 * The rule of durability: whatever promises something (a vote, an append acknowledgement, a candidate's own vote) is a send with
 * `after_store_id` > 0 and may leave only when the storage reported that store id.  A leader's appends have after_store_id 0: they
 * leave at once, beside its own disk write; its own copy counts only after RAFT_STORED. */
#ifndef FEDERATION_RAFT_RAFT_H
#define FEDERATION_RAFT_RAFT_H

#include "federation/raft/member.h"
#include "include/grey/entry.h"

#define RAFT_LOAD_BYTES_MAX 32768u /* of one read for a follower that is far behind: the leader's disk and loop have other work */
#define RAFT_READS_MAX 1024u       /* reads of the owner that wait; above, RAFT_IN_READ gets E_BUSY */
#define RAFT_LEASE_MARGIN_MS 10u   /* rounding of clocks to milliseconds on both sides, and some */
#define RAFT_LEASE_PAUSE_MS 10000u /* after RAFT_IN_CLOCK_UNSURE */

struct raft;

struct raft_config {
    raft_id self;
    uint32_t heartbeat_ms;                                     /* 150 */
    uint32_t election_timeout_ms_min, election_timeout_ms_max; /* 300, 500 */
    uint32_t window_entries, window_bytes;                     /* entries kept in memory beyond what must be; see raft_entry */
    uint32_t proposed_entries_max, proposed_bytes_max;         /* not committed yet, at a leader; above: E_LOG_FULL */
    uint32_t message_bytes_max;                                /* payload bytes of one append (one entry may be larger) */
    uint32_t inflight_messages_max;                            /* appends on the way to one peer */
    uint32_t snapshot_retry_ms;                                /* an unanswered snapshot offer is repeated after this */
    bool lease_reads;                                          /* a leader answers reads from its lease while that holds (read.c) */
    bool witness;                 /* this member holds headers only and never leads; the memberships must say so too */
    uint32_t clock_drift_percent; /* the lease holds while no two clocks of the group run apart by more; above 99: no lease */
    uint64_t seed;
};

/* A point of the log that a snapshot stands for. */
struct raft_point {
    raft_index index;
    raft_term term;
    int64_t time_ms;
    uint8_t hash[DIGEST_BYTES];
};

/* What the disk said at start.  All borrowed. */
struct raft_start {
    raft_term term;
    raft_id vote;
    struct raft_point base;             /* entries up to here are only in the snapshot; zeros for a new log */
    raft_index applied_index;           /* committed for sure; >= base.index */
    const struct raft_members *members; /* in force at applied_index; NULL: a new node that waits to be added */
    raft_index members_index;           /* where that membership stands; 0 with members: bootstrap of a new group;
                                           its first leader makes them entry 1 */
    struct raft_point window_base;      /* the entry before entries[0]; equals base when all fit in memory */
    const struct entry *entries;        /* window_base.index + 1 ... last, hashes verified by the owner */
    uint32_t entry_count;               /* at least all entries above applied_index */
};

enum raft_role { RAFT_FOLLOWER, RAFT_PRE_CANDIDATE, RAFT_CANDIDATE, RAFT_LEADER };

enum raft_message_kind {
    RAFT_PRE_VOTE = 1,
    RAFT_PRE_VOTE_REPLY,
    RAFT_VOTE,
    RAFT_VOTE_REPLY,
    RAFT_APPEND,
    RAFT_APPEND_REPLY,
    RAFT_HEARTBEAT,
    RAFT_HEARTBEAT_REPLY,
    RAFT_SNAPSHOT, /* "fetch my snapshot of `point`": the data is pulled by the owner of the receiving member.  To a witness: "all up to
                      `point` is committed", with the membership there; nothing is fetched */
    RAFT_READ_REQUEST,
    RAFT_READ_REPLY,  /* follower asks the leader for a read index */
    RAFT_TIMEOUT_NOW, /* transfer of leadership: campaign at once */
    RAFT_MESSAGE_KIND_COUNT
};

/* One message.  Which fields count depends on kind; the others are 0 (docs/CONSENSUS.md has the table, message.c the encoding). */
struct raft_message {
    enum raft_message_kind kind;
    raft_id from, to;
    raft_term term;
    raft_index
        index; /* APPEND: entry before the first; VOTE: candidate's last; APPEND_REPLY: match, or the index that did not match */
    raft_term log_term;      /* term at `index`; in a refused APPEND_REPLY: term at hint_index */
    raft_index hint_index;   /* refused APPEND_REPLY: the leader need not look above this */
    raft_index commit_index; /* APPEND, HEARTBEAT (never above what the peer has acknowledged) */
    uint64_t round;          /* HEARTBEAT and reply: number of the read round; READ_*: the follower's request number */
    bool refused;            /* replies */
    bool transfer;           /* VOTE, PRE_VOTE: by order of the leader; overrides leader stickiness */
    bool headers;            /* APPEND: to a witness; payloads other than memberships need not be sent, but their digests */
    const struct raft_members *members; /* SNAPSHOT to a witness: in force at `point`; else NULL.  Lends as entries do */
    raft_index members_index;           /*   where that stands */
    uint8_t hash[DIGEST_BYTES];         /* APPEND: chain hash at `index`; SNAPSHOT: in point */
    uint8_t last_hash[DIGEST_BYTES];    /* APPEND with entries: chain hash after the last of them */
    struct raft_point point;            /* SNAPSHOT */
    const struct entry
        *entries;         /* APPEND: index + 1 ...; received ones need index, term, epoch, time_ms, kind, schema and payload (or */
    uint32_t entry_count; /* stripped_bytes and digest); digest and hash are computed here and compared with last_hash */
};

struct raft_proposal {
    uint16_t kind, schema;
    struct blob *payload; /* borrowed; raft takes a reference of its own */
};

enum raft_input_kind {
    RAFT_IN_TICK,      /* time passes.  Every input carries the time; tick at least by raft_deadline_ms */
    RAFT_IN_MESSAGE,   /* message, borrowed; from a member or a former one, its fields are not trusted */
    RAFT_IN_PROPOSE,   /* proposals, proposal_count: all or nothing; out->proposed_index is the first one's index */
    RAFT_IN_CLOCK,     /* proposals: one ENTRY_CLOCK; clock_ms: log time goes on from there, forwards or back (leader only) */
    RAFT_IN_MEMBERS,   /* members: the wanted set (voter flags; voter_old ignored); goes through a joint phase by itself when
                               more than one voter changes.  E_MEMBER_CHANGE_PENDING, E_NOT_LEADER */
    RAFT_IN_STORED,    /* store_id: the storage made everything up to this id durable */
    RAFT_IN_APPLIED,   /* index: the owner applied up to here; entries below may leave memory */
    RAFT_IN_READ,      /* context: wants a read index; answered in out->reads, maybe steps later, on any role */
    RAFT_IN_LOADED,    /* peer, entries, entry_count, load_index: answer to out->loads; entry_count 0: cannot be read (damage) */
    RAFT_IN_COMPACTED, /* point: a snapshot stands for all up to here; older entries are gone from the disk's log */
    RAFT_IN_SNAPSHOT_DONE,   /* point, members, index (members_index): the owner installed the snapshot that out->install named */
    RAFT_IN_SNAPSHOT_FAILED, /* it could not be fetched; the leader will offer again */
    RAFT_IN_LINK_DOWN,       /* peer: what was on the way to it may be lost */
    RAFT_IN_HURRY,           /* peer: what is committed gives it work: it hears of that without delay, if this leads */
    RAFT_IN_TRANSFER,        /* peer, 0: the best follower; out of leadership when it is caught up */
    RAFT_IN_CLOCK_UNSURE,    /* the clock behind now_ms jumped or stood still: no lease for RAFT_LEASE_PAUSE_MS, and no vote before
                                an election time-out has passed */
};

struct raft_input {
    enum raft_input_kind kind;
    uint64_t now_ms;  /* monotonic */
    int64_t wall_ms;  /* used only when this step makes the member a leader: log time may then move up to 60 s towards it */
    int64_t clock_ms; /* RAFT_IN_CLOCK: Unix milliseconds */
    const struct raft_message *message;
    const struct raft_proposal *proposals;
    uint32_t proposal_count;
    const struct raft_members *members;
    uint64_t store_id, context;
    raft_index index;
    raft_id peer;
    const struct entry *entries; /* RAFT_IN_LOADED: complete with hashes */
    uint32_t entry_count;
    raft_index load_index;
    const struct raft_point *point;
};

struct raft_send {
    struct raft_message message; /* entries: lent until the next step */
    uint64_t after_store_id;     /* 0: may leave at once */
};
struct raft_read {
    uint64_t context;
    raft_index index;    /* serve the read when this is applied */
    enum grey_error err; /* E_OK, E_NO_QUORUM or E_NOT_LEADER */
    bool lease;          /* answered from this leader's lease: nobody was asked */
};
struct raft_load {
    raft_id peer;
    raft_index from;    /* read entries from here on ... */
    uint32_t bytes_max; /* ... at least one, about this many bytes, none above the log's end */
};

/* What happened, for logs and tests. */
enum raft_note_kind {
    RAFT_NOTE_ROLE,             /* a: raft_role, b: term */
    RAFT_NOTE_LEADER,           /* a: leader or 0, b: term */
    RAFT_NOTE_QUORUM_LOST,      /* leader stepped down: no majority answered for an election time-out */
    RAFT_NOTE_DIVERGED,         /* a: index, b: peer: equal term, other hash: this node's log is damaged; it must be fenced */
    RAFT_NOTE_REFUSED,          /* a: message kind, b: peer: malformed or impossible message, ignored */
    RAFT_NOTE_MEMBERS,          /* a: index: a membership entry took effect */
    RAFT_NOTE_SNAPSHOT_OFFERED, /* a: peer, b: index */
    RAFT_NOTE_TRUNCATED,        /* a: from index, b: to index: entries that never were committed give way */
};
struct raft_note {
    enum raft_note_kind kind;
    uint64_t a, b;
};

/* Lent until the next step on r.  Carry out in this order: store (start), sends with after_store_id 0, the rest. */
struct raft_output {
    uint64_t store_id; /* > 0: make durable, as one unit: */
    bool store_vote;   /*   term and vote below */
    raft_term term;
    raft_id vote;
    raft_index truncate_from;                  /*   > 0: forget stored entries from here on (before appending) */
    raft_index store_first, store_last;        /*   entries to append, by raft_entry; none when store_last < store_first */
    const struct raft_point *rebase;           /*   a witness: forget the whole log, which goes on behind this point; else NULL */
    const struct raft_members *rebase_members; /*     the membership there, to be stored with it */
    raft_index rebase_members_index;

    const struct raft_send *sends;
    uint32_t send_count;
    raft_index commit_index; /* entries up to here may be applied, by raft_entry */
    raft_index proposed_index;
    const struct raft_read *reads;
    uint32_t read_count;
    const struct raft_load *loads;
    uint32_t load_count;
    bool install; /* fetch and install the snapshot of install_point from member install_from */
    raft_id install_from;
    struct raft_point install_point;
    const struct raft_note *notes;
    uint32_t note_count;
};

/* config and start are copied (entries: references taken).  NULL and fault when out of memory or the start is inconsistent. */
struct raft *raft_new(const struct raft_config *config, const struct raft_start *start, uint64_t now_ms);
void raft_free(struct raft *r);

/* raft_step: give one input, collect what must now happen.  E_OK, or a refusal that left r unchanged: E_NOT_LEADER, E_LOG_FULL,
 * E_MEMBER_CHANGE_PENDING, E_BAD_MESSAGE.  *out is filled in any case. */
enum grey_error raft_step(struct raft *r, const struct raft_input *in, struct raft_output *out);

/* raft_set_reluctant: this member should not lead: it waits for RAFT_RELUCTANT_TIMEOUTS more election time-outs before it campaigns, so that
 * others go first, and takes no leadership that is handed to it.  It still leads when nobody else can. */
#define RAFT_RELUCTANT_TIMEOUTS 10u
void raft_set_reluctant(struct raft *r, bool reluctant);

uint64_t raft_deadline_ms(const struct raft *r); /* tick no later than this */

/* The entry at index, lent until the next step; NULL when it is not in memory.  Always in memory: everything not stored, not
 * applied (RAFT_IN_APPLIED) or among the last window_entries / window_bytes. */
const struct entry *raft_entry(const struct raft *r, raft_index index);

struct raft_peer_status {
    raft_id id;
    raft_index match_index, next_index;
    bool active;  /* answered within the last election time-out */
    uint8_t mode; /* 0 probe, 1 replicate, 2 snapshot */
};
struct raft_status {
    enum raft_role role;
    raft_term term;
    raft_id self, vote, leader; /* leader 0: unknown */
    raft_index base_index, last_index, stored_index, commit_index, applied_index;
    uint8_t last_hash[DIGEST_BYTES];
    int64_t last_time_ms;       /* log time of the last entry */
    uint64_t quorum_contact_ms; /* leader: when a majority was last heard of; follower: when the leader was */
    uint64_t lease_until_ms;    /* leader: reads are answered at once before this; 0: no lease */
    raft_index members_index;
    const struct raft_members *members; /* the latest, committed or not; lends until the next step */
    bool members_committed;
    uint32_t peer_count;
    struct raft_peer_status peers[LIMIT_MEMBERS]; /* leader only */
};
void raft_status(const struct raft *r, struct raft_status *s);
int64_t raft_log_time_ms(const struct raft *r,
                         uint64_t now_ms); /* leader: time the next entry would get; else that of the last entry */

#endif
