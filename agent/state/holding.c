/* Rows: TABLE_OBJECT kind u8, name -> array [manifest in force bytes, since ms, health uint, coming bytes]; TABLE_CHUNK hash -> size u32,
 * ref = the entry whose payload has the bytes.  Both are pinned: what is not in memory is not there. */
#include "agent/state/holding.h"

#include <inttypes.h>
#include <string.h>

#include "federation/origin.h"
#include "include/grey/must.h"
#include "platform/codec.h"

enum { OP_OFFER = 0, OP_CHUNK = 1, OP_HEALTH = 2, OFFER_FIELDS = 3, CHUNK_FIELDS = 2, HEALTH_FIELDS = 5, ROW_FIELDS = 4 };
enum { KEY_BYTES_MAX = 1 + LIMIT_NAME_BYTES, ROW_BYTES_MAX = 2 * OBJECT_SIGNED_BYTES_MAX + 64 };

struct request {
    uint64_t op;
    struct bytes manifest, content, name;
    enum object_kind kind;
    uint64_t issue;
    enum supply_health health;
};

/* --- Payloads ---------------------------------------------------------------------------------------------------------------------- */

void payload_offer(struct builder *out, struct bytes manifest, struct bytes content) {
    codec_put_array(out, OFFER_FIELDS);
    codec_put_uint(out, OP_OFFER);
    codec_put_bytes(out, manifest);
    codec_put_bytes(out, content);
}

void payload_chunk(struct builder *out, struct bytes content) {
    codec_put_array(out, CHUNK_FIELDS);
    codec_put_uint(out, OP_CHUNK);
    codec_put_bytes(out, content);
}

void payload_health(struct builder *out, enum object_kind kind, struct bytes name, uint64_t issue, enum supply_health health) {
    codec_put_array(out, HEALTH_FIELDS);
    codec_put_uint(out, OP_HEALTH);
    codec_put_uint(out, (uint64_t)kind);
    codec_put_text(out, name);
    codec_put_uint(out, issue);
    codec_put_uint(out, (uint64_t)health);
}

static enum grey_error request_read(struct bytes payload, struct request *q) {
    static const uint64_t fields[] = {[OP_OFFER] = OFFER_FIELDS, [OP_CHUNK] = CHUNK_FIELDS, [OP_HEALTH] = HEALTH_FIELDS};
    struct codec_reader r;
    *q = (struct request){0};
    codec_reader_init(&r, origin_skip(payload, NULL));
    uint64_t count = codec_array(&r, HEALTH_FIELDS);
    q->op = codec_uint(&r, OP_HEALTH);
    if (r.err == E_OK && count != fields[q->op]) {
        return E_BAD_MESSAGE;
    }
    if (q->op == OP_HEALTH) {
        q->kind = (enum object_kind)codec_uint(&r, OBJECT_UPDATE);
        q->name = codec_text(&r, LIMIT_NAME_BYTES);
        q->issue = codec_uint(&r, INT64_MAX);
        q->health = (enum supply_health)codec_uint(&r, SUPPLY_FAILED);
    } else {
        q->manifest = q->op == OP_OFFER ? codec_bytes(&r, OBJECT_SIGNED_BYTES_MAX) : bytes_of(NULL, 0);
        q->content = codec_bytes(&r, OBJECT_CHUNK_BYTES_MAX);
    }
    enum grey_error err = codec_end(&r);
    bool good = q->op != OP_HEALTH || grey_name_valid((const char *)q->name.data, q->name.size);
    return err == E_OK && !good ? E_BAD_MESSAGE : err;
}

struct bytes holding_content(struct bytes payload) {
    struct request q;
    return request_read(payload, &q) == E_OK ? q.content : bytes_of(NULL, 0);
}

/* --- Rows -------------------------------------------------------------------------------------------------------------------------- */

static struct bytes row_key(uint8_t out[KEY_BYTES_MAX], enum object_kind kind, struct bytes name) {
    out[0] = (uint8_t)kind;
    if (name.size > 0) { /* NULL when it is empty */
        memcpy(out + 1, name.data, name.size);
    }
    return bytes_of(out, 1 + name.size);
}

static enum grey_error row_read(struct bytes value, struct holding *h) {
    struct codec_reader r;
    *h = (struct holding){0};
    codec_reader_init(&r, value);
    uint64_t fields = codec_array(&r, ROW_FIELDS);
    h->signed_force = codec_bytes(&r, OBJECT_SIGNED_BYTES_MAX);
    h->since_ms = codec_int(&r);
    h->health = (enum supply_health)codec_uint(&r, SUPPLY_FAILED);
    h->signed_coming = codec_bytes(&r, OBJECT_SIGNED_BYTES_MAX);
    enum grey_error err = codec_end(&r);
    err = err == E_OK && fields != ROW_FIELDS ? E_BAD_MESSAGE : err;
    if (err == E_OK && h->signed_force.size > 0) {
        err = object_read(h->signed_force, &h->force);
    }
    if (err == E_OK && h->signed_coming.size > 0) {
        err = object_read(h->signed_coming, &h->coming);
    }
    return err == E_OK ? E_OK : E_CORRUPT;
}

static void row_put(struct builder *changes, struct bytes key, const struct holding *h) {
    struct builder row;
    builder_init(&row, ROW_BYTES_MAX);
    codec_put_array(&row, ROW_FIELDS);
    codec_put_bytes(&row, h->signed_force);
    codec_put_int(&row, h->since_ms);
    codec_put_uint(&row, (uint64_t)h->health);
    codec_put_bytes(&row, h->signed_coming);
    if (row.err == E_OK) {
        table_change_put(changes, TABLE_OBJECT, key, builder_bytes(&row), 0);
    } else {
        changes->err = changes->err == E_OK ? row.err : changes->err;
    }
    builder_free(&row);
}

bool holding_next(struct table *t, struct bytes after, struct bytes *key, struct holding *out) {
    struct bytes value;
    raft_index ref;
    must(after.size <= KEY_BYTES_MAX);
    return table_after(t, TABLE_OBJECT, after, key, &value, &ref) && row_read(value, out) == E_OK;
}

bool holding_find(struct table *t, enum object_kind kind, struct bytes name, struct holding *out) {
    uint8_t key[KEY_BYTES_MAX];
    struct bytes value;
    return name.size <= LIMIT_NAME_BYTES && table_get(t, TABLE_OBJECT, row_key(key, kind, name), &value) == TABLE_FOUND &&
           row_read(value, out) == E_OK;
}

raft_index holding_chunk(struct table *t, struct bytes hash) {
    struct bytes key, value;
    raft_index ref;
    return table_next(t, TABLE_CHUNK, hash, &key, &value, &ref) && bytes_equal(key, hash) ? ref : 0;
}

uint32_t holding_missing(struct table *t, const struct object_manifest *m, uint32_t from) {
    struct bytes value;
    uint32_t count = object_chunk_count(m);
    while (from < count && table_get(t, TABLE_CHUNK, object_hash(m, from), &value) == TABLE_FOUND) {
        from++;
    }
    return from;
}

/* --- Applying ---------------------------------------------------------------------------------------------------------------------- */

/* All objects as they will be after this entry, and the versions that go with it. */
struct shelf {
    struct table *t;
    struct one {
        uint8_t key[KEY_BYTES_MAX];
        size_t key_bytes;
        struct holding h;
        bool changed;
    } at[LIMIT_OBJECTS + 1];
    uint32_t count;
    struct object_manifest gone[LIMIT_OBJECTS + 1];
    uint32_t gone_count;
    uint8_t arrived[OBJECT_HASH_BYTES]; /* with this entry */
    bool has_arrived;
};

static enum grey_error shelf_load(struct shelf *s, struct fault *f) {
    struct bytes key = {0}, value;
    uint8_t from[KEY_BYTES_MAX + 1] = {0};
    size_t from_bytes = 1;
    raft_index ref;
    while (table_next(s->t, TABLE_OBJECT, bytes_of(from, from_bytes), &key, &value, &ref)) {
        struct one *o = &s->at[s->count++];
        if (s->count > LIMIT_OBJECTS || key.size > KEY_BYTES_MAX || row_read(value, &o->h) != E_OK) {
            return fault_set(f, E_CORRUPT, "the row of an object is damaged");
        }
        memcpy(o->key, key.data, key.size);
        o->key_bytes = key.size;
        memcpy(from, key.data, key.size);
        from[key.size] = 0;
        from_bytes = key.size + 1;
    }
    return E_OK;
}

static bool names(const struct object_manifest *m, struct bytes hash) {
    uint32_t count = object_chunk_count(m);
    for (uint32_t i = 0; i < count; i++) {
        if (memcmp(object_hash(m, i).data, hash.data, OBJECT_HASH_BYTES) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_here(const struct shelf *s, struct bytes hash) {
    struct bytes value;
    return (s->has_arrived && memcmp(hash.data, s->arrived, OBJECT_HASH_BYTES) == 0) ||
           table_get(s->t, TABLE_CHUNK, hash, &value) == TABLE_FOUND;
}

/* What is complete comes into force. */
static void promote(struct shelf *s, struct one *o, int64_t now_ms) {
    uint32_t count = object_chunk_count(&o->h.coming);
    for (uint32_t i = 0; i < count; i++) {
        if (!is_here(s, object_hash(&o->h.coming, i))) {
            return;
        }
    }
    if (o->h.force.version > 0) {
        s->gone[s->gone_count++] = o->h.force;
    }
    o->h.force = o->h.coming;
    o->h.signed_force = o->h.signed_coming;
    o->h.coming = (struct object_manifest){0};
    o->h.signed_coming = bytes_of(NULL, 0);
    o->h.since_ms = now_ms;
    o->h.health = SUPPLY_UNKNOWN;
    o->changed = true;
}

static bool is_named(const struct shelf *s, struct bytes hash) {
    for (uint32_t i = 0; i < s->count; i++) {
        if (names(&s->at[i].h.force, hash) || names(&s->at[i].h.coming, hash)) {
            return true;
        }
    }
    return false;
}

/* Chunks of versions that are gone and that nothing else names. */
static void sweep(const struct shelf *s, struct builder *changes) {
    struct bytes value;
    for (uint32_t g = 0; g < s->gone_count; g++) {
        uint32_t count = object_chunk_count(&s->gone[g]);
        for (uint32_t i = 0; i < count; i++) {
            struct bytes hash = object_hash(&s->gone[g], i);
            if (!is_named(s, hash) && table_get(s->t, TABLE_CHUNK, hash, &value) == TABLE_FOUND) {
                table_change_delete(changes, TABLE_CHUNK, hash);
            }
        }
    }
}

static void arrive(struct shelf *s, const struct request *q, raft_index index, struct builder *changes) {
    uint8_t size[4];
    bytes_put_be32(size, (uint32_t)q->content.size);
    s->has_arrived = true;
    table_change_put(changes, TABLE_CHUNK, bytes_of(s->arrived, sizeof s->arrived), bytes_of(size, sizeof size), index);
}

static struct one *find_or_add(struct shelf *s, enum object_kind kind, struct bytes name) {
    uint8_t text[KEY_BYTES_MAX];
    struct bytes key = row_key(text, kind, name);
    for (uint32_t i = 0; i < s->count; i++) {
        if (bytes_equal(key, bytes_of(s->at[i].key, s->at[i].key_bytes))) {
            return &s->at[i];
        }
    }
    struct one *o = &s->at[s->count++];
    memcpy(o->key, key.data, key.size);
    o->key_bytes = key.size;
    return o;
}

static enum grey_error offer(struct shelf *s, const struct request *q, const char *site, const struct entry *e, int64_t now_ms,
                             struct builder *changes, struct fault *f) {
    struct object_manifest m;
    enum grey_error err = object_read(q->manifest, &m);
    if (err != E_OK) {
        return fault_set(f, err, "the payload is no manifest");
    }
    if (!bytes_equal_str(m.site, site)) {
        return fault_set(f, E_WRONG_SITE, "the object was given to another site");
    }
    struct one *o = find_or_add(s, m.kind, m.name);
    if (m.issue <= o->h.force.issue || m.issue <= o->h.coming.issue) {
        return fault_set(f, E_CONDITION, "issue %" PRIu64 " is not newer than what is here", m.issue);
    }
    if (o->h.coming.version > 0) {
        s->gone[s->gone_count++] = o->h.coming;
    }
    o->h.coming = m;
    o->h.signed_coming = q->manifest;
    o->changed = true;
    uint64_t chunks = 0;
    for (uint32_t i = 0; i < s->count; i++) {
        chunks += object_chunk_count(&s->at[i].h.force) + object_chunk_count(&s->at[i].h.coming);
    }
    if (s->count > LIMIT_OBJECTS || chunks > LIMIT_OBJECT_CHUNKS) {
        return fault_set(f, E_KV_FULL, "the site would hold %" PRIu32 " objects in %" PRIu64 " chunks", s->count, chunks);
    }
    if (q->content.size > 0) {
        digest_sha256(q->content, s->arrived);
        if (object_chunk_count(&m) != 1 || q->content.size != m.size || memcmp(s->arrived, m.hashes.data, sizeof s->arrived) != 0) {
            return fault_set(f, E_BAD_MESSAGE, "the content is not that of the manifest");
        }
        if (!is_here(s, m.hashes)) {
            arrive(s, q, e->index, changes);
        }
    }
    promote(s, o, now_ms);
    return E_OK;
}

static enum grey_error chunk(struct shelf *s, const struct request *q, const struct entry *e, int64_t now_ms,
                             struct builder *changes, struct fault *f) {
    digest_sha256(q->content, s->arrived);
    struct bytes hash = bytes_of(s->arrived, sizeof s->arrived);
    bool wanted = false;
    for (uint32_t i = 0; i < s->count; i++) {
        wanted = wanted || names(&s->at[i].h.coming, hash);
    }
    if (!wanted || is_here(s, hash)) {
        return fault_set(f, E_NOT_FOUND, wanted ? "the chunk is here already" : "no object that is coming has this chunk");
    }
    arrive(s, q, e->index, changes);
    for (uint32_t i = 0; i < s->count; i++) {
        if (s->at[i].h.coming.version > 0 && names(&s->at[i].h.coming, hash)) {
            promote(s, &s->at[i], now_ms);
        }
    }
    return E_OK;
}

static enum grey_error health(struct shelf *s, const struct request *q, struct fault *f) {
    struct one *o = find_or_add(s, q->kind, q->name);
    if (o->h.force.version == 0 || o->h.force.issue != q->issue) {
        return fault_set(f, E_CONDITION, "that issue is not in force");
    }
    o->changed = o->h.health != q->health;
    o->h.health = q->health;
    return E_OK;
}

enum grey_error holding_apply(struct table *t, const char *site, const struct entry *e, int64_t now_ms, struct builder *changes,
                              struct fault *f) {
    struct request q;
    enum grey_error err = request_read(blob_bytes(e->payload), &q);
    if (err != E_OK) {
        return fault_set(f, err, "the payload says nothing of an object");
    }
    struct shelf *s = mem_new(1, sizeof *s);
    if (s == NULL) {
        return fault_set(f, E_NO_MEMORY, "objects");
    }
    s->t = t;
    err = shelf_load(s, f);
    if (err == E_OK) {
        err = q.op == OP_OFFER   ? offer(s, &q, site, e, now_ms, changes, f)
              : q.op == OP_CHUNK ? chunk(s, &q, e, now_ms, changes, f)
                                 : health(s, &q, f);
    }
    for (uint32_t i = 0; i < s->count && err == E_OK; i++) {
        if (s->at[i].changed) {
            row_put(changes, bytes_of(s->at[i].key, s->at[i].key_bytes), &s->at[i].h);
        }
    }
    if (err == E_OK) {
        sweep(s, changes);
    }
    mem_free(s);
    return err;
}
