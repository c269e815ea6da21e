/* intake.h: the one door for events: what a client sent becomes the payload of one ENTRY_EVENTS entry, or a clear refusal.
 *
 * Pure.  Accepts CloudEvents 1.0 JSON (structured: one object; batch: an array) and the short form {"type","priority","data"}, which
 * may have "id", "source", "subject", "time", "datacontenttype", "data_base64" and "traceparent" too; what has "specversion" is a
 * CloudEvent.  `data` is kept byte for byte as received; only a JSON string under a datacontenttype that is not JSON stands for its
 * characters (CloudEvents JSON format 1.0, 3.1), and data_base64 for its bytes.  `time` is a date-time of RFC 3339, however wrong; it is
 * kept as it is.  Attributes of a CloudEvent that a record has no field
 * for (federation/record.h) are not kept; in the short form they are refused, since they are most likely misspelt. */
#ifndef AGENT_INTAKE_H
#define AGENT_INTAKE_H

#include "include/grey/event.h"
#include "platform/bytes.h"
#include "platform/fault.h"

struct intake_result {
    uint32_t count;
    bool array; /* the client sent an array */
    enum event_priority most_urgent;
    struct builder ids, id_ends; /* for the answer: intake_id reads them */
};

struct intake_options {
    const char *default_source; /* source of events that name none: the node's "grey://site/node" */
    enum event_priority default_priority;
    uint64_t id_seed;         /* random; events without id get "<16 hex of seed>-<n>" and no de-duplication */
    bool provisional;         /* the node has known no leader for a while (docs/ARCHITECTURE.md) */
    struct bytes traceparent; /* from the HTTP header, for events that carry none */
};

/* text: the request body; content_type: of the request.  "application/cloudevents+json" asks for one CloudEvent,
 * "application/cloudevents-batch+json" for an array of them; anything else is taken as JSON of either form.
 * payload: the batch is appended; on error it is as before.  *r: intake_result_free also after an error.
 * E_BAD_JSON, E_BAD_REQUEST (names the element, from 0, and the field), E_TOO_LARGE (data or the batch), E_NO_MEMORY. */
enum grey_error intake_json(struct bytes text, struct bytes content_type, const struct intake_options *o, struct builder *payload,
                            struct intake_result *r, struct fault *f);
/* The id of one event, given or drawn; lent.  False when there is no such element. */
bool intake_id(const struct intake_result *r, uint32_t element, struct bytes *id);
void intake_result_free(struct intake_result *r);

#endif
