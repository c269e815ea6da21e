/* world.h: a whole cluster in one thread, from one seed: members with disks, a network, clocks, clients, and faults.
 *
 * Time is virtual; the same seed gives the same run.  The members are the very object files of greyd.  Each member's disk takes what a
 * step asks to store in order and later; a crash keeps a random part of what was not reported.  Checkers (check.c) look at every step
 * from outside. */
#ifndef TESTS_SIM_WORLD_H
#define TESTS_SIM_WORLD_H

#include "federation/raft/entries.h"
#include "federation/raft/raft.h"

#define WORLD_NODES_MAX 14u
#define WORLD_SENDS_HELD_MAX 4096u

enum world_count {
    COUNT_CRASH,
    COUNT_CRASH_BEFORE_STORE,
    COUNT_CRASH_BEFORE_SEND,
    COUNT_CRASH_AMID_SENDS,
    COUNT_RESTART,
    COUNT_PARTITION,
    COUNT_ONE_WAY,
    COUNT_PAUSE,
    COUNT_SLOW_DISK,
    COUNT_LINK_DOWN,
    COUNT_LOST,
    COUNT_DUPLICATED,
    COUNT_REORDERED,
    COUNT_TRANSFER,
    COUNT_RELUCTANT,
    COUNT_HURRIED,
    COUNT_WIPE,
    COUNT_LEARNER,
    COUNT_PROMOTE,
    COUNT_REMOVE,
    COUNT_JOINT,
    COUNT_REPLACE,
    COUNT_COMPACTED,
    COUNT_INSTALLED,
    COUNT_INSTALL_FAILED,
    COUNT_LOADED,
    COUNT_LOAD_FAILED,
    COUNT_TRUNCATED,
    COUNT_REBASED,
    COUNT_ELECTED,
    COUNT_QUORUM_LOST,
    COUNT_COMMITTED,
    COUNT_ACKNOWLEDGED,
    COUNT_READ,
    COUNT_READ_LEASED,
    COUNT_READ_FAILED,
    COUNT_CORRUPTED_FRAME,
    COUNT_CORRUPTED_PAYLOAD,
    COUNT_WALL_JUMP,
    COUNT_CLOCK_RATE,
    COUNT_CLOCK_JUMP,
    COUNT_WRITES_LOST,
    COUNT_FULL_DISK,
    COUNT_FSYNC_ERROR,
    COUNT_BIT_FLIPPED,
    COUNT_DAMAGE_FOUND,
    COUNT_OLD_DISK,
    COUNT_RING,
    COUNT_STAR,
    COUNT_BRIDGE,
    COUNT_LAG,
    COUNT_PAUSE_ALL,
    COUNT_CLOCK_STOP,
    COUNT_STUCK_DISK,
    COUNT_MISDIRECTED,
    COUNT_LOST_WRITE,
    COUNT_CRASH_INSTALLING,
    COUNT_ROW_LOST,
    COUNT_PAYLOAD_DAMAGED,
    COUNT_MENDED,
    COUNT_MENDED_TOGETHER,
    COUNT_MEND_FORGONE,
    COUNT_MEND_CRASH,
    COUNT_MEND_SET_ASIDE,
    COUNT_SCENE_TWO_MAJORITIES,
    COUNT_SCENE_WIPED,
    COUNT_SCENE_PROMOTED,
    COUNT_SCENE_PARTIAL,
    COUNT_SCENE_FIGURE_8,
    COUNT_SCENE_AHEAD,
    COUNT_SCENE_LEASE,
    COUNT_SCENE_EXCHANGED,
    COUNT_SCENE_INSTALLED,
    COUNT_SCENE_ALL_DAMAGED,
    COUNT_STEPS,
    COUNT_KINDS
};
extern uint32_t
    world_drift_ppm; /* greatest drift of a clock; more than 5000 breaks what leases rest on: shows that it is noticed */

struct disk {
    raft_term term;
    raft_id vote;
    struct raft_point base;
    struct raft_members base_members; /* in force at base; count 0: none */
    raft_index base_members_index;
    struct entry *entries; /* base.index + 1 ... */
    uint32_t count, capacity;
    raft_index applied;
    uint64_t sum, base_sum; /* what stands for the state: a sum over what was applied, at `applied` and in the snapshot */
};

/* What one step asked to store, or an applied index to note down. */
struct unit {
    struct unit *next;
    uint64_t store_id; /* 0: applied only */
    uint64_t done_us;
    bool vote_set;
    raft_term term;
    raft_id vote;
    raft_index truncate_from, applied;
    uint64_t sum;
    bool rebase; /* a witness: its log goes on behind base */
    struct raft_point base;
    struct raft_members base_members;
    raft_index base_members_index;
    struct entry *entries;
    uint32_t count;
};

struct held_send {
    struct raft_message *message;
    uint64_t after_store_id;
};

struct claim { /* a proposal or a read that waits */
    raft_index index;
    raft_term term;
    uint64_t context;
    raft_index floor;
};

struct node {
    raft_id id;
    bool up, wiped, witness, reluctant; /* wiped: its id has gone for good */
    bool quick;                         /* when it falls next it starts again at once */
    bool suspect;                       /* a bit of its disk was changed */
    bool rolled_back;                   /* an older copy of its disk was put back */
    bool old_kept;
    struct disk old;         /* that copy */
    bool ill;                /* places in the middle of its log are damaged (patient.c) */
    struct disk sound;       /* while it is: the disk as it was, for the checkers */
    struct patient *patient; /* started, and not whole yet */
    struct disk below;       /* rows that its mended log did without: they can be read until somebody leads */
    struct raft *raft;
    struct disk disk;
    struct unit *units, *units_last; /* on the way to the disk */
    struct held_send *held;
    uint32_t held_count;
    raft_index applied;
    uint64_t sum;         /* the state there */
    uint64_t generation;  /* counts starts: events of a former life are void */
    uint64_t tick_now_ms; /* its clock at the last step */
    uint64_t tick_us;     /* the tick that is scheduled; 0: none */
    uint64_t paused_us;   /* does nothing before */
    uint64_t slow_us;     /* the disk is slow before */
    uint64_t disk_free_us;
    int64_t clock_offset_us, wall_offset_ms;
    uint64_t clock_stopped_us; /* its clock stands until then */
    int32_t drift_ppm;
    int crash_armed; /* enum world_count of the crash, 0: none */
    raft_id install_from;
    struct raft_point install_point;
    struct claim *proposals, *reads;
    uint32_t proposal_count, proposal_capacity, read_count, read_capacity;
    /* for the checkers */
    raft_term term_seen;
    raft_index commit_seen;
    enum raft_role role_seen;
    raft_id match_of[LIMIT_MEMBERS]; /* a leader's followers, and how far each was known to be */
    raft_index match_seen[LIMIT_MEMBERS];
    raft_id *voted; /* by term */
    uint32_t voted_capacity;
};

enum event_kind {
    EVENT_DELIVER,
    EVENT_TICK,
    EVENT_STORED,
    EVENT_LOADED,
    EVENT_INSTALLED,
    EVENT_RESTART,
    EVENT_FALL,
    EVENT_CLIENT,
    EVENT_CHANGE, /* an operator in a hurry */
    EVENT_JUMP,
    EVENT_CHAOS,
    EVENT_LETTER,
    EVENT_ASK
};

struct event {
    uint64_t at_us, order;
    enum event_kind kind;
    uint32_t node;
    uint64_t generation;
    struct raft_message *message;
    struct raft_load load;
    bool corrupted; /* an entry of the message is not what was sent */
    struct letter *letter;
};

/* What can be left out of a run, one by one, to find out which of it a violation needs (reduce.c).  Each deed draws from numbers of its own,
 * so that the others stay as they are. */
enum deed_kind {
    DEED_CHAOS,  /* a step of chaos */
    DEED_FALL,   /* what chaos had planned for later: a leader falls, a change in a hurry, a clock that jumps */
    DEED_FATE,   /* what the network does to one message; left out: it arrives, once, in time */
    DEED_CLIENT, /* a request */
    DEED_KINDS
};
extern const char *const world_deed_names[DEED_KINDS];

struct deed_tally {
    uint32_t count[DEED_KINDS];
    uint64_t now_us; /* at the last of them */
    bool calm;
};

struct deeds {
    uint32_t count[DEED_KINDS];        /* met so far */
    const uint8_t *masked[DEED_KINDS]; /* by number: left out; NULL: none */
    uint32_t mask_count[DEED_KINDS];
    uint64_t end_us;          /* the run ends here, without the calm after it; 0: it does not */
    struct deed_tally *tally; /* NULL, or what outlives a process that aborts */
};

extern bool world_quiet; /* no faults, few clients */
extern bool world_long;  /* faults and requests are spread over hours and days */

struct world {
    uint64_t seed, random, now_us, order;
    bool trace, calm;          /* calm: no more faults */
    bool corrupted;            /* the message in hand is */
    bool hushed;               /* no client asks for anything */
    const struct scene *scene; /* what is played before chaos begins; NULL: nothing */
    const char *violation;
    char violation_text[256];
    struct event *heap;
    uint32_t heap_count, heap_capacity;
    struct node nodes[WORLD_NODES_MAX];
    uint32_t node_count;
    bool cut[WORLD_NODES_MAX][WORLD_NODES_MAX]; /* from, to */
    uint32_t lag_us[WORLD_NODES_MAX];           /* what goes there takes longer by so much */
    struct raft_config config;
    /* drawn per seed */
    uint32_t loss_permille, duplicate_permille, delay_us_min, delay_us_max, late_permille, corrupt_permille;
    uint32_t disk_us_min, disk_us_max, chaos_ms, client_ms, compact_entries;
    bool wipes, changes;
    bool damages;      /* of logs, in their middle: they are mended in place */
    bool restless;     /* membership changes all the time, and the network breaks just then */
    bool leases;       /* three voters, many reads, few writes: trials of the lease */
    bool short_reigns; /* leaders fall soon after their election, as in figure 8 of the Raft paper */
    uint32_t voters_min;
    uint64_t value;               /* last proposed */
    raft_index acknowledged;      /* highest index that a client was told of, by answer or read */
    raft_index calm_acknowledged; /* a proposal made after calm began */
    uint64_t calm_requests;       /* 0: a reduction left them all out */
    uint64_t counts[COUNT_KINDS];
    uint64_t hash; /* of all that happened */
    struct deeds deeds;
    struct check *check;
};

uint64_t world_draw(struct world *w, uint64_t bound); /* below bound */
bool world_chance(struct world *w, uint32_t permille);
uint64_t world_between(struct world *w, uint64_t low, uint64_t high); /* inclusive */
void world_fail(struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
void world_trace(struct world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));

struct world *world_new(uint64_t seed, bool trace);
void world_free(struct world *w);
void world_run_until(struct world *w, uint64_t until_us); /* or until a violation */
bool world_run_one(struct world *w, uint64_t until_us);   /* the next event, if it is not later; false: there was none */
struct node *world_node(struct world *w, raft_id id);     /* NULL: none */
uint64_t world_clock_ms(const struct world *w, const struct node *n); /* by its own clock */
struct node *world_leader(struct world *w);                           /* the one of the highest term that believes so; NULL */
uint32_t world_add(struct world *w);                                  /* a new node, empty and up; its number */
void world_crash(struct world *w, struct node *n);
void world_restart(struct world *w, struct node *n);
void world_fsync_error(struct world *w, struct node *n); /* what was not durable is gone, and so is the process */
void world_wipe(struct world *w, struct node *n);        /* its directory is gone; what starts there draws another id */
void world_flip(struct world *w, struct node *n);        /* one bit of a stored entry, the node is down */
void world_keep_disk(struct world *w, struct node *n);   /* a copy of it, as of now */
void world_put_back(struct world *w, struct node *n);    /* the copy takes the place of the disk, the node is down */
void world_clock_rate(struct world *w, struct node *n);  /* its clock runs otherwise from now on */
const struct disk *world_disk(const struct node *n);     /* what it promised: its disk, as it was before it was damaged */
enum grey_error world_step(struct world *w, struct node *n, struct raft_input *in, raft_index *proposed);
void world_propose(struct world *w, struct node *n);
void world_later(struct world *w, uint64_t delay_us, enum event_kind kind, struct node *n);

/* Between the two the world draws from the deed's own numbers.  False: the deed is left out. */
bool world_deed_begin(struct world *w, enum deed_kind kind, uint64_t *random);
void world_deed_end(struct world *w, uint64_t random);
void *world_alloc(size_t count, size_t size); /* zeroed; never NULL */
void event_push(struct world *w, struct event e);
void world_mix(struct world *w, uint64_t value);         /* into the hash */
uint64_t world_sum(uint64_t sum, const struct entry *e); /* the state after e */

/* sim.c: everything of one run: the faults, then the calm and what must hold after it.  deeds: what is left out; NULL: nothing. */
struct world *sim_run(uint64_t seed, uint64_t until_us, bool trace, const struct deeds *deeds);

/* reduce.c: prints the shortest run of that seed that still breaks a law: none of its deeds can go.  Returns 1, or 0 when none is broken. */
int reduce_seed(uint64_t seed, uint64_t until_us);

/* cover.c: what happened, by kind, and the cases of the fault catalogue that the kinds stand for */
bool cover_print(const uint64_t counts[COUNT_KINDS]); /* false: some kind of fault did not occur */

/* scenes*.c: what chance seldom meets, step by step.  A quarter of the seeds begins with one. */
const struct scene *scene_of_seed(uint64_t seed);               /* NULL: none */
uint32_t scene_prepare(const struct scene *s, struct world *w); /* what it wants of the world that is being made; how many voters */
void scene_play(struct world *w);                               /* w->scene; faults are as drawn afterwards */

/* faults.c: what goes wrong with the network, a disk or a clock beyond the simple cases of chaos.c */
void fault_topology(struct world *w, enum world_count kind);    /* COUNT_RING, COUNT_STAR, COUNT_BRIDGE: the only links there are */
void fault_lag(struct world *w, struct node *n);                /* what it is sent comes late */
void fault_pause_all(struct world *w);                          /* a site without power for its processors: all clocks go on */
void fault_clock_stop(struct world *w, struct node *n);         /* for some seconds; not when leases are in use */
void fault_clock_go(struct world *w, struct node *n);           /* again, if it stands */
void fault_stall(struct world *w, struct node *n, uint64_t us); /* its disk takes nothing for so long */
void fault_stuck_disk(struct world *w, struct node *n);         /* a sync that takes up to a minute */
void fault_misdirect(struct world *w, struct node *n);          /* an entry was written over another one, the node is down */
void fault_lose_write(struct world *w, struct node *n); /* an entry that counted as durable was not written, the node is down */

/* patient.c: a gateway whose log is damaged in its middle gets what it lost from the others, as agent/node/mending.c does it, with the same deciding code. */
struct letter; /* a question or an answer of it */
bool patient_damage(struct world *w, struct node *n,
                    uint32_t places); /* it is down; what is damaged is whole elsewhere, or not needed */
void patient_start(struct world *w, struct node *n);
void patient_ask(struct world *w, struct node *n);
void patient_crash(struct world *w, struct node *n);
void patient_free(struct node *n);
uint32_t patient_count(const struct world *w); /* ill or being mended */
void letter_deliver(struct world *w, struct node *n, struct letter *l);
void letter_free(struct letter *l);

/* chaos.c */
void chaos_damage(struct world *w);
void chaos_act(struct world *w);
void chaos_jump(struct world *w, struct node *n); /* its clock leaps forward, as after sleep, and its owner notices */
void chaos_hurry(struct world *w);                /* changes the membership of a leader that has just begun */
void chaos_stop(struct world *w);                 /* heals everything */
struct raft_member chaos_new_member(struct world *w, const char *name); /* a new node, started; name NULL: its own */

/* check.c: laws L1 to L6, L9 and L14 of the fault catalogue, as seen from outside */
struct check *check_new(void);
void check_free(struct check *c);
void check_step(struct world *w, struct node *n, const struct raft_output *out);
void check_release(struct world *w, struct node *n, const struct raft_message *m); /* a message leaves */
void check_apply(struct world *w, struct node *n, const struct entry *e);
void check_restart(struct world *w, struct node *n);
void check_mended(struct world *w, const struct node *n);    /* its disk holds all that it promised before it was damaged */
void check_tick(struct world *w, struct node *n);            /* after its timer */
void check_refused(struct world *w, uint64_t value);         /* a client was told "surely not proposed" */
uint64_t check_sum(const struct world *w, raft_index index); /* the state there, as committed */
raft_index check_committed(const struct world *w);

/* wire.c */
struct raft_message *message_copy(const struct raft_message *m); /* what the wire carries: entries without digests and hashes */
void message_free(struct raft_message *m);
void message_post(struct world *w, struct node *from, struct raft_message *m); /* takes m */

/* host.c */
void node_start(struct world *w, struct node *n);
void node_forget(struct node *n); /* all that lives in memory only */
void node_stored(struct world *w, struct node *n, bool all);
void node_loaded(struct world *w, struct node *n, const struct raft_load *load);
void node_installed(struct world *w, struct node *n);
void node_compact(struct world *w, struct node *n);
void claim_add(struct claim **claims, uint32_t *count, uint32_t *capacity, struct claim c);

/* clients.c */
void client_act(struct world *w);

/* platter.c */
void disk_cut(struct disk *d, raft_index from);
void disk_drop(struct disk *d, raft_index until);
void disk_clear(struct disk *d);
void disk_copy(struct disk *to, const struct disk *from); /* to: clear */
bool disk_damaged(const struct disk *d);
void disk_take(struct world *w, struct disk *d, const struct unit *u);
void unit_free(struct unit *u);
struct unit *unit_shift(struct node *n);
void unit_queue(struct world *w, struct node *n, struct unit *u);
const struct entry *disk_entry(const struct disk *d, raft_index index);
raft_index disk_last(const struct disk *d);
void disk_members(const struct disk *d, raft_index at, struct raft_members *members, raft_index *index);

#endif
