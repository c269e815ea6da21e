/* core_api.h: the HTTP API of grey-core and its one page.  Every question about sites runs on the storage thread.  Thread: the loop's. */
#ifndef CORE_CORE_API_H
#define CORE_CORE_API_H

#include "core/attesting.h"
#include "core/core_access.h"
#include "core/enroller.h"
#include "core/giver.h"
#include "platform/http.h"

struct core_api {
    struct loop *loop;
    struct worker *storage;
    struct ingest *ingest;
    struct giver *giver;
    struct core_access access;
    struct enroller *enroller; /* NULL: this core has no CA */
    struct attesting *attesting;
    struct registrar *registrar; /* NULL: nobody is taken in by TPM */
};

void core_api_register(void);
void core_api_handle(void *context, struct http_request *q); /* an http_handler; context: the core_api */

#endif
