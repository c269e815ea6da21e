/* ingest.h: takes what sites publish into the store, once, and acknowledges what is durable there.
 *
 * The loop reads topics and frames; the storage thread (a worker with ingest_batch) writes everything that waits in one transaction;
 * acknowledgements leave after its commit.  A transaction that failed for a reason that passes (a lost connection, a deadlock with another
 * core) is done again before anybody hears of it.  When more waits than the storage thread can write, no more is read from the broker.  After
 * each connect to the broker, known sites are told where the core stands (DOWN_RESYNC), a few at a time and each by one core only, so that
 * none waits for its next try.  Thread: the loop's, but ingest_batch. */
#ifndef CORE_INGEST_H
#define CORE_INGEST_H

#include "core/store.h"
#include "platform/mqtt.h"

#define INGEST_JOBS_MAX 1024u

struct ingest;

/* A job of the storage thread: writes go into the common transaction, reads run after it. */
struct storage_job {
    struct worker_job job;
    bool is_write;
    const char *site; /* of a write: whose it is, NULL: nobody's */
    /* Runs on the storage thread.  A write that returns an error other than those of its own input rolls everything back, and may run
     * again: it leaves nothing behind but its results, which it sets anew. */
    void (*run)(struct storage_job *job, struct store *store);
    enum grey_error err; /* E_OK, or why it failed; a failed commit is told to all writes */
    struct fault fault;
};

/* Batch function for worker_new; context: the store. */
struct worker_job *ingest_batch(void *store, struct worker_job *list);

struct ingest_options {
    const char *const *endpoints;
    uint32_t endpoint_count;
    const struct conn_tls *tls;
    const char *client_id, *socket_dir;
    bool shared; /* several cores take turns at what the broker has (MQTT 5, 4.8.2), by shared subscription */
};
struct ingest *ingest_new(const struct conn_context *x, const struct ingest_options *o, struct worker *storage, struct fault *f);
void ingest_stop(struct ingest *g); /* takes and says nothing more; before the storage thread is stopped.  NULL is allowed */
void ingest_free(struct ingest *g); /* after it was */
bool ingest_connected(const struct ingest *g);
bool ingest_stores(const struct ingest *g); /* the last transaction was written */

#endif
