/* profile.h: where greyctl goes and as whom: ~/.config/greyctl/NAME.yaml, which nobody but its owner may read. */
#ifndef AGENT_CTL_PROFILE_H
#define AGENT_CTL_PROFILE_H

#include "include/grey/limits.h"
#include "platform/fault.h"
#include "platform/http_fetch.h"

struct profile {
    /* "" each when it is not said */
    char addr[LIMIT_ADDRESS_BYTES + 16], core[LIMIT_ADDRESS_BYTES + 16];
    char token[256], core_token[256];
    char ca[LIMIT_PATH_BYTES + 1], cert[LIMIT_PATH_BYTES + 1], key[LIMIT_PATH_BYTES + 1]; /* relative ones lie beside the profile */
    char core_ca[LIMIT_PATH_BYTES + 1]; /* whom the core's certificate is believed; "": ca */
    char site[LIMIT_NAME_BYTES + 1];
};

/* name NULL: $GREY_PROFILE, else "default", which need not exist.  $GREY_TOKEN and $GREY_CORE_TOKEN count before what the file says.
 * E_CONFIG with file and remedy: others may read it, it belongs to somebody else, a key is unknown. */
enum grey_error profile_read(struct profile *p, const char *name, struct fault *f);

#endif
