/* address.h: "host:port", "[v6]:port", ":port" and "unix:/path" as text, and sockets bound to them. */
#ifndef PLATFORM_ADDRESS_H
#define PLATFORM_ADDRESS_H

#include <netdb.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "platform/fault.h"

#define ADDRESS_HOST_BYTES 256u
#define ADDRESS_PORT_BYTES 8u
#define ADDRESS_UNIX_BYTES sizeof(((struct sockaddr_un *)0)->sun_path)

bool address_is_unix(const char *text);
enum grey_error address_unix(const char *text, struct sockaddr_un *out, struct fault *f);
/* Cuts host (without brackets, may be empty) and port out of the text.  E_CONNECT. */
enum grey_error address_split(const char *text, char host[ADDRESS_HOST_BYTES], char port[ADDRESS_PORT_BYTES], struct fault *f);

/* A listening socket, non-blocking; -1 with f.  E_ADDRESS_IN_USE names the owner where it can be known.  What it accepts inherits
 * TCP_NODELAY and keep-alive probes, which find clients that vanished.  unix sockets are made 0660; an old socket at the path is
 * replaced when nobody answers on it, anything else there is refused.  unix_path: gets the path, "" for TCP. */
int address_listen(const char *text, char unix_path[ADDRESS_UNIX_BYTES], struct fault *f);

/* getaddrinfo, but "localhost" is this machine even where no hosts file says so (RFC 6761, 6.3).  Free *list with freeaddrinfo. */
int address_resolve(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **list);

/* Who that is, without the port, for counting: "10.0.0.7"; of IPv6 the network, "2001:db8::/64", for one machine has all of it.  Other texts
 * as they are.  out: cut to its size. */
void address_source(const char *described, char *out, size_t out_size);
/* "10.0.0.7:4711", "[::1]:4711", or "local" for unix sockets. */
void address_describe(const struct sockaddr_storage *from, char *out, size_t out_size);

/* TCP asks the other side for a sign of life after idle_s without one, then each every_s; the third in vain ends the connection. */
void address_keep_alive(int fd, int idle_s, int every_s);

#endif
