/* mqtt_library.h: libmosquitto, loaded when the first client dials; for platform/mqtt.c and nobody else.  Thread: the loop's. */
#ifndef PLATFORM_MQTT_LIBRARY_H
#define PLATFORM_MQTT_LIBRARY_H

#include <mosquitto.h>
#include <mqtt_protocol.h>

#include "platform/fault.h"

/* The functions of libmosquitto that are used, looked up by name. */
#define MQTT_LIBRARY(X)                                                                                                            \
    X(int, lib_init, (void))                                                                                                       \
    X(struct mosquitto *, new, (const char *id, bool clean_start, void *obj))                                                      \
    X(void, destroy, (struct mosquitto * mosq))                                                                                    \
    X(int, int_option, (struct mosquitto * mosq, enum mosq_opt_t option, int value))                                               \
    X(int, connect_bind_v5,                                                                                                        \
      (struct mosquitto * mosq, const char *host, int port, int keepalive, const char *bind_address,                               \
       const mosquitto_property *properties))                                                                                      \
    X(int, disconnect_v5, (struct mosquitto * mosq, int reason_code, const mosquitto_property *properties))                        \
    X(int, publish_v5,                                                                                                             \
      (struct mosquitto * mosq, int *mid, const char *topic, int payloadlen, const void *payload, int qos, bool retain,            \
       const mosquitto_property *properties))                                                                                      \
    X(int, subscribe_v5,                                                                                                           \
      (struct mosquitto * mosq, int *mid, const char *sub, int qos, int options, const mosquitto_property *properties))            \
    X(int, loop_read, (struct mosquitto * mosq, int max_packets))                                                                  \
    X(int, loop_write, (struct mosquitto * mosq, int max_packets))                                                                 \
    X(int, loop_misc, (struct mosquitto * mosq))                                                                                   \
    X(int, socket, (struct mosquitto * mosq))                                                                                      \
    X(bool, want_write, (struct mosquitto * mosq))                                                                                 \
    X(const char *, strerror, (int mosq_errno))                                                                                    \
    X(int, property_add_int16, (mosquitto_property * *list, int identifier, uint16_t value))                                       \
    X(void, property_free_all, (mosquitto_property * *list))                                                                       \
    X(const mosquitto_property *, property_read_int16,                                                                             \
      (const mosquitto_property *list, int identifier, uint16_t *value, bool skip_first))                                          \
    X(const mosquitto_property *, property_read_int32,                                                                             \
      (const mosquitto_property *list, int identifier, uint32_t *value, bool skip_first))                                          \
    X(const char *, reason_string, (int reason_code))                                                                              \
    X(void, connect_v5_callback_set,                                                                                               \
      (struct mosquitto * mosq, void (*on)(struct mosquitto *, void *, int, int, const mosquitto_property *)))                     \
    X(void, publish_v5_callback_set,                                                                                               \
      (struct mosquitto * mosq, void (*on)(struct mosquitto *, void *, int, int, const mosquitto_property *)))                     \
    X(void, subscribe_v5_callback_set,                                                                                             \
      (struct mosquitto * mosq, void (*on)(struct mosquitto *, void *, int, int, const int *, const mosquitto_property *)))        \
    X(void, message_v5_callback_set,                                                                                               \
      (struct mosquitto * mosq,                                                                                                    \
       void (*on)(struct mosquitto *, void *, const struct mosquitto_message *, const mosquitto_property *)))

/* Valid once mqtt_library_load has returned true. */
extern struct mqtt_library {
    void *handle;
#define X(type, name, arguments) type(*name) arguments;
    MQTT_LIBRARY(X)
#undef X
} mqtt_library;

bool mqtt_library_load(struct fault *f); /* again: does nothing.  E_SYSTEM */

#endif
