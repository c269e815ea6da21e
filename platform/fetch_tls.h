/* fetch_tls.h: TLS of the blocking client of the command line (mbedTLS); the inside of http_fetch. */
#ifndef PLATFORM_FETCH_TLS_H
#define PLATFORM_FETCH_TLS_H

#include <sys/types.h>

#include "platform/http_fetch.h"

struct fetch_tls;

/* The handshake on a connected, non-blocking socket, which stays the caller's.  E_CERT, E_KEY with file and reason; E_TLS, E_TIMEOUT. */
struct fetch_tls *fetch_tls_open(const struct http_fetch_tls *t, int fd, uint64_t deadline_ms, struct fault *f);
/* As send(2) and recv(2); errno EAGAIN: wait for the socket. */
ssize_t fetch_tls_send(struct fetch_tls *t, struct bytes out);
ssize_t fetch_tls_receive(struct fetch_tls *t, void *in, size_t size);
void fetch_tls_close(struct fetch_tls *t); /* NULL is allowed */

#endif
