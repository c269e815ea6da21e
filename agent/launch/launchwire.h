/* launchwire.h: what greyd and grey-launch say to each other: strict CBOR, one array per message, in frames of launchlink.h.
 *
 * A run is one try of one task: scope (the site's incarnation) and token name it for ever.  launchwire_is_order tells what
 * greyd says from what the launcher does.  Pure but for the builder. */
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
#define LAUNCHWIRE_SIGNAL_MAX 31u

enum launch_kind {
    LAUNCH_START = 0,  /* begin this run; answered by states of it */
    LAUNCH_STOP = 1,   /* its signal, and KILL after its grace or time_ms, whichever is shorter */
    LAUNCH_FORGET = 2, /* the site has its end: it need not be listed any more */
    LAUNCH_LIST = 3,   /* the state of every run, then LAUNCH_LISTED */
    LAUNCH_LEASE = 4,  /* leased runs may go on until until_ms; then they are stopped */
    LAUNCH_READ = 5,   /* some of what it wrote; answered by LAUNCH_PART */
    LAUNCH_STATE = 6,
    LAUNCH_LISTED = 7,
    LAUNCH_PART = 8,
    LAUNCH_MEASURE = 9, /* what do they use? */
    LAUNCH_USE = 10,    /* answer to MEASURE, one for each run that goes on */
    LAUNCH_STORE = 11,  /* a part of an artifact, from its beginning on; answered by STORED, after the last at the latest */
    LAUNCH_STORED = 12,
    LAUNCH_KIND_COUNT
};

bool launchwire_is_order(enum launch_kind kind); /* greyd says it to the launcher */

enum launch_state {
    LAUNCH_STARTING,
    LAUNCH_RUNNING,
    LAUNCH_ENDED,
    LAUNCH_USED,  /* answer to START: this run was begun once before, and nothing is known of its end */
    LAUNCH_LATER, /* answer to START: not begun and not marked, for want of a lease or of room; it may be asked again */
    LAUNCH_LACKS, /* likewise, for want of an artifact: status is the number of the file; STORE it, then ask again */
    LAUNCH_STATE_COUNT
};

enum launch_end {
    LAUNCH_END_NONE,
    LAUNCH_END_EXIT,     /* status: the exit status */
    LAUNCH_END_SIGNAL,   /* status: the signal */
    LAUNCH_END_MEMORY,   /* killed at its memory limit */
    LAUNCH_END_START,    /* it could not be started; status: errno */
    LAUNCH_END_STOPPED,  /* by order, or because its lease was over */
    LAUNCH_END_PROBE,    /* it was not well, and was stopped for that */
    LAUNCH_END_DISK,     /* its working directory grew above its bound */
    LAUNCH_END_ARTIFACT, /* a file that it is given is not to be had, does not fit or differs; its standard error says which */
    LAUNCH_END_IMAGE,    /* its image or bundle cannot be unpacked or run; its standard error says why */
    LAUNCH_END_COUNT
};

enum launch_stored {
    LAUNCH_STORED_WELL,
    LAUNCH_STORED_TOO_LARGE,
    LAUNCH_STORED_DIFFERS,
    LAUNCH_STORED_FAILED,
    LAUNCH_STORED_HOLD,  /* not yet: the disk does not keep up; no more of it until GO_ON */
    LAUNCH_STORED_GO_ON, /* not yet: on with it */
    LAUNCH_STORED_COUNT
};
enum launch_limits { LAUNCH_LIMITS_RLIMITS, LAUNCH_LIMITS_CGROUP1, LAUNCH_LIMITS_CGROUP2, LAUNCH_LIMITS_COUNT };
enum launch_stream { LAUNCH_STDOUT, LAUNCH_STDERR, LAUNCH_STREAM_COUNT };

struct launch_texts {
    uint32_t count;
    struct bytes at[LAUNCHWIRE_TEXTS_MAX];
};

struct launch_use {                                            /* what a run has used */
    uint64_t cpu_us, memory_bytes, memory_peak_bytes, wall_ms; /* memory_bytes: now */
    uint64_t output_bytes[LAUNCH_STREAM_COUNT];                /* written by it, kept or not */
    uint8_t output_hash[LAUNCH_STREAM_COUNT][32];              /* SHA-256 of that; when it has ended */
};

#define LAUNCHWIRE_SELF "grey-launch" /* as the first word of a probe: the launcher's own program */
#define LAUNCHWIRE_PROBE_MS_MAX 3600000u
struct launch_probe { /* a command beside it, in its group: is it well?  count 0: nobody asks */
    struct launch_texts command;
    uint32_t delay_ms, interval_ms, timeout_ms, failures;
};

#define LAUNCHWIRE_FILES_MAX 16u
#define LAUNCHWIRE_HASH_BYTES 32u
enum launch_source { LAUNCH_FILE_TEXT, LAUNCH_FILE_PATH, LAUNCH_FILE_STORED, LAUNCH_SOURCE_COUNT };
struct launch_file { /* into its working directory before it begins */
    struct bytes name;
    enum launch_source source;
    struct bytes text; /* the content, the absolute path, or nothing: it was STOREd under its hash */
    struct bytes hash; /* SHA-256; of a TEXT empty */
    uint32_t mode;
};
struct launch_files {
    uint32_t count;
    struct launch_file at[LAUNCHWIRE_FILES_MAX];
};

/* Namespaces of its own; bits. */
#define LAUNCH_ISOLATE_NETWORK 1u
#define LAUNCH_ISOLATE_MOUNT 2u
#define LAUNCH_ISOLATE_PID 4u
#define LAUNCH_ISOLATE_ALL 7u

struct launch_message { /* slices are lent by whoever made it; fields that a kind does not have are zero */
    enum launch_kind kind;
    uint64_t scope, token;            /* START, STOP, FORGET, READ, STATE, PART */
    struct bytes id;                  /* START: the task's, for the log and its environment */
    struct launch_texts command, env; /* START; env: NAME=VALUE; of an image the command may be empty: its own */
    struct bytes standard_input;
    uint32_t cpu_millicores;            /* START; 0: no bound */
    uint64_t memory_bytes;              /* START; 0: no bound */
    bool leased;                        /* START: it may run only as long as the lease says */
    bool again;                         /* START: also if it was begun before and nothing of it is left (the machine was off) */
    struct launch_probe probe;          /* START */
    uint64_t disk_bytes;                /* START; 0: no bound */
    uint64_t io_read_bps, io_write_bps; /* START, of each disk; 0: no bound */
    uint32_t isolate;                   /* START */
    uint32_t stop_signal, grace_ms;     /* START: how it is stopped; 0: TERM, and no time but what STOP gives */
    struct bytes image;                 /* START: path of an image or a bundle; empty: none */
    bool bundle;
    struct launch_files files; /* START */
    uint32_t time_ms;          /* STOP: at most so long between its signal and KILL */
    uint64_t until_ms;         /* LEASE: by the machine's clock (now_monotonic_ms), so that what lay in a queue grants nothing */
    enum launch_state state;   /* STATE */
    enum launch_end end;
    int32_t status;
    struct launch_use use;     /* STATE of one that has ended; USE, without hashes */
    enum launch_limits limits; /* LISTED */
    uint64_t number;           /* READ, PART: the request's */
    enum launch_stream stream;
    uint64_t offset, end_offset; /* READ: from where; PART: where data begins, and how much was written so far */
    uint32_t size;               /* READ: bytes at most */
    struct bytes data;
    struct bytes hash;         /* STORE, STORED: SHA-256 of the artifact; STORE: offset, end_offset (its size), data */
    enum launch_stored stored; /* STORED */
};

void launchwire_encode(struct builder *out, const struct launch_message *m);
/* Borrows from in.  E_BAD_CBOR, E_BAD_MESSAGE. */
enum grey_error launchwire_decode(struct bytes in, struct launch_message *m);

#endif
