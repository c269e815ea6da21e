#include "federation/attest/introduce.h"

#include <string.h>

#include "platform/codec.h"

#define VERSION 1u

void introduce_put(struct builder *b, const struct introduction *i) {
    codec_put_array(b, 9);
    codec_put_uint(b, VERSION);
    codec_put_uint(b, i->type);
    attest_put_identity(b, &i->who);
    codec_put_bytes(b, i->endorsement);
    codec_put_bytes(b, i->key);
}

enum grey_error introduce_get(struct bytes in, struct introduction *out) {
    struct codec_reader r;
    struct introduction i;
    memset(out, 0, sizeof *out);
    if (in.size > INTRODUCE_BYTES_MAX) {
        return E_ATTEST_FORMAT;
    }
    codec_reader_init(&r, in);
    bool well = codec_array(&r, 9) == 9 && codec_uint(&r, VERSION) == VERSION;
    i.type = (enum attest_type)codec_uint(&r, ATTEST_TYPES - 1);
    well = attest_get_identity(&r, &i.who) && well;
    i.endorsement = codec_bytes(&r, EKCERT_BYTES_MAX);
    i.key = codec_bytes(&r, TPMWIRE_PUBLIC_BYTES_MAX);
    if (!well || codec_end(&r) != E_OK) {
        return E_ATTEST_FORMAT;
    }
    *out = i;
    return E_OK;
}

void introduce_put_challenge(struct builder *b, const struct credential *c) {
    codec_put_array(b, 3);
    codec_put_uint(b, VERSION);
    codec_put_bytes(b, bytes_of(c->blob, sizeof c->blob));
    codec_put_bytes(b, bytes_of(c->seed, sizeof c->seed));
}

enum grey_error introduce_get_challenge(struct bytes in, struct credential *out) {
    struct codec_reader r;
    memset(out, 0, sizeof *out);
    codec_reader_init(&r, in);
    bool well = codec_array(&r, 3) == 3 && codec_uint(&r, VERSION) == VERSION;
    codec_fixed(&r, out->blob, sizeof out->blob);
    codec_fixed(&r, out->seed, sizeof out->seed);
    if (!well || codec_end(&r) != E_OK) {
        memset(out, 0, sizeof *out);
        return E_ATTEST_FORMAT;
    }
    return E_OK;
}

enum grey_error introduce_judge(const struct introduction *i, const struct attest_identity *who,
                                const char *const roots_pem[ATTEST_TYPES], int64_t now_s,
                                const uint8_t random[INTRODUCE_RANDOM_BYTES], struct introduce_pending *pending,
                                struct credential *challenge, struct fault *f) {
    struct ekcert ek;
    memset(pending, 0, sizeof *pending);
    memset(challenge, 0, sizeof *challenge);
    if (!attest_identity_equal(&i->who, who)) {
        return fault_set(f, E_ATTEST_IDENTITY, "the introduction is of another gateway");
    }
    if ((i->type != ATTEST_TPM2 && i->type != ATTEST_VTPM) || roots_pem[i->type] == NULL) {
        return fault_set(f, E_ATTEST_TYPE, "no maker of type %s is trusted here", attest_type_name(i->type));
    }
    enum grey_error err = ekcert_judge(i->endorsement, roots_pem[i->type], now_s, &ek, f);
    if (err != E_OK) {
        return err;
    }
    struct attested claimed = {.type = i->type};
    memcpy(claimed.endorsement, ek.fingerprint, sizeof claimed.endorsement);
    err = tpmwire_key(i->key, &claimed.key);
    if (err != E_OK) {
        return fault_set(f, err, "not a restricted P-256 signing key that was made in a TPM and stays there");
    }
    credential_qualify(&ek, claimed.key.name, claimed.signer);
    err = credential_make(&ek, claimed.key.name, random, random + CREDENTIAL_SECRET_BYTES, challenge);
    if (err != E_OK) {
        return fault_set(f, err, "its endorsement key cannot encrypt");
    }
    pending->claimed = claimed;
    memcpy(pending->secret, random, sizeof pending->secret);
    return E_OK;
}

enum grey_error introduce_accept(struct introduce_pending *pending, struct bytes secret, struct attested *out, struct fault *f) {
    static const uint8_t nothing[CREDENTIAL_SECRET_BYTES];
    bool holds = secret.size == CREDENTIAL_SECRET_BYTES && credential_equal(secret.data, pending->secret) &&
                 !credential_equal(pending->secret, nothing);
    memset(out, 0, sizeof *out);
    if (holds) {
        *out = pending->claimed;
    }
    memset(pending, 0, sizeof *pending);
    return holds ? E_OK : fault_set(f, E_ATTEST_UNPROVEN, "the TPM of that certificate did not open the challenge");
}
