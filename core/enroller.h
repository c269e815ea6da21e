/* enroller.h: takes gateways in: tokens, certificates, revocation (docs/IDENTITY.md), as HTTP calls.
 *
 * Gateways that are in renew over their site's link (federation/certify.h).  POST /v1/enroll is served on an address of its own with TLS, to everybody: a token or a known key says who may.  The other calls belong
 * to operators and are served with the API.  What is revoked goes to the broker's file and, as the policy "grey-trust", to all sites.
 * Thread: the loop's. */
#ifndef CORE_ENROLLER_H
#define CORE_ENROLLER_H

#include "core/giver.h"
#include "core/registrar.h"
#include "platform/http.h"

struct enroller;

struct enroller_options {
    const char *ca_dir;   /* core/authority.h; copied */
    const char *data_dir; /* the key and certificate of the address with TLS are made there; copied */
    const char *address;  /* "host:port"; "": none */
    const char *
        broker_pid; /* file with the process id of a broker of this machine, told when the list of revoked ones is new; "": none; copied */
    uint32_t life_hours;         /* of gateways' certificates */
    struct registrar *registrar; /* takes in by TPM; NULL: nobody is; borrowed */
    bool from_13;                /* TLS 1.3 is the least where gateways enrol */
    const uint8_t *core_key;     /* KEYS_ED25519_PUBLIC_BYTES: what gateways check the core's word with; copied */
};

void enroller_register(void);
/* Everything else is borrowed for its life.  E_CERT, E_KEY, E_NOT_FOUND: the CA; errors of http_server_listen. */
struct enroller *enroller_new(const struct conn_context *x, const struct enroller_options *o, struct worker *storage,
                              struct ingest *ingest, struct giver *giver, struct fault *f);
void enroller_stop(struct enroller *e); /* takes no more; before the storage thread is stopped.  NULL is allowed */
void enroller_free(struct enroller *e); /* after it was */

/* The CA's files were changed (rotate, promote): reads them now, and not within the hour.  NULL is allowed. */
void enroller_reload(struct enroller *e);

/* A call of operators: true, and q is taken, when it is one of these; e NULL: refused, for this core has no CA. */
bool enroller_handle(struct enroller *e, struct http_request *q);

#endif
