/* core_access.h: who may call the core's API.  Tokens lie in a file of hashes, written by `grey-core token ...` and read anew when it changes.
 * Without a file plain HTTP is open, as it is on a loopback address; over TLS a client's certificate or a token says who calls.  Thread: the loop's. */
#ifndef CORE_CORE_ACCESS_H
#define CORE_CORE_ACCESS_H

#include "federation/access.h"
#include "federation/throttle.h"
#include "platform/http.h"
#include "platform/loop.h"

#define CORE_TOKENS_MAX 256u

struct core_access {
    struct loop *loop;
    const char *path; /* NULL: open */
    struct throttle guesses, calls;
    struct bearer tokens[CORE_TOKENS_MAX];
    uint32_t token_count;
    uint64_t looked_ms; /* when the file was last looked at */
    int64_t changed_ns, size;
};

/* path: borrowed; "": no file.  E_CONFIG: it cannot be read, others may read it, or a line is not one. */
enum grey_error core_access_init(struct core_access *a, struct loop *loop, const char *path, uint32_t calls_per_second,
                                 struct fault *f);
/* Whether the caller may use a route of that role.  False: q was answered and is gone.  A change is logged with who and from where. */
bool core_access_check(struct core_access *a, struct http_request *q, enum access_role least);
/* argv of the words behind `grey-core token`.  Returns the exit code. */
int core_access_command(int argc, char **argv);

#endif
