/* core_objects.h: /v1/configs, /v1/policies and /v1/data of the core: what it gives to sites.  Thread: the loop's. */
#ifndef CORE_CORE_OBJECTS_H
#define CORE_CORE_OBJECTS_H

#include "core/core_api.h"

/* True: the path is one of these, and q is taken. */
bool core_objects_handle(struct core_api *api, struct http_request *q);

#endif
