/* Opening a gateway's disk: two databases that must tell one history, mended where they do not. */
#include "agent/store/sitedisk.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/store/datadir.h"
#include "agent/store/salvage.h"
#include "agent/store/setaside.h"
#include "platform/codec.h"
#include "platform/db.h"
#include "platform/log.h"
#include "platform/metrics.h"

#define LOG_WAL_BYTES_MAX 1048576u    /* 1 MiB: then it is checkpointed */
#define WITNESS_WAL_BYTES_MAX 262144u /* 256 KiB, either: all files of a witness stay below 2 MiB */
#define STATE_WAL_BYTES_MAX 4194304u  /* 4 MiB: longer: flushes touch the same pages again and again */
#define CACHE_BYTES 262144u           /* 256 KiB: of pages, each database */
#define SOFT_HEAP_BYTES 1572864u      /* 1.5 MiB: the rest of both: statements, the index of their logs */

static struct metric forged = METRIC_COUNTER("grey_storage_forged_logs_total",
                                             "Logs that are not what their leaders sealed, found at the start and set aside.");

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

enum grey_error sitedisk_reserve(struct sitedisk *d, struct fault *f) {
    enum grey_error err = datadir_reserve_make(d->data_dir, d->reserve_bytes, f);
    return err == E_OK && d->two_devices ? datadir_reserve_make(d->wal_dir, d->reserve_bytes, f) : err;
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

enum grey_error sitedisk_rebase(struct sitedisk *d, const struct sitelog_store *job, struct fault *f) {
    enum grey_error err = logdb_replace(d->log, &job->point, 0, f);
    if (err == E_OK && (err = logdb_installed(d->log, f)) == E_OK) { /* nothing is put in place of state.db */
        err = rebase_note(d, job, f);
    }
    return err;
}

enum grey_error sitedisk_rebase_finish(struct sitedisk *d, struct fault *f) {
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
    sitedisk_mark_path(d, mark, sizeof mark);
    enum grey_error err = E_OK;
    if (access(mark, F_OK) == 0) {
        err = fault_set(f, E_CORRUPT, "state.db was found damaged");
    } else {
        d->state = statedb_open(d->state_path, f);
        err = d->state == NULL ? f->code : E_OK;
        if (err == E_OK && d->witness && statedb_facts(d->state)->applied.index < logdb_facts(d->log)->base.index) {
            err = sitedisk_rebase_finish(d, f);
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

static enum grey_error load_start(struct sitedisk *d, const struct sitelog_options *o, struct sitelog_start *start,
                                  struct fault *f) {
    const struct logdb_facts *log = logdb_facts(d->log);
    const struct statedb_facts *state = statedb_facts(d->state);
    struct raft_start *r = &start->raft;
    enum grey_error err = E_OK;
    start->fresh = log->node.text[0] == '\0';
    start->restored = state->members == NULL && state->applied.index > 0;
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
    raft_index from = state->applied.index > o->window_entries ? state->applied.index - o->window_entries : 0;
    from = from > log->base.index ? from : log->base.index;
    if (err == E_OK && from < state->applied.index) {
        err = logdb_last_fitting(d->log, from + 1, state->applied.index, o->window_bytes, &from, f);
    }
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
    return err == E_OK ? load_start(d, o, start, f) : err;
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
    enum grey_error err = E_OK;
    for (enum table_id id = TABLE_META; err == E_OK && id <= TABLE_ID_MAX; id++) {
        err = table_pinned(id) ? sitedisk_state_checked(d, load_table(d, t, id, f), f) : E_OK;
    }
    return err;
}

/* Whom to ask for a new start.  False: the membership is known, and there is nobody else. */
static bool find_peers(struct sitedisk *d, const char *node, char peers[SETASIDE_PEERS_BYTES]) {
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
        if ((node == NULL || strcmp(node, member->node.text) != 0) && size > 0 && used + size + 2 < SETASIDE_PEERS_BYTES) {
            used += (size_t)snprintf(peers + used, SETASIDE_PEERS_BYTES - used, "%s%s", used == 0 ? "" : ",", member->peer_address);
        }
    }
    mem_free(m);
    return !alone;
}

static enum grey_error set_aside(struct sitedisk *d, const struct sitelog_options *o, const char *reason, struct fault *f) {
    char peers[SETASIDE_PEERS_BYTES], why[SETASIDE_REASON_BYTES];
    (void)snprintf(why, sizeof why, "%s", reason); /* may lie in f */
    if (!o->rejoins || !find_peers(d, o->node, peers)) {
        return fault_set(f, E_CORRUPT,
                         "%s (in %s).  No other gateway has this log: make a new directory from an image with 'greyd restore "
                         "--snapshot %s/... --data-dir DIR', or from a backup",
                         why, d->wal_dir, d->snapshot_dir);
    }
    close_both(d);
    return setaside_move(d->data_dir, d->wal_dir, peers, why, f);
}

static enum grey_error open_or_mend(struct sitedisk *d, const struct sitelog_options *o, struct table *t,
                                    struct sitelog_start *start, struct fault *f) {
    char reason[SETASIDE_REASON_BYTES];
    metrics_register(&forged);
    enum grey_error err = salvage_resume(d->data_dir, d->wal_dir, f);
    if (err == E_OK && o->rejoins && setaside_marked(d->wal_dir, reason)) {
        err = set_aside(d, o, reason, f);
    }
    if (err == E_OK && !o->witness && salvage_marked(d->wal_dir)) {
        err = fault_set(f, E_CORRUPT, "log.db was found damaged while it ran");
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
    if (err == E_CORRUPT && !o->witness) {
        (void)salvage_mark(d->wal_dir, f->text, NULL);
        return err;
    }
    if (err == E_SEAL) {
        metrics_add(&forged, 0, 1);
        log_error("siteopen", "forged", "error=GREY-%d %s: %s", error_id(err), error_sentence(err), f->text);
    }
    if (err == E_CORRUPT || err == E_SEAL) {
        sitelog_start_free(start);
        table_clear(t);
        if ((err = set_aside(d, o, f->text, f)) == E_OK && (err = open_both(d, o, start, f)) == E_OK) {
            err = load_tables(d, t, f);
        }
    }
    if (err == E_OK && setaside_rejoins(d->wal_dir, start->peers)) {
        start->rejoining = start->raft.members == NULL;
        if (!start->rejoining) {
            setaside_done(d->wal_dir);
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
    if (err == E_OK && sitedisk_reserve(d, f) == E_DISK_FULL) {
        d->usage.disk_full = true; /* starts all the same: room may come back */
        log_warn("sitelog", "no_reserve", "%s", f->text);
    }
    d->rejoins = o->rejoins;
    db_soft_limit(SOFT_HEAP_BYTES + 2ull * db_cache_bytes(CACHE_BYTES));
    if (err == E_OK) {
        err = open_or_mend(d, o, t, start, f);
    }
    if (err != E_OK) {
        sitelog_start_free(start);
        sitedisk_close(d);
        return err;
    }
    d->damage.found = false; /* what the start met it has mended */
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
