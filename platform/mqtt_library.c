#include "platform/mqtt_library.h"

#include <dlfcn.h>
#include <string.h>

struct mqtt_library mqtt_library;

bool mqtt_library_load(struct fault *f) {
    if (mqtt_library.handle != NULL) {
        return true;
    }
    void *handle = dlopen("libmosquitto.so.1", RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        (void)fault_set(f, E_SYSTEM, "%s (package libmosquitto1)", dlerror());
        return false;
    }
#define X(type, name, arguments)                                                                                                   \
    {                                                                                                                              \
        void *symbol = dlsym(handle, "mosquitto_" #name);                                                                          \
        if (symbol == NULL) {                                                                                                      \
            (void)fault_set(f, E_SYSTEM, "libmosquitto lacks mosquitto_" #name);                                                   \
            (void)dlclose(handle);                                                                                                 \
            return false;                                                                                                          \
        }                                                                                                                          \
        memcpy(&mqtt_library.name, &symbol, sizeof symbol);                                                                        \
    }
    MQTT_LIBRARY(X)
#undef X
    mqtt_library.handle = handle;
    (void)mqtt_library.lib_init();
    return true;
}
