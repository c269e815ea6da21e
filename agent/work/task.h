/* task.h: what a task is: its order (what the submitter asked for) as strict CBOR, its limits, its states and which may follow which.
 *
 * Pure.  The order stands in the payload of the entry that submitted it and never changes; what changes is in the rows of work.c. */
#ifndef AGENT_TASK_H
#define AGENT_TASK_H

#include "include/grey/ids.h"
#include "platform/bytes.h"
#include "platform/fault.h"

/* Lanes are served strictly in this order; tasks of the last may be stopped whenever another needs their place. */
enum task_lane { LANE_CRITICAL, LANE_HIGH, LANE_NORMAL, LANE_LOW, LANE_PREEMPT, LANE_COUNT };

enum task_state {
    TASK_PENDING,   /* waits for other tasks, for its time or for its next try */
    TASK_QUEUED,    /* could run, waits for a place */
    TASK_ASSIGNED,  /* has a node and a token; the node has not said that it runs */
    TASK_RUNNING,   /* the node says so */
    TASK_COMPLETED, /* ended well */
    TASK_FAILED,    /* ended badly and is not tried again */
    TASK_CANCELLED, /* by the submitter; its node may still be stopping it */
    TASK_PREEMPTED, /* its node stops it to make room; then it is queued again */
    TASK_STATE_COUNT
};

enum task_restart { RESTART_NEVER, RESTART_ON_FAILURE, RESTART_ALWAYS, RESTART_COUNT };
enum task_missed { MISSED_SKIP, MISSED_RUN_ONCE, MISSED_RUN_ALL, MISSED_COUNT };
enum task_delivery { DELIVERY_AT_LEAST_ONCE, DELIVERY_AT_MOST_ONCE, DELIVERY_COUNT };
enum task_isolation { ISOLATION_STOP, ISOLATION_KEEP, ISOLATION_COUNT };
enum task_reconnect {
    RECONNECT_KEEP_ORIGINAL,
    RECONNECT_KEEP_REPLACEMENT,
    RECONNECT_BEST_SCORE,
    RECONNECT_LONGEST_RUNNING,
    RECONNECT_COUNT
};
/* May it run beside the core instead?  And when the link is away meanwhile: comes back to the site, or waits for the link. */
enum task_offload { OFFLOAD_NEVER, OFFLOAD_LOCAL, OFFLOAD_WAIT, OFFLOAD_COUNT };

/* Why a task is in the state it is in; numbers stand in rows and reports, never reused. */
enum task_reason {
    REASON_NONE = 0,
    REASON_EXIT = 1,       /* the process ended with a status other than 0 */
    REASON_SIGNAL = 2,     /* a signal ended it */
    REASON_MEMORY = 3,     /* it was ended at its memory limit */
    REASON_START = 4,      /* it could not be started */
    REASON_TIMEOUT = 5,    /* it ran longer than it may */
    REASON_NODE_LOST = 6,  /* its node was lost */
    REASON_DEPENDENCY = 7, /* a task it depends on did not complete */
    REASON_PREEMPTED = 8,  /* its place was needed */
    REASON_BURST = 9,      /* its tenant was above its share for longer than a burst may last */
    REASON_EMERGENCY = 10, /* the site was above 100% */
    REASON_CANCELLED = 11, /* by order */
    REASON_STOPPED = 12,   /* its node stopped it: cut off from the site, or leaving */
    REASON_PROBE = 13,     /* its health probe failed */
    REASON_HOT = 14,       /* its gateway was a hot spot, and another had room */
    REASON_DISK = 15,      /* its working directory grew above its bound */
    REASON_OFFLOADED = 16, /* it is with the core */
    REASON_RECALLED = 17,  /* it was with the core, which could not run it, or was away for longer than it may wait */
    REASON_ARTIFACT = 18,  /* a file that it is given is not to be had, does not fit, or is not what the order says */
    REASON_IMAGE = 19,     /* its image or bundle cannot be unpacked or run */
    REASON_COUNT
};

#define TASK_ARGUMENTS_MAX 64u    /* of the command, and as many variables */
#define TASK_DEPENDENCIES_MAX 32u /* a step that gathers more goes by way of another */
#define TASK_SELECTORS_MAX 8u
#define TASK_TEXT_BYTES_MAX 4096u /* one argument, one variable */
#define TASK_STDIN_BYTES_MAX (64u * 1024u)
#define TASK_ORDER_BYTES_MAX (256u * 1024u)
#define TASK_SCHEDULE_BYTES_MAX 128u
#define TASK_ZONE_BYTES_MAX 64u
#define TASK_PATIENCE_S_MAX (7u * 24u * 3600u)
#define TASK_CPU_MILLICORES_MAX 1000000u
#define TASK_MEMORY_BYTES_MIN (1024u * 1024u) /* less than a process needs to exist */
#define TASK_MEMORY_BYTES_MAX (1ull << 40)
#define TASK_TIMEOUT_S_MAX (366u * 24u * 3600u)
#define TASK_RETRIES_MAX 1000u
#define TASK_MISSED_MAX 100u

#define TASK_FILES_MAX 16u
#define TASK_FILE_MODE_DEFAULT 0644u
#define TASK_HASH_BYTES 32u
#define TASK_GRACE_MS_DEFAULT 10000u
#define TASK_GRACE_MS_MAX 600000u
#define TASK_IO_BPS_MIN 4096u /* less than a page a second moves nothing */
#define TASK_IO_BPS_MAX (1ull << 40)

#define TASK_PROBE_S_MAX 3600u
#define TASK_PROBE_FAILURES_MAX 100u

struct task_texts {
    uint32_t count;
    struct bytes at[TASK_ARGUMENTS_MAX];
};

/* Is it well?  Asked on its gateway, beside it: a command in its group that ends with 0, an answer below 400, or a connection. */
enum task_probe { PROBE_NONE, PROBE_EXEC, PROBE_HTTP, PROBE_TCP, PROBE_COUNT };
struct task_health {
    enum task_probe probe;
    struct task_texts command;                         /* PROBE_EXEC */
    uint32_t port;                                     /* of 127.0.0.1 */
    struct bytes path;                                 /* PROBE_HTTP */
    uint32_t delay_s, interval_s, timeout_s, failures; /* in a row, after which it is stopped as one that failed */
};

/* A file in its working directory when it begins: written in the order; of its gateway's disk; or data that the core gave to the site. */
enum task_file_source { FILE_TEXT, FILE_PATH, FILE_OBJECT, FILE_SOURCE_COUNT };
struct task_file {
    struct bytes name;
    enum task_file_source source;
    struct bytes text; /* the content, the absolute path, the name of the object */
    struct bytes hash; /* SHA-256 of the content; empty for FILE_TEXT */
    uint32_t mode;     /* permission bits */
};

enum task_signal { STOP_TERM, STOP_INT, STOP_HUP, STOP_QUIT, STOP_USR1, STOP_USR2, STOP_SIGNAL_COUNT };

/* Namespaces of its own; bits. */
#define TASK_ISOLATE_NETWORK 1u /* no network but a loopback of its own */
#define TASK_ISOLATE_MOUNT 2u   /* its own /tmp, and of all runs its own directory only */
#define TASK_ISOLATE_PID 4u     /* sees its own processes only, and they end with it */
#define TASK_ISOLATE_ALL 7u

struct task_order {                      /* slices are lent by whoever made it */
    struct bytes id, tenant, name_space; /* names; name_space may be empty */
    enum task_lane lane;
    struct task_texts command, env; /* env: NAME=VALUE */
    struct bytes oci;               /* path of an image or a bundle; a task has a command, an image, or both */
    struct bytes standard_input;
    uint32_t cpu_millicores;
    uint64_t memory_bytes;
    struct task_texts depends_on; /* ids, each once, not its own */
    uint32_t timeout_s;           /* 0: none */
    enum task_restart restart;
    uint32_t max_retries;  /* tries after the first that failed; with another restart than never, 0 means without end */
    struct bytes schedule; /* cron, in its zone; empty: run once, now */
    enum task_missed missed;
    uint32_t missed_max;         /* of MISSED_RUN_ALL */
    struct task_texts selectors; /* key=value, each a label that the node must have */
    enum task_delivery delivery;
    enum task_isolation isolation;
    enum task_reconnect reconnect;
    struct bytes affinity; /* node that it prefers; may be empty */
    struct task_health health;
    uint64_t disk_bytes;          /* of its working directory; 0: no bound.  These two: from FEATURE_LEVEL_PROOFS on */
    struct bytes zone, zone_rule; /* of the schedule: as it was named, and its rule (zone.h); both empty: UTC */
    enum task_offload offload;
    uint32_t offload_patience_s; /* of OFFLOAD_LOCAL.  These: from FEATURE_LEVEL_OFFLOAD on */
    /* What follows, and oci: from FEATURE_LEVEL_IMAGES on. */
    uint32_t file_count;
    struct task_file files[TASK_FILES_MAX];
    bool bundle;                        /* oci names a bundle, else an image */
    uint64_t io_read_bps, io_write_bps; /* of each disk; 0: no bound */
    uint32_t isolate;
    uint32_t stop_grace_ms; /* between stop_signal and KILL; 0: TASK_GRACE_MS_DEFAULT */
    enum task_signal stop_signal;
};

/* The FEATURE_LEVEL from which on all gateways of a site can read this order. */
uint32_t task_level(const struct task_order *o);

void task_encode(struct builder *out, const struct task_order *o);
/* task_decode: borrows from in.  E_BAD_CBOR, E_BAD_MESSAGE (f says which field). */
enum grey_error task_decode(struct bytes in, struct task_order *o, struct fault *f);
/* task_check: are the fields within the limits, and do they go together?  E_BAD_REQUEST with the field's name. */
enum grey_error task_check(const struct task_order *o, struct fault *f);

bool task_may_follow(enum task_state from, enum task_state to);
bool task_ended(enum task_state s);
enum task_lane task_lane_of(uint32_t priority); /* 0 to 100: 90+ critical, 70+ high, 30+ normal, 10+ low, else preempt */
uint64_t task_backoff_ms(uint32_t failures);    /* before the next try after so many failures: 1 s, 2 s, ... 5 min */

/* Names as the API spells them.  One list for each enum; task_name gives NULL beyond its end. */
enum task_names {
    NAMES_LANE,
    NAMES_STATE,
    NAMES_REASON,
    NAMES_RESTART,
    NAMES_MISSED,
    NAMES_DELIVERY,
    NAMES_ISOLATION,
    NAMES_RECONNECT,
    NAMES_OFFLOAD,
    NAMES_SIGNAL,
    NAMES_COUNT
};
const char *task_name(enum task_names which, unsigned number);
bool task_number(enum task_names which, struct bytes name, unsigned *out); /* false: none of the list */

#endif
