/* If this found anything, bytes on a socket could crash or mislead the one process that may be root. */
#include <stdlib.h>

#include "agent/launch/launchwire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct launch_message m, again;
    struct builder b;
    if (launchwire_decode(bytes_of(data, size), &m) != E_OK) {
        return 0;
    }
    builder_init(&b, 2 * LAUNCHWIRE_BYTES_MAX);
    launchwire_encode(&b, &m); /* there is one encoding of each message */
    if (b.err != E_OK || !bytes_equal(builder_bytes(&b), bytes_of(data, size)) ||
        launchwire_decode(builder_bytes(&b), &again) != E_OK) {
        abort();
    }
    builder_free(&b);
    return 0;
}
