#include "agent/state/grants.h"

#include <string.h>

#include "federation/origin.h"
#include "platform/codec.h"

enum { OP_GRANT = 0, OP_REVOKE = 1 };
enum { ROW_FIELDS = 5, GRANT_FIELDS = 3, REVOKE_FIELDS = 2 };

/* --- Payloads and rows ------------------------------------------------------------------------------------------------------------- */

static void row_put(struct builder *out, const struct bearer *b) {
    codec_put_array(out, ROW_FIELDS);
    codec_put_uint(out, b->role);
    codec_put_bytes(out, bytes_of(b->hash, sizeof b->hash));
    codec_put_int(out, b->created_ms);
    codec_put_int(out, b->expires_ms);
    codec_put_text(out, bytes_str(b->name));
}

/* The id stands in the key of the row. */
static bool row_read(struct codec_reader *r, struct bytes id, struct bearer *b) {
    *b = (struct bearer){.role = ROLE_NONE};
    uint64_t fields = codec_array(r, ROW_FIELDS);
    b->role = (unsigned)codec_uint(r, ROLE_ADMIN);
    codec_fixed(r, b->hash, sizeof b->hash);
    b->created_ms = codec_int(r);
    b->expires_ms = codec_int(r);
    struct bytes name = codec_text(r, BEARER_NAME_BYTES);
    if (codec_end(r) != E_OK || fields != ROW_FIELDS || b->role == ROLE_NONE || id.size != BEARER_ID_BYTES ||
        !bearer_name_valid(name)) {
        return false;
    }
    memcpy(b->id, id.data, BEARER_ID_BYTES);
    if (name.size > 0) {
        memcpy(b->name, name.data, name.size);
    }
    return true;
}

void payload_grant(struct builder *out, const struct bearer *b) {
    struct builder row;
    builder_init(&row, 512);
    row_put(&row, b);
    codec_put_array(out, GRANT_FIELDS);
    codec_put_uint(out, OP_GRANT);
    codec_put_text(out, bytes_str(b->id));
    codec_put_bytes(out, builder_bytes(&row));
    out->err = out->err == E_OK ? row.err : out->err;
    builder_free(&row);
}

void payload_revoke(struct builder *out, struct bytes id) {
    codec_put_array(out, REVOKE_FIELDS);
    codec_put_uint(out, OP_REVOKE);
    codec_put_text(out, id);
}

/* --- Questions --------------------------------------------------------------------------------------------------------------------- */

static bool row_of(struct bytes key, struct bytes value, struct bearer *out) {
    struct codec_reader r;
    codec_reader_init(&r, value);
    return row_read(&r, key, out);
}

bool grants_find(struct table *t, const char *id, struct bearer *out) {
    struct bytes value;
    return table_get(t, TABLE_TOKEN, bytes_str(id), &value) == TABLE_FOUND && row_of(bytes_str(id), value, out);
}

bool grants_next(struct table *t, const char *after, struct bearer *out) {
    size_t size = strlen(after) < BEARER_ID_BYTES ? strlen(after) : BEARER_ID_BYTES;
    struct bytes key, value;
    raft_index ref;
    return table_after(t, TABLE_TOKEN, bytes_of(after, size), &key, &value, &ref) && row_of(key, value, out);
}

/* --- Applying ---------------------------------------------------------------------------------------------------------------------- */

static enum grey_error grant(struct table *t, struct bytes id, struct bytes row, int64_t now_ms, struct builder *changes,
                             struct fault *f) {
    struct bearer b, other;
    struct bytes value;
    uint32_t count = 0;
    if (!row_of(id, row, &b) || b.expires_ms <= now_ms) {
        return fault_set(f, E_BAD_MESSAGE, "the payload is no token, or one that had expired when it came");
    }
    if (table_get(t, TABLE_TOKEN, id, &value) == TABLE_FOUND) {
        return fault_set(f, E_ID_REUSED, "a token of this name exists; ask for another one");
    }
    for (const char *after = ""; grants_next(t, after, &other); after = other.id) {
        if (other.expires_ms <= now_ms) {
            table_change_delete(changes, TABLE_TOKEN, bytes_str(other.id));
        } else {
            count++;
        }
    }
    if (count >= GRANTS_MAX) {
        return fault_set(f, E_QUOTA, "there are %u tokens, which is the most a site keeps: revoke some", count);
    }
    table_change_put(changes, TABLE_TOKEN, id, row, 0);
    return E_OK;
}

enum grey_error grants_apply(struct table *t, const struct entry *e, int64_t now_ms, struct builder *changes, struct fault *f) {
    struct codec_reader r;
    struct bytes value, row = bytes_of(NULL, 0);
    codec_reader_init(&r, origin_skip(blob_bytes(e->payload), NULL));
    uint64_t fields = codec_array(&r, GRANT_FIELDS);
    uint64_t op = codec_uint(&r, OP_REVOKE);
    struct bytes id = codec_text(&r, BEARER_ID_BYTES);
    if (op == OP_GRANT) {
        row = codec_bytes(&r, 512);
    }
    if (codec_end(&r) != E_OK || fields != (op == OP_GRANT ? GRANT_FIELDS : REVOKE_FIELDS)) {
        return fault_set(f, E_BAD_MESSAGE, "the payload says nothing of a token");
    }
    if (op == OP_GRANT) {
        return grant(t, id, row, now_ms, changes, f);
    }
    if (table_get(t, TABLE_TOKEN, id, &value) != TABLE_FOUND) {
        return fault_set(f, E_NOT_FOUND, "there is no token of this name");
    }
    table_change_delete(changes, TABLE_TOKEN, id);
    return E_OK;
}
