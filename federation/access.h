/* access.h: who may do what over the HTTP APIs of gateways and of the core.  Pure: a call and what is known of its caller in, a verdict out.
 *
 * Each route names the least role that may use it, beside its handler; roles include those below them.  Who a caller is, is known by
 * one of: the user at the other end of the local socket, the certificate that was checked in the handshake, a bearer token.  What was
 * shown and is not good is a refusal, never "nobody in particular": a caller with a revoked token learns so even where the door is open. */
#ifndef FEDERATION_ACCESS_H
#define FEDERATION_ACCESS_H

#include "federation/bearer.h"
#include "include/grey/limits.h"
#include "platform/bytes.h"

/* Numbers stand in log entries and token rows; never reused. */
enum access_role { ROLE_NONE = 0, ROLE_VIEWER = 1, ROLE_OPERATOR = 2, ROLE_ADMIN = 3 };
#define ACCESS_ROLE_COUNT 4u

const char *access_role_name(enum access_role role); /* "viewer"; "none" for ROLE_NONE */
/* False: not viewer, operator or admin. */
bool access_role_parse(struct bytes text, enum access_role *out);

/* A path that ends in "/" takes what follows as its argument; "*" stands for it within one.  Where the argument begins, 0 for an exact
 * match, -1 for none. */
long access_path_match(const char *route, struct bytes path, size_t *argument_size);

/* The way by which the call came. */
enum access_door {
    DOOR_OPEN,    /* an address of this machine, and no accounts are configured: whoever is let in by the machine may do all */
    DOOR_SOCKET,  /* the local socket: the kernel vouches for the user */
    DOOR_GUARDED, /* certificate or token */
};

#define ACCESS_WHO_BYTES 96u
#define ACCESS_ADDRESS_BYTES 64u

struct access_call {
    enum access_door door;
    bool is_owner, in_group;     /* of the socket: root or the daemon's own user; in the configured group */
    const char *site;            /* of this gateway; NULL at the core, where any site's is a stranger's */
    const char *uri, *name;      /* of the certificate: SAN URI grey://site/node, subject CN; "" each when there is none */
    const char *role;            /* of the certificate: what follows grey-role: in another SAN URI; "" */
    struct bytes origin, host;   /* these headers: a browser says which page makes it call */
    struct bytes authorization;  /* the header; empty: none */
    const struct bearer *bearer; /* what is kept of the token that it names; NULL: no such token */
    int64_t now_ms;              /* to judge its expiry */
};

struct access_verdict {
    enum grey_error err;        /* E_OK, E_UNKNOWN_CALLER (401), E_DENIED (403) */
    bool guessed;               /* a credential was shown that is not good: counts against the address */
    enum access_role role;      /* of the caller, also when it is too low */
    char who[ACCESS_WHO_BYTES]; /* "token 1f2e3d4c maria", "certificate edge-1/2", "user 1000", "anyone" */
    char detail[160];           /* for the answer; names no secret */
};

/* least: of the route; ROLE_NONE lets anybody in, without looking at what he shows. */
void access_judge(const struct access_call *c, enum access_role least, struct access_verdict *v);

#endif
