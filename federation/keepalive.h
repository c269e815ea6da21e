/* keepalive.h: how long a link may be silent: as long as is allowed, shorter where a middlebox on the path forgets idle connections.
 *
 * Each exchange after a silence is an experiment: an answer says that the path survives such a silence.  No answer, and a new connection
 * that works at once, says that something on the path has forgotten the old one; then half of that silence is kept from then on.  A
 * loss that is not mended at once is an outage and teaches nothing, and neither does the end of a connection that nobody had asked
 * anything.  After many answers the time is raised again by a quarter, below what is known to fail, and what failed is forgotten after
 * a week.  MQTT fixes its keep-alive at CONNECT, so what is learned counts from the next connection on.
 * Pure: time in monotonic milliseconds is given. */
#ifndef FEDERATION_KEEPALIVE_H
#define FEDERATION_KEEPALIVE_H

#include <stdbool.h>
#include <stdint.h>

#define KEEPALIVE_S_MIN 20u

struct keepalive {
    uint32_t max_s, interval_s; /* interval_s: of the connection */
    uint32_t fatal_s;           /* the shortest silence after which the path was dead; 0: none known */
    uint32_t good_s;            /* has held for long; 0: none known, or given a chance again just now */
    uint64_t fatal_ms;          /* when that was */
    uint32_t answers;           /* to silences of about interval_s, since it was set */
    bool up, asked;             /* asked: something was said after silence_ms, and nothing heard since */
    uint64_t moved_ms, silence_ms;
    uint32_t suspect_s; /* 0: none */
    uint64_t suspect_ms;
};

/* What outlives the process. */
struct keepalive_learned {
    uint32_t interval_s, good_s, fatal_s;
    uint32_t fatal_age_s; /* since fatal_s was found; 0 without one */
};

void keepalive_init(struct keepalive *k, uint32_t max_s);
/* What to ask for in a CONNECT that is answered about now. */
uint32_t keepalive_ask_s(const struct keepalive *k, uint64_t now_ms);
void keepalive_begin(struct keepalive *k, uint64_t now_ms); /* a new connection stands */
void keepalive_spoke(struct keepalive *k, uint64_t now_ms); /* bytes left that the other side answers */
void keepalive_heard(struct keepalive *k, uint64_t now_ms);
void keepalive_keep(const struct keepalive *k, uint64_t now_ms, struct keepalive_learned *out);
/* After keepalive_init: goes on with what was kept, as far as max_s of now and a week allow; what cannot be right is not taken. */
void keepalive_restore(struct keepalive *k, const struct keepalive_learned *l, uint64_t now_ms);
/* The connection is gone.  broken: not by our own will. */
void keepalive_end(struct keepalive *k, uint64_t now_ms, bool broken);

#endif
