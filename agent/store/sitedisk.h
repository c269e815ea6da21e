/* sitedisk.h: the blocking half of agent/store/sitelog.h: what the storage thread does with a job.
 *
 * One owner at a time: the caller of sitedisk_open, then the storage thread, then the caller of sitedisk_close. */
#ifndef AGENT_SITEDISK_H
#define AGENT_SITEDISK_H

#include "agent/store/logdb.h"
#include "agent/store/snapshot.h"
#include "agent/store/statedb.h"

struct sitedisk {
    char data_dir[LIMIT_PATH_BYTES + 1], wal_dir[LIMIT_PATH_BYTES + 1];
    char log_path[LIMIT_PATH_BYTES + 16], state_path[LIMIT_PATH_BYTES + 16], new_state_path[LIMIT_PATH_BYTES + 16];
    uint32_t reserve_bytes, snapshots_kept;
    uint64_t log_wal_bytes_max, state_wal_bytes_max; /* then it is checkpointed */
    bool witness;
    bool rejoins; /* a damaged log is set aside at the next start */
    bool state_damaged;
    bool checking_state; /* SITELOG_CHECK has been through log.db */
    struct sitedisk_damage {
        bool found;
        enum sitelog_damage what;
        char text[sizeof((struct fault *)0)->text];
    } damage;         /* the first that was met since it was last taken */
    bool two_devices; /* wal_dir has a reserve of its own */
    int lock_fd;
    struct logdb *log;
    struct sealdb *seals; /* of log, closed before it */
    struct statedb *state;
    struct keepdb *keep; /* NULL until something is kept */
    char keep_path[LIMIT_PATH_BYTES + 16];
    char snapshot_dir[LIMIT_PATH_BYTES + 16];
    struct snapshot_list snapshots;
    char verified[64];          /* name of the image that was last read through */
    enum grey_error failed;     /* E_OK, or why no further store or flush is taken */
    uint64_t failures;          /* store transactions that failed */
    struct sitelog_usage usage; /* all but jobs_waiting */
    struct sitedisk_shrink {
        bool now, later;        /* more pages are unused than is good; or will be when it is quiet */
        bool whole;             /* so few are used that they are written anew */
        uint32_t pages;         /* of the next slice */
    } log_shrink, state_shrink; /* as of the last look */
    uint64_t chore_after_ms;    /* no clean-up before: the last one failed */
    uint64_t stored_ms;         /* when the last store was made */
    bool grown;                 /* an entry was stored since the start: somebody leads */
    uint32_t sweep_credit;      /* payloads to judge with a coming store */
    uint64_t measured_ms;       /* when the file sizes were last looked at */
};

enum grey_error sitedisk_open(const struct sitelog_options *o, struct table *t, struct sitelog_start *start, struct sitedisk **out,
                              struct fault *f);
void sitedisk_close(struct sitedisk *d); /* NULL is allowed */
enum grey_error sitedisk_claim(struct sitedisk *d, const struct grey_name *node, const struct grey_name *site, struct fault *f);

/* agent/store/siteopen.c, for agent/store/sitedisk.c and the other way round */
enum grey_error sitedisk_reserve(struct sitedisk *d, struct fault *f); /* on each device */
enum grey_error sitedisk_rebase(struct sitedisk *d, const struct sitelog_store *job,
                                struct fault *f); /* a witness's new base, first half */
enum grey_error sitedisk_rebase_finish(struct sitedisk *d, struct fault *f);
void sitedisk_mark_path(const struct sitedisk *d, char *out, size_t size); /* of the note that state.db was found damaged */
/* Each result of reading a database passes here, whatever the job does about it: err, noted if it is damage. */
enum grey_error sitedisk_state_checked(struct sitedisk *d, enum grey_error err, const struct fault *f);
enum grey_error sitedisk_log_checked(struct sitedisk *d, enum grey_error err, const struct fault *f);
enum grey_error sitedisk_mark(struct sitedisk *d, enum sitelog_damage what, const char *reason, struct fault *f); /* sitelog_mark */

/* Each sets the job's err and fault. */
void sitedisk_store(struct sitedisk *d, struct sitelog_store *const *jobs,
                    uint32_t count); /* one transaction; then each job's rows */
void sitedisk_flush(struct sitedisk *d, struct sitelog_flush *job);
void sitedisk_read(struct sitedisk *d, struct sitelog_read *job);
void sitedisk_keep(struct sitedisk *d, struct sitelog_keep *job);
/* Sliced: job->slot.again tells that there is more to do. */
void sitedisk_compact(struct sitedisk *d, struct sitelog_compact *job);

/* agent/store/siteseal.c */
void sitedisk_seal(struct sitedisk *d, struct sitelog_seal *job);
enum grey_error sitedisk_save_seal(struct sitedisk *d, struct fault *f); /* one that waits for a transaction gets its own */

/* agent/store/sitesnap.c */
void sitedisk_snapshot(struct sitedisk *d, struct sitelog_snapshot *job);
void sitedisk_snapshot_end(struct sitelog_snapshot *job); /* drops what a job that is not gone on with holds */
size_t sitedisk_snapshots(const struct sitedisk *d, struct sitelog_snapshot_info *out, size_t max);
enum grey_error sitedisk_finish_install(struct sitedisk *d, struct fault *f); /* at open, before state.db is opened */
/* state.db is lost or damaged: builds it from an image on this disk.  E_NOT_FOUND: none fits; f is left as it was. */
enum grey_error sitedisk_rebuild_state(struct sitedisk *d, struct fault *f);

/* Clean-up, a slice of it: checkpoints, freed payloads, unused pages, the reserve. */
bool sitedisk_has_chore(struct sitedisk *d);
bool sitedisk_has_later(const struct sitedisk *d); /* there will be one when no store has come for a while */
void sitedisk_chore(struct sitedisk *d);
void sitedisk_relieve(struct sitedisk *d); /* caches and free heap go back to the machine */

void sitedisk_measure(struct sitedisk *d); /* brings usage up to date */
/* For parts of the disk layer: what an error of a write means from now on.  Returns err. */
enum grey_error sitedisk_write_failed(struct sitedisk *d, enum grey_error err);

#endif
