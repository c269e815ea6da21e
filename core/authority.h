/* authority.h: a development certificate authority in a directory: ca.crt, ca.key (0600).  `grey-core ca ...` is its command line;
 * `make up` and the tests use it.  Enrolment by token or TPM comes with the identity issue and keeps these certificate forms. */
#ifndef CORE_AUTHORITY_H
#define CORE_AUTHORITY_H

#include "platform/fault.h"

/* argv of the words behind `grey-core ca`.  Returns the exit code. */
int authority_command(int argc, char **argv);

enum grey_error authority_init(const char *dir, struct fault *f); /* makes the CA when there is none */
/* kind "broker", "core" or "gateway" (with site and node): writes PREFIX.crt and PREFIX.key.
 * gateway: CN = site, URI grey://site/node; all of these: DNS localhost, IP 127.0.0.1.
 * kind "user": site is a name and node a role of the APIs; CN = user:name, URI grey-role:role. */
enum grey_error authority_issue(const char *dir, const char *kind, const char *site, const char *node, const char *prefix,
                                struct fault *f);

#endif
