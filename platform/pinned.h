/* pinned.h: a blocking TLS client for command-line programs, to a server that is known by the fingerprint of its CA and by nothing else.
 *
 * Nothing that this machine trusts counts, and no name: the server must show a certificate with the role "core" and, in the same chain, the CA
 * certificate with that fingerprint, which must vouch for it.  Thread: any. */
#ifndef PLATFORM_PINNED_H
#define PLATFORM_PINNED_H

#include <sys/types.h>

#include "platform/bytes.h"
#include "platform/fault.h"

struct pinned;

/* The handshake on a connected socket, which stays the caller's.  fingerprint: SHA-256 of the CA certificate.  NULL with E_FINGERPRINT (another
 * CA, or not a core), E_TLS, E_TIMEOUT, E_NO_MEMORY. */
struct pinned *pinned_open(int fd, const uint8_t fingerprint[32], uint64_t deadline_ms, struct fault *f);
void pinned_close(struct pinned *p); /* NULL is allowed */
/* As send and recv on a socket that does not block; 0: the end.  -1 with errno EAGAIN, or EPROTO. */
ssize_t pinned_send(struct pinned *p, struct bytes out);
ssize_t pinned_receive(struct pinned *p, void *room, size_t size);

#endif
