#include "federation/attest/reference.h"

#include <string.h>

#include "platform/codec.h"

#define VERSION 1u
#define TYPES_WITH_TPM (1u << ATTEST_TPM2 | 1u << ATTEST_VTPM)

void reference_put(struct builder *b, const struct reference *p) {
    codec_put_array(b, 10);
    codec_put_uint(b, VERSION);
    codec_put_text(b, p->name);
    codec_put_uint(b, p->serial);
    codec_put_bool(b, p->learn);
    codec_put_bool(b, p->needs_boot_log);
    codec_put_uint(b, p->types);
    codec_put_uint(b, p->pcr_mask);
    codec_put_uint(b, p->validity_s);
    codec_put_array(b, p->firmware_count);
    for (uint32_t i = 0; i < p->firmware_count; i++) {
        codec_put_uint(b, p->firmwares[i]);
    }
    codec_put_array(b, p->value_count);
    for (uint32_t i = 0; i < p->value_count; i++) {
        const struct reference_value *v = &p->values[i];
        codec_put_array(b, 5);
        codec_put_uint(b, v->kind);
        codec_put_uint(b, v->pcr);
        codec_put_bytes(b, bytes_of(v->digest, sizeof v->digest));
        codec_put_int(b, v->from_ms);
        codec_put_int(b, v->until_ms);
    }
}

static bool get_value(struct codec_reader *r, struct reference_value *v) {
    uint64_t fields = codec_array(r, 5);
    v->kind = (enum reference_kind)codec_uint(r, REFERENCE_KINDS - 1);
    v->pcr = (uint32_t)codec_uint(r, TPMWIRE_PCR_COUNT - 1);
    codec_fixed(r, v->digest, sizeof v->digest);
    v->from_ms = codec_int(r);
    v->until_ms = codec_int(r);
    bool of_start = v->kind == REFERENCE_PROGRAM || v->kind == REFERENCE_CONFIG;
    return r->err == E_OK && fields == 5 && of_start == (v->pcr == STARTLOG_PCR) && v->from_ms >= 0 &&
           (v->until_ms == -1 || v->until_ms > v->from_ms);
}

static bool get(struct bytes in, struct reference *p) {
    struct codec_reader r;
    codec_reader_init(&r, in);
    bool well = codec_array(&r, 10) == 10 && codec_uint(&r, VERSION) == VERSION;
    p->name = codec_text(&r, LIMIT_NAME_BYTES);
    p->serial = codec_uint(&r, UINT64_MAX);
    p->learn = codec_bool(&r);
    p->needs_boot_log = codec_bool(&r);
    p->types = (uint32_t)codec_uint(&r, (1u << ATTEST_TYPES) - 1);
    p->pcr_mask = (uint32_t)codec_uint(&r, TPMWIRE_PCR_MASK);
    p->validity_s = (uint32_t)codec_uint(&r, REFERENCE_VALIDITY_S_MAX);
    p->firmware_count = (uint32_t)codec_array(&r, REFERENCE_FIRMWARES_MAX);
    for (uint32_t i = 0; i < p->firmware_count && r.err == E_OK; i++) {
        p->firmwares[i] = codec_uint(&r, UINT64_MAX);
    }
    p->value_count = (uint32_t)codec_array(&r, REFERENCE_VALUES_MAX);
    for (uint32_t i = 0; i < p->value_count && r.err == E_OK; i++) {
        well = well && get_value(&r, &p->values[i]);
    }
    return well && codec_end(&r) == E_OK && p->name.size > 0 && p->types != 0 && p->validity_s >= REFERENCE_VALIDITY_S_MIN &&
           ((p->types & TYPES_WITH_TPM) == 0 || p->pcr_mask != 0);
}

enum grey_error reference_get(struct bytes in, struct reference *out) {
    memset(out, 0, sizeof *out);
    if (in.size > REFERENCE_BYTES_MAX || !get(in, out)) {
        memset(out, 0, sizeof *out);
        return E_ATTEST_POLICY;
    }
    return E_OK;
}

bool reference_names(const struct reference *p, enum reference_kind kind, uint32_t pcr) {
    for (uint32_t i = 0; i < p->value_count; i++) {
        if (p->values[i].kind == kind && p->values[i].pcr == pcr) {
            return true;
        }
    }
    return false;
}

bool reference_accepts(const struct reference *p, enum reference_kind kind, uint32_t pcr, const uint8_t digest[DIGEST_SHA256_BYTES],
                       int64_t now_ms, bool ever) {
    for (uint32_t i = 0; i < p->value_count; i++) {
        const struct reference_value *v = &p->values[i];
        if (v->kind == kind && v->pcr == pcr && memcmp(v->digest, digest, sizeof v->digest) == 0 && now_ms >= v->from_ms &&
            (ever || v->until_ms == -1 || now_ms < v->until_ms)) {
            return true;
        }
    }
    return false;
}

bool reference_accepts_firmware(const struct reference *p, uint64_t firmware) {
    for (uint32_t i = 0; i < p->firmware_count; i++) {
        if (p->firmwares[i] == firmware) {
            return true;
        }
    }
    return p->firmware_count == 0;
}
