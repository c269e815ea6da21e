/* boardwatch.h: how the board fares, looked at every 10 s: temperature, voltage, memory.  When memory is short - this process holds more
 * than its budget, or the kernel says that somebody waits for memory - caches are given back, before anything else gives way; then not
 * again for 10 s.  Thread: the loop's; what may wait for a sensor or a disk is done by workers. */
#ifndef AGENT_BOARDWATCH_H
#define AGENT_BOARDWATCH_H

#include "agent/store/sitelog.h"
#include "platform/conn.h"
#include "platform/hardware.h"

struct boardwatch;

struct boardwatch_options {
    uint64_t budget_bytes;     /* 0: three quarters of what the control group may hold, if that is bounded */
    int32_t temperature_max_c; /* 0: none */
};

struct boardwatch_facts {
    struct hardware_facts hardware; /* of the last look; all absent before the first */
    uint64_t budget_bytes;          /* in force; 0: none */
    uint64_t reliefs;               /* times that caches were given back */
    bool hot;                       /* above the limit of the options */
    bool pressure_known;            /* the kernel tells when memory is short */
};

/* Borrows x (loop, crypto worker) and log.  NULL: no memory. */
struct boardwatch *boardwatch_new(const struct conn_context *x, struct sitelog *log, const struct boardwatch_options *o,
                                  struct fault *f);
void boardwatch_free(
    struct boardwatch *b); /* when both workers have stopped, or before they have anything of it; NULL is allowed */
void boardwatch_stop(struct boardwatch *b); /* looks no more; NULL is allowed */
void boardwatch_facts(const struct boardwatch *b, struct boardwatch_facts *out);

#endif
