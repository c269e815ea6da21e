/* http_fetch.h: a small blocking HTTP/1.1 client for command-line programs; never used by a daemon's loop. */
#ifndef PLATFORM_HTTP_FETCH_H
#define PLATFORM_HTTP_FETCH_H

#include "platform/bytes.h"
#include "platform/fault.h"

/* For "https://": whom to believe, and who we are.  The other side must be a gateway of that CA (SAN URI grey://site/node), or a core (its role). */
struct http_fetch_tls {
    const char *ca_path;              /* wanted */
    const char *cert_path, *key_path; /* NULL: none */
    const char *site;                 /* NULL: any */
    bool core;                        /* a core is meant, not a gateway */
};

struct http_fetch {
    const char *address; /* "http://host:port", "https://host:port" or "unix:/path" */
    const uint8_t *pin;  /* https: SHA-256 of the CA certificate that the server must show and that must vouch for it as a core
                                   (platform/pinned.h); names are not looked at.  NULL: tls says */
    const char *method, *path;  /* path with its query, percent-encoded by the caller */
    const char *const *headers; /* NULL or a NULL-terminated list of "Name: value" */
    struct bytes body;
    const char *body_type;            /* Content-Type; NULL: none */
    const struct http_fetch_tls *tls; /* https to a gateway; NULL with pin NULL: https is refused */
    uint32_t timeout_ms;
    size_t answer_bytes_max;
};
struct http_answer {
    int status;
    char content_type[96], etag[64], leader[80]; /* leader: X-Grey-Leader */
    char end[24], token[24];                     /* X-Grey-End, X-Grey-Token */
    struct builder body;                         /* the caller frees */
};
/* E_FINGERPRINT, E_TLS, E_CONNECT, E_TIMEOUT, E_BAD_HTTP, E_TOO_LARGE; any HTTP status is E_OK. */
enum grey_error http_fetch(const struct http_fetch *q, struct http_answer *a, struct fault *f);

#endif
