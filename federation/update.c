#include "federation/update.h"

#include <string.h>

#include "platform/codec.h"

enum { BODY_FIELDS = 6, FILE_FIELDS = 3, HEAD_BYTES = 12 };
static const char magic[8] = {'G', 'R', 'E', 'Y', 'U', 'P', 'D', '1'};
static const char label[] = "grey-update-1"; /* with its NUL: what is signed for one purpose must not pass for another */

static bool is_word(struct bytes w) {
    return grey_name_valid((const char *)w.data, w.size) && w.data[0] != '.';
}

static bool is_whole(const struct update_manifest *m) {
    bool good = is_word(m->product) && is_word(m->architecture) && is_word(m->version) && m->counter > 0 && m->file_count > 0;
    for (uint32_t i = 0; i < m->file_count && good; i++) {
        good = is_word(m->files[i].name) && m->files[i].size > 0 && m->files[i].size <= UPDATE_FILE_BYTES_MAX;
        for (uint32_t k = 0; k < i && good; k++) {
            good = !bytes_equal(m->files[k].name, m->files[i].name);
        }
    }
    return good;
}

static void put_body(const struct update_manifest *m, struct builder *out) {
    codec_put_array(out, BODY_FIELDS);
    codec_put_text(out, m->product);
    codec_put_text(out, m->architecture);
    codec_put_text(out, m->version);
    codec_put_uint(out, m->counter);
    codec_put_uint(out, m->replaces_max);
    codec_put_array(out, m->file_count);
    for (uint32_t i = 0; i < m->file_count; i++) {
        codec_put_array(out, FILE_FIELDS);
        codec_put_text(out, m->files[i].name);
        codec_put_uint(out, m->files[i].size);
        codec_put_bytes(out, bytes_of(m->files[i].hash, sizeof m->files[i].hash));
    }
}

static void read_body(struct bytes body, struct update_manifest *m, struct codec_reader *r) {
    codec_reader_init(r, body);
    uint64_t fields = codec_array(r, BODY_FIELDS);
    m->product = codec_text(r, UPDATE_WORD_BYTES_MAX);
    m->architecture = codec_text(r, UPDATE_WORD_BYTES_MAX);
    m->version = codec_text(r, UPDATE_WORD_BYTES_MAX);
    m->counter = codec_uint(r, INT64_MAX);
    m->replaces_max = codec_uint(r, INT64_MAX);
    m->file_count = (uint32_t)codec_array(r, UPDATE_FILES_MAX);
    for (uint32_t i = 0; i < m->file_count; i++) {
        fields = codec_array(r, FILE_FIELDS) == FILE_FIELDS ? fields : 0;
        m->files[i].name = codec_text(r, UPDATE_WORD_BYTES_MAX);
        m->files[i].size = codec_uint(r, UPDATE_FILE_BYTES_MAX);
        codec_fixed(r, m->files[i].hash, sizeof m->files[i].hash);
    }
    if (codec_end(r) == E_OK && fields != BODY_FIELDS) {
        r->err = E_BAD_MESSAGE;
    }
}

enum grey_error update_sign(struct update_manifest *m, const uint8_t secret_key[KEYS_ED25519_SECRET_BYTES],
                            uint8_t header[UPDATE_HEADER_BYTES]) {
    struct builder text, out;
    uint8_t signature[KEYS_ED25519_SIGNATURE_BYTES];
    builder_init(&text, UPDATE_HEADER_BYTES);
    builder_init(&out, UPDATE_HEADER_BYTES - HEAD_BYTES);
    builder_add(&text, bytes_of(label, sizeof label));
    put_body(m, &text);
    bool good = is_whole(m) && text.err == E_OK;
    if (good) {
        struct bytes body = bytes_of(text.data + sizeof label, text.size - sizeof label);
        digest_sha256(body, m->id);
        keys_sign_ed25519(builder_bytes(&text), secret_key, signature);
        codec_put_array(&out, 2);
        codec_put_bytes(&out, body);
        codec_put_bytes(&out, bytes_of(signature, sizeof signature));
        good = out.err == E_OK;
    }
    memset(header, 0, UPDATE_HEADER_BYTES);
    if (good) {
        memcpy(header, magic, sizeof magic);
        bytes_put_be32(header + sizeof magic, (uint32_t)out.size);
        memcpy(header + HEAD_BYTES, out.data, out.size);
    }
    builder_free(&text);
    builder_free(&out);
    return good ? E_OK : E_UPDATE_FORMAT;
}

static enum grey_error split(struct bytes header, struct bytes *body, uint8_t signature[KEYS_ED25519_SIGNATURE_BYTES]) {
    struct codec_reader r;
    uint32_t size = header.size >= UPDATE_HEADER_BYTES ? bytes_get_be32(header.data + sizeof magic) : UINT32_MAX;
    if (size > UPDATE_HEADER_BYTES - HEAD_BYTES || memcmp(header.data, magic, sizeof magic) != 0) {
        return E_UPDATE_FORMAT;
    }
    for (size_t i = HEAD_BYTES + size; i < UPDATE_HEADER_BYTES; i++) { /* one header for each manifest */
        if (header.data[i] != 0) {
            return E_UPDATE_FORMAT;
        }
    }
    codec_reader_init(&r, bytes_of(header.data + HEAD_BYTES, size));
    uint64_t items = codec_array(&r, 2);
    *body = codec_bytes(&r, UPDATE_HEADER_BYTES);
    codec_fixed(&r, signature, KEYS_ED25519_SIGNATURE_BYTES);
    return codec_end(&r) == E_OK && items == 2 ? E_OK : E_UPDATE_FORMAT;
}

static enum grey_error read_header(struct bytes header, struct update_manifest *m, struct bytes *body,
                                   uint8_t signature[KEYS_ED25519_SIGNATURE_BYTES]) {
    struct codec_reader r = {.err = E_OK};
    *m = (struct update_manifest){0};
    enum grey_error err = split(header, body, signature);
    if (err == E_OK) {
        read_body(*body, m, &r);
        err = r.err == E_OK && is_whole(m) ? E_OK : E_UPDATE_FORMAT;
    }
    if (err == E_OK) {
        digest_sha256(*body, m->id);
    } else {
        *m = (struct update_manifest){0};
    }
    return err;
}

enum grey_error update_read(struct bytes header, struct update_manifest *m) {
    struct bytes body;
    uint8_t signature[KEYS_ED25519_SIGNATURE_BYTES];
    return read_header(header, m, &body, signature);
}

enum grey_error update_verify(struct bytes header, const uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES], struct update_manifest *m) {
    struct bytes body;
    struct builder text;
    uint8_t signature[KEYS_ED25519_SIGNATURE_BYTES];
    enum grey_error err = read_header(header, m, &body, signature);
    if (err != E_OK) {
        return err;
    }
    builder_init(&text, sizeof label + UPDATE_HEADER_BYTES);
    builder_add(&text, bytes_of(label, sizeof label));
    builder_add(&text, body);
    if (text.err != E_OK || !keys_verify_ed25519(builder_bytes(&text), public_key, signature)) {
        *m = (struct update_manifest){0};
        err = text.err != E_OK ? text.err : E_UPDATE_SIGNATURE;
    }
    builder_free(&text);
    return err;
}

uint64_t update_offset(const struct update_manifest *m, uint32_t file) {
    uint64_t at = UPDATE_HEADER_BYTES;
    for (uint32_t i = 0; i < file; i++) {
        at += (m->files[i].size + UPDATE_ALIGN_BYTES - 1) / UPDATE_ALIGN_BYTES * UPDATE_ALIGN_BYTES;
    }
    return at;
}

enum grey_error update_fits(const struct update_manifest *m, const char *product, const char *architecture, uint64_t floor) {
    if (!bytes_equal_str(m->product, product) || !bytes_equal_str(m->architecture, architecture)) {
        return E_UPDATE_PRODUCT;
    }
    return m->counter < floor && m->replaces_max < floor ? E_UPDATE_OLDER : E_OK;
}
