/* core_attest.h: calls of the core's API about what gateways have shown of themselves, and the policy by which they are judged.  Thread: the
 * loop's. */
#ifndef CORE_CORE_ATTEST_H
#define CORE_CORE_ATTEST_H

#include "core/core_api.h"

/* True, and q is taken, when it is such a call. */
bool core_attest_handle(struct core_api *api, struct http_request *q);

#endif
