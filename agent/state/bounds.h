/* bounds.h: how much may wait for the core, what of it no higher priority may take, and for how long.  Internal to the state.
 *
 * Every time to live is a *class*.  Events of one priority and class stand in one list, whose oldest are always the first to leave, so
 * that expiry needs no index by age.  Class 0 is for all that no pattern names; it lives as long as the age limit in force says (an
 * event of another class as long as was in force when it was taken).  A class whose time no pattern gives any more stays until its last
 * event has left. */
#ifndef AGENT_BOUNDS_H
#define AGENT_BOUNDS_H

#include "agent/state/state.h"

#define BOUNDS_CLASSES 16u
#define BOUNDS_TIME_MAX_S (10u * 366 * 24 * 3600)
#define BOUNDS_TIME_MIN_S 60u
#define BOUNDS_FLOORS_PERCENT_MAX 90u /* all floors together */

struct bounds {
    struct queue_limits limits;
    uint8_t ttl_class[LIMIT_QUEUE_TTLS];
    uint32_t class_s[BOUNDS_CLASSES]; /* time to live; 0: the class is free; of class 0: there is no limit */
};

/* What a site may ask for.  E_BAD_MESSAGE. */
enum grey_error bounds_read(struct bytes payload, struct queue_limits *out);
/* Puts limits in force.  used: classes that events wait in, bit by bit.  E_BUSY: each class is used, and a time is new; b is unchanged. */
enum grey_error bounds_adopt(struct bounds *b, const struct queue_limits *limits, uint32_t used);
unsigned bounds_class_of(const struct bounds *b, enum event_priority p, struct bytes type);
uint64_t bounds_floor_bytes(const struct bounds *b, enum event_priority p);
bool bounds_matches(struct bytes pattern, struct bytes type); /* '*' stands for any bytes, also none */

void bounds_save(const struct bounds *b, struct builder *changes);
enum grey_error bounds_load(struct bounds *b, struct table *t, struct fault *f); /* E_CORRUPT */

#endif
