#include "federation/supply.h"

#include <string.h>

const char *supply_health_name(enum supply_health h) {
    return h == SUPPLY_HEALTHY ? "healthy" : h == SUPPLY_FAILED ? "failed" : "unknown";
}

static void put_head(struct builder *out, enum message_kind kind, unsigned fields, uint64_t incarnation, grey_epoch epoch) {
    codec_put_array(out, 3u + fields);
    codec_put_uint(out, (uint64_t)kind);
    codec_put_uint(out, incarnation);
    codec_put_uint(out, epoch);
}

void supply_put_holdings(struct builder *out, const struct supply_holdings *h) {
    put_head(out, MESSAGE_UP_HOLDINGS, 1, h->incarnation, h->epoch);
    codec_put_array(out, h->count);
    for (uint32_t i = 0; i < h->count; i++) {
        const struct supply_holding *one = &h->at[i];
        codec_put_array(out, 5);
        codec_put_uint(out, (uint64_t)one->kind);
        codec_put_text(out, one->name);
        codec_put_uint(out, one->version);
        codec_put_uint(out, one->issue);
        codec_put_uint(out, (uint64_t)one->health);
    }
}

void supply_put_pull(struct builder *out, const struct supply_pull *p) {
    put_head(out, MESSAGE_UP_PULL, 1, p->incarnation, p->epoch);
    codec_put_array(out, p->count);
    for (uint32_t i = 0; i < p->count; i++) {
        codec_put_bytes(out, bytes_of(p->hashes[i], OBJECT_HASH_BYTES));
    }
}

void supply_put_offer(struct builder *out, const struct supply_offer *o) {
    put_head(out, MESSAGE_DOWN_OFFER, 2, o->incarnation, o->epoch);
    codec_put_bytes(out, o->manifest);
    codec_put_bytes(out, o->content);
}

void supply_put_chunk(struct builder *out, const struct supply_chunk *c) {
    put_head(out, MESSAGE_DOWN_CHUNK, 1, c->incarnation, c->epoch);
    codec_put_bytes(out, c->content);
}

static void want(struct codec_reader *r, uint64_t count) {
    if (codec_array(r, count) != count && r->err == E_OK) {
        r->err = E_BAD_MESSAGE;
    }
}

static void get_head(struct codec_reader *r, struct bytes content, enum message_kind kind, unsigned fields, uint64_t *incarnation,
                     grey_epoch *epoch) {
    codec_reader_init(r, content);
    want(r, 3u + fields);
    if (codec_uint(r, UINT16_MAX) != (uint64_t)kind && r->err == E_OK) {
        r->err = E_BAD_MESSAGE;
    }
    *incarnation = codec_uint(r, INT64_MAX);
    *epoch = codec_uint(r, INT64_MAX);
    if (r->err == E_OK && *incarnation == 0) {
        r->err = E_BAD_MESSAGE;
    }
}

enum grey_error supply_get_holdings(struct bytes content, struct supply_holdings *h, struct supply_holding *at) {
    struct codec_reader r;
    memset(h, 0, sizeof *h);
    get_head(&r, content, MESSAGE_UP_HOLDINGS, 1, &h->incarnation, &h->epoch);
    uint64_t count = codec_array(&r, SUPPLY_HOLDINGS_MAX);
    for (uint64_t i = 0; i < count && r.err == E_OK; i++) {
        want(&r, 5);
        at[i].kind = (enum object_kind)codec_uint(&r, OBJECT_UPDATE);
        at[i].name = codec_text(&r, LIMIT_NAME_BYTES);
        at[i].version = codec_uint(&r, INT64_MAX);
        at[i].issue = codec_uint(&r, INT64_MAX);
        at[i].health = (enum supply_health)codec_uint(&r, SUPPLY_FAILED);
        bool good = at[i].kind >= OBJECT_CONFIG && at[i].version > 0 && at[i].issue > 0 &&
                    grey_name_valid((const char *)at[i].name.data, at[i].name.size);
        r.err = r.err == E_OK && !good ? E_BAD_MESSAGE : r.err;
    }
    h->at = at;
    enum grey_error err = codec_end(&r);
    h->count = err == E_OK ? (uint32_t)count : 0;
    return err;
}

enum grey_error supply_get_pull(struct bytes content, struct supply_pull *p) {
    struct codec_reader r;
    memset(p, 0, sizeof *p);
    get_head(&r, content, MESSAGE_UP_PULL, 1, &p->incarnation, &p->epoch);
    uint64_t count = codec_array(&r, SUPPLY_PULLS_MAX);
    for (uint64_t i = 0; i < count && r.err == E_OK; i++) {
        codec_fixed(&r, p->hashes[i], OBJECT_HASH_BYTES);
    }
    r.err = r.err == E_OK && count == 0 ? E_BAD_MESSAGE : r.err;
    enum grey_error err = codec_end(&r);
    p->count = err == E_OK ? (uint32_t)count : 0;
    return err;
}

enum grey_error supply_get_offer(struct bytes content, struct supply_offer *o) {
    struct codec_reader r;
    memset(o, 0, sizeof *o);
    get_head(&r, content, MESSAGE_DOWN_OFFER, 2, &o->incarnation, &o->epoch);
    o->manifest = codec_bytes(&r, OBJECT_SIGNED_BYTES_MAX);
    o->content = codec_bytes(&r, OBJECT_CHUNK_BYTES_MIN);
    return codec_end(&r);
}

enum grey_error supply_get_chunk(struct bytes content, struct supply_chunk *c) {
    struct codec_reader r;
    memset(c, 0, sizeof *c);
    get_head(&r, content, MESSAGE_DOWN_CHUNK, 1, &c->incarnation, &c->epoch);
    c->content = codec_bytes(&r, OBJECT_CHUNK_BYTES_MAX);
    r.err = r.err == E_OK && c->content.size == 0 ? E_BAD_MESSAGE : r.err;
    return codec_end(&r);
}
