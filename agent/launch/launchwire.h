/* launchwire.h: what greyd and grey-launch say to each other: strict CBOR, one array per message, in frames of launchlink.h.
 *
 * A run is one try of one task: scope (the site's incarnation) and token name it for ever.  greyd sends START to READ, the launcher
 * STATE to PART.  Pure but for the builder. */
#ifndef AGENT_LAUNCH_LAUNCHWIRE_H
#define AGENT_LAUNCH_LAUNCHWIRE_H

#include "include/grey/ids.h"
#include "platform/bytes.h"
#include "platform/fault.h"

#define LAUNCHWIRE_BYTES_MAX (512u * 1024u) /* a message: above an order of 256 KiB with all that is added */
#define LAUNCHWIRE_TEXTS_MAX 64u            /* of the command, and as many variables */
#define LAUNCHWIRE_TEXT_BYTES_MAX 4096u
#define LAUNCHWIRE_STDIN_BYTES_MAX (64u * 1024u)
#define LAUNCHWIRE_PART_BYTES_MAX (64u * 1024u)
#define LAUNCHWIRE_GRACE_MS_MAX 600000u

enum launch_kind {
    LAUNCH_START = 0,  /* begin this run; answered by states of it */
    LAUNCH_STOP = 1,   /* TERM, after time_ms KILL */
    LAUNCH_FORGET = 2, /* the site has its end: it need not be listed any more */
    LAUNCH_LIST = 3,   /* the state of every run, then LAUNCH_LISTED */
    LAUNCH_LEASE = 4,  /* leased runs may go on until until_ms; then they are stopped */
    LAUNCH_READ = 5,   /* some of what it wrote; answered by LAUNCH_PART */
    LAUNCH_STATE = 6,
    LAUNCH_LISTED = 7,
    LAUNCH_PART = 8,
    LAUNCH_KIND_COUNT
};

enum launch_state {
    LAUNCH_STARTING,
    LAUNCH_RUNNING,
    LAUNCH_ENDED,
    LAUNCH_USED,  /* answer to START: this run was begun once before, and nothing is known of its end */
    LAUNCH_LATER, /* answer to START: not begun and not marked, for want of a lease or of room; it may be asked again */
    LAUNCH_STATE_COUNT
};

enum launch_end {
    LAUNCH_END_NONE,
    LAUNCH_END_EXIT,    /* status: the exit status */
    LAUNCH_END_SIGNAL,  /* status: the signal */
    LAUNCH_END_MEMORY,  /* killed at its memory limit */
    LAUNCH_END_START,   /* it could not be started; status: errno */
    LAUNCH_END_STOPPED, /* by order, or because its lease was over */
    LAUNCH_END_COUNT
};

enum launch_limits { LAUNCH_LIMITS_RLIMITS, LAUNCH_LIMITS_CGROUP1, LAUNCH_LIMITS_CGROUP2, LAUNCH_LIMITS_COUNT };
enum launch_stream { LAUNCH_STDOUT, LAUNCH_STDERR, LAUNCH_STREAM_COUNT };

struct launch_texts {
    uint32_t count;
    struct bytes at[LAUNCHWIRE_TEXTS_MAX];
};

struct launch_message { /* slices are lent by whoever made it; fields that a kind does not have are zero */
    enum launch_kind kind;
    uint64_t scope, token;            /* START, STOP, FORGET, READ, STATE, PART */
    struct bytes id;                  /* START: the task's, for the log and its environment */
    struct launch_texts command, env; /* START; env: NAME=VALUE */
    struct bytes standard_input;
    uint32_t cpu_millicores; /* START; 0: no bound */
    uint64_t memory_bytes;   /* START; 0: no bound */
    bool leased;             /* START: it may run only as long as the lease says */
    uint32_t time_ms;        /* STOP */
    uint64_t until_ms;       /* LEASE: by the machine's clock (now_monotonic_ms), so that what lay in a queue grants nothing */
    enum launch_state state; /* STATE */
    enum launch_end end;
    int32_t status;
    enum launch_limits limits; /* LISTED */
    uint64_t number;           /* READ, PART: the request's */
    enum launch_stream stream;
    uint64_t offset, end_offset; /* READ: from where; PART: where data begins, and how much was written so far */
    uint32_t size;               /* READ: bytes at most */
    struct bytes data;
};

void launchwire_encode(struct builder *out, const struct launch_message *m);
/* Borrows from in.  E_BAD_CBOR, E_BAD_MESSAGE. */
enum grey_error launchwire_decode(struct bytes in, struct launch_message *m);

#endif
