/* scan.h: how the small languages of schedules and zones are read, byte by byte. */
#ifndef AGENT_WORK_SCAN_H
#define AGENT_WORK_SCAN_H

#include <stdbool.h>
#include <stdint.h>

struct scan { /* what has not been read yet; lent */
    const uint8_t *at, *end;
};

/* Goes behind the byte when it is the one wanted. */
static inline bool scan_byte(struct scan *c, char wanted) {
    bool there = c->at < c->end && *c->at == (uint8_t)wanted;
    c->at += there;
    return there;
}

/* One to three digits. */
static inline bool scan_number(struct scan *c, unsigned *out) {
    const uint8_t *start = c->at;
    *out = 0;
    while (c->at < c->end && *c->at >= '0' && *c->at <= '9' && c->at - start < 3) {
        *out = *out * 10 + (*c->at++ - (unsigned)'0');
    }
    return c->at > start;
}

#endif
