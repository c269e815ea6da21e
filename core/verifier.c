/* What is kept, an array of 11: version, type, identity (5), proven key (attested.h; empty: none), claimed key (the same; while a challenge is out),
 * state array of 6: phase, secret or nonce that is out (32 bytes), since ms, judged ms, until ms, id of the last refusal; its detail. */
#include "core/verifier.h"

#include <string.h>

#include "federation/attest/inquiry.h"
#include "platform/codec.h"

#define VERSION 1u
#define ERROR_ID_MAX 9999u

enum phase { PHASE_QUIET, PHASE_CHALLENGED, PHASE_ASKED, PHASES };

struct kept {
    enum attest_type type;
    struct attest_identity who;
    struct bytes proven, claimed;
    enum phase phase;
    uint8_t out[32];
    int64_t since_ms, judged_ms, until_ms;
    uint64_t error_id;
    struct bytes detail;
};

static enum grey_error get_kept(struct bytes in, struct kept *k) {
    struct codec_reader r;
    memset(k, 0, sizeof *k);
    if (in.size == 0) {
        return E_OK;
    }
    codec_reader_init(&r, in);
    bool well = codec_array(&r, 11) == 11 && codec_uint(&r, VERSION) == VERSION;
    k->type = (enum attest_type)codec_uint(&r, ATTEST_TYPES - 1);
    well = attest_get_identity(&r, &k->who) && well;
    k->proven = codec_bytes(&r, ATTESTED_BYTES_MAX);
    k->claimed = codec_bytes(&r, ATTESTED_BYTES_MAX);
    well = codec_array(&r, 6) == 6 && well;
    k->phase = (enum phase)codec_uint(&r, PHASES - 1);
    codec_fixed(&r, k->out, sizeof k->out);
    k->since_ms = codec_int(&r);
    k->judged_ms = codec_int(&r);
    k->until_ms = codec_int(&r);
    k->error_id = codec_uint(&r, ERROR_ID_MAX);
    k->detail = codec_text(&r, EXCHANGE_DETAIL_BYTES);
    if (!well || codec_end(&r) != E_OK) {
        memset(k, 0, sizeof *k); /* nothing of it is written again */
        return E_ATTEST_FORMAT;
    }
    return E_OK;
}

static void put_kept(struct builder *b, const struct kept *k) {
    codec_put_array(b, 11);
    codec_put_uint(b, VERSION);
    codec_put_uint(b, k->type);
    attest_put_identity(b, &k->who);
    codec_put_bytes(b, k->proven);
    codec_put_bytes(b, k->claimed);
    codec_put_array(b, 6);
    codec_put_uint(b, k->phase);
    codec_put_bytes(b, bytes_of(k->out, sizeof k->out));
    codec_put_int(b, k->since_ms);
    codec_put_int(b, k->judged_ms);
    codec_put_int(b, k->until_ms);
    codec_put_uint(b, k->error_id);
    codec_put_text(b, k->detail);
}

/* One message under way: what was kept becomes what is to be kept. */
struct hearing {
    const struct verifier *v;
    const struct verifier_message *m;
    struct kept k;
    struct builder scratch; /* of a key that replaces the one kept */
    int64_t now_ms;
    enum exchange_word word;
    bool unasked; /* a message that came twice says nothing against the gateway */
    struct builder *reply;
    struct fault *f;
};

static bool speaks_for_itself(const struct hearing *h, const struct attest_identity *who) {
    return bytes_equal(who->site, h->m->site) && bytes_equal(who->node, h->m->node);
}

static void set_out(struct hearing *h, enum phase phase, const uint8_t out[32]) {
    h->k.phase = phase;
    h->k.since_ms = h->now_ms;
    memcpy(h->k.out, out, sizeof h->k.out);
}

/* A question or challenge is used once, and not after its time. */
static enum grey_error take_out(struct hearing *h, enum phase wanted, uint8_t out[32]) {
    bool is_out = h->k.phase == wanted && h->now_ms - h->k.since_ms < VERIFIER_PATIENCE_MS && h->now_ms >= h->k.since_ms;
    memcpy(out, h->k.out, sizeof h->k.out);
    memset(h->k.out, 0, sizeof h->k.out);
    h->k.phase = PHASE_QUIET;
    h->unasked = !is_out;
    return is_out ? E_OK : fault_set(h->f, E_ATTEST_NONCE, "nothing was asked, or too long ago");
}

static enum grey_error put_attested(struct hearing *h, const struct attested *a, struct bytes *slot) {
    builder_reset(&h->scratch);
    attested_put(&h->scratch, a);
    *slot = builder_bytes(&h->scratch);
    return h->scratch.err;
}

static enum grey_error inquire(struct hearing *h) {
    struct inquiry i = {.pcr_mask = h->v->policy->pcr_mask == 0 ? 1u << STARTLOG_PCR : h->v->policy->pcr_mask};
    struct attested known;
    i.boot_log_known = h->k.proven.size > 0 && attested_get(h->k.proven, &known) == E_OK && known.seen && h->k.error_id == 0 &&
                       known.policy_serial == h->v->policy->serial;
    keys_random(i.nonce, sizeof i.nonce);
    set_out(h, PHASE_ASKED, i.nonce);
    h->word = EXCHANGE_INQUIRY;
    inquiry_put(h->reply, &i);
    return E_OK;
}

static bool has_tpm(enum attest_type type) {
    return type == ATTEST_TPM2 || type == ATTEST_VTPM;
}

/* Who a gateway is may change while its TPM stays: a new disk, new keys.  The rest is another gateway under its name. */
static enum grey_error hear_ask(struct hearing *h) {
    struct inquiry_order o;
    if (inquiry_get_order(h->m->body, &o) != E_OK) {
        return fault_set(h->f, E_ATTEST_FORMAT, "its wish cannot be read");
    }
    if (!speaks_for_itself(h, &o.who)) {
        return fault_set(h->f, E_ATTEST_IDENTITY, "it asks for another gateway");
    }
    if ((h->v->policy->types >> o.type & 1u) == 0) {
        return fault_set(h->f, E_ATTEST_TYPE, "it is of type %s", attest_type_name(o.type));
    }
    bool known = h->k.who.site.size > 0;
    bool same = known && attest_identity_equal(&h->k.who, &o.who);
    if (known && h->k.type != o.type) {
        return fault_set(h->f, E_ATTEST_TYPE, "it is of type %s, but known to have %s", attest_type_name(o.type),
                         attest_type_name(h->k.type));
    }
    if (has_tpm(o.type)) {
        bool has_lost_its_key =
            h->k.error_id == (uint64_t)error_id(E_ATTEST_UNPROVEN); /* a TPM that was cleared: it may prove a new one */
        if (same && h->k.proven.size > 0 && !has_lost_its_key) {
            return inquire(h);
        }
        h->word = EXCHANGE_INTRODUCE;
        return E_OK;
    }
    if (known && !same) {
        return fault_set(h->f, E_ATTEST_IDENTITY, "the gateway of this name has other keys");
    }
    h->k.type = o.type, h->k.who = o.who;
    return inquire(h);
}

static enum grey_error hear_introduction(struct hearing *h) {
    struct introduction i;
    struct introduce_pending pending;
    struct credential challenge;
    struct attested proven;
    uint8_t random[INTRODUCE_RANDOM_BYTES];
    if (introduce_get(h->m->body, &i) != E_OK) {
        return fault_set(h->f, E_ATTEST_FORMAT, "its introduction cannot be read");
    }
    if (!speaks_for_itself(h, &i.who)) {
        return fault_set(h->f, E_ATTEST_IDENTITY, "it introduces another gateway");
    }
    keys_random(random, sizeof random);
    enum grey_error err = introduce_judge(&i, &i.who, h->v->roots_pem, h->now_ms / 1000, random, &pending, &challenge, h->f);
    if (err != E_OK) {
        return err;
    }
    if (h->m->registered != NULL && memcmp(h->m->registered, pending.claimed.endorsement, DIGEST_SHA256_BYTES) != 0) {
        return fault_set(h->f, E_ATTEST_IDENTITY, "another TPM was registered for the gateway of this name");
    }
    bool was_proven = h->k.proven.size > 0 && attested_get(h->k.proven, &proven) == E_OK;
    if (was_proven && memcmp(proven.endorsement, pending.claimed.endorsement, sizeof proven.endorsement) != 0) {
        return fault_set(h->f, E_ATTEST_IDENTITY, "the gateway of this name has another TPM; forget it first, if it was replaced");
    }
    h->k.type = i.type, h->k.who = i.who;
    err = put_attested(h, &pending.claimed, &h->k.claimed);
    set_out(h, PHASE_CHALLENGED, pending.secret);
    h->word = EXCHANGE_CHALLENGE;
    introduce_put_challenge(h->reply, &challenge);
    return err;
}

static enum grey_error hear_secret(struct hearing *h) {
    struct introduce_pending pending;
    struct attested proven;
    enum grey_error err = take_out(h, PHASE_CHALLENGED, pending.secret);
    if (err == E_OK && attested_get(h->k.claimed, &pending.claimed) != E_OK) {
        err = fault_set(h->f, E_ATTEST_UNPROVEN, "no key was introduced");
    }
    err = err != E_OK ? err : introduce_accept(&pending, h->m->body, &proven, h->f);
    h->k.claimed = bytes_of(NULL, 0);
    err = err != E_OK ? err : put_attested(h, &proven, &h->k.proven);
    h->k.error_id = err == E_OK ? 0 : h->k.error_id;
    return err != E_OK ? err : inquire(h);
}

static enum grey_error hear_evidence(struct hearing *h) {
    struct appraise_question q = {.who = h->k.who,
                                  .policy = h->v->policy,
                                  .document_keys = h->v->document_keys,
                                  .document_key_count = h->v->document_key_count,
                                  .now_ms = h->now_ms};
    struct attested known;
    struct appraisal a;
    enum grey_error err = take_out(h, PHASE_ASKED, q.nonce);
    if (err != E_OK) {
        return err;
    }
    if (h->k.proven.size > 0) {
        if (attested_get(h->k.proven, &known) != E_OK) {
            return fault_set(h->f, E_ATTEST_FORMAT, "what is kept of it cannot be read");
        }
        q.known = &known;
    }
    err = appraise(&q, h->m->body, &a, h->f);
    if (err != E_OK) {
        return err;
    }
    struct verdict verdict = verdict_of(bytes_str(h->v->name), &q, &a);
    h->word = EXCHANGE_RESULT;
    err = verdict_sign(h->reply, &verdict, h->v->public_key, h->v->secret_key);
    err = err != E_OK ? err : put_attested(h, &a.next, &h->k.proven);
    h->k.judged_ms = h->now_ms, h->k.until_ms = verdict.until_s * 1000;
    h->k.error_id = 0, h->k.detail = bytes_of(NULL, 0);
    return err;
}

enum grey_error verifier_hear(const struct verifier *v, const struct verifier_message *m, struct bytes kept, int64_t now_ms,
                              struct builder *next, enum exchange_word *word, struct builder *reply, struct fault *f) {
    static enum grey_error (*const hearers[])(struct hearing *) = {[EXCHANGE_ASK] = hear_ask,
                                                                   [EXCHANGE_INTRODUCTION] = hear_introduction,
                                                                   [EXCHANGE_SECRET] = hear_secret,
                                                                   [EXCHANGE_EVIDENCE] = hear_evidence};
    struct fault own = {.text = ""};
    struct hearing h = {.v = v, .m = m, .now_ms = now_ms, .word = EXCHANGE_REFUSAL, .reply = reply, .f = &own};
    builder_init(&h.scratch, ATTESTED_BYTES_MAX);
    enum grey_error err = get_kept(kept, &h.k);
    if (err != E_OK) {
        err = fault_set(&own, err, "what is kept of it cannot be read");
    } else if (m->revoked) {
        err = fault_set(&own, E_REVOKED, "the gateway was shut out at the core");
    } else if (!exchange_goes_up(m->word)) {
        err = fault_set(&own, E_ATTEST_FORMAT, "a gateway does not say that");
    } else {
        err = hearers[m->word](&h);
    }
    struct bytes detail = bytes_str(own.text);
    if (err != E_OK && err != E_NO_MEMORY) {
        builder_reset(reply);
        h.word = EXCHANGE_REFUSAL;
        exchange_put_refusal(reply, err, detail);
        while (detail.size > EXCHANGE_DETAIL_BYTES || !bytes_utf8_valid(detail)) {
            detail.size--;
        }
        if (!h.unasked) {
            h.k.error_id = (uint64_t)error_id(err), h.k.detail = detail;
            h.k.judged_ms = now_ms;
        }
    }
    if (h.k.who.site.size > 0) {
        put_kept(next, &h.k); /* a stranger of whom nothing was taken leaves nothing */
    }
    *word = h.word;
    err = next->err != E_OK ? next->err : reply->err != E_OK ? reply->err : err;
    builder_free(&h.scratch);
    if (f != NULL) {
        *f = own;
    }
    return err;
}

const char *verifier_state_name(enum verifier_state s) {
    static const char *const names[] = {"none", "pending", "trusted", "failed", "expired"};
    return names[s];
}

enum grey_error verifier_look(struct bytes kept, int64_t now_ms, struct verifier_facts *out) {
    struct kept k;
    memset(out, 0, sizeof *out);
    enum grey_error err = get_kept(kept, &k);
    if (err != E_OK || kept.size == 0) {
        return err;
    }
    out->type = k.type;
    out->judged_ms = k.judged_ms, out->until_ms = k.until_ms;
    out->why = error_by_id((int)k.error_id);
    out->detail = k.detail;
    out->state = k.error_id != 0        ? VERIFIER_FAILED
                 : k.until_ms == 0      ? VERIFIER_PENDING
                 : now_ms >= k.until_ms ? VERIFIER_EXPIRED
                                        : VERIFIER_TRUSTED;
    return E_OK;
}

bool verifier_measured(struct bytes kept, struct attested *out) {
    struct kept k;
    return get_kept(kept, &k) == E_OK && k.proven.size > 0 && attested_get(k.proven, out) == E_OK && out->seen;
}
