/* hardware.h: what the board tells of itself: temperature, voltage, how much memory there is for this process and whether it is short.
 * Read from files of the kernel; what a board does not have is absent, not zero.  Thread: any; may wait for a slow sensor. */
#ifndef PLATFORM_HARDWARE_H
#define PLATFORM_HARDWARE_H

#include <stdbool.h>
#include <stdint.h>

struct hardware_facts {
    bool has_temperature, has_voltage;
    bool under_voltage;          /* the supply is below what the board needs, now */
    int32_t temperature_milli_c; /* of the hottest zone */
    uint64_t resident_bytes;     /* of this process */
    uint64_t limit_bytes;        /* the least bound of its control group and those above; 0: none */
};

/* root: "" for this machine; tests give a directory that looks like one. */
void hardware_look(const char *root, struct hardware_facts *out);

/* A descriptor that is ready with EPOLLPRI when this process's control group, or else the machine, is short of memory (PSI: something
 * waited for memory for a tenth of 2 s); -1: this kernel does not tell, or not to us.  The caller closes it. */
int hardware_pressure_open(const char *root);

#endif
