/* The configuration file, as a tired person might write it. */
#include <stddef.h>
#include <stdint.h>

#include "agent/config/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct config c;
    struct fault f = {0};
    config_defaults(&c);
    if (config_read(&c, bytes_of(data, size), "fuzz", &f) == E_OK) {
        struct builder b;
        builder_init(&b, 1u << 20);
        config_print(&c, &b);
        config_list_inert(&c, &b);
        builder_free(&b);
    }
    return 0;
}
