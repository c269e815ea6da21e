#include "agent/store/sitedisk.h"

#define SIGNERS_MAX 256u

static enum grey_error list(struct sitedisk *d, struct sitelog_seal *job) {
    job->seals = mem_new(SEALDB_LIST_MAX, sizeof *job->seals);
    job->signers = mem_new(SIGNERS_MAX, sizeof *job->signers);
    if (job->seals == NULL || job->signers == NULL) {
        return fault_set(&job->fault, E_NO_MEMORY, "reading seals");
    }
    enum grey_error err = sitedisk_save_seal(d, &job->fault);
    if (err == E_OK) {
        err = logdb_point(d->log, job->from - 1, &job->before, &job->fault);
    }
    if (err == E_OK) {
        err = sealdb_list(d->seals, job->from, job->to, job->seals, &job->seal_count, &job->fault);
    }
    if (err == E_OK) {
        err = sealdb_signers(d->seals, job->signers, SIGNERS_MAX, &job->signer_count, &job->fault);
    }
    return sitedisk_log_checked(d, err, &job->fault);
}

/* On a full disk it waits on. */
enum grey_error sitedisk_save_seal(struct sitedisk *d, struct fault *f) {
    enum grey_error err = d->failed == E_OK ? sitedisk_write_failed(d, sealdb_save(d->seals, f)) : E_OK;
    return err == E_DISK_FULL ? E_OK : err;
}

void sitedisk_seal(struct sitedisk *d, struct sitelog_seal *job) {
    job->err = E_OK;
    if (job->kind == SITELOG_SEAL_LIST) {
        job->err = list(d, job);
    } else {
        sealdb_put(d->seals, &job->seal, &job->signer);
    }
}
