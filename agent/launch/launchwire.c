#include "agent/launch/launchwire.h"

#include <string.h>

#include "platform/codec.h"

/* Items of each kind, the kind included. */
static const uint8_t fields[LAUNCH_KIND_COUNT] = {
    [LAUNCH_START] = 10, [LAUNCH_STOP] = 4,  [LAUNCH_FORGET] = 3, [LAUNCH_LIST] = 1, [LAUNCH_LEASE] = 2,
    [LAUNCH_READ] = 7,   [LAUNCH_STATE] = 6, [LAUNCH_LISTED] = 2, [LAUNCH_PART] = 8};

static bool has_run(enum launch_kind kind) {
    return kind != LAUNCH_LIST && kind != LAUNCH_LEASE && kind != LAUNCH_LISTED;
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
        break;
    case LAUNCH_LISTED:
        codec_put_uint(out, m->limits);
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
    bool well = m->command.count > 0 && m->command.at[0].size > 0 && grey_name_valid((const char *)m->id.data, m->id.size);
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
        break;
    case LAUNCH_LISTED:
        m->limits = (enum launch_limits)codec_uint(&r, LAUNCH_LIMITS_COUNT - 1);
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
