/* store_answers.h: what the store is asked, answered as JSON.  Thread: the core's storage thread; outside of a transaction. */
#ifndef CORE_STORE_ANSWERS_H
#define CORE_STORE_ANSWERS_H

#include "core/store.h"
#include "platform/json.h"

struct store_query {
    int channel;       /* -1: all, one after the other */
    const char *after; /* a cursor, or a bare seq of the current incarnation; of sites: a name; "" from the start */
    uint32_t limit;
};
enum grey_error store_answers_sites(struct store *s, const struct store_query *q, struct json_writer *w,
                                    struct fault *f);                                                          /* an array */
enum grey_error store_answers_site(struct store *s, const char *site, struct json_writer *w, struct fault *f); /* E_NOT_FOUND */
/* {"events":[...],"next":cursor}: in order of incarnation, channel, seq; fewer than limit when they are large.  E_BAD_REQUEST for a
 * cursor that is none. */
enum grey_error store_answers_events(struct store *s, const char *site, const struct store_query *q, struct json_writer *w,
                                     struct fault *f);
/* {"gaps":[...]}, with "next" when there are more. */
enum grey_error store_answers_gaps(struct store *s, const char *site, const struct store_query *q, struct json_writer *w,
                                   struct fault *f);

#endif
