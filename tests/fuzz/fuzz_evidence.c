/* Everything that comes to a verifier, as a stranger would send it: what is accepted has one encoding, and nothing of it passes as genuine. */
#include <string.h>

#include "core/verifier.h"
#include "federation/attest/inquiry.h"
#include "include/grey/must.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void same(struct builder *b, struct bytes in) {
    must(b->err == E_OK && bytes_equal(builder_bytes(b), in));
    builder_reset(b);
}

/* The statement alone, then in evidence that answers the question that was asked, so that the checks behind are reached. */
static void try_statement(struct bytes in, struct builder *b) {
    static struct reference policy;
    struct evidence_statement s;
    struct attested known;
    struct appraisal a;
    if (evidence_get_statement(in, &s) != E_OK) {
        return;
    }
    evidence_put_statement(b, &s);
    same(b, in);
    memset(&known, 0, sizeof known);
    memset(&policy, 0, sizeof policy);
    policy.name = bytes_str("fuzz"), policy.types = 15, policy.pcr_mask = s.pcr_mask, policy.validity_s = 60;
    known.type = s.type;
    memcpy(known.key.name, s.key_name, sizeof s.key_name);
    struct appraise_question q = {.who = s.who, .policy = &policy, .known = &known};
    memcpy(q.nonce, s.nonce, sizeof s.nonce);
    struct evidence e = {.statement = in, .quote = in};
    evidence_put(b, &e);
    must(appraise(&q, builder_bytes(b), &a, NULL) != E_OK);
    builder_reset(b);
}

/* A verifier hears it as each word, from a gateway that it does not know and from one of whom it keeps these bytes. */
static void try_words(struct bytes in, struct builder *b) {
    static struct reference policy;
    struct verifier v = {.name = "fuzz", .policy = &policy};
    struct builder next;
    struct fault f;
    policy.name = bytes_str("fuzz"), policy.types = 15, policy.pcr_mask = 1, policy.validity_s = 60;
    builder_init(&next, VERIFIER_KEPT_BYTES_MAX);
    for (int word = EXCHANGE_ASK; word < EXCHANGE_WORDS; word++) {
        const struct verifier_message m = {
            .site = bytes_str("s"), .node = bytes_str("n"), .word = (enum exchange_word)word, .body = in};
        enum exchange_word answer;
        for (int known = 0; known < 2; known++) {
            struct verifier_facts facts;
            enum grey_error err = verifier_hear(&v, &m, known ? in : bytes_of(NULL, 0), 1000, &next, &answer, b, &f);
            must((err == E_OK) == (answer != EXCHANGE_REFUSAL) && answer != EXCHANGE_RESULT);
            must(next.size == 0 || verifier_look(builder_bytes(&next), 1000, &facts) == E_OK);
            builder_reset(&next);
            builder_reset(b);
        }
    }
    builder_free(&next);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct reference policy;
    struct bytes in = bytes_of(data, size);
    struct builder b;
    struct evidence e;
    struct introduction i;
    struct credential c;
    struct attested a;
    struct inquiry question;
    struct inquiry_order order;
    struct verifier_facts facts;
    enum grey_error why;
    struct bytes detail;
    builder_init(&b, 4u << 20);
    if (inquiry_get(in, &question) == E_OK) {
        inquiry_put(&b, &question);
        same(&b, in);
    }
    if (inquiry_get_order(in, &order) == E_OK) {
        inquiry_put_order(&b, &order);
        same(&b, in);
    }
    (void)exchange_get_refusal(in, &why, &detail);
    (void)verifier_look(in, 0, &facts);
    try_words(in, &b);
    if (evidence_get(in, &e) == E_OK) {
        evidence_put(&b, &e);
        same(&b, in);
        try_statement(e.statement, &b);
    }
    try_statement(in, &b);
    if (introduce_get(in, &i) == E_OK) {
        introduce_put(&b, &i);
        same(&b, in);
    }
    if (introduce_get_challenge(in, &c) == E_OK) {
        introduce_put_challenge(&b, &c);
        same(&b, in);
    }
    if (attested_get(in, &a) == E_OK) {
        attested_put(&b, &a);
        same(&b, in);
    }
    if (reference_get(in, &policy) == E_OK) {
        reference_put(&b, &policy);
        same(&b, in);
    }
    builder_free(&b);
    return 0;
}
