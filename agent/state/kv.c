#include "agent/state/kv.h"

#include <inttypes.h>
#include <string.h>

#include "agent/state/state.h"
#include "federation/origin.h"
#include "platform/codec.h"

enum { PAYLOAD_FIELDS = 6, OP_PUT = 0, OP_DELETE = 1, ROW_HEAD_BYTES = 12, META_BYTES = 16 };

struct request {
    bool is_delete;
    struct bytes key, content_type, value;
    enum kv_condition condition;
    raft_index version;
};

static struct bytes meta_key(void) {
    return bytes_str("kv");
}

/* --- Payloads and rows ------------------------------------------------------------------------------------------------------------- */

void payload_kv(struct builder *out, bool is_delete, struct bytes key, enum kv_condition c, raft_index version,
                struct bytes content_type, struct bytes value) {
    codec_put_array(out, PAYLOAD_FIELDS);
    codec_put_uint(out, is_delete ? OP_DELETE : OP_PUT);
    codec_put_bytes(out, key);
    codec_put_uint(out, c);
    codec_put_uint(out, c == KV_IF_VERSION ? version : 0);
    codec_put_text(out, is_delete ? bytes_of(NULL, 0) : content_type);
    codec_put_bytes(out, is_delete ? bytes_of(NULL, 0) : value);
}

static enum grey_error request_decode(struct bytes payload, struct request *q) {
    struct codec_reader r;
    codec_reader_init(&r, origin_skip(payload, NULL));
    uint64_t fields = codec_array(&r, PAYLOAD_FIELDS);
    q->is_delete = codec_uint(&r, OP_DELETE) == OP_DELETE;
    q->key = codec_bytes(&r, LIMIT_KEY_BYTES);
    q->condition = (enum kv_condition)codec_uint(&r, KV_IF_ABSENT);
    q->version = codec_uint(&r, UINT64_MAX);
    q->content_type = codec_text(&r, LIMIT_EVENT_FIELD_BYTES);
    q->value = codec_bytes(&r, LIMIT_VALUE_BYTES);
    enum grey_error err = codec_end(&r);
    if (err == E_OK && (fields != PAYLOAD_FIELDS || q->key.size == 0 || (q->is_delete && q->value.size > 0))) {
        err = E_BAD_MESSAGE;
    }
    if (err != E_OK) {
        *q = (struct request){0};
    }
    return err;
}

bool payload_kv_value(struct bytes payload, struct bytes *content_type, struct bytes *value) {
    struct request q;
    bool ok = request_decode(payload, &q) == E_OK && !q.is_delete;
    *content_type = ok ? q.content_type : bytes_of(NULL, 0);
    *value = ok ? q.value : bytes_of(NULL, 0);
    return ok;
}

struct bytes payload_kv_key(struct bytes payload) {
    struct request q;
    return request_decode(payload, &q) == E_OK ? q.key : bytes_of(NULL, 0);
}

bool payload_kv_deletes(const struct entry *e, struct bytes key) {
    struct request q;
    return e->kind == ENTRY_KV && request_decode(blob_bytes(e->payload), &q) == E_OK && q.is_delete && bytes_equal(q.key, key);
}

enum grey_error state_kv_row(struct bytes value, struct kv_row *out) {
    if (value.size < ROW_HEAD_BYTES) {
        *out = (struct kv_row){0};
        return E_CORRUPT;
    }
    out->version = bytes_get_be64(value.data);
    out->value_bytes = bytes_get_be32(value.data + 8);
    out->content_type = bytes_of(value.data + ROW_HEAD_BYTES, value.size - ROW_HEAD_BYTES);
    return E_OK;
}

static void answer_add(struct builder *answer, raft_index version, bool existed) {
    if (answer != NULL) {
        codec_put_array(answer, 2);
        codec_put_uint(answer, version);
        codec_put_bool(answer, existed);
    }
}

bool answer_kv(struct bytes answer, raft_index *version, bool *existed) {
    struct codec_reader r;
    codec_reader_init(&r, answer);
    uint64_t fields = codec_array(&r, 2);
    *version = codec_uint(&r, UINT64_MAX);
    *existed = codec_bool(&r);
    return codec_end(&r) == E_OK && fields == 2;
}

/* --- Applying ---------------------------------------------------------------------------------------------------------------------- */

enum grey_error kv_load(struct kv *k, struct table *t, struct fault *f) {
    *k = (struct kv){0};
    struct bytes value;
    if (table_get(t, TABLE_META, meta_key(), &value) != TABLE_FOUND) {
        return E_OK;
    }
    if (value.size != META_BYTES) {
        return fault_set(f, E_CORRUPT, "row \"kv\" of the state is not one");
    }
    k->count = bytes_get_be64(value.data);
    k->bytes = bytes_get_be64(value.data + 8);
    return E_OK;
}

void kv_wants(struct bytes payload, void (*want)(void *context, enum table_id id, struct bytes key), void *context) {
    struct request q;
    if (request_decode(payload, &q) == E_OK) {
        want(context, TABLE_KV, q.key);
    }
}

static enum grey_error condition_check(const struct request *q, bool exists, raft_index version, struct fault *f) {
    if (q->condition == KV_IF_ABSENT && exists) {
        return fault_set(f, E_CONDITION, "the key exists, with version %" PRIu64, version);
    }
    if (q->condition == KV_IF_VERSION && !exists) {
        return fault_set(f, E_CONDITION, "the key does not exist");
    }
    if (q->condition == KV_IF_VERSION && q->version != version) {
        return fault_set(f, E_CONDITION, "the key has version %" PRIu64 ", not %" PRIu64, version, q->version);
    }
    if (q->is_delete && !exists) {
        return fault_set(f, E_NOT_FOUND, "the key does not exist");
    }
    return E_OK;
}

enum grey_error kv_apply(struct kv *k, struct table *t, const struct entry *e, struct builder *changes, struct builder *answer,
                         struct fault *f) {
    struct request q;
    enum grey_error err = request_decode(blob_bytes(e->payload), &q);
    if (err != E_OK) {
        return fault_set(f, err, "the payload is no request for a key");
    }
    struct bytes old_value;
    enum table_found found = table_get(t, TABLE_KV, q.key, &old_value);
    if (found == TABLE_UNKNOWN) {
        return fault_set(f, E_BUG, "the row of the key was not loaded");
    }
    bool exists = found == TABLE_FOUND;
    struct kv_row old = {0};
    if (exists && state_kv_row(old_value, &old) != E_OK) {
        return fault_set(f, E_CORRUPT, "the row of the key is damaged");
    }
    err = condition_check(&q, exists, old.version, f);
    if (err != E_OK) {
        return err;
    }
    uint64_t old_bytes = exists ? q.key.size + old.value_bytes : 0;
    uint64_t new_bytes = q.is_delete ? 0 : q.key.size + q.value.size;
    k->count = k->count - (exists ? 1 : 0) + (q.is_delete ? 0 : 1);
    k->bytes = k->bytes - old_bytes + new_bytes;
    if (!exists && k->count > LIMIT_KEYS) {
        return fault_set(f, E_KV_FULL, "the site holds %" PRIu64 " keys, which is the most it keeps", k->count - 1);
    }
    if (new_bytes > old_bytes && k->bytes > LIMIT_KEYS_BYTES) {
        return fault_set(f, E_KV_FULL, "keys and values would take %" PRIu64 " bytes; the site keeps %" PRIu64, k->bytes,
                         (uint64_t)LIMIT_KEYS_BYTES);
    }
    if (q.is_delete) {
        table_change_delete(changes, TABLE_KV, q.key);
        answer_add(answer, old.version, true);
    } else {
        uint8_t row[ROW_HEAD_BYTES + LIMIT_EVENT_FIELD_BYTES];
        bytes_put_be64(row, e->index);
        bytes_put_be32(row + 8, (uint32_t)q.value.size);
        if (q.content_type.size > 0) {
            memcpy(row + ROW_HEAD_BYTES, q.content_type.data, q.content_type.size);
        }
        table_change_put(changes, TABLE_KV, q.key, bytes_of(row, ROW_HEAD_BYTES + q.content_type.size), e->index);
        answer_add(answer, e->index, exists);
    }
    uint8_t meta[META_BYTES];
    bytes_put_be64(meta, k->count);
    bytes_put_be64(meta + 8, k->bytes);
    table_change_put(changes, TABLE_META, meta_key(), bytes_of(meta, sizeof meta), 0);
    return E_OK;
}
