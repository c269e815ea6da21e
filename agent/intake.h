/* intake.h: the one door for events: what a client sent becomes the payload of one ENTRY_EVENTS entry, or a clear refusal.
 *
 * Pure.  Accepts CloudEvents 1.0 JSON (structured: one object; batch: an array) and the short form {"type","priority","data"}
 * (also in arrays).  `data` is kept byte for byte as received. */
#ifndef AGENT_INTAKE_H
#define AGENT_INTAKE_H

#include "include/grey/event.h"
#include "platform/bytes.h"
#include "platform/fault.h"

struct intake_result {
    uint32_t count;
    bool array; /* the client sent an array */
    enum event_priority most_urgent;
    /* ids in order, packed as CBOR text items, for the answer: intake_id reads them */
    struct builder ids;
};

struct intake_options {
    const char *default_source; /* source of events that name none: the node's "grey://site/node" */
    enum event_priority default_priority;
    uint64_t id_seed;         /* random; events without id get "<16 hex of seed>-<n>" and no de-duplication */
    struct bytes traceparent; /* from the HTTP header, for events that carry none */
};

/* text: the request body; content_type: of the request ("application/json", "application/cloudevents+json",
 * "application/cloudevents-batch+json"; empty is taken as JSON).  payload: appended to.  E_BAD_JSON, E_BAD_REQUEST (names the element
 * and the field), E_TOO_LARGE. */
enum grey_error intake_json(struct bytes text, struct bytes content_type, const struct intake_options *o, struct builder *payload,
                            struct intake_result *r, struct fault *f);
bool intake_id(const struct intake_result *r, uint32_t element, struct bytes *id);
void intake_result_free(struct intake_result *r);

#endif
