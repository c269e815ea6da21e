#include "agent/sitedisk.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/datadir.h"
#include "agent/mend.h"
#include "include/grey/must.h"
#include "platform/codec.h"
#include "platform/db.h"
#include "platform/log.h"
#include "platform/now.h"

#define LOG_WAL_BYTES_MAX 1048576u    /* 1 MiB: then it is checkpointed */
#define WITNESS_WAL_BYTES_MAX 262144u /* 256 KiB, either: all files of a witness stay below 2 MiB */
#define STATE_WAL_BYTES_MAX 4194304u  /* 4 MiB: longer: flushes touch the same pages again and again */
#define SOFT_HEAP_BYTES 2097152u      /* 2 MiB: of both databases: caches, statements, the index of their logs */
#define SWEEP_ROWS 256u               /* a slice of about 2 ms on a slow card */
#define FREED_WITH_STORE 32u          /* freed payloads that a store transaction takes along */
#define SWEEP_WITH_STORE 32u          /* payloads judged together with a store, at least: fewer would write their pages twice */
#define QUIET_MS 1000u                /* without a store: then clean-up goes on by itself */
#define SHRINK_PAGES 64u
#define SHRINK_FREE_BYTES 1048576u /* 1 MiB */
#define MEASURE_EVERY_MS 1000u
#define CHORE_PAUSE_MS 1000u

/* --- open ---------------------------------------------------------------------------------------------------------------------------- */
static enum grey_error name_paths(struct sitedisk *d, const struct sitelog_options *o, struct fault *f) {
    const char *wal_dir = o->wal_dir == NULL || o->wal_dir[0] == '\0' ? o->data_dir : o->wal_dir;
    if (strlen(o->data_dir) > LIMIT_PATH_BYTES || strlen(wal_dir) > LIMIT_PATH_BYTES) {
        return fault_set(f, E_CONFIG, "storage.data_dir or storage.wal_dir is longer than %u bytes", LIMIT_PATH_BYTES);
    }
    snprintf(d->data_dir, sizeof d->data_dir, "%s", o->data_dir);
    snprintf(d->wal_dir, sizeof d->wal_dir, "%s", wal_dir);
    snprintf(d->log_path, sizeof d->log_path, "%s/log.db", d->wal_dir);
    snprintf(d->state_path, sizeof d->state_path, "%s/state.db", d->data_dir);
    (void)snprintf(d->keep_path, sizeof d->keep_path, "%s/intake.db", d->data_dir);
    snprintf(d->snapshot_dir, sizeof d->snapshot_dir, "%s/snapshots", d->data_dir);
    snprintf(d->new_state_path, sizeof d->new_state_path, "%s/state-new.db", d->data_dir);
    return E_OK;
}

static enum grey_error reserve_make(struct sitedisk *d, struct fault *f) {
    enum grey_error err = datadir_reserve_make(d->data_dir, d->reserve_bytes, f);
    return err == E_OK && d->two_devices ? datadir_reserve_make(d->wal_dir, d->reserve_bytes, f) : err;
}

static void disk_full(struct sitedisk *d) {
    bool dropped = datadir_reserve_drop(d->data_dir);
    dropped |= d->two_devices && datadir_reserve_drop(d->wal_dir);
    if (!d->usage.disk_full) {
        log_warn("sitelog", "disk_full", "reserve_dropped=%d reserve_bytes=%" PRIu32, dropped, d->reserve_bytes);
    }
    d->usage.disk_full = true;
}

enum grey_error sitedisk_write_failed(struct sitedisk *d, enum grey_error err) {
    if (err == E_DISK_FULL) {
        disk_full(d);
    } else if (err != E_OK && d->failed == E_OK) {
        d->failed = err;
    }
    return err;
}

/* Pages of state.db are verified when they are read, so damage may show long after the start: the next one must know. */
static void mark_path(const struct sitedisk *d, char *out, size_t size) {
    (void)snprintf(out, size, "%s/state.damaged", d->data_dir);
}

static enum grey_error state_checked(struct sitedisk *d, enum grey_error err, const struct fault *f) {
    if (err == E_CORRUPT) {
        d->state_damaged = true;
        char mark[sizeof d->data_dir + 16];
        mark_path(d, mark, sizeof mark);
        int fd = open(mark, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd >= 0) {
            close(fd);
        }
        (void)datadir_sync(d->data_dir, NULL);
        log_error("sitelog", "state_damaged", "%s", f->text);
    }
    return err;
}

/* Damage that a write meets is final: the node stops, and its next start sets the log aside.  What a read meets, the node judges
 * (node_log_damaged). */
static enum grey_error log_checked(struct sitedisk *d, enum grey_error err, const struct fault *f) {
    if (err == E_CORRUPT && !d->state_damaged && d->failed == E_OK && d->rejoins) {
        log_error("sitelog", "log_damaged", "error=GREY-%d %s", error_id(err), f->text);
        (void)mend_mark(d->wal_dir, f->text, NULL);
        d->failed = err;
    }
    return err;
}

/* The two databases must tell one history: state.db stands for an entry that the log has, or for its base. */
static enum grey_error compare(struct sitedisk *d, struct fault *f) {
    const struct logdb_facts *log = logdb_facts(d->log);
    const struct statedb_facts *state = statedb_facts(d->state);
    struct raft_point point = {0};
    raft_index applied = state->applied.index;
    if (applied > log->last) {
        return fault_set(f, E_CORRUPT,
                         "log.db ends at entry %" PRIu64 ", but state.db stands for %" PRIu64 ": the log lost its end", log->last,
                         applied);
    }
    enum grey_error err = logdb_point(d->log, applied, &point, f);
    if (err == E_OK && memcmp(point.hash, state->applied.hash, DIGEST_BYTES) != 0) {
        err = fault_set(f, E_CORRUPT, "state.db and log.db tell different histories of entry %" PRIu64, applied);
    }
    return err;
}

/* --- a witness's new base ---------------------------------------------------------------------------------------------------------------- */
/* log.db takes the base and, as a received payload of that index, a note of the membership there: array [members_index, encoding].
 * state.db follows with what the note says, at once or, after a crash in between, at the next open. */
static enum grey_error rebase_note(struct sitedisk *d, const struct sitelog_store *job, struct fault *f) {
    struct builder b;
    builder_init(&b, 256u * 1024u);
    codec_put_array(&b, 2);
    codec_put_uint(&b, job->members_index);
    codec_put_bytes(&b, blob_bytes(job->members));
    struct entry note = {.index = job->point.index, .term = job->point.term, .kind = ENTRY_CONFIG, .payload = builder_blob(&b)};
    builder_free(&b);
    enum grey_error err =
        note.payload == NULL ? fault_set(f, E_NO_MEMORY, "the membership at a new base") : logdb_receive(d->log, &note, f);
    blob_unref(note.payload);
    return err;
}

static enum grey_error rebase(struct sitedisk *d, const struct sitelog_store *job, struct fault *f) {
    enum grey_error err = logdb_replace(d->log, &job->point, 0, f);
    if (err == E_OK && (err = logdb_installed(d->log, f)) == E_OK) { /* nothing is put in place of state.db */
        err = rebase_note(d, job, f);
    }
    return err;
}

static enum grey_error rebase_finish(struct sitedisk *d, struct fault *f) {
    const struct logdb_facts *log = logdb_facts(d->log);
    struct statedb_facts facts = {.applied = log->base};
    struct table_flush nothing = {0};
    struct codec_reader r;
    struct entry note = {0};
    enum grey_error err = logdb_payload(d->log, log->base.index, &note, f);
    if (err != E_OK) {
        return err == E_NOT_FOUND ? fault_set(f, E_CORRUPT, "log.db: the membership at its base is missing") : err;
    }
    codec_reader_init(&r, blob_bytes(note.payload));
    uint64_t fields = codec_array(&r, 2);
    facts.members_index = codec_uint(&r, log->base.index);
    facts.members = blob_copy(codec_bytes(&r, LIMIT_PAYLOAD_BYTES));
    if (fields != 2 || codec_end(&r) != E_OK) {
        err = fault_set(f, E_CORRUPT, "log.db: the membership at its base is damaged");
    } else if (facts.members == NULL) {
        err = fault_set(f, E_NO_MEMORY, "the membership at a new base");
    } else {
        err = statedb_flush(d->state, &nothing, &facts, log->base.index, f);
    }
    blob_unref(facts.members);
    blob_unref(note.payload);
    return err;
}

/* A state that is damaged, or older than what the log begins with, is built anew from an image on this disk. */
static enum grey_error open_state(struct sitedisk *d, struct fault *f) {
    char mark[sizeof d->data_dir + 16];
    mark_path(d, mark, sizeof mark);
    enum grey_error err = E_OK;
    if (access(mark, F_OK) == 0) {
        err = fault_set(f, E_CORRUPT, "state.db was found damaged");
    } else {
        d->state = statedb_open(d->state_path, f);
        err = d->state == NULL ? f->code : E_OK;
        if (err == E_OK && d->witness && statedb_facts(d->state)->applied.index < logdb_facts(d->log)->base.index) {
            err = rebase_finish(d, f);
        }
        if (err == E_OK && statedb_facts(d->state)->applied.index < logdb_facts(d->log)->base.index) {
            err = fault_set(f, E_CORRUPT, "state.db stands for entry %" PRIu64 ", but log.db begins after %" PRIu64,
                            statedb_facts(d->state)->applied.index, logdb_facts(d->log)->base.index);
        }
    }
    if (err == E_CORRUPT && sitedisk_rebuild_state(d, f) == E_OK) {
        (void)unlink(mark);
        d->state = statedb_open(d->state_path, f);
        err = d->state == NULL ? f->code : E_OK;
    }
    return err == E_OK ? compare(d, f) : err;
}

static enum grey_error load_table(struct sitedisk *d, struct table *t, enum table_id id, struct fault *f) {
    struct sitelog_row_set *set = rowset_new();
    bool more = false;
    enum grey_error err = set == NULL ? E_NO_MEMORY : E_OK;
    if (err == E_OK) {
        err = statedb_scan(d->state, id, bytes_of(NULL, 0), bytes_of(NULL, 0), UINT32_MAX, set, &more, f);
    }
    for (size_t i = 0; err == E_OK && i < sitelog_row_count(set); i++) {
        struct sitelog_row row;
        sitelog_row_get(set, i, &row);
        err = table_load(t, id, row.key, true, row.value, row.ref);
    }
    rowset_free(set);
    return err == E_NO_MEMORY ? fault_set(f, err, "loading the state") : err;
}

static enum grey_error load_start(struct sitedisk *d, uint32_t window_entries, struct sitelog_start *start, struct fault *f) {
    const struct logdb_facts *log = logdb_facts(d->log);
    const struct statedb_facts *state = statedb_facts(d->state);
    struct raft_start *r = &start->raft;
    enum grey_error err = E_OK;
    start->fresh = log->node.text[0] == '\0';
    start->restored = start->fresh && state->applied.index > 0;
    start->self = log->self;
    start->cluster_id = log->cluster_id;
    start->node = log->node;
    start->site = log->site;
    start->start_count = log->start_count;
    start->applied = state->applied;
    memcpy(start->state_hash, state->state_hash, DIGEST_BYTES);
    r->term = log->term;
    r->vote = log->vote;
    r->base = log->base;
    r->applied_index = state->applied.index;
    r->members_index = state->members_index;
    if (state->members != NULL) {
        struct raft_members *m = mem_new(1, sizeof *m);
        r->members = m;
        err = m == NULL ? fault_set(f, E_NO_MEMORY, "loading the membership") : raft_members_decode(blob_bytes(state->members), m);
        if (err != E_OK && err != E_NO_MEMORY) {
            err = fault_set(f, E_CORRUPT, "state.db: the stored membership is damaged");
        }
    }
    raft_index from = state->applied.index > window_entries ? state->applied.index - window_entries : 0;
    from = from > log->base.index ? from : log->base.index;
    if (err == E_OK) {
        err = logdb_point(d->log, from, &r->window_base, f);
    }
    if (err == E_OK && log->last > from) {
        struct entry *entries = NULL;
        err = logdb_entries(d->log, from + 1, log->last, UINT64_MAX, &entries, &r->entry_count, f);
        r->entries = entries;
    }
    return err;
}

void sitelog_start_free(struct sitelog_start *start) {
    union { /* lent as const to the reader, owned here */
        const struct entry *lent;
        struct entry *own;
    } entries = {.lent = start->raft.entries};
    union {
        const struct raft_members *lent;
        struct raft_members *own;
    } members = {.lent = start->raft.members};
    logdb_entries_free(entries.own, start->raft.entry_count);
    mem_free(members.own);
    *start = (struct sitelog_start){0};
}

static enum grey_error open_both(struct sitedisk *d, const struct sitelog_options *o, struct sitelog_start *start,
                                 struct fault *f) {
    d->log = logdb_open(d->log_path, f);
    enum grey_error err = d->log == NULL ? f->code : E_OK;
    if (err == E_OK) {
        d->seals = sealdb_open(d->log, f);
        err = d->seals == NULL ? f->code : sealdb_check(d->seals, f);
    }
    if (err == E_OK && (err = sealdb_newest(d->seals, &start->seal, f)) == E_OK &&
        (err = snapshot_list_load(d->snapshot_dir, &d->snapshots, f)) == E_OK) {
        err = sitedisk_finish_install(d, f);
    }
    if (err == E_OK) {
        err = open_state(d, f);
    }
    return err == E_OK ? load_start(d, o->window_entries, start, f) : err;
}

static void close_both(struct sitedisk *d) {
    if (d->seals != NULL && d->failed == E_OK) {
        (void)sealdb_save(d->seals, NULL);
    }
    statedb_close(d->state);
    sealdb_close(d->seals);
    d->seals = NULL;
    logdb_close(d->log);
    d->state = NULL;
    d->log = NULL;
}

/* Rows that are kept in memory.  Damage among them is found here at the latest, and mended as any other of state.db. */
static enum grey_error load_tables(struct sitedisk *d, struct table *t, struct fault *f) {
    enum grey_error err = state_checked(d, load_table(d, t, TABLE_META, f), f);
    return err == E_OK ? state_checked(d, load_table(d, t, TABLE_SEGMENT, f), f) : err;
}

/* Whom to ask for a new start.  False: the membership is known, and there is nobody else. */
static bool find_peers(struct sitedisk *d, const char *node, char peers[MEND_PEERS_BYTES]) {
    peers[0] = '\0';
    if (d->state == NULL && access(d->state_path, F_OK) == 0) {
        d->state = statedb_open(d->state_path, NULL);
    }
    struct raft_members *m = mem_new(1, sizeof *m);
    const struct statedb_facts *facts = d->state == NULL ? NULL : statedb_facts(d->state);
    bool known = m != NULL && facts != NULL && facts->members != NULL && raft_members_decode(blob_bytes(facts->members), m) == E_OK;
    bool alone = known && m->count <= 1;
    size_t used = 0;
    for (uint32_t i = 0; known && i < m->count; i++) {
        const struct raft_member *member = &m->at[i];
        size_t size = strlen(member->peer_address);
        if ((node == NULL || strcmp(node, member->node.text) != 0) && size > 0 && used + size + 2 < MEND_PEERS_BYTES) {
            used += (size_t)snprintf(peers + used, MEND_PEERS_BYTES - used, "%s%s", used == 0 ? "" : ",", member->peer_address);
        }
    }
    mem_free(m);
    return !alone;
}

static enum grey_error set_aside(struct sitedisk *d, const struct sitelog_options *o, const char *reason, struct fault *f) {
    char peers[MEND_PEERS_BYTES], why[MEND_REASON_BYTES];
    (void)snprintf(why, sizeof why, "%s", reason); /* may lie in f */
    if (!o->rejoins || !find_peers(d, o->node, peers)) {
        return fault_set(f, E_CORRUPT,
                         "%s (in %s).  No other gateway has this log: make a new directory from an image with 'greyd restore "
                         "--snapshot %s/... --data-dir DIR', or from a backup",
                         why, d->wal_dir, d->snapshot_dir);
    }
    close_both(d);
    return mend_set_aside(d->data_dir, d->wal_dir, peers, why, f);
}

static enum grey_error open_or_mend(struct sitedisk *d, const struct sitelog_options *o, struct table *t,
                                    struct sitelog_start *start, struct fault *f) {
    char reason[MEND_REASON_BYTES];
    enum grey_error err = E_OK;
    if (o->rejoins && mend_marked(d->wal_dir, reason)) {
        err = set_aside(d, o, reason, f);
    }
    if (err == E_OK && (err = open_both(d, o, start, f)) == E_OK && (err = load_tables(d, t, f)) == E_CORRUPT) {
        sitelog_start_free(start); /* once more: state.db is marked, and is built anew */
        close_both(d);
        table_clear(t);
        d->state_damaged = false;
        if ((err = open_both(d, o, start, f)) == E_OK) {
            err = load_tables(d, t, f);
        }
    }
    if (err == E_CORRUPT || err == E_SEAL) {
        sitelog_start_free(start);
        table_clear(t);
        if ((err = set_aside(d, o, f->text, f)) == E_OK && (err = open_both(d, o, start, f)) == E_OK) {
            err = load_tables(d, t, f);
        }
    }
    if (err == E_OK && mend_rejoins(d->wal_dir, start->peers)) {
        start->rejoining = start->raft.members == NULL;
        if (!start->rejoining) {
            mend_done(d->wal_dir);
        }
    }
    return err;
}

enum grey_error sitedisk_open(const struct sitelog_options *o, struct table *t, struct sitelog_start *start, struct sitedisk **out,
                              struct fault *f) {
    struct fault unheard = {0};
    f = f == NULL ? &unheard : f;
    *start = (struct sitelog_start){0};
    struct sitedisk *d = mem_new(1, sizeof *d);
    if (d == NULL) {
        return fault_set(f, E_NO_MEMORY, "opening the site log");
    }
    d->lock_fd = -1;
    d->reserve_bytes = o->reserve_bytes;
    d->snapshots_kept = o->snapshots_kept;
    d->witness = o->witness;
    d->log_wal_bytes_max = o->witness ? WITNESS_WAL_BYTES_MAX : LOG_WAL_BYTES_MAX;
    d->state_wal_bytes_max = o->witness ? WITNESS_WAL_BYTES_MAX : STATE_WAL_BYTES_MAX;
    enum grey_error err = name_paths(d, o, f);
    if (err == E_OK && (err = datadir_make(d->data_dir, f)) == E_OK && (err = datadir_make(d->wal_dir, f)) == E_OK) {
        d->two_devices = !datadir_same_device(d->data_dir, d->wal_dir);
        err = datadir_lock(d->data_dir, &d->lock_fd, f);
    }
    if (err == E_OK && reserve_make(d, f) == E_DISK_FULL) {
        d->usage.disk_full = true; /* starts all the same: room may come back */
        log_warn("sitelog", "no_reserve", "%s", f->text);
    }
    d->rejoins = o->rejoins;
    db_soft_limit(SOFT_HEAP_BYTES);
    if (err == E_OK) {
        err = open_or_mend(d, o, t, start, f);
    }
    if (err != E_OK) {
        sitelog_start_free(start);
        sitedisk_close(d);
        return err;
    }
    sitedisk_measure(d);
    *out = d;
    return E_OK;
}

void sitedisk_close(struct sitedisk *d) {
    if (d == NULL) {
        return;
    }
    keepdb_close(d->keep);
    close_both(d);
    if (d->lock_fd >= 0) {
        close(d->lock_fd);
    }
    mem_free(d);
}

enum grey_error sitedisk_claim(struct sitedisk *d, const struct grey_name *node, const struct grey_name *site, struct fault *f) {
    enum grey_error err = logdb_begin(d->log, f);
    if (err != E_OK) {
        return sitedisk_write_failed(d, err);
    }
    if ((err = logdb_claim(d->log, node, site, f)) != E_OK) {
        logdb_rollback(d->log);
        return sitedisk_write_failed(d, err);
    }
    return sitedisk_write_failed(d, logdb_commit(d->log, f));
}

/* --- store --------------------------------------------------------------------------------------------------------------------------- */
static enum grey_error store_one(struct sitedisk *d, const struct sitelog_store *job, struct fault *f) {
    enum grey_error err = E_OK;
    if (job->vote_given) {
        err = logdb_vote(d->log, job->term, job->vote, f);
    }
    if (err == E_OK && job->cluster_id > 0) {
        err = logdb_cluster(d->log, job->cluster_id, f);
    }
    if (err == E_OK && job->rebase) {
        err = rebase(d, job, f);
    }
    if (err == E_OK && job->truncate_from > 0) {
        err = logdb_truncate(d->log, job->truncate_from, f);
    }
    for (uint32_t i = 0; i < job->entry_count && err == E_OK; i++) {
        if (job->entries[i].index != logdb_facts(d->log)->last + 1) {
            return fault_set(f, E_BUG, "entry %" PRIu64 " does not follow %" PRIu64, job->entries[i].index,
                             logdb_facts(d->log)->last);
        }
        err = logdb_append(d->log, &job->entries[i], f);
    }
    return err;
}

/* Freed payloads go with a transaction that is made anyway; count tells how many, for statedb_forgotten. */
static enum grey_error forget_freed(struct sitedisk *d, uint32_t max, uint32_t *count, struct fault *f) {
    raft_index freed[SWEEP_ROWS];
    must(max <= SWEEP_ROWS);
    enum grey_error err = state_checked(d, statedb_freed(d->state, freed, max, count, f), f);
    for (uint32_t i = 0; i < *count && err == E_OK; i++) {
        err = logdb_forget(d->log, freed[i], f);
    }
    return err;
}

/* A full disk that a checkpoint finds is given the reserve at once: a log that cannot be moved into its file would only grow. */
static enum grey_error checkpoint(struct sitedisk *d, struct db *db, struct fault *f) {
    enum grey_error err = db_checkpoint(db, f);
    if (err == E_DISK_FULL && !d->usage.disk_full) {
        disk_full(d);
        err = db_checkpoint(db, f);
    }
    return err;
}

static enum grey_error is_live(void *context, raft_index index, bool *is, struct fault *f) {
    struct sitedisk *d = context;
    return state_checked(d, statedb_live(d->state, index, is, f), f);
}

static bool sweep_open(const struct sitedisk *d) {
    const struct logdb_facts *log = logdb_facts(d->log);
    return log->swept < log->base.index;
}

/* While entries come in, as many old payloads are judged as came in, and a few more, so that there is an end; in the same transaction
 * and before them, so that pages that become free are written once, with the new entries in them. */
static enum grey_error sweep_along(struct sitedisk *d, uint32_t entry_count, struct fault *f) {
    d->sweep_credit = sweep_open(d) ? d->sweep_credit + entry_count + (entry_count + 3) / 4 : 0;
    if (d->sweep_credit < SWEEP_WITH_STORE) {
        return E_OK;
    }
    uint32_t rows = d->sweep_credit < SWEEP_ROWS ? d->sweep_credit : SWEEP_ROWS;
    d->sweep_credit = 0;
    return logdb_sweep(d->log, rows, is_live, d, f);
}

static enum grey_error store_all(struct sitedisk *d, struct sitelog_store *const *jobs, uint32_t count, struct fault *f) {
    uint32_t freed = 0;
    uint32_t entry_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        entry_count += jobs[i]->entry_count;
    }
    d->stored_ms = now_monotonic_ms();
    enum grey_error err = logdb_begin(d->log, f);
    if (err == E_OK) {
        err = sweep_along(d, entry_count, f);
    }
    for (uint32_t i = 0; i < count && err == E_OK; i++) {
        err = store_one(d, jobs[i], f);
    }
    if (err == E_OK) {
        err = sealdb_write(d->seals, f);
    }
    bool forget =
        statedb_freed_count(d->state) <= FREED_WITH_STORE; /* more go apart, in order, so that each page is written once */
    if (err == E_OK && forget) {
        err = forget_freed(d, FREED_WITH_STORE, &freed, f);
    }
    if (err != E_OK) {
        logdb_rollback(d->log);
        return err;
    }
    if ((err = logdb_commit(d->log, f)) == E_OK) {
        if (forget) {
            statedb_forgotten(d->state);
        }
        if (jobs[0]->rebase && (err = rebase_finish(d, f)) == E_DISK_FULL) { /* half of it is done; the next open does the rest */
            err = fault_set(f, E_IO, "the disk is full in the middle of a new base");
        }
    }
    return err;
}

static void read_wanted(struct sitedisk *d, struct sitelog_store *job) {
    if (job->wants.size == 0) {
        return;
    }
    job->rows = rowset_new();
    job->err = job->rows == NULL
                   ? fault_set(&job->fault, E_NO_MEMORY, "reading rows")
                   : state_checked(d, statedb_rows(d->state, builder_bytes(&job->wants), job->rows, &job->fault), &job->fault);
    (void)sitedisk_write_failed(d, job->err); /* the entries are stored, but the node cannot go on */
}

static void give_up_inputs(struct sitelog_store *job) {
    logdb_entries_free(job->entries, job->entry_count);
    blob_unref(job->members);
    job->members = NULL;
    job->entries = NULL;
    job->entry_count = 0;
    builder_free(&job->wants);
}

void sitedisk_store(struct sitedisk *d, struct sitelog_store *const *jobs, uint32_t count) {
    struct fault fault = {0};
    uint32_t late = 0; /* jobs given before their owner knew of a failure: the oldest ones */
    while (d->failed == E_OK && late < count && jobs[late]->slot.failures != d->failures) {
        jobs[late]->err = fault_set(&jobs[late]->fault, E_DISK_FULL, "an earlier store found the disk full");
        jobs[late]->slot.failures = d->failures;
        late++;
    }
    jobs += late;
    count -= late;
    if (count == 0) {
        return;
    }
    enum grey_error err = d->failed;
    if (err != E_OK) {
        fault_set(&fault, err, "an earlier write failed; start again from the disk");
    } else {
        uint64_t start_us = now_monotonic_us();
        if (d->usage.disk_full &&
            db_wal_bytes(logdb_db(d->log)) > d->log_wal_bytes_max) { /* what is left is not for a growing log */
            err = checkpoint(d, logdb_db(d->log), &fault);
        }
        err = sitedisk_write_failed(d, log_checked(d, err == E_OK ? store_all(d, jobs, count, &fault) : err, &fault));
        d->usage.store_us_last = now_monotonic_us() - start_us;
        d->usage.store_us_max = d->usage.store_us_max > d->usage.store_us_last ? d->usage.store_us_max : d->usage.store_us_last;
        d->usage.stores++;
        d->failures += err != E_OK;
    }
    for (uint32_t i = 0; i < count; i++) {
        jobs[i]->err = err;
        jobs[i]->fault = fault;
        jobs[i]->slot.failures = d->failures;
        if (err == E_OK) {
            read_wanted(d, jobs[i]);
        }
        if (err != E_DISK_FULL) {
            give_up_inputs(jobs[i]);
        }
    }
}

/* --- flush --------------------------------------------------------------------------------------------------------------------------- */
void sitedisk_flush(struct sitedisk *d, struct sitelog_flush *job) {
    const struct logdb_facts *log = logdb_facts(d->log);
    struct statedb_facts facts = {.applied = job->applied, .members = job->members, .members_index = job->members_index};
    memcpy(facts.state_hash, job->state_hash, DIGEST_BYTES);
    if (d->failed != E_OK) {
        job->err = fault_set(&job->fault, d->failed, "an earlier write failed; start again from the disk");
    } else if (job->applied.index < statedb_facts(d->state)->applied.index) {
        job->err = fault_set(&job->fault, E_BUG, "the applied position would go back to %" PRIu64, job->applied.index);
    } else if (job->applied.index > log->last) {
        /* Applied, but the store of it failed: only a full disk lets the node live on. */
        job->err = fault_set(&job->fault, E_DISK_FULL, "entry %" PRIu64 " is not stored yet", job->applied.index);
    } else {
        job->err = sitedisk_write_failed(
            d, state_checked(d, statedb_flush(d->state, &job->changes, &facts, log->base.index, &job->fault), &job->fault));
        if (job->err == E_OK) { /* no store took it along for a while */
            job->err = sitedisk_save_seal(d, &job->fault);
        }
    }
}

/* --- read ---------------------------------------------------------------------------------------------------------------------------- */
static enum grey_error read_payloads(struct sitedisk *d, struct sitelog_read *job) {
    job->payloads = mem_new(job->index_count, sizeof(struct blob *));
    if (job->payloads == NULL && job->index_count > 0) {
        return fault_set(&job->fault, E_NO_MEMORY, "reading payloads");
    }
    for (uint32_t i = 0; i < job->index_count; i++) {
        struct entry e;
        enum grey_error err = logdb_payload(d->log, job->indexes[i], &e, &job->fault);
        if (err == E_OK) {
            job->payloads[i] = e.payload;
        } else if (err != E_NOT_FOUND) {
            return err;
        }
    }
    job->fault = (struct fault){0};
    return E_OK;
}

static enum grey_error read_live(struct sitedisk *d, struct sitelog_read *job) {
    uint32_t capacity = 0;
    uint64_t bytes = 0;
    raft_index at = job->from;
    for (;;) {
        enum grey_error err = state_checked(d, statedb_live_next(d->state, at, &at, &job->fault), &job->fault);
        if (err != E_OK || at == 0 || at > job->to) {
            return err;
        }
        if (job->entry_count > 0 && bytes >= job->bytes_max) {
            job->more = true;
            return E_OK;
        }
        if (job->entry_count == capacity) {
            capacity = capacity == 0 ? 16 : capacity * 2;
            struct entry *grown = mem_grow(job->entries, capacity, sizeof *grown);
            if (grown == NULL) {
                return fault_set(&job->fault, E_NO_MEMORY, "reading live payloads");
            }
            job->entries = grown;
        }
        if ((err = logdb_payload(d->log, at, &job->entries[job->entry_count], &job->fault)) != E_OK) {
            if (err != E_NOT_FOUND) {
                return err;
            }
            /* Not given with a snapshot, because the giver had freed it by then: an entry to come removes the row. */
            job->fault = (struct fault){0};
            at++;
            continue;
        }
        bytes += blob_bytes(job->entries[job->entry_count++].payload).size;
        at++;
    }
}

void sitedisk_keep(struct sitedisk *d, struct sitelog_keep *job) {
    struct fault *f = &job->fault;
    job->err = E_OK;
    job->kept_events = job->kept_bytes = 0;
    if (d->keep == NULL && (job->kind == SITELOG_KEEP_ADD || access(d->keep_path, F_OK) == 0)) {
        d->keep = keepdb_open(d->keep_path, f);
        if (d->keep == NULL) {
            job->err = f->code;
            return;
        }
    }
    if (d->keep == NULL) {
        job->err = job->kind == SITELOG_KEEP_NEXT || job->kind == SITELOG_KEEP_FIND ? E_NOT_FOUND : E_OK;
        return;
    }
    switch (job->kind) {
    case SITELOG_KEEP_COUNT:
        break;
    case SITELOG_KEEP_ADD:
        job->err = keepdb_add(d->keep, blob_bytes(job->batch), builder_bytes(&job->ids), &job->receipt, f);
        break;
    case SITELOG_KEEP_NEXT:
        job->err = keepdb_next(d->keep, job->receipt, &job->receipt, &job->batch, f);
        break;
    case SITELOG_KEEP_REMOVE:
        job->err = keepdb_remove(d->keep, job->receipt, f);
        break;
    case SITELOG_KEEP_FIND:
        job->err = keepdb_find(d->keep, job->id, &job->receipt, &job->element, f);
        break;
    }
    job->kept_events = keepdb_events(d->keep);
    job->kept_bytes = keepdb_bytes(d->keep);
}

void sitedisk_read(struct sitedisk *d, struct sitelog_read *job) {
    struct fault *f = &job->fault;
    job->more = false;
    if (d->state == NULL) {
        job->err = fault_set(f, d->failed, "the state could not be put in place; start again from the disk");
        return;
    }
    if (job->kind == SITELOG_ROWS || job->kind == SITELOG_SCAN) {
        job->rows = rowset_new();
        if (job->rows == NULL) {
            job->err = fault_set(f, E_NO_MEMORY, "reading rows");
            return;
        }
    }
    switch (job->kind) {
    case SITELOG_ROWS:
        job->err = state_checked(d, statedb_rows(d->state, builder_bytes(&job->wants), job->rows, f), f);
        break;
    case SITELOG_SCAN:
        job->err = statedb_scan(d->state, job->table, bytes_of(job->low, job->low_size), bytes_of(job->high, job->high_size),
                                job->rows_max, job->rows, &job->more, f);
        (void)state_checked(d, job->err, f);
        break;
    case SITELOG_ENTRIES:
        job->err = logdb_entries(d->log, job->from, job->to, job->bytes_max, &job->entries, &job->entry_count, f);
        break;
    case SITELOG_PAYLOADS:
        job->err = read_payloads(d, job);
        break;
    case SITELOG_LIVE:
        job->err = read_live(d, job);
        break;
    }
    if (job->err == E_BUG) { /* only wrong SQL or a malformed list */
        log_error("sitelog", "read", "kind=%d %s", (int)job->kind, f->text);
    }
}

/* --- compaction and chores -------------------------------------------------------------------------------------------------------------- */
static bool quiet(const struct sitedisk *d) {
    return now_monotonic_ms() - d->stored_ms >= QUIET_MS;
}

/* One transaction: the base moves (point may be NULL) and when no store does it along, a slice of the payloads below it is judged. */
static enum grey_error sweep(struct sitedisk *d, const struct raft_point *point, struct fault *f) {
    enum grey_error err = logdb_begin(d->log, f);
    if (err == E_OK && point != NULL) {
        err = logdb_compact(d->log, point, f);
    }
    if (err == E_OK && quiet(d)) {
        err = logdb_sweep(d->log, SWEEP_ROWS, is_live, d, f);
    }
    if (err != E_OK) {
        logdb_rollback(d->log);
        return err;
    }
    return logdb_commit(d->log, f);
}

void sitedisk_compact(struct sitedisk *d, struct sitelog_compact *job) {
    job->slot.again = false;
    if (d->failed != E_OK) {
        job->err = fault_set(&job->fault, d->failed, "an earlier write failed; start again from the disk");
        return;
    }
    if (job->point.index > statedb_facts(d->state)->applied.index) {
        job->err = fault_set(&job->fault, E_BUG, "compaction to %" PRIu64 " beyond the flushed state", job->point.index);
        return;
    }
    job->err = sitedisk_write_failed(d, sweep(d, &job->point, &job->fault));
    job->slot.again = job->err == E_OK && sweep_open(d) && quiet(d);
}

static bool shrinks(struct db *db) {
    uint64_t free_bytes = db_free_bytes(db);
    return free_bytes > SHRINK_FREE_BYTES && free_bytes > db_file_bytes(db) / 4;
}

bool sitedisk_has_chore(struct sitedisk *d) {
    return d->failed == E_OK && now_monotonic_ms() >= d->chore_after_ms &&
           (db_wal_bytes(logdb_db(d->log)) > d->log_wal_bytes_max || db_wal_bytes(statedb_db(d->state)) > d->state_wal_bytes_max ||
            (sweep_open(d) && quiet(d)) || statedb_freed_count(d->state) > FREED_WITH_STORE || d->log_shrinks || d->state_shrinks);
}

bool sitedisk_has_later(const struct sitedisk *d) {
    return d->failed == E_OK && sweep_open(d);
}

static enum grey_error forget_slice(struct sitedisk *d, struct fault *f) {
    uint32_t count = 0;
    enum grey_error err = logdb_begin(d->log, f);
    if (err == E_OK) {
        err = forget_freed(d, SWEEP_ROWS, &count, f);
    }
    if (err != E_OK) {
        logdb_rollback(d->log);
        return err;
    }
    if ((err = logdb_commit(d->log, f)) == E_OK) {
        statedb_forgotten(d->state);
    }
    return err;
}

void sitedisk_chore(struct sitedisk *d) {
    struct fault fault = {0};
    struct db *log = logdb_db(d->log), *state = statedb_db(d->state);
    enum grey_error err = E_OK;
    if (d->failed != E_OK) {
        return;
    }
    if (d->usage.disk_full && reserve_make(d, NULL) == E_OK) {
        d->usage.disk_full = false;
        log_info("sitelog", "disk_has_room", "reserve_bytes=%" PRIu32, d->reserve_bytes);
    }
    if (db_wal_bytes(log) > d->log_wal_bytes_max) {
        err = checkpoint(d, log, &fault);
    } else if (db_wal_bytes(state) > d->state_wal_bytes_max) {
        err = checkpoint(d, state, &fault);
    } else if (sweep_open(d) && quiet(d)) {
        err = sweep(d, NULL, &fault);
    } else if (statedb_freed_count(d->state) > FREED_WITH_STORE) {
        err = forget_slice(d, &fault);
    } else if (d->log_shrinks) {
        err = db_shrink(log, SHRINK_PAGES, &fault);
        d->log_shrinks = shrinks(log);
    } else if (d->state_shrinks) {
        err = db_shrink(state, SHRINK_PAGES, &fault);
        d->state_shrinks = shrinks(state);
    }
    /* What could not be done now is not tried again at once. */
    bool stuck = err != E_OK || db_wal_bytes(log) / 2 > d->log_wal_bytes_max;
    d->chore_after_ms = stuck ? now_monotonic_ms() + CHORE_PAUSE_MS : 0;
    if (sitedisk_write_failed(d, err) != E_OK) {
        log_limited(LOG_ERROR, "sitelog", "clean_up", "error=%s %s", error_name(err), fault.text);
    }
}

void sitedisk_measure(struct sitedisk *d) {
    struct db_counts counts;
    if (d->state == NULL) {
        return;
    }
    db_count(&counts);
    d->usage.syncs = counts.syncs;
    d->usage.written_bytes = counts.written_bytes;
    d->usage.wal_bytes = db_wal_bytes(logdb_db(d->log)) + db_wal_bytes(statedb_db(d->state));
    uint64_t now_ms = now_monotonic_ms();
    if (d->measured_ms == 0 || now_ms - d->measured_ms >= MEASURE_EVERY_MS) {
        d->measured_ms = now_ms;
        d->usage.log_bytes = db_file_bytes(logdb_db(d->log));
        d->usage.state_bytes = db_file_bytes(statedb_db(d->state));
        d->log_shrinks = shrinks(logdb_db(d->log));
        d->state_shrinks = shrinks(statedb_db(d->state));
        d->usage.snapshot_bytes = 0;
        for (size_t i = 0; i < d->snapshots.count; i++) {
            d->usage.snapshot_bytes += d->snapshots.at[i].file_bytes;
        }
    }
}
