/* week.h: a simulated week of one site and its core: the state machine, outbox, channel, sync, frame and shaper objects of greyd itself,
 * in virtual time, on three gateways that apply one committed log; a broker, a core with backups, and a thin link between.
 *
 * What is simulated beside them: who leads (an epoch each), which proposals are committed, disks that keep what was flushed, a link that
 * carries so many bytes a second and is cut.  What clients were told, what every number was and what became of it is remembered apart
 * (struct truth); each frame the core takes and each entry a gateway applies is compared with that.  Everything follows from the seed. */
#ifndef TESTS_WEEK_WEEK_H
#define TESTS_WEEK_WEEK_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/state/state.h"
#include "federation/channel.h"
#include "federation/shaper.h"
#include "federation/sync.h"

#define WEEK_GATEWAYS 3u
#define WEEK_INCARNATION 77u /* the first; each rebuild has the next */
#define WEEK_REBUILDS_MAX 64u
#define WEEK_SPEAKERS 2u /* the leader, and one that does not know yet that it is none any more */
#define WEEK_MINUTE_MS INT64_C(60000)
#define WEEK_HOUR_MS INT64_C(3600000)

/* What happened, for the table at the end: a kind that stays at 0 over many seeds is not tested. */
#define WEEK_COUNTS(X)                                                                                                             \
    X(EVENTS, "events accepted")                                                                                                   \
    X(CRITICAL, "of these critical")                                                                                               \
    X(REPEATS, "repeats of clients")                                                                                               \
    X(REFUSED, "batches answered 507")                                                                                             \
    X(REFUSED_CRITICAL, "with critical ones, full of them")                                                                        \
    X(EVICTED, "events evicted")                                                                                                   \
    X(EXPIRED, "events expired")                                                                                                   \
    X(LIMITS, "changes of limits")                                                                                                 \
    X(LEADERS, "changes of leader")                                                                                                \
    X(DEPOSED, "deposed, still speaking")                                                                                          \
    X(LOST_PROPOSALS, "proposals lost with a leader")                                                                              \
    X(CRASHES, "gateways killed")                                                                                                  \
    X(REPLAYED, "entries applied again")                                                                                           \
    X(INSTALLS, "gateways wiped, state copied")                                                                                    \
    X(FLUSHES, "flushes")                                                                                                          \
    X(FLUSH_FAILURES, "flushes that failed")                                                                                       \
    X(DISK_FULL, "batches met a full disk")                                                                                        \
    X(LINK_CUTS, "link cut")                                                                                                       \
    X(MID_FRAME, "within a frame")                                                                                                 \
    X(LOST_UP, "frames lost upward")                                                                                               \
    X(LOST_DOWN, "messages lost downward")                                                                                         \
    X(TWICE, "frames delivered twice")                                                                                             \
    X(STALE, "frames of former sessions refused")                                                                                  \
    X(OLD_HELLOS, "hellos older than frames taken")                                                                                \
    X(HOLES, "frames beyond a hole")                                                                                               \
    X(SILENCE, "sessions begun anew for silence")                                                                                  \
    X(HIDDEN, "scans that missed a row")                                                                                           \
    X(REBUILDS, "site rebuilt from a backup")                                                                                      \
    X(CORE_CRASHES, "core killed")                                                                                                 \
    X(CORE_UNACKED, "stored, not acknowledged")                                                                                    \
    X(CORE_RESTORES, "core restored from a backup")                                                                                \
    X(CORE_LOST, "numbers that a restored core lacks")                                                                             \
    X(FRAMES, "frames taken")                                                                                                      \
    X(GAPS, "gaps at the core")                                                                                                    \
    X(VERSIONS, "versions of programs offered")                                                                                    \
    X(TURNS, "turns given")                                                                                                        \
    X(HANDED, "leadership handed on for one")                                                                                      \
    X(EXPIRED_TURNS, "turns that ran out")                                                                                         \
    X(TRIED, "versions on trial at a gateway")                                                                                     \
    X(KEPT, "of these kept")                                                                                                       \
    X(LEFT, "of these left")                                                                                                       \
    X(WIRE_BYTES, "bytes sent")
#define WEEK_COUNT_NAME(name, text) WEEK_##name,
enum week_count { WEEK_COUNTS(WEEK_COUNT_NAME) WEEK_COUNT_KINDS };
#undef WEEK_COUNT_NAME

/* --- what truly was ------------------------------------------------------------------------------------------------------------------ */
enum fate { FATE_WAITS, FATE_EVICTED, FATE_EXPIRED };

struct truth_number {
    uint64_t record_hash;
    uint32_t bytes, serial; /* serial: which event of the clients */
    uint32_t lives_s;       /* by the limits in force when it was taken; 0: by the age limit in force, if any */
    uint8_t priority, type, fate;
    int64_t time_ms;
};

struct truth {
    struct truth_number *numbers[CHANNEL_COUNT]; /* from 1 */
    grey_seq next[CHANNEL_COUNT], acked[CHANNEL_COUNT];
    size_t room[CHANNEL_COUNT];
    uint64_t lost_bytes[CHANNEL_COUNT];
    bool one_size;       /* records of one priority have the same size: shares of bytes are exact */
    grey_seq *of_serial; /* number that an event of the clients got; 0: none yet */
    uint8_t *channel_of_serial;
    uint32_t serials, serial_room;
};

/* --- gateways ------------------------------------------------------------------------------------------------------------------------- */
struct gateway {
    struct table *rows, *disk;
    struct state *state;
    bool up, disk_fails;
    struct table_flush flush; /* handed to the disk and not done yet */
    bool flushing;
    int64_t restart_ms, next_flush_ms;
};

struct log_entry {
    uint16_t kind;
    int64_t time_ms;
    struct blob *payload;
    uint8_t hash[DIGEST_BYTES]; /* of the state behind it, once one gateway has applied it */
    bool judged;
};

/* --- the uplink of a leader ------------------------------------------------------------------------------------------------------------ */
struct message { /* on its way */
    int64_t due_ms, sent_ms;
    struct blob *bytes;
    unsigned speaker, channel;
    uint64_t connection;
    bool up, at_broker, in_use, confirmation;
};
#define WEEK_MESSAGES 512u

struct speaker {
    bool active, connected, welcomed, hello_due, sized_gaps;
    unsigned gateway;
    grey_epoch epoch;
    uint64_t connection, message_id;
    int64_t connect_ms, hello_ms, hello_wait_ms, waiting_since_ms, patience_ms, proposed_ms, until_ms;
    struct channel_out out[CHANNEL_COUNT];
    struct channel_turns turns;
    struct channel_pace pace;
    struct shaper shaper;
    struct blob *leaving; /* given to the link, a part has left */
    size_t left_bytes;
    unsigned leaving_channel;
    int64_t wait_until_ms, wire_busy_ms;
    uint32_t on_way;
};

/* --- the core ----------------------------------------------------------------------------------------------------------------------------- */
struct core_number {
    uint64_t record_hash;
    uint8_t kind; /* 0: not there, 1: event, 2: gap */
    uint8_t reason;
};
struct core_channel {
    struct core_number *numbers; /* from 1 */
    size_t room;
    grey_seq position;
};
struct core_store {
    struct core_channel channels[CHANNEL_COUNT];
    grey_epoch epoch;
    uint64_t incarnation; /* 0: no site has said hello */
    struct {              /* of former incarnations: how far they came */
        grey_seq position[CHANNEL_COUNT];
        bool known;
    } past[WEEK_REBUILDS_MAX];
};

struct site_backup { /* a state image, and what was true then; disk NULL: none was made */
    struct table *disk;
    size_t log_count;
    struct truth_number *numbers[CHANNEL_COUNT];
    grey_seq next[CHANNEL_COUNT], acked[CHANNEL_COUNT];
    uint64_t lost_bytes[CHANNEL_COUNT];
};

/* Versions of the programs (week_roll.c), by issue; 0: of the package. */
struct roll_gateway {
    uint64_t runs, kept, trial, failed; /* as its slots have it: outlives everything */
    uint64_t installing;                /* 0: nothing */
    int64_t installed_ms, trial_until_ms, well_since_ms;
    bool away; /* for an update */
};
struct roll {
    uint64_t random, issue;
    int64_t offer_ms, next_ms;
    struct roll_gateway at[WEEK_GATEWAYS];
};

struct week {
    uint64_t seed, random;
    bool trace, failed, calm;
    char violation[400];
    int64_t now_ms, end_ms;
    uint64_t hash; /* over all that happened */
    uint64_t counts[WEEK_COUNT_KINDS];

    struct log_entry *log; /* from 1 */
    size_t log_count, log_room;
    struct gateway gateways[WEEK_GATEWAYS];
    unsigned leader; /* WEEK_GATEWAYS: none */
    grey_epoch epoch;
    int64_t elect_ms, next_fault_ms, next_load_ms, next_duty_ms;
    struct truth truth;
    uint64_t incarnation;
    struct site_backup site_backup;
    int64_t site_backup_ms;
    struct roll roll;

    struct queue_limits limits; /* that the leaders want */
    unsigned type_count, critical_percent;
    int64_t load_pause_ms;
    struct batch_repeat {
        struct blob *payload;
        uint32_t first_serial, count;
        int64_t due_ms;
    } repeats[16];

    struct speaker speakers[WEEK_SPEAKERS];
    struct message messages[WEEK_MESSAGES];
    bool link_up;
    int64_t link_change_ms, core_up_ms, core_backup_ms;
    uint64_t link_bytes_per_s, limit_bytes_per_s, connections;
    uint32_t delay_ms, loss_percent;
    int64_t second_began_ms; /* of the limit: bytes in the second that began then */
    uint64_t second_bytes;

    struct core_store core, backup;
    bool core_up, has_backup;
    uint32_t *core_seen; /* by serial: how often it stands in the core's store */
};

uint64_t week_draw(struct week *w, uint64_t below);
bool week_chance(struct week *w, unsigned percent);
void week_fail(struct week *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
void week_note(struct week *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
uint64_t week_hash(struct bytes b);

/* week_site.c: gateways, the log, clients */
void site_begin(struct week *w);
void site_end(struct week *w);
bool site_propose(struct week *w, enum entry_kind kind, struct bytes payload);
void site_act(struct week *w); /* what is due now */
int64_t site_due(const struct week *w);
void site_kill(struct week *w, unsigned gateway);
void site_elect(struct week *w);
unsigned site_ups(const struct week *w);
void site_stop(struct week *w, unsigned gateway, int64_t for_ms); /* in order, and up again after that time */
void site_hand_over(struct week *w, unsigned gateway);            /* that one leads next, if it is up */
void site_rebuild(struct week *w); /* all disks were lost: another incarnation begins with the backup */
struct gateway *site_leader(struct week *w);
void site_settle(struct week *w); /* every gateway applies and flushes all */

/* week_roll.c: new versions of the programs */
void roll_begin(struct week *w);
void roll_act(struct week *w);
int64_t roll_due(const struct week *w);
void roll_started(struct week *w, unsigned gateway);
bool roll_rests(struct week *w); /* nothing is under way */
void roll_end(struct week *w);   /* all is calm, and has been applied */

/* week_link.c: what the leader's uplink does, the link, the broker */
void link_lead(struct week *w, unsigned gateway, grey_epoch epoch);
void link_cut(struct week *w);
void link_forget(struct week *w); /* no gateway speaks any more */
void link_act(struct week *w);
int64_t link_due(const struct week *w);
void link_down_send(struct week *w, enum event_channel c, struct bytes content); /* from the core */

/* week_store.c: the core */
void core_take(struct week *w, struct bytes frame, unsigned topic_channel);
void core_act(struct week *w);
void core_crash(struct week *w);
void core_restore(struct week *w);
void core_free(struct core_store *s);

/* week_truth.c */
void truth_applied(struct week *w, struct gateway *g, struct log_entry *e, const struct outcome *o, struct bytes answer,
                   const struct channel_facts before[CHANNEL_COUNT]);
void truth_end(struct week *w);
extern const char *const week_types[];

#endif
