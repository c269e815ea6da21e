#include "agent/launch/launchwire.h"

#include <string.h>

#include "platform/codec.h"

/* Items of each kind, the kind included. */
static const uint8_t fields[LAUNCH_KIND_COUNT] = {
    [LAUNCH_START] = 25, [LAUNCH_STOP] = 4,  [LAUNCH_FORGET] = 3, [LAUNCH_LIST] = 1, [LAUNCH_LEASE] = 2,
    [LAUNCH_READ] = 7,   [LAUNCH_STATE] = 7, [LAUNCH_LISTED] = 2, [LAUNCH_PART] = 8, [LAUNCH_MEASURE] = 1,
    [LAUNCH_USE] = 4,    [LAUNCH_STORE] = 5, [LAUNCH_STORED] = 3};

enum { USE_FIELDS = 8, FILE_FIELDS = 5 };

bool launchwire_is_order(enum launch_kind kind) {
    return kind < LAUNCH_STATE || kind == LAUNCH_MEASURE || kind == LAUNCH_STORE;
}

static bool has_run(enum launch_kind kind) {
    return kind != LAUNCH_LIST && kind != LAUNCH_LEASE && kind != LAUNCH_LISTED && kind != LAUNCH_MEASURE && kind != LAUNCH_STORE &&
           kind != LAUNCH_STORED;
}

static void put_use(struct builder *out, const struct launch_use *u) {
    codec_put_array(out, USE_FIELDS);
    codec_put_uint(out, u->cpu_us);
    codec_put_uint(out, u->memory_bytes);
    codec_put_uint(out, u->memory_peak_bytes);
    codec_put_uint(out, u->wall_ms);
    for (unsigned s = 0; s < LAUNCH_STREAM_COUNT; s++) {
        codec_put_uint(out, u->output_bytes[s]);
        codec_put_bytes(out, bytes_of(u->output_hash[s], sizeof u->output_hash[s]));
    }
}

static void get_use(struct codec_reader *r, struct launch_use *u) {
    uint64_t count = codec_array(r, USE_FIELDS);
    u->cpu_us = codec_uint(r, INT64_MAX);
    u->memory_bytes = codec_uint(r, INT64_MAX);
    u->memory_peak_bytes = codec_uint(r, INT64_MAX);
    u->wall_ms = codec_uint(r, INT64_MAX);
    for (unsigned s = 0; s < LAUNCH_STREAM_COUNT; s++) {
        u->output_bytes[s] = codec_uint(r, INT64_MAX);
        codec_fixed(r, u->output_hash[s], sizeof u->output_hash[s]);
    }
    r->err = r->err == E_OK && count != USE_FIELDS ? E_BAD_MESSAGE : r->err;
}

static void put_texts(struct builder *out, const struct launch_texts *t) {
    codec_put_array(out, t->count);
    for (uint32_t i = 0; i < t->count; i++) {
        codec_put_bytes(out, t->at[i]);
    }
}

static void get_texts(struct codec_reader *r, struct launch_texts *t) {
    uint64_t count = codec_array(r, LAUNCHWIRE_TEXTS_MAX);
    for (t->count = 0; t->count < count; t->count++) {
        struct bytes text = codec_bytes(r, LAUNCHWIRE_TEXT_BYTES_MAX);
        if (text.size > 0 && memchr(text.data, 0, text.size) != NULL) {
            r->err = E_BAD_MESSAGE; /* the kernel would cut it there */
        }
        t->at[t->count] = text;
    }
}

static void put_files(struct builder *out, const struct launch_files *files) {
    codec_put_array(out, files->count);
    for (uint32_t i = 0; i < files->count; i++) {
        const struct launch_file *file = &files->at[i];
        codec_put_array(out, FILE_FIELDS);
        codec_put_text(out, file->name);
        codec_put_uint(out, file->source);
        codec_put_bytes(out, file->text);
        codec_put_bytes(out, file->hash);
        codec_put_uint(out, file->mode);
    }
}

/* One component of a path, and none that means another place. */
static bool is_plain(struct bytes name) {
    return grey_name_valid((const char *)name.data, name.size) && name.data[0] != '.';
}

static bool is_path(struct bytes path) {
    return path.size > 0 && path.data[0] == '/' && path.size <= LIMIT_PATH_BYTES && memchr(path.data, 0, path.size) == NULL;
}

static void get_files(struct codec_reader *r, struct launch_files *files) {
    uint64_t count = codec_array(r, LAUNCHWIRE_FILES_MAX);
    for (files->count = 0; r->err == E_OK && files->count < count; files->count++) {
        struct launch_file *file = &files->at[files->count];
        bool well = codec_array(r, FILE_FIELDS) == FILE_FIELDS;
        file->name = codec_text(r, LIMIT_NAME_BYTES);
        file->source = (enum launch_source)codec_uint(r, LAUNCH_SOURCE_COUNT - 1);
        file->text = codec_bytes(r, LAUNCHWIRE_BYTES_MAX);
        file->hash = codec_bytes(r, LAUNCHWIRE_HASH_BYTES);
        file->mode = (uint32_t)codec_uint(r, 0777);
        bool hashed = file->source != LAUNCH_FILE_TEXT;
        well = well && r->err == E_OK && is_plain(file->name) && file->hash.size == (hashed ? LAUNCHWIRE_HASH_BYTES : 0) &&
               (file->source != LAUNCH_FILE_PATH || is_path(file->text));
        r->err = r->err == E_OK && !well ? E_BAD_MESSAGE : r->err;
    }
}

void launchwire_encode(struct builder *out, const struct launch_message *m) {
    codec_put_array(out, fields[m->kind]);
    codec_put_uint(out, m->kind);
    if (has_run(m->kind)) {
        codec_put_uint(out, m->scope);
        codec_put_uint(out, m->token);
    }
    switch (m->kind) {
    case LAUNCH_START:
        codec_put_text(out, m->id);
        put_texts(out, &m->command);
        put_texts(out, &m->env);
        codec_put_bytes(out, m->standard_input);
        codec_put_uint(out, m->cpu_millicores);
        codec_put_uint(out, m->memory_bytes);
        codec_put_bool(out, m->leased);
        codec_put_bool(out, m->again);
        codec_put_uint(out, m->disk_bytes);
        put_texts(out, &m->probe.command);
        codec_put_uint(out, m->probe.delay_ms);
        codec_put_uint(out, m->probe.interval_ms);
        codec_put_uint(out, m->probe.timeout_ms);
        codec_put_uint(out, m->probe.failures);
        codec_put_uint(out, m->io_read_bps);
        codec_put_uint(out, m->io_write_bps);
        codec_put_uint(out, m->isolate);
        codec_put_uint(out, m->stop_signal);
        codec_put_uint(out, m->grace_ms);
        codec_put_text(out, m->image);
        codec_put_bool(out, m->bundle);
        put_files(out, &m->files);
        break;
    case LAUNCH_STOP:
        codec_put_uint(out, m->time_ms);
        break;
    case LAUNCH_LEASE:
        codec_put_uint(out, m->until_ms);
        break;
    case LAUNCH_READ:
        codec_put_uint(out, m->number);
        codec_put_uint(out, m->stream);
        codec_put_uint(out, m->offset);
        codec_put_uint(out, m->size);
        break;
    case LAUNCH_STATE:
        codec_put_uint(out, m->state);
        codec_put_uint(out, m->end);
        codec_put_int(out, m->status);
        put_use(out, &m->use);
        break;
    case LAUNCH_USE:
        put_use(out, &m->use);
        break;
    case LAUNCH_LISTED:
        codec_put_uint(out, m->limits);
        break;
    case LAUNCH_STORE:
        codec_put_bytes(out, m->hash);
        codec_put_uint(out, m->offset);
        codec_put_uint(out, m->end_offset);
        codec_put_bytes(out, m->data);
        break;
    case LAUNCH_STORED:
        codec_put_bytes(out, m->hash);
        codec_put_uint(out, m->stored);
        break;
    case LAUNCH_PART:
        codec_put_uint(out, m->number);
        codec_put_uint(out, m->stream);
        codec_put_uint(out, m->offset);
        codec_put_uint(out, m->end_offset);
        codec_put_bytes(out, m->data);
        break;
    default:
        break;
    }
}

static void get_start(struct codec_reader *r, struct launch_message *m) {
    m->id = codec_text(r, LIMIT_NAME_BYTES);
    get_texts(r, &m->command);
    get_texts(r, &m->env);
    m->standard_input = codec_bytes(r, LAUNCHWIRE_STDIN_BYTES_MAX);
    m->cpu_millicores = (uint32_t)codec_uint(r, UINT32_MAX);
    m->memory_bytes = codec_uint(r, UINT64_MAX);
    m->leased = codec_bool(r);
    m->again = codec_bool(r);
    m->disk_bytes = codec_uint(r, INT64_MAX);
    get_texts(r, &m->probe.command);
    m->probe.delay_ms = (uint32_t)codec_uint(r, LAUNCHWIRE_PROBE_MS_MAX);
    m->probe.interval_ms = (uint32_t)codec_uint(r, LAUNCHWIRE_PROBE_MS_MAX);
    m->probe.timeout_ms = (uint32_t)codec_uint(r, LAUNCHWIRE_PROBE_MS_MAX);
    m->probe.failures = (uint32_t)codec_uint(r, UINT16_MAX);
    m->io_read_bps = codec_uint(r, INT64_MAX);
    m->io_write_bps = codec_uint(r, INT64_MAX);
    m->isolate = (uint32_t)codec_uint(r, LAUNCH_ISOLATE_ALL);
    m->stop_signal = (uint32_t)codec_uint(r, LAUNCHWIRE_SIGNAL_MAX);
    m->grace_ms = (uint32_t)codec_uint(r, LAUNCHWIRE_GRACE_MS_MAX);
    m->image = codec_text(r, LIMIT_PATH_BYTES);
    m->bundle = codec_bool(r);
    get_files(r, &m->files);
    bool well = (m->command.count > 0 ? m->command.at[0].size > 0 : m->image.size > 0) &&
                (m->image.size == 0 || is_path(m->image)) && grey_name_valid((const char *)m->id.data, m->id.size);
    for (uint32_t i = 0; i < m->env.count; i++) {
        const uint8_t *sign = m->env.at[i].size == 0 ? NULL : memchr(m->env.at[i].data, '=', m->env.at[i].size);
        well = well && sign != NULL && sign != m->env.at[i].data;
    }
    r->err = r->err == E_OK && !well ? E_BAD_MESSAGE : r->err;
}

static int32_t get_status(struct codec_reader *r) {
    int64_t status = codec_int(r);
    if (status < INT32_MIN || status > INT32_MAX) {
        r->err = r->err == E_OK ? E_BAD_MESSAGE : r->err;
        return 0;
    }
    return (int32_t)status;
}

enum grey_error launchwire_decode(struct bytes in, struct launch_message *m) {
    struct codec_reader r;
    codec_reader_init(&r, in);
    *m = (struct launch_message){0};
    uint64_t count = codec_array(&r, UINT8_MAX);
    m->kind = (enum launch_kind)codec_uint(&r, LAUNCH_KIND_COUNT - 1);
    if (r.err != E_OK || count != fields[m->kind]) {
        return r.err != E_OK ? r.err : E_BAD_MESSAGE;
    }
    if (has_run(m->kind)) {
        m->scope = codec_uint(&r, UINT64_MAX);
        m->token = codec_uint(&r, UINT64_MAX);
    }
    switch (m->kind) {
    case LAUNCH_START:
        get_start(&r, m);
        break;
    case LAUNCH_STOP:
        m->time_ms = (uint32_t)codec_uint(&r, LAUNCHWIRE_GRACE_MS_MAX);
        break;
    case LAUNCH_LEASE:
        m->until_ms = codec_uint(&r, INT64_MAX);
        break;
    case LAUNCH_READ:
        m->number = codec_uint(&r, UINT64_MAX);
        m->stream = (enum launch_stream)codec_uint(&r, LAUNCH_STREAM_COUNT - 1);
        m->offset = codec_uint(&r, INT64_MAX);
        m->size = (uint32_t)codec_uint(&r, LAUNCHWIRE_PART_BYTES_MAX);
        break;
    case LAUNCH_STATE:
        m->state = (enum launch_state)codec_uint(&r, LAUNCH_STATE_COUNT - 1);
        m->end = (enum launch_end)codec_uint(&r, LAUNCH_END_COUNT - 1);
        m->status = get_status(&r);
        get_use(&r, &m->use);
        break;
    case LAUNCH_USE:
        get_use(&r, &m->use);
        break;
    case LAUNCH_LISTED:
        m->limits = (enum launch_limits)codec_uint(&r, LAUNCH_LIMITS_COUNT - 1);
        break;
    case LAUNCH_STORE:
    case LAUNCH_STORED:
        m->hash = codec_bytes(&r, LAUNCHWIRE_HASH_BYTES);
        if (m->kind == LAUNCH_STORE) {
            m->offset = codec_uint(&r, INT64_MAX);
            m->end_offset = codec_uint(&r, INT64_MAX);
            m->data = codec_bytes(&r, LAUNCHWIRE_PART_BYTES_MAX);
        } else {
            m->stored = (enum launch_stored)codec_uint(&r, LAUNCH_STORED_COUNT - 1);
        }
        r.err = r.err == E_OK && m->hash.size != LAUNCHWIRE_HASH_BYTES ? E_BAD_MESSAGE : r.err;
        break;
    case LAUNCH_PART:
        m->number = codec_uint(&r, UINT64_MAX);
        m->stream = (enum launch_stream)codec_uint(&r, LAUNCH_STREAM_COUNT - 1);
        m->offset = codec_uint(&r, INT64_MAX);
        m->end_offset = codec_uint(&r, INT64_MAX);
        m->data = codec_bytes(&r, LAUNCHWIRE_PART_BYTES_MAX);
        break;
    default:
        break;
    }
    return codec_end(&r);
}
