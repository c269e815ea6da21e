#include "core/revoker.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/batch.h"
#include "core/store_enroll.h"
#include "core/store_objects.h"
#include "core/store_restored.h"
#include "federation/trust.h"
#include "include/grey/limits.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/now.h"
#include "platform/wholefile.h"

#define TELL_MS 5000u
#define FORGOTTEN_S                                                                                                                \
    (366 * INT64_C(86400)) /* no certificate that was revoked before that can still hold: authority_sign's longest is a year */
#define RENEW_LIST_S (10 * INT64_C(86400)) /* the list is signed anew when it is so old; it holds for AUTHORITY_LIST_DAYS */

static struct metric revoked = METRIC_GAUGE("grey_core_certificates_revoked", "Certificates in the list of revoked ones.");

void revoker_register(void) {
    metrics_register(&revoked);
}

struct revoker {
    struct storage_job storage; /* under way while busy */
    struct loop *loop;
    struct worker *worker;
    struct giver *giver;
    const struct authority *ca;
    struct loop_timer timer; /* set while the broker does not know of the newest list */
    size_t count;            /* results of the job */
    bool fresh;
    bool stopping, busy, again;
    char ca_dir[LIMIT_PATH_BYTES + 1], broker_pid[LIMIT_PATH_BYTES + 1];
};

/* --- on the storage thread ---------------------------------------------------------------------------------------------------------- */

static enum grey_error write_list(const struct revoker *r, struct bytes list, struct fault *f) {
    char path[LIMIT_PATH_BYTES + 16];
    (void)snprintf(path, sizeof path, "%.1000s/crl.pem", r->ca_dir);
    return wholefile_write(path, list, 0644, f);
}

/* Is what sites have what they should have?  A list that is not old, and names what is revoked. */
static bool is_current(const struct revoker *r, struct store *store, const struct crl_entry *entries, size_t count, int64_t now_s) {
    struct builder have;
    struct store_object object;
    struct crl_facts facts;
    struct trust_parts parts;
    struct fault f = {0};
    uint8_t sum[CERT_SERIAL_BYTES] = {0};
    for (size_t i = 0; i < count * CERT_SERIAL_BYTES; i++) {
        sum[i % CERT_SERIAL_BYTES] ^= entries[i / CERT_SERIAL_BYTES].serial[i % CERT_SERIAL_BYTES];
    }
    builder_init(&have, 2 * CRL_PEM_BYTES_MAX);
    bool current = store_object_get(store, OBJECT_POLICY, TRUST_NAME, 0, &object, &have, &f) == E_OK &&
                   trust_split(builder_bytes(&have), &parts) &&
                   bytes_equal_str(parts.authorities, (const char *)r->ca->bundle.data) &&
                   crl_read(parts.list, (const char *)r->ca->issuing.data, &facts, &f) == E_OK && facts.entry_count == count &&
                   memcmp(facts.serials_xor, sum, sizeof sum) == 0 && now_s - facts.this_s < RENEW_LIST_S &&
                   facts.this_s <= now_s && write_list(r, parts.list, &f) == E_OK;
    builder_free(&have);
    return current;
}

/* Adds to entries what the list that the CA signed last names and the store does not know: it is an older copy of itself (core/store_restored.h),
 * and who was shut out stays so. */
static enum grey_error remember(const struct revoker *r, struct store *store, struct crl_entry *entries, size_t *count,
                                int64_t now_ms, struct fault *f) {
    static struct crl_entry before[CRL_ENTRIES_MAX]; /* the storage thread only */
    char path[LIMIT_PATH_BYTES + 16];
    struct builder text;
    struct fault inner = {0};
    size_t there = 0, here = *count, lost = 0;
    (void)snprintf(path, sizeof path, "%.1000s/crl.pem", r->ca_dir);
    builder_init(&text, 2 * CRL_PEM_BYTES_MAX);
    enum grey_error err = wholefile_read(path, &text, &inner);
    err = err != E_OK ? err
                      : crl_entries(bytes_of(text.data, text.size - 1), (const char *)r->ca->bundle.data, before, CRL_ENTRIES_MAX,
                                    &there, &inner);
    builder_free(&text);
    if (err != E_OK) {
        return E_OK; /* none yet, or not one of this CA */
    }
    for (size_t i = 0; i < there && err == E_OK; i++) {
        bool found = false;
        int64_t revoked_ms = 0;
        err = store_serial_find(store, before[i].serial, &found, &revoked_ms, f);
        if (err != E_OK || (found && revoked_ms != 0) || now_ms / 1000 - before[i].revoked_s > FORGOTTEN_S) {
            continue; /* it is in the list, or not any more because it has ended */
        }
        lost++;
        if (found) {
            err = store_serial_revoke(store, before[i].serial, now_ms, f);
        }
        if (*count < CRL_ENTRIES_MAX) {
            entries[(*count)++] = before[i];
        }
    }
    const struct restored_evidence e = {RESTORED_BY_LIST, (int64_t)here, (int64_t)(here + lost)};
    return err != E_OK || lost == 0 ? err : store_restored_found(store, "", &e, now_ms, f);
}

static void run_publish(struct storage_job *storage, struct store *store) {
    static struct crl_entry entries[CRL_ENTRIES_MAX]; /* the storage thread only */
    struct revoker *r = (struct revoker *)(void *)storage;
    int64_t now_ms = now_wall_ms();
    struct builder list, content;
    struct store_object object;
    r->fresh = false;
    storage->err = store_revoked(store, now_ms, entries, CRL_ENTRIES_MAX, &r->count, &storage->fault);
    storage->err = storage->err != E_OK ? storage->err : remember(r, store, entries, &r->count, now_ms, &storage->fault);
    if (storage->err != E_OK || is_current(r, store, entries, r->count, now_ms / 1000)) {
        return;
    }
    builder_init(&list, CRL_PEM_BYTES_MAX);
    builder_init(&content, 2 * CRL_PEM_BYTES_MAX);
    storage->err = authority_list(r->ca, entries, r->count, now_ms, &list, &storage->fault);
    if (storage->err == E_OK) {
        builder_add_str(&content, (const char *)r->ca->bundle.data);
        builder_add(&content, builder_bytes(&list));
        storage->err = content.err != E_OK ? content.err
                                           : store_object_put(store, OBJECT_POLICY, TRUST_NAME, "application/x-pem-file",
                                                              builder_bytes(&content), now_ms, &object, &storage->fault);
    }
    if (storage->err == E_OK) {
        storage->err = write_list(r, builder_bytes(&list), &storage->fault);
    }
    r->fresh = storage->err == E_OK;
    builder_free(&list);
    builder_free(&content);
}

/* --- on the loop's thread ----------------------------------------------------------------------------------------------------------- */

/* A broker of this machine reads its files again. */
static void tell_broker(void *context) {
    struct revoker *r = context;
    struct builder text;
    struct fault f = {0};
    if (r->broker_pid[0] == 0) {
        return;
    }
    builder_init(&text, 64);
    enum grey_error err = wholefile_read(r->broker_pid, &text, &f);
    long pid = err == E_OK ? strtol((const char *)text.data, NULL, 10) : 0;
    if (pid <= 1 || kill((pid_t)pid, SIGHUP) != 0) {
        if (!r->stopping) {
            loop_timer_after(r->loop, &r->timer, TELL_MS); /* it may just be starting */
        }
        log_limited(LOG_WARN, "enroll", "broker", "%s: the broker could not be told to read %s/crl.pem; send it SIGHUP",
                    r->broker_pid, r->ca_dir);
    } else {
        loop_timer_cancel(r->loop, &r->timer);
    }
    builder_free(&text);
}

static void published(struct worker_job *job) {
    struct revoker *r = (struct revoker *)(void *)job;
    r->busy = false;
    if (r->storage.err != E_OK) {
        log_error("enroll", "list", "error=GREY-%d %s: %s", error_id(r->storage.err), error_sentence(r->storage.err),
                  r->storage.fault.text);
    } else {
        metrics_set(&revoked, 0, (int64_t)r->count);
    }
    if (r->storage.err == E_OK && r->fresh) {
        log_info("enroll", "list", "revoked=%zu", r->count);
        tell_broker(r);
        giver_news(r->giver);
    }
    if (r->again) {
        r->again = false;
        revoker_publish(r);
    }
}

void revoker_publish(struct revoker *r) {
    if (r->stopping || r->busy) {
        r->again = r->busy;
        return;
    }
    r->storage = (struct storage_job){.job = {.done = published}, .is_write = true, .run = run_publish};
    r->busy = worker_submit(r->worker, &r->storage.job) == E_OK;
}

bool revoker_busy(const struct revoker *r) {
    return r->busy;
}

struct revoker *revoker_new(const struct revoker_options *o, struct fault *f) {
    struct revoker *r = mem_new(1, sizeof *r);
    if (r == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "list of revoked certificates");
        return NULL;
    }
    r->loop = o->loop;
    r->worker = o->storage;
    r->giver = o->giver;
    r->ca = o->ca;
    r->timer = (struct loop_timer){.fire = tell_broker, .context = r};
    (void)snprintf(r->ca_dir, sizeof r->ca_dir, "%s", o->ca_dir);
    (void)snprintf(r->broker_pid, sizeof r->broker_pid, "%s", o->broker_pid);
    return r;
}

void revoker_stop(struct revoker *r) {
    if (r != NULL) {
        r->stopping = true;
        loop_timer_cancel(r->loop, &r->timer);
    }
}

void revoker_free(struct revoker *r) {
    mem_free(r);
}
