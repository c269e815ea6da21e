#include "federation/record.h"

#include "include/grey/limits.h"

enum {
    RECORD_FIELDS = 10,
    FLAG_PROVISIONAL = 1,
    FLAG_HAS_ID = 2,
};

void record_encode(const struct event *e, struct builder *out) {
    codec_put_array(out, RECORD_FIELDS);
    codec_put_text(out, e->id);
    codec_put_text(out, e->source);
    codec_put_text(out, e->type);
    codec_put_text(out, e->subject);
    codec_put_text(out, e->time);
    codec_put_text(out, e->content_type);
    codec_put_text(out, e->traceparent);
    codec_put_uint(out, e->priority);
    codec_put_uint(out, (e->provisional ? FLAG_PROVISIONAL : 0u) | (e->has_id ? FLAG_HAS_ID : 0u));
    codec_put_bytes(out, e->data);
}

enum grey_error record_decode(struct codec_reader *r, struct event *e) {
    *e = (struct event){0};
    uint64_t fields = codec_array(r, RECORD_FIELDS);
    e->id = codec_text(r, LIMIT_EVENT_FIELD_BYTES);
    e->source = codec_text(r, LIMIT_EVENT_FIELD_BYTES);
    e->type = codec_text(r, LIMIT_EVENT_FIELD_BYTES);
    e->subject = codec_text(r, LIMIT_EVENT_FIELD_BYTES);
    e->time = codec_text(r, LIMIT_EVENT_FIELD_BYTES);
    e->content_type = codec_text(r, LIMIT_EVENT_FIELD_BYTES);
    e->traceparent = codec_text(r, LIMIT_EVENT_FIELD_BYTES);
    e->priority = (enum event_priority)codec_uint(r, PRIORITY_COUNT - 1);
    uint64_t flags = codec_uint(r, FLAG_PROVISIONAL | FLAG_HAS_ID);
    e->provisional = (flags & FLAG_PROVISIONAL) != 0;
    e->has_id = (flags & FLAG_HAS_ID) != 0;
    e->data = codec_bytes(r, LIMIT_EVENT_BYTES);
    if (r->err == E_OK && (fields != RECORD_FIELDS || e->id.size == 0 || e->source.size == 0 || e->type.size == 0)) {
        r->err = E_BAD_MESSAGE;
        r->rest = bytes_of(NULL, 0);
    }
    if (r->err != E_OK) {
        *e = (struct event){0};
    }
    return r->err;
}

enum grey_error record_slot(struct bytes batch, uint32_t slot, struct bytes *record) {
    *record = bytes_of(NULL, 0);
    struct codec_reader r;
    codec_reader_init(&r, batch);
    uint64_t count = codec_array(&r, LIMIT_BATCH_EVENTS);
    if (r.err == E_OK && slot >= count) {
        return E_NOT_FOUND;
    }
    struct bytes found = bytes_of(NULL, 0);
    for (uint32_t i = 0; i <= slot && r.err == E_OK; i++) {
        found = codec_skip(&r);
    }
    if (r.err == E_OK) {
        *record = found;
    }
    return r.err;
}
