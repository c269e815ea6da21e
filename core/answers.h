/* answers.h: what the core tells sites, as soon as their links may carry it (core/downpace.h) and the broker takes it.
 *
 * What waits is replaced by a later answer of its kind to the same site and channel, so however long a broker is slow, the newest
 * acknowledgement is what a site gets.  Bounded: above that an answer is dropped, and the site asks again.  Thread: the loop's. */
#ifndef CORE_ANSWERS_H
#define CORE_ANSWERS_H

#include "core/downpace.h"
#include "federation/sync.h"
#include "include/grey/ids.h"
#include "platform/loop.h"

struct answer {
    struct grey_name site;
    enum event_channel channel;
    enum message_kind kind; /* DOWN_WELCOME, DOWN_RESYNC (welcome), DOWN_ROUTE (of welcome's session), DOWN_ACK (ack) */
    struct sync_ack ack;
    struct sync_welcome welcome;
};

struct answers;

/* say: puts it to the broker; E_BUSY: not now.  Others: the connection is gone, and the site will ask again. */
typedef enum grey_error answers_say(void *context, const struct answer *a);
struct answers *answers_new(struct loop *loop, struct downpace *pace, answers_say *say, void *context); /* NULL: out of memory */
void answers_free(struct answers *a);                                                                   /* NULL is allowed */

void answers_give(struct answers *a, const struct answer *one);     /* when the site's link may carry it */
void answers_give_now(struct answers *a, const struct answer *one); /* without regard for that */
bool answers_wait(const struct answers *a);                         /* for the broker */
bool answers_go_on(struct answers *a);                              /* it takes more; true: none waits for it any more */
void answers_drop(struct answers *a);                               /* the connection is gone: all of them */

#endif
