/* probe.h: is somebody there?  Dials, and closes as soon as the connection (and its TLS handshake) stands.  Thread: the loop's. */
#ifndef PLATFORM_PROBE_H
#define PLATFORM_PROBE_H

#include "platform/conn.h"

struct probe {
    struct conn *conn;                                       /* NULL: none runs */
    struct conn_count count;                                 /* of all so far */
    struct conn_wire wire;                                   /* of those that are over */
    void (*done)(void *context, bool good, const char *why); /* why: when it is not */
    void *context;
};

/* done may be called before this returns, when nothing can be dialled.  o: timeouts, tls, proxy, session and offer are used; the host of the address must stand in the certificate. */
void probe_begin(struct probe *p, const struct conn_context *x, const char *address, const struct conn_options *o,
                 void (*done)(void *context, bool good, const char *why), void *context);
void probe_end(struct probe *p); /* done is not called any more */

#endif
