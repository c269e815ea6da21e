/* ingest.h: takes what sites publish into the store, once, and acknowledges what is durable there.
 *
 * The loop reads topics and frames; the storage thread (core/batch.h) writes everything that waits in one transaction;
 * acknowledgements leave after its commit.  When more waits than the storage thread can write, no more is read from the broker.  After
 * each connect to the broker, known sites are told where the core stands (DOWN_RESYNC), a few at a time and each by one core only, so that
 * none waits for its next try.  Thread: the loop's. */
#ifndef CORE_INGEST_H
#define CORE_INGEST_H

#include "core/batch.h"
#include "platform/mqtt.h"

struct ingest;

struct ingest_options {
    const char *const *endpoints;
    uint32_t endpoint_count;
    const struct conn_tls *tls;
    const char *client_id, *socket_dir;
    const uint8_t
        *secret_key; /* KEYS_ED25519_SECRET_BYTES; with it, and certificates of ca_path (NULL: none), sites seal what they say */
    const char *ca_path;
    bool shared; /* several cores take turns at what the broker has (MQTT 5, 4.8.2), by shared subscription */
};
struct ingest *ingest_new(const struct conn_context *x, const struct ingest_options *o, struct worker *storage, struct fault *f);
void ingest_stop(struct ingest *g); /* takes and says nothing more; before the storage thread is stopped.  NULL is allowed */
void ingest_free(struct ingest *g); /* after it was */
/* Messages of a site about objects (federation/supply.h) go to hear, which reads them; NULL: there are none to give, and no
 * site is told that there are. */
typedef void ingest_supply(void *context, const struct grey_name *site, enum message_kind kind, struct bytes content);
void ingest_on_supply(struct ingest *g, ingest_supply *hear, void *context);
/* Requests for certificates of a site's gateways (federation/certify.h) go to hear; NULL: this core certifies nobody. */
typedef void ingest_certify(void *context, const struct grey_name *site, struct bytes content);
void ingest_on_certify(struct ingest *g, ingest_certify *hear, void *context);
/* Sites are told that this core has a worker for their tasks (federation/offload.h). */
void ingest_has_worker(struct ingest *g);
/* Sends a message to a site, on its control channel.  E_BUSY: not now; others: the connection is gone. */
enum grey_error ingest_tell(struct ingest *g, const struct grey_name *site, struct bytes content);
bool ingest_may_tell(const struct ingest *g); /* false: for the next moment ingest_tell says E_BUSY, whatever the site */
/* 0: the site's link may carry so many bytes now, and they are debited; else not before so many microseconds. */
uint64_t ingest_pace_us(struct ingest *g, const char *site, size_t bytes);
bool ingest_connected(const struct ingest *g);
bool ingest_stores(const struct ingest *g); /* the last transaction was written */

#endif
