/* port.h: who holds a TCP port, for the error message that a tired person reads. */
#ifndef PLATFORM_PORT_H
#define PLATFORM_PORT_H

#include <stddef.h>
#include <stdint.h>

/* Fills out with "greyd (pid 4711)" for the process of this machine that listens on the port; "" when it cannot be known. */
void port_owner(uint16_t port, char *out, size_t out_size);

#endif
