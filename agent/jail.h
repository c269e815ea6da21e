/* jail.h: greyd takes from itself what it never needs: system calls that are not on its list, and memory that is written and run.
 *
 * A call on the list goes through; one that only an intruder would make (run a program, look into another process, load code into the kernel,
 * change the machine) kills the process, so that nothing goes on that is not ours; any other answers ENOSYS, on which libraries fall back
 * to what they did before that call existed, so that a newer libc does not stop a gateway.  Both stand in the kernel's log (audit).
 * Memory: mmap and mprotect that would make bytes both writable and executable, or executable later, are refused; where the kernel has
 * MDWE (Linux 6.3) it says so too.
 *
 * It is for good, for this process and what it starts; so there is none where greyd starts grey-launch itself. */
#ifndef AGENT_JAIL_H
#define AGENT_JAIL_H

#include "platform/fault.h"

/* Before the first thread.  E_NOT_HERE_YET: this kernel, emulator or build (sanitizers, another processor) cannot; *f says why, and nothing
 * was changed but that privileges are never gained any more. */
enum grey_error jail_enter(struct fault *f);

#endif
