/* wear.h: how much this gateway wrote to its flash in the last 24 hours, and how thrifty that bids it be.  Pure.
 *
 * Flash wears out by what is written to it, and a gateway has nobody who would exchange it.  Bytes are counted by the hour; an hour that is
 * begun counts as a whole one of the 24.  The level rises when a share of the limit is reached and falls only well below it, so that it does not
 * flutter.  Time may jump: an hour before the newest counts as the newest, and a jump of a day ahead forgets what was. */
#ifndef AGENT_WEAR_H
#define AGENT_WEAR_H

#include "platform/bytes.h"

#define WEAR_HOURS 24u
#define WEAR_FILE_BYTES_MAX 640u

enum wear_level {
    WEAR_LOW,
    WEAR_HIGH, /* from 80% of the limit on, until below 70%: a warning; work that only tidies up waits */
    WEAR_OVER, /* from 100% on, until below 90%: what can wait shares its writes */
};
const char *wear_level_name(enum wear_level level); /* "low", "high", "over" */

struct wear {
    uint64_t limit_bytes; /* of a day; 0: none, and the level stays low */
    uint64_t hours[WEAR_HOURS], day_bytes;
    int64_t hour; /* number of the newest since 1970; its bytes stand in hours[hour % WEAR_HOURS] */
    enum wear_level level;
};

void wear_init(struct wear *w, uint64_t limit_bytes);
/* Bytes more were written until time_ms (Unix).  Call it also with none: time alone lowers the level. */
enum wear_level wear_add(struct wear *w, int64_t time_ms, uint64_t bytes);

/* What outlives a restart, as one line of text (docs/FORMATS.md, "wear").  wear_get keeps the limit; false: not of this form, w is as it was. */
void wear_put(const struct wear *w, struct builder *b);
bool wear_get(struct wear *w, struct bytes text);

#endif
