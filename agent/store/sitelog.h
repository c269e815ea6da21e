/* sitelog.h: what a gateway keeps on disk, behind one storage thread (DECISIONS 1-3; FAULTS.md fact 3).
 *
 * log.db (in storage.wal_dir): entries (header and payload in one row each, keyed by index), term, vote, identity.
 * state.db (in storage.data_dir): rows of agent/table/table.h and the applied position they stand for.
 * snapshots/ (in data_dir): the last three state images.   docs/FORMATS.md has all three formats.
 *
 * Every call that may touch a disk is a job: it returns at once, the storage thread works in order of calling with one connection per
 * database, and the done function runs on the loop.  All store jobs that wait are made durable by one transaction (group commit).
 * An error of a store or flush job is final: all later ones fail as well, the node must stop and start again from its disk (never
 * "retry as if nothing happened").  E_DISK_FULL is the exception: nothing of the job was stored, it keeps what it was given (entries,
 * wants) and may be given again; store jobs that were given before their owner heard of it fail in the same way, so that none
 * overtakes.  From then on the reserve file is given up (usage: disk_full) until there is room again: refuse new events meanwhile, so
 * that acknowledgements and clean-up can use it.
 * Jobs are embedded in their owner, who leaves them alone until done.  At most SITELOG_JOBS_MAX wait. */
#ifndef AGENT_SITELOG_H
#define AGENT_SITELOG_H

#include "agent/store/keepdb.h"
#include "agent/store/sealdb.h"
#include "agent/table/table.h"
#include "federation/raft/raft.h"
#include "platform/fault.h"
#include "platform/worker.h"

#define SITELOG_JOBS_MAX 4096u

struct sitelog;

/* What of the disk is not what was written to it. */
enum sitelog_damage {
    SITELOG_DAMAGE_LOG,     /* a row of log.db is lost: the next start mends the log with the help of others */
    SITELOG_DAMAGE_STATE,   /* a page of state.db: the next start builds it anew from an image and the log */
    SITELOG_DAMAGE_HISTORY, /* all of log.db can be read, but it is not the site's log: the next start sets it aside */
};

struct sitelog_options {
    const char *data_dir, *wal_dir; /* made when absent, 0700; copied */
    uint32_t reserve_bytes;         /* size of data_dir/reserve, and of the one in wal_dir when that is another device; 0: none */
    uint32_t window_entries;        /* at most this many entries are loaded at start beyond those not applied, */
    uint32_t window_bytes;          /* and so many bytes of them */
    uint32_t snapshots_kept;        /* of each kind, 3 */
    bool witness;                   /* entries come stripped; there is no state but position and membership; keep files small */
    bool rejoins;                   /* there are other gateways: a damaged log is set aside and the node comes back as a new one
                                       (agent/store/setaside.h); else it is refused */
    const char *node;               /* own name, to tell the others in the membership; NULL: unknown */
    /* A job met damage, of whatever kind it was and whether or not it failed.  On the loop, a turn after the job's done; may be NULL. */
    void (*damaged)(void *context, enum sitelog_damage what, const char *detail);
    void *context;
};

/* What the disk says, read and verified (hash chain) at open.  Lent until sitelog_start_free. */
struct sitelog_start {
    bool fresh;    /* never claimed: self was just drawn */
    bool restored; /* made by sitelog_restore: a state without members */
    raft_id self;
    uint64_t cluster_id;         /* 0: not bootstrapped, not joined */
    struct grey_name node, site; /* as first started; empty when fresh */
    uint64_t start_count;        /* counts openings, this one included */
    struct raft_start raft;      /* ready for raft_new; members NULL for a node that waits to be added */
    struct raft_point applied;   /* what state.db stands for */
    struct seal seal;            /* the newest on this disk, which holds; index 0: none */
    uint8_t state_hash[DIGEST_BYTES];
    bool rejoining;   /* its log was set aside, and it is no member yet: never bootstrap */
    char peers[1024]; /* rejoining: addresses to dial, separated by commas */
};

/* Opens or creates; blocks (start of the program only).  Loads all rows of pinned tables into t.
 * A damaged state.db is rebuilt from an image and the log.  A damaged log is E_CORRUPT, and salvage_marked: agent/node/mending.h goes on from
 * there.  One whose newest seal does not hold, or that is not trusted for another reason, is set aside where options.rejoins (start:
 * fresh and rejoining), else E_CORRUPT (says what and where).
 * E_LOCKED, E_DISK_VERSION, E_DISK_FULL, E_IO. */
struct sitelog *sitelog_open(struct loop *loop, const struct sitelog_options *o, struct table *t, struct sitelog_start *start,
                             struct fault *f);
/* What the next start is to do about damage found while it ran.  HISTORY also: a peer remembers more of this node than its disk does.
 * Durable before it returns; blocks briefly; any thread. */
enum grey_error sitelog_mark(struct sitelog *s, enum sitelog_damage what, const char *reason, struct fault *f);
void sitelog_start_free(struct sitelog_start *start);
void sitelog_close(struct sitelog *s); /* finishes all jobs, checkpoints, closes */

/* Makes an empty data directory from a self-contained image: the state and the log's base; the node draws a new identity and must be
 * bootstrapped or joined.  Blocks.  E_CORRUPT, E_DISK_VERSION; E_CONFIG when the directory is not empty. */
enum grey_error sitelog_restore(const char *file, const char *data_dir, const char *wal_dir, struct fault *f);

/* Once, before the first store: who this directory belongs to.  Blocks. */
enum grey_error sitelog_claim(struct sitelog *s, const struct grey_name *node, const struct grey_name *site, struct fault *f);

/* Part of every job; the sitelog's own. */
struct sitelog_slot {
    struct sitelog *owner;
    uint64_t failures;            /* of store jobs that were known when this one was given, or that this one met */
    bool again;                   /* the storage thread did a slice of it and wants to go on */
    struct sitedisk_slice *slice; /* where it stands */
};

/* --- jobs: set the public fields, call, wait for done --------------------------------------------------------------------------- */
struct sitelog_row { /* lent during done */
    enum table_id id;
    struct bytes key, value;
    raft_index ref;
    bool found;
};
struct sitelog_row_set; /* rows read by a job; freed after done */
size_t sitelog_row_count(const struct sitelog_row_set *set);
void sitelog_row_get(const struct sitelog_row_set *set, size_t i, struct sitelog_row *row);

/* Make durable: term and vote, truncation, entries; and, once that is done, read the rows that applying the entries will want. */
struct sitelog_store {
    struct worker_job job;
    struct sitelog_slot slot;
    uint64_t store_id;
    bool vote_given;
    raft_term term;
    raft_id vote;
    uint64_t cluster_id;      /* > 0: remember it with this store */
    raft_index truncate_from; /* 0: none */
    bool rebase; /* a witness: before the entries, the log is emptied and goes on behind point, where members are in force */
    struct raft_point point;
    struct blob *members; /* encoding; takes the reference, dropped before done unless E_DISK_FULL */
    raft_index members_index;
    struct entry *entries; /* takes the payload references and the array (mem_new); freed before done unless E_DISK_FULL */
    uint32_t entry_count;
    struct builder wants; /* rows to read: sitelog_want; freed before done unless E_DISK_FULL */
    bool held;            /* a storage thread that sleeps is not woken for it: the owner says when, with sitelog_wake */
    struct sitelog_row_set *rows;
    enum grey_error err;
    struct fault fault;
    void (*done)(void *context, struct sitelog_store *job);
    void *context;
};
void sitelog_want(struct builder *wants, enum table_id id, struct bytes key);
enum grey_error sitelog_store(struct sitelog *s, struct sitelog_store *job);
void sitelog_wake(struct sitelog *s);

/* Write changed rows and the position they stand for, in one transaction. */
struct sitelog_flush {
    struct worker_job job;
    struct sitelog_slot slot;
    struct table_flush changes;
    struct raft_point applied;
    uint8_t state_hash[DIGEST_BYTES];
    struct blob *members; /* encoding of the membership in force at applied (borrowed reference) and where it stands */
    raft_index members_index;
    enum grey_error err;
    struct fault fault;
    void (*done)(void *context, struct sitelog_flush *job);
    void *context;
};
enum grey_error sitelog_flush(struct sitelog *s, struct sitelog_flush *job);

/* Read things.  One kind of job, the fields say what.  What they meet of damage is told to options.damaged as well. */
enum sitelog_read_kind {
    SITELOG_ROWS,     /* `wants` */
    SITELOG_SCAN,     /* table, low <= key < high (high empty: no end), up to rows_max; rows on disk only; *more tells */
    SITELOG_ENTRIES,  /* from ...: complete entries, verified, about bytes_max of payload, at least one; E_CORRUPT, E_NOT_FOUND */
    SITELOG_PAYLOADS, /* payloads of `indexes` (any entries, also compacted ones that rows keep alive); a missing one is empty */
    SITELOG_LIVE, /* live payloads from index `from` up to `to`, in order, about bytes_max: for a follower that installs a snapshot */
    SITELOG_READABLE, /* what is there of from .. to, stripped or not; for a gateway that lost it.  same: the entry at anchor has anchor_term */
    SITELOG_CHECK, /* nothing is wanted: the next bytes_max of both databases are read and verified; more: this round has not ended */
};
struct sitelog_read {
    struct worker_job job;
    struct sitelog_slot slot;
    enum sitelog_read_kind kind;
    struct builder wants; /* freed by the job */
    enum table_id table;
    uint8_t low[LIMIT_KEY_BYTES], high[LIMIT_KEY_BYTES];
    size_t low_size, high_size;
    uint32_t rows_max;
    raft_index from, to;
    raft_index anchor; /* READABLE: 0: none */
    raft_term anchor_term;
    uint32_t bytes_max;
    raft_index *indexes; /* mem_new; freed by the job */
    uint32_t index_count;
    /* results, freed after done */
    struct sitelog_row_set *rows;
    struct entry *entries; /* references are dropped after done: take your own.  LIVE, READABLE: with digest checked */
    uint32_t entry_count;
    struct blob **payloads; /* PAYLOADS: index_count of them */
    bool more;
    bool same;              /* READABLE */
    raft_index looked_to;   /* READABLE: of from .. to */
    uint64_t checked_bytes; /* CHECK */
    enum grey_error err;
    struct fault fault;
    void (*done)(void *context, struct sitelog_read *job);
    void *context;
};
enum grey_error sitelog_read(struct sitelog *s, struct sitelog_read *job);

/* Snapshots.  A state image of the last flush: the rows, position, membership.  Written in slices between store jobs, so that commits
 * do not wait for it; no flush may be given until done. */
#define SITELOG_SNAPSHOTS_MAX 16u /* on disk, of both kinds together; then the oldest goes */
struct sitelog_snapshot_info {
    struct raft_point point;
    raft_index members_index;
    uint64_t file_bytes;
    int64_t made_unix_ms;
    uint8_t checksum[DIGEST_BYTES]; /* digest of the whole (docs/FORMATS.md): the file's last 32 bytes */
    bool self_contained;            /* holds the live payloads too: `snapshot create` */
    char name[64];                  /* file name below data_dir/snapshots */
};
enum sitelog_snapshot_kind {
    SITELOG_SNAPSHOT_WRITE, /* self_contained; result in info */
    SITELOG_SNAPSHOT_READ,  /* point.index, offset, bytes_max -> chunk, total_bytes (a peer fetches it); E_NOT_FOUND */
    SITELOG_SNAPSHOT_RECEIVE, /* point, offset, chunk, total_bytes: append to the partial file; resume_offset tells how much is there */
    SITELOG_SNAPSHOT_PAYLOADS, /* entries (index and payload): live payloads that belong to the received image; takes as store does.
                                 Those the peer no longer has need not come: later entries remove their rows */
    SITELOG_SNAPSHOT_INSTALL, /* the received image, verified, becomes the state and the log's base; the log is empty behind it.  A crash
                                 leaves the old or, finished at the next open, the new.  E_CORRUPT: the received file is bad and was
                                 removed.  Then META and SEGMENT rows are in `rows` */
};
struct sitelog_snapshot {
    struct worker_job job;
    struct sitelog_slot slot;
    enum sitelog_snapshot_kind kind;
    bool self_contained;
    struct raft_point point;
    uint64_t offset, total_bytes, resume_offset;
    uint32_t bytes_max;
    struct blob *chunk; /* READ: result, dropped after done; RECEIVE: borrowed reference */
    struct entry *entries;
    uint32_t entry_count;
    struct sitelog_snapshot_info info; /* WRITE, INSTALL */
    struct raft_members members;       /* INSTALL: membership of the image */
    uint8_t state_hash[DIGEST_BYTES];  /* INSTALL */
    struct sitelog_row_set *rows;
    enum grey_error err;
    struct fault fault;
    void (*done)(void *context, struct sitelog_snapshot *job);
    void *context;
};
enum grey_error sitelog_snapshot(struct sitelog *s, struct sitelog_snapshot *job);
/* The snapshots on disk, newest first; call on the loop's thread, no disk access (kept in memory). */
size_t sitelog_snapshots(const struct sitelog *s, struct sitelog_snapshot_info *out, size_t max);

/* Forget entries up to `point` except payloads that rows keep alive.  Only up to a snapshot that exists. */
struct sitelog_compact {
    struct worker_job job;
    struct sitelog_slot slot;
    struct raft_point point;
    enum grey_error err;
    struct fault fault;
    void (*done)(void *context, struct sitelog_compact *job);
    void *context;
};
enum grey_error sitelog_compact(struct sitelog *s, struct sitelog_compact *job);

/* Batches of events that are taken while the site has no leader (agent/store/keepdb.h). */
enum sitelog_keep_kind {
    SITELOG_KEEP_COUNT,
    SITELOG_KEEP_ADD,    /* batch (borrowed), ids -> receipt; durable */
    SITELOG_KEEP_NEXT,   /* receipt: the first one behind it -> receipt, batch (a reference for the owner); E_NOT_FOUND */
    SITELOG_KEEP_REMOVE, /* receipt */
    SITELOG_KEEP_FIND,   /* id -> receipt, element; E_NOT_FOUND */
};
struct sitelog_keep {
    struct worker_job job;
    struct sitelog_slot slot;
    enum sitelog_keep_kind kind;
    struct blob *batch;
    struct builder ids;
    uint8_t id[KEEPDB_ID_BYTES];
    uint64_t receipt;
    uint32_t element;
    uint64_t kept_events, kept_bytes; /* after the job */
    enum grey_error err;
    struct fault fault;
    void (*done)(void *context, struct sitelog_keep *job);
    void *context;
};
enum grey_error sitelog_keep(struct sitelog *s, struct sitelog_keep *job);

/* Seals of the log (agent/store/sealdb.h). */
enum sitelog_seal_kind {
    SITELOG_SEAL_PUT,  /* seal, signer: written with the next store, flush or list */
    SITELOG_SEAL_LIST, /* from, to -> seals, signers: the owner's, mem_free; before: the log's point before `from`.  E_NOT_FOUND */
};
struct sitelog_seal {
    struct worker_job job;
    struct sitelog_slot slot;
    enum sitelog_seal_kind kind;
    struct seal seal;
    struct sealdb_signer signer;
    raft_index from, to;
    struct raft_point before;
    struct seal *seals;
    uint32_t seal_count;
    struct sealdb_signer *signers;
    uint32_t signer_count;
    enum grey_error err;
    struct fault fault;
    void (*done)(void *context, struct sitelog_seal *job);
    void *context;
};
enum grey_error sitelog_seal(struct sitelog *s, struct sitelog_seal *job);

/* Memory is short: caches of the databases go back to the machine, in the storage thread.  E_BUSY: that is under way. */
enum grey_error sitelog_relieve(struct sitelog *s);

struct sitelog_usage {                                          /* as of the last finished job */
    uint64_t log_bytes, state_bytes, snapshot_bytes, wal_bytes; /* file sizes */
    uint64_t syncs, written_bytes;                              /* since start; written: to the databases, as SQLite asked for */
    uint64_t store_us_last, store_us_max;                       /* duration of store transactions */
    uint64_t stores;                                            /* store transactions */
    uint64_t store_waits_ms;                                    /* how long no store has ended while some wait; 0: none waits */
    uint64_t waits_ms;                                          /* the same for jobs of any kind */
    uint32_t jobs_waiting;
    bool disk_full; /* the reserve is given up; ends by itself when there is room for it again */
};
void sitelog_usage(const struct sitelog *s, struct sitelog_usage *u);

#endif
