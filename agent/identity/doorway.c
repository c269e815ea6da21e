#include "agent/identity/doorway.h"

#include <stdio.h>
#include <string.h>

#include "agent/identity/enroll.h"
#include "agent/identity/sitecert.h"
#include "include/grey/limits.h"
#include "platform/keys.h"
#include "platform/log.h"
#include "platform/now.h"
#include "platform/wholefile.h"
#include "platform/worker.h"

#define WAIT_MS_MIN 15000u
#define WAIT_MS_MAX 3600000u
#define TRY_MS 8000u /* systemd gives 10 s to stop */

struct doorway {
    struct loop *loop;
    struct worker *worker; /* NULL: no try is under way */
    struct worker_job job;
    struct loop_timer timer;
    void (*renewed)(void *context);
    void *context;
    uint32_t wait_ms;
    enum { IDLE, WAITING, TRYING, ANSWERED } state; /* ANSWERED: the thread is to be ended */
    enum grey_error err;
    struct fault fault;
    char dir[LIMIT_PATH_BYTES + 32];
};

static void knock(struct worker_job *job) {
    struct doorway *d = (struct doorway *)(void *)((char *)job - offsetof(struct doorway, job));
    d->fault = (struct fault){0};
    d->err = enroll_renew(d->dir, TRY_MS, &d->fault);
}

static void wait(struct doorway *d) {
    uint32_t chance;
    keys_random(&chance, sizeof chance);
    d->state = WAITING;
    loop_timer_after(d->loop, &d->timer, d->wait_ms + chance % (d->wait_ms / 2)); /* 1 to 1.5 times */
    d->wait_ms = d->wait_ms * 2 < WAIT_MS_MAX ? d->wait_ms * 2 : WAIT_MS_MAX;
}

/* The thread cannot be ended from here. */
static void answered(struct worker_job *job) {
    struct doorway *d = (struct doorway *)(void *)((char *)job - offsetof(struct doorway, job));
    if (d->err == E_OK) {
        log_info("identity", "renewed", "the core renewed the certificate that had ended");
    } else {
        log_at(d->err == E_REVOKED ? LOG_ERROR : LOG_INFO, "identity", "lapsed", "no new certificate yet: error=GREY-%d %s: %s",
               error_id(d->err), error_sentence(d->err), d->fault.text);
    }
    d->state = ANSWERED;
    loop_timer_after(d->loop, &d->timer, 0);
}

static void try_it(struct doorway *d) {
    struct fault f = {0};
    d->worker = worker_new(d->loop, "enroll", 1, NULL, NULL, &f);
    d->job = (struct worker_job){.work = knock, .done = answered};
    d->state = TRYING;
    if (d->worker == NULL || worker_submit(d->worker, &d->job) != E_OK) {
        d->err = E_BUSY;
        d->state = ANSWERED;
        loop_timer_after(d->loop, &d->timer, 0);
    }
}

static void turn(void *context) {
    struct doorway *d = context;
    if (d->state == WAITING) {
        try_it(d);
        return;
    }
    if (d->worker != NULL) {
        worker_stop(d->worker);
        d->worker = NULL;
    }
    if (d->err == E_OK) {
        d->state = IDLE;
        d->renewed(d->context);
    } else {
        wait(d);
    }
}

struct doorway *doorway_new(struct loop *loop, const char *cert_path, void (*renewed)(void *context), void *context,
                            struct fault *f) {
    struct doorway *d = mem_new(1, sizeof *d);
    if (d == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "identity");
        return NULL;
    }
    d->loop = loop;
    d->renewed = renewed;
    d->context = context;
    d->timer = (struct loop_timer){.fire = turn, .context = d};
    sitecert_beside(cert_path, "", d->dir, sizeof d->dir);
    return d;
}

void doorway_tell(struct doorway *d, int64_t not_after_s) {
    char note[LIMIT_PATH_BYTES + 64];
    bool lapsed = now_wall_ms() / 1000 >= not_after_s;
    (void)snprintf(note, sizeof note, "%s" ENROLL_NOTE_FILE, d->dir);
    if (lapsed && d->state == IDLE && wholefile_exists(note)) {
        d->wait_ms = WAIT_MS_MIN;
        wait(d);
    } else if (!lapsed && d->state == WAITING) {
        loop_timer_cancel(d->loop, &d->timer);
        d->state = IDLE;
    }
}

void doorway_free(struct doorway *d) {
    if (d != NULL) {
        loop_timer_cancel(d->loop, &d->timer);
        if (d->worker != NULL) {
            worker_stop(d->worker);
        }
        loop_timer_cancel(d->loop, &d->timer);
        mem_free(d);
    }
}
