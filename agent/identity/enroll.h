/* enroll.h: `greyd enroll`: makes this gateway's key, has the core certify it, and writes what greyd needs to take part.
 *
 * The key never leaves the gateway.  The core is known by the fingerprint in the token (platform/pinned.h), so nobody between can take its
 * place.  Everything may be repeated: a key that is there is used again, and the core gives the same answer again.  docs/IDENTITY.md. */
#ifndef AGENT_ENROLL_H
#define AGENT_ENROLL_H

/* argv of the words behind `greyd enroll`.  Returns the exit code: 0, 1 failed, 2 usage. */
int enroll_command(int argc, char **argv);

#endif
