#include "agent/identity/attestor.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "federation/attest/inquiry.h"
#include "federation/attest/introduce.h"
#include "include/grey/limits.h"
#include "platform/errand.h"
#include "platform/log.h"
#include "platform/now.h"
#include "platform/wholefile.h"

#define LIMIT_MS 30000u     /* for one grey-tpm; some chips need seconds for a key */
#define PATIENCE_MS 60000u  /* for a word of the verifier, or a period; then the question is asked anew */
#define AGAIN_MS_MIN 5000u  /* after a refusal; doubled each time up to the period */
#define UNSAID_MS_MIN 1000u /* while nobody takes a word; doubled likewise */
#define RESULT_FILE "attestation"

struct attestor {
    struct loop *loop;
    struct attestor_options o;
    bool (*say)(void *context, enum exchange_word word, struct bytes body);
    void *context;
    struct errand errand;
    enum exchange_word making; /* by the errand that runs */
    struct loop_timer timer;
    uint64_t again_ms, unsaid_ms;
    bool refused;
    bool left_out; /* the boot log, from the last evidence, as the verifier wished */
    enum grey_error why;
    char detail[EXCHANGE_DETAIL_BYTES + 1];
    uint8_t result[VERDICT_BYTES_MAX];
    size_t result_size;
    uint8_t status;
    int64_t from_s, until_s;
};

static bool has_tpm(const struct attestor *a) {
    return a->o.type == ATTEST_TPM2 || a->o.type == ATTEST_VTPM;
}

static void note(struct attestor *a, enum grey_error why, const char *detail) {
    a->why = why;
    (void)snprintf(a->detail, sizeof a->detail, "%s", detail);
    log_limited(LOG_WARN, "attestor", "fail", "error=GREY-%d %s: %s", error_id(why), error_sentence(why), a->detail);
}

/* --- the result --------------------------------------------------------------------------------------------------------------------------- */

/* A result of this gateway, by the verifier, not older than the one that is there. */
static enum grey_error take_result(struct attestor *a, struct bytes in, struct fault *f) {
    struct verdict v;
    uint8_t keys[1][KEYS_ED25519_PUBLIC_BYTES];
    memcpy(keys[0], a->o.verifier_key, sizeof keys[0]);
    enum grey_error err = verdict_open(in, (const uint8_t(*)[KEYS_ED25519_PUBLIC_BYTES])keys, 1, now_wall_ms() / 1000, &v, f);
    if (err != E_OK) {
        return err;
    }
    if (!attest_identity_equal(&v.who, &a->o.who) || v.type != a->o.type || v.from_s < a->from_s) {
        return fault_set(f, E_ATTEST_RESULT, "it is of another gateway, or an old one");
    }
    memcpy(a->result, in.data, in.size);
    a->result_size = in.size;
    a->status = v.status, a->from_s = v.from_s, a->until_s = v.until_s;
    return E_OK;
}

static void keep_result(struct attestor *a) {
    char path[LIMIT_PATH_BYTES + 32];
    struct fault f;
    (void)snprintf(path, sizeof path, "%.*s/" RESULT_FILE, (int)LIMIT_PATH_BYTES, a->o.data_dir);
    if (wholefile_leave(path, bytes_of(a->result, a->result_size), 0600, &f) != E_OK) { /* after a crash it is asked for anew */
        log_warn("attestor", "keep", "%s", f.text);
    }
}

static void load_result(struct attestor *a) {
    char path[LIMIT_PATH_BYTES + 32];
    uint8_t room[VERDICT_BYTES_MAX];
    struct fault f = {.text = ""};
    (void)snprintf(path, sizeof path, "%.*s/" RESULT_FILE, (int)LIMIT_PATH_BYTES, a->o.data_dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t got = fd < 0 ? -1 : read(fd, room, sizeof room);
    if (fd >= 0) {
        (void)close(fd);
    }
    if (got > 0 && take_result(a, bytes_of(room, (size_t)got), &f) != E_OK) {
        log_info("attestor", "pass-over", "%s: %s", path, f.text);
    }
}

/* --- what is said -------------------------------------------------------------------------------------------------------------------------- */

static uint64_t period_ms(const struct attestor *a) {
    return (uint64_t)a->o.period_s * 1000;
}

/* Asks again after *wait_ms, which is doubled for the next time. */
static void after(struct attestor *a, uint64_t *wait_ms) {
    uint64_t most_ms = period_ms(a);
    loop_timer_after(a->loop, &a->timer, *wait_ms < most_ms ? *wait_ms : most_ms);
    *wait_ms = *wait_ms * 2 < most_ms ? *wait_ms * 2 : most_ms;
}

static void again(struct attestor *a) {
    after(a, &a->again_ms);
}

static void say(struct attestor *a, enum exchange_word word, struct bytes body) {
    if (a->say(a->context, word, body)) {
        a->unsaid_ms = UNSAID_MS_MIN;
        loop_timer_after(a->loop, &a->timer, period_ms(a) < PATIENCE_MS ? period_ms(a) : PATIENCE_MS);
    } else { /* nobody to say it to yet: whoever makes the link calls attestor_ask; this is for the case that it is lost */
        after(a, &a->unsaid_ms);
    }
}

static void made(void *context, enum grey_error err, struct bytes output, const char *words) {
    struct attestor *a = context;
    if (err == E_OK) {
        say(a, a->making, output);
        return;
    }
    note(a, E_TPM, words[0] != 0 ? words : error_sentence(err));
    again(a);
}

static void order(struct attestor *a, const char *verb, enum exchange_word word, struct bytes input, size_t output_max) {
    struct fault f = {.text = ""};
    a->making = word;
    enum grey_error err = errand_start(&a->errand, a->loop, a->o.socket, verb, input, output_max, LIMIT_MS, made, a, &f);
    if (err != E_OK && err != E_BUSY) { /* busy: the same word came twice */
        note(a, E_TPM, f.text);
        again(a);
    }
}

static void put_order(struct attestor *a, struct bytes inquiry, struct builder *out) {
    const struct inquiry_order o = {.type = a->o.type, .who = a->o.who, .inquiry = inquiry};
    builder_init(out, INQUIRY_ORDER_BYTES_MAX);
    inquiry_put_order(out, &o);
}

static bool read_document(const struct attestor *a, uint8_t *room, size_t *size) {
    int fd = a->o.document == NULL ? -1 : open(a->o.document, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, room, ATTEST_DOCUMENT_BYTES_MAX);
    if (fd >= 0) {
        (void)close(fd);
    }
    *size = got > 0 ? (size_t)got : 0;
    return got > 0;
}

/* Without a TPM the signing key vouches. */
static void say_signed(struct attestor *a, const struct inquiry *i) {
    struct evidence_statement s = {.type = a->o.type, .who = a->o.who, .made_ms = now_wall_ms()};
    struct evidence e = {.quote = bytes_of(NULL, 0)};
    struct builder statement, out;
    uint8_t document[ATTEST_DOCUMENT_BYTES_MAX];
    size_t size = 0;
    if (a->o.type == ATTEST_INSTANCE && !read_document(a, document, &size)) {
        note(a, E_ATTEST_DOCUMENT, "it cannot be read here");
        again(a);
        return;
    }
    s.document = bytes_of(document, size);
    memcpy(s.nonce, i->nonce, sizeof s.nonce);
    builder_init(&statement, ATTEST_STATEMENT_BYTES_MAX);
    builder_init(&out, ATTEST_EVIDENCE_BYTES_MAX);
    evidence_put_statement(&statement, &s);
    e.statement = builder_bytes(&statement);
    evidence_sign(e.statement, a->o.secret_key, e.signature);
    evidence_put(&out, &e);
    if (statement.err == E_OK && out.err == E_OK) {
        say(a, EXCHANGE_EVIDENCE, builder_bytes(&out));
    }
    builder_free(&out);
    builder_free(&statement);
}

void attestor_ask(struct attestor *a) {
    struct builder b;
    if (a->errand.busy) {
        return;
    }
    put_order(a, bytes_of(NULL, 0), &b);
    if (b.err == E_OK) {
        say(a, EXCHANGE_ASK, builder_bytes(&b));
    }
    builder_free(&b);
}

static void on_timer(void *context) {
    attestor_ask(context);
}

/* --- what is heard --------------------------------------------------------------------------------------------------------------------------- */

static void hear_inquiry(struct attestor *a, struct bytes body) {
    struct inquiry i;
    struct builder b;
    if (inquiry_get(body, &i) != E_OK) {
        note(a, E_ATTEST_FORMAT, "the verifier's question cannot be read");
        return;
    }
    a->left_out = i.boot_log_known;
    if (!has_tpm(a)) {
        say_signed(a, &i);
        return;
    }
    put_order(a, body, &b);
    order(a, "quote", EXCHANGE_EVIDENCE, builder_bytes(&b), ATTEST_EVIDENCE_BYTES_MAX);
    builder_free(&b);
}

static void hear_result(struct attestor *a, struct bytes body) {
    struct fault f = {.text = ""};
    enum grey_error err = take_result(a, body, &f);
    if (err != E_OK) {
        note(a, err, f.text);
        again(a);
        return;
    }
    keep_result(a);
    a->refused = false, a->why = E_OK, a->detail[0] = 0;
    a->again_ms = AGAIN_MS_MIN;
    log_info("attestor", "trusted", "status=%u until=%" PRId64, a->status, a->until_s);
    /* Before it is over, whatever the policy and the period say. */
    int64_t left_s = a->until_s - now_wall_ms() / 1000;
    uint64_t half_ms = left_s > 2 ? (uint64_t)left_s * 500 : 1000;
    loop_timer_after(a->loop, &a->timer, half_ms < period_ms(a) ? half_ms : period_ms(a));
}

static void hear_refusal(struct attestor *a, struct bytes body) {
    enum grey_error why;
    struct bytes detail;
    char text[EXCHANGE_DETAIL_BYTES + 1];
    if (exchange_get_refusal(body, &why, &detail) != E_OK) {
        note(a, E_ATTEST_FORMAT, "the verifier's answer cannot be read");
        return;
    }
    if (why == E_ATTEST_BOOT_LOG && a->left_out) { /* registers or policy changed: it will ask for the log */
        a->left_out = false;
        attestor_ask(a);
        return;
    }
    memcpy(text, detail.data, detail.size);
    text[detail.size] = 0;
    a->refused = a->refused || why != E_ATTEST_NONCE; /* a word that came late or twice says nothing against this gateway */
    note(a, why, text);
    again(a);
}

void attestor_hear(struct attestor *a, enum exchange_word word, struct bytes body) {
    struct builder b;
    switch (word) {
    case EXCHANGE_INTRODUCE:
        put_order(a, bytes_of(NULL, 0), &b);
        order(a, "introduce", EXCHANGE_INTRODUCTION, builder_bytes(&b), INTRODUCE_BYTES_MAX);
        builder_free(&b);
        return;
    case EXCHANGE_CHALLENGE:
        if (body.size <= INTRODUCE_CHALLENGE_BYTES_MAX) {
            order(a, "activate", EXCHANGE_SECRET, body, CREDENTIAL_SECRET_BYTES);
        }
        return;
    case EXCHANGE_INQUIRY:
        hear_inquiry(a, body);
        return;
    case EXCHANGE_RESULT:
        hear_result(a, body);
        return;
    case EXCHANGE_REFUSAL:
        hear_refusal(a, body);
        return;
    default:
        note(a, E_ATTEST_FORMAT, "a verifier does not say that");
    }
}

/* --- life --------------------------------------------------------------------------------------------------------------------------------- */

const char *attestor_state_name(enum attestor_state s) {
    static const char *const names[] = {"pending", "trusted", "failed", "expired"};
    return names[s];
}

void attestor_facts(const struct attestor *a, struct attestor_facts *out) {
    int64_t now_s = now_wall_ms() / 1000;
    *out = (struct attestor_facts){
        .type = a->o.type, .status = a->status, .from_s = a->from_s, .until_s = a->until_s, .why = a->why, .detail = a->detail};
    out->state = a->refused            ? ATTESTOR_FAILED
                 : a->result_size == 0 ? ATTESTOR_PENDING
                 : now_s >= a->until_s ? ATTESTOR_EXPIRED
                                       : ATTESTOR_TRUSTED;
}

struct attestor *attestor_new(struct loop *l, const struct attestor_options *o,
                              bool (*say_it)(void *context, enum exchange_word word, struct bytes body), void *context,
                              struct fault *f) {
    struct attestor *a = mem_new(1, sizeof *a);
    if (a == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "attestation");
        return NULL;
    }
    a->loop = l;
    a->o = *o;
    a->say = say_it;
    a->context = context;
    a->again_ms = AGAIN_MS_MIN;
    a->unsaid_ms = UNSAID_MS_MIN;
    a->timer = (struct loop_timer){.fire = on_timer, .context = a};
    load_result(a);
    loop_timer_after(l, &a->timer, 0);
    return a;
}

void attestor_free(struct attestor *a) {
    if (a != NULL) {
        errand_stop(&a->errand);
        loop_timer_cancel(a->loop, &a->timer);
        mem_free(a);
    }
}
