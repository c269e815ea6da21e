/* The order is an array with fixed positions (docs/FORMATS.md, "Tasks"). */
#include "agent/work/task.h"

#include <string.h>

#include "include/grey/must.h"
#include "include/grey/protocol.h"
#include "platform/codec.h"

enum {
    ORDER_FIELDS = 22,
    ORDER_FIELDS_EXTRA = 23,
    ORDER_FIELDS_BEYOND = 24,
    ORDER_FIELDS_MAX = 25,
    EXTRA_FIELDS = 9,
    BEYOND_FIELDS = 4,
    MORE_FIELDS = 7,
    FILE_FIELDS = 5
};

/* --- Names ---------------------------------------------------------------------------------------------------------------------------- */

static const char *const lane_names[] = {"critical", "high", "normal", "low", "preempt", NULL};
static const char *const state_names[] = {"pending", "queued",    "assigned",  "running", "completed",
                                          "failed",  "cancelled", "preempted", NULL};
static const char *const reason_names[] = {"none",       "exit",      "signal",    "memory",    "start",     "timeout", "node-lost",
                                           "dependency", "preempted", "burst",     "emergency", "cancelled", "stopped", "probe",
                                           "hot-spot",   "disk",      "offloaded", "recalled",  "artifact",  "image",   NULL};
static const char *const restart_names[] = {"never", "on-failure", "always", NULL};
static const char *const missed_names[] = {"skip", "run-once", "run-all", NULL};
static const char *const delivery_names[] = {"at-least-once", "at-most-once", NULL};
static const char *const isolation_names[] = {"stop", "keep", NULL};
static const char *const reconnect_names[] = {"keep-original", "keep-replacement", "best-score", "longest-running", NULL};
static const char *const offload_names[] = {"never", "local", "wait", NULL};
static const char *const signal_names[] = {"TERM", "INT", "HUP", "QUIT", "USR1", "USR2", NULL};
static_assert(sizeof signal_names / sizeof *signal_names == STOP_SIGNAL_COUNT + 1, "a name for each signal");
static_assert(sizeof lane_names / sizeof *lane_names == LANE_COUNT + 1, "a name for each lane");
static_assert(sizeof state_names / sizeof *state_names == TASK_STATE_COUNT + 1, "a name for each state");
static_assert(sizeof reason_names / sizeof *reason_names == REASON_COUNT + 1, "a name for each reason");

static const char *const *const lists[NAMES_COUNT] = {
    [NAMES_LANE] = lane_names,           [NAMES_STATE] = state_names,         [NAMES_REASON] = reason_names,
    [NAMES_RESTART] = restart_names,     [NAMES_MISSED] = missed_names,       [NAMES_DELIVERY] = delivery_names,
    [NAMES_ISOLATION] = isolation_names, [NAMES_RECONNECT] = reconnect_names, [NAMES_OFFLOAD] = offload_names,
    [NAMES_SIGNAL] = signal_names,
};

const char *task_name(enum task_names which, unsigned number) {
    must((unsigned)which < NAMES_COUNT);
    for (unsigned i = 0; lists[which][i] != NULL; i++) {
        if (i == number) {
            return lists[which][i];
        }
    }
    return NULL;
}

bool task_number(enum task_names which, struct bytes name, unsigned *out) {
    must((unsigned)which < NAMES_COUNT);
    *out = 0;
    for (unsigned i = 0; lists[which][i] != NULL; i++) {
        if (bytes_equal_str(name, lists[which][i])) {
            *out = i;
            return true;
        }
    }
    return false;
}

/* --- States --------------------------------------------------------------------------------------------------------------------------- */

#define TO(s) (1u << TASK_##s)

/* Row: from; bits: to.  A task that has ended stays so. */
static const unsigned follows[TASK_STATE_COUNT] = {
    [TASK_PENDING] = TO(QUEUED) | TO(FAILED) | TO(CANCELLED),
    [TASK_QUEUED] = TO(ASSIGNED) | TO(CANCELLED),
    /* back to the queue: its node was lost or gave it to another; completed: so short that it ended before it was seen running */
    [TASK_ASSIGNED] = TO(RUNNING) | TO(COMPLETED) | TO(FAILED) | TO(PENDING) | TO(QUEUED) | TO(CANCELLED) | TO(PREEMPTED),
    [TASK_RUNNING] = TO(COMPLETED) | TO(FAILED) | TO(PENDING) | TO(QUEUED) | TO(CANCELLED) | TO(PREEMPTED),
    /* it may end by itself while it is being stopped */
    [TASK_PREEMPTED] = TO(QUEUED) | TO(COMPLETED) | TO(FAILED) | TO(PENDING) | TO(CANCELLED),
};

bool task_may_follow(enum task_state from, enum task_state to) {
    must((unsigned)from < TASK_STATE_COUNT && (unsigned)to < TASK_STATE_COUNT);
    return (follows[from] & 1u << to) != 0;
}

bool task_ended(enum task_state s) {
    must((unsigned)s < TASK_STATE_COUNT);
    return follows[s] == 0;
}

enum task_lane task_lane_of(uint32_t priority) {
    return priority >= 90   ? LANE_CRITICAL
           : priority >= 70 ? LANE_HIGH
           : priority >= 30 ? LANE_NORMAL
           : priority >= 10 ? LANE_LOW
                            : LANE_PREEMPT;
}

uint64_t task_backoff_ms(uint32_t failures) {
    enum { FIRST_MS = 1000, MOST_MS = 300000, DOUBLINGS = 8 };
    uint64_t ms = (uint64_t)FIRST_MS << (failures == 0 ? 0 : failures - 1 < DOUBLINGS ? failures - 1 : DOUBLINGS + 1);
    return ms < MOST_MS ? ms : MOST_MS;
}

/* --- Orders --------------------------------------------------------------------------------------------------------------------------- */

static void put_texts(struct builder *out, const struct task_texts *t) {
    codec_put_array(out, t->count);
    for (uint32_t i = 0; i < t->count; i++) {
        codec_put_text(out, t->at[i]);
    }
}

static bool has_extras(const struct task_order *o) {
    return o->health.probe != PROBE_NONE || o->disk_bytes > 0;
}

static bool has_beyond(const struct task_order *o) {
    return o->zone.size > 0 || o->offload != OFFLOAD_NEVER;
}

static bool has_more(const struct task_order *o) {
    return o->file_count > 0 || o->bundle || o->io_read_bps > 0 || o->io_write_bps > 0 || o->isolate != 0 || o->stop_grace_ms > 0 ||
           o->stop_signal != STOP_TERM;
}

uint32_t task_level(const struct task_order *o) {
    return has_more(o) || o->oci.size > 0 ? FEATURE_LEVEL_IMAGES
           : has_beyond(o)                ? FEATURE_LEVEL_OFFLOAD
           : has_extras(o)                ? FEATURE_LEVEL_PROOFS
                                          : FEATURE_LEVEL_TASKS;
}

static void put_extras(struct builder *out, const struct task_order *o) {
    codec_put_array(out, EXTRA_FIELDS);
    codec_put_uint(out, o->health.probe);
    put_texts(out, &o->health.command);
    codec_put_uint(out, o->health.port);
    codec_put_text(out, o->health.path);
    codec_put_uint(out, o->health.delay_s);
    codec_put_uint(out, o->health.interval_s);
    codec_put_uint(out, o->health.timeout_s);
    codec_put_uint(out, o->health.failures);
    codec_put_uint(out, o->disk_bytes);
}

static void put_beyond(struct builder *out, const struct task_order *o) {
    codec_put_array(out, BEYOND_FIELDS);
    codec_put_text(out, o->zone);
    codec_put_text(out, o->zone_rule);
    codec_put_uint(out, o->offload);
    codec_put_uint(out, o->offload_patience_s);
}

static void put_more(struct builder *out, const struct task_order *o) {
    codec_put_array(out, MORE_FIELDS);
    codec_put_array(out, o->file_count);
    for (uint32_t i = 0; i < o->file_count; i++) {
        const struct task_file *file = &o->files[i];
        codec_put_array(out, FILE_FIELDS);
        codec_put_text(out, file->name);
        codec_put_uint(out, file->source);
        codec_put_bytes(out, file->text);
        codec_put_bytes(out, file->hash);
        codec_put_uint(out, file->mode);
    }
    codec_put_bool(out, o->bundle);
    codec_put_uint(out, o->io_read_bps);
    codec_put_uint(out, o->io_write_bps);
    codec_put_uint(out, o->isolate);
    codec_put_uint(out, o->stop_grace_ms);
    codec_put_uint(out, o->stop_signal);
}

static uint64_t fields_of(const struct task_order *o) {
    return has_more(o) ? ORDER_FIELDS_MAX : has_beyond(o) ? ORDER_FIELDS_BEYOND : has_extras(o) ? ORDER_FIELDS_EXTRA : ORDER_FIELDS;
}

/* What an order does not use is not written, or is an empty array before what it does. */
static void put_part(struct builder *out, const struct task_order *o, bool has,
                     void (*put)(struct builder *out, const struct task_order *o)) {
    if (has) {
        put(out, o);
    } else {
        codec_put_array(out, 0);
    }
}

void task_encode(struct builder *out, const struct task_order *o) {
    uint64_t fields = fields_of(o);
    codec_put_array(out, fields);
    codec_put_text(out, o->id);
    codec_put_text(out, o->tenant);
    codec_put_text(out, o->name_space);
    codec_put_uint(out, o->lane);
    put_texts(out, &o->command);
    codec_put_text(out, o->oci);
    put_texts(out, &o->env);
    codec_put_bytes(out, o->standard_input);
    codec_put_uint(out, o->cpu_millicores);
    codec_put_uint(out, o->memory_bytes);
    put_texts(out, &o->depends_on);
    codec_put_uint(out, o->timeout_s);
    codec_put_uint(out, o->restart);
    codec_put_uint(out, o->max_retries);
    codec_put_text(out, o->schedule);
    codec_put_uint(out, o->missed);
    codec_put_uint(out, o->missed_max);
    put_texts(out, &o->selectors);
    codec_put_uint(out, o->delivery);
    codec_put_uint(out, o->isolation);
    codec_put_uint(out, o->reconnect);
    codec_put_text(out, o->affinity);
    if (fields >= ORDER_FIELDS_EXTRA) {
        put_part(out, o, has_extras(o), put_extras);
    }
    if (fields >= ORDER_FIELDS_BEYOND) {
        put_part(out, o, has_beyond(o), put_beyond);
    }
    if (fields == ORDER_FIELDS_MAX) {
        put_more(out, o);
    }
}

static void read_texts(struct codec_reader *r, struct task_texts *t, uint32_t count_max, size_t size_max) {
    uint64_t count = codec_array(r, count_max);
    t->count = 0;
    while (r->err == E_OK && t->count < count) {
        t->at[t->count] = codec_text(r, size_max);
        t->count++;
    }
}

static void read_more(struct codec_reader *r, struct task_order *o) {
    uint64_t fields = codec_array(r, MORE_FIELDS), count = codec_array(r, TASK_FILES_MAX);
    bool well = fields == MORE_FIELDS;
    for (o->file_count = 0; r->err == E_OK && o->file_count < count; o->file_count++) {
        struct task_file *file = &o->files[o->file_count];
        well = codec_array(r, FILE_FIELDS) == FILE_FIELDS && well;
        file->name = codec_text(r, LIMIT_NAME_BYTES);
        file->source = (enum task_file_source)codec_uint(r, FILE_SOURCE_COUNT - 1);
        file->text = codec_bytes(r, TASK_ORDER_BYTES_MAX);
        file->hash = codec_bytes(r, TASK_HASH_BYTES);
        file->mode = (uint32_t)codec_uint(r, 0777);
    }
    o->bundle = codec_bool(r);
    o->io_read_bps = codec_uint(r, TASK_IO_BPS_MAX);
    o->io_write_bps = codec_uint(r, TASK_IO_BPS_MAX);
    o->isolate = (uint32_t)codec_uint(r, TASK_ISOLATE_ALL);
    o->stop_grace_ms = (uint32_t)codec_uint(r, TASK_GRACE_MS_MAX);
    o->stop_signal = (enum task_signal)codec_uint(r, STOP_SIGNAL_COUNT - 1);
    if (r->err == E_OK && (!well || !has_more(o))) {
        r->err = E_BAD_MESSAGE;
    }
}

/* may_lack: an empty array stands for none. */
static void read_extras(struct codec_reader *r, struct task_order *o, bool may_lack) {
    uint64_t fields = codec_array(r, EXTRA_FIELDS);
    if (fields == 0 && may_lack) {
        return;
    }
    o->health.probe = (enum task_probe)codec_uint(r, PROBE_COUNT - 1);
    read_texts(r, &o->health.command, TASK_ARGUMENTS_MAX, TASK_TEXT_BYTES_MAX);
    o->health.port = (uint32_t)codec_uint(r, UINT16_MAX);
    o->health.path = codec_text(r, LIMIT_PATH_BYTES);
    o->health.delay_s = (uint32_t)codec_uint(r, TASK_PROBE_S_MAX);
    o->health.interval_s = (uint32_t)codec_uint(r, TASK_PROBE_S_MAX);
    o->health.timeout_s = (uint32_t)codec_uint(r, TASK_PROBE_S_MAX);
    o->health.failures = (uint32_t)codec_uint(r, TASK_PROBE_FAILURES_MAX);
    o->disk_bytes = codec_uint(r, TASK_MEMORY_BYTES_MAX);
    if (r->err == E_OK && (fields != EXTRA_FIELDS || !has_extras(o))) {
        r->err = E_BAD_MESSAGE;
    }
}

static void read_beyond(struct codec_reader *r, struct task_order *o, bool may_lack) {
    uint64_t fields = codec_array(r, BEYOND_FIELDS);
    if (fields == 0 && may_lack) {
        return;
    }
    o->zone = codec_text(r, TASK_ZONE_BYTES_MAX);
    o->zone_rule = codec_text(r, TASK_ZONE_BYTES_MAX);
    o->offload = (enum task_offload)codec_uint(r, OFFLOAD_COUNT - 1);
    o->offload_patience_s = (uint32_t)codec_uint(r, TASK_PATIENCE_S_MAX);
    if (r->err == E_OK && (fields != BEYOND_FIELDS || !has_beyond(o))) {
        r->err = E_BAD_MESSAGE;
    }
}

enum grey_error task_decode(struct bytes in, struct task_order *o, struct fault *f) {
    struct codec_reader r;
    *o = (struct task_order){0};
    codec_reader_init(&r, in);
    uint64_t fields = codec_array(&r, ORDER_FIELDS_MAX);
    o->id = codec_text(&r, LIMIT_NAME_BYTES);
    o->tenant = codec_text(&r, LIMIT_NAME_BYTES);
    o->name_space = codec_text(&r, LIMIT_NAME_BYTES);
    o->lane = (enum task_lane)codec_uint(&r, LANE_COUNT - 1);
    read_texts(&r, &o->command, TASK_ARGUMENTS_MAX, TASK_TEXT_BYTES_MAX);
    o->oci = codec_text(&r, LIMIT_PATH_BYTES);
    read_texts(&r, &o->env, TASK_ARGUMENTS_MAX, TASK_TEXT_BYTES_MAX);
    o->standard_input = codec_bytes(&r, TASK_STDIN_BYTES_MAX);
    o->cpu_millicores = (uint32_t)codec_uint(&r, TASK_CPU_MILLICORES_MAX);
    o->memory_bytes = codec_uint(&r, TASK_MEMORY_BYTES_MAX);
    read_texts(&r, &o->depends_on, TASK_DEPENDENCIES_MAX, LIMIT_NAME_BYTES);
    o->timeout_s = (uint32_t)codec_uint(&r, TASK_TIMEOUT_S_MAX);
    o->restart = (enum task_restart)codec_uint(&r, RESTART_COUNT - 1);
    o->max_retries = (uint32_t)codec_uint(&r, TASK_RETRIES_MAX);
    o->schedule = codec_text(&r, TASK_SCHEDULE_BYTES_MAX);
    o->missed = (enum task_missed)codec_uint(&r, MISSED_COUNT - 1);
    o->missed_max = (uint32_t)codec_uint(&r, TASK_MISSED_MAX);
    read_texts(&r, &o->selectors, TASK_SELECTORS_MAX, 2 * LIMIT_NAME_BYTES + 1);
    o->delivery = (enum task_delivery)codec_uint(&r, DELIVERY_COUNT - 1);
    o->isolation = (enum task_isolation)codec_uint(&r, ISOLATION_COUNT - 1);
    o->reconnect = (enum task_reconnect)codec_uint(&r, RECONNECT_COUNT - 1);
    o->affinity = codec_text(&r, LIMIT_NAME_BYTES);
    if (fields >= ORDER_FIELDS_EXTRA) {
        read_extras(&r, o, fields > ORDER_FIELDS_EXTRA);
    }
    if (fields >= ORDER_FIELDS_BEYOND) {
        read_beyond(&r, o, fields > ORDER_FIELDS_BEYOND);
    }
    if (fields == ORDER_FIELDS_MAX) {
        read_more(&r, o);
    }
    enum grey_error err = codec_end(&r);
    if (err == E_OK && fields < ORDER_FIELDS) {
        err = E_BAD_MESSAGE;
    }
    if (err != E_OK) {
        *o = (struct task_order){0};
        return fault_set(f, err, "the payload holds no task");
    }
    return task_check(o, f) == E_OK ? E_OK : E_BAD_MESSAGE;
}

static bool is_name(struct bytes b) {
    return grey_name_valid((const char *)b.data, b.size);
}

static bool has_zero(struct bytes b) {
    return b.size > 0 && memchr(b.data, 0, b.size) != NULL;
}

static enum grey_error check_texts(const struct task_texts *t, uint32_t count_max, size_t size_max, const char *field,
                                   struct fault *f) {
    if (t->count > count_max) {
        return fault_set(f, E_BAD_REQUEST, "%s has more than %u items", field, count_max);
    }
    for (uint32_t i = 0; i < t->count; i++) {
        if (t->at[i].size > size_max || has_zero(t->at[i])) {
            return fault_set(f, E_BAD_REQUEST, "%s: an item is longer than %zu bytes or holds a zero byte", field, size_max);
        }
    }
    return E_OK;
}

static enum grey_error check_health(const struct task_order *o, struct fault *f) {
    const struct task_health *h = &o->health;
    bool port = h->probe == PROBE_HTTP || h->probe == PROBE_TCP;
    if (h->probe == PROBE_NONE) {
        return E_OK;
    }
    if (h->probe == PROBE_EXEC && (h->command.count == 0 || h->command.at[0].size == 0)) {
        return fault_set(f, E_BAD_REQUEST, "health: exec is a command with its arguments");
    }
    if (port != (h->port > 0) || (h->probe == PROBE_HTTP && (h->path.size == 0 || h->path.data[0] != '/' || has_zero(h->path)))) {
        return fault_set(f, E_BAD_REQUEST, "health: http is {\"port\", \"path\"}, tcp a port");
    }
    if (h->interval_s == 0 || h->timeout_s == 0 || h->failures == 0) {
        return fault_set(f, E_BAD_REQUEST, "health: interval_seconds, timeout_seconds and failures are at least 1");
    }
    return check_texts(&h->command, TASK_ARGUMENTS_MAX, TASK_TEXT_BYTES_MAX, "health", f);
}

static enum grey_error check_file(const struct task_order *o, uint32_t i, struct fault *f) {
    const struct task_file *file = &o->files[i];
    bool hashed = file->source != FILE_TEXT;
    if (!is_name(file->name) || file->name.data[0] == '.') {
        return fault_set(f, E_BAD_REQUEST,
                         "files and artifacts: item %u has no plain name (1 to %u of A-Z a-z 0-9 . _ -, no dot first)", i + 1,
                         LIMIT_NAME_BYTES);
    }
    for (uint32_t k = 0; k < i; k++) {
        if (bytes_equal(file->name, o->files[k].name)) {
            return fault_set(f, E_BAD_REQUEST, "files and artifacts: two are to be %.*s", (int)file->name.size,
                             (const char *)file->name.data);
        }
    }
    bool path = file->text.size > 0 && file->text.data[0] == '/' && file->text.size <= LIMIT_PATH_BYTES && !has_zero(file->text);
    if ((unsigned)file->source >= FILE_SOURCE_COUNT || (file->source == FILE_PATH && !path) ||
        (file->source == FILE_OBJECT && !is_name(file->text)) || file->hash.size != (hashed ? TASK_HASH_BYTES : 0) ||
        file->mode > 0777) {
        return fault_set(f, E_BAD_REQUEST,
                         "artifact %.*s: has a sha256 and either an absolute path or the name of an object; a mode is up to 0777",
                         (int)file->name.size, (const char *)file->name.data);
    }
    return E_OK;
}

/* What came with FEATURE_LEVEL_IMAGES. */
static enum grey_error check_more(const struct task_order *o, struct fault *f) {
    enum grey_error err =
        o->file_count > TASK_FILES_MAX ? fault_set(f, E_BAD_REQUEST, "files and artifacts are %u at most", TASK_FILES_MAX) : E_OK;
    for (uint32_t i = 0; err == E_OK && i < o->file_count; i++) {
        err = check_file(o, i, f);
    }
    if (err != E_OK) {
        return err;
    }
    if ((o->io_read_bps > 0 && (o->io_read_bps < TASK_IO_BPS_MIN || o->io_read_bps > TASK_IO_BPS_MAX)) ||
        (o->io_write_bps > 0 && (o->io_write_bps < TASK_IO_BPS_MIN || o->io_write_bps > TASK_IO_BPS_MAX))) {
        return fault_set(f, E_BAD_REQUEST, "resources: io_read_bps and io_write_bps are at least %u", TASK_IO_BPS_MIN);
    }
    if (o->stop_grace_ms > TASK_GRACE_MS_MAX || (unsigned)o->stop_signal >= STOP_SIGNAL_COUNT || o->isolate > TASK_ISOLATE_ALL) {
        return fault_set(f, E_BAD_REQUEST, "stop_grace_ms is up to %u", TASK_GRACE_MS_MAX);
    }
    return o->bundle && o->oci.size == 0 ? fault_set(f, E_BAD_REQUEST, "oci: a bundle has a path") : E_OK;
}

/* Two names with an '=' between. */
static bool is_label(struct bytes b) {
    const uint8_t *equals = b.size == 0 ? NULL : memchr(b.data, '=', b.size);
    if (equals == NULL) {
        return false;
    }
    size_t size = (size_t)(equals - b.data);
    return is_name(bytes_of(b.data, size)) && is_name(bytes_of(equals + 1, b.size - size - 1));
}

static enum grey_error check_lists(const struct task_order *o, struct fault *f) {
    enum grey_error err = check_texts(&o->command, TASK_ARGUMENTS_MAX, TASK_TEXT_BYTES_MAX, "command", f);
    err = err == E_OK ? check_texts(&o->env, TASK_ARGUMENTS_MAX, TASK_TEXT_BYTES_MAX, "env", f) : err;
    err = err == E_OK ? check_texts(&o->depends_on, TASK_DEPENDENCIES_MAX, LIMIT_NAME_BYTES, "depends_on", f) : err;
    err = err == E_OK ? check_texts(&o->selectors, TASK_SELECTORS_MAX, 2 * LIMIT_NAME_BYTES + 1, "node_selector", f) : err;
    err = err == E_OK ? check_health(o, f) : err;
    err = err == E_OK ? check_more(o, f) : err;
    if (err != E_OK) {
        return err;
    }
    for (uint32_t i = 0; i < o->env.count; i++) {
        const uint8_t *equals = o->env.at[i].size == 0 ? NULL : memchr(o->env.at[i].data, '=', o->env.at[i].size);
        if (equals == NULL || equals == o->env.at[i].data) {
            return fault_set(f, E_BAD_REQUEST, "env: \"%.*s\" is not NAME=VALUE",
                             (int)(o->env.at[i].size > 60 ? 60 : o->env.at[i].size), (const char *)o->env.at[i].data);
        }
    }
    for (uint32_t i = 0; i < o->depends_on.count; i++) {
        if (!is_name(o->depends_on.at[i])) {
            return fault_set(f, E_BAD_REQUEST, "depends_on: item %u is no task's id", i + 1);
        }
        for (uint32_t k = 0; k < i; k++) {
            if (bytes_equal(o->depends_on.at[i], o->depends_on.at[k])) {
                return fault_set(f, E_BAD_REQUEST, "depends_on names %.*s twice", (int)o->depends_on.at[i].size,
                                 (const char *)o->depends_on.at[i].data);
            }
        }
    }
    for (uint32_t i = 0; i < o->selectors.count; i++) {
        if (!is_label(o->selectors.at[i])) {
            return fault_set(f, E_BAD_REQUEST, "node_selector: item %u is not a label and its value", i + 1);
        }
    }
    return E_OK;
}

static enum grey_error check_beyond(const struct task_order *o, struct fault *f) {
    if (o->zone.size > TASK_ZONE_BYTES_MAX || o->zone_rule.size > TASK_ZONE_BYTES_MAX ||
        (o->zone.size == 0 && o->zone_rule.size > 0)) {
        return fault_set(f, E_BAD_REQUEST, "time_zone has at most %u bytes", TASK_ZONE_BYTES_MAX);
    }
    if (o->zone.size > 0 && o->schedule.size == 0) {
        return fault_set(f, E_BAD_REQUEST, "time_zone belongs to a schedule");
    }
    if (o->offload_patience_s > TASK_PATIENCE_S_MAX || (o->offload != OFFLOAD_LOCAL && o->offload_patience_s > 0)) {
        return fault_set(f, E_BAD_REQUEST, "offload_patience_seconds is up to %u, and goes with offload: local",
                         TASK_PATIENCE_S_MAX);
    }
    if (o->offload == OFFLOAD_NEVER) {
        return E_OK;
    }
    if (o->delivery == DELIVERY_AT_MOST_ONCE && o->offload == OFFLOAD_LOCAL) {
        return fault_set(f, E_BAD_REQUEST, "a task that runs at most once cannot come back from the core (offload: local)");
    }
    if (o->restart == RESTART_ALWAYS || o->schedule.size > 0 || o->selectors.count > 0 || o->affinity.size > 0 ||
        o->health.probe != PROBE_NONE) {
        return fault_set(
            f, E_BAD_REQUEST,
            "a task that may leave the site (offload) runs once to its end, anywhere: it has no schedule, restart: always, "
            "node_selector, affinity or health");
    }
    if (o->oci.size > 0 || o->file_count > 0 || o->isolate != 0) {
        return fault_set(
            f, E_BAD_REQUEST,
            "a task that may leave the site (offload) brings what it needs in its command, env and stdin: it has no oci, files, "
            "artifacts or isolate");
    }
    return E_OK;
}

enum grey_error task_check(const struct task_order *o, struct fault *f) {
    if (!is_name(o->id) || !is_name(o->tenant) || (o->name_space.size > 0 && !is_name(o->name_space)) ||
        (o->affinity.size > 0 && !is_name(o->affinity))) {
        return fault_set(f, E_BAD_REQUEST, "id, tenant, namespace and node are names: 1 to %u of A-Z a-z 0-9 . _ -",
                         LIMIT_NAME_BYTES);
    }
    if ((unsigned)o->lane >= LANE_COUNT || (unsigned)o->restart >= RESTART_COUNT || (unsigned)o->missed >= MISSED_COUNT ||
        (unsigned)o->delivery >= DELIVERY_COUNT || (unsigned)o->isolation >= ISOLATION_COUNT ||
        (unsigned)o->reconnect >= RECONNECT_COUNT || (unsigned)o->offload >= OFFLOAD_COUNT) {
        return fault_set(f, E_BAD_REQUEST, "a choice of the task is none of those there are");
    }
    if (o->command.count == 0 && o->oci.size == 0) {
        return fault_set(f, E_BAD_REQUEST, "a task wants a command, an image or both");
    }
    if (o->oci.size > LIMIT_PATH_BYTES || has_zero(o->oci) || o->standard_input.size > TASK_STDIN_BYTES_MAX) {
        return fault_set(f, E_BAD_REQUEST, "oci takes %u bytes, stdin %u", LIMIT_PATH_BYTES, TASK_STDIN_BYTES_MAX);
    }
    if (o->cpu_millicores < 1 || o->cpu_millicores > TASK_CPU_MILLICORES_MAX || o->memory_bytes < TASK_MEMORY_BYTES_MIN ||
        o->memory_bytes > TASK_MEMORY_BYTES_MAX) {
        return fault_set(f, E_BAD_REQUEST, "resources: cpu_millicores is 1 to %u, memory_bytes %u to %llu", TASK_CPU_MILLICORES_MAX,
                         TASK_MEMORY_BYTES_MIN, (unsigned long long)TASK_MEMORY_BYTES_MAX);
    }
    if (o->timeout_s > TASK_TIMEOUT_S_MAX || o->max_retries > TASK_RETRIES_MAX || o->missed_max < 1 ||
        o->missed_max > TASK_MISSED_MAX || o->schedule.size > TASK_SCHEDULE_BYTES_MAX) {
        return fault_set(f, E_BAD_REQUEST, "timeout_seconds is up to %u, max_retries up to %u, missed_max 1 to %u",
                         TASK_TIMEOUT_S_MAX, TASK_RETRIES_MAX, TASK_MISSED_MAX);
    }
    if (o->delivery == DELIVERY_AT_MOST_ONCE && (o->restart != RESTART_NEVER || o->max_retries > 0)) {
        return fault_set(f, E_BAD_REQUEST, "a task that runs at most once cannot be restarted or tried again");
    }
    if (o->delivery == DELIVERY_AT_MOST_ONCE && o->isolation == ISOLATION_KEEP) {
        return fault_set(f, E_BAD_REQUEST,
                         "a task that runs at most once cannot go on while its node is cut off (on_isolation: keep)");
    }
    if (o->schedule.size > 0 && (o->restart == RESTART_ALWAYS || o->depends_on.count > 0)) {
        return fault_set(f, E_BAD_REQUEST, "a scheduled task neither restarts always nor depends on others");
    }
    enum grey_error err = check_beyond(o, f);
    return err == E_OK ? check_lists(o, f) : err;
}
