/* outputs.h: questions to the launcher for what runs wrote, each answered once.  Thread: the loop's. */
#ifndef AGENT_OUTPUTS_H
#define AGENT_OUTPUTS_H

#include "agent/run/launcher.h"

/* data is lent; it begins at offset, and so much was written so far. */
typedef void outputs_done(void *context, enum grey_error err, struct bytes data, uint64_t offset, uint64_t end_offset);

struct outputs_request;
struct outputs {
    struct launcher *launcher; /* borrowed */
    struct outputs_request *first;
    uint32_t count;
    uint64_t next_number;
};

/* read: scope, token, stream, offset and size of a LAUNCH_READ.  E_CONNECT: no launcher answers; E_BUSY: too many questions are open. */
void outputs_ask(struct outputs *o, const struct launch_message *read, outputs_done *done, void *context);
void outputs_part(struct outputs *o, const struct launch_message *m); /* a LAUNCH_PART */
void outputs_give_up(struct outputs *o, enum grey_error why);         /* answers all that are open */

#endif
