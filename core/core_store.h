/* core_store.h: calls of the core's API about its store: is it an older copy of itself (core/store_restored.h), and an operator's word that he
 * knows.  Thread: the loop's. */
#ifndef CORE_CORE_STORE_H
#define CORE_CORE_STORE_H

#include "core/core_api.h"

/* True, and q is taken, when it is such a call. */
bool core_store_handle(struct core_api *api, struct http_request *q);

#endif
