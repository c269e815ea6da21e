#include "federation/message.h"

#include <string.h>

#include "federation/raft/entries.h"
#include "include/grey/limits.h"
#include "include/grey/must.h"

/* An append may carry several megabytes in many small entries; more would not fit what a link reassembles. */
#define ENTRIES_MAX 16384u
#define DETAIL_BYTES_MAX 240u
#define ANSWER_BYTES_MAX (64u * 1024u)

/* Raft messages: [kind, raft kind, from, to, term, index, log term, hint, commit, round, flags, extra].  extra is null except for
 * APPEND: [hash, last hash, [[term, epoch, time, kind, schema, payload] ...]], where an entry for a witness is [..., schema, size,
 * digest]; and SNAPSHOT: [index, term, time, hash], to a witness [index, term, time, hash, members index, members]. */
#define RAFT_FLAG_REFUSED 1u
#define RAFT_FLAG_TRANSFER 2u
#define RAFT_FLAG_HEADERS 4u
#define RAFT_FLAGS_MAX 7u
#define MEND_FLAG_SAME 1u
#define MEND_FLAG_WHOLE 2u
#define JOIN_FLAG_WITNESS 1u
#define MEMBERS_BYTES_MAX (LIMIT_MEMBERS * 1024u)

static void encode_entries(const struct entry *entries, uint32_t count, bool headers, struct builder *out) {
    codec_put_array(out, count);
    for (uint32_t i = 0; i < count; i++) {
        struct entry copy = entries[i], *e = &copy;
        if (headers) {
            entry_strip(e);
        }
        codec_put_array(out, e->stripped_bytes > 0 ? 7 : 6);
        codec_put_uint(out, e->term);
        codec_put_uint(out, e->epoch);
        codec_put_int(out, e->time_ms);
        codec_put_uint(out, e->kind);
        codec_put_uint(out, e->schema);
        if (e->stripped_bytes > 0) {
            codec_put_uint(out, e->stripped_bytes);
            codec_put_bytes(out, bytes_of(e->digest, DIGEST_BYTES));
        } else {
            codec_put_bytes(out, blob_bytes(e->payload));
        }
    }
}

static void encode_members(const struct raft_members *m, struct builder *out) {
    struct builder text;
    builder_init(&text, MEMBERS_BYTES_MAX);
    raft_members_encode(m, &text);
    if (text.err != E_OK) {
        out->err = text.err;
    }
    codec_put_bytes(out, builder_bytes(&text));
    builder_free(&text);
}

static void encode_raft(const struct raft_message *m, struct builder *out) {
    codec_put_array(out, 12);
    codec_put_uint(out, MESSAGE_RAFT);
    codec_put_uint(out, (uint64_t)m->kind);
    codec_put_uint(out, m->from);
    codec_put_uint(out, m->to);
    codec_put_uint(out, m->term);
    codec_put_uint(out, m->index);
    codec_put_uint(out, m->log_term);
    codec_put_uint(out, m->hint_index);
    codec_put_uint(out, m->commit_index);
    codec_put_uint(out, m->round);
    codec_put_uint(out, (m->refused ? RAFT_FLAG_REFUSED : 0u) | (m->transfer ? RAFT_FLAG_TRANSFER : 0u) |
                            (m->headers ? RAFT_FLAG_HEADERS : 0u));
    if (m->kind == RAFT_APPEND) {
        codec_put_array(out, 3);
        codec_put_bytes(out, bytes_of(m->hash, DIGEST_BYTES));
        codec_put_bytes(out, bytes_of(m->last_hash, DIGEST_BYTES));
        encode_entries(m->entries, m->entry_count, m->headers, out);
    } else if (m->kind == RAFT_SNAPSHOT) {
        codec_put_array(out, m->members != NULL ? 6 : 4);
        codec_put_uint(out, m->point.index);
        codec_put_uint(out, m->point.term);
        codec_put_int(out, m->point.time_ms);
        codec_put_bytes(out, bytes_of(m->point.hash, DIGEST_BYTES));
        if (m->members != NULL) {
            codec_put_uint(out, m->members_index);
            encode_members(m->members, out);
        }
    } else {
        codec_put_null(out);
    }
}

static void head(struct builder *out, enum message_kind kind, unsigned fields) {
    codec_put_array(out, 1u + fields);
    codec_put_uint(out, (uint64_t)kind);
}

static void encode_mend_rows(const struct message_mend_rows *p, struct builder *out) {
    head(out, MESSAGE_MEND_ROWS, 6);
    codec_put_uint(out, p->from);
    codec_put_uint(out, p->to);
    codec_put_uint(out, p->anchor);
    codec_put_uint(out, p->certain);
    codec_put_uint(out, (p->same ? MEND_FLAG_SAME : 0u) | (p->whole ? MEND_FLAG_WHOLE : 0u));
    codec_put_array(out, p->entry_count);
    for (uint32_t i = 0; i < p->entry_count; i++) {
        const struct entry *e = &p->entries[i];
        codec_put_array(out, 7);
        codec_put_uint(out, e->index);
        codec_put_uint(out, e->term);
        codec_put_uint(out, e->epoch);
        codec_put_int(out, e->time_ms);
        codec_put_uint(out, e->kind);
        codec_put_uint(out, e->schema);
        codec_put_bytes(out, blob_bytes(e->payload));
    }
}

void message_encode(const struct message *m, struct builder *out) {
    switch (m->kind) {
    case MESSAGE_HELLO: {
        const struct message_hello *h = &m->u.hello;
        head(out, m->kind, 8);
        codec_put_uint(out, h->feature_level);
        codec_put_uint(out, h->cluster_id);
        codec_put_uint(out, h->id);
        codec_put_uint(out, h->start_count);
        codec_put_text(out, h->site);
        codec_put_text(out, h->node);
        codec_put_text(out, h->peer_address);
        codec_put_text(out, h->http_address);
        return;
    }
    case MESSAGE_RAFT:
        encode_raft(&m->u.raft, out);
        return;
    case MESSAGE_FORWARD: {
        const struct message_forward *f = &m->u.forward;
        head(out, m->kind, 5);
        codec_put_uint(out, f->request);
        codec_put_uint(out, f->kind);
        codec_put_uint(out, f->schema);
        codec_put_bool(out, f->urgent);
        codec_put_bytes(out, f->payload);
        return;
    }
    case MESSAGE_FORWARD_REPLY: {
        const struct message_forward_reply *f = &m->u.forward_reply;
        head(out, m->kind, 6);
        codec_put_uint(out, f->request);
        codec_put_uint(out, (uint64_t)f->err);
        codec_put_text(out, f->detail);
        codec_put_uint(out, f->index);
        codec_put_uint(out, f->epoch);
        codec_put_bytes(out, f->answer);
        return;
    }
    case MESSAGE_JOIN: {
        const struct message_join *j = &m->u.join;
        head(out, m->kind, 6);
        codec_put_uint(out, j->id);
        codec_put_text(out, j->node);
        codec_put_text(out, j->peer_address);
        codec_put_text(out, j->http_address);
        codec_put_uint(out, j->witness ? JOIN_FLAG_WITNESS : 0u);
        codec_put_bytes(out, j->sign_key);
        return;
    }
    case MESSAGE_JOIN_REPLY: {
        const struct message_join_reply *j = &m->u.join_reply;
        head(out, m->kind, 4);
        codec_put_uint(out, (uint64_t)j->err);
        codec_put_text(out, j->detail);
        codec_put_text(out, j->leader_address);
        codec_put_uint(out, j->epoch);
        return;
    }
    case MESSAGE_STATE_HASH:
        head(out, m->kind, 2);
        codec_put_uint(out, m->u.state_hash.index);
        codec_put_bytes(out, bytes_of(m->u.state_hash.hash, DIGEST_BYTES));
        return;
    case MESSAGE_SEAL: {
        const struct seal *s = &m->u.seal;
        head(out, m->kind, 5);
        codec_put_uint(out, s->index);
        codec_put_uint(out, s->epoch);
        codec_put_uint(out, s->signer);
        codec_put_bytes(out, bytes_of(s->hash, sizeof s->hash));
        codec_put_bytes(out, bytes_of(s->signature, sizeof s->signature));
        return;
    }
    case MESSAGE_CLOCK:
        head(out, m->kind, 2);
        codec_put_bool(out, m->u.clock.is_answer);
        codec_put_int(out, m->u.clock.time_ms);
        return;
    case MESSAGE_REACH_ASK:
        head(out, m->kind, 1);
        codec_put_uint(out, m->u.reach.number);
        return;
    case MESSAGE_REACH:
        head(out, m->kind, 2);
        codec_put_uint(out, m->u.reach.number);
        codec_put_bool(out, m->u.reach.reaches);
        return;
    case MESSAGE_LINK_ASK:
        head(out, m->kind, 1);
        codec_put_uint(out, m->u.link.number);
        return;
    case MESSAGE_LINK:
        head(out, m->kind, 2);
        codec_put_uint(out, m->u.link.number);
        codec_put_text(out, m->u.link.json);
        return;
    case MESSAGE_SNAPSHOT_FETCH: {
        const struct message_snapshot_fetch *f = &m->u.snapshot_fetch;
        head(out, m->kind, 3);
        codec_put_uint(out, f->index);
        codec_put_uint(out, f->offset);
        codec_put_uint(out, f->bytes_max);
        return;
    }
    case MESSAGE_SNAPSHOT_CHUNK: {
        const struct message_snapshot_chunk *c = &m->u.snapshot_chunk;
        head(out, m->kind, 5);
        codec_put_uint(out, c->index);
        codec_put_uint(out, c->offset);
        codec_put_uint(out, c->total_bytes);
        codec_put_uint(out, (uint64_t)c->err);
        codec_put_bytes(out, c->chunk);
        return;
    }
    case MESSAGE_PAYLOAD_FETCH: {
        const struct message_payload_fetch *f = &m->u.payload_fetch;
        head(out, m->kind, 3);
        codec_put_uint(out, f->from);
        codec_put_uint(out, f->to);
        codec_put_uint(out, f->bytes_max);
        return;
    }
    case MESSAGE_PAYLOADS: {
        const struct message_payloads *p = &m->u.payloads;
        head(out, m->kind, 4);
        codec_put_uint(out, p->from);
        codec_put_bool(out, p->more);
        codec_put_uint(out, (uint64_t)p->err);
        codec_put_array(out, p->entry_count);
        for (uint32_t i = 0; i < p->entry_count; i++) {
            codec_put_array(out, 2);
            codec_put_uint(out, p->entries[i].index);
            codec_put_bytes(out, blob_bytes(p->entries[i].payload));
        }
        return;
    }
    case MESSAGE_OUTPUT_FETCH: {
        const struct message_output_fetch *f = &m->u.output_fetch;
        head(out, m->kind, 5);
        codec_put_uint(out, f->request);
        codec_put_uint(out, f->token);
        codec_put_uint(out, f->stream);
        codec_put_uint(out, f->offset);
        codec_put_uint(out, f->bytes_max);
        return;
    }
    case MESSAGE_OUTPUT: {
        const struct message_output *o = &m->u.output;
        head(out, m->kind, 5);
        codec_put_uint(out, o->request);
        codec_put_uint(out, (uint64_t)o->err);
        codec_put_uint(out, o->offset);
        codec_put_uint(out, o->end_offset);
        codec_put_bytes(out, o->data);
        return;
    }
    case MESSAGE_ATTEST:
        head(out, m->kind, 3);
        codec_put_text(out, m->u.attest.node);
        codec_put_uint(out, m->u.attest.word);
        codec_put_bytes(out, m->u.attest.body);
        return;
    case MESSAGE_MEND_FETCH: {
        const struct message_mend_fetch *f = &m->u.mend_fetch;
        head(out, m->kind, 5);
        codec_put_uint(out, f->from);
        codec_put_uint(out, f->to);
        codec_put_uint(out, f->anchor);
        codec_put_uint(out, f->anchor_term);
        codec_put_uint(out, f->bytes_max);
        return;
    }
    case MESSAGE_MEND_ROWS:
        encode_mend_rows(&m->u.mend_rows, out);
        return;
    default:
        must_failed(__FILE__, __LINE__, "a message kind that is not spoken between gateways");
    }
}

static void want_array(struct codec_reader *r, uint64_t count) {
    if (codec_array(r, count) != count && r->err == E_OK) {
        r->err = E_BAD_MESSAGE;
    }
}

static enum grey_error read_error(struct codec_reader *r) {
    return (enum grey_error)codec_uint(r, GREY_ERROR_COUNT - 1);
}

/* The count is that of the array header; room for all entries is taken at once, but never more than the bytes at hand can hold. */
static struct entry *new_entries(struct codec_reader *r, uint64_t *count, size_t entry_bytes_min) {
    *count = codec_array(r, ENTRIES_MAX);
    if (r->err != E_OK || *count == 0) {
        *count = 0;
        return NULL;
    }
    if (*count > r->rest.size / entry_bytes_min) {
        r->err = E_BAD_CBOR;
        return NULL;
    }
    struct entry *entries = mem_new((size_t)*count, sizeof *entries);
    if (entries == NULL) {
        r->err = E_NO_MEMORY;
    }
    return entries;
}

static void read_payload(struct codec_reader *r, struct entry *e) {
    struct bytes payload = codec_bytes(r, LIMIT_PAYLOAD_BYTES);
    if (r->err == E_OK && payload.size > 0) {
        e->payload = blob_copy(payload);
        if (e->payload == NULL) {
            r->err = E_NO_MEMORY;
        }
    }
}

static void decode_entries(struct codec_reader *r, struct message *m, raft_index after) {
    uint64_t count;
    m->owned = new_entries(r, &count, 7);
    for (uint64_t i = 0; i < count && r->err == E_OK; i++) {
        struct entry *e = &m->owned[i];
        uint64_t fields = codec_array(r, 7);
        if (fields < 6 && r->err == E_OK) {
            r->err = E_BAD_MESSAGE;
        }
        e->index = after + 1 + i; /* may wrap for nonsense; the Raft core checks the range */
        e->term = codec_uint(r, UINT64_MAX);
        e->epoch = codec_uint(r, UINT64_MAX);
        e->time_ms = codec_int(r);
        e->kind = (uint16_t)codec_uint(r, UINT16_MAX);
        e->schema = (uint16_t)codec_uint(r, UINT16_MAX);
        if (fields == 7) {
            e->stripped_bytes = (uint32_t)codec_uint(r, LIMIT_PAYLOAD_BYTES);
            codec_fixed(r, e->digest, DIGEST_BYTES);
            if (e->stripped_bytes == 0 && r->err == E_OK) { /* nothing to leave out: two encodings of one thing */
                r->err = E_BAD_MESSAGE;
            }
        } else {
            read_payload(r, e);
        }
        m->owned_count++;
    }
}

static void decode_members(struct codec_reader *r, struct message *m) {
    struct bytes text = codec_bytes(r, MEMBERS_BYTES_MAX);
    if (r->err != E_OK) {
        return;
    }
    m->members = mem_new(1, sizeof *m->members);
    r->err = m->members == NULL ? E_NO_MEMORY : raft_members_decode(text, m->members);
    m->u.raft.members = m->members;
}

static void decode_raft(struct codec_reader *r, struct message *m) {
    struct raft_message *q = &m->u.raft;
    q->kind = (enum raft_message_kind)codec_uint(r, RAFT_MESSAGE_KIND_COUNT - 1);
    q->from = codec_uint(r, UINT64_MAX);
    q->to = codec_uint(r, UINT64_MAX);
    q->term = codec_uint(r, UINT64_MAX);
    q->index = codec_uint(r, UINT64_MAX);
    q->log_term = codec_uint(r, UINT64_MAX);
    q->hint_index = codec_uint(r, UINT64_MAX);
    q->commit_index = codec_uint(r, UINT64_MAX);
    q->round = codec_uint(r, UINT64_MAX);
    uint64_t flags = codec_uint(r, RAFT_FLAGS_MAX);
    q->refused = (flags & RAFT_FLAG_REFUSED) != 0;
    q->transfer = (flags & RAFT_FLAG_TRANSFER) != 0;
    q->headers = (flags & RAFT_FLAG_HEADERS) != 0;
    if (q->kind == RAFT_APPEND) {
        want_array(r, 3);
        codec_fixed(r, q->hash, DIGEST_BYTES);
        codec_fixed(r, q->last_hash, DIGEST_BYTES);
        decode_entries(r, m, q->index);
        q->entries = m->owned;
        q->entry_count = m->owned_count;
    } else if (q->kind == RAFT_SNAPSHOT) {
        uint64_t fields = codec_array(r, 6);
        if (fields != 4 && fields != 6 && r->err == E_OK) {
            r->err = E_BAD_MESSAGE;
        }
        q->point.index = codec_uint(r, UINT64_MAX);
        q->point.term = codec_uint(r, UINT64_MAX);
        q->point.time_ms = codec_int(r);
        codec_fixed(r, q->point.hash, DIGEST_BYTES);
        if (fields == 6) {
            q->members_index = codec_uint(r, UINT64_MAX);
            decode_members(r, m);
        }
    } else if (!codec_null(r) && r->err == E_OK) {
        r->err = E_BAD_MESSAGE;
    }
    if (q->kind == 0 && r->err == E_OK) {
        r->err = E_BAD_MESSAGE;
    }
}

static void decode_payloads(struct codec_reader *r, struct message *m) {
    struct message_payloads *p = &m->u.payloads;
    p->from = codec_uint(r, UINT64_MAX);
    p->more = codec_bool(r);
    p->err = read_error(r);
    uint64_t count;
    m->owned = new_entries(r, &count, 3);
    for (uint64_t i = 0; i < count && r->err == E_OK; i++) {
        struct entry *e = &m->owned[i];
        want_array(r, 2);
        e->index = codec_uint(r, UINT64_MAX);
        read_payload(r, e);
        m->owned_count++;
    }
    p->entries = m->owned;
    p->entry_count = m->owned_count;
}

static void decode_mend_rows(struct codec_reader *r, struct message *m) {
    struct message_mend_rows *p = &m->u.mend_rows;
    p->from = codec_uint(r, INT64_MAX);
    p->to = codec_uint(r, INT64_MAX);
    p->anchor = codec_uint(r, INT64_MAX);
    p->certain = codec_uint(r, INT64_MAX);
    uint64_t flags = codec_uint(r, MEND_FLAG_SAME | MEND_FLAG_WHOLE);
    p->same = (flags & MEND_FLAG_SAME) != 0;
    p->whole = (flags & MEND_FLAG_WHOLE) != 0;
    uint64_t count;
    m->owned = new_entries(r, &count, 8);
    for (uint64_t i = 0; i < count && r->err == E_OK; i++) {
        struct entry *e = &m->owned[i];
        want_array(r, 7);
        e->index = codec_uint(r, INT64_MAX);
        e->term = codec_uint(r, UINT64_MAX);
        e->epoch = codec_uint(r, UINT64_MAX);
        e->time_ms = codec_int(r);
        e->kind = (uint16_t)codec_uint(r, UINT16_MAX);
        e->schema = (uint16_t)codec_uint(r, UINT16_MAX);
        read_payload(r, e);
        m->owned_count++;
    }
    p->entries = m->owned;
    p->entry_count = m->owned_count;
}

static const uint8_t field_counts[] = {
    [MESSAGE_HELLO] = 8,         [MESSAGE_RAFT] = 11,      [MESSAGE_FORWARD] = 5,        [MESSAGE_FORWARD_REPLY] = 6,
    [MESSAGE_JOIN] = 6,          [MESSAGE_JOIN_REPLY] = 4, [MESSAGE_SNAPSHOT_FETCH] = 3, [MESSAGE_SNAPSHOT_CHUNK] = 5,
    [MESSAGE_PAYLOAD_FETCH] = 3, [MESSAGE_PAYLOADS] = 4,   [MESSAGE_CLOCK] = 2,          [MESSAGE_STATE_HASH] = 2,
    [MESSAGE_SEAL] = 5,          [MESSAGE_MEND_FETCH] = 5, [MESSAGE_MEND_ROWS] = 6,      [MESSAGE_OUTPUT_FETCH] = 5,
    [MESSAGE_OUTPUT] = 5,        [MESSAGE_REACH_ASK] = 1,  [MESSAGE_REACH] = 2,          [MESSAGE_ATTEST] = 3,
    [MESSAGE_LINK_ASK] = 1,      [MESSAGE_LINK] = 2,
};

static void read_exactly(struct codec_reader *r, uint8_t *out, size_t size) {
    struct bytes in = codec_bytes(r, size);
    if (in.size == size) {
        memcpy(out, in.data, size);
    } else if (r->err == E_OK) {
        r->err = E_BAD_MESSAGE;
    }
}

static void decode_fields(struct codec_reader *r, struct message *m) {
    switch (m->kind) {
    case MESSAGE_HELLO: {
        struct message_hello *h = &m->u.hello;
        h->feature_level = (uint32_t)codec_uint(r, UINT32_MAX);
        h->cluster_id = codec_uint(r, UINT64_MAX);
        h->id = codec_uint(r, UINT64_MAX);
        h->start_count = codec_uint(r, UINT64_MAX);
        h->site = codec_text(r, LIMIT_NAME_BYTES);
        h->node = codec_text(r, LIMIT_NAME_BYTES);
        h->peer_address = codec_text(r, LIMIT_ADDRESS_BYTES);
        h->http_address = codec_text(r, LIMIT_ADDRESS_BYTES);
        return;
    }
    case MESSAGE_RAFT:
        decode_raft(r, m);
        return;
    case MESSAGE_FORWARD: {
        struct message_forward *f = &m->u.forward;
        f->request = codec_uint(r, UINT64_MAX);
        f->kind = (uint16_t)codec_uint(r, ENTRY_KIND_COUNT - 1);
        f->schema = (uint16_t)codec_uint(r, UINT16_MAX);
        f->urgent = codec_bool(r);
        f->payload = codec_bytes(r, LIMIT_PAYLOAD_BYTES);
        return;
    }
    case MESSAGE_FORWARD_REPLY: {
        struct message_forward_reply *f = &m->u.forward_reply;
        f->request = codec_uint(r, UINT64_MAX);
        f->err = read_error(r);
        f->detail = codec_text(r, DETAIL_BYTES_MAX);
        f->index = codec_uint(r, UINT64_MAX);
        f->epoch = codec_uint(r, INT64_MAX);
        f->answer = codec_bytes(r, ANSWER_BYTES_MAX);
        return;
    }
    case MESSAGE_JOIN: {
        struct message_join *j = &m->u.join;
        j->id = codec_uint(r, UINT64_MAX);
        j->node = codec_text(r, LIMIT_NAME_BYTES);
        j->peer_address = codec_text(r, LIMIT_ADDRESS_BYTES);
        j->http_address = codec_text(r, LIMIT_ADDRESS_BYTES);
        j->witness = (codec_uint(r, JOIN_FLAG_WITNESS) & JOIN_FLAG_WITNESS) != 0;
        j->sign_key = codec_bytes(r, RAFT_SIGN_KEY_BYTES);
        return;
    }
    case MESSAGE_JOIN_REPLY: {
        struct message_join_reply *j = &m->u.join_reply;
        j->err = read_error(r);
        j->detail = codec_text(r, DETAIL_BYTES_MAX);
        j->leader_address = codec_text(r, LIMIT_ADDRESS_BYTES);
        j->epoch = codec_uint(r, INT64_MAX);
        return;
    }
    case MESSAGE_STATE_HASH:
        m->u.state_hash.index = codec_uint(r, INT64_MAX);
        read_exactly(r, m->u.state_hash.hash, DIGEST_BYTES);
        return;
    case MESSAGE_SEAL: {
        struct seal *s = &m->u.seal;
        s->index = codec_uint(r, INT64_MAX);
        s->epoch = codec_uint(r, INT64_MAX);
        s->signer = codec_uint(r, UINT64_MAX);
        read_exactly(r, s->hash, sizeof s->hash);
        read_exactly(r, s->signature, sizeof s->signature);
        return;
    }
    case MESSAGE_CLOCK:
        m->u.clock.is_answer = codec_bool(r);
        m->u.clock.time_ms = codec_int(r);
        return;
    case MESSAGE_REACH_ASK:
        m->u.reach.number = codec_uint(r, UINT64_MAX);
        return;
    case MESSAGE_REACH:
        m->u.reach.number = codec_uint(r, UINT64_MAX);
        m->u.reach.reaches = codec_bool(r);
        return;
    case MESSAGE_LINK_ASK:
        m->u.link.number = codec_uint(r, UINT64_MAX);
        return;
    case MESSAGE_LINK:
        m->u.link.number = codec_uint(r, UINT64_MAX);
        m->u.link.json = codec_text(r, MESSAGE_LINK_BYTES_MAX);
        return;
    case MESSAGE_SNAPSHOT_FETCH: {
        struct message_snapshot_fetch *f = &m->u.snapshot_fetch;
        f->index = codec_uint(r, UINT64_MAX);
        f->offset = codec_uint(r, INT64_MAX);
        f->bytes_max = (uint32_t)codec_uint(r, LIMIT_FRAME_PAYLOAD_BYTES);
        return;
    }
    case MESSAGE_SNAPSHOT_CHUNK: {
        struct message_snapshot_chunk *c = &m->u.snapshot_chunk;
        c->index = codec_uint(r, UINT64_MAX);
        c->offset = codec_uint(r, INT64_MAX);
        c->total_bytes = codec_uint(r, INT64_MAX);
        c->err = read_error(r);
        c->chunk = codec_bytes(r, LIMIT_FRAME_PAYLOAD_BYTES);
        return;
    }
    case MESSAGE_PAYLOAD_FETCH: {
        struct message_payload_fetch *f = &m->u.payload_fetch;
        f->from = codec_uint(r, UINT64_MAX);
        f->to = codec_uint(r, UINT64_MAX);
        f->bytes_max = (uint32_t)codec_uint(r, LIMIT_FRAME_PAYLOAD_BYTES);
        return;
    }
    case MESSAGE_PAYLOADS:
        decode_payloads(r, m);
        return;
    case MESSAGE_OUTPUT_FETCH: {
        struct message_output_fetch *f = &m->u.output_fetch;
        f->request = codec_uint(r, UINT64_MAX);
        f->token = codec_uint(r, UINT64_MAX);
        f->stream = (uint32_t)codec_uint(r, 1);
        f->offset = codec_uint(r, INT64_MAX);
        f->bytes_max = (uint32_t)codec_uint(r, LIMIT_FRAME_PAYLOAD_BYTES);
        return;
    }
    case MESSAGE_OUTPUT: {
        struct message_output *o = &m->u.output;
        o->request = codec_uint(r, UINT64_MAX);
        o->err = read_error(r);
        o->offset = codec_uint(r, INT64_MAX);
        o->end_offset = codec_uint(r, INT64_MAX);
        o->data = codec_bytes(r, LIMIT_FRAME_PAYLOAD_BYTES);
        return;
    }
    case MESSAGE_ATTEST: {
        struct message_attest *a = &m->u.attest;
        a->node = codec_text(r, LIMIT_NAME_BYTES);
        a->word = (uint32_t)codec_uint(r, EXCHANGE_WORDS - 1);
        a->body = codec_bytes(r, ATTEST_EVIDENCE_BYTES_MAX);
        return;
    }
    case MESSAGE_MEND_FETCH: {
        struct message_mend_fetch *f = &m->u.mend_fetch;
        f->from = codec_uint(r, INT64_MAX);
        f->to = codec_uint(r, INT64_MAX);
        f->anchor = codec_uint(r, INT64_MAX);
        f->anchor_term = codec_uint(r, UINT64_MAX);
        f->bytes_max = (uint32_t)codec_uint(r, LIMIT_FRAME_PAYLOAD_BYTES);
        return;
    }
    case MESSAGE_MEND_ROWS:
        decode_mend_rows(r, m);
        return;
    default:
        r->err = E_BAD_MESSAGE;
    }
}

enum grey_error message_decode(struct bytes in, struct message *m) {
    memset(m, 0, sizeof *m);
    struct codec_reader r;
    codec_reader_init(&r, in);
    uint64_t fields = codec_array(&r, 16);
    m->kind = (enum message_kind)codec_uint(&r, UINT16_MAX);
    if (r.err == E_OK &&
        ((size_t)m->kind >= sizeof field_counts || field_counts[m->kind] == 0 || fields != 1u + field_counts[m->kind])) {
        r.err = E_BAD_MESSAGE;
    }
    if (r.err == E_OK) {
        decode_fields(&r, m);
    }
    enum grey_error err = codec_end(&r);
    if (err != E_OK) {
        message_release(m);
    }
    return err;
}

void message_release(struct message *m) {
    for (uint32_t i = 0; i < m->owned_count; i++) {
        blob_unref(m->owned[i].payload);
    }
    mem_free(m->owned);
    mem_free(m->members);
    m->owned = NULL;
    m->members = NULL;
    m->owned_count = 0;
}
