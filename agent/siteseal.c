#include <inttypes.h>

#include "agent/sitedisk.h"

#define SIGNERS_MAX 256u

static enum grey_error list(struct sitedisk *d, struct sitelog_seal *job) {
    job->seals = mem_new(SEALDB_LIST_MAX, sizeof *job->seals);
    job->signers = mem_new(SIGNERS_MAX, sizeof *job->signers);
    if (job->seals == NULL || job->signers == NULL) {
        return fault_set(&job->fault, E_NO_MEMORY, "reading seals");
    }
    enum grey_error err = logdb_point(d->log, job->from - 1, &job->before, &job->fault);
    if (err == E_OK) {
        err = sealdb_list(d->seals, job->from, job->to, job->seals, &job->seal_count, &job->fault);
    }
    return err == E_OK ? sealdb_signers(d->seals, job->signers, SIGNERS_MAX, &job->signer_count, &job->fault) : err;
}

/* A seal that is not stored is no loss: the next one vouches for the same.  So a full disk is no reason to stop for it. */
void sitedisk_seal(struct sitedisk *d, struct sitelog_seal *job) {
    if (job->kind == SITELOG_SEAL_LIST) {
        job->err = list(d, job);
    } else if (d->failed != E_OK) {
        job->err = fault_set(&job->fault, d->failed, "an earlier write failed; start again from the disk");
    } else if (job->seal.index > logdb_facts(d->log)->last) { /* its entries met a full disk; a seal must never outrun them */
        job->err = fault_set(&job->fault, E_DISK_FULL, "entry %" PRIu64 " is not stored yet", job->seal.index);
    } else {
        job->err = sitedisk_write_failed(d, sealdb_put(d->seals, &job->seal, &job->signer, &job->fault));
    }
}
