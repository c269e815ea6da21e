/* runs_core.h: what the sources of runs share: runs.c the life of each, runbegin.c all up to its process.  Nobody else includes it. */
#ifndef AGENT_LAUNCH_RUNS_CORE_H
#define AGENT_LAUNCH_RUNS_CORE_H

#include "agent/launch/capture.h"
#include "agent/launch/rundir.h"
#include "agent/launch/runs.h"
#include "agent/launch/shelf.h"

struct run {
    struct run *next;
    struct runs *runs;
    struct launch_message state; /* a LAUNCH_STATE; no slices */
    char id[LIMIT_NAME_BYTES + 1];
    pid_t pid; /* 0: it was reaped */
    bool leased, stopping, forgotten, caged, image;
    uint64_t kill_at_ms, begun_ms;
    enum launch_end sick; /* why it is being stopped, if not by order; NONE: by order */
    uint64_t disk_bytes, disk_at_ms;
    pid_t disk_pid;            /* looks at its working directory; 0: none */
    struct builder order;      /* the START, for its probe */
    struct launch_probe probe; /* its command is in the order; count 0: none */
    pid_t probe_pid;
    uint64_t probe_at_ms; /* the next one; while one runs: until when it may */
    uint32_t probes_failed;
    struct cage cage;
    uint32_t stop_signal, grace_ms; /* as its order says */
    struct builder given;           /* the hashes of stored files that it was given */
    int folder;                     /* -1: closed */
    struct loop_fd status, streams[LAUNCH_STREAM_COUNT];
    struct capture captures[LAUNCH_STREAM_COUNT];
};

struct runs {
    struct runs_options o;
    char dir[CAGE_PATH_BYTES];
    struct rundir folders;
    struct shelf shelf;
    struct run *first;
    uint32_t count;
    uint64_t lease_until_ms; /* 0: nobody has said */
    uint64_t looked_ms;      /* the turn of the last look: what was said before was read since */
    struct sieve *sieve;
    struct loop_timer timer;
};

int runbegin(struct run *x, const struct launch_message *start); /* its process; 0, or the errno of what failed */
/* A probe beside it, in its group and with its rights, or later, when it is about to end; false: there is none. */
bool runbegin_probe(struct run *x);
/* Keeps of the order what it is watched for, and how it is stopped.  False: no memory. */
bool runbegin_watch(struct run *x, const struct launch_message *start);
/* The first stored file that is not on the shelf; -1: all are there. */
int runbegin_lacks(struct runs *r, const struct launch_message *start);

#endif
