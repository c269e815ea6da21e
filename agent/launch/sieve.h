/* sieve.h: the system calls that no task makes (seccomp): those that change the machine, other processes or the kernel.  They answer
 * EPERM, so that a program which tries them can say so. */
#ifndef AGENT_LAUNCH_SIEVE_H
#define AGENT_LAUNCH_SIEVE_H

#include <stdbool.h>
#include <stdint.h>

#include "platform/fault.h"

struct sieve;
struct sieve *sieve_new(struct fault *f); /* NULL: no memory, or this kernel has none */
void sieve_free(struct sieve *s);         /* NULL is allowed */
/* For those who make a filter of their own: the names, up to NULL, and the flags of clone that are refused. */
const char *const *sieve_refused(void);
uint32_t sieve_namespaces(void);
bool sieve_load(const struct sieve *s); /* into the calling process and what it becomes; it has no new privileges already */

#endif
