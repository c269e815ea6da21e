/* core_rollouts.h: /v1/rollouts/{name} and /v1/sites/{id}/labels of the core.  Thread: the loop's. */
#ifndef CORE_CORE_ROLLOUTS_H
#define CORE_CORE_ROLLOUTS_H

#include "core/core_api.h"

/* True: the path is one of these, and q is taken. */
bool core_rollouts_handle(struct core_api *api, struct http_request *q);

#endif
