/* pressure.h: is this machine a hot spot?  Its processors were busy above 85% for five minutes (or as configured), or memory is short: less than a tenth is
 * available, or processes waited for it a fifth of the time, for half a minute.  It is one no more after a minute well below that, so
 * that what moves away does not come back at once.
 *
 * Integers only; what is judged (pressure_judge) is apart from what is read (pressure_read), which opens three small files of /proc. */
#ifndef AGENT_PRESSURE_H
#define AGENT_PRESSURE_H

#include <stdbool.h>
#include <stdint.h>

#define PRESSURE_CPU_HOT 850u /* permille, smoothed */
#define PRESSURE_COOLER 150u  /* so much below it is well again */
#define PRESSURE_CPU_MS (5u * 60u * 1000u)
#define PRESSURE_MEMORY_LEAST 100u /* permille of the machine's that is available */
#define PRESSURE_STALL_HOT 200u    /* permille of the last ten seconds in which somebody waited for memory (PSI) */
#define PRESSURE_MEMORY_MS (30u * 1000u)

struct pressure_sample {
    uint64_t busy_ticks, all_ticks;                     /* of all processors since the machine's start */
    uint32_t memory_available_permille, stall_permille; /* stall 0 where the kernel does not tell */
};

struct pressure {
    uint32_t cpu_hot_permille; /* above this ... */
    uint64_t cpu_ms;           /* ... for so long; a fifth of it is what is smoothed over, and how long it must be well again */
    struct pressure_sample last;
    uint32_t cpu_permille;                           /* smoothed */
    uint64_t cpu_since_ms, memory_since_ms, cool_ms; /* since when it is above, or below again; 0: it is not */
    uint64_t last_ms;                                /* 0: no sample yet */
    bool hot;
};

#define PRESSURE_DEFAULT                                                                                                           \
    { .cpu_hot_permille = PRESSURE_CPU_HOT, .cpu_ms = PRESSURE_CPU_MS }

bool pressure_read(struct pressure_sample *s); /* false: /proc does not tell */
/* Returns p->hot. */
bool pressure_judge(struct pressure *p, const struct pressure_sample *s, uint64_t now_ms);

#endif
