/* event.h: the event record that gateways and core share, its priorities and its channels (DECISIONS 14). */
#ifndef GREY_EVENT_H
#define GREY_EVENT_H

#include "include/grey/ids.h"
#include "include/grey/slice.h"

enum event_priority { PRIORITY_CRITICAL, PRIORITY_HIGH, PRIORITY_NORMAL, PRIORITY_LOW, PRIORITY_COUNT };
enum event_channel { CHANNEL_CONTROL, CHANNEL_EVENTS, CHANNEL_DATA, CHANNEL_COUNT };

static inline enum event_channel event_channel_of(enum event_priority priority) {
    return priority == PRIORITY_CRITICAL ? CHANNEL_CONTROL : priority == PRIORITY_HIGH ? CHANNEL_EVENTS : CHANNEL_DATA;
}

static inline const char *event_channel_name(enum event_channel channel) {
    static const char *const names[CHANNEL_COUNT] = {"control", "events", "data"};
    return (unsigned)channel < CHANNEL_COUNT ? names[channel] : "?";
}

static inline const char *event_priority_name(enum event_priority priority) {
    static const char *const names[PRIORITY_COUNT] = {"critical", "high", "normal", "low"};
    return (unsigned)priority < PRIORITY_COUNT ? names[priority] : "?";
}

/* One event as its sender gave it.  All slices borrow. `data` is the bytes received, never re-encoded; `content_type` says what
 * they are ("application/json" when empty).  time is the sender's own text (RFC 3339) or empty; it is shown, never computed with. */
struct event {
    struct bytes id, source, type, subject, time, content_type, traceparent;
    struct bytes data;
    enum event_priority priority;
    bool provisional; /* was taken while the site had no quorum */
    bool has_id;      /* the sender gave the id: repeats are recognised */
};

#endif
