/* core_door.h: the address at which the core's API and page are served, and how safely.
 *
 * An address of this machine alone is plain HTTP unless a certificate was named, as at a gateway.  Any other has TLS: with the certificate that
 * was named, or with one that the CA of --ca-dir makes for it and that is renewed by itself.  Plain HTTP that others can reach must be said.
 * Files that change (a CA that was rotated, a list of revoked certificates, a certificate that somebody replaced) are read again within a minute.
 * Thread: the loop's. */
#ifndef CORE_CORE_DOOR_H
#define CORE_CORE_DOOR_H

#include "platform/http.h"

struct core_door;

/* "" each when it is not said.  Copied. */
struct core_door_options {
    const char *address;    /* "host:port" */
    const char *cert, *key; /* PEM; certificates of a chain follow the own one */
    const char *ca;         /* PEM: who vouches for clients' certificates; else ca.crt of ca_dir; none: tokens only */
    const char *ca_dir;     /* core/authority.h */
    const char *data_dir;   /* api.crt and api.key are made there */
    const char *host;       /* DNS name for the certificate that is made; else this machine's */
    bool tokens;            /* callers may show tokens */
    bool from_13;           /* TLS 1.3 is the least */
    const char *insecure;   /* "true": plain HTTP for others was said; "false" */
};

/* Listens.  E_USAGE: half of a pair, plain for others without saying so, or nobody could ever come in; E_CERT, E_KEY, E_NOT_FOUND: the files;
 * errors of http_server_listen. */
struct core_door *core_door_open(const struct conn_context *x, struct http_server *http, const struct core_door_options *o,
                                 struct fault *f);
bool core_door_is_tls(const struct core_door *d);
void core_door_free(struct core_door *d); /* after the server; NULL is allowed */

/* "127.0.0.1:80", "localhost:80", "[::1]:80": nobody but this machine. */
bool core_door_is_loopback(const char *address);

#endif
