/* state.h: the site's state machine: entries in order in, changes of rows and answers out.
 *
 * Pure and deterministic: same log, same rows, bit for bit, on every architecture.  Time comes from the entry only.  Modules kv
 * and outbox do the work for their entry kinds; state.c dispatches, keeps the applied position and the state hash. */
#ifndef AGENT_STATE_H
#define AGENT_STATE_H

#include "agent/table/table.h"
#include "federation/budget.h"
#include "include/grey/entry.h"
#include "include/grey/event.h"
#include "include/grey/limits.h"
#include "platform/fault.h"

struct state;

/* All rows of pinned tables must have been loaded into t.  t is borrowed for the life of the state.
 * E_CORRUPT when they contradict each other. */
struct state *state_new(struct table *t, struct fault *f);
void state_free(struct state *s);
/* state_reload: t was cleared and its pinned tables loaded anew (a snapshot was installed). */
enum grey_error state_reload(struct state *s, struct fault *f);

/* state_wants: names the rows that must be in memory before e is applied; want is called for each (id, key lent during the call), at
 * most three times for each event.  What it names follows from e alone. */
void state_wants(const struct entry *e, void (*want)(void *context, enum table_id id, struct bytes key), void *context);

/* What an entry came to, for the one who proposed it.  `answer` is CBOR (state_answer_*), empty on error. */
struct outcome {
    enum grey_error err;
    char detail[120];
};
/* state_apply: e->index must be the applied index + 1.  answer: NULL when nobody waits, else the answer's CBOR is appended.
 * Returns E_OK (o tells what came out, including refusals such as E_CONDITION: those are part of the state's course), or
 * E_UNKNOWN_ENTRY (fence the node), E_NO_MEMORY (nothing changed; try again), E_BUG when a wanted row is not in memory (nothing
 * changed; o->detail says which; load what state_wants names and call again), E_CORRUPT when one is damaged (stop the node).  An entry is applied whole or not at all. */
enum grey_error state_apply(struct state *s, const struct entry *e, struct outcome *o, struct builder *answer);

raft_index state_applied(const struct state *s);
int64_t state_time_ms(const struct state *s);                      /* log time of the last applied entry */
void state_hash(const struct state *s, uint8_t out[DIGEST_BYTES]); /* running hash over (index, row changes) of every entry */

/* --- answers --------------------------------------------------------------------------------------------------------------------- */
struct answer_event {
    enum event_channel channel;
    grey_seq seq;
    raft_index index;
    bool duplicate;
};
/* Answer of ENTRY_EVENTS: one per event, in order.  Returns the number, 0 on malformed input and when max is too small. */
size_t answer_events(struct bytes answer, struct answer_event *out, size_t max);
/* Answer of ENTRY_KV: version is the index of this write (of the deleted value for a delete); existed: the key was there before. */
bool answer_kv(struct bytes answer, raft_index *version, bool *existed);

/* --- questions (rows must be in memory where noted) ---------------------------------------------------------------------------- */
struct site_facts { /* ENTRY_SITE */
    struct grey_name site;
    uint64_t cluster_id, incarnation;
    uint32_t feature_level;
    /* A site that was rebuilt from a backup: the numbers of `former` go on in this incarnation behind next_seq[] - 1, which is all that
     * the backup knew of.  former 0: none, the numbers began at 1. */
    uint64_t former;
    grey_seq former_next[CHANNEL_COUNT];
};
bool state_site(const struct state *s, struct site_facts *out); /* false: not bootstrapped yet */
/* A state that came out of a backup begins anew as another incarnation: what the time that was lost gave under the same numbers must
 * not be taken for repeats.  Before any entry of the new group; the change is flushed like any other. */
enum grey_error state_begin_incarnation(struct state *s, uint64_t cluster_id, uint64_t incarnation);
void state_usage(const struct state *s, struct budget_used *out); /* what the log knows of the cost of the link; zeros: nothing */

/* Bounds of the queue, the same on all nodes (ENTRY_LIMITS). */
struct queue_limits {
    uint64_t bytes_max; /* of records that wait; above 0 */
    /* A share of bytes_max below which events of other priorities (but critical ones) do not push these out.  Of critical: 0; all
     * together at most 90. */
    uint32_t floor_percent[PRIORITY_COUNT];
    uint32_t age_s; /* below critical, what no pattern names leaves after so long; 0: never */
    struct {
        char type[LIMIT_TYPE_PATTERN_BYTES + 1]; /* '*' stands for any bytes */
        uint32_t time_s; /* below critical, an event that the first pattern to match names leaves after so long */
    } ttls[LIMIT_QUEUE_TTLS];
    uint32_t ttl_count;
};
const struct queue_limits *
state_limits(const struct state *s); /* lends until the next entry; 1 GiB and nothing else before the first */
/* Log time at which an event waiting has lived for its time: an ENTRY_EXPIRE is due.  INT64_MAX: none. */
int64_t state_expiry_ms(const struct state *s);

struct kv_row {
    raft_index version;
    uint32_t value_bytes;
    struct bytes content_type; /* lent until the next change */
};
enum table_found state_kv(struct state *s, struct bytes key, struct kv_row *out); /* TABLE_UNKNOWN: load the row first */
enum grey_error state_kv_row(struct bytes value, struct kv_row *out);             /* decodes the value of a TABLE_KV row; lends */

/* Tasks, tenants and nodes (agent/work/scheduler.h), for reading; lent until the next entry.  NULL: no memory to make it. */
struct scheduler;
struct scheduler *state_scheduler(struct state *s);
struct table *state_table(struct state *s); /* for those who ask for rows of pinned tables (agent/state/holding.h) */

struct channel_facts {
    grey_seq next_seq, acked_seq;
    uint64_t pending_count, pending_bytes; /* bytes: of the records; within 256 KiB for each priority while partly acknowledged */
    int64_t oldest_time_ms;                /* log time of the oldest pending event, about; 0: none */
    /* Lost since bootstrap: runs of consecutive numbers of one list, events, and bytes of their records. */
    uint64_t gap_ranges, gap_events, gap_bytes;
    uint64_t expired_events, expired_bytes; /* of these, the ones that lived for their time */
};
void state_channel(const struct state *s, enum event_channel c, struct channel_facts *out);

/* Events wait in lists: one for each priority and class of times to live (agent/state/bounds.h). */
#define STATE_LISTS 64u

/* Why an event was given up before the core had it.  Numbers stand in state rows. */
enum gap_reason { GAP_EVICTED = 1, GAP_EXPIRED = 4 }; /* as in federation/sync.h */

/* An event waiting in the outbox. */
struct outbox_row {
    unsigned list;
    grey_seq seq;
    raft_index index;
    uint32_t slot; /* place in the batch of entry `index` */
    uint32_t bytes;
    int64_t time_ms;
    enum event_priority priority;
};
/* state_outbox_key: the row key of (list, seq), for storage scans.  out: 9 bytes. */
void state_outbox_key(unsigned list, grey_seq seq, uint8_t out[9]);
enum grey_error state_outbox_row(struct bytes key, struct bytes value, struct outbox_row *out); /* decodes a TABLE_OUTBOX row */
bool state_list_waits(const struct state *s, unsigned list);
enum event_channel state_list_channel(unsigned list);
grey_seq state_lost_below(const struct state *s, unsigned list); /* behind the last event of it that was given up; 0: none was */
void state_gap_key(enum event_channel c, grey_seq last,
                   uint8_t out[9]); /* row key of TABLE_GAP; agent/state/stretch.h reads the rows */
/* state_dedup_wants: names the rows that state_dedup reads.  What is longer than LIMIT_EVENT_FIELD_BYTES is not remembered. */
void state_dedup_wants(struct bytes source, struct bytes id, void (*want)(void *context, enum table_id id, struct bytes key),
                       void *context);
enum table_found state_dedup(struct state *s, struct bytes source, struct bytes id, struct answer_event *out);
uint64_t state_dedup_count(const struct state *s); /* ids remembered, forgotten ones that still take room included */

/* --- payloads of entries (docs/FORMATS.md), written by the proposer ---------------------------------------------------------------- */
enum kv_condition { KV_ALWAYS, KV_IF_VERSION, KV_IF_ABSENT };
/* value: ignored for a delete. */
void payload_kv(struct builder *out, bool is_delete, struct bytes key, enum kv_condition c, raft_index version,
                struct bytes content_type, struct bytes value);
bool payload_kv_value(struct bytes payload, struct bytes *content_type,
                      struct bytes *value);                       /* of an entry that a kv row refers to */
struct bytes payload_kv_key(struct bytes payload);                /* lends; empty: not the payload of an ENTRY_KV */
bool payload_kv_deletes(const struct entry *e, struct bytes key); /* e is an ENTRY_KV that deletes key */
void payload_ack(struct builder *out, uint64_t incarnation, enum event_channel c, grey_seq acked_seq);
/* The same, and what the link has cost so far (federation/budget.h): it rides along, so that counting makes no entries of its own. */
void payload_ack_usage(struct builder *out, uint64_t incarnation, enum event_channel c, grey_seq acked_seq,
                       const struct budget_used *used);
void payload_site(struct builder *out, const struct site_facts *f);
void payload_clock(struct builder *out, int64_t time_ms); /* the entry's own header carries the new time as well */
void payload_limits(struct builder *out, const struct queue_limits *l);

#endif
