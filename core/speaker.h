/* speaker.h: how the core says something to a site: framed, and sealed where the site's session is.  Thread: the loop's. */
#ifndef CORE_SPEAKER_H
#define CORE_SPEAKER_H

#include "core/answers.h"
#include "core/sealed.h"
#include "platform/mqtt.h"

struct speaker {
    struct mqtt *mqtt; /* borrowed, as is sealed */
    struct sealed *sealed;
    const char *route;   /* of this process, for DOWN_ROUTE; borrowed */
    uint64_t message_id; /* of the last one */
};

/* E_BUSY: not now; others: the connection is gone. */
enum grey_error speaker_publish(struct speaker *s, const struct grey_name *site, enum event_channel c, enum message_kind kind,
                                struct bytes content);
enum grey_error speaker_answer(struct speaker *s, const struct answer *a);

#endif
