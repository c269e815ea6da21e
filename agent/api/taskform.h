/* taskform.h: tasks as the HTTP API writes them: JSON to an order, an order and what became of it to JSON.  Thread: any; keeps nothing. */
#ifndef AGENT_TASKFORM_H
#define AGENT_TASKFORM_H

#include "agent/work/work.h"
#include "platform/json.h"

/* An order read from JSON, with what its slices point to. */
struct taskform {
    struct task_order order;
    json_t *document;
    struct builder texts; /* NAME=VALUE and key=value, made here */
    char id[LIMIT_NAME_BYTES + 1];
    uint8_t hashes[TASK_FILES_MAX][TASK_HASH_BYTES];
};

/* Reads one task and checks it.  Without an id it is given one, made from `random`; without lane and priority, this lane.  E_BAD_JSON, E_TOO_LARGE, E_BAD_REQUEST with the
 * field.  taskform_free in any case. */
enum grey_error taskform_read(struct taskform *form, struct bytes text, enum task_lane lane, uint64_t random, struct fault *f);
void taskform_free(struct taskform *form);

/* One task as an object.  order: as in the entry that submitted it; NULL: only what the scheduler knows.  output: of a run beside the core;
 * NULL: there is none. */
void taskform_write(struct json_writer *w, const struct scheduler *s, const struct task *t, const struct task_order *order,
                    const struct work_output *output);

#endif
