#include "federation/object.h"

#include <string.h>

enum { FIELDS = 9 };
static const char label[] = "grey-object-1"; /* with its NUL: what is signed for one purpose must not pass for another */

const char *object_kind_name(enum object_kind k) {
    return k == OBJECT_CONFIG ? "config" : k == OBJECT_POLICY ? "policy" : k == OBJECT_DATA ? "data" : "update";
}

uint32_t object_chunk_bytes(uint64_t size) {
    uint32_t bytes = OBJECT_CHUNK_BYTES_MIN;
    while (bytes < OBJECT_CHUNK_BYTES_MAX && (uint64_t)bytes * OBJECT_CHUNKS_MAX < size) {
        bytes *= 2;
    }
    return bytes;
}

uint32_t object_size_of(const struct object_manifest *m, uint32_t chunk) {
    uint64_t before = (uint64_t)chunk * m->chunk_bytes, rest = m->size - before;
    return (uint32_t)(rest < m->chunk_bytes ? rest : m->chunk_bytes);
}

void object_cut(struct bytes content, uint32_t chunk_bytes, struct builder *hashes) {
    for (size_t at = 0; at < content.size; at += chunk_bytes) {
        uint8_t hash[OBJECT_HASH_BYTES];
        size_t rest = content.size - at;
        digest_sha256(bytes_of(content.data + at, rest < chunk_bytes ? rest : chunk_bytes), hash);
        builder_add(hashes, bytes_of(hash, sizeof hash));
    }
}

static void put_body(const struct object_manifest *m, struct builder *out) {
    codec_put_array(out, FIELDS);
    codec_put_uint(out, (uint64_t)m->kind);
    codec_put_text(out, m->name);
    codec_put_text(out, m->site);
    codec_put_text(out, m->content_type);
    codec_put_uint(out, m->version);
    codec_put_uint(out, m->issue);
    codec_put_uint(out, m->size);
    codec_put_uint(out, m->chunk_bytes);
    codec_put_bytes(out, m->hashes);
}

void object_sign(const struct object_manifest *m, const uint8_t secret_key[KEYS_ED25519_SECRET_BYTES], struct builder *out) {
    struct builder text;
    uint8_t signature[KEYS_ED25519_SIGNATURE_BYTES];
    builder_init(&text, OBJECT_SIGNED_BYTES_MAX);
    builder_add(&text, bytes_of(label, sizeof label));
    put_body(m, &text);
    if (text.err != E_OK) {
        out->err = out->err == E_OK ? text.err : out->err;
    } else {
        keys_sign_ed25519(builder_bytes(&text), secret_key, signature);
        codec_put_array(out, 2);
        codec_put_bytes(out, bytes_of(text.data + sizeof label, text.size - sizeof label));
        codec_put_bytes(out, bytes_of(signature, sizeof signature));
    }
    builder_free(&text);
}

static bool is_whole(const struct object_manifest *m) {
    bool power = m->chunk_bytes >= OBJECT_CHUNK_BYTES_MIN && (m->chunk_bytes & (m->chunk_bytes - 1)) == 0;
    return power && m->kind >= OBJECT_CONFIG && m->version > 0 && m->issue > 0 &&
           grey_name_valid((const char *)m->name.data, m->name.size) && grey_name_valid((const char *)m->site.data, m->site.size) &&
           m->hashes.size % OBJECT_HASH_BYTES == 0 && (m->size + m->chunk_bytes - 1) / m->chunk_bytes == object_chunk_count(m);
}

static enum grey_error split(struct bytes in, struct bytes *body, uint8_t signature[KEYS_ED25519_SIGNATURE_BYTES]) {
    struct codec_reader r;
    codec_reader_init(&r, in);
    uint64_t items = codec_array(&r, 2);
    *body = codec_bytes(&r, OBJECT_SIGNED_BYTES_MAX);
    codec_fixed(&r, signature, KEYS_ED25519_SIGNATURE_BYTES);
    enum grey_error err = codec_end(&r);
    return err == E_OK && items != 2 ? E_BAD_MESSAGE : err;
}

static enum grey_error read_body(struct bytes body, struct object_manifest *m) {
    struct codec_reader r;
    *m = (struct object_manifest){0};
    codec_reader_init(&r, body);
    uint64_t items = codec_array(&r, FIELDS);
    m->kind = (enum object_kind)codec_uint(&r, OBJECT_UPDATE);
    m->name = codec_text(&r, LIMIT_NAME_BYTES);
    m->site = codec_text(&r, LIMIT_NAME_BYTES);
    m->content_type = codec_text(&r, OBJECT_TYPE_BYTES_MAX);
    m->version = codec_uint(&r, INT64_MAX);
    m->issue = codec_uint(&r, INT64_MAX);
    m->size = codec_uint(&r, OBJECT_BYTES_MAX);
    m->chunk_bytes = (uint32_t)codec_uint(&r, OBJECT_CHUNK_BYTES_MAX);
    m->hashes = codec_bytes(&r, OBJECT_CHUNKS_MAX * OBJECT_HASH_BYTES);
    enum grey_error err = codec_end(&r);
    if (err == E_OK && (items != FIELDS || !is_whole(m))) {
        err = E_BAD_MESSAGE;
    }
    if (err != E_OK) {
        *m = (struct object_manifest){0};
    }
    return err;
}

enum grey_error object_read(struct bytes in, struct object_manifest *m) {
    uint8_t signature[KEYS_ED25519_SIGNATURE_BYTES];
    struct bytes body;
    *m = (struct object_manifest){0};
    enum grey_error err = split(in, &body, signature);
    return err == E_OK ? read_body(body, m) : err;
}

bool object_verify(struct bytes in, const uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES], struct object_manifest *m) {
    uint8_t signature[KEYS_ED25519_SIGNATURE_BYTES];
    struct bytes body;
    struct builder text;
    *m = (struct object_manifest){0};
    if (split(in, &body, signature) != E_OK) {
        return false;
    }
    builder_init(&text, sizeof label + OBJECT_SIGNED_BYTES_MAX);
    builder_add(&text, bytes_of(label, sizeof label));
    builder_add(&text, body);
    bool good = text.err == E_OK && keys_verify_ed25519(builder_bytes(&text), public_key, signature) && read_body(body, m) == E_OK;
    builder_free(&text);
    return good;
}
