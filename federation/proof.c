#include "federation/proof.h"

#include <string.h>

#include "include/grey/limits.h"
#include "platform/codec.h"

#define LABEL "grey-proof-1" /* with its NUL before what is signed: a signature for one purpose must not pass for another */

enum { BODY_FIELDS = 18, STEP_FIELDS = 2 };

static void put_fixed(struct builder *b, const uint8_t *bytes, size_t size) {
    codec_put_bytes(b, bytes_of(bytes, size));
}

static void put_body(struct builder *b, const struct proof *p) {
    codec_put_array(b, BODY_FIELDS);
    codec_put_uint(b, p->cluster_id);
    codec_put_text(b, p->task);
    codec_put_uint(b, p->token);
    codec_put_uint(b, p->node);
    codec_put_text(b, p->node_name);
    put_fixed(b, p->public_key, sizeof p->public_key);
    put_fixed(b, p->input_hash, sizeof p->input_hash);
    codec_put_array(b, PROOF_STEPS);
    for (unsigned i = 0; i < PROOF_STEPS; i++) {
        codec_put_array(b, STEP_FIELDS);
        codec_put_uint(b, p->steps[i].index);
        put_fixed(b, p->steps[i].hash, p->steps[i].hashed ? sizeof p->steps[i].hash : 0);
    }
    codec_put_text(b, p->end);
    codec_put_text(b, p->reason);
    codec_put_int(b, p->status);
    for (unsigned i = 0; i < PROOF_STREAMS; i++) {
        codec_put_uint(b, p->output_bytes[i]);
        put_fixed(b, p->output_hash[i], sizeof p->output_hash[i]);
    }
    codec_put_uint(b, p->cpu_us);
    codec_put_uint(b, p->memory_peak_bytes);
    codec_put_uint(b, p->wall_ms);
}

void proof_sign(struct builder *out, const struct proof *p, const uint8_t secret_key[KEYS_ED25519_SECRET_BYTES]) {
    uint8_t signature[KEYS_ED25519_SIGNATURE_BYTES];
    struct builder b;
    builder_init(&b, PROOF_BYTES_MAX);
    builder_add(&b, bytes_of(LABEL, sizeof LABEL));
    put_body(&b, p);
    if (b.err == E_OK) {
        keys_sign_ed25519(builder_bytes(&b), secret_key, signature);
        codec_put_array(out, 2);
        codec_put_bytes(out, bytes_of(b.data + sizeof LABEL, b.size - sizeof LABEL));
        put_fixed(out, signature, sizeof signature);
    } else {
        out->err = out->err == E_OK ? b.err : out->err;
    }
    builder_free(&b);
}

static void get_step(struct codec_reader *r, struct proof_transition *t) {
    uint64_t count = codec_array(r, STEP_FIELDS);
    t->index = codec_uint(r, INT64_MAX);
    struct bytes hash = codec_bytes(r, sizeof t->hash);
    t->hashed = hash.size == sizeof t->hash;
    if (t->hashed) {
        memcpy(t->hash, hash.data, hash.size);
    }
    if (r->err == E_OK && (count != STEP_FIELDS || (!t->hashed && hash.size != 0))) {
        r->err = E_BAD_MESSAGE;
    }
}

enum grey_error proof_read_body(struct bytes body, struct proof *p) {
    struct codec_reader r;
    codec_reader_init(&r, body);
    *p = (struct proof){0};
    uint64_t count = codec_array(&r, BODY_FIELDS);
    p->cluster_id = codec_uint(&r, UINT64_MAX);
    p->task = codec_text(&r, LIMIT_NAME_BYTES);
    p->token = codec_uint(&r, UINT64_MAX);
    p->node = codec_uint(&r, UINT64_MAX);
    p->node_name = codec_text(&r, LIMIT_NAME_BYTES);
    codec_fixed(&r, p->public_key, sizeof p->public_key);
    codec_fixed(&r, p->input_hash, sizeof p->input_hash);
    uint64_t steps = codec_array(&r, PROOF_STEPS);
    for (unsigned i = 0; i < PROOF_STEPS && r.err == E_OK; i++) {
        get_step(&r, &p->steps[i]);
    }
    p->end = codec_text(&r, PROOF_WORD_BYTES_MAX);
    p->reason = codec_text(&r, PROOF_WORD_BYTES_MAX);
    int64_t status = codec_int(&r);
    for (unsigned i = 0; i < PROOF_STREAMS; i++) {
        p->output_bytes[i] = codec_uint(&r, INT64_MAX);
        codec_fixed(&r, p->output_hash[i], sizeof p->output_hash[i]);
    }
    p->cpu_us = codec_uint(&r, INT64_MAX);
    p->memory_peak_bytes = codec_uint(&r, INT64_MAX);
    p->wall_ms = codec_uint(&r, INT64_MAX);
    enum grey_error err = codec_end(&r);
    if (err != E_OK) {
        return err;
    }
    p->status = (int32_t)status;
    bool well = count == BODY_FIELDS && steps == PROOF_STEPS && p->status == status &&
                grey_name_valid((const char *)p->task.data, p->task.size);
    return well ? E_OK : E_BAD_MESSAGE;
}

enum grey_error proof_read(struct bytes in, struct proof *p, struct bytes *body, struct bytes *signature) {
    struct codec_reader r;
    codec_reader_init(&r, in);
    uint64_t count = codec_array(&r, 2);
    struct bytes inside = codec_bytes(&r, PROOF_BYTES_MAX), word = codec_bytes(&r, KEYS_ED25519_SIGNATURE_BYTES);
    enum grey_error err = codec_end(&r);
    if (err != E_OK || count != 2 || word.size != KEYS_ED25519_SIGNATURE_BYTES) {
        return err != E_OK ? err : E_BAD_MESSAGE;
    }
    if (body != NULL) {
        *body = inside;
    }
    if (signature != NULL) {
        *signature = word;
    }
    return proof_read_body(inside, p);
}

bool proof_verify(struct bytes body, struct bytes signature, const uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES]) {
    struct builder b;
    builder_init(&b, PROOF_BYTES_MAX + sizeof LABEL);
    builder_add(&b, bytes_of(LABEL, sizeof LABEL));
    builder_add(&b, body);
    bool well = b.err == E_OK && signature.size == KEYS_ED25519_SIGNATURE_BYTES &&
                keys_verify_ed25519(builder_bytes(&b), public_key, signature.data);
    builder_free(&b);
    return well;
}
