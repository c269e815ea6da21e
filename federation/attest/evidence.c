#include "federation/attest/evidence.h"

#include <string.h>

#include "include/grey/must.h"
#include "platform/codec.h"

#define VERSION 1u
#define LABEL "grey-evidence-1"

const char *attest_type_name(enum attest_type type) {
    static const char *const names[ATTEST_TYPES] = {"none", "tpm2", "vtpm", "instance-identity"};
    must(type < ATTEST_TYPES);
    return names[type];
}

bool attest_identity_equal(const struct attest_identity *a, const struct attest_identity *b) {
    return bytes_equal(a->site, b->site) && bytes_equal(a->node, b->node) && a->raft_id == b->raft_id &&
           memcmp(a->signing_key, b->signing_key, sizeof a->signing_key) == 0 &&
           memcmp(a->tls_key, b->tls_key, sizeof a->tls_key) == 0;
}

void attest_put_identity(struct builder *b, const struct attest_identity *who) {
    codec_put_text(b, who->site);
    codec_put_text(b, who->node);
    codec_put_uint(b, who->raft_id);
    codec_put_bytes(b, bytes_of(who->signing_key, sizeof who->signing_key));
    codec_put_bytes(b, bytes_of(who->tls_key, sizeof who->tls_key));
}

bool attest_get_identity(struct codec_reader *r, struct attest_identity *out) {
    out->site = codec_text(r, LIMIT_NAME_BYTES);
    out->node = codec_text(r, LIMIT_NAME_BYTES);
    out->raft_id = codec_uint(r, UINT64_MAX);
    codec_fixed(r, out->signing_key, sizeof out->signing_key);
    codec_fixed(r, out->tls_key, sizeof out->tls_key);
    return r->err == E_OK && out->site.size > 0 && out->node.size > 0;
}

static bool has_tpm(enum attest_type type) {
    return type == ATTEST_TPM2 || type == ATTEST_VTPM;
}

/* --- the statement --------------------------------------------------------------------------------------------------------------------- */

static void put_measured(struct builder *b, const struct evidence_statement *s) {
    codec_put_array(b, 5);
    codec_put_bytes(b, bytes_of(s->key_name, sizeof s->key_name));
    codec_put_uint(b, s->pcr_mask);
    codec_put_array(b, tpmwire_pcr_count(s->pcr_mask));
    for (uint32_t pcr = 0; pcr < TPMWIRE_PCR_COUNT; pcr++) {
        if ((s->pcr_mask >> pcr & 1u) != 0) {
            codec_put_bytes(b, bytes_of(s->pcr[pcr], DIGEST_SHA256_BYTES));
        }
    }
    if (s->boot_log_known) {
        codec_put_null(b);
    } else {
        codec_put_bytes(b, s->boot_log);
    }
    codec_put_bytes(b, s->start_log);
}

void evidence_put_statement(struct builder *b, const struct evidence_statement *s) {
    codec_put_array(b, 10);
    codec_put_uint(b, VERSION);
    codec_put_uint(b, s->type);
    attest_put_identity(b, &s->who);
    codec_put_bytes(b, bytes_of(s->nonce, sizeof s->nonce));
    codec_put_int(b, s->made_ms);
    if (has_tpm(s->type)) {
        put_measured(b, s);
    } else if (s->type == ATTEST_INSTANCE) {
        codec_put_bytes(b, s->document);
    } else {
        codec_put_null(b);
    }
}

static bool get_measured(struct codec_reader *r, struct evidence_statement *s) {
    uint64_t fields = codec_array(r, 5);
    codec_fixed(r, s->key_name, sizeof s->key_name);
    s->pcr_mask = (uint32_t)codec_uint(r, TPMWIRE_PCR_MASK);
    uint64_t values = codec_array(r, TPMWIRE_PCR_COUNT);
    if (r->err != E_OK || fields != 5 || s->pcr_mask == 0 || values != tpmwire_pcr_count(s->pcr_mask)) {
        return false;
    }
    for (uint32_t pcr = 0; pcr < TPMWIRE_PCR_COUNT; pcr++) {
        if ((s->pcr_mask >> pcr & 1u) != 0) {
            codec_fixed(r, s->pcr[pcr], DIGEST_SHA256_BYTES);
        }
    }
    s->boot_log_known = codec_null(r);
    s->boot_log = s->boot_log_known ? bytes_of(NULL, 0) : codec_bytes(r, BOOTLOG_BYTES_MAX);
    s->start_log = codec_bytes(r, STARTLOG_BYTES_MAX);
    return r->err == E_OK;
}

enum grey_error evidence_get_statement(struct bytes in, struct evidence_statement *out) {
    struct codec_reader r;
    struct evidence_statement s;
    memset(&s, 0, sizeof s);
    memset(out, 0, sizeof *out);
    if (in.size > ATTEST_STATEMENT_BYTES_MAX) {
        return E_ATTEST_FORMAT;
    }
    codec_reader_init(&r, in);
    bool well = codec_array(&r, 10) == 10 && codec_uint(&r, VERSION) == VERSION;
    s.type = (enum attest_type)codec_uint(&r, ATTEST_TYPES - 1);
    well = attest_get_identity(&r, &s.who) && well;
    codec_fixed(&r, s.nonce, sizeof s.nonce);
    s.made_ms = codec_int(&r);
    if (!well || r.err != E_OK) {
        return E_ATTEST_FORMAT;
    }
    if (has_tpm(s.type)) {
        well = get_measured(&r, &s);
    } else if (s.type == ATTEST_INSTANCE) {
        s.document = codec_bytes(&r, ATTEST_DOCUMENT_BYTES_MAX);
    } else {
        well = codec_null(&r);
    }
    if (!well || codec_end(&r) != E_OK) {
        return E_ATTEST_FORMAT;
    }
    *out = s;
    return E_OK;
}

/* --- the whole --------------------------------------------------------------------------------------------------------------------------- */

void evidence_put(struct builder *b, const struct evidence *e) {
    codec_put_array(b, 4);
    codec_put_uint(b, VERSION);
    codec_put_bytes(b, e->statement);
    codec_put_bytes(b, e->quote);
    codec_put_bytes(b, bytes_of(e->signature, sizeof e->signature));
}

enum grey_error evidence_get(struct bytes in, struct evidence *out) {
    struct codec_reader r;
    struct evidence e;
    memset(out, 0, sizeof *out);
    if (in.size > ATTEST_EVIDENCE_BYTES_MAX) {
        return E_ATTEST_FORMAT;
    }
    codec_reader_init(&r, in);
    bool well = codec_array(&r, 4) == 4 && codec_uint(&r, VERSION) == VERSION;
    e.statement = codec_bytes(&r, ATTEST_STATEMENT_BYTES_MAX);
    e.quote = codec_bytes(&r, TPMWIRE_QUOTE_BYTES_MAX);
    codec_fixed(&r, e.signature, sizeof e.signature);
    if (!well || codec_end(&r) != E_OK) {
        return E_ATTEST_FORMAT;
    }
    *out = e;
    return E_OK;
}

void evidence_qualify(struct bytes statement, uint8_t out[DIGEST_SHA256_BYTES]) {
    digest_sha256_two(bytes_of(LABEL, sizeof LABEL), statement, out);
}

void evidence_sign(struct bytes statement, const uint8_t secret_key[KEYS_ED25519_SECRET_BYTES], uint8_t signature[64]) {
    uint8_t digest[DIGEST_SHA256_BYTES];
    evidence_qualify(statement, digest);
    keys_sign_ed25519(bytes_of(digest, sizeof digest), secret_key, signature);
}

bool evidence_verify_signed(const struct evidence *e, const uint8_t signing_key[KEYS_ED25519_PUBLIC_BYTES]) {
    uint8_t digest[DIGEST_SHA256_BYTES];
    evidence_qualify(e->statement, digest);
    return e->quote.size == 0 && keys_verify_ed25519(bytes_of(digest, sizeof digest), signing_key, e->signature);
}
