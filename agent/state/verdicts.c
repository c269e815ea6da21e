#include "agent/state/verdicts.h"

#include <string.h>

#include "platform/codec.h"

enum { OP_RESULT = 0, OP_REFUSED = 1, OP_FORGET = 2 };
enum { ROW_FIELDS = 8, ERROR_ID_MAX = 9999 };

/* --- Payloads and rows ------------------------------------------------------------------------------------------------------------- */

static const uint64_t op_fields[] = {[OP_RESULT] = 4, [OP_REFUSED] = 5, [OP_FORGET] = 2};

static void put_op(struct builder *out, unsigned op, const char *node) {
    codec_put_array(out, op_fields[op]);
    codec_put_uint(out, op);
    codec_put_text(out, bytes_str(node));
}

void payload_verdict(struct builder *out, const char *node, raft_id id, struct bytes result) {
    put_op(out, OP_RESULT, node);
    codec_put_uint(out, id);
    codec_put_bytes(out, result);
}

void payload_verdict_refused(struct builder *out, const char *node, raft_id id, enum grey_error why, struct bytes detail) {
    put_op(out, OP_REFUSED, node);
    codec_put_uint(out, id);
    codec_put_uint(out, (uint64_t)error_id(why));
    codec_put_text(out, detail);
}

void payload_verdict_forget(struct builder *out, const char *node) {
    put_op(out, OP_FORGET, node);
}

static void row_put(struct builder *out, const struct verdicts_row *v) {
    codec_put_array(out, ROW_FIELDS);
    codec_put_uint(out, v->id);
    codec_put_bool(out, v->failed);
    codec_put_uint(out, v->since);
    codec_put_uint(out, v->index);
    codec_put_int(out, v->refused_ms);
    codec_put_uint(out, v->number);
    codec_put_text(out, bytes_str(v->detail));
    codec_put_bytes(out, v->result);
}

static bool take_text(struct bytes text, char *out, size_t size) {
    if (text.size >= size || (text.size > 0 && memchr(text.data, 0, text.size) != NULL)) {
        return false;
    }
    if (text.size > 0) {
        memcpy(out, text.data, text.size);
    }
    out[text.size] = 0;
    return true;
}

enum grey_error verdicts_why(uint32_t number) {
    enum grey_error why = error_by_id((int)number);
    return why == E_OK ? E_ATTEST_FORMAT : why;
}

static bool row_read(struct bytes node, struct bytes value, struct verdicts_row *out) {
    struct codec_reader r;
    memset(out, 0, sizeof *out);
    codec_reader_init(&r, value);
    bool well = codec_array(&r, ROW_FIELDS) == ROW_FIELDS && grey_name_valid((const char *)node.data, node.size);
    out->id = codec_uint(&r, UINT64_MAX);
    out->failed = codec_bool(&r);
    out->since = codec_uint(&r, INT64_MAX);
    out->index = codec_uint(&r, INT64_MAX);
    out->refused_ms = codec_int(&r);
    out->number = (uint32_t)codec_uint(&r, ERROR_ID_MAX);
    struct bytes detail = codec_text(&r, EXCHANGE_DETAIL_BYTES);
    out->result = codec_bytes(&r, VERDICT_BYTES_MAX);
    if (codec_end(&r) != E_OK || !well || !take_text(detail, out->detail, sizeof out->detail)) {
        return false;
    }
    memcpy(out->node.text, node.data, node.size);
    return true;
}

/* --- Questions --------------------------------------------------------------------------------------------------------------------- */

bool verdicts_find(struct table *t, const char *node, struct verdicts_row *out) {
    struct bytes value;
    return table_get(t, TABLE_VERDICT, bytes_str(node), &value) == TABLE_FOUND && row_read(bytes_str(node), value, out);
}

bool verdicts_next(struct table *t, const char *after, struct verdicts_row *out) {
    size_t size = strlen(after) < LIMIT_NAME_BYTES ? strlen(after) : LIMIT_NAME_BYTES;
    struct bytes key, value;
    raft_index ref;
    return table_after(t, TABLE_VERDICT, bytes_of(after, size), &key, &value, &ref) && row_read(key, value, out);
}

/* --- Applying ---------------------------------------------------------------------------------------------------------------------- */

static uint32_t count_all(struct table *t) {
    struct verdicts_row v;
    char after[LIMIT_NAME_BYTES + 1] = "";
    uint32_t count = 0;
    while (verdicts_next(t, after, &v)) {
        memcpy(after, v.node.text, sizeof after);
        count++;
    }
    return count;
}

bool verdicts_read(struct bytes payload, struct verdicts_word *out) {
    struct codec_reader r;
    *out = (struct verdicts_word){0};
    codec_reader_init(&r, payload);
    uint64_t fields = codec_array(&r, 5);
    uint64_t op = codec_uint(&r, OP_FORGET);
    out->node = codec_text(&r, LIMIT_NAME_BYTES);
    out->refused = op == OP_REFUSED;
    out->forgets = op == OP_FORGET;
    out->id = out->forgets ? 0 : codec_uint(&r, UINT64_MAX);
    if (op == OP_RESULT) {
        out->result = codec_bytes(&r, VERDICT_BYTES_MAX);
    } else if (out->refused) {
        out->number = (uint32_t)codec_uint(&r, ERROR_ID_MAX);
        out->detail = codec_text(&r, EXCHANGE_DETAIL_BYTES);
    }
    return codec_end(&r) == E_OK && fields == op_fields[op] && grey_name_valid((const char *)out->node.data, out->node.size) &&
           (op != OP_RESULT || out->result.size > 0);
}

/* *next is what was known of this gateway, or new; true: it is well. */
static bool take_word(struct verdicts_row *next, const struct verdicts_word *w, raft_index index, int64_t now_ms) {
    if (w->refused) {
        next->since = next->failed ? next->since : index;
        next->refused_ms = now_ms;
        next->number = w->number;
    } else { /* what was refused stays: whether the result lifts it, each gateway judges */
        next->result = w->result;
    }
    next->failed = w->refused;
    next->index = index;
    return !w->refused || take_text(w->detail, next->detail, sizeof next->detail);
}

enum grey_error verdicts_apply(struct table *t, const struct entry *e, int64_t now_ms, struct builder *changes, struct fault *f) {
    struct verdicts_word w;
    struct verdicts_row next = {0};
    char node[LIMIT_NAME_BYTES + 1] = "";
    if (!verdicts_read(blob_bytes(e->payload), &w)) {
        return fault_set(f, E_BAD_MESSAGE, "the payload is no verdict on a gateway");
    }
    memcpy(node, w.node.data, w.node.size);
    bool known = verdicts_find(t, node, &next);
    if (w.forgets) {
        if (known) {
            table_change_delete(changes, TABLE_VERDICT, w.node);
        }
        return known ? E_OK : fault_set(f, E_NOT_FOUND, "there is no verdict on a gateway of this name");
    }
    if (!known && count_all(t) >= VERDICTS_MAX) {
        return fault_set(f, E_QUOTA, "there are verdicts on %u gateways, which is the most a site keeps", VERDICTS_MAX);
    }
    if (!known || next.id != w.id) { /* what was said of its former self is over */
        next = (struct verdicts_row){.id = w.id};
    }
    if (!take_word(&next, &w, e->index, now_ms)) {
        return fault_set(f, E_BAD_MESSAGE, "the payload is no verdict on a gateway");
    }
    struct builder row;
    builder_init(&row, VERDICT_BYTES_MAX + 512u);
    row_put(&row, &next);
    enum grey_error err = row.err;
    if (err == E_OK) {
        table_change_put(changes, TABLE_VERDICT, w.node, builder_bytes(&row), 0);
    }
    builder_free(&row);
    return err;
}
