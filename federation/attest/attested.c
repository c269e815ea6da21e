#include "federation/attest/attested.h"

#include <string.h>

#include "platform/codec.h"

#define VERSION 1u

void attested_put(struct builder *b, const struct attested *a) {
    codec_put_array(b, a->seen ? 16 : 6);
    codec_put_uint(b, VERSION);
    codec_put_uint(b, a->type);
    codec_put_bytes(b, bytes_of(a->endorsement, sizeof a->endorsement));
    codec_put_bytes(b, bytes_of(a->key.name, sizeof a->key.name));
    codec_put_bytes(b, bytes_of(a->key.point, sizeof a->key.point));
    codec_put_bytes(b, bytes_of(a->signer, sizeof a->signer));
    if (!a->seen) {
        return;
    }
    codec_put_uint(b, a->clock_ms);
    codec_put_uint(b, a->firmware);
    codec_put_uint(b, a->policy_serial);
    codec_put_uint(b, a->reset_count);
    codec_put_uint(b, a->restart_count);
    codec_put_uint(b, a->pcr_mask);
    codec_put_array(b, tpmwire_pcr_count(a->pcr_mask));
    for (uint32_t pcr = 0; pcr < TPMWIRE_PCR_COUNT; pcr++) {
        if ((a->pcr_mask >> pcr & 1u) != 0) {
            codec_put_bytes(b, bytes_of(a->pcr[pcr], DIGEST_SHA256_BYTES));
        }
    }
    codec_put_bytes(b, bytes_of(a->start_base, sizeof a->start_base));
    codec_put_bytes(b, bytes_of(a->program, sizeof a->program));
    codec_put_bytes(b, bytes_of(a->config, sizeof a->config));
}

static bool get_seen(struct codec_reader *r, struct attested *a) {
    a->clock_ms = codec_uint(r, UINT64_MAX);
    a->firmware = codec_uint(r, UINT64_MAX);
    a->policy_serial = codec_uint(r, UINT64_MAX);
    a->reset_count = (uint32_t)codec_uint(r, UINT32_MAX);
    a->restart_count = (uint32_t)codec_uint(r, UINT32_MAX);
    a->pcr_mask = (uint32_t)codec_uint(r, TPMWIRE_PCR_MASK);
    if (codec_array(r, TPMWIRE_PCR_COUNT) != tpmwire_pcr_count(a->pcr_mask)) {
        return false;
    }
    for (uint32_t pcr = 0; pcr < TPMWIRE_PCR_COUNT; pcr++) {
        if ((a->pcr_mask >> pcr & 1u) != 0) {
            codec_fixed(r, a->pcr[pcr], DIGEST_SHA256_BYTES);
        }
    }
    codec_fixed(r, a->start_base, sizeof a->start_base);
    codec_fixed(r, a->program, sizeof a->program);
    codec_fixed(r, a->config, sizeof a->config);
    return true;
}

enum grey_error attested_get(struct bytes in, struct attested *out) {
    struct codec_reader r;
    memset(out, 0, sizeof *out);
    codec_reader_init(&r, in);
    uint64_t fields = codec_array(&r, 16);
    bool well = (fields == 6 || fields == 16) && codec_uint(&r, VERSION) == VERSION;
    out->type = (enum attest_type)codec_uint(&r, ATTEST_TYPES - 1);
    codec_fixed(&r, out->endorsement, sizeof out->endorsement);
    codec_fixed(&r, out->key.name, sizeof out->key.name);
    codec_fixed(&r, out->key.point, sizeof out->key.point);
    codec_fixed(&r, out->signer, sizeof out->signer);
    out->seen = fields == 16;
    well = well && (!out->seen || get_seen(&r, out));
    if (!well || codec_end(&r) != E_OK) {
        memset(out, 0, sizeof *out);
        return E_ATTEST_FORMAT;
    }
    return E_OK;
}
