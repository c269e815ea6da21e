#include "platform/mqtt.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "include/grey/limits.h"
#include "include/grey/must.h"
#include "platform/keys.h"
#include "platform/mqtt_library.h"

#define DIAL_MS 12000u                 /* name, TCP and proxy */
#define HANDSHAKE_MS 25000u            /* enough for 9.6 kbit/s with a round trip of 3 s */
#define MISC_MS 2000u                  /* libmosquitto's keep-alive wants to be looked at now and then */
#define PUMP_BYTES 8192u               /* small, so that what goes first is decided by our owner and not in a socket */
#define OUTPUT_BYTES_MAX (64u * 1024u) /* towards the broker; above it the pump stops reading */
#define INPUT_BYTES_MAX (4u * 1024u * 1024u)
#define STALL_MS_MIN 8000u /* an answer is due and no byte has moved for so long: the path is dead */
#define STALL_MS_MAX 30000u
#define STALL_FACTOR 4u /* times the slowest confirmation of this connection */
#define ALIASES_MAX 4u  /* topics that are sent as a number after the first time */
#define INFLIGHT_MAX 64u
#define TOPIC_ROOM 128u
#define PINGREQ 0xc0u /* first bytes of packets */
#define PUBACK 0x40u
#define PUBACK_BYTES_MAX 6u
#define PACKET_OVERHEAD_BYTES 192u /* MQTT header, topic and properties, at most */
#define PAYLOAD_BYTES_MAX (LIMIT_FRAME_PAYLOAD_BYTES + 64u)

struct mqtt {
    struct conn_context x;
    struct mqtt_options o;
    struct mqtt_target target;
    char address[LIMIT_ADDRESS_BYTES + 1], host[LIMIT_ADDRESS_BYTES + 1];
    char client_id[LIMIT_NAME_BYTES * 2 + 8], socket_path[sizeof((struct sockaddr_un *)0)->sun_path];
    const struct mqtt_events *events;
    void *context;
    bool connected, was_busy;
    bool failing; /* a fall is under way: no library call any more */
    bool held, unheard;
    uint32_t inflight, inflight_max, keepalive_s, opening_bytes;
    struct {
        int id;
        uint64_t sent_ms;
    } unconfirmed[INFLIGHT_MAX];    /* `inflight` of them, oldest first */
    uint64_t ping_ms;               /* of the ping that waits for its answer; 0: none */
    uint32_t slowest_ms;            /* confirmation of this connection */
    uint64_t moved_ms, moved_bytes; /* when a byte was last seen to move, and how many had by then */
    uint32_t packet_bytes_max, alias_count, alias_max;
    char aliases[ALIASES_MAX][TOPIC_ROOM];
    struct conn *conn;
    struct mosquitto *client;
    struct loop_fd client_watch, pump_watch;
    int listen_fd, pump_fd;
    struct loop_timer misc, fall;
    char fall_reason[280];
    struct conn_count counted; /* of closed connections */
    struct conn_wire wired;    /* theirs too */
};

/* Of a connection that ends. */
static void keep_counts(struct mqtt *m, const struct conn *c) {
    struct conn_count count = conn_counted(c);
    m->counted.in_bytes += count.in_bytes;
    m->counted.out_bytes += count.out_bytes;
    conn_wire_add(&m->wired, c);
    m->wired.unsent_bytes = 0; /* it never will be */
}

/* --- the end of a connection ------------------------------------------------------------------------------------------------------------- */

static void close_all(struct mqtt *m) {
    m->failing = true;
    loop_timer_cancel(m->x.loop, &m->misc);
    loop_timer_cancel(m->x.loop, &m->fall);
    loop_fd_remove(m->x.loop, &m->client_watch);
    loop_fd_remove(m->x.loop, &m->pump_watch);
    if (m->client != NULL) {
        mqtt_library.destroy(m->client);
        m->client = NULL;
    }
    if (m->pump_fd >= 0) {
        (void)close(m->pump_fd);
        m->pump_fd = -1;
    }
    if (m->conn != NULL) {
        struct conn *c = m->conn;
        m->conn = NULL; /* TLS says goodbye, which asks the gate, which asks what was sent: it counts once */
        keep_counts(m, c);
        conn_close(c);
    }
    m->connected = m->held = false;
    m->inflight = m->alias_count = m->slowest_ms = m->opening_bytes = 0;
    m->ping_ms = 0;
    m->failing = false;
}

/* Never in the middle of a library call: those end by asking for it. */
static void fall_now(void *context) {
    struct mqtt *m = context;
    close_all(m);
    m->events->closed(m->context, m->fall_reason);
}

static void fall(struct mqtt *m, const char *why) {
    if (m->fall.place == 0 && !m->failing) {
        (void)snprintf(m->fall_reason, sizeof m->fall_reason, "%s", why);
        loop_timer_after(m->x.loop, &m->fall, 0);
    }
}

/* --- library <-> pump ---------------------------------------------------------------------------------------------------------------------- */

static void watch_client(struct mqtt *m) {
    if (m->client_watch.generation > 0) {
        loop_fd_events(m->x.loop, &m->client_watch,
                       (m->held ? 0u : EPOLLIN) | (mqtt_library.want_write(m->client) ? EPOLLOUT : 0u));
    }
}

static void check(struct mqtt *m, int code) {
    if (code != MOSQ_ERR_SUCCESS) {
        fall(m, code == MOSQ_ERR_ERRNO ? strerror(errno) : mqtt_library.strerror(code));
    }
}

static void on_client(void *context, uint32_t events) {
    struct mqtt *m = context;
    if ((events & EPOLLOUT) != 0) {
        check(m, mqtt_library.loop_write(m->client, 1));
    }
    if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && m->fall.place == 0) {
        check(m, mqtt_library.loop_read(m->client, 1));
    }
    if (m->fall.place != 0) {
        loop_fd_remove(m->x.loop, &m->client_watch);
        return;
    }
    watch_client(m);
    if (m->was_busy && !mqtt_library.want_write(m->client) && m->connected) {
        m->was_busy = false;
        m->events->writable(m->context);
    }
}

/* What was said makes the broker answer, unless it is a PUBACK alone. */
static void note_spoken(struct mqtt *m, struct bytes out) {
    if (out.size == 2 && out.data[0] == PINGREQ && out.data[1] == 0) {
        m->ping_ms = loop_now_ms(m->x.loop);
    }
    if (m->events->moved != NULL && (out.data[0] != PUBACK || out.size > PUBACK_BYTES_MAX)) {
        m->events->moved(m->context, false);
    }
}

/* From the library to the broker. */
static void on_pump(void *context, uint32_t events) {
    struct mqtt *m = context;
    uint8_t room[PUMP_BYTES];
    if ((events & EPOLLOUT) != 0) {
        conn_resume(m->conn);
    }
    if (m->pump_watch.generation == 0 || (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) {
        return;
    }
    for (int i = 0; i < 16; i++) {
        if (conn_output_bytes(m->conn) + sizeof room > OUTPUT_BYTES_MAX) {
            loop_fd_events(m->x.loop, &m->pump_watch, 0); /* until the output is drained */
            return;
        }
        ssize_t got = recv(m->pump_fd, room, sizeof room, 0);
        if (got <= 0) {
            if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
                fall(m, "the connection was closed");
                loop_fd_remove(m->x.loop, &m->pump_watch);
            }
            return;
        }
        note_spoken(m, bytes_of(room, (size_t)got));
        if (conn_write(m->conn, bytes_of(room, (size_t)got)) != E_OK) {
            fall(m, "the connection to the broker broke");
            return;
        }
    }
}

/* From the broker to the library: what its socket does not take stays in the conn. */
static size_t on_bytes(void *context, struct conn *c, struct bytes in) {
    struct mqtt *m = context;
    if (m->pump_fd < 0) {
        return 0;
    }
    m->ping_ms = 0;
    if (m->events->moved != NULL) {
        m->events->moved(m->context, true);
    }
    ssize_t sent = send(m->pump_fd, in.data, in.size, MSG_NOSIGNAL);
    size_t used = sent > 0 ? (size_t)sent : 0;
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        fall(m, "the connection was closed");
        return in.size;
    }
    if (used < in.size) {
        conn_pause(c);
        if (m->pump_watch.generation > 0) {
            loop_fd_events(m->x.loop, &m->pump_watch, EPOLLIN | EPOLLOUT);
        }
    } else if (m->pump_watch.generation > 0) {
        loop_fd_events(m->x.loop, &m->pump_watch, EPOLLIN);
    }
    return used;
}

static void on_drained(void *context, struct conn *c) {
    struct mqtt *m = context;
    (void)c;
    if (m->pump_watch.generation > 0 && m->pump_watch.events == 0) {
        loop_fd_events(m->x.loop, &m->pump_watch, EPOLLIN);
    }
    if (m->was_busy) {
        m->was_busy = false;
        m->events->writable(m->context);
    }
}

static void on_conn_closed(void *context, struct conn *c, enum grey_error why, const char *detail) {
    struct mqtt *m = context;
    keep_counts(m, c);
    m->conn = NULL;
    loop_fd_remove(m->x.loop, &m->pump_watch);
    char text[280];
    (void)snprintf(text, sizeof text, "%s%s%.220s", error_sentence(why), detail[0] != 0 ? ": " : "", detail);
    fall(m, text);
}

/* --- what the library tells ------------------------------------------------------------------------------------------------------------------- */

static void told_connect(struct mosquitto *client, void *context, int reason, int flags, const mosquitto_property *properties) {
    struct mqtt *m = context;
    uint16_t receive_max = UINT16_MAX, alias_max = 0, keepalive_s = (uint16_t)m->target.keepalive_s;
    uint32_t packet_max = UINT32_MAX;
    (void)client, (void)flags;
    if (reason != 0) {
        char text[160];
        (void)snprintf(text, sizeof text, "the broker refuses: %s", mqtt_library.reason_string(reason));
        fall(m, text);
        return;
    }
    (void)mqtt_library.property_read_int16(properties, MQTT_PROP_RECEIVE_MAXIMUM, &receive_max, false);
    (void)mqtt_library.property_read_int16(properties, MQTT_PROP_TOPIC_ALIAS_MAXIMUM, &alias_max, false);
    (void)mqtt_library.property_read_int32(properties, MQTT_PROP_MAXIMUM_PACKET_SIZE, &packet_max, false);
    (void)mqtt_library.property_read_int16(properties, MQTT_PROP_SERVER_KEEP_ALIVE, &keepalive_s, false);
    m->keepalive_s = keepalive_s;
    m->inflight_max = m->o.inflight_max < receive_max ? m->o.inflight_max : receive_max;
    m->alias_max = alias_max < ALIASES_MAX ? alias_max : ALIASES_MAX;
    m->packet_bytes_max = packet_max;
    m->connected = true;
    m->events->connected(m->context);
}

static void told_publish(struct mosquitto *client, void *context, int id, int reason, const mosquitto_property *properties) {
    struct mqtt *m = context;
    (void)client, (void)properties;
    for (uint32_t i = 0; i < m->inflight; i++) {
        if (m->unconfirmed[i].id == id) {
            uint64_t took_ms = loop_now_ms(m->x.loop) - m->unconfirmed[i].sent_ms;
            uint32_t slowest_ms = m->slowest_ms - m->slowest_ms / 8; /* it need not stay so slow */
            m->slowest_ms = took_ms > slowest_ms && took_ms < STALL_MS_MAX ? (uint32_t)took_ms : slowest_ms;
            memmove(&m->unconfirmed[i], &m->unconfirmed[i + 1], (m->inflight - i - 1) * sizeof m->unconfirmed[0]);
            m->inflight--;
            break;
        }
    }
    /* 16: nobody is subscribed just now; the core's own acknowledgement is what counts, so this is no refusal */
    m->unheard = reason == MQTT_RC_NO_MATCHING_SUBSCRIBERS;
    m->events->published(m->context, id, reason >= 128 ? mqtt_library.reason_string(reason) : NULL);
    if (m->was_busy) {
        m->was_busy = false;
        m->events->writable(m->context);
    }
}

static void told_subscribe(struct mosquitto *client, void *context, int id, int count, const int *granted,
                           const mosquitto_property *properties) {
    struct mqtt *m = context;
    (void)client, (void)id, (void)properties;
    if (count < 1 || granted == NULL || granted[0] >= 128) {
        fall(m, "the broker refuses a subscription: check its ACL");
    }
}

static void told_message(struct mosquitto *client, void *context, const struct mosquitto_message *message,
                         const mosquitto_property *properties) {
    struct mqtt *m = context;
    (void)client, (void)properties;
    if (message->payloadlen >= 0 && message->topic != NULL) {
        m->events->message(m->context, message->topic, bytes_of(message->payload, (size_t)message->payloadlen));
    }
}

/* --- connecting ------------------------------------------------------------------------------------------------------------------------------- */

static bool start_library(struct mqtt *m) {
    m->client = mqtt_library.new(m->client_id, true, m);
    if (m->client == NULL) {
        return false;
    }
    mqtt_library.connect_v5_callback_set(m->client, told_connect);
    mqtt_library.publish_v5_callback_set(m->client, told_publish);
    mqtt_library.subscribe_v5_callback_set(m->client, told_subscribe);
    mqtt_library.message_v5_callback_set(m->client, told_message);
    (void)mqtt_library.int_option(m->client, MOSQ_OPT_PROTOCOL_VERSION, MQTT_PROTOCOL_V5);
    (void)mqtt_library.int_option(m->client, MOSQ_OPT_SEND_MAXIMUM, (int)m->o.inflight_max);
    int code = mqtt_library.connect_bind_v5(m->client, m->socket_path, 0, (int)m->target.keepalive_s, NULL, NULL);
    m->pump_fd = accept4(m->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (code != MOSQ_ERR_SUCCESS || m->pump_fd < 0) {
        return false;
    }
    int size = PUMP_BYTES;
    (void)setsockopt(m->pump_fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    (void)setsockopt(mqtt_library.socket(m->client), SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    struct fault f;
    if (loop_fd_add(m->x.loop, &m->pump_watch, m->pump_fd, EPOLLIN, &f) != E_OK ||
        loop_fd_add(m->x.loop, &m->client_watch, mqtt_library.socket(m->client), EPOLLIN | EPOLLOUT, &f) != E_OK) {
        return false;
    }
    loop_timer_after(m->x.loop, &m->misc, MISC_MS);
    m->moved_ms = loop_now_ms(m->x.loop);
    return true;
}

static void on_open(void *context, struct conn *c) {
    struct mqtt *m = context;
    struct conn_count count = conn_counted(c);
    m->opening_bytes = (uint32_t)(count.in_bytes + count.out_bytes);
    if (m->o.gate != NULL) {
        conn_set_gate(c, m->o.gate, m->o.gate_context);
    }
    if (!start_library(m)) {
        fall(m, "libmosquitto cannot start");
    } else if (m->events->stage != NULL) {
        m->events->stage(m->context, MQTT_STAGE_CONNECT);
    }
}

static void on_reached(void *context, struct conn *c) {
    struct mqtt *m = context;
    (void)c;
    if (m->events->stage != NULL) {
        m->events->stage(m->context, MQTT_STAGE_TLS);
    }
}

static const struct conn_events conn_events = {
    .on_reached = on_reached, .on_open = on_open, .on_bytes = on_bytes, .on_drained = on_drained, .on_closed = on_conn_closed};

/* TCP itself would try for a quarter of an hour to reach a broker behind a path that has gone. */
static bool stalled(struct mqtt *m) {
    struct conn_count c = mqtt_counted(m);
    uint64_t now_ms = loop_now_ms(m->x.loop), limit_ms = STALL_MS_MAX;
    bool due = (m->inflight > 0 && m->unconfirmed[0].sent_ms + MISC_MS <= now_ms) || m->ping_ms > 0;
    if (!due || m->held || c.in_bytes + c.out_bytes != m->moved_bytes) {
        m->moved_ms = now_ms;
        m->moved_bytes = c.in_bytes + c.out_bytes;
        return false;
    }
    if (m->slowest_ms < STALL_MS_MAX / STALL_FACTOR) {
        limit_ms = m->slowest_ms * STALL_FACTOR < STALL_MS_MIN ? STALL_MS_MIN : m->slowest_ms * STALL_FACTOR;
    }
    return now_ms - m->moved_ms >= limit_ms;
}

static void on_misc(void *context) {
    struct mqtt *m = context;
    loop_timer_after(m->x.loop, &m->misc, MISC_MS);
    check(m, mqtt_library.loop_misc(m->client));
    if (m->fall.place == 0 && stalled(m)) {
        fall(m, "the broker does not answer any more");
    }
    if (m->fall.place == 0) {
        watch_client(m);
    }
}

/* --- life ---------------------------------------------------------------------------------------------------------------------------------------- */

static bool listen_unix(struct mqtt *m, struct fault *f) {
    struct sockaddr_un u = {.sun_family = AF_UNIX};
    if ((size_t)snprintf(u.sun_path, sizeof u.sun_path, "%s/uplink.sock", m->o.socket_dir) >= sizeof u.sun_path) {
        uint64_t random;
        keys_random(&random, sizeof random);
        (void)snprintf(u.sun_path, sizeof u.sun_path, "/tmp/grey-%016llx.sock", (unsigned long long)random);
    }
    (void)unlink(u.sun_path);
    m->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (m->listen_fd < 0 || bind(m->listen_fd, (const struct sockaddr *)&u, sizeof u) != 0 || listen(m->listen_fd, 1) != 0) {
        (void)fault_errno(f, E_SYSTEM, "%s", u.sun_path);
        return false;
    }
    memcpy(m->socket_path, u.sun_path, sizeof m->socket_path);
    return true;
}

struct mqtt *mqtt_new(const struct conn_context *x, const struct mqtt_options *o, const struct mqtt_events *events, void *context,
                      struct fault *f) {
    must(o->inflight_max > 0 && o->inflight_max <= INFLIGHT_MAX);
    struct mqtt *m = mem_new(1, sizeof *m);
    if (m == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "MQTT client");
        return NULL;
    }
    m->x = *x;
    m->o = *o;
    m->events = events;
    m->context = context;
    m->listen_fd = m->pump_fd = -1;
    m->client_watch = (struct loop_fd){.ready = on_client, .context = m, .fd = -1};
    m->pump_watch = (struct loop_fd){.ready = on_pump, .context = m, .fd = -1};
    m->misc = (struct loop_timer){.fire = on_misc, .context = m};
    m->fall = (struct loop_timer){.fire = fall_now, .context = m};
    (void)snprintf(m->client_id, sizeof m->client_id, "%s", o->client_id);
    return m;
}

void mqtt_free(struct mqtt *m) {
    if (m == NULL) {
        return;
    }
    mqtt_close(m);
    if (m->listen_fd >= 0) {
        (void)close(m->listen_fd);
        (void)unlink(m->socket_path);
    }
    mem_free(m);
}

void mqtt_dial(struct mqtt *m, const struct mqtt_target *t) {
    struct fault f = {0};
    struct in6_addr numeric;
    must(m->conn == NULL && m->client == NULL);
    m->target = *t;
    (void)snprintf(m->address, sizeof m->address, "%s", t->address);
    (void)snprintf(m->host, sizeof m->host, "%.*s", (int)strcspn(m->address, ":"), m->address);
    if (!mqtt_library_load(&f) || (m->listen_fd < 0 && !listen_unix(m, &f))) {
        fall(m, f.text);
        return;
    }
    if (t->tls != NULL && (inet_pton(AF_INET, m->host, &numeric) == 1 || m->address[0] == '[')) {
        fall(m, "with TLS the endpoint needs the host name that stands in the broker's certificate, not a number");
        return;
    }
    struct conn_options o = {.tls = t->tls,
                             .expected_host = m->host,
                             .input_limit_bytes = INPUT_BYTES_MAX,
                             .output_limit_bytes = 2 * OUTPUT_BYTES_MAX,
                             .open_timeout_ms = DIAL_MS,
                             .handshake_timeout_ms = HANDSHAKE_MS,
                             .proxy = t->proxy,
                             .session = t->session,
                             .offer = t->offer,
                             .events = &conn_events,
                             .context = m};
    m->conn = conn_dial(&m->x, m->address, &o, &f);
    if (m->conn == NULL) {
        fall(m, f.text);
    }
}

void mqtt_close(struct mqtt *m) {
    if (m->connected && m->client != NULL) {
        (void)mqtt_library.disconnect_v5(m->client, 0, NULL);
    }
    close_all(m);
}

void mqtt_give_up(struct mqtt *m, const char *why) {
    if (m->conn != NULL || m->client != NULL) {
        fall(m, why);
    }
}

bool mqtt_connected(const struct mqtt *m) {
    return m->connected && m->fall.place == 0;
}

bool mqtt_unheard(const struct mqtt *m) {
    return m->unheard;
}

const char *mqtt_address(const struct mqtt *m) {
    return m->address;
}

uint32_t mqtt_keepalive_s(const struct mqtt *m) {
    return m->connected ? m->keepalive_s : 0;
}

uint32_t mqtt_opening_bytes(const struct mqtt *m) {
    return m->opening_bytes;
}

/* The number that stands for the topic on this connection; 0: none.  *known: the broker has been told before. */
static uint16_t alias_of(struct mqtt *m, const char *topic, bool *known) {
    *known = true;
    for (uint32_t i = 0; i < m->alias_count; i++) {
        if (strcmp(m->aliases[i], topic) == 0) {
            return (uint16_t)(i + 1);
        }
    }
    *known = false;
    if (m->alias_count >= m->alias_max || strlen(topic) >= TOPIC_ROOM) {
        return 0;
    }
    (void)snprintf(m->aliases[m->alias_count], TOPIC_ROOM, "%s", topic);
    return (uint16_t)++m->alias_count;
}

static int publish(struct mqtt *m, const char *topic, struct bytes payload, int *id) {
    mosquitto_property *properties = NULL;
    bool known = false;
    uint16_t alias = m->o.topics_repeat ? alias_of(m, topic, &known) : 0;
    if (alias > 0 && mqtt_library.property_add_int16(&properties, MQTT_PROP_TOPIC_ALIAS, alias) != MOSQ_ERR_SUCCESS) {
        return MOSQ_ERR_NOMEM;
    }
    int code = mqtt_library.publish_v5(m->client, id, known ? NULL : topic, (int)payload.size, payload.data, 1, false, properties);
    mqtt_library.property_free_all(&properties);
    return code;
}

size_t mqtt_payload_bytes_max(const struct mqtt *m) {
    if (!m->connected || m->packet_bytes_max >= PAYLOAD_BYTES_MAX + PACKET_OVERHEAD_BYTES) {
        return PAYLOAD_BYTES_MAX;
    }
    return m->packet_bytes_max > PACKET_OVERHEAD_BYTES ? m->packet_bytes_max - PACKET_OVERHEAD_BYTES : 0;
}

enum grey_error mqtt_publish(struct mqtt *m, const char *topic, struct bytes payload, int *id) {
    if (!mqtt_connected(m)) {
        return E_CLOSED;
    }
    if (payload.size > mqtt_payload_bytes_max(m)) {
        return E_TOO_LARGE;
    }
    if (m->inflight >= m->inflight_max || conn_output_bytes(m->conn) > OUTPUT_BYTES_MAX / 2 || mqtt_library.want_write(m->client)) {
        m->was_busy = true;
        return E_BUSY;
    }
    int code = publish(m, topic, payload, id);
    if (code != MOSQ_ERR_SUCCESS) {
        check(m, code);
        return E_CLOSED;
    }
    m->unconfirmed[m->inflight].id = *id;
    m->unconfirmed[m->inflight++].sent_ms = loop_now_ms(m->x.loop);
    watch_client(m);
    return E_OK;
}

void mqtt_hold(struct mqtt *m, bool hold) {
    if (m->connected && m->held != hold) {
        m->held = hold;
        watch_client(m);
    }
}

enum grey_error mqtt_subscribe(struct mqtt *m, const char *topic_filter) {
    if (!mqtt_connected(m)) {
        return E_CLOSED;
    }
    int code = mqtt_library.subscribe_v5(m->client, NULL, topic_filter, 1, 0, NULL);
    if (code != MOSQ_ERR_SUCCESS) {
        check(m, code);
        return E_CLOSED;
    }
    watch_client(m);
    return E_OK;
}

struct conn_count mqtt_counted(const struct mqtt *m) {
    struct conn_count c = m->counted;
    if (m->conn != NULL) {
        struct conn_count now = conn_counted(m->conn);
        c.in_bytes += now.in_bytes;
        c.out_bytes += now.out_bytes;
    }
    return c;
}

void mqtt_wired(const struct mqtt *m, struct conn_wire *out) {
    *out = m->wired;
    if (m->conn != NULL) {
        conn_wire_add(out, m->conn);
    }
}

size_t mqtt_unsent_bytes(const struct mqtt *m) {
    int waiting = 0; /* what the library wrote in this turn is pumped in the next one */
    bool counted = m->pump_fd >= 0 && ioctl(m->pump_fd, FIONREAD, &waiting) == 0 && waiting > 0;
    return (m->conn == NULL ? 0 : conn_output_bytes(m->conn)) + (counted ? (size_t)waiting : 0);
}

void mqtt_set_unsent_max(struct mqtt *m, uint32_t bytes) {
    if (m->conn != NULL) {
        conn_set_unsent_max(m->conn, bytes);
    }
}

void mqtt_set_calm(struct mqtt *m, bool calm) {
    if (m->conn != NULL) {
        conn_set_calm(m->conn, calm);
    }
}

void mqtt_gate_open(struct mqtt *m) {
    if (m->conn != NULL) {
        conn_gate_open(m->conn);
    }
}
