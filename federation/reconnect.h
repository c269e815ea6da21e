/* reconnect.h: when to connect to which endpoint, how long each stage of it may take, and when to return to a better one.
 *
 *     off -> wait -> dial -> tls -> mqtt -> hello -> up
 *              ^------- failed, lost or left ----------'
 *
 * Which: among those whose breaker allows a try, the one with the fewest failures since it was steady, then the one of the best priority,
 * then by lot.  So each is tried once before any is tried again, and a fleet spreads over endpoints of one priority.
 * How long: a peer that accepts and says nothing is left when its stage's time is over.  At the last stage, where the broker answers and
 * the core does not, patience depends: with another endpoint to try it is short; without one the connection stays, since a new
 * handshake would cost more than it could help.
 * Return: while a worse endpoint is in use, better ones are probed (dialled, and closed when the handshake is done).  When one has
 * answered all probes for failback_ms and nothing is on the way, the link moves.  A return that fails, or does not last, doubles that
 * time, up to an hour.
 *
 * The owner asks reconnect_step on every event and at wake_ms, does what it orders, and tells what happened.  Pure: time in monotonic
 * milliseconds and chance are given. */
#ifndef FEDERATION_RECONNECT_H
#define FEDERATION_RECONNECT_H

#include "federation/backoff.h"
#include "federation/breaker.h"

#define RECONNECT_ENDPOINTS_MAX 8u
#define RECONNECT_NONE UINT32_MAX

enum reconnect_stage {
    RECONNECT_OFF,
    RECONNECT_WAIT,
    RECONNECT_DIAL, /* name, TCP, proxy */
    RECONNECT_TLS,
    RECONNECT_MQTT,  /* CONNECT was sent */
    RECONNECT_HELLO, /* the broker has answered, the core has not */
    RECONNECT_UP,
};
#define RECONNECT_STAGES (RECONNECT_UP + 1)

struct reconnect_options {
    uint32_t endpoint_count;
    uint32_t priorities[RECONNECT_ENDPOINTS_MAX]; /* lower is better; equal ones share */
    uint32_t failback_ms;                         /* a better endpoint was good for so long; at least 1000 */
    uint32_t
        longest_wait_ms; /* for the few that need not spare anybody, as the core beside its broker: no wait is longer; 0: as above */
};

struct reconnect {
    struct reconnect_options o;
    enum reconnect_stage stage;
    uint32_t current;  /* in use, or tried last; RECONNECT_NONE before the first try */
    uint64_t since_ms; /* in this stage */
    uint64_t try_ms;   /* WAIT: the next try */
    struct backoff backoff;
    struct breaker breakers[RECONNECT_ENDPOINTS_MAX];
    bool steady;                      /* UP for long enough to be trusted */
    uint32_t returning_to;            /* the try that runs is a return; else RECONNECT_NONE */
    uint32_t probed;                  /* a probe runs; else RECONNECT_NONE */
    uint32_t candidate;               /* has answered all probes since good_since_ms; else RECONNECT_NONE */
    uint64_t probe_ms, good_since_ms; /* next probe */
    uint32_t hold_ms;                 /* failback_ms, doubled by returns that failed */
};

enum reconnect_action {
    RECONNECT_NOTHING,
    RECONNECT_CONNECT, /* to endpoint: dial it; the stage is DIAL already */
    RECONNECT_LEAVE,   /* close the connection and tell reconnect_failed, or reconnect_left when `returns` */
    RECONNECT_PROBE,   /* dial endpoint beside the connection, close it when it is open, tell reconnect_probed */
};

struct reconnect_order {
    enum reconnect_action action;
    uint32_t endpoint;
    const char *why; /* LEAVE: a sentence for the site engineer */
    bool returns;
};

void reconnect_init(struct reconnect *r, const struct reconnect_options *o);
void reconnect_start(struct reconnect *r, uint64_t now_ms); /* the first try may begin at once */
void reconnect_stop(struct reconnect *r);                   /* breakers keep what they know */

/* random: fresh 32 bits.  idle: nothing is on the way and nothing waits.  One order per call; ask again until NOTHING. */
struct reconnect_order reconnect_step(struct reconnect *r, uint64_t now_ms, uint32_t random, bool idle);
/* When to step again though nothing happens; UINT64_MAX: no need. */
uint64_t reconnect_wake_ms(const struct reconnect *r, uint64_t now_ms);

void reconnect_reached(struct reconnect *r, enum reconnect_stage stage, uint64_t now_ms);
void reconnect_failed(struct reconnect *r, uint64_t now_ms, uint32_t random); /* a try failed, or a connection was lost or left */
void reconnect_left(struct reconnect *r, uint64_t now_ms);                    /* to return: the next step connects at once */
void reconnect_probed(struct reconnect *r, bool good, uint64_t now_ms, uint32_t random);
/* An operator, or a network that came up, has reason to hope: whatever waits tries at that time, or
 * before. */
void reconnect_hurry(struct reconnect *r, uint64_t at_ms);

const char *reconnect_stage_name(enum reconnect_stage s);

#endif
