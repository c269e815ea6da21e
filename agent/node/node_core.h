/* node_core.h: the inside of a node, for the sources that share it and for nobody else:
 *   node.c      life, Raft inputs and outputs, turns
 *   apply.c     committed entries become state
 *   inbox.c     what other gateways say
 *   persist.c   what a Raft output wants on disk, and what waits for it
 *   membership.c joining, promoting, replacing, leaving
 *   provisional.c events taken without a leader
 *   orders.c    what operators order
 *   clockset.c  corrections of the site's time
 *   requests.c  proposals and reads of clients: held, batched, forwarded, answered
 *   catchup.c   snapshots between gateways, both sides
 *   upkeep.c    flushing rows, writing snapshots, compaction
 *   statehash.c do all hold the same state?
 *   foreman.c   what the scheduler of tasks needs from outside: offers, steps, losses
 *   firings.c   when schedules are due
 *   offloading.c  tasks that are with the core
 *   emergency.c   events of tasks that an emergency stopped
 *   sealing.c   signatures over what is committed
 *   quarantine.c what the verifier's word takes from a gateway
 *   diskwatch.c disks that forgot, disks that are slow
 *   diskcheck.c disks that are damaged
 *   rows.c      rows and payloads that may be on disk only */
#ifndef AGENT_NODE_CORE_H
#define AGENT_NODE_CORE_H

#include "agent/node/node.h"
#include "agent/node/signer.h"
#include "agent/state/agreement.h"
#include "agent/state/standing.h"
#include "agent/work/phi.h"

#define REQUESTS_MAX 8192u         /* clients and forwards together; above: E_BUSY */
#define APPLY_PER_TURN 512u        /* entries; the loop then looks at its sockets again */
#define HELD_SENDS_MAX 4096u       /* replies that wait for the disk */
#define FETCH_BYTES (256u * 1024u) /* snapshot chunk and payload batch between gateways */

/* --- requests.c ---------------------------------------------------------------------------------------------------------------- */
enum request_state { REQUEST_HELD, REQUEST_BATCHED, REQUEST_PROPOSED, REQUEST_FORWARDED, REQUEST_READING, REQUEST_READ_READY };

struct request {
    struct request *next, *previous;
    enum request_state state;
    bool is_read, urgent, may_keep; /* may_keep: events that may be taken provisionally */
    enum entry_kind kind;
    struct blob *payload;
    uint64_t deadline_ms;
    uint64_t received_us;
    raft_index index; /* PROPOSED: of the entry; READ_READY: to be applied */
    raft_term term;   /* PROPOSED */
    raft_term only;   /* a leader's decision: for the log of this term; 0: for any */
    bool lease;       /* READ_READY */
    uint64_t number;  /* FORWARDED: request number; READING: read round */
    raft_id forwarded_to;
    node_done *done;
    void *context;
};

struct request_list {
    struct request *first, *last;
    uint32_t count;
};

struct requests {
    struct request_list held, batched, proposed, forwarded, reading;
    uint32_t count;
    uint64_t next_number, batch_since_ms;
    size_t batch_bytes;
    struct loop_timer timer, batch_timer;
};

void requests_start(struct node *n);
void requests_stop(struct node *n); /* answers all E_STOPPING */
/* node_propose, but events are not kept here when there is no leader. */
void requests_propose(struct node *n, enum entry_kind kind, struct blob *payload, bool urgent, node_done *done, void *context);
/* What a leader decides by what it knows: never handed to another leader, which may know more (a result that the core has for a later run of
 * a task would be settled as one of a former run), nor proposed in a later term.  Then E_NOT_LEADER.  Outside a leader's term: as
 * requests_propose. */
void requests_decide(struct node *n, enum entry_kind kind, struct blob *payload, bool urgent, node_done *done, void *context);
/* End of a turn: proposes the batch, asks for a read index, forwards. */
void requests_turn(struct node *n);
void requests_leader_changed(struct node *n);
void requests_truncated(struct node *n, raft_index from); /* entries from here on will never be committed */
void requests_skipped(struct node *n, raft_index to);     /* a snapshot went past them: fate unknown */
void requests_read_index(struct node *n, const struct raft_read *read);
struct request *requests_waiting_for(struct node *n, raft_index index); /* NULL: nobody */
void requests_answer_proposed(struct node *n, struct request *q, const struct node_answer *a);
void requests_applied(struct node *n); /* reads whose index is applied now are answered */
void requests_link_down(struct node *n, raft_id peer);
void requests_forward(struct node *n, raft_id from, const struct message_forward *m);
void requests_forward_reply(struct node *n, raft_id from, const struct message_forward_reply *m);

/* --- catchup.c ------------------------------------------------------------------------------------------------------------------- */
enum catchup_phase { CATCHUP_IDLE, CATCHUP_IMAGE, CATCHUP_PAYLOADS, CATCHUP_INSTALL };

struct catchup {
    enum catchup_phase phase;
    raft_id from;
    struct raft_point point;
    raft_index payload_from;
    bool storing; /* a storage job of it is under way */
    struct sitelog_snapshot job;
    uint64_t progress_ms; /* when the last piece came */
    struct loop_timer timer;
};

void catchup_start(struct node *n, raft_id from, const struct raft_point *point);
void catchup_stop(struct node *n);
void catchup_fetch(struct node *n, raft_id from, const struct message_snapshot_fetch *m);
void catchup_chunk(struct node *n, raft_id from, const struct message_snapshot_chunk *m);
void catchup_payload_fetch(struct node *n, raft_id from, const struct message_payload_fetch *m);
void catchup_mend_fetch(struct node *n, raft_id from,
                        const struct message_mend_fetch *m); /* its log is damaged, and it lost them */
void catchup_payloads(struct node *n, raft_id from, const struct message_payloads *m);
void catchup_continue(struct node *n); /* after a flush or snapshot is done: installing may have waited for it */

/* --- upkeep.c ---------------------------------------------------------------------------------------------------------------------- */
struct upkeep {
    struct sitelog_flush flush;
    struct sitelog_snapshot snapshot;
    struct sitelog_compact compact;
    bool flushing, snapshotting, compacting, snapshot_due, snapshot_self_contained;
    uint64_t dirty_since_ms, snapshot_ms;
    uint64_t applied_bytes; /* of entries since the last flush */
    raft_index flushed_index;
    uint64_t log_bytes_at_snapshot;
    struct raft_point snapshot_point; /* the newest image */
    struct loop_timer timer;
    void (*snapshot_done)(void *context, enum grey_error err, const struct sitelog_snapshot_info *info, const char *detail);
    void *snapshot_context;
    /* A site that is quiet after a drain gives its disk back: two images, so that the log may go up to the first. */
    enum { TIDY_REST, TIDY_FIRST, TIDY_SECOND, TIDY_DONE } tidying;
    uint64_t numbers_given, quiet_since_ms, tidied_ms;
    uint64_t waited_bytes; /* the most that waited for the core since it last did so */
    raft_index tidy_index;
};

void upkeep_duty(struct node *n); /* each second */
void upkeep_start(struct node *n);
void upkeep_stop(struct node *n);
void upkeep_turn(struct node *n);
bool upkeep_idle(const struct node *n); /* no flush and no snapshot under way */

/* --- clockset.c: corrections of the site's time above 60 s, by the core's word or that of a majority of the gateways ------------------ */
struct clock_answer {
    raft_id from;
    int64_t time_ms; /* wall clock there ... */
    uint64_t at_ms;  /* ... when the answer came */
};

struct clockset {
    uint64_t asked_ms, core_ms; /* last round of questions; last word of the core, 0: none since the start */
    struct clock_answer answers[LIMIT_MEMBERS];
    uint32_t answer_count;
    uint64_t kept_ms;       /* when the file was last written */
    raft_index start_index; /* last entry in the log at the start */
};

void clockset_start(struct node *n); /* what time it is at least: of the build, the file, the log (platform/now.h) */
void clockset_stop(struct node *n);
void clockset_keep(struct node *n); /* each second */
void clockset_applied(struct node *n, const struct entry *e);
void clockset_duty(struct node *n); /* each second: a leader whose wall clock is far from the site's time asks the others */
void clockset_message(struct node *n, raft_id from, const struct message_clock *m);

/* --- ageing.c: what waits for the core grows old --------------------------------------------------------------------------------- */
struct ageing {
    bool proposed, overdue; /* proposed: a limit or an expiry is on its way through the log */
    uint64_t proposed_ms;
};

void ageing_start(void);
void ageing_entry(struct node *n);   /* an entry that changes nothing, for upkeep, which needs an index to go on */
void ageing_leading(struct node *n); /* a new leader sees to it that its limits are in force */
void ageing_duty(struct node *n);    /* each second, on every member: expiry where it leads, and the alarm */

/* --- witness.c: in place of applying and upkeep, on a node that is a witness ----------------------------------------------------- */
#define WITNESS_KEPT_ENTRIES 1024u /* headers that stay when the log is cut; it is cut at twice as many */
#define WITNESS_WINDOW_ENTRIES 2048u

struct witness {
    raft_index applied; /* passed over */
    raft_index flushed, flushed_members, base;
    struct sitelog_flush flush;
    struct sitelog_compact compact;
    bool busy; /* one of the two is under way */
    uint64_t retry_ms;
};

void witness_start(struct node *n, const struct raft_start *start);
void witness_apply(struct node *n);
void witness_turn(struct node *n);
void witness_rebased(struct node *n, const struct raft_output *out); /* before what it says is stored */

/* --- statehash.c: do all gateways hold the same state? ----------------------------------------------------------------------------- */
void statehash_start(void);
void statehash_applied(struct node *n); /* after each applied entry */
void statehash_message(struct node *n, raft_id from, const struct message_state_hash *m);
void statehash_told(struct node *n, raft_id from, const char *detail); /* that our state is another one */

/* --- sealing.c: signatures over what is committed ------------------------------------------------------------------------------------ */
struct sealing {
    struct signer signer;
    struct seal newest;  /* made here or found to hold; on disk, or on its way there */
    struct seal waiting; /* of the leader, ahead of what is applied here; index 0: none */
    uint64_t made_ms;    /* when this node last made one, 0: never */
    bool looking;        /* an entry is read from disk to be compared */
    struct loop_timer timer;
};

void sealing_start(struct node *n, const struct seal *newest);
void sealing_stop(struct node *n);
void sealing_applied(struct node *n); /* more is applied; before the core may forget it */
void sealing_link_up(struct node *n, raft_id id);
void sealing_message(struct node *n, raft_id from, const struct seal *s);

/* --- foreman.c: offers of gateways, steps of the scheduler, losses ------------------------------------------------------------- */
struct foreman {
    bool can_work;          /* something here can run tasks */
    bool quarantines;       /* all members know what that is */
    uint64_t well_since_ms; /* in quarantine: in contact without a break since then; 0: it is not */
    struct node_use use;
    uint64_t hot_told_ms;    /* when the site was last told that this is a hot spot */
    uint64_t reconsidered;   /* schedules up to this ticket have been looked at since the clock was set */
    uint64_t tokens;         /* the last that was given when an entry was applied here */
    bool proposing, reading; /* one proposal, one order being read at a time */
    uint64_t stepped_ms;     /* when the last step was proposed */
    struct {
        raft_id id;
        uint64_t since_ms;
    } silent[LIMIT_MEMBERS]; /* by place among the scheduler's nodes */
    struct voice {
        raft_id id;
        struct phi phi;
    } voices[LIMIT_MEMBERS]; /* how each other member speaks to this leader, a witness too; in no order */
    struct loop_timer timer;
};

void foreman_start(struct node *n);
void foreman_heard(struct node *n, raft_id from); /* a word of Raft */
void foreman_stop(struct node *n);
void foreman_applied(struct node *n, const struct entry *e);
void foreman_turn(struct node *n); /* some entries were applied */
void foreman_duty(struct node *n); /* each second */
void foreman_arm(struct node *n);  /* something may be due at another time */
bool foreman_ready(const struct node *n,
                   struct site_facts *site); /* may it propose?  One at a time: what is needed after that shows then */
void foreman_propose(struct node *n, enum entry_kind kind, struct builder *payload); /* frees payload */

/* --- firings.c: the leader makes runs of schedules ------------------------------------------------------------------------------------- */
int64_t firings_due_ms(const struct node *n, const struct scheduler *s); /* in log time; INT64_MAX: none */
void firings_make(struct node *n, const struct scheduler *s,
                  int64_t now_ms);       /* of one schedule, if one is due and nothing is under way */
void firings_reconsider(struct node *n); /* the site's clock was set: what is due when? */

/* --- offloading.c: tasks that are with the core --------------------------------------------------------------------------------------------- */
#define HANDOVER_SETTLES 32u
struct offloading {
    bool there;                 /* the link is up, and the core has a worker */
    bool busy;                  /* a proposal, or an order that is read */
    uint64_t away_ms;           /* since when it is not there */
    uint64_t announced, judged; /* up to these tokens */
    struct grey_name task;      /* being told of, judged or taken back, with its token */
    uint64_t token;
    char settles[HANDOVER_SETTLES][OFFLOAD_NAME_BYTES]; /* the core is to be told */
    uint32_t settle_count;
};
bool offloading_wanted(const struct node *n, const struct scheduler *s); /* shall what may leave go to the core now? */
void offloading_duty(struct node *n);                                    /* each second */
void offloading_applied(struct node *n, const struct scheduler *s, const struct entry *e); /* tasks changed */

/* --- emergency.c: the leader tells of tasks that an emergency stopped ------------------------------------------------------------------------ */
struct emergency {
    uint64_t told, telling; /* alarms of the scheduler up to these numbers */
    bool busy;              /* a proposal */
};
void emergency_look(struct node *n, const struct scheduler *s); /* tasks changed; and each second */

/* --- provisional.c: events taken without a leader --------------------------------------------------------------------------------- */
struct provisional {
    uint64_t events, bytes; /* in intake.db */
    bool merging;
    struct sitelog_keep job; /* of merging */
    struct loop_timer timer;
};

void provisional_start(struct node *n);
void provisional_stop(struct node *n);
void provisional_turn(struct node *n);           /* brings what is kept into the log when a leader is known */
bool provisional_possible(const struct node *n); /* this node belongs to a site */
bool provisional_due(const struct node *n);      /* no leader for request_timeout_ms: events are taken here from now on */
void provisional_take(struct node *n, struct bytes batch, node_done *done, void *context);

/* --- quarantine.c ----------------------------------------------------------------------------------------------------------------- */
struct quarantine {
    struct standings standings; /* as this gateway judges */
    bool stale;                 /* something was said since */
    int64_t judge_s;            /* judged anew then at the latest; Unix seconds */
    uint64_t handed_ms, ordered_ms;
};

void quarantine_start(struct node *n);
void quarantine_applied(struct node *n, const struct entry *e); /* after each applied entry */
void quarantine_duty(struct node *n);                           /* each second */
bool quarantine_holds(const struct node *n, raft_id id);
raft_id quarantine_successor(const struct node *n); /* leader: who is to lead next; 0: nobody that answers and may */

/* --- diskwatch.c ------------------------------------------------------------------------------------------------------------------ */
#define ACQUAINTANCES 32u

struct acquaintance {
    raft_id id;
    uint64_t start_count, told_ms; /* the highest that it showed; when it was last told */
    bool rolled_back;
    char why[160];
};

struct diskwatch {
    struct acquaintance met[ACQUAINTANCES];
    uint32_t met_count, met_next;
    uint64_t handed_ms; /* when leadership was last given away, 0: never */
    bool slow_said;
};

void diskwatch_start(void);
void diskwatch_met(struct node *n, raft_id id, uint64_t start_count);
bool diskwatch_refuses(struct node *n, raft_id from,
                       const struct raft_message *m); /* it runs on an older disk: take nothing of it */
void diskwatch_told(struct node *n, raft_id from, const struct message_join_reply *r); /* that our disk is an older one */
void diskwatch_duty(struct node *n);                                                   /* each second */

/* --- diskcheck.c ------------------------------------------------------------------------------------------------------------------ */
struct diskcheck {
    struct sitelog_read read; /* of a slice */
    bool reading;
    int64_t allowance; /* bytes that may be read now; below 0 after a large row */
    uint64_t round_bytes, all_bytes, rounds;
    uint64_t round_began_ms; /* 0: none is under way */
    uint64_t rests_until_ms;
    int64_t round_ended_unix_ms; /* 0: none has */
    bool damaged;                /* and the site could not spare this node so far */
    enum sitelog_damage what;
    char detail[sizeof((struct fault *)0)->text];
};

void diskcheck_start(void);
void diskcheck_met(void *node, enum sitelog_damage what, const char *detail); /* of struct sitelog_options */
void diskcheck_duty(struct node *n);                                          /* each second */

/* --- diskwear.c ------------------------------------------------------------------------------------------------------------------- */
#define DISKWEAR_COMMIT_MS 1000u /* above the bound, events below critical wait this long for company */
#define DISKWEAR_FLUSH_MS 60000u /* and changed rows, which the log has too */

struct diskwear {
    struct wear wear;
    uint64_t seen_bytes; /* of the counter that begins with the process */
    uint64_t kept_ms;
};

void diskwear_start(struct node *n); /* after clockset_start: it asks for the time */
void diskwear_duty(struct node *n);  /* each second */
void diskwear_stop(struct node *n);

/* --- orders.c: what operators order: members, leadership -------------------------------------------------------------------------- */
/* At the leader.  *index: of the entry to wait for, 0: none. */
enum grey_error orders_run(struct node *n, struct bytes payload, raft_index *index, const char **detail);

/* --- membership.c ------------------------------------------------------------------------------------------------------------------ */
struct invitation {
    struct grey_name name;
    char address[LIMIT_ADDRESS_BYTES + 1];
    uint64_t until_ms;
};

/* --- persist.c --------------------------------------------------------------------------------------------------------------------- */
void persist_store(struct node *n, const struct raft_output *out); /* entries, term, vote; RAFT_IN_STORED follows */
void persist_send(struct node *n, const struct raft_send *s);      /* at once, or when what it promises is stored */
/* After a step's stores and sends.  A leader's appends leave before its own storage thread wakes: what others write is ready later than
 * what is written here, and the processor may not be enough for both (thesis 10.2.1 allows either order). */
void persist_begin(struct node *n);
void persist_load(struct node *n, const struct raft_load *l); /* RAFT_IN_LOADED follows */
void persist_again(void *node);                               /* timer: jobs that met a full disk are given again */

/* At the start: begins a new group, or the restored one, with this node as its only member; or waits for word that there is one already. */
void membership_decide(struct node *n, const struct sitelog_start *start);
void membership_start(struct node *n); /* from now on it asks to join, and as leader promotes learners */
void membership_link_up(struct node *n, raft_id id);
void membership_cluster_seen(struct node *n, uint64_t cluster_id);
void membership_join(struct node *n, raft_id from, const struct message_join *j);
void membership_invite(struct node *n, const struct grey_name *name, const char *address); /* leader: dialled until it joins */
void membership_applied(struct node *n);                                                   /* n->members has changed */
void membership_stranger(struct node *n, raft_id from); /* leader: no member speaks as if it were one */
void membership_join_reply(struct node *n, const struct message_join_reply *r);

/* --- apply.c, inbox.c ------------------------------------------------------------------------------------------------------------------ */
void apply_start(void);
void apply_turn(struct node *n); /* some of what is committed; the rest another turn */
void inbox_start(void);
extern const struct peers_events inbox_events;

/* --- node.c ---------------------------------------------------------------------------------------------------------------------- */
struct held_send {
    uint64_t after_store_id;
    struct raft_message message; /* never carries entries */
};

struct node {
    struct conn_context x;
    struct node_options o;
    struct grey_name name, site;
    char peer_address[LIMIT_ADDRESS_BYTES + 1], http_address[LIMIT_ADDRESS_BYTES + 1], seeds[1024];
    const struct node_events *events;
    void *context;

    struct raft *raft;
    struct raft_config raft_config;
    struct state *state;
    struct table *table;
    struct sitelog *log;
    struct peers *peers;
    raft_id self;
    uint64_t cluster_id, start_count;

    struct raft_point restored; /* a state made by `greyd restore` stands here; zeros: none */
    uint8_t restored_hash[DIGEST_BYTES];
    struct sitelog_store *stalled_first, *stalled_last; /* store jobs that met a full disk, in order; given again in time */
    struct loop_timer stalled_timer;

    struct held_send *held;
    uint32_t held_first, held_count;
    uint64_t stored_id;
    raft_index commit_index;
    bool fetching;   /* applying waits for rows */
    bool installing; /* a snapshot replaces the state: nothing is applied */
    bool leading, stopping, has_failed;
    bool turning; /* the end of a turn is under way */
    raft_term leading_term;
    enum raft_role role;
    raft_id leader;
    struct raft_members members; /* in force at the applied index, for flushes */
    raft_index members_index;
    struct blob *members_blob;

    struct requests requests;
    struct catchup catchup;
    struct upkeep upkeep;
    struct witness witness;
    struct diskwatch diskwatch;
    struct diskcheck diskcheck;
    struct diskwear diskwear;
    struct raft_point applied_point; /* of the entry that was last applied here */
    struct clockset clockset;
    struct ageing ageing;
    struct agreement agreement;
    raft_id fenced; /* the last one that was told so */
    struct provisional provisional;
    struct sealing sealing;
    struct foreman foreman;
    struct offloading offloading;
    struct emergency emergency;
    struct quarantine quarantine;
    uint64_t leaderless_ms; /* since when no leader is known */
    struct invitation invitations[LIMIT_MEMBERS];
    uint32_t invitation_count;
    bool was_member, removed; /* by a committed membership */
    uint64_t told_ms;         /* when a stranger was last told so */
    struct loop_timer tick, duty;
    uint64_t turn_ms, suspended_ms; /* as of the end of the last turn */
    uint64_t undecided_until_ms;    /* bootstrap waits for word from the seeds; 0: decided */
};

/* Gives one input (time is filled in) and carries the output out. */
enum grey_error node_step(struct node *n, struct raft_input *in, raft_index *proposed_index);
void node_watch_clock(struct node *n); /* before anything that rests on the lease: ends it when this machine slept */
void node_fail(struct node *n, enum grey_error err, const char *detail);
void node_set_members(struct node *n, const struct raft_members *members, raft_index index);

#endif
