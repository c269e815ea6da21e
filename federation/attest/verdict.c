/* Claims, a map with ascending keys (CWT: RFC 8392; confirmation key: RFC 8747; EAR: draft-ietf-rats-ear):
 *
 *   1 issuer · 2 subject "grey://site/node" · 4 until · 6 from · 8 {1: {1: 1, -1: 6, -2: signing key}}
 *   265 profile · 266 {node: {1000: status, 1001: {0: identity, 1: configuration, 2: executables, 4: hardware}, 1003: policy}}
 *   -70001 type · -70002 raft id · -70003 SHA-256 of the TLS key · -70004 serial of the policy · -70005 SHA-256 of the evidence
 *
 * All of them are always there, so there is one encoding of a result. */
#include "federation/attest/verdict.h"

#include <inttypes.h>
#include <string.h>

#include "federation/attest/cose.h"
#include "platform/codec.h"

#define KIND "grey/attestation-result"
#define PROFILE "tag:github.com,2023:veraison/ear"
#define SUBJECT "grey://"
#define SUBJECT_BYTES_MAX (sizeof SUBJECT + 2u * LIMIT_NAME_BYTES)

enum claim {
    CLAIM_ISSUER = 1,
    CLAIM_SUBJECT = 2,
    CLAIM_UNTIL = 4,
    CLAIM_FROM = 6,
    CLAIM_CONFIRMATION = 8,
    CLAIM_PROFILE = 265,
    CLAIM_SUBMODULES = 266,
    CLAIM_STATUS = 1000,
    CLAIM_VECTOR = 1001,
    CLAIM_POLICY = 1003,
    CLAIM_TYPE = -70001,
    CLAIM_RAFT_ID = -70002,
    CLAIM_TLS_KEY = -70003,
    CLAIM_SERIAL = -70004,
    CLAIM_EVIDENCE = -70005
};

struct verdict verdict_of(struct bytes verifier, const struct appraise_question *q, const struct appraisal *a) {
    struct verdict v = {.verifier = verifier,
                        .who = q->who,
                        .from_s = q->now_ms / 1000,
                        .until_s = q->now_ms / 1000 + q->policy->validity_s,
                        .type = a->type,
                        .status = a->status,
                        .identity = a->identity,
                        .configuration = a->configuration,
                        .executables = a->executables,
                        .hardware = a->hardware,
                        .policy = q->policy->name,
                        .policy_serial = q->policy->serial};
    memcpy(v.evidence_digest, a->evidence_digest, sizeof v.evidence_digest);
    return v;
}

static void put_subject(struct builder *b, const struct attest_identity *who) {
    uint8_t text[SUBJECT_BYTES_MAX];
    size_t prefix = sizeof SUBJECT - 1;
    if (who->site.size == 0 || who->site.size > LIMIT_NAME_BYTES || who->node.size == 0 || who->node.size > LIMIT_NAME_BYTES ||
        memchr(who->site.data, '/', who->site.size) != NULL) {
        b->err = E_BAD_MESSAGE;
        return;
    }
    memcpy(text, SUBJECT, prefix);
    memcpy(text + prefix, who->site.data, who->site.size);
    text[prefix + who->site.size] = '/';
    memcpy(text + prefix + who->site.size + 1, who->node.data, who->node.size);
    codec_put_text(b, bytes_of(text, prefix + who->site.size + 1 + who->node.size));
}

static void put_claims(struct builder *b, const struct verdict *v) {
    codec_put_map(b, 12);
    codec_put_int(b, CLAIM_ISSUER);
    codec_put_text(b, v->verifier);
    codec_put_int(b, CLAIM_SUBJECT);
    put_subject(b, &v->who);
    codec_put_int(b, CLAIM_UNTIL);
    codec_put_int(b, v->until_s);
    codec_put_int(b, CLAIM_FROM);
    codec_put_int(b, v->from_s);
    codec_put_int(b, CLAIM_CONFIRMATION);
    codec_put_map(b, 1);
    codec_put_int(b, 1);
    codec_put_map(b, 3);
    codec_put_int(b, 1), codec_put_int(b, 1);  /* key type: OKP */
    codec_put_int(b, -1), codec_put_int(b, 6); /* curve: Ed25519 */
    codec_put_int(b, -2), codec_put_bytes(b, bytes_of(v->who.signing_key, sizeof v->who.signing_key));
    codec_put_int(b, CLAIM_PROFILE);
    codec_put_text(b, bytes_str(PROFILE));
    codec_put_int(b, CLAIM_SUBMODULES);
    codec_put_map(b, 1);
    codec_put_text(b, v->who.node);
    codec_put_map(b, 3);
    codec_put_int(b, CLAIM_STATUS), codec_put_int(b, v->status);
    codec_put_int(b, CLAIM_VECTOR);
    codec_put_map(b, 4);
    codec_put_int(b, 0), codec_put_int(b, v->identity);
    codec_put_int(b, 1), codec_put_int(b, v->configuration);
    codec_put_int(b, 2), codec_put_int(b, v->executables);
    codec_put_int(b, 4), codec_put_int(b, v->hardware);
    codec_put_int(b, CLAIM_POLICY);
    codec_put_text(b, v->policy);
    codec_put_int(b, CLAIM_TYPE), codec_put_uint(b, v->type);
    codec_put_int(b, CLAIM_RAFT_ID), codec_put_uint(b, v->who.raft_id);
    codec_put_int(b, CLAIM_TLS_KEY), codec_put_bytes(b, bytes_of(v->who.tls_key, sizeof v->who.tls_key));
    codec_put_int(b, CLAIM_SERIAL), codec_put_uint(b, v->policy_serial);
    codec_put_int(b, CLAIM_EVIDENCE), codec_put_bytes(b, bytes_of(v->evidence_digest, sizeof v->evidence_digest));
}

enum grey_error verdict_sign(struct builder *out, const struct verdict *v, const uint8_t public_key[KEYS_ED25519_PUBLIC_BYTES],
                             const uint8_t secret_key[KEYS_ED25519_SECRET_BYTES]) {
    struct builder b;
    builder_init(&b, VERDICT_BYTES_MAX - COSE_OVERHEAD_BYTES);
    put_claims(&b, v);
    enum grey_error err = b.err != E_OK ? b.err : cose_sign(out, KIND, builder_bytes(&b), public_key, secret_key);
    builder_free(&b);
    return err;
}

/* Reads one number that must stand there. */
static void expect(struct codec_reader *r, int64_t wanted) {
    if (codec_int(r) != wanted && r->err == E_OK) {
        r->err = E_BAD_MESSAGE;
    }
}

static uint8_t tier_of(struct codec_reader *r, int64_t claim) {
    expect(r, claim);
    return (uint8_t)codec_uint(r, 127);
}

static void get_subject(struct codec_reader *r, struct attest_identity *who) {
    struct bytes subject = codec_text(r, SUBJECT_BYTES_MAX);
    size_t prefix = sizeof SUBJECT - 1;
    const uint8_t *slash = subject.size > prefix && memcmp(subject.data, SUBJECT, prefix) == 0
                               ? memchr(subject.data + prefix, '/', subject.size - prefix)
                               : NULL;
    if (slash == NULL) {
        r->err = r->err == E_OK ? E_BAD_MESSAGE : r->err;
        return;
    }
    who->site = bytes_of(subject.data + prefix, (size_t)(slash - subject.data) - prefix);
    who->node = bytes_of(slash + 1, subject.size - (size_t)(slash + 1 - subject.data));
    if (who->site.size == 0 || who->node.size == 0) {
        r->err = E_BAD_MESSAGE;
    }
}

static bool get_claims(struct bytes in, struct verdict *v) {
    struct codec_reader r;
    codec_reader_init(&r, in);
    bool well = codec_map(&r, 12) == 12;
    expect(&r, CLAIM_ISSUER);
    v->verifier = codec_text(&r, LIMIT_NAME_BYTES);
    expect(&r, CLAIM_SUBJECT);
    get_subject(&r, &v->who);
    expect(&r, CLAIM_UNTIL);
    v->until_s = codec_int(&r);
    expect(&r, CLAIM_FROM);
    v->from_s = codec_int(&r);
    expect(&r, CLAIM_CONFIRMATION);
    well = codec_map(&r, 1) == 1 && well;
    expect(&r, 1);
    well = codec_map(&r, 3) == 3 && well;
    expect(&r, 1), expect(&r, 1), expect(&r, -1), expect(&r, 6), expect(&r, -2);
    codec_fixed(&r, v->who.signing_key, sizeof v->who.signing_key);
    expect(&r, CLAIM_PROFILE);
    well = bytes_equal_str(codec_text(&r, sizeof PROFILE), PROFILE) && well;
    expect(&r, CLAIM_SUBMODULES);
    well = codec_map(&r, 1) == 1 && well;
    well = bytes_equal(codec_text(&r, LIMIT_NAME_BYTES), v->who.node) && well;
    well = codec_map(&r, 3) == 3 && well;
    v->status = tier_of(&r, CLAIM_STATUS);
    expect(&r, CLAIM_VECTOR);
    well = codec_map(&r, 4) == 4 && well;
    v->identity = tier_of(&r, 0);
    v->configuration = tier_of(&r, 1);
    v->executables = tier_of(&r, 2);
    v->hardware = tier_of(&r, 4);
    expect(&r, CLAIM_POLICY);
    v->policy = codec_text(&r, LIMIT_NAME_BYTES);
    expect(&r, CLAIM_TYPE);
    v->type = (enum attest_type)codec_uint(&r, ATTEST_TYPES - 1);
    expect(&r, CLAIM_RAFT_ID);
    v->who.raft_id = codec_uint(&r, UINT64_MAX);
    expect(&r, CLAIM_TLS_KEY);
    codec_fixed(&r, v->who.tls_key, sizeof v->who.tls_key);
    expect(&r, CLAIM_SERIAL);
    v->policy_serial = codec_uint(&r, UINT64_MAX);
    expect(&r, CLAIM_EVIDENCE);
    codec_fixed(&r, v->evidence_digest, sizeof v->evidence_digest);
    return codec_end(&r) == E_OK && well && v->verifier.size > 0 && v->policy.size > 0;
}

enum grey_error verdict_open(struct bytes in, const uint8_t (*public_keys)[KEYS_ED25519_PUBLIC_BYTES], uint32_t key_count,
                             int64_t now_s, struct verdict *out, struct fault *f) {
    struct bytes payload;
    memset(out, 0, sizeof *out);
    enum grey_error err =
        in.size > VERDICT_BYTES_MAX ? E_BAD_MESSAGE : cose_open(in, KIND, public_keys, key_count, VERDICT_BYTES_MAX, &payload);
    if (err == E_NO_MEMORY) {
        return err;
    }
    if (err != E_OK || !get_claims(payload, out)) {
        memset(out, 0, sizeof *out);
        return fault_set(f, E_ATTEST_RESULT, err == E_SEAL ? "no verifier that is trusted here signed it" : "it is malformed");
    }
    if (out->from_s < 0 || out->until_s <= out->from_s || out->until_s - out->from_s > (int64_t)REFERENCE_VALIDITY_S_MAX ||
        out->from_s > now_s + VERDICT_CLOCKS_APART_S) {
        return fault_set(f, E_ATTEST_RESULT, "it is of %" PRId64 " to %" PRId64 " (Unix seconds), and it is %" PRId64, out->from_s,
                         out->until_s, now_s);
    }
    return now_s >= out->until_s ? fault_set(f, E_ATTEST_EXPIRED, "it was good until %" PRId64 " (Unix seconds)", out->until_s)
                                 : E_OK;
}
