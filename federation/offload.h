/* offload.h: tasks that a site hands to the core, and what becomes of them (docs/PROTOCOL.md, "Tasks for the core").
 *
 * Up, a task is an event of a type that no client may send: OFFLOAD_GIVEN with the order as JSON.  Down comes a result, again and again until
 * the site says OFFLOAD_SETTLED: it has taken note of an end, or wants none any more.  Both events and the result name the task as the site
 * does and the token under which it was handed over.  Pure. */
#ifndef FEDERATION_OFFLOAD_H
#define FEDERATION_OFFLOAD_H

#include "federation/sync.h"

#define OFFLOAD_TYPES "grey.task." /* what types of the site's own events begin with */
#define OFFLOAD_GIVEN "grey.task.offload"
#define OFFLOAD_SETTLED "grey.task.settled"
#define EMERGENCY_STOPPED "grey.task.emergency" /* no offload, but one of those types: subject TASK/TOKEN as well */
#define OFFLOAD_OUTPUT_BYTES_MAX (16u * 1024u)
#define OFFLOAD_NAME_BYTES (LIMIT_NAME_BYTES + 24u)

/* Subject of both events: TASK/TOKEN. */
void offload_name(char out[OFFLOAD_NAME_BYTES], struct bytes task, uint64_t token);
bool offload_name_read(struct bytes name, struct grey_name *task, uint64_t *token);
bool offload_reserved(struct bytes type); /* only the site itself may send such events */

enum offload_end {
    OFFLOAD_COMPLETED,
    OFFLOAD_FAILED,
    OFFLOAD_REFUSED, /* it cannot be run there */
    OFFLOAD_ENDS
};
struct offload_result { /* borrows */
    uint64_t incarnation;
    grey_epoch epoch; /* of the session, as in all that comes down */
    struct bytes task;
    uint64_t token;
    enum offload_end end;
    int32_t exit_status;
    struct bytes output_hash; /* SHA-256 of standard output; empty: there is none */
    uint64_t output_bytes;
    struct bytes output; /* its end, at most OFFLOAD_OUTPUT_BYTES_MAX */
};
void offload_put_result(struct builder *out, const struct offload_result *r);
enum grey_error offload_get_result(struct bytes content, struct offload_result *r); /* E_BAD_CBOR, E_BAD_MESSAGE */

#endif
