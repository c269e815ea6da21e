/* taskgiven.h: the part of a task's JSON that says what it is given on its gateway: an image, files, artifacts, namespaces.
 * Thread: any; keeps nothing. */
#ifndef AGENT_TASKGIVEN_H
#define AGENT_TASKGIVEN_H

#include "agent/work/task.h"
#include "platform/json.h"

bool taskgiven_knows(const char *field);
/* Reads one of its fields into o, whose slices then point into the document and into hashes.  E_BAD_REQUEST with the field. */
enum grey_error taskgiven_read(const char *field, json_t *value, uint8_t hashes[TASK_FILES_MAX][TASK_HASH_BYTES],
                               struct task_order *o, struct fault *f);
/* What orders from before FEATURE_LEVEL_IMAGES, which stand in logs, may lack.  E_BAD_REQUEST. */
enum grey_error taskgiven_check(const struct task_order *o, struct fault *f);

#endif
