/* What goes to grey-update.  The chunks of an update that is in force become a file: written as they are read, synced by a worker, named last.  The word
 * that this version is well is written by a worker too: the disk may take its time. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/run/updater_core.h"
#include "agent/slots/letterbox.h"
#include "platform/log.h"

void delivery_prepare(struct updater *u) {
    (void)snprintf(u->inbox, sizeof u->inbox, "%.900s/updates", u->o.data_dir);
    if (u->o.slots[0] != 0 && mkdir(u->inbox, 0750) != 0 && errno != EEXIST) {
        log_error("updater", "inbox", "%s: %s", u->inbox, strerror(errno));
    }
}

void delivery_drop(struct updater *u) {
    if (u->file >= 0) {
        (void)close(u->file);
        u->file = -1;
    }
}

static void give_up(struct updater *u, const char *why) {
    log_error("updater", "handover", "name=%s issue=%" PRIu64 " %s; tried again", u->writing.name, u->writing.issue, why);
    delivery_drop(u);
}

/* --- on a worker --- */

static struct updater *of_job(struct worker_job *job) {
    return (struct updater *)(void *)((char *)job - offsetof(struct updater, job));
}

static void move_work(struct worker_job *job) {
    struct updater *u = of_job(job);
    char from[LIMIT_PATH_BYTES + 1], to[LIMIT_PATH_BYTES + 1];
    letterbox_path(u->inbox, LETTERBOX_COMING, from);
    letterbox_path(u->inbox, LETTERBOX_BUNDLE, to);
    u->error = fsync(u->file) == 0 && rename(from, to) == 0 ? E_OK : E_IO;
}

static void move_done(struct worker_job *job) {
    struct updater *u = of_job(job);
    u->moving = false;
    if (u->error != E_OK) {
        give_up(u, "cannot be written");
    } else {
        log_info("updater", "handed_over", "name=%s issue=%" PRIu64, u->writing.name, u->writing.issue);
        delivery_drop(u);
    }
}

/* --- chunk after chunk --- */

static void read_on(struct updater *u);

static void chunk_read(void *context, enum grey_error err, const char *detail, struct blob *payload) {
    struct updater *u = context;
    struct bytes content = payload == NULL ? bytes_of(NULL, 0) : holding_content(blob_bytes(payload));
    u->pending--;
    u->came = true;
    if (u->stopped || u->file < 0) {
        updater_release(u);
        return;
    }
    if (content.size == 0) {
        give_up(u, detail);
    } else if (write(u->file, content.data, content.size) != (ssize_t)content.size) {
        give_up(u, strerror(errno));
    }
    (void)err;
    if (!u->reading && u->file >= 0) {
        read_on(u);
    }
}

/* Chunks in memory come at once, others when the storage thread has read them. */
static void read_on(struct updater *u) {
    struct holding h;
    u->reading = true;
    while (u->came && u->file >= 0) {
        if (!holding_find(updater_rows(u), OBJECT_UPDATE, bytes_str(u->writing.name), &h) || h.force.issue != u->writing.issue) {
            give_up(u, "another issue is in force");
            break;
        }
        if (u->chunk == object_chunk_count(&h.force)) {
            u->job = (struct worker_job){.work = move_work, .done = move_done};
            u->moving = true;
            if (worker_submit(u->x.crypto, &u->job) != E_OK) {
                u->moving = false;
                give_up(u, "the worker is busy");
            }
            break;
        }
        u->came = false;
        u->pending++;
        node_payload(u->node, holding_chunk(updater_rows(u), object_hash(&h.force, u->chunk++)), chunk_read, u);
    }
    u->reading = false;
}

void delivery_begin(struct updater *u, const struct holding *h, const struct updater_target *t) {
    char path[LIMIT_PATH_BYTES + 1];
    if (u->file >= 0 || u->moving || letterbox_has_bundle(u->inbox)) {
        return;
    }
    letterbox_path(u->inbox, LETTERBOX_COMING, path);
    u->file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (u->file < 0) {
        log_limited(LOG_ERROR, "updater", "handover", "%s: %s", path, strerror(errno));
        return;
    }
    u->writing = *t;
    u->chunk = 0;
    u->came = true;
    log_info("updater", "handover", "name=%s issue=%" PRIu64 " bytes=%" PRIu64, t->name, t->issue, h->force.size);
    read_on(u);
}

bool delivery_under_way(const struct updater *u) {
    return !u->trial && (u->file >= 0 || u->moving || u->state.try != SLOTS_NONE || letterbox_has_bundle(u->inbox));
}

void delivery_withdraw(struct updater *u) {
    char path[LIMIT_PATH_BYTES + 1];
    if (u->trial || u->file >= 0 || u->moving || u->state.try != SLOTS_NONE || !letterbox_has_bundle(u->inbox)) {
        return;
    }
    letterbox_path(u->inbox, LETTERBOX_BUNDLE, path);
    log_warn("updater", "withdrawn", "grey-update did not begin in this gateway's turn: does it run here?");
    if (unlink(path) != 0) {
        log_limited(LOG_ERROR, "updater", "withdrawn", "%s: %s", path, strerror(errno));
    }
}

/* --- the word that it is well --- */

static struct updater *of_confirm_job(struct worker_job *job) {
    return (struct updater *)(void *)((char *)job - offsetof(struct updater, confirm_job));
}

static void confirm_work(struct worker_job *job) {
    struct updater *u = of_confirm_job(job);
    u->confirm_error = letterbox_confirm(u->inbox, u->confirming_id, &u->confirm_fault);
}

static void confirm_done(struct worker_job *job) {
    struct updater *u = of_confirm_job(job);
    u->confirming = false;
    u->confirmed = u->confirm_error == E_OK;
    if (u->confirmed) {
        log_info("updater", "confirm", "this version is well");
    } else { /* the next look tries again */
        log_limited(LOG_ERROR, "updater", "confirm", "%s", u->confirm_fault.text);
    }
}

void delivery_confirm(struct updater *u) {
    if (u->confirmed || u->confirming) {
        return;
    }
    memcpy(u->confirming_id, u->running_id, sizeof u->confirming_id);
    u->confirm_fault = (struct fault){0};
    u->confirm_job = (struct worker_job){.work = confirm_work, .done = confirm_done};
    u->confirming = worker_submit(u->x.crypto, &u->confirm_job) == E_OK; /* busy: the next look asks again */
}
