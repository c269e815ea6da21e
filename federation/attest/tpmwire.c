#include "federation/attest/tpmwire.h"

#include <string.h>

#define GENERATED 0xff544347u /* only a TPM signs what begins with this, with a restricted key */
#define ST_QUOTE 0x8018u
#define ALG_SHA256 0x000bu
#define ALG_NULL 0x0010u
#define ALG_ECDSA 0x0018u
#define ALG_ECC 0x0023u
#define CURVE_P256 0x0003u
#define POINT_BYTES 32u
#define BANKS_MAX 16u /* of the TPM's structures */

#define ATTRIBUTE_FIXED_TPM (1u << 1)
#define ATTRIBUTE_FIXED_PARENT (1u << 4)
#define ATTRIBUTE_ORIGIN (1u << 5)
#define ATTRIBUTE_RESTRICTED (1u << 16)
#define ATTRIBUTE_DECRYPT (1u << 17)
#define ATTRIBUTE_SIGN (1u << 18)
#define ATTRIBUTES_NEEDED (ATTRIBUTE_FIXED_TPM | ATTRIBUTE_FIXED_PARENT | ATTRIBUTE_ORIGIN | ATTRIBUTE_RESTRICTED | ATTRIBUTE_SIGN)

/* A bounded cursor; after a read beyond the end, bad is set and everything is 0. */
struct cursor {
    struct bytes rest;
    bool bad;
};

static struct bytes take(struct cursor *c, size_t size) {
    if (c->bad || size > c->rest.size) {
        c->bad = true;
        return bytes_of(NULL, 0);
    }
    struct bytes out = bytes_of(c->rest.data, size);
    c->rest = bytes_of(c->rest.data + size, c->rest.size - size);
    return out;
}

static uint64_t number(struct cursor *c, size_t size) {
    struct bytes b = take(c, size);
    uint64_t out = 0;
    for (size_t i = 0; i < b.size; i++) {
        out = out << 8 | b.data[i];
    }
    return out;
}

/* TPM2B_*: size u16, bytes. */
static struct bytes sized(struct cursor *c) {
    return take(c, (size_t)number(c, 2));
}

static bool at_end(const struct cursor *c) {
    return !c->bad && c->rest.size == 0;
}

enum grey_error tpmwire_quote(struct bytes in, struct tpmwire_quote *out) {
    struct cursor c = {.rest = in, .bad = in.size > TPMWIRE_QUOTE_BYTES_MAX};
    uint64_t magic = number(&c, 4), type = number(&c, 2);
    struct tpmwire_quote q = {.pcr_mask = 0};
    q.signer = sized(&c);
    q.extra = sized(&c);
    q.clock_ms = number(&c, 8);
    q.reset_count = (uint32_t)number(&c, 4);
    q.restart_count = (uint32_t)number(&c, 4);
    uint64_t safe = number(&c, 1);
    q.safe = safe == 1;
    q.firmware = number(&c, 8);
    uint64_t banks = number(&c, 4);
    bool as_ours = banks == 1;
    for (uint64_t i = 0; i < banks && i < BANKS_MAX; i++) {
        as_ours = number(&c, 2) == ALG_SHA256 && as_ours;
        struct bytes select = take(&c, (size_t)number(&c, 1));
        as_ours = as_ours && select.size == 3;
        for (size_t at = 0; at < select.size && at < 3; at++) {
            q.pcr_mask |= (uint32_t)select.data[at] << 8 * at;
        }
    }
    q.pcr_digest = sized(&c);
    memset(out, 0, sizeof *out);
    if (!at_end(&c) || safe > 1 || magic != GENERATED || type != ST_QUOTE) {
        return E_ATTEST_QUOTE;
    }
    if (!as_ours || q.pcr_digest.size != DIGEST_SHA256_BYTES) {
        return E_ATTEST_SELECTION;
    }
    *out = q;
    return E_OK;
}

enum grey_error tpmwire_key(struct bytes in, struct tpmwire_key *out) {
    struct cursor c = {.rest = in, .bad = in.size > TPMWIRE_PUBLIC_BYTES_MAX};
    memset(out, 0, sizeof *out);
    uint64_t type = number(&c, 2), name_alg = number(&c, 2), attributes = number(&c, 4);
    (void)sized(&c); /* policy: what the owner needs to use it; the name vouches for it */
    uint64_t symmetric = number(&c, 2), scheme = number(&c, 2), hash = number(&c, 2), curve = number(&c, 2), kdf = number(&c, 2);
    struct bytes x = sized(&c), y = sized(&c);
    if (!at_end(&c) || type != ALG_ECC || name_alg != ALG_SHA256 || symmetric != ALG_NULL || scheme != ALG_ECDSA ||
        hash != ALG_SHA256 || curve != CURVE_P256 || kdf != ALG_NULL || x.size == 0 || x.size > POINT_BYTES || y.size == 0 ||
        y.size > POINT_BYTES) {
        return E_ATTEST_KEY;
    }
    if ((attributes & (ATTRIBUTES_NEEDED | ATTRIBUTE_DECRYPT)) != ATTRIBUTES_NEEDED) {
        return E_ATTEST_KEY;
    }
    memcpy(out->point + POINT_BYTES - x.size, x.data, x.size);
    memcpy(out->point + 2 * POINT_BYTES - y.size, y.data, y.size);
    bytes_put_be16(out->name, ALG_SHA256);
    digest_sha256(in, out->name + 2);
    return E_OK;
}

enum grey_error tpmwire_signature(struct bytes in, uint8_t out[TPMWIRE_SIGNATURE_BYTES]) {
    struct cursor c = {.rest = in, .bad = false};
    memset(out, 0, TPMWIRE_SIGNATURE_BYTES);
    uint64_t scheme = number(&c, 2), hash = number(&c, 2);
    struct bytes r = sized(&c), s = sized(&c);
    if (!at_end(&c) || scheme != ALG_ECDSA || hash != ALG_SHA256 || r.size == 0 || r.size > 32 || s.size == 0 || s.size > 32) {
        return E_BAD_MESSAGE;
    }
    memcpy(out + 32 - r.size, r.data, r.size);
    memcpy(out + 64 - s.size, s.data, s.size);
    return E_OK;
}

void tpmwire_pcr_digest(const uint8_t (*values)[DIGEST_SHA256_BYTES], uint32_t count, uint8_t out[DIGEST_SHA256_BYTES]) {
    digest_sha256(bytes_of(values, (size_t)count * DIGEST_SHA256_BYTES), out);
}

uint32_t tpmwire_pcr_count(uint32_t mask) {
    uint32_t count = 0;
    for (uint32_t pcr = 0; pcr < TPMWIRE_PCR_COUNT; pcr++) {
        count += mask >> pcr & 1u;
    }
    return count;
}
