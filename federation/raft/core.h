/* core.h: the inside of one Raft member, shared by the sources of this folder and nobody else.
 *
 * Who does what: raft.c takes inputs and hands out outputs; vote.c changes roles; replicate.c is the leader's way to its followers,
 * follow.c the follower's side of it; change.c moves from one membership to the next; read.c answers reads; entries.c holds the log.
 *
 *     base, window base <= applied <= commit <= last         entries; base may be above the window's: memory holds more then
 *     window base <= stored <= last
 *     commit <= verified <= last                             follower: the prefix known to equal the leader's of this term
 *     settled_index <= commit, settled_index <= members_index */
#ifndef FEDERATION_RAFT_CORE_H
#define FEDERATION_RAFT_CORE_H

#include "federation/raft/entries.h"
#include "federation/raft/quorum.h"
#include "federation/raft/raft.h"
#include "include/grey/must.h"

#define RAFT_NUMBER_MAX (UINT64_C(1) << 62) /* terms, indexes: above, a message is a lie */
#define RAFT_CLOCK_STEP_MS_MAX 60000        /* DECISIONS 7 */
#define RAFT_APPENDS_PER_STEP 4u            /* to one peer; the answers bring the next ones */
#define RAFT_LOADED_INFLIGHT_MAX 2u         /* to a peer that is far behind: one is read while it writes the other */
#define RAFT_REMOTE_READS_MAX 64u           /* requests of followers that wait at a leader */
#define RAFT_INFLIGHT_MAX 256u
#define RAFT_SENDS_MAX (LIMIT_MEMBERS * (RAFT_APPENDS_PER_STEP + 4) + RAFT_REMOTE_READS_MAX)
#define RAFT_NOTES_MAX 32u
#define RAFT_ROUNDS_KEPT 64u    /* rounds of heartbeats whose time of sending a leader remembers */
#define RAFT_COMMIT_WAIT_MS 10u /* a follower hears of a commit at the latest then; the next append mostly tells it sooner */

enum peer_mode {
    PEER_PROBE,     /* where its log meets ours is not known: one append at a time */
    PEER_REPLICATE, /* known: appends go out before the former are answered */
    PEER_SNAPSHOT,  /* what it needs is compacted: it was told to fetch the snapshot */
};

/* What a leader knows of one member; a candidate uses `vote` only.  Parallel to members.at, this member's own place is not used
 * but for `vote`. */
struct peer {
    raft_id id;
    enum peer_mode mode;
    enum quorum_vote vote;
    raft_index match;       /* durable there and equal to ours; never falls within a term */
    raft_index next;        /* the next entry to send */
    raft_index commit_sent; /* the commit index it can know of */
    struct raft_point prev; /* the entry before next, when that was read from disk */
    uint64_t heard_ms;      /* last answer in this term */
    uint64_t progress_ms;   /* match rose, or a probe for lost appends went out */
    uint64_t retry_ms;      /* neither a snapshot offer nor a load before this */
    uint64_t round;         /* last round of heartbeats that it answered */
    uint64_t round_ms;      /* when that round was sent; 0: not known */
    bool probe_sent;        /* PEER_PROBE: an append is on the way */
    bool hurried;           /* it is told of the next commit at once */
    uint64_t tell_ms;       /* when a commit that it does not know of is told by itself; 0: it knows */
    raft_index *inflight;   /* ring: last index of each append on the way */
    uint32_t inflight_start, inflight_count;
};

/* An outstanding request to the owner to read entries from disk.  It outlives roles: the answer to a former one must not be taken for
 * that to a new one. */
struct load {
    raft_id peer;          /* 0: free */
    raft_index from, last; /* entries above last were not settled when this was asked */
    bool stale;
};

struct read_wait {
    uint64_t context; /* the owner's, or the request number of a follower */
    raft_id peer;     /* 0: the owner asked */
    uint64_t since_ms;
};

struct raft {
    struct raft_config config;
    enum raft_role role;
    raft_term term;
    raft_id vote, leader;
    uint64_t now_ms;
    int64_t wall_ms;
    uint64_t random; /* state of the generator */

    struct entries log;
    struct raft_point base; /* the snapshot's */
    uint64_t base_store_id; /* a witness: the unit that makes the base durable */
    raft_index commit, applied, verified;
    raft_index term_start; /* leader: its no-op */

    uint64_t store_next;    /* id of the next unit to store */
    uint64_t stored_id;     /* reported durable */
    uint64_t vote_store_id; /* the unit that holds the present term and vote */

    struct raft_members members; /* the latest in the log */
    struct raft_members settled; /* the latest not above commit */
    raft_index members_index, settled_index;
    struct peer peers[LIMIT_MEMBERS];
    raft_index *inflight_memory;
    struct load loads[LIMIT_MEMBERS];

    uint64_t election_deadline_ms, heartbeat_deadline_ms;
    uint64_t leader_heard_ms; /* no vote within an election time-out of this; of the start, at a member that may have promised so */
    bool leader_heard;        /* leader_heard_ms counts */
    bool reluctant;           /* to lead */

    raft_id transfer_to;
    uint64_t transfer_deadline_ms;
    bool transfer_sent;

    bool installing;
    struct raft_point install_point;

    int64_t anchor_time_ms; /* leader: log time at anchor_ms */
    uint64_t anchor_ms;

    struct read_wait reads[RAFT_READS_MAX + RAFT_REMOTE_READS_MAX]; /* oldest first; the first reads_running are under way */
    uint32_t read_count, reads_running, reads_local;
    uint64_t round;      /* leader: of the last heartbeats to all; follower: number of the last request */
    uint64_t read_round; /* leader: the round that the reads under way wait for */
    raft_index round_index;
    uint64_t round_sent_ms[RAFT_ROUNDS_KEPT]; /* by round number */
    bool lease_void;                          /* leader: TIMEOUT_NOW is on the way, who knows how long */
    uint64_t lease_barred_until_ms;           /* after RAFT_IN_CLOCK_UNSURE */
    uint64_t read_retry_ms;

    /* what this step puts out */
    bool store_used, store_vote, rebase;
    raft_index truncate_from, store_first, proposed_index;
    struct raft_send sends[RAFT_SENDS_MAX + 1]; /* the last: for what is one too many */
    struct raft_read reads_out[RAFT_READS_MAX];
    struct raft_load loads_out[LIMIT_MEMBERS];
    struct raft_note notes[RAFT_NOTES_MAX];
    uint32_t send_count, reads_out_count, load_count, note_count;
    bool install_out;
    raft_id install_from;
};

/* raft.c */
void raft_note(struct raft *r, enum raft_note_kind kind, uint64_t a, uint64_t b);
void raft_refuse(struct raft *r, const struct raft_message *m); /* notes RAFT_NOTE_REFUSED */
/* raft_emit: a message to send, term, sender and receiver filled in; it waits for the term to be durable.  Lends. */
struct raft_message *raft_emit(struct raft *r, enum raft_message_kind kind, raft_id to, uint64_t after_store_id);
uint64_t raft_store_unit(struct raft *r); /* id of the unit that this step stores */
void raft_commit_to(struct raft *r, raft_index index);
uint64_t raft_random(struct raft *r, uint64_t bound);                                  /* below bound */
uint32_t raft_room(const struct raft *r, const struct entry *entries, uint32_t count); /* how many of them memory may take */

/* vote.c */
void vote_draw_deadline(struct raft *r);
void vote_follow(struct raft *r, raft_term term, raft_id leader); /* follower from now on, of this leader (0: not known) */
void vote_campaign(struct raft *r, bool transfer);
void vote_stored(struct raft *r);
bool vote_ignores(const struct raft *r, const struct raft_message *m); /* leader stickiness */
void vote_on_request(struct raft *r, const struct raft_message *m);
void vote_on_reply(struct raft *r, const struct raft_message *m);

/* replicate.c */
struct peer *replicate_peer(struct raft *r, raft_id id); /* NULL: not a member, or this one */
void replicate_begin(struct raft *r);                    /* this member leads from now on */
void replicate_end(struct raft *r);
void replicate_clock(struct raft *r, int64_t clock_ms); /* the next entry, an ENTRY_CLOCK, has this time */
enum grey_error replicate_append(struct raft *r, uint16_t kind, uint16_t schema, struct blob *payload);
void replicate_flush(struct raft *r);     /* at the end of every step of a leader */
void replicate_heartbeat(struct raft *r); /* to all */
void replicate_commit(struct raft *r);
uint64_t replicate_deadline_ms(const struct raft *r); /* of the next heartbeat, or word of a commit */
uint64_t replicate_quorum_ms(const struct raft *r);   /* when a majority was last heard */
void replicate_on_append_reply(struct raft *r, const struct raft_message *m);
void replicate_on_heartbeat_reply(struct raft *r, const struct raft_message *m);
void replicate_on_loaded(struct raft *r, const struct raft_input *in);
void replicate_link_down(struct raft *r, raft_id id);
void replicate_hurry(struct raft *r, raft_id id);
enum grey_error replicate_transfer(struct raft *r, raft_id to);
void replicate_tick(struct raft *r);

/* follow.c */
void follow_on_append(struct raft *r, const struct raft_message *m);
void follow_on_heartbeat(struct raft *r, const struct raft_message *m);
void follow_on_snapshot(struct raft *r, const struct raft_message *m);
enum grey_error follow_installed(struct raft *r, const struct raft_point *point, const struct raft_members *members,
                                 raft_index members_index);
void follow_answer_stale(struct raft *r, const struct raft_message *m); /* to a leader of a former term */

/* change.c */
void change_take(struct raft *r, const struct entry *e);               /* an ENTRY_CONFIG was appended */
void change_truncated(struct raft *r, raft_index from);                /* the log ends before `from` now */
void change_committed(struct raft *r, raft_index before);              /* commit rose from there */
bool change_before(const struct raft *r, struct raft_members *before); /* what the latest replaces; false: that is committed */
void change_install(struct raft *r, const struct raft_members *members, raft_index index);
void change_peers(struct raft *r);            /* makes peers parallel to members */
enum grey_error change_begin(struct raft *r); /* the first entry of a leader's term */
enum grey_error change_propose(struct raft *r, const struct raft_members *want);
void change_go_on(struct raft *r); /* leader: leaves a joint phase, or steps down, when commit allows */

/* read.c */
enum grey_error read_ask(struct raft *r, uint64_t context);
void read_on_request(struct raft *r, const struct raft_message *m);
void read_on_reply(struct raft *r, const struct raft_message *m);
void read_flush(struct raft *r);
void read_begin(struct raft *r);      /* this member leads: round 0 begins now */
void read_round_sent(struct raft *r); /* a new round of heartbeats goes out */
void read_round_answered(struct raft *r, struct peer *p, uint64_t round);
uint64_t read_lease_until_ms(const struct raft *r); /* 0: no lease */
void read_clock_misbehaved(struct raft *r);
void read_tick(struct raft *r);
void read_restart(struct raft *r); /* role or leader changed */

#endif
