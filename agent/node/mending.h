/* mending.h: makes a damaged log whole before the node starts: what is lost is asked of the other gateways (FAULTS P10, P12).
 *
 * The node keeps its identity, term and vote, and takes part in nothing until its log is whole again: it only asks, and answers other
 * gateways that ask it.  So entries of which every gateway has lost some other come together again.  What cannot be mended here
 * (agent/store/salvage.h) while a majority of the others is whole is set aside, and the node joins anew; without that majority it waits and
 * says for what: to throw away what may be the last copy is for a person to decide. */
#ifndef AGENT_MENDING_H
#define AGENT_MENDING_H

#include "platform/http.h"

struct mending_options {
    const char *data_dir, *wal_dir, *site, *node;
    const char *listen_address, *advertise_address, *http_address; /* listen_address NULL: a site of one */
    const struct conn_tls *tls;
};

struct mending;

struct mending *mending_new(const struct conn_context *x, struct fault *f); /* borrows x */
void mending_free(struct mending *m);
/* Runs the loop until the log is whole or set to be set aside (E_OK: open it again), or loop_stop was called (E_STOPPING).  E_CORRUPT: it
 * cannot be mended, and nobody else has it; names what to do. */
enum grey_error mending_run(struct mending *m, const struct mending_options *o, struct fault *f);
/* For an http_server meanwhile; context: the mending.  Says what is missing, to whatever is asked. */
void mending_answer(void *context, struct http_request *q);

#endif
