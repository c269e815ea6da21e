#include "core/batch.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/store_enroll.h"
#include "include/grey/must.h"
#include "platform/log.h"
#include "platform/metrics.h"

static struct metric store_errors = METRIC_COUNTER("grey_core_store_errors_total", "Transactions that failed.");
static struct metric again = METRIC_COUNTER("grey_core_store_again_total",
                                            "Transactions done again after a lost connection or a conflict with another core.");

void batch_register(void) {
    metrics_register(&store_errors);
    metrics_register(&again);
}

/* Waits before doing a transaction again; after the last the jobs are told that it failed, and sites send what they hold again. */
static const uint32_t again_ms[] = {0, 50, 100, 200, 400, 800, 1600};

static int by_name(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Sites of the list, each once and in order: what is locked in one order everywhere cannot wait in a ring. */
static enum grey_error lock_sites(struct store *store, const struct worker_job *list, struct fault *f) {
    static const char *sites[BATCH_JOBS_MAX]; /* the storage thread only */
    size_t count = 0, kept = 0;
    for (const struct worker_job *j = list; j != NULL; j = j->next) {
        const struct storage_job *job = (const struct storage_job *)(const void *)j;
        if (job->is_write && job->site != NULL) {
            must(count < BATCH_JOBS_MAX);
            sites[count++] = job->site;
        }
    }
    qsort(sites, count, sizeof sites[0], by_name);
    for (size_t i = 0; i < count; i++) {
        if (kept == 0 || strcmp(sites[kept - 1], sites[i]) != 0) {
            sites[kept++] = sites[i];
        }
    }
    return kept == 0 ? E_OK : store_lock(store, sites, kept, f);
}

static enum grey_error write_all(struct store *store, struct worker_job *list, struct fault *f) {
    enum grey_error err = store_begin(store, f);
    err = err != E_OK ? err : lock_sites(store, list, f);
    for (struct worker_job *j = list; j != NULL && err == E_OK; j = j->next) {
        struct storage_job *job = (struct storage_job *)(void *)j;
        if (!job->is_write) {
            continue;
        }
        job->err = E_OK;
        job->run(job, store);
        bool own = job->err == E_OK || job->err == E_STALE_MEMBER || job->err == E_NOT_FOUND || job->err == E_BAD_CBOR ||
                   job->err == E_BAD_MESSAGE || store_enroll_refuses(job->err);
        if (!own) {
            err = job->err;
            *f = job->fault;
        }
    }
    err = err != E_OK ? err : store_commit(store, f);
    if (err != E_OK) {
        store_rollback(store);
    }
    return err;
}

static void write_batch(struct store *store, struct worker_job *list) {
    struct fault f = {0};
    enum grey_error err = E_CONFLICT;
    for (size_t i = 0; i < sizeof again_ms / sizeof again_ms[0] && store_again(err); i++) {
        if (i > 0) {
            metrics_add(&again, 0, 1);
            log_limited(LOG_WARN, "store", "again", "error=GREY-%d %s: %s", error_id(err), error_sentence(err), f.text);
            (void)usleep(again_ms[i] * 1000u);
        }
        err = write_all(store, list, &f);
    }
    if (err == E_OK) {
        return;
    }
    metrics_add(&store_errors, 0, 1);
    log_error("store", "transaction", "error=GREY-%d %s: %s", error_id(err), error_sentence(err), f.text);
    for (struct worker_job *j = list; j != NULL; j = j->next) {
        struct storage_job *job = (struct storage_job *)(void *)j;
        if (job->is_write) {
            job->err = err;
            job->fault = f;
        }
    }
}

struct worker_job *batch_run(void *context, struct worker_job *list) {
    struct store *store = context;
    bool writes = false;
    for (const struct worker_job *j = list; j != NULL && !writes; j = j->next) {
        writes = ((const struct storage_job *)(const void *)j)->is_write;
    }
    if (writes) {
        write_batch(store, list);
    }
    for (struct worker_job *j = list; j != NULL; j = j->next) {
        struct storage_job *job = (struct storage_job *)(void *)j;
        if (!job->is_write) {
            job->run(job, store);
        }
    }
    return NULL; /* all are done */
}
